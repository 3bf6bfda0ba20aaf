"""The lowest states of a problem, with proof."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from solvers.arguments import positive, whole
from solvers.arithmetic.convex import plus_offset, value
from solvers.base import Budget
from solvers.clock.deadline import Deadline
from solvers.errors import ProblemError
from solvers.exact.certificate import form
from solvers.exact.semidefinite_tree import Pool, SemidefiniteTree
from solvers.problem import Bools, CardinalityProblem, Floats
from solvers.search.repair import LocalSearch
from solvers.search.tabu import Tabu

# Reads and share of a time limit of the search for the first states.
SEARCH_READS, SEARCH_SHARE = 4, 0.1


@dataclass(frozen=True)
class Lowest:
    """The lowest states that were found.

    Attributes:
        states: rising in energy, shape (m, n) of bool; m is less than asked for only if the problem
            has no more feasible states.
        energies: of the states, shape (m,).
        lower_bound: no other feasible state has less energy.
        proved: whether no other feasible state has less energy than the last of `states`, up to a
            share `solvers.arithmetic.convex.EQUAL` of its terms. Of states that are equal so far,
            which are listed is open.
        nodes: of the search tree.
    """

    states: Bools
    energies: Floats
    lower_bound: float
    proved: bool
    nodes: int


def lowest(
    problem: CardinalityProblem, count: int, *, time_limit: float | None = None, seed: int = 0
) -> Lowest:
    """The `count` lowest states, proved to be so, or the best known at the time limit.

    Args:
        problem: n variables, k ones.
        count: at least 1.
        time_limit: seconds; None for as long as the proof takes.
        seed: of the search for the first states.

    Raises:
        ParameterError: a count below 1, a time limit that is not above 0.
    """
    whole("count", count, 1, error=ProblemError)
    if time_limit is not None:
        positive("time_limit", time_limit)
    deadline = Deadline(time_limit)
    search = LocalSearch(problem)
    pool = Pool(count, lambda x: value(problem, x))
    own = form(problem)
    if own.decided:
        pool.offer(own.state())
        return _answer(problem, pool, np.inf, True, 0)
    first = deadline.share(SEARCH_SHARE).left
    samples = Tabu(num_threads=1).sample_problem(
        problem,
        budget=Budget(time_limit=first if first < np.inf else None, reads=SEARCH_READS),
        seed=seed,
    )
    for row in samples.record.sample:
        pool.offer(row.astype(np.bool_))
    full = _fill(problem, pool)
    if not full:
        return _answer(problem, pool, np.inf, True, 0)
    tree = SemidefiniteTree(
        own, pool, -np.inf, lambda x: search.descend(x, deadline), lambda x: None
    )
    tree.run(deadline)
    last = pool.states[-1][0]
    lower = min(tree.lower_bound, last.energy + last.error)
    return _answer(problem, pool, lower, lower >= last.energy - last.tolerance, tree.nodes)


def _fill(problem: CardinalityProblem, pool: Pool) -> bool:
    """Takes the swaps of states of the pool into it until no more improve it.

    Returns:
        Whether it is full; if not, it holds every state there is.
    """
    done: set[bytes] = set()
    while True:
        fresh = [x for _, x in pool.states if np.packbits(x).tobytes() not in done]
        if not fresh:
            return pool.last is not None
        state = fresh[0]
        done.add(np.packbits(state).tobytes())
        ones, zeros, deltas = problem.swap_deltas(state)
        wanted = min(int(np.isfinite(deltas).sum()), pool.count)
        if not wanted:
            continue
        for place in np.argpartition(deltas, wanted - 1, axis=None)[:wanted]:
            other = state.copy()
            other[ones[place // len(zeros)]] = False
            other[zeros[place % len(zeros)]] = True
            pool.offer(other)


def _answer(
    problem: CardinalityProblem, pool: Pool, lower: float, proved: bool, nodes: int
) -> Lowest:
    states = np.array([x for _, x in pool.states], dtype=np.bool_)
    return Lowest(states, problem.energy(states), plus_offset(lower, problem), proved, nodes)
