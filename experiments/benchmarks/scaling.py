"""What a study of 10^6 cells on 100 workers would take, and what breaks first.

    python -m experiments.benchmarks.scaling costs      CPU time a cell: driver, scheduler, worker
    python -m experiments.benchmarks.scaling validate   simulated against measured, 1 to 8 workers
    python -m experiments.benchmarks.scaling sweep      100 workers, by mean cell time

`costs` runs tiny cells on a scheduler and a worker in processes of their own and reads what CPU
time each process used, which hardly depends on what else the machine does. `validate` runs cells
that sleep, which take no CPU from their neighbours, on more workers than there are CPUs, and
simulates the same cells with these costs. `sweep` draws cells from the walls of
``results/solvers/map.csv``, scaled to a mean; column ``simulated`` says how many.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from experiments import Store, Study, load_runs, run
from experiments.benchmarks.cluster import problem
from experiments.benchmarks.simulation import Costs, Simulation
from experiments.study.spec import SolverSpec
from solvers import CardinalitySampler
from solvers.base import Solution

OUT = Path("results/scaling")
WORKERS = 100
CELLS = 1_000_000
# Simulated at every mean; their last long ones weigh more than those of a million.
SOME = 20_000
MEANS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 10.0, 60.0)
HOUR = 3600.0
# Mean seconds until a worker is taken away: never; a day; jobs of four hours.
LIFETIMES = {"never": None, "24 h": 24 * HOUR, "4 h": 4 * HOUR}


class Sleeping(CardinalitySampler):
    """Sleeps as long as its seed says, 0.2 s in the median."""

    name = "sleeping"
    honours: ClassVar[tuple[str, ...]] = ("time_limit",)

    def _solve(self, problem: Any, request: Any, **parameters: Any) -> Solution:
        time.sleep(0.2 * float(request.rng.lognormal(0.0, 0.5)))
        return Solution((np.arange(problem.n) < problem.cardinality)[None])


@contextmanager
def cluster(workers: int) -> Iterator[tuple[str, list[int]]]:
    """A scheduler and workers as processes: its address, and the ids, the scheduler's first."""
    from distributed import Client

    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        file = Path(name) / "scheduler.json"
        command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0", "--host",
                   "127.0.0.1", "--dashboard-address", "127.0.0.1:0", "--scheduler-file",
                   str(file)]  # fmt: skip
        worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file",
                  str(file), "--nthreads", "1", "--no-nanny", "--no-dashboard"]  # fmt: skip
        running = []
        for one in [command] + [worker] * workers:
            process = subprocess.Popen(one, stderr=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            running.append(process.pid)
            while not file.exists():
                time.sleep(0.1)
        with Client(scheduler_file=str(file), set_as_default=False) as client:
            client.wait_for_workers(workers, timeout=120)
            address = client.scheduler.address
        yield address, running


def _cpu(process: int | None) -> float:
    import psutil

    times = psutil.Process(process).cpu_times()
    return float(times.user + times.system)


def costs(cells: int = 600) -> pd.DataFrame:
    """Seconds a cell, and of the store's write and a message's way."""
    from distributed import Client

    problems = [problem(16, seed) for seed in range(4)]
    with tempfile.TemporaryDirectory() as name, cluster(1) as (address, (scheduler, worker)):
        store = Path(name) / "s.sqlite"
        first = Study("warm", problems, ["greedy"], [1.0], seeds=range(4))
        run(first, store, scheduler=address, progress=False)
        study = Study("costs", problems, ["greedy"], [1.0], seeds=range(4, 4 + cells // 4))
        before = [_cpu(one) for one in (None, scheduler, worker)]
        run(study, store, scheduler=address, progress=False)
        after = [_cpu(one) for one in (None, scheduler, worker)]
        driver, on_scheduler, on_worker = (np.array(after) - before) / cells
        solver = load_runs(store)["cpu"].mean()
        trips = []
        with Client(address, set_as_default=False) as client:
            for number in range(200):
                start = time.perf_counter()
                client.submit(abs, -number, pure=False).result()
                trips.append(time.perf_counter() - start)
        write = _write(store, Path(name) / "w.sqlite")
    spent = {
        "driver": driver, "of it store write": write, "scheduler": on_scheduler,
        "worker beside the call": max(0.0, on_worker - solver),
        "round trip of an empty task": float(np.median(trips)),
    }  # fmt: skip
    return pd.DataFrame({"what": spent.keys(), "milliseconds": 1e3 * np.array([*spent.values()])})


def _write(source: Path, target: Path) -> float:
    """Seconds of `Store.add_run`, by cell."""
    with Store(source) as old, Store(target, create=True) as new:
        names = [name for _, name, *_ in old._rows("PRAGMA table_info(runs)")]
        rows = [dict(zip(names, row, strict=True)) for row in old._rows("SELECT * FROM runs")]
        for instance in old.sizes():
            new.add_instance(old.problem(instance), "copy")
        while new.add_invocation("copy", {}, {}) < max(row["invocation"] for row in rows):
            pass
        start = time.perf_counter()
        for row in rows:
            new.add_run(row, [(0.5, 1.0), (1.0, row["energy"])])
        return (time.perf_counter() - start) / len(rows)


def measured_costs() -> Costs:
    """The costs of the simulation from ``costs.csv``."""
    found = pd.read_csv(OUT / "costs.csv").set_index("what")["milliseconds"] / 1e3
    driver, write, scheduler = found["driver"], found["of it store write"], found["scheduler"]
    busy = driver - write + scheduler
    latency = max(0.0, (found["round trip of an empty task"] - busy) / 4)
    return Costs(
        submit=(driver - write) / 2,
        record=(driver - write) / 2 + write,
        out=scheduler / 2,
        back=scheduler / 2,
        worker=found["worker beside the call"],
        latency=latency,
    )


def validate(cells: int = 240) -> pd.DataFrame:
    """Seconds of a real and of a simulated study of the same cells."""
    spec = SolverSpec("sleeping", sampler=Sleeping())
    problems = [problem(16, seed) for seed in range(4)]
    rows = []
    for workers in (1, 2, 8):
        count = min(cells, 60 * workers)
        with tempfile.TemporaryDirectory() as name, cluster(workers) as (address, _):
            store = Path(name) / "s.sqlite"
            first = Study("warm", problems, [spec], [5.0], seeds=range(2 * workers))
            run(first, store, scheduler=address, progress=False)
            seeds = range(1000, 1000 + count // 4)
            start = time.perf_counter()
            run(Study("v", problems, [spec], [5.0], seeds=seeds), store, scheduler=address,
                progress=False)  # fmt: skip
            seconds = time.perf_counter() - start
            frame = load_runs(store).query("seed_index >= 1000").sort_values("started")
        ahead = max(2, 4 // workers)
        made = Simulation(iter(frame["wall"]), workers, measured_costs(), ahead=ahead).run()
        rows.append(
            {"workers": workers, "cells": len(frame), "mean_cell": frame["wall"].mean(),
             "measured": seconds, "simulated": made.makespan,
             "ratio": made.makespan / seconds}
        )  # fmt: skip
    return pd.DataFrame(rows)


def drawn(mean: float, cells: int) -> Iterator[float]:
    """Cell times with the spread of a real study's, scaled to a mean."""
    walls = pd.read_csv("results/solvers/map.csv")["wall"].to_numpy()
    walls = walls * (mean / walls.mean())
    rng = np.random.default_rng(0)
    for start in range(0, cells, 10_000):
        yield from rng.choice(walls, min(10_000, cells - start)).tolist()


def sweep() -> pd.DataFrame:
    """Utilisation, makespan of 10^6 cells, and who is busy how much."""
    cases = [(mean, lifetime, SOME) for mean in MEANS for lifetime in LIFETIMES]
    rows = []
    for mean, lifetime, cells in [*cases, (1.0, "never", CELLS)]:
        found = Simulation(
            drawn(mean, cells), WORKERS, measured_costs(), lifetime=LIFETIMES[lifetime]
        ).run()
        assert found.done + found.errors == cells
        rows.append(
            {"mean_cell": mean, "lifetime": lifetime, **asdict(found), "simulated": cells,
             "utilisation": found.utilisation, "driver_busy": found.driver / found.makespan,
             "scheduler_busy": found.scheduler / found.makespan,
             "hours_of_a_million": found.makespan * CELLS / cells / HOUR}
        )  # fmt: skip
    return pd.DataFrame(rows)


def draw(frame: pd.DataFrame, path: Path) -> None:
    """Utilisation of the workers against the mean cell time, of studies of `SOME` cells."""
    frame = frame[frame["simulated"] == SOME]
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 3.0), layout="constrained")
    axes = figure.subplots()
    for (lifetime, part), marker in zip(frame.groupby("lifetime", sort=False), "osD", strict=True):
        label = "no worker dies" if lifetime == "never" else f"workers live {lifetime} in the mean"
        axes.plot(part["mean_cell"], part["utilisation"], marker=marker, label=label)
    ideal = measured_costs()
    pace = ideal.submit + ideal.record
    x = np.geomspace(min(MEANS), max(MEANS), 100)
    axes.plot(x, np.minimum(1, x / (WORKERS * pace)), color="grey", linestyle=":", zorder=0,
              label="the driver's CPU allows")  # fmt: skip
    axes.set(xscale="log", ylim=(0, 1.05), xlabel="mean time of a cell, s",
             ylabel=f"utilisation of {WORKERS} workers")  # fmt: skip
    axes.legend(frameon=False, fontsize=7)
    figure.savefig(path, dpi=160)


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["costs", "validate", "sweep"])
    given = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    frame = {"costs": costs, "validate": validate, "sweep": sweep}[given.what]()
    frame.to_csv(OUT / f"{given.what}.csv", index=False, float_format="%.4g")
    print(frame.to_string())
    if given.what == "sweep":
        draw(frame, OUT / "sweep.png")


if __name__ == "__main__":
    # So that workers find the solver under its module's name.
    from experiments.benchmarks import scaling

    scaling.main()
