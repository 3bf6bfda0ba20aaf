"""Container, BQM export and scoring at n = 4096, r = 16.

Prints medians of interleaved repeats and the ratios that matter:

* container: size on disk, time to load (hash check included);
* BQM export, the dense Q's construction included, against ``dimod.BinaryQuadraticModel(Q,
  "BINARY")`` on a ready Q;
* scoring 100 states through the factor against ``bqm.energies``.

    python -m experiments.benchmarks.problem [--instance FILE] [--repeats 7]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import dimod
import numpy as np

from solvers import CardinalityProblem, load, save


def example(n: int, rank: int) -> CardinalityProblem:
    """A random problem with everything a block carries."""
    rng = np.random.default_rng(0)
    initial = np.zeros(n, dtype=np.bool_)
    initial[rng.permutation(n)[: n // 2]] = True
    return CardinalityProblem(
        linear=rng.normal(size=n),
        cardinality=n // 2,
        factor=rng.normal(size=(rank, n)),
        initial=initial,
        indices=rng.permutation(n),
    )


def timed(work: Callable[[], Any]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Runs and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--instance", type=Path, help="a container file instead of a random block")
    parser.add_argument("--repeats", type=int, default=7, help="interleaved repeats (default 7)")
    arguments = parser.parse_args()
    problem = load(arguments.instance) if arguments.instance else example(4096, 16)
    n = problem.n
    Q = 0.5 * problem.gram() + np.diag(problem.linear)
    bqm = problem.to_bqm()
    states = (np.random.default_rng(1).random((100, n)) < 0.5).astype(np.int8)
    with tempfile.TemporaryDirectory() as folder:
        path = save(problem, Path(folder) / "a.block.safetensors")
        works: dict[str, Callable[[], Any]] = {
            "container load": lambda: load(path),
            "BQM export, Q included": problem.to_bqm,
            "dimod BQM(Q) on a ready Q": lambda: dimod.BinaryQuadraticModel(Q, "BINARY"),
            "score 100 states, factor": lambda: problem.energy(states),
            "score 100 states, bqm.energies": lambda: bqm.energies((states, range(n))),
        }
        seconds: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(arguments.repeats):
            for name, work in works.items():
                seconds[name].append(timed(work))
        print(f"n = {n}, r = {problem.rank}, load average {os.getloadavg()[0]:.2f}")
        print(f"container: {path.stat().st_size / 1e6:.3f} MB")
    middle = {name: median(values) for name, values in seconds.items()}
    for name, value in middle.items():
        print(f"{name:32s} {1000 * value:10.2f} ms")
    export, ready, fast, slow = list(middle.values())[1:]
    print(f"BQM export / dimod on a ready Q: {export / ready:.2f}")
    print(f"scoring speed-up: {slow / fast:.0f}x")


if __name__ == "__main__":
    main()
