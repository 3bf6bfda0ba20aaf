"""A store of 100,000 rows: what resuming, the report and the check of it take.

    python -m experiments.benchmarks.store [--rows 100000] [--out results/store] [--keep FOLDER]

A study of random blocks is run for its first seed. The cells of the other seeds are written through
the same `Store.add_run` as a driver's: a run of the first seed, its time scattered, its state
worsened by swaps and scored anew, its curve of incumbents cut to match, under the key and seed that
the study gives that cell, so that every row stands up to the check. Then three commands run on it,
each as a user starts it, imports included: ``icbs bench --resume`` of the complete study, ``icbs
report`` and ``icbs store check``, which scores all states again. "scan" is the part of resuming
that grows with the store: the driver's call of `run`, from opening the store to knowing that every
cell is there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments import Study, run
from experiments.record import host
from experiments.record.scoring import unpacked
from experiments.store.database import Store
from experiments.study.cells import Cell
from experiments.study.spec import budget_json
from solvers import CardinalityProblem
from solvers.io import formats

SOLVERS = ("greedy", "descent", "annealing", "tabu", "relaxation", "neal", "ocean-tabu", "random")
SIZES = (16, 64, 256)
BUDGETS = (0.005, 0.01, 0.02)
EACH = 6
# Seconds that each part may take at 100,000 rows.
TARGETS = {"scan": 2.0, "icbs report": 30.0, "icbs store check": 10.0}
Curve = list[tuple[float, float]]


def blocks() -> Iterator[CardinalityProblem]:
    """Random low-rank blocks of `SIZES` with a current mask, `EACH` of every size and Fisher."""
    for seed in range(EACH):
        for n in SIZES:
            for fisher, curvature in (("sequence", 0.3), ("position", 3.0)):
                rng = np.random.default_rng([seed, n, int(curvature)])
                start = np.zeros(n, dtype=np.bool_)
                start[rng.permutation(n)[: n // 2]] = True
                yield CardinalityProblem(
                    linear=rng.normal(size=n),
                    cardinality=n // 2,
                    factor=curvature * rng.normal(size=(8, n)) / np.sqrt(n),
                    initial=start,
                    meta={"layer": f"layer{seed}", "fisher": fisher, "model": "random"},
                )


def study_of(rows: int, folder: Path) -> Path:
    """A study of at least `rows` cells, with its instances, as files."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, problem in enumerate(blocks()):
        formats.save(problem, folder / f"block{number:02d}{formats.CONTAINER}")
    seeds = -(-rows // (2 * EACH * len(SIZES) * len(SOLVERS) * len(BUDGETS)))
    path = folder / "study.toml"
    path.write_text(
        f'name = "large"\ninstances = ["*{formats.CONTAINER}"]\nsolvers = {json.dumps(SOLVERS)}\n'
        f"budgets = {list(BUDGETS)}\nseeds = {seeds}\n",
        encoding="utf-8",
    )
    return path


def fill(study: Study, path: Path) -> None:
    """Runs the first seed and writes the cells of the others after it."""
    run(replace(study, seeds=study.seeds[:1]), path, progress=False)
    with Store(path, create=True) as store:
        problems = {identity: store.problem(identity) for identity in store.sizes()}
        first = _runs_by_cell(store)
        rng = np.random.default_rng(0)
        sizes = {identity: problem.n for identity, problem in problems.items()}
        for cell in study.cells(sizes):
            label, budget = study.specs[cell.solver].label, budget_json(cell.budget)
            row, curve = first[cell.instance, label, budget]
            store.add_run(*_scattered(cell, row, curve, problems[cell.instance], rng))


def _runs_by_cell(store: Store) -> dict[tuple[str, str, str], tuple[dict[str, Any], Curve]]:
    curves: dict[str, Curve] = {}
    for key, seconds, energy in store._rows("SELECT run, seconds, energy FROM incumbents"):
        curves.setdefault(key, []).append((seconds, energy))
    names = [name for _, name, *_ in store._rows("PRAGMA table_info(runs)")]
    rows = [dict(zip(names, row, strict=True)) for row in store._rows("SELECT * FROM runs")]
    return {
        (row["instance"], row["solver"], row["budget"]): (row, sorted(curves.get(row["key"], [])))
        for row in rows
    }


def _scattered(
    cell: Cell,
    row: dict[str, Any],
    curve: Curve,
    problem: CardinalityProblem,
    rng: np.random.Generator,
) -> tuple[dict[str, Any], Curve]:
    """The row as another seed might have left it: often as good, at times some swaps worse."""
    slower = float(rng.lognormal(0, 0.2))
    new = row | {"key": cell.key, "seed": cell.seed, "seed_index": cell.seed_index}
    if row["state"] is None:
        return new, []
    state = unpacked(row["state"], problem.n).copy()
    for _ in range(int(rng.geometric(0.5)) - 1):
        state[rng.choice(np.flatnonzero(state))] = False
        state[rng.choice(np.flatnonzero(~state))] = True
    energy = float(problem.energy(state))
    new |= {"state": np.packbits(state).tobytes(), "energy": energy, "wall": row["wall"] * slower}
    found = [(seconds * slower, value) for seconds, value in curve if value > energy]
    return new, [*found, (max(new["wall"], curve[-1][0] * slower), energy)]


def measure(study: Path, store: Path, page: Path) -> pd.DataFrame:
    """Seconds of each part."""
    start = time.perf_counter()
    outcome = run(Study.from_toml(study), store, progress=False)
    spent = {"scan": time.perf_counter() - start}
    assert not outcome.counts, "cells are missing"
    commands: dict[str, list[str]] = {
        "icbs bench --resume": ["bench", str(study), "--store", str(store), "--resume"],
        "icbs report": ["report", str(store), "--out", str(page)],
        "icbs store check": ["store", "check", str(store)],
    }
    for name, command in commands.items():
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "icbs", *command], check=True)
        spent[name] = time.perf_counter() - start
    machine = host.describe()
    with Store(store) as opened:
        ((curves,),) = opened._rows("SELECT count(*) FROM incumbents")
    return pd.DataFrame(
        {
            "part": name, "seconds": seconds, "target": TARGETS.get(name),
            "rows": outcome.resumed, "incumbents": curves,
            "megabytes": store.stat().st_size / 1e6, "load": host.load_average(),
            "date": f"{datetime.now(UTC):%Y-%m-%d}", "cpu": machine["cpu"],
            "cpus": machine["usable_cpus"], "python": machine["python"],
            "pandas": pd.__version__, "numpy": np.__version__,
        }
        for name, seconds in spent.items()
    )  # fmt: skip


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=Path("results/store"))
    parser.add_argument("--keep", type=Path, help="keeps study, store and page there")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = given.keep or Path(name)
        study, store = folder / "study.toml", folder / "large.sqlite"
        if not store.exists():
            study_of(given.rows, folder)
            start = time.perf_counter()
            fill(Study.from_toml(study), store)
            print(f"filled in {time.perf_counter() - start:.0f} s", flush=True)
        frame = measure(study, store, folder / "page")
        given.out.mkdir(parents=True, exist_ok=True)
        frame.to_csv(given.out / "scale.csv", index=False, float_format="%.4g")
        print(frame.iloc[:, :6].to_string())


if __name__ == "__main__":
    main()
