"""Branch and bound on the doubly non-negative relaxation, for the few lowest states.

Open nodes are taken by their bound. A node goes on with its parent's iteration on the variables
that are left, as long as its bound promises to reach the energy to be beaten; what the bound
settles is taken out on the way. Then it is split at the variable that is least decided, or, where
few subsets are left, all of them are looked at. Time out leaves the least bound still open.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from math import comb
from typing import Any

import numpy as np

from solvers.arithmetic.convex import Value
from solvers.clock.background import one_thread
from solvers.clock.deadline import Deadline
from solvers.exact.certificate import UNIT, Form, row_bound, settled
from solvers.exact.doubly_nonnegative import SETUP_RATE, AlternatingDirections
from solvers.exact.enumeration import levels, search_subsets
from solvers.problem import Bools

# Iterations between two bounds of a node.
STEPS = 20
# A node is worth another bound if this many of the last gain would close its gap.
WORTH = 6
# Bounds before a node may be split.
LEAST_BOUNDS = 2
# Share of a node's variables that must be settled before the rest are taken alone.
WORTH_LEAVING = 0.1
# Subsets that are looked at one by one, and states collected from them.
FEW_SUBSETS = 20_000
MOST_COLLECTED = 2_000
# Beyond this many open nodes the last opened is taken, not the best: memory stays bounded.
MAX_OPEN = 4_000
Start = tuple[AlternatingDirections, Any]


class Pool:
    """The lowest states known, at most `count` of them.

    Args:
        count: at least 1.
        evaluate: energy of a state, shape (m,) of bool.
        known: an energy that states must be below; None for any.
    """

    def __init__(
        self, count: int, evaluate: Callable[[Bools], Value], known: Value | None = None
    ) -> None:
        self.count, self._evaluate, self._limit = count, evaluate, known
        self._known: set[bytes] = set()
        self.states: list[tuple[Value, Bools]] = []

    def offer(self, state: Bools) -> Value | None:
        """The energy of a state if it is new and among the lowest."""
        key = np.packbits(state).tobytes()
        if key in self._known:
            return None
        found = self._evaluate(state)
        last = self.last
        if last is not None and found.energy >= last.energy:
            return None
        self._known.add(key)
        self.states.append((found, state.copy()))
        self.states.sort(key=lambda entry: entry[0].energy)
        if len(self.states) > self.count:
            self._known.discard(np.packbits(self.states.pop()[1]).tobytes())
        return found

    @property
    def last(self) -> Value | None:
        """Energy of the highest of `count` states, or what is known; None while there is none."""
        return self.states[-1][0] if len(self.states) == self.count else self._limit


class SemidefiniteTree:
    """The tree over one form.

    Args:
        own: m variables; not decided.
        pool: full, unless there are no more states; gets better states as they are found.
        lower: a bound known already.
        descend: a state no worse than the one it gets.
        report: takes each new lowest state.

    Attributes:
        nodes: bounded so far.
    """

    def __init__(
        self,
        own: Form,
        pool: Pool,
        lower: float,
        descend: Callable[[Bools], Bools],
        report: Callable[[Bools], None],
    ) -> None:
        self.nodes = 0
        self._pool, self._descend, self._report = pool, descend, report
        self._open: list[tuple[float, int, Form, Start | None]] = [(lower, 0, own, None)]
        # Least bound among the nodes dropped: they hold nothing better than it.
        self._dropped = np.inf
        self._opened = 0

    @property
    def done(self) -> bool:
        """Whether every state that is not in the pool is no lower than its highest."""
        return not self._open

    @property
    def lower_bound(self) -> float:
        """No state outside the pool has less energy."""
        return min(min((node[0] for node in self._open), default=np.inf), self._dropped)

    @property
    def _target(self) -> float:
        """A bound at which a node is dropped."""
        last = self._pool.last
        return np.inf if last is None else last.energy - 0.5 * last.tolerance

    def run(self, deadline: Deadline) -> None:
        """Searches until the tree is empty or the time is up."""
        with one_thread():
            while self._open and not self._hopeless(self._open[0][2], deadline):
                best_first = len(self._open) < MAX_OPEN
                node = heapq.heappop(self._open) if best_first else self._open.pop()
                lower, _, own, start = node
                if lower >= self._target:
                    self._drop(lower)
                elif not self._closed(own):
                    self._branch(lower, own, start, deadline)

    def _hopeless(self, own: Form, deadline: Deadline) -> bool:
        """Whether the time left does not suffice to begin with a node, or to bound it again."""
        return deadline.left < len(own.free) ** 3 / SETUP_RATE

    def _drop(self, lower: float) -> None:
        self._dropped = min(self._dropped, lower)

    def _closed(self, own: Form) -> bool:
        """Whether a node was small enough to look at all its states."""
        if own.decided:
            # It goes into the pool, or is no better than what is there.
            self._offer(own.state())
            self._drop(self._ceiling)
            return True
        if len(own.counts) > 1:
            return False
        m, k = len(own.free), int(own.counts[0])
        if comb(m, k) > FEW_SUBSETS:
            return False
        C = own.C
        size = float(np.abs(C).sum() + own.error.sum())
        slack = UNIT * (4 * m + 16) * size + float(own.error.sum())
        limit = self._ceiling + 2 * slack - float(C[0, 0])
        found = np.zeros((MOST_COLLECTED, m), dtype=np.bool_)
        alone = C.diagonal()[1:] + 2 * C[0, 1:]
        _, _, count = search_subsets(
            np.ascontiguousarray(2 * C[1:, 1:]),
            np.ascontiguousarray(alone),
            *levels([m], [k]),
            limit,
            found,
        )
        if count > len(found):
            return False
        for x in found[:count]:
            state = own.settled.copy()
            state[own.free[x]] = True
            self._offer(state)
        self._drop(self._ceiling)
        return True

    @property
    def _ceiling(self) -> float:
        """States of more energy are not looked for."""
        last = self._pool.last
        return np.inf if last is None else last.energy + last.error + last.tolerance

    def _offer(self, state: Bools) -> None:
        first = self._pool.states[0][0].energy if self._pool.states else np.inf
        found = self._pool.offer(state)
        if found is not None and found.energy < first:
            self._report(state)

    def _branch(self, lower: float, own: Form, start: Start | None, deadline: Deadline) -> None:
        """Bounds one node; drops it, or puts its two children among the open ones."""
        self.nodes += 1
        directions = AlternatingDirections(own, start)
        previous, bounds = -np.inf, 0
        while True:
            for _ in range(STEPS):
                if self._hopeless(own, deadline):
                    self._push(lower, own, (directions, np.arange(len(own.free))))
                    return
                directions.step()
            bounds += 1
            rows = row_bound(own, directions.stage())
            gain, previous = rows.lower - previous, max(previous, rows.lower)
            lower = max(lower, rows.lower)
            if bounds == 1:
                self._round(own, directions)
            if lower >= self._target:
                self._drop(lower)
                return
            limit = self._ceiling
            fixed = settled(rows, limit)
            if fixed.mean() > WORTH_LEAVING:
                self._drop(limit)
                own = own.restricted(fixed, rows.chosen)
                if self._closed(own):
                    return
                directions = AlternatingDirections(own, (directions, np.flatnonzero(~fixed)))
            if bounds >= LEAST_BOUNDS and WORTH * gain < self._target - lower:
                break
        y = directions.y
        place = int(np.argmax(y * (1 - y)))
        settles = np.arange(len(y)) == place
        keep = np.flatnonzero(~settles)
        for choice in (True, False):
            members = own.groups == own.groups[place]
            count = int(own.counts[own.groups[place]])
            if (choice and count) or (not choice and count < members.sum()):
                child = own.restricted(settles, np.full(len(y), choice))
                self._push(lower, child, (directions, keep))

    def _push(self, lower: float, own: Form, start: Start) -> None:
        self._opened += 1
        heapq.heappush(self._open, (lower, self._opened, own, start))

    def _round(self, own: Form, directions: AlternatingDirections) -> None:
        self._offer(self._descend(own.rounded(directions.y)))
