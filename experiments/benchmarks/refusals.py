"""Seconds to a refusal: the ten commonest mistakes on the command line, each as a process.

``python -m experiments.benchmarks.refusals`` types each mistake three times, one after another in
rounds, and writes the medians of wall and CPU seconds to ``results/trust/refusals.csv``, with the
load average of the machine beside them: wall seconds under a load are not those of an idle machine.
Models and studies are those that come with the package, so nothing is fetched.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

ROUNDS = 3
OUT = Path("results/trust/refusals.csv")
MISTAKES = {
    "layers that match nothing": "prune garment-mlp --layers *.nope --out out",
    "a wrong N:M pattern": "prune garment-mlp --set pattern=5:4 --out out",
    "density in per cent": "prune garment-mlp --density 50 --out out",
    "a solver's typo": "prune garment-mlp --solver relaxatoin --out out",
    "a study's typo": "bench by-sise",
    "a missing store": "report none.sqlite --out out",
    "a missing model folder": "evaluate ./no-such-model",
    "a setting's typo": "prune garment-mlp --set blocksize=8 --out out",
    "a device's typo": "evaluate garment-mlp --device gpu",
    "a negative time limit": "prune garment-mlp --time-limit -3 --out out",
}
"""What is wrong, and the words after ``icbs``."""


def refused(words: str, folder: Path) -> tuple[float, float, str]:
    """Types a command line in an empty folder.

    Returns:
        Wall seconds, CPU seconds, and the last line it says.

    Raises:
        AssertionError: it was not refused, or left something.
    """
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "icbs", *words.split()],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode in (1, 2), (words, done)
    assert "Traceback" not in done.stderr, done.stderr
    assert not list(folder.iterdir()), words
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, done.stderr.splitlines()[-1]


def measure(rounds: int = ROUNDS) -> pd.DataFrame:
    """One row a mistake: medians over the rounds."""
    found: dict[str, list[tuple[float, float]]] = {mistake: [] for mistake in MISTAKES}
    loads, said = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            for mistake, words in MISTAKES.items():
                loads.append(os.getloadavg()[0])
                wall, cpu, said[mistake] = refused(words, Path(folder))
                found[mistake].append((wall, cpu))
    return pd.DataFrame(
        {
            "mistake": mistake,
            "command": f"icbs {MISTAKES[mistake]}",
            "wall": round(statistics.median(wall for wall, _ in times), 2),
            "cpu": round(statistics.median(cpu for _, cpu in times), 2),
            "runs": rounds,
            "load": round(statistics.median(loads), 1),
            "cores": os.cpu_count(),
            "says": said[mistake],
        }
        for mistake, times in found.items()
    )


def main() -> None:
    """Measures, prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT, help="the table to write")
    out = parser.parse_args().out
    table = measure()
    table.to_csv(out, index=False)
    print(table.drop(columns=["says", "command"]).to_string(index=False))


if __name__ == "__main__":
    main()
