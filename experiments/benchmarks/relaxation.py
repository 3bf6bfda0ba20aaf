"""The relaxation's bound: never above the optimum, how far below it, and how fast on real blocks.

First 200 random problems whose optimum `enumerate` proves; then, if given, real instances with the
median time of 5 solves, first JIT compilation excluded. With ``--shift`` instead, for each instance
with H times 1, 10, 100 and 1000, the bound with and without the diagonal shift of
`solvers.exact.diagonal_shift` on what reduced costs leave open.

    python -m experiments.benchmarks.relaxation [--instances 'blocks/*.block.safetensors'] [--shift]
"""

from __future__ import annotations

import argparse
import glob
import os
from dataclasses import replace
from statistics import median

import numpy as np

from experiments.benchmarks.solvers import mean_energy
from solvers import Budget, CardinalityProblem, load, make
from solvers.exact.diagonal_shift import diagonally_shifted
from solvers.exact.interval import core
from solvers.exact.relaxation import bound, relaxed


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


def shift(path: str, seconds: float = 2.0) -> None:
    """Prints what the diagonal shift closes of the gap that the plain bound leaves.

    The gap is to the best energy that `exact` finds in `seconds`; shares are of the way from the
    bound to the mean over all feasible masks.
    """
    block = load(path)
    for curvature in (1, 10, 100, 1000):
        assert block.factor is not None
        problem = replace(block, factor=block.factor * np.sqrt(curvature)).blinded()
        about = f"{block.meta['fisher']:9s} n {block.n:5d} r {block.rank:3d} x{curvature:<4d}"
        plain = bound(problem)
        samples = make("exact").sample_problem(problem, budget=Budget(time_limit=seconds), seed=0)
        best = min(plain.upper_bound, float(samples.first.energy))
        gap = max(0.0, best - plain.lower_bound)
        if gap <= plain.best.tolerance:
            print(f"{about}: no gap")
            continue
        g = plain.costs
        free = np.flatnonzero(core(g, problem.cardinality, gap + plain.best.tolerance))
        inside = np.zeros(problem.n, dtype=np.bool_)
        inside[np.argsort(g, kind="stable")[: problem.cardinality]] = True
        sub = problem.restricted(free, at=inside)
        share = gap / (mean_energy(problem) - plain.lower_bound)
        about += f": gap {share:.2e}, core {sub.n}"
        if sub.n > sub.rank or not 0 < sub.cardinality < sub.n:
            print(f"{about}: no shift (G of the core is singular)")
            continue
        shifted = diagonally_shifted(sub)
        lower = shifted.lower_bound(relaxed(shifted).dual)
        closed = (lower - bound(sub).lower) / gap
        print(f"{about}, {closed:.1%} of it closed by the shift")


def main() -> None:
    """Runs and prints."""
    parser = argparse.ArgumentParser(description="The relaxation's bound: validity, gap, speed.")
    parser.add_argument("--instances", default="", help="glob of container files")
    parser.add_argument("--shift", action="store_true", help="measure the diagonal shift instead")
    arguments = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.2f}")
    paths = sorted(glob.glob(arguments.instances)) if arguments.instances else []  # noqa: PTH207
    if arguments.shift:
        for path in paths:
            shift(path)
        return
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
    for path in paths:
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
