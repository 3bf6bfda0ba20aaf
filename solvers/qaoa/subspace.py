"""QAOA that never leaves the feasible states, on the exact simulator: a native solver."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from solvers.base import Request, Solution
from solvers.errors import ParameterError
from solvers.problem import CardinalityProblem
from solvers.qaoa.rounds import RoundsQAOA, Rows
from solvers.qaoa.sampler import describe
from solvers.qaoa.solver import Trained


class SubspaceQAOA(RoundsQAOA):
    """Dicke state, `depth` layers of cost and XY or Grover mixer, shots from the exact state.

    ``info`` has the exact mean energy (``expectation``); the final circuit counts as ``execute``.

    Args:
        max_variables: largest problem it takes.
        num_threads: threads of a state-vector evaluation; the machine's when None.
    """

    name = "qaoa-subspace"
    mixers: ClassVar = {
        mixer: mixer for mixer in ("complete", "complete-trotter", "ring", "grover")
    }

    def __init__(self, max_variables: int = 20, *, num_threads: int | None = None) -> None:
        self.max_variables = max_variables
        self.num_threads = num_threads

    def _known(self, mixer: str | None) -> str:
        if mixer == "x":
            raise ParameterError(
                "mixer is 'x', which leaves the feasible states: use the solver qaoa-aer"
            )
        return super()._known(mixer)

    def _measure(
        self, problem: CardinalityProblem, request: Request, trained: Trained, reads: int
    ) -> tuple[Rows, dict[str, Any]]:
        simulator = trained.simulator
        with request.timing.stage("execute"):
            weights = simulator.probabilities(trained.angles)
            ranks = _draw(weights, reads, request.rng)
        with request.timing.stage("postprocess"):
            states = simulator.states(ranks)
            request.report(states[np.argmin(simulator.costs[ranks])].astype(np.bool_))
        info = {
            **trained.said,
            "amplitudes": simulator.dim,
            "expectation": float(weights @ simulator.costs),
            **describe(trained.angles),
        }
        return states, info

    def _answer(
        self, problem: CardinalityProblem, request: Request, rows: Rows, info: dict[str, Any]
    ) -> Solution:
        return Solution(rows, info)


def _draw(weights: Any, reads: int, rng: np.random.Generator) -> Any:
    cumulated = np.cumsum(weights)
    ranks = np.searchsorted(cumulated, rng.random(reads) * cumulated[-1], side="right")
    return np.minimum(ranks, len(weights) - 1)
