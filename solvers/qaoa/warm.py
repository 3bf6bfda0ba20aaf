"""Warm starts: the circuit begins near a classical answer.

Every variable is a coin that shows what it is in the answer with probability ``1 - EPSILON``, under
the condition that each group has its number of ones: a biased Dicke state, prepared exactly by
`solvers.qaoa.circuit.dicke`. A state s swaps away from the answer has
``(EPSILON / (1 - EPSILON))^(2s)`` times its probability. This is the warm start of Egger, Marecek
and Woerner (Quantum 5, 479, 2021), regularised by EPSILON as theirs, brought to states of fixed
weight. Theirs also changes the mixer so that the start is its ground state; here the mixer stays
the XY mixer, which costs no more gates than without a warm start, and of which the start is no
eigenstate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from solvers.base import Budget, CardinalitySampler
from solvers.clock.deadline import Deadline
from solvers.errors import ParameterError
from solvers.exact.relaxation import Relaxation
from solvers.problem import Bools, CardinalityProblem, Floats
from solvers.qaoa.angles import Angles
from solvers.search.descent import Descent, Greedy

SOLVERS: dict[str, type[CardinalitySampler]] = {
    "descent": Descent, "greedy": Greedy, "relaxation": Relaxation,
}  # fmt: skip
EPSILON = 0.25


@dataclass(frozen=True)
class WarmStart:
    """A classical answer and the start made of it.

    Attributes:
        solver: whose answer.
        state: the answer, shape (n,) of bool.
        energy: of it.
    """

    solver: str
    state: Bools
    energy: float

    @property
    def odds(self) -> Floats:
        """Of each variable to be 1 before the condition, shape (n,)."""
        return biased_odds(self.state)

    def told(self, angles: Angles) -> Angles:
        """The angles under a label that names the start."""
        return replace(angles, label=f"{angles.label}; warm start from {self.solver}")


def biased_odds(state: Bools, epsilon: float = EPSILON) -> Floats:
    """Odds ``(1 - epsilon) / epsilon`` of the ones of a state, the inverse of its zeros."""
    ratio = (1 - epsilon) / epsilon
    return np.where(state, ratio, 1 / ratio)


def check_warm_start(warm_start: Any) -> None:
    """Raises if it is neither None nor the name of a solver in `SOLVERS`.

    Raises:
        ParameterError: names the value and the solvers.
    """
    if warm_start is not None and warm_start not in SOLVERS:
        raise ParameterError(
            f"warm_start is {warm_start!r}, expected one of {', '.join(SOLVERS)} or None"
        )


def warm_started(
    problem: CardinalityProblem, solver: str, seed: int, deadline: Deadline
) -> WarmStart:
    """One read of a classical solver.

    Args:
        problem: n variables.
        solver: a key of `SOLVERS`.
        seed: of its read.
        deadline: its time limit.

    Raises:
        ParameterError: another solver.
    """
    check_warm_start(solver)
    left = deadline.left
    limit = None if left == np.inf else max(left, 1e-3)
    sampler = SOLVERS[solver]()
    reads = 1 if "reads" in sampler.honours else None
    budget = Budget(time_limit=limit if "time_limit" in sampler.honours else None, reads=reads)
    found = sampler.sample_problem(problem, budget=budget, seed=seed)
    best = int(np.argmin(found.record.energy))
    return WarmStart(
        solver, found.record.sample[best].astype(np.bool_), float(found.record.energy[best])
    )
