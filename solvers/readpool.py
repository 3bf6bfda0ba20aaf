"""Collects the reads of a solver that makes them one at a time."""

from __future__ import annotations

import threading
from typing import Any, ClassVar

import numpy as np

from solvers.problem import Bools, CardinalityProblem
from solvers.request import Request, Solution


class ReadPool:
    """The reads made so far, and the best of them.

    The first `MAX_ROWS` reads are kept, so that success shares can be counted, and the best one if
    it is not among them. Rows are in order of the reads' numbers, in whatever order they arrive.

    Attributes:
        reads: reads made so far.
        best: energy of the best one.
    """

    MAX_ROWS: ClassVar[int] = 1000

    def __init__(self, problem: CardinalityProblem, request: Request) -> None:
        self.reads = 0
        self.best = np.inf
        self._lock = threading.Lock()
        self._reported = np.inf
        self._best_row: tuple[int, Bools] | None = None
        self._problem = problem
        self._request = request
        self._rows: dict[int, Bools] = {}

    def improve(self, state: Bools) -> float:
        """Reports a feasible state if it is the best so far; returns its energy. Any thread may."""
        energy = float(self._problem.energy(state))
        with self._lock:
            if energy < self._reported:
                self._reported = energy
                self._request.report(state)
        return energy

    def add(self, state: Bools, number: int | None = None) -> None:
        """Takes a read, a feasible state of shape (n,).

        Args:
            state: of the caller no more.
            number: which read it is; the next one when None.
        """
        number = self.reads if number is None else number
        self.reads += 1
        energy = self.improve(state)
        known = -1 if self._best_row is None else self._best_row[0]
        if energy < self.best or (energy == self.best and number < known):
            self.best, self._best_row = energy, (number, state)
        if number < self.MAX_ROWS:
            self._rows[number] = state

    def solution(self, **info: Any) -> Solution:
        """What `_solve` returns."""
        rows = dict(self._rows)
        if self._best_row is not None:
            rows.setdefault(*self._best_row)
        states = [rows[number] for number in sorted(rows)]
        return Solution(np.array(states), {"reads": self.reads, **info})
