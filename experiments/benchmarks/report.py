"""The report of a large store: seconds, and bytes of the page.

A real study of small random blocks is run once; its rows are then copied, with times and energies
scattered and new seeds, until there are as many as asked for. Prints the seconds of `write`, by
part, and the sizes of what it leaves.

    python -m experiments.benchmarks.report [--rows 100000] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import sqlite3
import tempfile
import time
from pathlib import Path

import numpy as np

from experiments import Study, run
from experiments.report import write
from solvers import CardinalityProblem

SOLVERS = ("greedy", "descent", "annealing", "tabu", "relaxation", "neal", "ocean-tabu", "random")
SIZES = (16, 64, 256)


def blocks(each: int) -> list[CardinalityProblem]:
    """Random low-rank blocks of `SIZES` with an incumbent, `each` of every size and Fisher."""
    out = []
    for seed in range(each):
        for n in SIZES:
            for fisher, curvature in (("sequence", 0.3), ("position", 3.0)):
                rng = np.random.default_rng([seed, n, int(curvature)])
                start = np.zeros(n, dtype=np.bool_)
                start[rng.permutation(n)[: n // 2]] = True
                out.append(
                    CardinalityProblem(
                        linear=rng.normal(size=n),
                        cardinality=n // 2,
                        factor=curvature * rng.normal(size=(8, n)) / np.sqrt(n),
                        initial=start,
                        meta={"layer": f"layer{seed}", "fisher": fisher, "model": "random"},
                    )
                )
    return out


def large_store(path: Path, rows: int) -> None:
    """Writes a store of at least `rows` runs."""
    study = Study("large", blocks(6), SOLVERS, [0.005, 0.01, 0.02], seeds=[0])
    run(study, path, progress=False)
    rng = np.random.default_rng(0)
    with sqlite3.connect(path) as db:
        db.row_factory = sqlite3.Row
        originals = [dict(row) for row in db.execute("SELECT * FROM runs")]
        curves: dict[str, list[tuple[float, float]]] = {}
        for key, seconds, energy in db.execute("SELECT run, seconds, energy FROM incumbents"):
            curves.setdefault(key, []).append((seconds, energy))
        names = list(originals[0])
        marks = ", ".join("?" * len(names))
        for copy in range(1, -(-rows // len(originals))):
            copies, improvements = [], []
            for row in originals:
                slower = float(rng.lognormal(0, 0.2))
                worse = float(rng.choice([0.0, rng.exponential(0.01)]))
                new = row | {"key": f"{row['key']}-{copy}", "seed_index": copy, "seed": copy}
                if row["energy"] is not None:
                    new["energy"] = row["energy"] + worse * abs(row["energy"])
                    new["wall"] = row["wall"] * slower
                copies.append(tuple(new[name] for name in names))
                improvements += [
                    (new["key"], seconds * slower, energy + worse * abs(energy))
                    for seconds, energy in curves.get(row["key"], [])
                ]
            db.executemany(f"INSERT INTO runs VALUES ({marks})", copies)
            db.executemany("INSERT OR REPLACE INTO incumbents VALUES (?, ?, ?)", improvements)


def main() -> None:
    """Runs and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--out", type=Path, help="keeps store and page there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = arguments.out or Path(folder)
        out.mkdir(parents=True, exist_ok=True)
        store = out / "large.sqlite"
        if not store.exists():
            large_store(store, arguments.rows)
        start = time.perf_counter()
        page = write(store, out / "page")
        print(f"report of {store.stat().st_size / 1e6:.0f} MB of store: "
              f"{time.perf_counter() - start:.1f} s")  # fmt: skip
        for path in sorted(page.parent.iterdir()):
            if path.is_file():
                print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
