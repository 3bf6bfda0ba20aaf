"""Mixers that act on every group by itself: ``exp(-i beta sum_g M_g)``, the M_g commuting.

A state vector is a tensor with an axis for each group. Each step multiplies the first axis and
moves it to the end, in one matrix product; after the last group all axes are in place again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.blas import zgemm

from solvers.problem import Floats
from solvers.qaoa.circuit.mixers import complete_edges, ring_edges
from solvers.qaoa.simulator.evolution import Mixer
from solvers.qaoa.simulator.kernels import Complexes
from solvers.qaoa.simulator.space import Part
from solvers.qaoa.simulator.threads import Threads

# Groups with more states go through the mixer of one group, slice by slice.
DENSE = 100


class Terms:
    """The mixer of a small group as matrices: one generator, or one for each pair of variables.

    Args:
        mixer: a name of `solvers.qaoa.simulator.subspace.MIXERS` that conserves the weight.
        part: the group, of which size and ones matter.
    """

    def __init__(self, mixer: str, part: Part) -> None:
        states = part.states(np.arange(part.dim))
        if mixer == "grover":
            generators = [np.full((part.dim, part.dim), -1 / part.dim)]
        else:
            edges = ring_edges(part.size) if mixer == "ring" else complete_edges(part.size)
            generators = [_exchange(states, edge) for edge in edges]
        if mixer == "complete":
            generators = [np.sum(generators, axis=0)]
        self._terms = [(M, *np.linalg.eigh(M)) for M in generators]

    def matrices(self, beta: float) -> tuple[Complexes, Complexes]:
        """``U = prod_e exp(-i beta M_e)`` and the K with ``dU/dbeta = -i K U``, (d, d) each.

        K is ``sum_e V_e M_e V_e'`` with V_e the factors after the e-th.
        """
        d = len(self._terms[0][0])
        U, K = np.eye(d, dtype=np.complex128), np.zeros((d, d), np.complex128)
        for M, values, vectors in self._terms:
            step = (vectors * np.exp(-1j * beta * values)) @ vectors.T
            U, K = step @ U, step @ K @ step.conj().T + M
        return U, K


def _exchange(states: NDArray[np.int8], edge: tuple[int, int]) -> Floats:
    """``-(XX + YY)/2`` on one pair: -1 between two states that differ by exchanging it."""
    swapped = states.copy()
    swapped[:, list(edge)] = states[:, list(edge)[::-1]]
    numbers = 1 << np.arange(states.shape[1])
    partner = np.searchsorted(states @ numbers, swapped @ numbers)
    M = np.zeros((len(states), len(states)))
    moved = np.flatnonzero(partner != np.arange(len(states)))
    M[moved, partner[moved]] = -1
    return M


class ProductMixer(Mixer):
    """The mixer of one group on each of several.

    Args:
        mixer: its name.
        parts: the groups, in the order of the axes.
        single: makes the mixer of one group of m variables and k ones for vectors.
    """

    def __init__(
        self, mixer: str, parts: Sequence[Part], single: Callable[[str, int, int], Mixer]
    ) -> None:
        # An axis of one state has nothing to mix.
        self._parts = [part for part in parts if part.dim > 1]
        self.dim = int(np.prod([part.dim for part in self._parts], dtype=np.int64))
        self._kinds: dict[tuple[int, int], Any] = {}
        for part in self._parts:
            kind = part.size, part.k
            if kind not in self._kinds:
                small = part.dim <= DENSE
                self._kinds[kind] = Terms(mixer, part) if small else single(mixer, *kind)

    @cached_property
    def _buffer(self) -> Complexes:
        return np.empty(self.dim, np.complex128)

    def apply(self, psi: Complexes, beta: float, threads: Threads) -> None:
        """See `Mixer`."""
        unitaries = self._matrices(beta)
        for part in self._parts:
            self._turn(psi, part, unitaries, beta, threads)

    def undo(self, psi: Complexes, lam: Complexes, beta: float, threads: Threads) -> float:
        """See `Mixer`."""
        forth, back = self._matrices(beta), self._matrices(beta, adjoint=True)
        slope = 0.0
        for part in self._parts:
            kind = part.size, part.k
            if kind in forth:
                rows = [v.reshape(part.dim, -1).T for v in (lam, psi)]
                overlaps = zgemm(1, *rows, trans_a=2)
                slope += 2 * float(np.sum(forth[kind][1] * overlaps).imag)
                for vector in (psi, lam):
                    self._turn(vector, part, back, beta, threads)
                continue
            for vector in (psi, lam):
                self._rotate(vector, part)
            both = (v.reshape(-1, part.dim) for v in (psi, lam))
            for one, other in zip(*both, strict=True):
                slope += self._kinds[kind].undo(one, other, beta, threads)
        return slope

    def _matrices(
        self, beta: float, *, adjoint: bool = False
    ) -> dict[tuple[int, int], tuple[Complexes, Complexes]]:
        """Those of `Terms` for each kind of small group; U undone with `adjoint`."""
        found = {
            kind: terms.matrices(beta)
            for kind, terms in self._kinds.items()
            if isinstance(terms, Terms)
        }
        if adjoint:
            return {kind: (U.conj().T, K) for kind, (U, K) in found.items()}
        return found

    def _turn(
        self,
        vector: Complexes,
        part: Part,
        unitaries: dict[tuple[int, int], tuple[Complexes, Complexes]],
        beta: float,
        threads: Threads,
    ) -> None:
        """The group's mixer on the first axis, which becomes the last."""
        kind = part.size, part.k
        if kind in unitaries:
            rotated = self._buffer.reshape(-1, part.dim)
            np.matmul(vector.reshape(part.dim, -1).T, unitaries[kind][0].T, out=rotated)
            vector[:] = self._buffer
            return
        self._rotate(vector, part)
        for row in vector.reshape(-1, part.dim):
            self._kinds[kind].apply(row, beta, threads)

    def _rotate(self, vector: Complexes, part: Part) -> None:
        """The first axis becomes the last."""
        self._buffer.reshape(-1, part.dim)[:] = vector.reshape(part.dim, -1).T
        vector[:] = self._buffer
