"""The library of transferred angles: medians of trained ones over training sub-blocks.

Each block is cut to `SIZE` variables by `experiments.instances.subblocks`; angles of every mixer
and depth are trained on it. Keep the blocks apart from those a result is reported on.

    python -m experiments.scripts.qaoa_library BLOCK... --out solvers/qaoa/library.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.instances.subblocks import nested_subblocks
from experiments.progress import cell_progress
from solvers import CardinalityProblem, load
from solvers.penalised.penalty import penalty_weight
from solvers.qaoa.simulator.subspace import MIXERS, Simulator
from solvers.qaoa.training import median, normalised, optimise, scan

SIZE = 12
DEPTHS = range(1, 9)
# In units of the mean |linear bias|; of 0.03, 0.1, 0.3, 1, 3 the best ratio and P(optimum).
X_PENALTY = 0.3


def simulator_of(problem: CardinalityProblem, mixer: str, penalty: float = X_PENALTY) -> Simulator:
    """One-thread simulator with the penalty that all reported results use."""
    weight = penalty_weight(problem, penalty) if mixer == "x" else None
    return Simulator(problem, mixer, penalty=weight, num_threads=1)


def medians(problems: Sequence[CardinalityProblem]) -> dict[str, Any]:
    """What ``library.json`` holds."""
    angles: dict[str, dict[str, Any]] = {}
    with cell_progress("Training angles", len(MIXERS) * len(DEPTHS), show=True) as advance:
        for mixer in MIXERS:
            simulators = [simulator_of(problem, mixer) for problem in problems]
            for depth in DEPTHS:
                found = median([
                    normalised(optimise(s, scan(s, depth)), s) for s in simulators
                ])  # fmt: skip
                angles.setdefault(mixer, {})[str(depth)] = {
                    "gammas": [round(gamma, 4) for gamma in found.gammas],
                    "betas": [round(beta, 4) for beta in found.betas],
                }
                advance()
    return {
        "n": SIZE,
        "problems": len(problems),
        "layers": [problem.meta["layer"] for problem in problems],
        "angles": angles,
    }


def main() -> None:
    """Cuts, trains, writes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("blocks", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    problems = [nested_subblocks(load(path), [SIZE])[SIZE] for path in args.blocks]
    args.out.write_text(json.dumps(medians(problems), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
