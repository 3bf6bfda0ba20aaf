"""QAOA on Amazon Braket: the gate list as a Braket circuit, run on the local simulator."""

from __future__ import annotations

import numpy as np
from braket.circuits import Circuit as BraketCircuit
from braket.devices import LocalSimulator
from numpy.typing import ArrayLike, NDArray

from solvers.qaoa.circuit import Circuit
from solvers.qaoa.circuits import CircuitQAOA
from solvers.qaoa.sampler import DEFAULT_MAX_QUBITS, GateModelQAOASampler

_NAMES = {"cx": "cnot", "rzz": "zz"}


def to_braket(circuit: Circuit, values: ArrayLike = ()) -> BraketCircuit:
    """The gate list as a Braket circuit of plain gates, without result types.

    Braket's ``XY(t)`` is ``exp(+i t/4 (XX + YY))``: the sign is opposite to the list's.

    Args:
        circuit: n qubits; qubit i stays qubit i, Braket's most significant bit first.
        values: one number a parameter.
    """
    numbers = np.asarray(values, np.float64).tolist()
    rendered = BraketCircuit()
    for gate in circuit.gates:
        add = getattr(rendered, _NAMES.get(gate.name, gate.name))
        if gate.name in ("h", "x", "cx"):
            add(*gate.qubits)
        elif gate.name == "xy":
            add(*gate.qubits, -gate.angle(numbers))
        else:
            add(*gate.qubits, gate.angle(numbers))
    return rendered


class BraketLocalQAOASampler(GateModelQAOASampler):
    """QAOA on Braket's local state-vector simulator.

    The simulator draws its shots from a generator nobody can seed. It is therefore asked for the
    exact probabilities (``shots = 0``), and the shots are drawn here from the given seed.

    Circuits are built anew for every call: binding ``FreeParameter`` measured slower than that.

    Args:
        max_qubits: largest model it takes.
    """

    backend = "braket-local"

    def __init__(self, max_qubits: int = DEFAULT_MAX_QUBITS) -> None:
        super().__init__(max_qubits)
        self._device = LocalSimulator("braket_sv")

    def _prepared(self, circuit: Circuit, values: NDArray[np.float64]) -> BraketCircuit:
        return to_braket(circuit, values).probability()

    def _shots(self, prepared: BraketCircuit, reads: int, seed: int) -> NDArray[np.int8]:
        weights = self._device.run(prepared, shots=0).result().values[0]
        rng = np.random.default_rng(seed)
        drawn = rng.choice(len(weights), size=reads, p=weights / weights.sum())
        # Qubit 0 is the most significant bit of the index.
        places = np.arange(prepared.qubit_count)[::-1]
        return ((drawn[:, None] >> places) & 1).astype(np.int8)


class BraketLocalSubspaceQAOA(CircuitQAOA):
    """Weight-conserving QAOA as a circuit on Braket's local state-vector simulator.

    Args:
        max_qubits: largest problem it takes.
    """

    name = "qaoa-xy-braket-local"

    def __init__(self, max_qubits: int = DEFAULT_MAX_QUBITS) -> None:
        super().__init__(BraketLocalQAOASampler(max_qubits))
