"""Branch and bound on the relaxation.

The root is `solvers.relaxation.bound`: what reduced costs settle is fixed, and the search runs on
the core. A core of no more variables than the factor has rows has a regular G; there
``x_i^2 = x_i`` and ``sum x = k`` give room to take the least eigenvalue off the diagonal, which
raises the bound and costs no energy (Hammer and Rubin 1970; Billionnet, Elloumi and Plateau 2009).

Open nodes are taken by their bound. A node solves its own relaxation by `solvers.newton`, from its
parent's dual point, only until it can be dropped; any dual point is a valid bound, so an unfinished
solve is weaker, never wrong. Time out leaves the incumbent and the least bound still open.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from solvers.annealing import Annealing
from solvers.base import Budget, CardinalitySampler, Request, Solution
from solvers.kernels import PRODUCT_RATE
from solvers.newton import relax_until
from solvers.problem import Bools, CardinalityProblem, Floats
from solvers.relaxation import bound, convexified, core, round_off
from solvers.repair import LocalSearch

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
# Multiplications of an eigenvalue decomposition, in cubes of the order.
EIGEN_WORK = 10


@dataclass(frozen=True)
class Proof:
    """What the search ends with.

    Attributes:
        state: the best state, shape (n,) of bool.
        lower_bound: no feasible state has less energy, up to round-off.
        proved: whether `state` is optimal up to round-off.
        nodes: relaxations solved after the root's.
        core_size: variables the root left open.
    """

    state: Bools
    lower_bound: float
    proved: bool
    nodes: int
    core_size: int


def diagonally_shifted(problem: CardinalityProblem) -> CardinalityProblem:
    """The same energies on feasible x with the least convex diagonal that one shift can give.

    With ``rho (sum x - k)^2 / 2`` added, which is 0 on feasible x, ``G + rho 11'`` may lose its
    least eigenvalue t: ``G + rho 11' - t I`` and ``c + t / 2 - rho k``.

    Args:
        problem: with a factor of shape (r, n), n <= r.
    """
    A, k = problem.factor, problem.cardinality
    assert A is not None
    G = A.T @ A
    rho = float(np.trace(G)) / max(problem.n, 1)
    values, vectors = np.linalg.eigh(G + rho)
    t = max(0.0, float(values[0]))
    factor = np.sqrt(np.maximum(values - t, 0.0))[:, None] * vectors.T
    # As in `convexified`: what rounding does to the diagonal goes into the linear term.
    diagonal = np.einsum("ri,ri->i", factor, factor) - G.diagonal() - rho
    linear = problem.linear - rho * k - diagonal / 2
    return replace(problem, factor=factor, linear=linear, offset=problem.offset + rho * k * k / 2)


class BranchAndBound:
    """The tree over the core of one problem.

    Args:
        problem: 0 < k < n, with a factor.
        upper: energy of a known state; only what beats it is looked for.
        lower: a bound known already.
        tolerance: energies closer than this are equal.
        report: takes each improved state of `problem`.

    Attributes:
        state: best state so far; None while nothing beats the known one.
        upper: the best energy so far.
        nodes: relaxations solved.
    """

    def __init__(
        self,
        problem: CardinalityProblem,
        upper: float,
        lower: float,
        tolerance: float,
        report: Callable[[Bools], None],
    ) -> None:
        assert problem.factor is not None
        self.state: Bools | None = None
        self.upper = upper
        self.nodes = 0
        self._problem, self._report, self._tolerance = problem, report, tolerance
        self._A = problem.factor
        self._norms = problem.diagonal
        self._search = LocalSearch(problem)
        # (bound, number, fixed, dual): the number breaks ties, a child's is above its parent's.
        root = (lower, 0, np.full(problem.n, FREE, np.int8), np.zeros(problem.rank))
        self._open: list[tuple[float, int, Any, Floats]] = [root]
        # Least bound among the nodes dropped: they hold nothing better than it.
        self._dropped = np.inf
        self._count = 0

    @property
    def lower_bound(self) -> float:
        """No state of the problem has less energy, up to round-off."""
        least_open = min((node[0] for node in self._open), default=np.inf)
        return min(least_open, self._dropped, self.upper)

    def run(self, deadline: float) -> bool:
        """Searches until the tree is empty or the time is up; True if it is empty."""
        while self._open:
            if time.perf_counter() >= deadline:
                return False
            take = heapq.heappop if len(self._open) < MAX_OPEN else list.pop
            lower, _, fixed, dual = take(self._open)
            if lower >= self.upper - self._tolerance:
                self._dropped = min(self._dropped, lower)
            else:
                self._branch(lower, fixed, dual, deadline)
        return True

    def _branch(self, lower: float, fixed: Any, dual: Floats, deadline: float) -> None:
        """Bounds one node; drops it, solves it, or puts its two children among the open ones."""
        free = np.flatnonzero(fixed == FREE)
        k = self._problem.cardinality - int((fixed == 1).sum())
        if k in (0, len(free)):
            leaf = fixed == 1
            leaf[free] = k > 0
            self._offer(leaf, deadline)
            self._dropped = min(self._dropped, float(self._problem.energy(leaf)))
            return
        self.nodes += 1
        found, dual, x, g = self._relaxed(fixed, free, k, lower, dual, deadline)
        lower = max(lower, found)
        self._offer(self._rounded(fixed, free, x, k), deadline)
        if lower >= self.upper - self._tolerance:
            self._dropped = min(self._dropped, lower)
            return
        fixed = fixed.copy()
        settled = ~core(g, k, self.upper - found)
        # What reduced costs settle agrees with the selection, or is no better than the incumbent.
        inside = np.zeros(len(free), dtype=np.bool_)
        inside[np.argsort(g, kind="stable")[:k]] = True
        fixed[free[settled]] = inside[settled]
        self._dropped = min(self._dropped, self.upper if settled.any() else np.inf)
        weight = np.where(settled, -1.0, (x * (1 - x) + 1e-9) * self._norms[free])
        branching = int(np.argmax(weight))
        if settled[branching]:
            self._open_child(lower, fixed, dual)
            return
        for value in (0, 1):
            child = fixed.copy()
            child[free[branching]] = value
            self._open_child(lower, child, dual)

    def _relaxed(
        self, fixed: Any, free: Any, k: int, lower: float, dual: Floats, deadline: float
    ) -> tuple[float, Floats, Floats, Floats]:
        """The node's bound, its dual point, its relaxed point and its reduced costs."""
        F, c = self._A[:, free].T, self._problem.linear[free]
        u = self._A @ (fixed == 1)
        constant = self._problem.offset + float(self._problem.linear[fixed == 1].sum())
        target = self.upper - self._tolerance - constant
        g = F @ dual + c
        z = np.zeros(len(free))
        z[np.argpartition(g, k - 1)[:k]] = 1.0
        eps = 0.3 * float(np.abs(g - np.median(g)).mean()) or 1.0
        tolerance = max(self._tolerance, NODE_PRECISION * (self.upper - lower))
        found = relax_until(
            F, c, k, u, dual.copy(), z, eps, target, tolerance, NODE_STEPS, deadline
        )
        return found.value + constant, found.dual, found.relaxed, F @ found.dual + c

    def _rounded(self, fixed: Any, free: Any, x: Floats, k: int) -> Bools:
        state: Bools = fixed == 1
        state[free[np.argsort(-x, kind="stable")[:k]]] = True
        return state

    def _offer(self, state: Bools, deadline: float) -> None:
        """Keeps a feasible state, after descent, if it beats the incumbent."""
        if self._problem.energy(state) >= self.upper:
            return
        state = self._search.descend(state, deadline)
        self.state, self.upper = state, float(self._problem.energy(state))
        self._report(state)

    def _open_child(self, lower: float, fixed: Any, dual: Floats) -> None:
        """Opens a node, unless no state agrees with what it fixes."""
        missing = self._problem.cardinality - int((fixed == 1).sum())
        if 0 <= missing <= int((fixed == FREE).sum()):
            self._count += 1
            heapq.heappush(self._open, (lower, self._count, fixed, dual))


def prove(problem: CardinalityProblem, request: Request) -> Proof:
    """The optimum with a proof, or the best state and bound at the deadline.

    Args:
        problem: 0 < k < n.
        request: budget, clock and listener.
    """
    left = request.deadline - time.perf_counter()
    root = bound(problem, time.perf_counter() + ROOT_SHARE * left)
    request.report(root.state)
    open_variables = root.core_size
    if root.proved_optimal or time.perf_counter() >= request.deadline:
        lower = root.lower_bound
        return Proof(root.state, lower, root.proved_optimal, 0, open_variables)
    convex = convexified(problem)
    assert convex.factor is not None
    g = root.dual @ convex.factor + convex.linear
    tolerance = max(root.tolerance, round_off(convex))
    # A state better than the known one agrees with the selection outside the core; that one need
    # not.
    inside = np.zeros(problem.n, dtype=np.bool_)
    inside[np.argsort(g, kind="stable")[: problem.cardinality]] = True
    best, upper = min(
        ((x, float(problem.energy(x))) for x in (root.state, inside)), key=lambda pair: pair[1]
    )
    for annealed in (False, True):
        free = np.flatnonzero(core(g, problem.cardinality, upper - root.lower_bound + tolerance))
        sub = convex.restricted(free, at=inside)
        if not 0 < sub.cardinality < sub.n:
            return Proof(best, upper - tolerance, True, 0, len(free))
        if not annealed:
            found = _annealed(sub, INCUMBENT_SHARE * left, request)
            full = _placed(inside, free, found)
            energy = float(problem.energy(full))
            if energy < upper:
                best, upper = full, energy
                request.report(best)
    seconds = EIGEN_WORK * sub.n**3 / PRODUCT_RATE
    if sub.n <= sub.rank and seconds < 0.5 * (request.deadline - time.perf_counter()):
        sub = diagonally_shifted(sub)
    # The tree need only look for what beats the known state.
    tree = BranchAndBound(
        sub,
        upper,
        root.lower_bound,
        tolerance,
        lambda x: request.report(_placed(inside, free, x)),
    )
    proved = tree.run(request.deadline)
    if tree.state is not None:
        best = _placed(inside, free, tree.state)
    energy = float(problem.energy(best))
    lower = energy - tolerance if proved else max(root.lower_bound, tree.lower_bound - tolerance)
    return Proof(best, min(lower, energy), proved, tree.nodes, len(free))


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


class Exact(CardinalitySampler):
    """Branch and bound; proves the optimum, or gives incumbent and bound at the time limit."""

    name = "exact"
    exact = True
    honours = ("time_limit",)

    def _solve(self, problem: CardinalityProblem, request: Request, **parameters: Any) -> Solution:
        with request.timing.stage("execute"):
            proof = prove(problem, request)
        info = {
            "lower_bound": proof.lower_bound,
            "proved_optimal": proof.proved,
            "nodes": proof.nodes,
            "core_size": proof.core_size,
        }
        return Solution(proof.state[None], info)
