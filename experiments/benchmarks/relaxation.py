"""The relaxation's bound: never above the optimum, how far below it, and how fast on real blocks.

First 200 random problems whose optimum `enumerate` proves; then, if given, real instances with the
median time of 5 solves, first JIT compilation excluded.

    python -m experiments.benchmarks.relaxation [--instances 'blocks/*.block.safetensors']
"""

from __future__ import annotations

import argparse
import glob
import os
from statistics import median

import numpy as np

from solvers import CardinalityProblem, load, make
from solvers.relaxation import bound


def random_problem(seed: int) -> CardinalityProblem:
    """Draws n = 6..16, rank 1..8, curvature from negligible to dominant, ties every fifth time."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(6, 17))
    linear = rng.normal(size=n)
    if seed % 5 == 0:
        linear = np.round(linear)
    return CardinalityProblem(
        linear=linear,
        cardinality=int(rng.integers(1, n)),
        factor=rng.normal(size=(int(rng.integers(1, 9)), n)) * 10 ** rng.uniform(-2, 1),
    )


def main() -> None:
    """Runs and prints."""
    parser = argparse.ArgumentParser(description="The relaxation's bound: validity, gap, speed.")
    parser.add_argument("--instances", default="", help="glob of container files")
    arguments = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.2f}")
    exact = make("enumerate")
    gaps, rounding, violations, proved = [], [], 0, 0
    for seed in range(200):
        problem = random_problem(seed)
        optimum = float(exact.sample_problem(problem).first.energy)
        found = bound(problem)
        spread = float(np.abs(problem.linear).sum() + 0.5 * np.abs(problem.gram()).sum())
        gaps.append((optimum - found.lower_bound) / spread)
        rounding.append((found.upper_bound - optimum) / spread)
        violations += found.lower_bound > optimum + 1e-12 * spread
        proved += found.proved_optimal
    print(f"200 random problems: bound above the optimum {violations} times, proved {proved}")
    for name, values in (("optimum - bound", gaps), ("rounded - optimum", rounding)):
        low, middle, high = np.quantile(values, (0, 0.5, 1))
        print(f"  {name:18s} of the terms' size: min {low:.1e} median {middle:.1e} max {high:.1e}")
    for path in sorted(glob.glob(arguments.instances)) if arguments.instances else ():  # noqa: PTH207
        problem = load(path)
        bounds = [bound(problem) for _ in range(6)][1:]
        one = bounds[0]
        reach = float(problem.energy(problem.initial)) if problem.initial is not None else 0.0
        print(
            f"{problem.meta.get('layer')} {problem.meta.get('fisher'):9s} n {problem.n:5d} "
            f"r {problem.rank:3d}: {1000 * median(b.seconds for b in bounds):7.2f} ms, "
            f"{one.iterations:3d} iterations, gain {reach - one.upper_bound:.3e}, "
            f"gap {one.gap:.1e}, core {one.core_size}, proved {one.proved_optimal}"
        )


if __name__ == "__main__":
    main()
