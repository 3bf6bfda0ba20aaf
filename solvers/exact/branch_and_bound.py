"""Branch and bound on the relaxation.

The root is `solvers.exact.relaxation.bound`: what reduced costs settle is fixed, and the search
runs on the core. A core of no more variables than the factor has rows has a regular G; there
``x_i^2 = x_i`` and ``sum x = k`` give room to take the least eigenvalue off the diagonal, which
raises the bound and costs no energy (Hammer and Rubin 1970; Billionnet, Elloumi and Plateau 2009).

Open nodes are taken by their bound. A node solves its own relaxation by `solvers.exact.newton`,
from its parent's dual point, only until it can be dropped; any dual point is a valid bound, so an
unfinished solve is weaker, never wrong. Bounds are rounded down throughout
(`solvers.arithmetic.convex`); a node is dropped when its bound is within the tolerance of the best
energy. Time out leaves the incumbent and the least bound still open.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import eigh

from solvers.arithmetic.convex import (
    EIGEN_RATE,
    UNIT,
    Convex,
    Part,
    Value,
    column_norms,
    convex,
    least,
    part,
    plus_offset,
    row_scales,
    value,
)
from solvers.base import Budget, CardinalitySampler, Request, Solution
from solvers.clock.background import computed, one_thread
from solvers.clock.deadline import Deadline
from solvers.exact.interval import Bound, core
from solvers.exact.newton import relax_until
from solvers.exact.relaxation import bound
from solvers.problem import Bools, CardinalityProblem, Floats
from solvers.search.annealing import Annealing
from solvers.search.repair import LocalSearch

# Beyond this many open nodes one of the last opened is taken, not the best: memory stays bounded.
MAX_OPEN = 100_000
# Newton steps a node may spend, and the share of the gap to which its bound is worth improving.
NODE_STEPS = 60
NODE_PRECISION = 0.02
# Shares of a time limit that the root's bound and the annealing for an incumbent may take; the
# annealing stops after so many reads in any case.
ROOT_SHARE = 0.5
INCUMBENT_SHARE = 0.2
INCUMBENT_READS = 4
FREE = np.int8(-1)


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


def diagonally_shifted(problem: CardinalityProblem) -> Convex:
    """The least convex diagonal that one shift can give, energies on feasible x as they are.

    With ``rho (sum x - k)^2 / 2`` added, which is 0 on feasible x, ``G + rho 11'``, its rows scaled
    by d, may lose its least eigenvalue t: ``G + rho 11' - t D^2`` and ``c + t d^2 / 2 - rho k``.

    Args:
        problem: with a factor of shape (r, n), n <= r, or dense; its offset does not count.
    """
    G, k, n = problem.gram(), problem.cardinality, problem.n
    rho = abs(float(np.median(problem.diagonal)))
    scales = row_scales(G + rho)
    C = (G + rho) / scales[:, None] / scales
    with one_thread():
        values, vectors = eigh(C)
    t = float(values[0])
    R = np.sqrt(np.maximum(values - t, 0.0))[:, None] * vectors.T
    shifted = C.copy()
    shifted[np.diag_indices(n)] -= t
    # What R does not explain, and the rounding of G, of C and of that difference.
    largest = float(np.abs(C.diagonal()).max(initial=0.0)) + abs(t)
    off = float(np.abs(R.T @ R - shifted).max(initial=0.0))
    off += 2 * UNIT * (n + problem.rank + 8) * largest
    widest = float(np.sort(scales)[n - k :].sum())
    error = 0.5 * off * widest * scales + UNIT * (abs(t) * scales**2 + 4 * rho * k)
    constant = 0.5 * rho * k * k * (1 - 8 * UNIT)
    A, c = R * scales, problem.linear + 0.5 * t * scales**2 - rho * k
    return Convex(A, c, k, column_norms(A), error, constant)


class Tree:
    """The search tree over the core of one problem.

    Args:
        sub: the core, 0 < k < m.
        below: a convex quadratic below the whole problem's energy, over the core.
        constant: of the core's energy, approximately.
        best: the energy of a known state; only what beats it is looked for.
        lower: a bound known already.
        evaluate: the whole problem's energy of a state of the core.
        report: takes each improved state of the core.

    Attributes:
        state: best state so far; None while nothing beats the known one.
        best: the best energy so far.
        nodes: relaxations solved.
    """

    def __init__(
        self,
        sub: CardinalityProblem,
        below: Convex,
        constant: float,
        best: Value,
        lower: float,
        evaluate: Callable[[Bools], Value],
        report: Callable[[Bools], None],
    ) -> None:
        self.state: Bools | None = None
        self.best = best
        self.nodes = 0
        self._below, self._evaluate, self._report = below, evaluate, report
        self._sub, self._constant, self._k = sub, constant, below.cardinality
        self._search = LocalSearch(sub)
        # (bound, number, fixed, dual): the number breaks ties, a child's is above its parent's.
        root = (lower, 0, np.full(sub.n, FREE, np.int8), np.zeros(len(below.A)))
        self._open: list[tuple[float, int, Any, Floats]] = [root]
        # Least bound among the nodes dropped: they hold nothing better than it.
        self._dropped = np.inf
        self._count = 0

    @property
    def lower_bound(self) -> float:
        """No state has less energy."""
        least_open = min((node[0] for node in self._open), default=np.inf)
        return min(least_open, self._dropped, self.best.energy - self.best.error)

    @property
    def _target(self) -> float:
        """A bound at which a node is dropped."""
        return self.best.energy - 0.5 * self.best.tolerance

    def run(self, deadline: Deadline) -> None:
        """Searches until the tree is empty or the time is up."""
        while self._open and not deadline.over:
            take = heapq.heappop if len(self._open) < MAX_OPEN else list.pop
            lower, _, fixed, dual = take(self._open)
            if lower >= self._target:
                self._dropped = min(self._dropped, lower)
            else:
                self._branch(lower, fixed, dual, deadline)

    def _branch(self, lower: float, fixed: Any, dual: Floats, deadline: Deadline) -> None:
        """Bounds one node; drops it, solves it, or puts its two children among the open ones."""
        free = np.flatnonzero(fixed == FREE)
        k = self._k - int((fixed == 1).sum())
        if k in (0, len(free)):
            leaf = fixed == 1
            leaf[free] = k > 0
            energy = self._offer(leaf, deadline)
            self._dropped = min(self._dropped, energy.energy - energy.error)
            return
        self.nodes += 1
        known = self.best.energy
        dual, x = self._relaxed(fixed, free, k, lower, dual, deadline)
        costs = self._below.reduced_costs(dual)
        h = costs[free]
        found = self._below.below(dual, np.concatenate([costs[fixed == 1], least(h, k)]))
        lower = max(lower, found)
        rounded = self._rounded(fixed, free, x, k)
        # The exact energy takes a pass over the whole problem: only where it may matter.
        if float(self._sub.energy(rounded)) + self._constant <= known + self.best.tolerance:
            self._offer(rounded, deadline)
        if lower >= self._target:
            self._dropped = min(self._dropped, lower)
            return
        fixed = fixed.copy()
        known = self.best.energy + self.best.error
        settled = ~core(h, k, float(np.nextafter(known - found, np.inf)))
        # What reduced costs settle agrees with the selection, or is no better than the incumbent.
        inside = np.zeros(len(free), dtype=np.bool_)
        inside[np.argsort(h, kind="stable")[:k]] = True
        fixed[free[settled]] = inside[settled]
        self._dropped = min(self._dropped, known if settled.any() else np.inf)
        weight = np.where(settled, -1.0, (x * (1 - x) + 1e-9) * self._below.norms[free] ** 2)
        branching = int(np.argmax(weight))
        if settled[branching]:
            self._open_child(lower, fixed, dual)
            return
        for choice in (0, 1):
            child = fixed.copy()
            child[free[branching]] = choice
            self._open_child(lower, child, dual)

    def _relaxed(
        self, fixed: Any, free: Any, k: int, lower: float, dual: Floats, deadline: Deadline
    ) -> tuple[Floats, Floats]:
        """The node's dual point and its relaxed point."""
        below = self._below
        F, c = below.A[:, free].T, below.c[free]
        u = below.A @ (fixed == 1)
        constant = below.constant + float(below.c[fixed == 1].sum())
        g = F @ dual + c
        z = np.zeros(len(free))
        z[np.argpartition(g, k - 1)[:k]] = 1.0
        eps = 0.3 * float(np.abs(g - np.median(g)).mean()) or 1.0
        known = self.best.energy
        tolerance = max(0.25 * self.best.tolerance, NODE_PRECISION * (known - lower))
        found = relax_until(
            F, c, k, u, dual.copy(), z, eps, known - constant, tolerance, NODE_STEPS, deadline
        )
        return found.dual, found.relaxed

    def _rounded(self, fixed: Any, free: Any, x: Floats, k: int) -> Bools:
        state: Bools = fixed == 1
        state[free[np.argsort(-x, kind="stable")[:k]]] = True
        return state

    def _offer(self, state: Bools, deadline: Deadline) -> Value:
        """Keeps a feasible state, after descent, if it beats the incumbent; returns its energy."""
        own = self._evaluate(state)
        if own.energy >= self.best.energy:
            return own
        improved = self._search.descend(state, deadline)
        found = self._evaluate(improved)
        if found.energy < self.best.energy:
            self.state, self.best = improved, found
            self._report(improved)
        return own

    def _open_child(self, lower: float, fixed: Any, dual: Floats) -> None:
        """Opens a node, unless no state agrees with what it fixes."""
        missing = self._k - int((fixed == 1).sum())
        if 0 <= missing <= int((fixed == FREE).sum()):
            self._count += 1
            heapq.heappush(self._open, (lower, self._count, fixed, dual))


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
    below = _below(sub, deadline)
    if below is None:
        return Proof(state, best, root.lower, 0, len(free))
    # The tree need only look for what beats the known state.
    tree = Tree(
        sub.problem,
        below,
        sub.constant,
        best,
        root.lower,
        lambda x: value(problem, _placed(inside, free, x)),
        lambda x: request.report(_placed(inside, free, x)),
    )
    tree.run(deadline)
    if tree.state is not None:
        state = _placed(inside, free, tree.state)
    lower = max(root.lower, tree.lower_bound)
    return Proof(state, tree.best, lower, tree.nodes, len(free))


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
