"""What running cells elsewhere costs, what a second worker gives, what a study holds in memory.

    python -m experiments.benchmarks.cluster speedup --out results/cluster
    python -m experiments.benchmarks.cluster overhead --out results/cluster
    python -m experiments.benchmarks.cluster memory --out results/cluster

``speedup``: a study of 200 cells of fixed work, 0.25 s or more each, on Dask clusters of one and
of two workers in turn, each worker on one thread. ``overhead``: wall time of a study of tiny cells,
less the solvers' own, by cell. ``memory``: peak resident memory of the driver against the number of
cells; each study in a process of its own. Cells up to 100,000 are solved; those of the second curve
are too large for their solver and skipped, which takes the same path through plan and store.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments import SolverSpec, Study, load_runs, run
from experiments.record.ledger import STAGES
from solvers import Budget, CardinalityProblem, make

TIMINGS = ["wall", "cpu", "load", "started", "bound_seconds", "invocation", *STAGES]
# Before any worker starts: they inherit it.
os.environ.setdefault("NUMBA_NUM_THREADS", "1")


def problem(n: int, seed: int, rank: int = 16) -> CardinalityProblem:
    """A random block."""
    rng = np.random.default_rng([n, seed])
    factor = rng.standard_normal((rank, n))
    return CardinalityProblem(linear=rng.standard_normal(n), cardinality=n // 2, factor=factor)


def rows(path: Path) -> str:
    """What a store says, timings left out."""
    return load_runs(path).drop(columns=TIMINGS).sort_values("key").to_csv(index=False)


def work(seconds: float) -> tuple[Budget, list[CardinalityProblem]]:
    """Instances, and a number of reads that takes at least so long on each."""
    problems = [problem(1024, seed) for seed in range(10)]
    solver, reads = make("annealing", num_threads=1), 4
    while True:
        start = time.perf_counter()
        solver.sample_problem(problems[0], budget=Budget(reads=reads), seed=0)
        spent = time.perf_counter() - start
        # Some room: no cell may be shorter.
        if spent >= 1.3 * seconds and reads > 4:
            return Budget(reads=reads), problems
        reads = 2 * reads if spent < seconds / 2 else reads + max(1, reads // 4)


def speedup(out: Path) -> None:
    """Wall time on one and on two workers."""
    from distributed import LocalCluster

    budget, problems = work(0.25)
    options = {"num_threads": 1}
    solvers = [SolverSpec("annealing", options=options)]
    study = Study("speedup", problems, solvers, [budget], seeds=range(20))
    first = Study("warm", problems, solvers, [Budget(reads=1)], seeds=range(4))
    found, texts = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (
            LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as one,
            LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as two,
        ):
            clusters = {1: one.scheduler_address, 2: two.scheduler_address}
            for round_, order in enumerate(((1, 2), (2, 1))):
                for workers in order:
                    store = folder / f"{round_}-{workers}.sqlite"
                    # Problems are registered and solvers compiled before the clock starts.
                    run(first, store, scheduler=clusters[workers], progress=False)
                    start = time.perf_counter()
                    run(study, store, scheduler=clusters[workers], progress=False)
                    seconds = time.perf_counter() - start
                    frame = load_runs(store).query("reads > 1")
                    texts.append(rows(store))
                    found.append(
                        {"round": round_, "workers": workers, "cells": len(frame),
                         "seconds": seconds, "shortest_cell": frame["wall"].min(),
                         "median_cell": frame["wall"].median(), "load": frame["load"].max()}
                    )  # fmt: skip
    frame = pd.DataFrame(found)
    total = frame.groupby("workers")["seconds"].sum()
    frame["speedup"] = total[1] / total[2]
    frame["identical_rows"] = len(set(texts)) == 1
    _save(frame, out / "speedup.csv")


def overhead(out: Path, cells: int = 600, rounds: int = 3) -> None:
    """Milliseconds a cell beyond the solver's call."""
    from distributed import LocalCluster

    problems = [problem(16, seed) for seed in range(4)]
    study = Study("overhead", problems, ["greedy"], [1.0], seeds=range(4, 4 + cells // 4))
    first = Study("warm", problems, ["greedy"], [1.0], seeds=range(4))
    found = []
    with (
        tempfile.TemporaryDirectory() as name,
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as one,
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as two,
    ):
        places: dict[str, dict[str, Any]] = {
            "in process": {},
            "dask, 1 worker": {"scheduler": one.scheduler_address},
            "dask, 2 workers": {"scheduler": two.scheduler_address},
        }
        for round_ in range(rounds):
            for place, where in places.items():
                store = Path(name) / f"{round_}-{place}.sqlite"
                run(first, store, progress=False, **where)
                start = time.perf_counter()
                run(study, store, progress=False, **where)
                seconds = time.perf_counter() - start
                frame = load_runs(store)
                frame = frame[frame["seed_index"] >= 4]
                solver = frame["wall"].sum()
                found.append(
                    {"round": round_, "place": place, "cells": len(frame), "seconds": seconds,
                     "solver_ms": 1e3 * solver / len(frame),
                     "overhead_ms": 1e3 * (seconds - solver) / len(frame)}
                )  # fmt: skip
            found += _isolated(Path(name), round_, problems, cells)
    frame = pd.DataFrame(found)
    _save(frame, out / "overhead.csv")
    print(frame.groupby("place")["overhead_ms"].median())


def _isolated(
    folder: Path, round_: int, problems: list[CardinalityProblem], cells: int
) -> list[dict[str, Any]]:
    """Worker processes, kept over the warm-up as a long study keeps them."""
    from experiments.running.pool import WorkerPool

    found = []
    for workers in (1, 2):
        place = f"worker processes, {workers}"
        store = folder / f"{round_}-{place}.sqlite"
        study = Study("overhead", problems, ["greedy"], [1.0], seeds=range(4, 4 + cells // 4))
        first = Study("warm", problems, ["greedy"], [1.0], seeds=range(4))
        with WorkerPool(workers) as pool:
            run(first, store, executor=pool, workers=workers, progress=False)
            start = time.perf_counter()
            run(study, store, executor=pool, workers=workers, progress=False)
            seconds = time.perf_counter() - start
        frame = load_runs(store)
        frame = frame[frame["seed_index"] >= 4]
        solver = frame["wall"].sum()
        found.append(
            {"round": round_, "place": place, "cells": len(frame), "seconds": seconds,
             "solver_ms": 1e3 * solver / len(frame),
             "overhead_ms": 1e3 * (seconds - solver) / len(frame)}
        )  # fmt: skip
    return found


def one_study(cells: int, skip: bool) -> None:
    """A study in this process; prints its peak memory in MiB and its seconds."""
    import resource

    spec = SolverSpec("greedy", max_variables=1 if skip else None)
    problems = [problem(16, seed) for seed in range(10)]
    study = Study("memory", problems, [spec], [1.0], seeds=range(cells // 10))
    with tempfile.TemporaryDirectory() as name:
        start = time.perf_counter()
        outcome = run(study, Path(name) / "s.sqlite", progress=False)
        seconds = time.perf_counter() - start
    assert sum(outcome.counts.values()) == cells
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, seconds)


def memory(out: Path) -> None:
    """Peak memory against number of cells, and its figure."""
    from matplotlib.figure import Figure

    found = []
    plan = [(10**e, True) for e in (2, 3, 4, 5, 6)] + [(10**e, False) for e in (2, 3, 4, 5)]
    for cells, skip in plan:
        command = [sys.executable, "-m", "experiments.benchmarks.cluster", "one", "--cells",
                   str(cells), *(["--skip"] if skip else [])]  # fmt: skip
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        peak, seconds = map(float, said.split())
        found.append({"cells": cells, "skipped": skip, "peak_mib": peak, "seconds": seconds})
        frame = pd.DataFrame(found)
        _save(frame, out / "memory.csv")
    figure = Figure(figsize=(4.2, 2.8), layout="constrained")
    axes = figure.subplots()
    for skip, label in ((False, "solved (greedy, n = 16)"), (True, "skipped")):
        part = frame[frame["skipped"] == skip]
        axes.plot(part["cells"], part["peak_mib"], marker="os"[skip], label=label)
    axes.set(xscale="log", xlabel="cells of the study", ylabel="peak memory of the driver, MiB")
    axes.set_ylim(0, 1.25 * frame["peak_mib"].max())
    axes.legend(frameon=False)
    figure.savefig(out / "memory.png", dpi=160)


def _save(frame: pd.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(path, index=False, float_format="%.4g")
    print(frame.to_string(), flush=True)


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["speedup", "overhead", "memory", "one"])
    parser.add_argument("--out", type=Path, default=Path("results/cluster"))
    parser.add_argument("--cells", type=int, default=100)
    parser.add_argument("--skip", action="store_true")
    given = parser.parse_args()
    parts: dict[str, Callable[[Path], None]] = {
        "speedup": speedup, "overhead": overhead, "memory": memory,
    }  # fmt: skip
    if given.what == "one":
        one_study(given.cells, given.skip)
    else:
        parts[given.what](given.out)


if __name__ == "__main__":
    main()
