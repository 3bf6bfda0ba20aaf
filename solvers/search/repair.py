"""From any bit strings to feasible ones, and from feasible ones to local optima."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

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

Groups = tuple[Integers, Integers, Integers]
"""Groups as `solvers.search.group_kernels` takes them: ``(g, start, members)``."""


def by_group(labels: Integers | None) -> Groups | None:
    """The groups of variables with these labels, shape (n,); None where all are one.

    Returns:
        ``(g, start, members)``: the label of each variable, shape (n,), and the variables of group
        u as ``members[start[u]:start[u + 1]]``.
    """
    if labels is None:
        return None
    start = np.concatenate([[0], np.cumsum(np.bincount(labels))]).astype(np.int64)
    return labels, start, np.argsort(labels, kind="stable").astype(np.int64)


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
        groups: see `by_group`.
        tolerance: energy differences below this are round-off.
    """

    def __init__(self, problem: CardinalityProblem, dense: bool = False) -> None:
        self.problem = problem
        self.F, self.G = couplings(problem, dense)
        self.diagonal = problem.diagonal
        if problem.factor is not None:
            self.bounds = np.sqrt(self.diagonal)
        else:
            largest = np.maximum(self.G.max(axis=1, initial=0), -self.G.min(axis=1, initial=0))
            self.bounds = np.sqrt(largest)
        self.groups = by_group(problem.groups)
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
        if self.groups is not None:
            return self._fill_groups(state, self.groups[0], deadline)
        fields, k = self.problem.fields(state), self.problem.cardinality
        work = max(work_per_check(deadline), PASSES_PER_CHECK * float(self.F.size))
        while state.sum() != k and not deadline.over:
            if self.dense:
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
        if deadline.over:
            return state
        work = work_per_check(deadline)
        fields = self.problem.fields(state)
        couplings = self.F, self.G, self.diagonal, self.bounds, fields, state
        groups = () if self.groups is None else self.groups[1:]
        descent = swap_descent if self.groups is None else group_descent
        place = np.zeros(2, np.int64)
        while not descent(*couplings, *groups, self.tolerance, work, place):
            if deadline.over:
                break
        return state
