"""Where reads begin: at states that are built, not drawn.

A uniformly random state of a problem whose columns differ in scale by orders of magnitude is
hundreds of times worse than one built from nothing, and descents from it end far away: the largest
columns have to cancel each other, which adding them one by one sees to and swapping does not.
"""

from __future__ import annotations

import numpy as np

from solvers.base import Request
from solvers.groups import least_of_each
from solvers.problem import Bools
from solvers.search.repair import LocalSearch

# Share of the greedy state's ones that a rebuilt state begins with.
KEPT = 0.5


class Starts:
    """Feasible states to begin at, a new one for each read.

    The first is the start that was given, else the greedy state; the second sorts the variables by
    the energy of each alone; the others keep a random half of the greedy state's ones and are
    filled up greedily again.

    Args:
        search: of the problem.
        request: start and deadline; what is missing when the time is over is taken by a sort.

    Attributes:
        first: the state of read 0, shape (n,).
    """

    def __init__(self, search: LocalSearch, request: Request) -> None:
        self._search, self._deadline = search, request.deadline
        self._greedy = search.fill(np.zeros(search.problem.n, np.bool_), request.deadline)
        self.first = self._greedy if request.initial is None else request.initial

    def state(self, number: int, rng: np.random.Generator) -> Bools:
        """The state that a read begins at, shape (n,).

        Args:
            number: of the read.
            rng: draws what is kept.
        """
        problem = self._search.problem
        if number == 0:
            return self.first
        state = np.zeros(problem.n, np.bool_)
        if number == 1:
            alone = problem.linear + 0.5 * problem.diagonal
            state[least_of_each(alone, problem.group_labels, problem.group_ones)] = True
            return state
        ones = np.flatnonzero(self._greedy)
        state[rng.choice(ones, int(KEPT * len(ones)), replace=False)] = True
        return self._search.fill(state, self._deadline)
