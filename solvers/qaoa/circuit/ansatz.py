"""QAOA circuits as gate lists, and the parameter values that belong to a problem.

A circuit depends on the number of qubits, on which couplings exist and on the depth, never on the
numbers: every rotation of the cost layer has a parameter of its own, so one compiled circuit
serves every problem of that shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import dimod
import numpy as np
from numpy.typing import NDArray

from solvers.errors import ParameterError
from solvers.problem import CardinalityProblem
from solvers.qaoa.angles import Angles
from solvers.qaoa.circuit.dicke import dicke_state
from solvers.qaoa.circuit.gates import Circuit, Gate, placed
from solvers.qaoa.circuit.mixers import (
    complete_edges,
    grover_mixer,
    ring_edges,
    x_mixer,
    xy_mixer,
)

Floats = NDArray[np.float64]
Edge = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Ising:
    """``C = sum_i h_i s_i + sum_e J_e s_a s_b`` with ``s = 2x - 1``; the constant is dropped.

    Attributes:
        fields: ``h``, shape (n,).
        edges: the pairs ``a < b`` of the couplings.
        couplings: ``J``, shape (len(edges),).
    """

    fields: Floats
    edges: tuple[Edge, ...]
    couplings: Floats

    @classmethod
    def from_bqm(cls, bqm: dimod.BinaryQuadraticModel) -> Ising:
        """Spins of a model in the order of its variables; couplings that are 0 are left out."""
        spin = bqm.change_vartype(dimod.SPIN, inplace=False)
        h, (rows, columns, values), _ = spin.to_numpy_vectors(variable_order=list(spin.variables))
        kept = np.flatnonzero(values)
        pairs = np.sort(np.stack([rows[kept], columns[kept]]), axis=0)
        order = np.lexsort(pairs[::-1])
        edges = tuple((int(a), int(b)) for a, b in pairs[:, order].T)
        return cls(np.asarray(h, np.float64), edges, np.asarray(values[kept][order], np.float64))

    @property
    def n(self) -> int:
        """Number of spins."""
        return len(self.fields)

    def std(self) -> float:
        """Standard deviation of C over all 2^n states: its terms are orthogonal with norm 1."""
        return float(np.sqrt(np.sum(self.fields**2) + np.sum(self.couplings**2)))


@lru_cache(maxsize=64)
def x_ansatz(n: int, edges: tuple[Edge, ...], depth: int) -> Circuit:
    """Uniform superposition, then `depth` layers of cost and X mixer.

    The values a layer is run with are those of `parameter_values`.
    """
    gates = [Gate("h", (i,)) for i in range(n)]
    width = n + len(edges) + 1
    for layer in range(depth):
        gates += cost_layer(n, edges, layer * width)
        gates += x_mixer(n, (layer + 1) * width - 1)
    return Circuit(n, tuple(gates), depth * width)


class Group(NamedTuple):
    """Qubits of which a fixed number is 1."""

    qubits: tuple[int, ...]
    ones: int


def groups_of(problem: CardinalityProblem) -> tuple[Group, ...]:
    """The groups of a problem; all its variables where it has none."""
    return tuple(
        Group(tuple(members.tolist()), k)
        for members, k in zip(problem.members, problem.group_ones.tolist(), strict=True)
    )


@lru_cache(maxsize=64)
def subspace_ansatz(
    groups: tuple[Group, ...],
    edges: tuple[Edge, ...],
    depth: int,
    mixer: str = "complete",
    odds: tuple[float, ...] | None = None,
) -> Circuit:
    """A Dicke state in each group, then `depth` layers of cost and a mixer that conserves it.

    Args:
        groups: disjoint, of all qubits 0..n-1.
        edges: couplings of the cost, as in `Ising`.
        depth: layers.
        mixer: ``ring``, ``complete`` (pair by pair: the simulator's ``complete-trotter``) or
            ``grover``, inside each group.
        odds: of each qubit, for biased Dicke states (see `solvers.qaoa.circuit.dicke`); the only
            numbers that the gates depend on.

    Raises:
        ParameterError: another mixer, or ones that leave one state only.
    """
    free = [group for group in groups if 0 < group.ones < len(group.qubits)]
    if not free:
        raise ParameterError(
            f"ones is {', '.join(str(group.ones) for group in groups)}: there is one state only, "
            "without a circuit; expected a group of m qubits with 1..m-1 ones"
        )
    if mixer not in ("ring", "complete", "grover"):
        raise ParameterError(f"mixer is {mixer!r}, expected ring, complete or grover")
    n = sum(len(group.qubits) for group in groups)
    gates: list[Gate] = []
    for group in groups:
        own = None if odds is None else [odds[i] for i in group.qubits]
        gates += placed(dicke_state(len(group.qubits), group.ones, own), group.qubits)
    width = n + len(edges) + 1
    for layer in range(depth):
        beta = (layer + 1) * width - 1
        gates += cost_layer(n, edges, layer * width)
        for group in free:
            gates += placed(_mixer(mixer, len(group.qubits), group.ones, beta), group.qubits)
    return Circuit(n, tuple(gates), depth * width)


def _mixer(mixer: str, n: int, k: int, beta: int) -> Iterator[Gate]:
    if mixer == "grover":
        return grover_mixer(n, k, beta)
    return xy_mixer(ring_edges(n) if mixer == "ring" else complete_edges(n), beta)


def cost_layer(n: int, edges: tuple[Edge, ...], first: int) -> Iterator[Gate]:
    """``exp(-i gamma C)`` with parameters ``gamma h_i`` and ``gamma J_e`` from index `first` on.

    ``s_i = -Z_i``, hence ``exp(-i t s_i) = rz(-2t)`` and ``exp(-i t s_a s_b) = rzz(2t)``.
    """
    for i in range(n):
        yield Gate("rz", (i,), -2.0, first + i)
    for e, edge in enumerate(edges):
        yield Gate("rzz", edge, 2.0, first + n + e)


def parameter_values(ising: Ising, angles: Angles) -> Floats:
    """One row a layer, ``(gamma h, gamma J, beta)``, flattened."""
    coefficients = np.concatenate([ising.fields, ising.couplings])
    gammas = np.asarray(angles.gammas)[:, None]
    betas = np.asarray(angles.betas)[:, None]
    return np.hstack([gammas * coefficients, betas]).ravel()
