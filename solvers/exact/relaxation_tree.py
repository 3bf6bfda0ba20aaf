"""The search tree on the relaxation.

Open nodes are taken by their bound. A node solves its own relaxation by `solvers.exact.newton`,
from its parent's dual point, only until it can be dropped; any dual point is a valid bound, so an
unfinished solve is weaker, never wrong. A node is dropped when its bound is within the tolerance of
the best energy.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

import numpy as np

from solvers.arithmetic.convex import Convex, Value, least
from solvers.clock.deadline import Deadline
from solvers.exact.interval import core
from solvers.exact.newton import relax_until
from solvers.problem import Bools, CardinalityProblem, Floats
from solvers.search.repair import LocalSearch

# Beyond this many open nodes one of the last opened is taken, not the best: memory stays bounded.
MAX_OPEN = 100_000
# Newton steps a node may spend, and the share of the gap to which its bound is worth improving.
NODE_STEPS = 60
NODE_PRECISION = 0.02
FREE = np.int8(-1)


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

    @property
    def done(self) -> bool:
        """Whether the tree is empty."""
        return not self._open

    def run(self, deadline: Deadline, nodes: float = np.inf) -> None:
        """Searches until the tree is empty, the time is up or so many nodes were bounded."""
        while self._open and not deadline.over and self.nodes < nodes:
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
