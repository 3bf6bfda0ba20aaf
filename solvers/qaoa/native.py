"""QAOA that never leaves the feasible states, on the exact simulator: the native-lane solver."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from solvers.base import CardinalitySampler, Request, Solution
from solvers.errors import ParameterError
from solvers.problem import CardinalityProblem
from solvers.qaoa.angles import Angles
from solvers.qaoa.simulator import Simulator
from solvers.qaoa.training import chosen_angles

DEFAULT_READS = 1000


class SubspaceQAOA(CardinalitySampler):
    """Dicke state, `depth` layers of cost and XY or Grover mixer, shots from the exact state.

    A time limit ends the training of angles; the last circuit and its shots come on top.

    Parameters of `sample_problem`:

    * ``depth``: layers, 4 by default;
    * ``mixer``: ``complete`` (default), ``complete-trotter``, ``ring`` or ``grover``;
    * ``angles``: ``trained`` (scan, then L-BFGS; default), ``scan``, ``ramp`` or explicit `Angles`;
    * ``alpha``: share of the best outcomes the training looks at (CVaR), 1 by default;
    * ``iterations``: L-BFGS steps, 100 by default.

    ``info`` has the angles with their label and training time and the exact mean energy
    (``expectation``); training counts as ``preprocess``, the final circuit as ``execute``.

    Args:
        max_variables: largest problem it takes.
        num_threads: threads of a state-vector evaluation; the machine's when None.
    """

    name = "qaoa-subspace"
    warm_up_by_size = True
    honours: ClassVar[tuple[str, ...]] = ("reads", "time_limit")
    extra_parameters: ClassVar[tuple[str, ...]] = (
        "depth", "mixer", "angles", "alpha", "iterations",
    )  # fmt: skip

    def __init__(self, max_variables: int = 20, *, num_threads: int | None = None) -> None:
        self.max_variables = max_variables  # type: ignore[misc]
        self.num_threads = num_threads

    def _solve(
        self,
        problem: CardinalityProblem,
        request: Request,
        *,
        depth: int | None = None,
        mixer: str = "complete",
        angles: str | Angles = "trained",
        alpha: float = 1.0,
        iterations: int = 100,
        **parameters: Any,
    ) -> Solution:
        del parameters
        if mixer == "x":
            raise ParameterError("mixer is 'x', which leaves the feasible states; see qaoa-aer")
        with request.timing.stage("preprocess"):
            simulator = Simulator(problem, mixer, num_threads=self.num_threads)
            chosen = chosen_angles(simulator, angles, depth, alpha, iterations, request.deadline)
        with request.timing.stage("execute"):
            weights = simulator.probabilities(chosen)
            reads = request.budget.reads or DEFAULT_READS
            ranks = _draw(weights, reads, request.rng)
        with request.timing.stage("postprocess"):
            states = simulator.states(ranks)
            request.report(states[np.argmin(simulator.costs[ranks])].astype(np.bool_))
        info = {
            "mixer": mixer,
            "depth": chosen.depth,
            "gammas": list(chosen.gammas),
            "betas": list(chosen.betas),
            "angles": chosen.label,
            "training_seconds": chosen.training_seconds,
            "amplitudes": simulator.dim,
            "expectation": float(weights @ simulator.costs),
        }
        return Solution(states, info)


def _draw(weights: Any, reads: int, rng: np.random.Generator) -> Any:
    cumulated = np.cumsum(weights)
    ranks = np.searchsorted(cumulated, rng.random(reads) * cumulated[-1], side="right")
    return np.minimum(ranks, len(weights) - 1)
