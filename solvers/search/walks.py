"""A state that is annealed, with what the kernels keep up to date for it."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np

from solvers.clock.deadline import NEVER, Deadline
from solvers.problem import Bools, Floats
from solvers.search.annealing_kernels import anneal
from solvers.search.group_kernels import group_anneal
from solvers.search.kernels import work_per_check
from solvers.search.randomness import RandomState
from solvers.search.repair import LocalSearch

MARGIN = 10.0
WHOLE = 64


@dataclass
class Walk:
    """A state with what the kernels keep up to date for it.

    Attributes:
        search: the problem's couplings.
        x: feasible state, shape (n,).
        random: its state, shape (1,).
    """

    search: LocalSearch
    x: Bools
    random: RandomState

    def __post_init__(self) -> None:
        self.x = self.x.copy()
        problem = self.search.problem
        if problem.factor is None:
            self.s, self.f = np.zeros(0), problem.fields(self.x)
        else:
            self.s = problem.factor @ self.x.astype(np.float64)
            self.f = self.s @ problem.factor + problem.linear

    @property
    def energy(self) -> float:
        """Energy of x less the problem's offset, from what is kept up to date."""
        c = self.search.problem.linear
        if self.search.dense:
            return 0.5 * float((self.f + c)[self.x].sum())
        return 0.5 * float((self.s * self.s).sum()) + float(c[self.x].sum())

    def twin(self, random: RandomState) -> Walk:
        """A walk that goes on from the same state with random numbers of its own."""
        twin = copy.copy(self)
        twin.x, twin.s, twin.f, twin.random = self.x.copy(), self.s.copy(), self.f.copy(), random
        return twin

    def anneal(
        self, temperatures: Floats, margin: float | None = None, deadline: Deadline = NEVER
    ) -> int:
        """One sweep at each temperature; returns the accepted swaps.

        Args:
            temperatures: > 0.
            margin: of the window, in temperatures; `usual_margin` when None.
            deadline: after which what is left of the sweeps is left out.
        """
        if margin is None:
            margin = usual_margin(len(self.x))
        search, n = self.search, len(self.x)
        # A sweep of n proposals, half of them accepted.
        work = n * (100 + (0.5 * n if search.dense else 2.0 * search.problem.rank))
        chunk = max(1, int(work_per_check(deadline) / work))
        accepted = 0
        for first in range(0, len(temperatures), chunk):
            if deadline.over:
                break
            part = temperatures[first : first + chunk]
            couplings = search.F, search.G, search.problem.linear, search.diagonal, search.bounds
            state = self.s, self.f, self.x
            if search.groups is None:
                accepted += anneal(*couplings, *state, part, margin, self.random)
            else:
                accepted += group_anneal(
                    *couplings, *state, *search.groups, part, margin, self.random
                )
        return accepted


def usual_margin(n: int) -> float:
    """Half-width of the window in temperatures for n variables."""
    return MARGIN if n > WHOLE else np.inf
