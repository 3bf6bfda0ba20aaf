"""Feeds every reader with mutated files and counts what comes of it.

    python -m tests.fuzz.run --format all --count 10000 --seed 0 --out results/fuzz/outcomes.csv
    python -m tests.fuzz.run --format lp --replay failures/lp-17

Each format has a process of its own, at most two at a time. A load may take 2 s of the processor,
20 s in all, and 500 MB of address space more than the process has after its imports. Outcomes:
``loaded`` (and what was loaded stood its checks), ``clear error`` (of the reader's documented
tree), and the failures: ``loaded wrong``, ``wrong error``, ``memory``, ``hang``, ``crash``, ``wrote
outside`` (a file that is not the reader's), ``executed`` (a program, a pickle, a socket, code that
is no library's). A hang is one only if it is one again with nothing before it. Failing samples are
kept. Ends with status 1 if there is any.
"""

import argparse
import csv
import datetime
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from experiments.record.host import describe
from tests.fuzz.judge import BAD, OUTCOMES, SECONDS, WAITING, Judge, limited_memory
from tests.fuzz.targets import MODULES, target
from tests.fuzz.worker import generator

# Samples a process loads before a fresh one goes on.
CHUNK = 2500
START_SECONDS = 120
_PRINT = threading.Lock()


class Worker:
    """A process that loads the samples from `start` to `stop`."""

    def __init__(self, name, seed, start, stop):
        self.base = Path(tempfile.mkdtemp(prefix="fuzz-")).resolve()
        self.log = (self.base.parent / f"{self.base.name}.log").open("w+")
        command = [sys.executable, "-m", "tests.fuzz.worker", name]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
                       "TOKENIZERS_PARALLELISM": "false", "MALLOC_ARENA_MAX": "2",
                       "PYTHONPATH": str(Path.cwd())}  # fmt: skip
        self.process = subprocess.Popen(
            [*command, *map(str, (seed, start, stop, self.base))],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log, env=environment,
        )  # fmt: skip
        self._buffer = b""

    def line(self, seconds):
        """The next line, "" at the end, None if there is none in time."""
        while b"\n" not in self._buffer:
            if not select.select([self.process.stdout], [], [], seconds)[0]:
                return None
            data = os.read(self.process.stdout.fileno(), 1 << 16)
            if not data:
                return ""
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()

    def end(self, keep=None):
        """Ends the process; its last sample goes to the folder `keep`. Returns what it wrote."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        if keep is not None:
            shutil.rmtree(keep, ignore_errors=True)
            shutil.copytree(self.base / "sample", keep, symlinks=True, copy_function=_copy)
        shutil.rmtree(self.base)
        self.log.seek(0)
        said = self.log.read()
        self.log.close()
        Path(self.log.name).unlink()
        return said


def _copy(source, to, **options):
    if not Path(source).is_fifo():
        shutil.copy2(source, to, follow_symlinks=False)


def verdicts(name, seed, start, stop):
    """Verdict after verdict, whatever becomes of the processes that load."""
    number = start
    while number < stop:
        last = min(stop, number - number % CHUNK + CHUNK)
        worker = Worker(name, seed, number, last)
        if not worker.line(START_SECONDS):
            raise SystemExit(f"{name}: the worker does not start: {worker.end()[-2000:]}")
        while number < last:
            line = worker.line(WAITING + 8)
            if line:
                verdict = json.loads(line)
            else:
                said = worker.end()
                kind = "hang" if line is None else "crash"
                verdict = {"number": number, "kind": "", "outcome": kind, "error": "",
                           "detail": said[-500:], "seconds": SECONDS}  # fmt: skip
            yield verdict
            number += 1
            if not line:
                break
        else:
            worker.end()


def fuzz(name, count, seed, failures):
    """Counts by outcome of one format, and the longest load of each outcome."""
    counts, slowest = Counter(), Counter()
    retried = 0
    for verdict in verdicts(name, seed, 0, count):
        number, outcome = verdict["number"], verdict["outcome"]
        if outcome == "hang":
            retried += 1
            (verdict,) = verdicts(name, seed, number, number + 1)
            outcome = verdict["outcome"]
        counts[outcome] += 1
        slowest[outcome] = max(slowest[outcome], verdict["seconds"])
        if outcome in BAD:
            folder = failures / f"{name}-{number}"
            _keep(name, seed, number, folder)
            _say(f"{folder}: {outcome} {verdict['error']} {verdict['detail'][:300]!r}")
        if (number + 1) % 1000 == 0:
            bad = sum(counts[kind] for kind in BAD)
            _say(f"{name}: {number + 1} of {count}, {bad} failures")
    if retried:
        _say(f"{name}: {retried} loads beyond {SECONDS:g} s were tried again")
    return counts, slowest


def _say(text):
    with _PRINT:
        print(text, flush=True)


def _keep(name, seed, number, folder):
    """The sample made again, below `folder`."""
    from tests.fuzz.judge import write_sample

    chosen = target(name)
    sample, _ = chosen.sample(generator(name, seed, number), chosen.seeds())
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_sample(sample, folder)


def replay(name, path):
    """Loads a kept sample in this process and prints its verdict."""
    from tests.fuzz.mutate import Link

    chosen = target(name)
    sample = {
        str(file.relative_to(path)): Link(str(file.readlink()))
        if file.is_symlink()
        else Link("pipe")
        if file.is_fifo()
        else file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_symlink() or not file.is_dir()
    }
    with tempfile.TemporaryDirectory() as base:
        judge = Judge(Path(base).resolve())
        with judge.settled():
            for seed in chosen.seeds():
                judge.load(chosen, seed)
            with limited_memory():
                print(judge.load(chosen, sample))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--format", default="all", choices=["all", *MODULES])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="CSV; a JSON of the host lies beside it")
    parser.add_argument("--failures", type=Path, default=Path("failures"))
    parser.add_argument("--replay", type=Path, help="a kept sample, loaded once")
    options = parser.parse_args()
    if options.replay:
        return replay(options.format, options.replay)
    names = list(MODULES) if options.format == "all" else [options.format]
    # Two at a time, the slow ones first.
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(
            lambda name: fuzz(name, options.count, options.seed, options.failures), reversed(names)
        )
        results = dict(zip(reversed(names), found, strict=True))
    rows = [
        {"format": name, "outcome": outcome, "count": results[name][0][outcome],
         "slowest_seconds": round(results[name][1][outcome], 3), "inputs": options.count,
         "seed": options.seed}
        for name in names
        for outcome in OUTCOMES
    ]  # fmt: skip
    print(f"{'format':<12}" + "".join(f"{outcome:>15}" for outcome in OUTCOMES))
    for name in names:
        print(f"{name:<12}" + "".join(f"{results[name][0][kind]:>15}" for kind in OUTCOMES))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with options.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        host = {"date": today, "host": describe()}
        options.out.with_suffix(".json").write_text(json.dumps(host, indent=2) + "\n")
    return int(any(row["count"] for row in rows if row["outcome"] in BAD))


if __name__ == "__main__":
    raise SystemExit(main())
