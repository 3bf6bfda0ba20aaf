"""Certified bound by a doubly non-negative relaxation, rounding, descent.

The plain relaxation (`solvers.exact.relaxation`) comes first: where it is tight, as on loss blocks,
nothing is left to do. What its reduced costs leave open goes to `solvers.exact.doubly_nonnegative`.
Every so many iterations its multipliers are turned into a bound that holds, whatever is not yet
converged, and its state into an incumbent by swap descent. Variables that the bound settles
against the incumbent are taken out, and the iteration goes on with the smaller problem from where
it was. The stages of all that make a certificate, see `solvers.exact.certificate`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from solvers.arithmetic.convex import EIGEN_RATE, Convex, Value, plus_offset, value
from solvers.base import Budget, CardinalitySampler, Request, Solution
from solvers.clock.background import computed, one_thread
from solvers.clock.deadline import NEVER, Deadline
from solvers.exact.certificate import Certificate, RowBound, Stage, form, row_bound, settled
from solvers.exact.diagonal_shift import diagonally_shifted
from solvers.exact.doubly_nonnegative import SETUP_RATE, AlternatingDirections
from solvers.exact.interval import Bound
from solvers.exact.relaxation import bound as plain_bound
from solvers.exact.relaxation import relaxed
from solvers.memory import check_room
from solvers.problem import Bools, CardinalityProblem, Floats
from solvers.search.repair import LocalSearch
from solvers.search.tabu import Tabu

# Of the time left: for the plain relaxation, for tabu search from its state, and for the relaxation
# of a shifted diagonal.
PLAIN_SHARE, SEARCH_SHARE, SHIFT_SHARE = 0.15, 0.1, 0.1
# Reads of that search, at most.
SEARCH_READS = 4
# Iterations until the first bound, and their growth from one bound to the next.
FIRST_CHECK, CHECK_GROWTH, MOST_BETWEEN = 25, 1.25, 250
# Share of the open variables that must be settled before the rest are taken alone.
WORTH_LEAVING = 0.1
# Without a time limit: stop when the gap has closed by less than this share over so many bounds.
LITTLE, PATIENCE = 0.01, 5
# Arrays of n^2 float64 that are held at a time, roughly.
ARRAYS = 24
Report = Callable[[Bools], None]


@dataclass(frozen=True)
class Interval:
    """A certified interval around the optimum.

    Attributes:
        lower: no feasible state has less energy, the problem's offset left out.
        state: the best state, shape (n,) of bool.
        best: its energy, without the offset.
        certificate: of `lower`, up to its rounding; None where the time did not suffice for any, or
            the plain relaxation's own bound is better by more than that.
        open: variables that are not settled.
        iterations: of the alternating directions.
    """

    lower: float
    state: Bools
    best: Value
    certificate: Certificate | None
    open: int
    iterations: int

    @property
    def proved(self) -> bool:
        """Whether `state` is optimal, up to `best.tolerance`."""
        return self.best.energy + self.best.error - self.lower <= self.best.tolerance


def bound(
    problem: CardinalityProblem, deadline: Deadline = NEVER, report: Report = lambda state: None
) -> Interval:
    """The interval that the relaxation and its roundings make.

    Args:
        problem: 0 < k < n.
        deadline: when the best so far is returned.
        report: takes each improved state.

    Raises:
        BinaryQuadraticModelSizeError: the matrices do not fit into the memory that is available.
    """
    check_room(
        8 * ARRAYS * problem.n**2,
        f"the semidefinite bound of {problem.n:,} variables",
        "choose a smaller problem or the solver relaxation",
    )
    root = plain_bound(problem, deadline.share(PLAIN_SHARE))
    report(root.state)
    found = Interval(root.lower, root.state, root.best, None, problem.n, 0)
    if root.proved_optimal and root.own is None:
        return found
    if deadline.left < problem.n**3 / SETUP_RATE:
        return replace(found, open=root.core_size)
    with one_thread():
        run = Refinement(problem, root, report)
        if not run.proved and not deadline.over:
            run.search(deadline.share(SEARCH_SHARE))
        if not run.proved and not deadline.over:
            run.shift(deadline.share(SHIFT_SHARE))
        run.refine(deadline)
    return run.interval()


class Refinement:
    """Stages of bounds, and the best state.

    Args:
        problem: n variables.
        root: what the plain relaxation made of it.
        report: takes each improved state.
    """

    def __init__(self, problem: CardinalityProblem, root: Bound, report: Report) -> None:
        self._problem, self._report = problem, report
        self._search = LocalSearch(problem)
        self._state, self._best, self._lower = root.state, root.best, root.lower
        self._whole = self._own = form(problem)
        self._stages: list[Stage] = []
        # The best stage of what is open, and its bound.
        self._stage: Stage | None = None
        self._rows: RowBound | None = None
        self._iterations = 0
        self._certified = -np.inf
        # What C alone settles: columns so large that their rounding would spoil the rest.
        self._take(Stage(np.zeros((0, problem.n + 1))))
        self._settle(0.0)
        if not self._own.decided and root.own is not None and root.dual is not None:
            self._take(self._plain_stage(root.own, root.dual))
            self._settle(0.0)

    @property
    def proved(self) -> bool:
        """Whether nothing is left to do."""
        return self._own.decided or self.interval().proved

    def interval(self) -> Interval:
        """What is known."""
        certificate = None
        proves = self._certified >= self._lower - self._best.tolerance
        if proves and (self._stage is not None or self._stages):
            stages = (*self._stages, *(() if self._stage is None else (self._stage,)))
            certificate = Certificate(stages, self._state)
        ceiling = self._best.energy - self._best.error
        return Interval(
            min(max(self._lower, self._certified), ceiling) if self._stages else self._lower,
            self._state,
            self._best,
            certificate,
            0 if self._own.decided else len(self._own.free),
            self._iterations,
        )

    def _plain_stage(self, convex: Convex, dual: Floats) -> Stage:
        """The bound of a convex quadratic: ``||Ax - s||^2 / 2`` is what it leaves out."""
        fixed = convex.A @ self._own.settled - dual
        return Stage(np.column_stack([fixed, convex.A[:, self._own.free]]) * np.sqrt(0.5))

    def shift(self, deadline: Deadline) -> None:
        """The plain relaxation with as much taken off the diagonal as it bears, if G is regular."""
        problem = self._problem
        if problem.n > problem.rank or problem.groups is not None:
            return
        seconds = problem.n**3 / EIGEN_RATE
        convex = computed(lambda: diagonally_shifted(problem), seconds, deadline)
        if convex is not None:
            self._take(self._plain_stage(convex, relaxed(convex, deadline).dual))
            self._settle(0.0)

    def search(self, deadline: Deadline) -> None:
        """Tabu search from the best state."""
        samples = Tabu(num_threads=1).sample_problem(
            self._problem,
            budget=Budget(
                time_limit=deadline.left if deadline.limited else None, reads=SEARCH_READS
            ),
            seed=0,
            initial=self._state,
        )
        self._offer(samples.record.sample[int(np.argmin(samples.record.energy))])

    def refine(self, deadline: Deadline) -> None:
        """Iterates until the optimum is proved, the time is over or little is gained."""
        directions: AlternatingDirections | None = None
        step = check = 0.0
        gaps: list[float] = []
        while not self.proved and not deadline.over:
            start = time.perf_counter()
            if directions is None:
                directions = AlternatingDirections(self._own)
            every = FIRST_CHECK * CHECK_GROWTH ** len(gaps)
            for _ in range(int(min(every, MOST_BETWEEN))):
                if deadline.left < 1.5 * check + step:
                    break
                before = time.perf_counter()
                directions.step()
                step = time.perf_counter() - before
                check = max(check, 3 * step)
                self._iterations += 1
            start = time.perf_counter()
            self._take(directions.stage())
            self._offer(self._search.descend(self._own.rounded(directions.y), deadline))
            check = time.perf_counter() - start
            keep = self._settle(WORTH_LEAVING)
            if keep is not None and not self._own.decided:
                directions = AlternatingDirections(self._own, (directions, keep))
            if deadline.left < 1.5 * check + step:
                return
            gaps.append(self._best.energy - self._certified)
            if deadline.limited or len(gaps) <= PATIENCE:
                continue
            if gaps[-1] > (1 - LITTLE) * gaps[-1 - PATIENCE]:
                return

    def _take(self, stage: Stage) -> None:
        """Keeps a stage if its bound is the best."""
        rows = row_bound(self._own, stage)
        if self._rows is None or rows.lower > self._rows.lower:
            self._stage, self._rows = stage, rows
            self._certified = max(self._certified, rows.lower)
            self._lower = max(self._lower, self._certified)

    def _settle(self, share: float) -> Any:
        """Takes out what the best stage settles, if it is more than a share of what is open.

        Returns:
            Places of what is left; None where nothing was taken out.
        """
        assert self._stage is not None and self._rows is not None
        limit = self._best.energy + self._best.error + self._best.tolerance
        fixed = settled(self._rows, limit)
        if not fixed.any() or fixed.mean() < share:
            return None
        self._stages.append(replace(self._stage, settles=fixed))
        self._own = self._own.restricted(fixed, self._rows.chosen)
        self._stage = self._rows = None
        if self._own.decided:
            last, off = self._own.energy(self._own.state())
            self._certified = max(self._certified, last - off)
            self._lower = max(self._lower, self._certified)
            self._offer(self._own.state())
        return np.flatnonzero(~fixed)

    def _offer(self, state: Any) -> None:
        state = np.asarray(state).astype(np.bool_)
        found = value(self._problem, state)
        if found.energy < self._best.energy:
            self._state, self._best = state, found
            self._report(state)


class Semidefinite(CardinalitySampler):
    """Certified bound by a doubly non-negative relaxation, rounding, descent; one read.

    `bound` gives the certificate itself, `solvers.exact.certificate.verify` checks it.
    """

    name = "semidefinite"
    compiles = True
    takes_groups = True
    max_variables = 4096
    honours = ("time_limit",)

    def _solve(self, problem: CardinalityProblem, request: Request, **parameters: Any) -> Solution:
        with request.timing.stage("execute"):
            found = bound(problem, request.deadline, request.report)
        return Solution(
            found.state[None],
            {
                "lower_bound": plus_offset(found.lower, problem),
                "proved_optimal": found.proved,
                "tolerance": found.best.tolerance,
                "core_size": found.open,
                "iterations": found.iterations,
                "certificate": found.certificate,
            },
        )
