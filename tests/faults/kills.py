"""Kills drivers and workers of a running study at random moments, and counts what that did.

    python -m tests.faults.kills --drivers 100 --workers 50 --out kills.json

Every store is compared, cell by cell, with that of a study nobody disturbed. Drivers are forked
from one process that has everything imported: kills fall into the run and not into the imports.
Ends with status 1 if a cell is lost, run again after it was written, or different, or if a store is
damaged at any time.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from experiments import Store, Study, load_runs, run
from experiments.record.ledger import STAGES
from experiments.running.pool import WorkerPool
from tests.faults.solvers import LOG, Telling
from tests.study_fixtures import block, spec

TIMINGS = ["wall", "cpu", "load", "started", "bound_seconds", "invocation", *STAGES]


def study(cells):
    """So many cells of 20 ms on four instances."""
    instances = [block(n, seed=s) for n in (12, 20) for s in (0, 1)]
    return Study("kills", instances, [spec(Telling)], [10.0], seeds=range(-(-cells // 4)))


def rows(path):
    frame = load_runs(path).drop(columns=TIMINGS)
    return frame.sort_values("key").reset_index(drop=True)


def differences(path, reference):
    """Cells lost, and cells whose row is not the undisturbed one's."""
    found, wanted = rows(path), rows(reference)
    lost = len(set(wanted["key"]) - set(found["key"]))
    extra = len(found) - len(set(found["key"]) & set(wanted["key"]))
    both = found[found["key"].isin(wanted["key"])].reset_index(drop=True)
    same = wanted[wanted["key"].isin(found["key"])].reset_index(drop=True)
    changed = sum(a != b for a, b in zip(_lines(both), _lines(same), strict=True))
    return {"cells": len(wanted), "lost": lost, "extra": extra, "different": changed}


def _lines(frame):
    return frame.to_csv(index=False).splitlines()


def finished(path):
    """Seeds of the cells that are written; also proves that the file is whole."""
    if not path.exists() or path.stat().st_size == 0:
        return set(), True
    with Store(path, create=True) as store:
        whole = store._rows("PRAGMA integrity_check") == [("ok",)]
        return {seed for (seed,) in store._rows("SELECT seed FROM runs")}, whole


def notes(log, start=0):
    text = log.read_text()[start:] if log.exists() else ""
    return [line.split() for line in text.splitlines()]


def kill_drivers(folder, kills, seed, workers=1, cells=1600):
    """One store, one driver after the other, each killed within the first 0.6 s.

    With worker processes, which have to start first, within 3 s.
    """
    rng = random.Random(seed)
    path, log = folder / "driver.sqlite", folder / "driver.log"
    os.environ[LOG] = str(log)
    plan, moments, repeated, damaged = study(cells), Counter(), 0, 0
    done: set[int] = set()
    while moments.total() < kills:
        before_bytes = log.stat().st_size if log.exists() else 0
        driver = os.fork()
        if driver == 0:
            run(plan, path, workers=workers, progress=False)
            os._exit(0)
        time.sleep(rng.uniform(0.0, 0.6 if workers == 1 else 3.0))
        ended, _ = os.waitpid(driver, os.WNOHANG)
        if ended:
            raise SystemExit(f"the study ended after {moments.total()} kills: give it more cells")
        os.kill(driver, signal.SIGKILL)
        os.waitpid(driver, 0)
        if workers > 1:
            time.sleep(0.3)  # its workers must notice before the log is read
        heard = notes(log, before_bytes)
        now, whole = finished(path)
        started = {int(s) for kind, _, s in heard if kind == "S"}
        open_ = Counter()
        for kind, process, _ in heard:
            open_[process] += 1 if kind == "S" else -1
        busy = any(open_.values())
        moments["during a cell" if busy else "between cells" if started else "before a cell"] += 1
        # A cell that was written before this driver started must not have been run by it.
        repeated += len(started & done) + len(done - now)
        damaged += not whole
        done = now
    run(plan, path, progress=False)
    undisturbed = folder / "driver-undisturbed.sqlite"
    os.environ[LOG] = os.devnull
    run(plan, undisturbed, progress=False)
    return {
        "kills": kills, "moments": dict(moments), "written when killed": len(done),
        "repeated": repeated, "damaged": damaged, **differences(path, undisturbed),
    }  # fmt: skip


def kill_workers(folder, kills, seed, cells=2400):
    """A driver with two workers, of which one is killed every half second."""
    rng = random.Random(seed)
    path, log = folder / "worker.sqlite", folder / "worker.log"
    os.environ[LOG] = str(log)
    moments, over = Counter(), threading.Event()
    plan = study(cells)
    with WorkerPool(2) as pool:

        def killer():
            while moments.total() < kills and not over.wait(rng.uniform(0.3, 0.7)):
                victim = rng.choice(pool.processes)
                last = [kind for kind, process, _ in notes(log) if process == str(victim)]
                try:
                    os.kill(victim, signal.SIGKILL)
                except ProcessLookupError:
                    continue
                moments[
                    "starting" if not last else "during a cell" if last[-1] == "S" else "between"
                ] += 1

        thread = threading.Thread(target=killer)
        thread.start()
        outcome = run(plan, path, executor=pool, workers=2, progress=False)
        over.set()
        thread.join()
    _, whole = finished(path)
    starts = Counter(int(s) for kind, _, s in notes(log) if kind == "S")
    ends = Counter(int(s) for kind, _, s in notes(log) if kind == "E")
    os.environ[LOG] = os.devnull
    undisturbed = folder / "worker-undisturbed.sqlite"
    run(plan, undisturbed, progress=False)
    return {
        "kills": moments.total(), "moments": dict(moments), "counts": outcome.counts,
        "run again": sum(n > 1 for n in starts.values()),
        # Its answer may have been on the way when the worker was killed.
        "answered twice": sum(n > 1 for n in ends.values()),
        "damaged": int(not whole), **differences(path, undisturbed),
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drivers", type=int, default=100)
    parser.add_argument("--pools", type=int, default=0, help="drivers with two workers")
    parser.add_argument("--workers", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cells", type=int, default=None)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    results = {}
    size = {} if given.cells is None else {"cells": given.cells}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.drivers:
            results["driver"] = kill_drivers(folder, given.drivers, given.seed, **size)
        if given.pools:
            (folder / "pools").mkdir()
            results["driver of two workers"] = kill_drivers(
                folder / "pools", given.pools, given.seed, 2, **(size or {"cells": 4000})
            )
        if given.workers:
            results["worker"] = kill_workers(folder, given.workers, given.seed, **size)
    text = json.dumps(results, indent=1)
    print(text)
    if given.out:
        given.out.write_text(text + "\n")
    bad = ("lost", "extra", "different", "repeated", "damaged")
    sys.exit(any(result.get(key) for result in results.values() for key in bad))


if __name__ == "__main__":
    main()
