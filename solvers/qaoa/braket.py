"""QAOA on Amazon Braket: the gate list as a Braket circuit, run on the local simulator."""

from __future__ import annotations

import numpy as np
from braket.circuits import Circuit as BraketCircuit
from braket.circuits import Gate as BraketGate
from braket.circuits import Noise
from braket.devices import LocalSimulator
from numpy.typing import ArrayLike, NDArray

from solvers.errors import ParameterError
from solvers.qaoa.circuit.gates import Circuit
from solvers.qaoa.gate_model import CircuitQAOA
from solvers.qaoa.sampler import DEFAULT_MAX_QUBITS, GateModelQAOASampler

MAX_NOISE = 15 / 16
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
    """QAOA on Braket's local simulators: state vector or, with noise, density matrix.

    The simulator draws its shots from a generator that cannot be seeded. It is therefore asked for
    the exact probabilities (``shots = 0``), and the shots are drawn here from the given seed.

    Circuits are built anew for every call: binding ``FreeParameter`` measured slower than that.

    Args:
        max_qubits: largest model it takes.
        noise: probability of one of the 15 Pauli errors after each two-qubit gate (depolarising).

    Raises:
        ParameterError: `noise` outside 0 to 15/16, where the pair of qubits is fully mixed.
    """

    backend = "braket-local"

    def __init__(self, max_qubits: int = DEFAULT_MAX_QUBITS, *, noise: float = 0.0) -> None:
        super().__init__(max_qubits)
        if not 0 <= noise <= MAX_NOISE:
            raise ParameterError(f"noise is {noise}, expected 0 to {MAX_NOISE}")
        self.noise = noise
        self._device = LocalSimulator("braket_dm" if noise else "braket_sv")

    def _prepared(self, circuit: Circuit, values: NDArray[np.float64]) -> BraketCircuit:
        rendered = to_braket(circuit, values)
        if self.noise:
            rendered.apply_gate_noise(
                Noise.TwoQubitDepolarizing(self.noise),
                target_gates=[BraketGate.CNot, BraketGate.ZZ, BraketGate.XY],
            )
        return rendered.probability()

    def probabilities(self, prepared: BraketCircuit) -> NDArray[np.float64]:
        """Of each bit string, shape (2^n,); qubit 0 is the most significant bit of the index."""
        weights = np.asarray(self._device.run(prepared, shots=0).result().values[0])
        return weights / weights.sum()

    def _shots(self, prepared: BraketCircuit, reads: int, seed: int) -> NDArray[np.int8]:
        return drawn(self.probabilities(prepared), prepared.qubit_count, reads, seed)


def drawn(weights: NDArray[np.float64], n: int, reads: int, seed: int) -> NDArray[np.int8]:
    """Shots, shape (reads, n), of bit strings with these probabilities, qubit 0 first."""
    rng = np.random.default_rng(seed)
    places = rng.choice(len(weights), size=reads, p=weights / weights.sum())
    return ((places[:, None] >> np.arange(n)[::-1]) & 1).astype(np.int8)


class BraketLocalSubspaceQAOA(CircuitQAOA):
    """Weight-conserving QAOA as a circuit on Braket's local simulators.

    Args:
        max_qubits: largest problem it takes.
        noise: see `BraketLocalQAOASampler`.
    """

    name = "qaoa-xy-braket-local"

    def __init__(self, max_qubits: int = DEFAULT_MAX_QUBITS, *, noise: float = 0.0) -> None:
        super().__init__(BraketLocalQAOASampler(max_qubits, noise=noise))
