"""Certified lower bound from the continuous relaxation, and the mask it rounds to.

The best ``s`` of `solvers.arithmetic.convex` is ``A x*`` at the optimum ``x*`` of the relaxation
``0 <= x <= 1, sum x = k``. `solvers.exact.frank_wolfe` finds it where few vertices suffice; where
it does not, `solvers.exact.newton` takes over. ``s`` is the certificate, and with the state that
``x*`` rounds to it makes the interval of `solvers.exact.interval`.

What cannot be interrupted (a factorisation, a Newton step) is begun only if it is expected to fit
in the time left; until then a mask by greedy selection and descent is at hand.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.arithmetic.convex import Convex, convex, value
from solvers.base import CardinalitySampler, Request, Solution
from solvers.clock.deadline import NEVER, Deadline
from solvers.exact.frank_wolfe import Vertices, frank_wolfe
from solvers.exact.interval import Bound, certified, without_factor
from solvers.exact.newton import Relaxed, relax_until
from solvers.groups import least_of_each
from solvers.problem import Bools, CardinalityProblem, Floats
from solvers.search.repair import LocalSearch

MAX_STEPS = 1000
# Steps of Frank-Wolfe where no other method follows.
GROUP_STEPS = 100
# First width of the proximal term, in median distances of a reduced cost from their median.
FIRST_WIDTH = 0.3
# Ones, and zeros, that the descent of a large problem considers at a time.
NEAREST = 4096
# Share of a time limit for the bound, and of it for what cannot be interrupted; the rest is for
# rounding and descent.
BOUND_SHARE = 0.75


def bound(problem: CardinalityProblem, deadline: Deadline = NEVER) -> Bound:
    """Solve the relaxation, certify it, round it, descend.

    Args:
        problem: 0 < k < n.
        deadline: when the best so far is returned.

    Returns:
        The interval; valid whenever the iteration stops.
    """
    start = time.perf_counter()
    if problem.groups is not None:
        return _of_groups(problem, deadline, start)
    states = []
    if problem.factor is None:
        states.append(constructed(problem, deadline.share(0.5)))
    own = convex(problem, deadline)
    if own is None:
        return without_factor(problem, states[0], start)
    found = relaxed(own, deadline.share(BOUND_SHARE))
    costs = own.reduced_costs(found.dual)
    states.append(_rounded(problem, found.relaxed, costs, deadline))
    if not found.solved and problem.factor is not None:
        states.append(constructed(problem, deadline))
    state = states[0]
    if len(states) > 1:
        state = min(states, key=lambda x: value(problem, x).energy)
    lower = own.lower_bound(found.dual, costs)
    return certified(problem, state, lower, costs, own, found, start)


def _of_groups(problem: CardinalityProblem, deadline: Deadline, start: float) -> Bound:
    """`bound` where each group has its ones: Frank-Wolfe alone, on vertices that have them.

    The k_g smallest entries of h in each group g take the place of the k smallest.
    """
    labels, ones = problem.group_labels, problem.group_ones
    states = [constructed(problem, deadline.share(0.5))]
    own = convex(problem, deadline)
    if own is None:
        return without_factor(problem, states[0], start)

    def vertex(costs: Floats) -> NDArray[np.intp]:
        return least_of_each(costs, labels, ones)

    found = frank_wolfe(own, deadline.share(BOUND_SHARE), vertex=vertex, most=GROUP_STEPS).found
    costs = own.reduced_costs(found.dual)
    rounded = np.zeros(problem.n, dtype=np.bool_)
    rounded[vertex(-found.relaxed)] = True
    states.append(_descended(problem, rounded, deadline))
    state = min(states, key=lambda x: value(problem, x).energy)
    lower = own.below(found.dual, costs[vertex(costs)])
    return certified(problem, state, lower, costs, own, found, start)


def relaxed(own: Convex, deadline: Deadline = NEVER) -> Relaxed:
    """Solve the relaxation of a convex quadratic, as far as the time allows.

    Args:
        own: n variables, 0 < k < n.
        deadline: when the best so far is returned.

    Returns:
        The best dual and relaxed point; `Convex.lower_bound` certifies the former.
    """
    vertices = frank_wolfe(own, deadline)
    if vertices.found.solved or deadline.over:
        return vertices.found
    return _newton(own, vertices, deadline)


def constructed(problem: CardinalityProblem, deadline: Deadline) -> Bools:
    """Greedy selection, then descent; shape (n,) of bool."""
    search = LocalSearch(problem)
    return search.descend(search.fill(np.zeros(problem.n, dtype=np.bool_), deadline), deadline)


def _newton(own: Convex, start: Vertices, deadline: Deadline) -> Relaxed:
    """`solvers.exact.newton` from where Frank-Wolfe stopped, until the deadline."""
    A, c, k = own.A, own.c, own.cardinality
    r, first = len(A), start.found
    z = np.clip(first.relaxed, 0.0, 1.0)
    g = start.s @ A + c
    eps = FIRST_WIDTH * float(np.median(np.abs(g - np.median(g)))) or 1.0
    # The view of A costs no memory: a whole layer's factor is held once.
    found = relax_until(
        A.T, c, k, np.zeros(r), start.s.copy(), z, eps, np.inf, start.tolerance, MAX_STEPS, deadline
    )

    def energy(x: Floats) -> float:
        s = A @ x
        return float(0.5 * s @ s + c @ x)

    # The better dual and the better point: at tiny widths the last point may be a poor one.
    best = found if found.value > first.value else first
    x = min((found.relaxed, first.relaxed), key=energy)
    return Relaxed(best.value, best.dual, x, first.steps + found.steps, found.solved)


def _rounded(problem: CardinalityProblem, x: Floats, g: Floats, deadline: Deadline) -> Bools:
    """The k largest entries of x, ties by reduced cost, then swap descent."""
    order = np.lexsort((g, -np.round(x, 9)))
    state = np.zeros(problem.n, dtype=np.bool_)
    state[order[: problem.cardinality]] = True
    return _descended(problem, state, deadline)


def _descended(problem: CardinalityProblem, state: Bools, deadline: Deadline) -> Bools:
    """Swap descent; of a large problem among the ones and zeros that are cheapest to flip.

    Those are chosen anew after each descent, until none of their swaps helps: two products with A a
    round, and no second copy of it.
    """
    if problem.n <= 2 * NEAREST or problem.groups is not None:
        # A handful of swaps is left to make: not worth building G for.
        return LocalSearch(problem).descend(state, deadline)
    half = 0.5 * problem.diagonal
    while not deadline.over:
        f = problem.fields(state)
        pool = np.concatenate(
            [
                side[np.argsort((half + sign * f)[side], kind="stable")[:NEAREST]]
                for side, sign in ((np.flatnonzero(state), -1), (np.flatnonzero(~state), 1))
            ]
        )
        some = problem.restricted(pool, at=state)
        before = state[pool]
        after = LocalSearch(some).descend(before, deadline)
        if np.array_equal(after, before):
            break
        state = state.copy()
        state[pool] = after
    return state


class Relaxation(CardinalitySampler):
    """Certified bound, rounding, descent; one deterministic read.

    ``info["tolerance"]`` is the difference below which two energies are equal. ``certificate`` is
    None where the time did not suffice to factor a dense matrix.
    """

    name = "relaxation"
    compiles = True
    takes_groups = True
    honours = ("time_limit",)

    def _compile(self, tiny: CardinalityProblem) -> None:
        super()._compile(tiny)
        # What is done where the relaxation is not solved in time.
        constructed(tiny, NEVER)

    def _solve(self, problem: CardinalityProblem, request: Request, **parameters: Any) -> Solution:
        with request.timing.stage("execute"):
            found = bound(problem, request.deadline)
        request.report(found.state)
        return Solution(
            found.state[None],
            {
                "lower_bound": found.lower_bound,
                "proved_optimal": found.proved_optimal,
                "tolerance": found.best.tolerance,
                "certificate": None if found.dual is None else found.dual.tolist(),
                "core_size": found.core_size,
                "iterations": found.iterations,
            },
        )
