"""The states that a circuit lives in: those of fixed weight, group by group.

A group of m variables with k ones has C(m, k) states, in the order of `basis`; all of them together
are numbered by mixed radix, the last group's rank running fastest. Groups come by their number of
states, smallest first, so that what `energies` keeps beside its result stays small: see there.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb, prod

import numpy as np
from numba import njit
from numpy.typing import NDArray

from solvers.problem import CardinalityProblem, Floats
from solvers.qaoa.simulator import basis
from solvers.qaoa.simulator.basis import Ints


@dataclass(frozen=True, eq=False)
class Part:
    """One group.

    Attributes:
        members: its variables, ascending, shape (m,).
        k: its ones; -1 where any number will do.
    """

    members: NDArray[np.intp]
    k: int

    @property
    def size(self) -> int:
        """Number of variables m."""
        return len(self.members)

    @property
    def dim(self) -> int:
        """Number of states."""
        return 1 << self.size if self.k < 0 else comb(self.size, self.k)

    def states(self, ranks: Ints) -> NDArray[np.int8]:
        """The group's states of these ranks, shape (len(ranks), m)."""
        return basis.states(ranks, self.size, self.k)


class Space:
    """The product of the states of all groups.

    Args:
        problem: n variables, in groups or not.
        free: whether any number of ones will do: all 2^n states.

    Attributes:
        parts: the groups, those with the fewest states first.
        dim: number of states.
    """

    def __init__(self, problem: CardinalityProblem, *, free: bool = False) -> None:
        self.n = problem.n
        if free:
            parts = [Part(np.arange(problem.n), -1)]
        else:
            ones = problem.group_ones.tolist()
            parts = [Part(m, k) for m, k in zip(problem.members, ones, strict=True)]
        self.parts = sorted(parts, key=lambda part: part.dim)
        self.dim = prod(part.dim for part in self.parts)

    @property
    def largest(self) -> int:
        """Variables of the largest group."""
        return max(part.size for part in self.parts)

    def states(self, ranks: Ints) -> NDArray[np.int8]:
        """The states of these ranks, shape (len(ranks), n)."""
        rows = np.zeros((len(ranks), self.n), np.int8)
        left = np.asarray(ranks, np.int64)
        for part in reversed(self.parts):
            left, own = np.divmod(left, part.dim)
            rows[:, part.members] = part.states(own)
        return rows

    def amplitudes(self, odds: Floats) -> Floats:
        """Of a product of Dicke states that are biased by odds (n,), shape (dim,).

        See `solvers.qaoa.circuit.dicke`.
        """
        total = np.ones(1)
        for part in self.parts:
            logs = np.log(odds[part.members])
            own = basis.energies(part.size, part.k, np.zeros((part.size, part.size)), logs)
            weights = np.exp(0.5 * (own - own.max()))
            total = np.multiply.outer(total, weights / np.linalg.norm(weights)).ravel()
        return total

    def energies(self, problem: CardinalityProblem) -> Floats:
        """E(x) of every state, shape (dim,), group after group.

        For every state of the groups so far there are its energy and the field that it puts on
        each variable still to come, so that a group adds only its own pairs to a state. Since the
        groups before are the smaller ones, the fields need no more room than the result.
        """
        order = np.concatenate([part.members for part in self.parts])
        G = problem.gram()[np.ix_(order, order)]
        total = np.array([problem.offset])
        fields = (problem.linear + 0.5 * problem.diagonal)[order][None]
        for part in self.parts:
            m = part.size
            couplings = np.ascontiguousarray(G[:m, :m])
            energies = np.empty((len(total), part.dim))
            own = np.ascontiguousarray(fields[:, :m])
            _fill(energies, total, own, part.k, couplings, basis.binomials(m))
            if len(G) > m:
                states = part.states(np.arange(part.dim)).astype(np.float64)
                fields = (fields[:, None, m:] + states @ G[:m, m:]).reshape(-1, len(G) - m)
            G, total = G[m:, m:], energies.ravel()
        return total


@njit(cache=True, nogil=True)
def _fill(energies: Floats, before: Floats, own: Floats, k: int, G: Floats, B: Ints) -> None:
    """``before[r]`` plus the energy of each state of a group with linear terms ``own[r]``."""
    for r in range(len(before)):
        basis.fill_energies(energies[r], 0, energies.shape[1], k, G, own[r], B)
        energies[r] += before[r]
