"""What the general mixed-integer solvers share.

`milp` is in `solvers.exact.highs`, `miqp` in `solvers.exact.scip`.

Both get the block in its factored form, whose quadratic part is separable:

    min  t_1 + ... + t_r + c.x,   z = A x,   2 t_i >= z_i^2,   sum x = k,   x binary

With groups there is one such sum a group.

SCIP takes the convex constraints as they are. HiGHS knows no quadratic with integers, so the
parabolas become tangents, ``t_i >= a z_i - a^2 / 2``: those of the relaxation first, then in every
round those at the optimum of the last program (outer approximation; Duran and Grossmann 1986). Each
program's bound holds for the problem, and the rounds end when it meets the energy of a state. The
usual linearisation would need n^2 / 2 products where this needs 2 r variables.

A dense problem is made convex first, as in `solvers.exact.relaxation`. Both solvers compute in
floating point to a feasibility tolerance, which is a share of the largest numbers of the problem:
what they call proved may be wrong where the scales of its columns are far apart. So their claim is
reported as a claim, and an answer is proved only if our own branch and bound, which rounds every
bound down, proves it in the time left.

Neither looks at our clock: each runs in a thread that is told to stop. One that does not come back
in time is left behind, to stop when it looks.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from solvers.arithmetic.convex import Value, plus_offset, value
from solvers.base import CardinalitySampler, Request, Solution
from solvers.clock.deadline import NEVER, Deadline
from solvers.exact.branch_and_bound import prove
from solvers.exact.interval import Bound
from solvers.exact.relaxation import bound, constructed
from solvers.problem import Bools, CardinalityProblem, Floats

TOLERANCE = 1e-7
# Share of a time limit for the relaxation, and of what is left then for building the program.
ROOT_SHARE = 0.2
BUILD_SHARE = 0.3
# Seconds that a proof may take at the least, and as many times as long as the solver took.
PROOF_SECONDS = 1.0


class MixedInteger(CardinalitySampler):
    """What the two have in common: the scaled form, the start, the listener, the proof.

    Given a start, the solver begins there. ``info`` has the solver's own claims as
    ``claimed_bound`` and ``claimed_optimal``; ``lower_bound`` and ``proved_optimal`` are ours.
    ``finished`` is False where it had to be left behind, or the time did not suffice to build the
    program.
    """

    compiles = True
    takes_groups = True
    exact = True
    takes_initial = True
    honours = ("time_limit",)
    max_variables = 4096
    seconds_per_entry: ClassVar[float]
    """Of the factor, to build the program."""

    def _compile(self, tiny: CardinalityProblem) -> None:
        super()._compile(tiny)
        constructed(tiny, NEVER)

    def _solve(self, problem: CardinalityProblem, request: Request, **parameters: Any) -> Solution:
        deadline, timing = request.deadline, request.timing
        begun = time.perf_counter()
        with timing.stage("preprocess"):
            root = bound(problem, deadline.share(ROOT_SHARE))
        form = Form(problem, root, request)
        for state in (request.initial, root.state):
            if state is not None:
                form.offer(state)
        info: dict[str, Any] = {}
        finished = False
        entries = problem.n * (problem.rank if root.own is not None else np.inf)
        if entries * self.seconds_per_entry <= BUILD_SHARE * deadline.left:
            with timing.stage("execute"):
                info, finished = self._optimised(form, request)
        state, best = form.shut()
        lower = root.lower
        if form.closed and not root.proved_optimal:
            # As long as the solver itself took; without a limit no longer than that either.
            spent = max(PROOF_SECONDS, time.perf_counter() - begun)
            with timing.stage("execute"):
                limited = replace(request, deadline=Deadline(spent, deadline))
                proof = prove(problem, limited, root, state)
            lower = max(lower, proof.lower_bound)
            if proof.best.energy < best.energy:
                state, best = proof.state, proof.best
        known = best.energy + best.error
        info |= {
            "claimed_bound": form.claimed_bound,
            "claimed_optimal": form.closed,
            "finished": finished,
            "lower_bound": plus_offset(lower, problem),
            "proved_optimal": bool(known - lower <= best.tolerance),
            "tolerance": best.tolerance,
        }
        return Solution(state[None], info)

    def _optimised(self, form: Form, request: Request) -> tuple[dict[str, Any], bool]:
        """Offers states to the form, raises its bound.

        Returns:
            What goes into ``info``, and whether the solver came to its end.
        """
        raise NotImplementedError


class Form:
    """The problem in units in which the terms at a good state are of the order of 1.

    Args:
        problem: 0 < k < n.
        root: of the problem.
        request: its listener hears of better states.

    Attributes:
        A, c: factor and linear term; energies are `unit` times theirs, plus the offset.
        unit: energy of 1.
        lower: the solver's bound on the scaled problem, without offset.
    """

    def __init__(self, problem: CardinalityProblem, root: Bound, request: Request) -> None:
        self.problem, self.root = problem, root
        self.n = problem.n
        self.unit = root.best.terms
        own = root.own
        self.A: Floats = np.empty((0, self.n)) if own is None else own.A / np.sqrt(self.unit)
        self.c: Floats = problem.linear if own is None else own.c / self.unit
        self.lower = -np.inf
        self._request = request
        self._lock = threading.Lock()
        self._open = True
        self._state: Bools | None = None
        self._best = Value(np.inf, 0.0, 0.0)

    @property
    def best(self) -> Bools:
        """The best state so far, shape (n,)."""
        assert self._state is not None
        return self._state

    @property
    def upper(self) -> float:
        """Its energy, without the problem's offset."""
        return self._best.energy

    @property
    def tolerance(self) -> float:
        """Energies closer than this are equal to the solver."""
        return TOLERANCE * self._best.terms + 1e-300

    def offer(self, x: Any) -> None:
        """Keeps a state if it is the best so far; one that is not quite integral is dropped."""
        state = np.asarray(x)[: self.n] > 0.5
        if not self.problem.is_feasible(state):
            return
        found = value(self.problem, state)
        with self._lock:
            if self._open and found.energy < self._best.energy:
                self._state, self._best = state, found
                self._request.report(state)

    def shut(self) -> tuple[Bools, Value]:
        """The best state and its energy; what an abandoned solver offers later is ignored."""
        with self._lock:
            self._open = False
        return self.best, self._best

    @property
    def claimed_bound(self) -> float | None:
        """The solver's bound on the problem; None before it had one."""
        bounded = np.isfinite(self.lower)
        return self.lower * self.unit + self.problem.offset if bounded else None

    @property
    def closed(self) -> bool:
        """Whether the solver's bound and the best state meet."""
        return bool(self.upper - self.lower * self.unit <= self.tolerance)
