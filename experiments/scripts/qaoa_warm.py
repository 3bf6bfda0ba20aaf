"""QAOA from a warm start and from a cold one, beside the classical answer it starts from.

The same nine rows as in `experiments.scripts.qaoa_groups`: sub-blocks of 12 and 16 variables of one
group, half of them ones, and 2:4 sub-blocks of 8 to 32. Exact state vectors, complete XY mixer. A
warm start is biased by one read of swap descent from a random start (see `solvers.qaoa.warm`); it
is *blind*: the descent does not see the current mask. ``p_start`` is how likely a shot is to show
the optimum before any layer, ``classical`` the share of rows on which the classical answer already
is the optimum.

    python -m experiments.scripts.qaoa_warm --out results/qaoa
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from experiments.instances.subblocks import nested_subblocks
from experiments.scripts.qaoa_groups import (
    DEPTHS,
    ITERATIONS,
    SIZES,
    TRAINED,
    is_best,
    measured,
)
from experiments.scripts.qaoa_quality import summary
from solvers import CardinalityProblem
from solvers.clock.deadline import NEVER
from solvers.qaoa.angles import Angles
from solvers.qaoa.circuit.ansatz import groups_of, subspace_ansatz
from solvers.qaoa.sampler import describe
from solvers.qaoa.simulator.subspace import Simulator
from solvers.qaoa.training import normalised, optimise, scan, transfer
from solvers.qaoa.warm import warm_started

ONE_GROUP = (12, 16)
SOLVER = "descent"
STILL = Angles.given([0.0], [0.0])


def compared(
    kind: str, problems: dict[int, CardinalityProblem], seed: int
) -> Iterator[dict[str, object]]:
    """One record for each size, start and depth."""
    found: dict[tuple[str, int], Angles] = {}
    for n, problem in problems.items():
        warm = warm_started(problem.blinded(), SOLVER, seed, NEVER)
        for start, odds in (("cold", None), ("warm", warm.odds)):
            simulator = Simulator(problem, odds=odds, num_threads=2)
            best, costs = is_best(simulator), simulator.costs
            own = None if odds is None else tuple(odds.tolist())
            for depth in DEPTHS:
                if n <= TRAINED:
                    angles = optimise(simulator, scan(simulator, depth), iterations=ITERATIONS)
                    found[start, depth] = normalised(angles, simulator)
                else:
                    angles = transfer(found[start, depth], simulator)
                weights = simulator.probabilities(angles)
                size = describe(angles, subspace_ansatz(groups_of(problem), (), depth, odds=own))
                yield {
                    "kind": kind,
                    "n": n,
                    "start": start,
                    "depth": depth,
                    "angles": "trained" if n <= TRAINED else f"of the row's n = {TRAINED}",
                    "p_optimum": weights[best].sum(),
                    "p_start": simulator.probabilities(STILL)[best].sum(),
                    "ratio": (costs.mean() - weights @ costs) / (costs.mean() - costs.min()),
                    "classical": float(warm.energy <= costs[best].max() + 1e-9 * np.ptp(costs)),
                    "gates_without_cost": size["two_qubit_gates"],
                    "depth_without_cost": size["two_qubit_depth"],
                }


def both(row: CardinalityProblem, number: int) -> Iterator[dict[str, object]]:
    """The sub-blocks of one group and those of the pattern."""
    ungrouped = replace(row, groups=None, cardinalities=None)
    yield from compared("one group", nested_subblocks(ungrouped, ONE_GROUP), number)
    yield from compared("2:4", nested_subblocks(row, SIZES), number)


def main() -> None:
    """Cuts, runs, summarises."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    keys = ["kind", "n", "start", "depth", "angles"]
    measures = ("p_optimum", "ratio", "p_start", "classical", "gates_without_cost",
                "depth_without_cost")  # fmt: skip
    table = summary(measured("Warm and cold starts", both), keys, measures)
    table.to_csv(args.out / "warm.csv", index=False, float_format="%.4g")


if __name__ == "__main__":
    main()
