"""What general mixed-integer solvers share: `solvers.highs` (`milp`), `solvers.scip` (`miqp`).

Both get the block in its factored form, whose quadratic part is separable:

    min  t_1 + ... + t_r + c.x,   z = A x,   2 t_i >= z_i^2,   sum x = k,   x binary

SCIP takes the convex constraints as they are. HiGHS knows no quadratic with integers, so the
parabolas become tangents, ``t_i >= a z_i - a^2 / 2``: those of the relaxation first, then in every
round those at the optimum of the last program (outer approximation; Duran and Grossmann 1986). Each
program's bound holds for the problem, and the rounds end when it meets the energy of a state. The
usual linearisation would need n^2 / 2 products where this needs 2 r variables.

A dense problem is made convex first, as in `solvers.relaxation`. Both solvers compute
in floating point to a feasibility tolerance: bounds and proofs hold up to `TOLERANCE` of the size
of the problem's terms, and that is taken off the bound reported.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from solvers.base import CardinalitySampler, Request, Solution
from solvers.problem import Bools, CardinalityProblem, Floats
from solvers.relaxation import convexified

TOLERANCE = 1e-7


class MixedInteger(CardinalitySampler):
    """What the two have in common: the scaled form, the start, the listener, the status.

    Given an incumbent, the solver starts from it.
    """

    exact = True
    takes_initial = True
    honours = ("time_limit",)
    max_variables = 4096

    def _solve(self, problem: CardinalityProblem, request: Request, **parameters: Any) -> Solution:
        with request.timing.stage("preprocess"):
            form = Form(problem, request)
        if request.initial is not None:
            form.offer(request.initial)
        with request.timing.stage("execute"):
            info = self._optimised(form, request)
        if form.best is None:
            # Out of time before the first state: the cheapest single costs are one.
            state = np.zeros(problem.n, dtype=np.bool_)
            cost = problem.linear + 0.5 * problem.diagonal
            state[np.argsort(cost, kind="stable")[: problem.cardinality]] = True
            form.offer(state)
        assert form.best is not None
        lower = min(form.lower * form.unit + problem.offset - form.tolerance, form.upper)
        proved = form.upper - lower <= 3 * form.tolerance
        return Solution(form.best[None], info | {"lower_bound": lower, "proved_optimal": proved})

    def _optimised(self, form: Form, request: Request) -> dict[str, Any]:
        """Offers states to the form, raises its bound; returns what goes into ``info``."""
        raise NotImplementedError


class Form:
    """The problem in units in which its terms are of the order of 1, and what is known of it.

    Args:
        problem: 0 < k < n.
        request: its listener hears of better states.

    Attributes:
        A, c: factor and linear term; energies are `unit` times theirs, plus the offset.
        unit: energy of 1.
        best: best state so far; None before the first.
        upper: its energy, offset included.
        lower: bound of the scaled problem, without offset.
        tolerance: energies closer than this are equal.
    """

    def __init__(self, problem: CardinalityProblem, request: Request) -> None:
        convex = convexified(problem)
        assert convex.factor is not None
        self.problem, self._request = problem, request
        self.n, self.k = problem.n, problem.cardinality
        spread = np.abs(convex.linear).mean() + 0.5 * np.abs(convex.diagonal).mean()
        self.unit = float(spread) or 1.0
        self.A: Floats = convex.factor / np.sqrt(self.unit)
        self.c: Floats = convex.linear / self.unit
        typical = self.A @ np.full(self.n, self.k / self.n)
        terms = 0.5 * float(typical @ typical) + float(np.abs(self.c).sum())
        self.tolerance = TOLERANCE * terms * self.unit + 1e-300
        self.best: Bools | None = None
        self.upper, self.lower = np.inf, -np.inf

    def offer(self, x: Any) -> None:
        """Keeps a state if it is the best so far; one that is not quite integral is dropped."""
        state = np.asarray(x)[: self.n] > 0.5
        energy = float(self.problem.energy(state))
        if state.sum() == self.k and energy < self.upper:
            self.best, self.upper = state, energy
            self._request.report(state)

    @property
    def closed(self) -> bool:
        """Whether bound and best state meet."""
        lower = self.lower * self.unit + self.problem.offset
        return bool(self.upper - lower <= self.tolerance)
