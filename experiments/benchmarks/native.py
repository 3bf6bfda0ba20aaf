"""Native search measured: against the published algorithm, on threads, compiling, cached fields.

    python -m experiments.benchmarks.native published 'blocks/*-n1024-sequence*' --restarts 20
    python -m experiments.benchmarks.native threads blocks/*-n1024-position*
    python -m experiments.benchmarks.native compile
    python -m experiments.benchmarks.native crossover
    python -m experiments.benchmarks.native limits 'blocks/*-n4096-*'

``published``: the proving solver (`relaxation`) and `reference-sa` in turn on each block, seconds
inside the solver and of the whole call. ``threads``: 64 annealing reads on one thread and on two.
``compile``: the warm-up of each solver in a process of its own, with an empty compilation cache,
then with the one that the first left. ``crossover``: descent and annealing with fields kept through
the factor and through a dense G, building G included.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from glob import glob
from statistics import median
from typing import Any, TypeVar

import numpy as np

from experiments.warmup import warm_up
from solvers import Budget, CardinalityProblem, load, make
from solvers.clock.deadline import Deadline
from solvers.clock.warmup import tiny_problems
from solvers.search.repair import LocalSearch
from solvers.search.schedule import cooling, hottest
from solvers.search.walks import Walk

T = TypeVar("T")
SEARCHES = ("greedy", "descent", "annealing", "tabu", "tempering", "relaxation", "exact",
            "reference-sa")  # fmt: skip
FIRST_CALL = """
import sys, time
from experiments.warmup import warm_up
from solvers.clock.warmup import tiny_problems
from solvers import make
sampler = make(sys.argv[1])
times = []
for _ in range(2):
    start = time.perf_counter()
    for tiny in tiny_problems(8, 4, dense=False):
        warm_up(sampler, tiny)
    times.append(time.perf_counter() - start)
print(times[0] - times[1])
"""


def blocks(patterns: list[str]) -> list[CardinalityProblem]:
    """The blocks with their variables permuted, without current mask."""
    rng = np.random.default_rng(0)
    paths = sorted(path for pattern in patterns for path in glob(pattern))  # noqa: PTH207
    return [load(path).permuted(rng) for path in paths]


def timed(function: Callable[..., T], *args: Any, **kwargs: Any) -> tuple[float, T]:
    """Seconds of wall time, and what the call returned."""
    start = time.perf_counter()
    result = function(*args, **kwargs)
    return time.perf_counter() - start, result


def published(patterns: list[str], restarts: int, repeats: int) -> None:
    """Seconds inside the solver and of the whole call, taken in turn; energies; the ratios."""
    for block in blocks(patterns):
        problem = block.blinded()
        budgets = {"relaxation": Budget(), "reference-sa": Budget(reads=restarts)}
        inside: dict[str, list[float]] = {name: [] for name in budgets}
        whole: dict[str, list[float]] = {name: [] for name in budgets}
        last: dict[str, Any] = {}
        for name in budgets:
            make(name).sample_problem(problem, budget=Budget(reads=1), seed=0)
        for seed in range(repeats):
            for name, budget in budgets.items():
                wall, last[name] = timed(
                    make(name).sample_problem, problem, budget=budget, seed=seed
                )
                inside[name].append(last[name].info["timing"]["execute"])
                whole[name].append(wall)
        print(f"{described(block)}, reference-sa with {restarts} restarts")
        for name in budgets:
            print(
                f"  {name:12s} {median(inside[name]):.3g} s in the solver, "
                f"{median(whole[name]):.3g} s end to end, E {last[name].first.energy:.9g}, "
                f"proved {last[name].info.get('proved_optimal', False)}"
            )
        ratios = (
            median(kind["reference-sa"]) / median(kind["relaxation"]) for kind in (inside, whole)
        )
        print("  ratio {:.0f} in the solver, {:.0f} end to end".format(*ratios))


def threads(patterns: list[str], repeats: int) -> None:
    """Wall time of 64 reads on one thread over that on two; the samples must be the same."""
    for block in blocks(patterns):
        problem, budget = block.blinded(), Budget(reads=64)
        walls: dict[int, list[float]] = {1: [], 2: []}
        states = []
        for repeat in range(repeats + 1):
            for count, out in walls.items():
                solver = make("annealing", num_threads=count)
                wall, samples = timed(solver.sample_problem, problem, budget=budget, seed=1)
                states.append(samples.record.sample)
                # The first round warms up.
                if repeat:
                    out.append(wall)
        same = all(np.array_equal(states[0], other) for other in states)
        one, two = median(walls[1]), median(walls[2])
        print(
            f"{described(block)}: 64 reads {one:.3g} s on one thread, {two:.3g} s on two: "
            f"{one / two:.2f} times; samples {'the same' if same else 'DIFFER'}"
        )


def described(block: CardinalityProblem) -> str:
    """Layer, Fisher, size."""
    meta = block.meta
    return f"{meta['layer']} {meta['fisher']} n {block.n} r {block.rank}"


def compilation() -> None:
    """Seconds that a first warm-up takes longer than a second, without and with a cache."""
    for name in SEARCHES:
        with tempfile.TemporaryDirectory() as cache:
            environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
            cold, warm = (
                float(
                    subprocess.run(
                        [sys.executable, "-c", FIRST_CALL, name],
                        env=environment, check=True, capture_output=True, text=True,
                    ).stdout
                )
                for _ in range(2)
            )  # fmt: skip
        print(f"{name:13s} empty cache {cold:6.2f} s, filled cache {warm:6.3f} s")


def crossover(sizes: list[int], ranks: list[int]) -> None:
    """Seconds for a descent and for 200 sweeps of annealing, fields by factor and by G."""
    for n in sizes:
        for rank in ranks:
            rng = np.random.default_rng(rank)
            problem = CardinalityProblem(
                linear=rng.normal(size=n),
                cardinality=n // 2,
                factor=rng.normal(size=(rank, n)) / np.sqrt(rank),
            )
            start = problem.random_state(rng)
            line = []
            for dense in (False, True):
                build, search = timed(LocalSearch, problem, dense)
                search.descend(start, Deadline(1e-3))
                descent, optimum = timed(search.descend, start)
                temperatures = hottest(search, optimum, np.random.default_rng(0)) * cooling(200)
                walk = Walk(search, start, np.array([1], dtype=np.uint64))
                walk.anneal(temperatures[:1])
                annealing, _ = timed(walk.anneal, temperatures)
                line.append((build, descent, annealing))
            factor, cached = line
            print(
                f"n {n:5d} r {rank:4d}: descent {1e3 * factor[1]:8.1f} ms by factor, "
                f"{1e3 * cached[1]:8.1f} by G; annealing {1e3 * factor[2]:8.1f} and "
                f"{1e3 * cached[2]:8.1f}; building G {1e3 * cached[0]:8.1f}"
            )


def limits(patterns: list[str], repeats: int) -> None:
    """The longest wall time of the repeats over the limit, for each solver and block."""
    for block in blocks(patterns):
        for curvature in (1, 1000):
            assert block.factor is not None
            problem = replace(block, factor=block.factor * np.sqrt(curvature)).blinded()
            print(f"{described(block)} x{curvature}, longest of {repeats}, of the limit")
            for name in SEARCHES:
                for tiny in tiny_problems(8, 4, dense=False):
                    warm_up(make(name), tiny)
                shares = [
                    max(
                        timed(
                            make(name).sample_problem,
                            problem,
                            budget=Budget(time_limit=limit),
                            seed=seed,
                        )[0]
                        for seed in range(repeats)
                    )
                    / limit
                    for limit in (0.1, 1.0)
                ]
                print(f"  {name:13s} {shares[0]:6.1%} of 0.1 s, {shares[1]:6.1%} of 1 s")


def main() -> None:
    """Runs and prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("what", choices=("published", "threads", "compile", "crossover", "limits"))
    parser.add_argument("blocks", nargs="*", help="globs of container files")
    parser.add_argument("--restarts", type=int, default=20, help="of reference-sa")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sizes", default="256,1024,4096", help="of crossover")
    parser.add_argument("--ranks", default="8,16,32,64,128,256", help="of crossover")
    arguments = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.2f}")
    if arguments.what == "published":
        published(arguments.blocks, arguments.restarts, arguments.repeats)
    elif arguments.what == "threads":
        threads(arguments.blocks, arguments.repeats)
    elif arguments.what == "limits":
        limits(arguments.blocks, arguments.repeats)
    elif arguments.what == "compile":
        compilation()
    else:
        sizes, ranks = (
            [int(word) for word in text.split(",")] for text in (arguments.sizes, arguments.ranks)
        )
        crossover(sizes, ranks)


if __name__ == "__main__":
    main()
