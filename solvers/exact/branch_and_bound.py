"""Branch and bound on the relaxation.

The root is `solvers.exact.relaxation.bound`: what reduced costs settle is fixed, and the search
runs on the core. A core of no more variables than the factor has rows has a regular G; there
``x_i^2 = x_i`` and ``sum x = k`` give room to take the least eigenvalue off the diagonal, which
raises the bound and costs no energy (Hammer and Rubin 1970; Billionnet, Elloumi and Plateau 2009).

The tree is that of `solvers.exact.relaxation_tree`, whose nodes are cheap; where that has not ended
after a few of them and the core is small, as on row blocks, that of
`solvers.exact.semidefinite_tree`, whose bounds are far better. Bounds are rounded down throughout
(`solvers.arithmetic.convex`). Time out leaves the incumbent and the least bound still open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from solvers.arithmetic.convex import (
    EIGEN_RATE,
    Convex,
    Part,
    Value,
    convex,
    part,
    plus_offset,
    value,
)
from solvers.base import Budget, CardinalitySampler, Request, Solution
from solvers.clock.background import computed
from solvers.clock.deadline import Deadline
from solvers.exact.certificate import Form, form
from solvers.exact.diagonal_shift import diagonally_shifted
from solvers.exact.interval import Bound, core
from solvers.exact.relaxation import bound
from solvers.exact.relaxation_tree import Tree
from solvers.exact.semidefinite_tree import Pool, SemidefiniteTree
from solvers.problem import Bools, CardinalityProblem
from solvers.search.annealing import Annealing
from solvers.search.repair import LocalSearch

# Shares of a time limit that the root's bound and the annealing for an incumbent may take; the
# annealing stops after so many reads in any case.
ROOT_SHARE = 0.5
INCUMBENT_SHARE = 0.2
INCUMBENT_READS = 4
# Nodes on the relaxation before a core of at most so many variables goes to the doubly non-negative
# one.
PLAIN_NODES, SEMIDEFINITE_MOST = 200, 1024


@dataclass(frozen=True)
class Proof:
    """What the search ends with.

    Attributes:
        state: the best state, shape (n,) of bool.
        best: its energy, without the problem's offset.
        lower_bound: no feasible state has less energy, the problem's offset apart.
        nodes: relaxations solved after the root's.
        core_size: variables the root left open.
    """

    state: Bools
    best: Value
    lower_bound: float
    nodes: int
    core_size: int

    @property
    def proved(self) -> bool:
        """Whether `state` is optimal, see `solvers.exact.interval.Bound.proved_optimal`."""
        return self.best.energy + self.best.error - self.lower_bound <= self.best.tolerance


def prove(
    problem: CardinalityProblem,
    request: Request,
    root: Bound | None = None,
    start: Bools | None = None,
) -> Proof:
    """The optimum with a proof, or the best state and bound at the deadline.

    Args:
        problem: 0 < k < n; its offset does not count.
        request: budget, clock and listener.
        root: what `solvers.exact.relaxation.bound` made of the problem, if it is at hand.
        start: a feasible state, no worse than the root's, that the listener has heard of.
    """
    deadline = request.deadline
    left = deadline.left
    if root is None:
        root = bound(problem, deadline.share(ROOT_SHARE))
    if problem.groups is not None:
        return _of_groups(problem, root, root.state if start is None else start, request)
    state, best = root.state, root.best
    if start is None:
        request.report(state)
    elif value(problem, start).energy <= best.energy:
        state, best = start, value(problem, start)
    if root.dual is None and not deadline.over:
        # Too large for a bound worth the name: the time is for a better state.
        found = _annealed(problem, deadline.left, request)
        if value(problem, found).energy < best.energy:
            state, best = found, value(problem, found)
            request.report(state)
    if root.dual is None or root.proved_optimal or deadline.over:
        return Proof(state, best, root.lower, 0, root.core_size)
    # A state better than the known one agrees with the selection outside the core; that one need
    # not.
    inside = np.zeros(problem.n, dtype=np.bool_)
    inside[np.argsort(root.costs, kind="stable")[: problem.cardinality]] = True
    if value(problem, inside).energy < best.energy:
        state, best = inside, value(problem, inside)
    for annealed in (False, True):
        free, sub = _open_part(problem, root, best, inside)
        if not 0 < sub.problem.cardinality < sub.problem.n:
            # One state is left, and no other is better than the best known.
            full = _placed(inside, free, np.full(len(free), sub.problem.cardinality > 0))
            if value(problem, full).energy < best.energy:
                state, best = full, value(problem, full)
            return Proof(state, best, best.energy - best.error, 0, len(free))
        if not annealed:
            found = _placed(inside, free, _annealed(sub.problem, INCUMBENT_SHARE * left, request))
            if value(problem, found).energy < best.energy:
                state, best = found, value(problem, found)
                request.report(state)
    outcome = _searched(problem, root, best, inside, deadline, request)
    if outcome.state is not None:
        state = outcome.state
    lower = max(root.lower, outcome.lower)
    return Proof(state, outcome.best, lower, outcome.nodes, outcome.core_size)


def _of_groups(problem: CardinalityProblem, root: Bound, start: Bools, request: Request) -> Proof:
    """`prove` where each group has its ones: the doubly non-negative tree over all variables."""
    deadline = request.deadline
    pool = Pool(1, lambda x: value(problem, x))

    def offer(state: Bools) -> None:
        if pool.offer(state) is not None:
            request.report(pool.states[0][1])

    offer(start)
    offer(root.state)
    if not (root.proved_optimal or deadline.over):
        offer(_annealed(problem, INCUMBENT_SHARE * deadline.left, request))
    lower, nodes = root.lower, 0
    best, state = pool.states[0]
    if best.energy + best.error - lower > best.tolerance and problem.n <= SEMIDEFINITE_MOST:
        search = LocalSearch(problem)
        tree = SemidefiniteTree(
            form(problem), pool, lower, lambda x: search.descend(x, deadline), request.report
        )
        if not deadline.over:
            tree.run(deadline)
        best, state = pool.states[0]
        nodes = tree.nodes
        lower = max(lower, min(tree.lower_bound, best.energy - best.error))
    return Proof(state, best, lower, nodes, root.core_size)


@dataclass(frozen=True)
class _Outcome:
    """What the trees end with; a state only if it beats the known one."""

    state: Bools | None
    best: Value
    lower: float
    nodes: int
    core_size: int


def _searched(
    problem: CardinalityProblem,
    root: Bound,
    best: Value,
    inside: Bools,
    deadline: Deadline,
    request: Request,
) -> _Outcome:
    """Searches the core for what beats the best known energy.

    First on the relaxation; where that has not ended after a few nodes and the core is small, on
    the doubly non-negative one.
    """
    free, sub = _open_part(problem, root, best, inside)
    search = LocalSearch(sub.problem)
    core_size = len(free)
    state, lower, nodes = None, root.lower, 0

    def evaluate(x: Bools) -> Value:
        return value(problem, _placed(inside, free, x))

    def report(x: Bools) -> None:
        request.report(_placed(inside, free, x))

    small = core_size <= SEMIDEFINITE_MOST
    below = _below(sub, deadline)
    if below is not None:
        tree = Tree(sub.problem, below, sub.constant, best, root.lower, evaluate, report)
        tree.run(deadline, PLAIN_NODES if small else np.inf)
        best, lower, nodes = tree.best, tree.lower_bound, tree.nodes
        if tree.state is not None:
            state = _placed(inside, free, tree.state)
        if tree.done:
            return _Outcome(state, best, lower, nodes, core_size)
    if small and not deadline.over:
        pool = Pool(1, evaluate, best)
        semidefinite = SemidefiniteTree(
            _form(sub), pool, lower, lambda x: search.descend(x, deadline), report
        )
        semidefinite.run(deadline)
        nodes += semidefinite.nodes
        if pool.states:
            best, found = pool.states[0]
            state = _placed(inside, free, found)
        lower = max(lower, min(semidefinite.lower_bound, best.energy - best.error))
    return _Outcome(state, best, lower, nodes, core_size)


def _form(sub: Part) -> Form:
    """A form that is nowhere above the whole problem's energy, over its core."""
    own = form(sub.problem)
    own.C[0, 0] = sub.constant
    own.error[0, 1:] += 0.5 * sub.error
    own.error[1:, 0] += 0.5 * sub.error
    return own


def _open_part(
    problem: CardinalityProblem, root: Bound, best: Value, inside: Bools
) -> tuple[Any, Part]:
    """Places that the root leaves open against the best known energy, and the problem over them."""
    gap = float(np.nextafter(best.energy + best.error - root.lower, np.inf))
    free = np.flatnonzero(core(root.costs, problem.cardinality, gap))
    return free, part(problem, free, inside)


def _below(sub: Part, deadline: Deadline) -> Convex | None:
    """A convex quadratic for the tree; None where the time left does not suffice to find one."""
    problem = sub.problem
    own = None
    if problem.n <= problem.rank:
        seconds = problem.n**3 / EIGEN_RATE
        own = computed(lambda: diagonally_shifted(problem), seconds, deadline)
    if own is None:
        own = convex(problem, deadline)
    return None if own is None else sub.below(own)


def _placed(inside: Bools, free: Any, x: Bools) -> Bools:
    """The selection with a state of the core in it."""
    full = inside.copy()
    full[free] = x
    return full


def _annealed(core_problem: CardinalityProblem, seconds: float, request: Request) -> Bools:
    """What annealing finds on the core."""
    time_limit = seconds if seconds < np.inf else None
    samples = Annealing().sample_problem(
        core_problem,
        budget=Budget(time_limit=time_limit, reads=INCUMBENT_READS),
        seed=int(request.rng.integers(2**31)),
    )
    row: Bools = samples.record.sample[int(np.argmin(samples.record.energy))].astype(np.bool_)
    return row


class BranchAndBound(CardinalitySampler):
    """Branch and bound; proves the optimum, or gives incumbent and bound at the time limit."""

    name = "exact"
    compiles = True
    takes_groups = True
    exact = True
    honours = ("time_limit",)

    def _solve(self, problem: CardinalityProblem, request: Request, **parameters: Any) -> Solution:
        with request.timing.stage("execute"):
            proof = prove(problem, request)
        info = {
            "lower_bound": plus_offset(proof.lower_bound, problem),
            "proved_optimal": proof.proved,
            "tolerance": proof.best.tolerance,
            "nodes": proof.nodes,
            "core_size": proof.core_size,
        }
        return Solution(proof.state[None], info)
