"""Where reads begin: at states that are built, not drawn.

A uniformly random state of a problem whose columns differ in scale by orders of magnitude is
hundreds of times worse than one built from nothing, and descents from it end far away: the largest
columns have to cancel each other, which adding them one by one sees to and swapping does not.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from solvers.base import Request
from solvers.groups import Integers, least_of_each
from solvers.problem import Bools
from solvers.search.repair import LocalSearch

# Share of the greedy state's ones that a rebuilt state begins with.
KEPT = 0.5
# Swaps of a kick.
SWAPS = 3
RANDOM = 8


class Starts:
    """Feasible states to begin at, a new one for each read.

    The first is the swap-descent optimum next to the start that was given, else to the greedy
    state; the second sorts the variables by the energy of each alone. Of the others one in
    `RANDOM` is drawn, which helps where columns are alike; half are that optimum with `SWAPS`
    random swaps; the rest keep a random half of the greedy state's ones and are filled up greedily
    again.

    Args:
        search: of the problem.
        request: start and deadline; what is missing when the time is over is taken by a sort.

    Attributes:
        optimum: the state of read 0, shape (n,).
    """

    def __init__(self, search: LocalSearch, request: Request) -> None:
        self._search, self._deadline = search, request.deadline
        self._greedy = search.fill(np.zeros(search.problem.n, np.bool_), request.deadline)
        first = self._greedy if request.initial is None else request.initial
        self.optimum = search.descend(first, request.deadline)

    def state(self, number: int, rng: np.random.Generator) -> Bools:
        """The state that a read begins at, shape (n,).

        Args:
            number: of the read.
            rng: draws swaps, and what is kept.
        """
        problem = self._search.problem
        if number == 0:
            return self.optimum
        if number % RANDOM == RANDOM - 1:
            return problem.random_state(rng)
        if number % 2 == 0:
            return kicked(self.optimum, np.arange(problem.n), SWAPS, rng, problem.groups)
        state = np.zeros(problem.n, np.bool_)
        if number == 1:
            alone = problem.linear + 0.5 * problem.diagonal
            state[least_of_each(alone, problem.group_labels, problem.group_ones)] = True
            return state
        ones = np.flatnonzero(self._greedy)
        state[rng.choice(ones, int(KEPT * len(ones)), replace=False)] = True
        return self._search.fill(state, self._deadline)


def kicked(
    x: Bools, core: Any, swaps: int, rng: np.random.Generator, groups: Integers | None = None
) -> Bools:
    """A copy of x with random swaps.

    Args:
        x: feasible state, shape (n,).
        core: variables that may be swapped.
        swaps: how many, as far as there are as many ones and zeros.
        rng: picks them.
        groups: label of each variable, shape (n,); each swap is inside a group, and none has two
            swaps while others have none.
    """
    x = x.copy()
    if groups is None:
        _swap(x, core, swaps, rng)
        return x
    for u in rng.permutation(np.unique(groups[core])):
        swaps -= _swap(x, core[groups[core] == u], min(1, swaps), rng)
    return x


def _swap(x: Bools, part: Any, most: int, rng: np.random.Generator) -> int:
    """Random swaps in a part of x, in place, at most so many; how many were made."""
    ones, zeros = part[x[part]], part[~x[part]]
    swaps = min(len(ones), len(zeros), most)
    x[rng.choice(ones, swaps, replace=False)] = False
    x[rng.choice(zeros, swaps, replace=False)] = True
    return swaps
