"""Enumeration: every k-subset is looked at, which proves the best one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike

from solvers.arithmetic.convex import UNIT, Value, plus_offset, value
from solvers.base import CardinalitySampler, Request, Solution
from solvers.groups import Integers
from solvers.problem import Bools, CardinalityProblem, Floats

# States that rounding may hide, and that are looked at one by one.
MOST_CLOSE = 1000


@njit(cache=True, nogil=True)
def search_subsets(
    G: Floats, own: Floats, first: Integers, last: Integers, threshold: float, found: Bools
) -> tuple[float, Bools, int]:
    """Visits all subsets S of one variable a level, depth first.

    Their energies are ``sum_S own_i + sum_{i<j in S} G_ij``.

    The fields of every level are kept on a stack, so a level costs O(n), the last one O(1) a
    subset, and no rounding error is carried from one subset to the next.

    Args:
        G: couplings, shape (n, n), symmetric.
        own: energy of each variable alone, shape (n,).
        first: least variable that a level may take, above that of the level before, shape (k,); see
            `levels`.
        last: greatest, shape (k,).
        threshold: subsets of less energy are collected.
        found: gets their states, as many as there is room for, shape (m, n), zeros.

    Returns:
        The least energy, its state, shape (n,), and how many are below the threshold.
    """
    n, k = len(own), len(first)
    chosen = np.zeros(k, np.int64)
    energies = np.zeros(k + 1)
    fields = np.zeros((k + 1, n))
    fields[0] = own
    best, best_chosen = np.inf, np.zeros(k, np.int64)
    count, level, candidate = 0, 0, first[0]
    while level >= 0:
        if level == k - 1:
            for i in range(max(candidate, first[level]), last[level] + 1):
                energy = energies[level] + fields[level, i]
                if energy < best:
                    best = energy
                    chosen[level] = i
                    best_chosen[:] = chosen
                if energy < threshold:
                    if count < len(found):
                        chosen[level] = i
                        for one in chosen:
                            found[count, one] = True
                    count += 1
            level -= 1
            if level >= 0:
                candidate = chosen[level] + 1
        elif candidate > last[level]:
            level -= 1
            if level >= 0:
                candidate = chosen[level] + 1
        else:
            chosen[level] = candidate
            energies[level + 1] = energies[level] + fields[level, candidate]
            for j in range(candidate + 1, n):
                fields[level + 1, j] = fields[level, j] + G[candidate, j]
            level += 1
            candidate = max(candidate + 1, first[level])
    state = np.zeros(n, np.bool_)
    state[best_chosen] = True
    return best, state, count


def levels(sizes: ArrayLike, ones: ArrayLike) -> tuple[Integers, Integers]:
    """First and last variable of each level, shape (k,) each, for groups one after the other.

    Args:
        sizes: variables of each group.
        ones: of each group.
    """
    sizes, ones = np.asarray(sizes, np.int64), np.asarray(ones, np.int64)
    end = np.repeat(np.cumsum(sizes), ones)
    place = np.arange(ones.sum()) - np.repeat(np.cumsum(ones) - ones, ones)
    return end - np.repeat(sizes, ones), end - np.repeat(ones, ones) + place


def best_subset(G: Floats, own: Floats, k: int) -> tuple[float, Bools]:
    """The least energy of all k-subsets and its state, shape (n,); see `search_subsets`."""
    nowhere = np.zeros((0, len(own)), dtype=np.bool_)
    best, state, _ = search_subsets(G, own, *levels([len(own)], [k]), -np.inf, nowhere)
    return best, state


def rounding(problem: CardinalityProblem) -> float:
    """How far the energy of any state may be from what enumeration sums it up to."""
    k = problem.cardinality
    largest = np.abs(problem.linear).max() + 0.5 * k * problem.diagonal.max()
    if problem.quadratic is not None:
        largest = max(largest, 0.5 * k * float(np.abs(problem.quadratic).max()))
        largest += float(np.abs(problem.linear).max())
    return float(_unit(problem) * k * largest)


def subsets_near(problem: CardinalityProblem, energy: float) -> tuple[float, Bools | None]:
    """All states that may have less energy: enumeration with every term rounded down.

    Each is taken too small by all that rounding may add to it on its way into an energy: a coupling
    by the rounding of its inner product, a sum of m terms by ``m u`` of their sizes (Higham 2002,
    section 3.1).

    Args:
        problem: 1 <= k <= n <= 30 or so, groups one after the other; its offset does not count.
        energy: what they are compared with.

    Returns:
        A bound on the energies of all states, and those that may lie below `energy`, shape (m, n);
        None if they are too many.
    """
    G = problem.gram()
    if problem.factor is None:
        sizes = np.abs(G)
    else:
        norms = np.sqrt(problem.diagonal)
        sizes = np.outer(norms, norms)
    own = problem.linear + 0.5 * problem.diagonal
    own_sizes = np.abs(problem.linear) + 0.5 * sizes.diagonal()
    unit = _unit(problem)
    found = np.zeros((MOST_CLOSE, problem.n), dtype=np.bool_)
    least, _, count = search_subsets(
        G - unit * sizes, own - unit * own_sizes, *levels_of(problem), energy, found
    )
    return min(least, energy), found[:count] if count <= len(found) else None


def levels_of(problem: CardinalityProblem) -> tuple[Integers, Integers]:
    """`levels` of a problem whose groups are one after the other."""
    return levels(np.bincount(problem.group_labels), problem.group_ones)


def _unit(problem: CardinalityProblem) -> float:
    return UNIT * (problem.rank + 4 * problem.cardinality + 16)


class Enumeration(CardinalitySampler):
    """Every feasible state of at most 24 variables; the answer is proved by exhaustion.

    Where the largest terms are so much larger than those of the answer that rounding could hide a
    better state, a second pass finds all that it could hide, and each is summed up exactly enough.
    """

    name = "enumerate"
    compiles = True
    takes_groups = True
    exact = True
    max_variables = 24

    def _solve(self, problem: CardinalityProblem, request: Request, **parameters: Any) -> Solution:
        whole = problem
        with request.timing.stage("preprocess"):
            # Group after group, so that each level has its own variables.
            order = np.argsort(whole.group_labels, kind="stable")
            if whole.groups is not None:
                problem = whole.blinded().restricted(order, at=whole.random_state(request.rng))
            G = problem.gram()
            own = problem.linear + 0.5 * problem.diagonal
        with request.timing.stage("execute"):
            nowhere = np.zeros((0, problem.n), dtype=np.bool_)
            _, state, _ = search_subsets(G, own, *levels_of(problem), -np.inf, nowhere)
            best = value(problem, state)
            hidden = rounding(problem)
            lower = best.energy - best.error - hidden
            if hidden > 0.1 * best.tolerance:
                state, best, lower = _best_close(problem, state, best)
        found = np.zeros(whole.n, dtype=np.bool_)
        found[order] = state
        request.report(found)
        info = {
            "lower_bound": plus_offset(lower, problem),
            "proved_optimal": best.energy + best.error - lower <= best.tolerance,
            "tolerance": best.tolerance,
        }
        return Solution(found[None], info)


def _best_close(
    problem: CardinalityProblem, state: Bools, best: Value
) -> tuple[Bools, Value, float]:
    """The best of the states that rounding could hide, its energy, and a bound on all."""
    lower, close = subsets_near(problem, best.energy + best.error)
    if close is None:
        return state, best, lower
    lower = best.energy - best.error
    for x in close:
        found = value(problem, x)
        lower = min(lower, found.energy - found.error)
        if found.energy < best.energy:
            state, best = x, found
    return state, best, lower
