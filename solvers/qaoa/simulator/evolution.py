"""Mixers as they act on exact state vectors: ``exp(-i beta M)`` and its adjoint derivative.

`apply` changes `psi` in place. `undo` takes the layer off `psi` and the adjoint vector `lam` and
returns the layer's ``dE/dbeta = 2 Im <lam| M |psi>`` (Jones and Gacon, arXiv:2009.02823).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from cmath import exp
from collections.abc import Callable, Sequence
from math import comb, cos, sin, sqrt
from typing import Any

import numpy as np

from solvers.problem import Floats
from solvers.qaoa.simulator import kernels, schur
from solvers.qaoa.simulator.basis import Masks, binomials, fill_masks, rank_tables
from solvers.qaoa.simulator.kernels import Complexes
from solvers.qaoa.simulator.threads import Threads


class Mixer(ABC):
    """A mixer on state vectors of `dim` amplitudes."""

    dim: int

    @abstractmethod
    def apply(self, psi: Complexes, beta: float, threads: Threads) -> None:
        """``psi <- exp(-i beta M) psi``."""

    @abstractmethod
    def undo(self, psi: Complexes, lam: Complexes, beta: float, threads: Threads) -> float:
        """Both vectors ``<- exp(i beta M)`` times themselves; returns ``dE/dbeta``."""


class XMixer(Mixer):
    """``M = -sum_i X_i`` on 2^n amplitudes."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.dim = 1 << n

    def apply(self, psi: Complexes, beta: float, threads: Threads) -> None:
        """See `Mixer`."""
        c, s = cos(beta), sin(beta)
        for bit in range(self.n):
            threads.over(self.dim // 2, kernels.flip, psi, bit, c, s)

    def undo(self, psi: Complexes, lam: Complexes, beta: float, threads: Threads) -> float:
        """See `Mixer`."""
        total = 0.0
        for bit in range(self.n):
            total += threads.over(self.dim // 2, kernels.overlap_flip, psi, lam, bit)
        self.apply(psi, -beta, threads)
        self.apply(lam, -beta, threads)
        return 2 * total


class ExchangeMixer(Mixer):
    """``exp(i beta (X_a X_b + Y_a Y_b)/2)`` on one pair after the other, at weight k.

    Args:
        n: qubits.
        k: weight.
        edges: the pairs in order of application, as in `solvers.qaoa.circuit.mixers`.
    """

    def __init__(self, n: int, k: int, edges: Sequence[tuple[int, int]]) -> None:
        self.dim = comb(n, k)
        self.edges = list(edges)
        self._n, self._k, self._binomials = n, k, binomials(n)
        self._masks: Masks = np.empty(self.dim, np.uint32)
        fill_masks(self._masks, 0, self.dim, n, k, self._binomials)
        self._tables = rank_tables(n, k)

    def apply(self, psi: Complexes, beta: float, threads: Threads) -> None:
        """See `Mixer`."""
        for edge in self.edges:
            self._run(edge, threads, kernels.neighbours, kernels.exchange, (psi,), beta)

    def undo(self, psi: Complexes, lam: Complexes, beta: float, threads: Threads) -> float:
        """See `Mixer`."""
        kinds = (kernels.neighbours_back, kernels.exchange_back)
        return 2 * sum(
            self._run(edge, threads, *kinds, (psi, lam), beta) for edge in reversed(self.edges)
        )

    def _run(
        self,
        edge: tuple[int, int],
        threads: Threads,
        neighbours: Callable[..., Any],
        exchange: Callable[..., Any],
        vectors: tuple[Complexes, ...],
        beta: float,
    ) -> float:
        c, s = cos(beta), sin(beta)
        low, high = min(edge), max(edge)
        if high == low + 1:
            # Too few blocks to share out between threads where the bits are the highest.
            shape = (low, self._n, self._k, self._binomials)
            return threads.over(1 << (self._n - high - 1), neighbours, *vectors, *shape, c, s)
        fixed = (self._masks, self._tables, edge)
        return threads.over(self.dim, exchange, *vectors, *fixed, c, s)


class CompleteMixer(Mixer):
    """``M = -1/2 sum_{i<j} (X_i X_j + Y_i Y_j)`` at weight k, exactly.

    See `solvers.qaoa.simulator.schur`.
    """

    def __init__(self, n: int, k: int) -> None:
        self.dim = comb(n, k)
        self._n, self._k = n, k
        self._values = schur.eigenvalues(n, k)
        self._tables = schur.tables(n)
        self._buffer: Floats | None = None

    def _couple(self, vectors: Sequence[Complexes], back: bool, threads: Threads) -> None:
        """All spins but the last: quarters side by side, halves in turn to share the scratch."""
        n, k, B = self._n, self._k, self._tables[0]
        middle = B[n - 1, k + 1]
        halves = [(0, k), (middle, k - 1)]
        quarters = [
            (start + offset, w - bit)
            for start, w in halves
            for bit, offset in ((0, 0), (1, B[n - 2, w + 1]))
        ]
        floats = [vector.view(np.float64) for vector in vectors]
        joins = [(v, 2 * at, n - 1, w, back, self._tables) for v in floats for at, w in halves]
        parts = [(v, 2 * at, n - 2, w, back, self._tables) for v in floats for at, w in quarters]
        whole, pieces = self._scratch(threads.count)
        if not back:
            threads.together(schur.transform, parts, pieces)
        for join in joins:
            schur.halve(*join, whole)
        if back:
            threads.together(schur.transform, parts, pieces)

    def _scratch(self, count: int) -> tuple[Floats, list[Floats]]:
        """One buffer: all of it for a half, or a piece for each of `count` threads."""
        quarter, half = schur.scratch_size(self._n)
        size = max(half, count * quarter)
        if self._buffer is None or len(self._buffer) < size:
            self._buffer = np.empty(size)
        return self._buffer, [self._buffer[t * quarter : (t + 1) * quarter] for t in range(count)]

    def _top(self) -> tuple[Any, ...]:
        return self._n, self._k, self._tables[0], self._tables[1]

    def apply(self, psi: Complexes, beta: float, threads: Threads) -> None:
        """See `Mixer`."""
        if self.dim == 1:
            psi *= exp(-1j * beta * self._values[0])
            return
        self._couple([psi], False, threads)
        schur.rotate_top(psi, *self._top(), np.exp(-1j * beta * self._values))
        self._couple([psi], True, threads)

    def undo(self, psi: Complexes, lam: Complexes, beta: float, threads: Threads) -> float:
        """See `Mixer`."""
        if self.dim == 1:
            return 0.0
        self._couple([psi, lam], False, threads)
        slope = schur.overlap_top(psi, lam, *self._top(), self._values)
        factors = np.exp(1j * beta * self._values)
        for vector in (psi, lam):
            schur.rotate_top(vector, *self._top(), factors)
        self._couple([psi, lam], True, threads)
        return 2 * slope


class GroverMixer(Mixer):
    """``M = -|D><D|`` with D the uniform state of all `dim` amplitudes."""

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def _overlap(self, psi: Complexes) -> complex:
        return complex(psi.sum()) / sqrt(self.dim)

    def _turn(self, psi: Complexes, overlap: complex, beta: float, threads: Threads) -> None:
        by = (exp(1j * beta) - 1) * overlap / sqrt(self.dim)
        threads.over(self.dim, kernels.shift, psi, by)

    def apply(self, psi: Complexes, beta: float, threads: Threads) -> None:
        """See `Mixer`."""
        self._turn(psi, self._overlap(psi), beta, threads)

    def undo(self, psi: Complexes, lam: Complexes, beta: float, threads: Threads) -> float:
        """See `Mixer`."""
        a, b = self._overlap(psi), self._overlap(lam)
        self._turn(psi, a, -beta, threads)
        self._turn(lam, b, -beta, threads)
        return -2 * (b.conjugate() * a).imag
