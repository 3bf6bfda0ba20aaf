"""From any bit strings to feasible ones, and from feasible ones to local optima."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from solvers.clock.deadline import NEVER, Deadline
from solvers.problem import Bools, CardinalityProblem
from solvers.search.group_kernels import group_descent, group_fill
from solvers.search.kernels import (
    Integers,
    couplings,
    greedy_fill,
    greedy_fill_dense,
    swap_descent,
    work_per_check,
)

# Passes over the factor that greedy repair makes between two looks at the clock, if that is more
# than `work_per_check`: a window opened anew costs one.
PASSES_PER_CHECK = 4
# Fields updated with G in float32 are good to about this share of the largest coupling.
SINGLE = 1e-6


class LocalSearch:
    """The compiled kernels bound to one problem; couplings are laid out once.

    Safe to use from several threads: nothing in it changes.

    Args:
        problem: n variables, k ones.
        dense: whether to build G, see `solvers.search.kernels.dense_pays`.

    Attributes:
        problem: n variables, k ones.
        F, G: couplings, see `solvers.search.kernels`.
        diagonal: of G, shape (n,).
        bounds: ``b`` with ``|G_ij| <= b_i b_j``, shape (n,).
        labels: of groups, shape (n,); None where all variables are one group.
        start, members: variables of group u are ``members[start[u]:start[u + 1]]``.
        tolerance: energy differences below this are round-off.
    """

    def __init__(self, problem: CardinalityProblem, dense: bool = False) -> None:
        self.problem = problem
        self.F, self.G = couplings(problem, dense)
        self._exact = self.G if problem.factor is None else np.empty((0, 0), self.G.dtype)
        self.diagonal = problem.diagonal
        if problem.factor is not None:
            self.bounds = np.sqrt(self.diagonal)
        else:
            largest = np.maximum(self.G.max(axis=1, initial=0), -self.G.min(axis=1, initial=0))
            self.bounds = np.sqrt(largest)
        self.labels = problem.groups
        self.members = np.argsort(problem.group_labels, kind="stable").astype(np.int64)
        sizes = np.bincount(problem.group_labels, minlength=problem.num_groups)
        self.start: Integers = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        b = self.bounds
        self.tolerance = 1e-14 * (
            np.abs(problem.linear).max(initial=0) + b.max(initial=0) * b.sum()
        )

    @property
    def dense(self) -> bool:
        """Whether fields are kept with G."""
        return len(self.G) > 0

    def fill(self, x: ArrayLike, deadline: Deadline = NEVER) -> Bools:
        """Greedy repair: the best single flips until k ones, or until each group has its ones.

        Args:
            x: of any weight, shape (n,).
            deadline: what is missing then is taken all at once, in order
                of the costs at that moment.
        """
        state = np.array(x, dtype=np.bool_)
        if self.labels is not None:
            return self._fill_groups(state, self.labels, deadline)
        fields, k = self.problem.fields(state), self.problem.cardinality
        work = max(work_per_check(deadline), PASSES_PER_CHECK * float(self.F.size))
        while state.sum() != k and not deadline.over:
            if self.problem.factor is None:
                greedy_fill_dense(self.G, fields, state, k, work)
            else:
                greedy_fill(self.F, self.diagonal, self.bounds, fields, state, k, work)
        missing = k - int(state.sum())
        if missing:
            sign = np.sign(missing)
            free = np.flatnonzero(state == (missing < 0))
            costs = (sign * fields + 0.5 * self.diagonal)[free]
            state[free[np.argsort(costs, kind="stable")[: abs(missing)]]] = missing > 0
        return state

    def _fill_groups(self, state: Bools, labels: Integers, deadline: Deadline) -> Bools:
        problem, fields = self.problem, self.problem.fields(state)
        missing = problem.group_ones - problem.ones_of(state)
        work = max(work_per_check(deadline), PASSES_PER_CHECK * float(self.F.size))
        while missing.any() and not deadline.over:
            group_fill(self.F, self.G, self.diagonal, fields, state, labels, missing, work)
        for u in np.flatnonzero(missing):
            sign = np.sign(missing[u])
            part = problem.members[u]
            free = part[state[part] == (sign < 0)]
            costs = (sign * fields + 0.5 * self.diagonal)[free]
            state[free[np.argsort(costs, kind="stable")[: abs(missing[u])]]] = sign > 0
        return state

    def descend(self, x: ArrayLike, deadline: Deadline = NEVER) -> Bools:
        """Swap descent from a feasible x, shape (n,).

        Args:
            x: left as it is.
            deadline: looked at every few milliseconds.

        Returns:
            A local optimum of the swap neighbourhood, or where the time was over.
        """
        state = np.array(x, dtype=np.bool_)
        if self.dense and self.problem.factor is not None:
            # What G in float32 cannot tell apart is left to the factor.
            rough = self.tolerance + SINGLE * self.bounds.max(initial=0) ** 2
            self._descend(self.G, state, rough, deadline)
        self._descend(self._exact, state, self.tolerance, deadline)
        return state

    def _descend(self, G: NDArray[Any], state: Bools, tolerance: float, deadline: Deadline) -> None:
        if deadline.over:
            return
        work = work_per_check(deadline)
        fields, checked = self.problem.fields(state), np.zeros(1, np.int64)
        if self.labels is not None:
            place = np.zeros(2, np.int64)
            while not group_descent(
                self.F, G, self.diagonal, self.bounds, fields, state, self.start, self.members,
                tolerance, work, place,
            ):  # fmt: skip
                if deadline.over:
                    return
            return
        while not swap_descent(
            self.F, G, self.diagonal, self.bounds, fields, state, tolerance, work, checked
        ):
            if deadline.over:
                return
