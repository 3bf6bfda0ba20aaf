"""QAOA on Qiskit: the gate list as a `QuantumCircuit`, sampled by any V2 sampler primitive."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qiskit import QuantumCircuit, transpile
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import XXPlusYYGate
from qiskit.primitives import BaseSamplerV2, BitArray
from qiskit_aer import AerSimulator
from qiskit_aer.primitives import SamplerV2

from solvers.qaoa.circuit.gates import Circuit
from solvers.qaoa.gate_model import CircuitQAOA
from solvers.qaoa.sampler import DEFAULT_MAX_QUBITS, GateModelQAOASampler

Pub = tuple[QuantumCircuit, NDArray[np.float64]]


def to_qiskit(circuit: Circuit, name: str = "t") -> QuantumCircuit:
    """The gate list as a Qiskit circuit without measurements.

    Args:
        circuit: n qubits; qubit i stays qubit i, Qiskit's least significant bit first.
        name: of the `ParameterVector` whose entries are the circuit's parameters.
    """
    vector = ParameterVector(name, circuit.num_parameters)
    rendered = QuantumCircuit(circuit.num_qubits)
    for gate in circuit.gates:
        if gate.name in ("h", "x", "cx"):
            getattr(rendered, gate.name)(*gate.qubits)
            continue
        free = gate.parameter is not None
        angle = gate.factor * vector[gate.parameter] if free else gate.factor
        if gate.name == "xy":
            rendered.append(XXPlusYYGate(angle), gate.qubits)
        else:
            getattr(rendered, gate.name)(angle, *gate.qubits)
    return rendered


@lru_cache(maxsize=1)
def aer() -> AerSimulator:
    """One state-vector simulator for the process, so that compiled circuits can be shared."""
    return AerSimulator(method="statevector")


def aer_primitive(seed: int) -> BaseSamplerV2:
    """Aer's sampler; a function of the module, so that solvers can be pickled."""
    return SamplerV2.from_backend(aer(), seed=seed)


@lru_cache(maxsize=64)
def compiled(circuit: Circuit, backend: Any) -> QuantumCircuit:
    """Rendered, measured and transpiled, parameters left free: once a shape and backend."""
    rendered = to_qiskit(circuit)
    rendered.measure_all()
    return transpile(rendered, backend, optimization_level=1, seed_transpiler=0)


def measured(shots: BitArray) -> NDArray[np.int8]:
    """Shots of a register as rows, shape (shots, n): column i is bit i."""
    bits = np.unpackbits(shots.array, axis=-1)
    # Big-endian and padded in front: the last column is bit 0.
    return bits[:, ::-1][:, : shots.num_bits].astype(np.int8)


class AerQAOASampler(GateModelQAOASampler):
    """QAOA sampled by Qiskit Aer or any other V2 sampler.

    Args:
        max_qubits: largest model it takes.
        primitive: seed -> V2 sampler; Aer's state vector when None.
        backend: what circuits are transpiled for; Aer when None.
    """

    backend = "qiskit-aer"

    def __init__(
        self,
        max_qubits: int = DEFAULT_MAX_QUBITS,
        *,
        primitive: Callable[[int], BaseSamplerV2] | None = None,
        backend: Any = None,
    ) -> None:
        super().__init__(max_qubits)
        self._primitive = primitive or aer_primitive
        self._target = backend

    def _prepared(self, circuit: Circuit, values: NDArray[np.float64]) -> Pub:
        return compiled(circuit, self._target or aer()), values

    def _shots(self, prepared: Pub, reads: int, seed: int) -> NDArray[np.int8]:
        # Aer keeps seeds as signed 32-bit numbers.
        sampler = self._primitive(seed % 2**31)
        # A ParameterVector sorts by index, so plain values are in the right order.
        return measured(sampler.run([prepared], shots=reads).result()[0].data.meas)


class AerSubspaceQAOA(CircuitQAOA):
    """Weight-conserving QAOA as a circuit on Qiskit Aer or any other V2 sampler.

    Args:
        max_qubits: largest problem it takes.
        **options: see `AerQAOASampler`.
    """

    name = "qaoa-xy-aer"

    def __init__(self, max_qubits: int = DEFAULT_MAX_QUBITS, **options: Any) -> None:
        super().__init__(AerQAOASampler(max_qubits, **options))
