"""Paid tasks rehearsed on emulators of devices: their gates, connections and noise.

A circuit is compiled as the service would: to the device's native gates, on pairs of qubits that
are connected, by Qiskit's transpiler. Braket's local emulator checks the result and adds the noise
of the device, a depolarising channel after each gate and bit flips before each measurement, which a
density matrix then carries. What devices are like comes from the committed file ``emulated.toml``.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from functools import cache
from importlib.resources import files
from itertools import combinations
from typing import Any

import numpy as np
from braket.circuits import Circuit as BraketCircuit
from braket.device_schema.result_type import ResultType
from braket.device_schema.standardized_gate_model_qpu_device_properties_v1 import (
    CoherenceTime,
    Fidelity1Q,
    FidelityType,
    GateFidelity2Q,
    OneQubitProperties,
    TwoQubitProperties,
)
from braket.devices import LocalSimulator
from braket.emulation.device_emulator_properties import DeviceEmulatorProperties
from braket.emulation.local_emulator import LocalEmulator
from numpy.typing import NDArray
from qiskit import QuantumCircuit, transpile
from qiskit.circuit.library import XXPlusYYGate
from qiskit.transpiler import CouplingMap

from solvers.cloud.devices import Device
from solvers.cloud.rehearsal import RehearsalService
from solvers.cloud.service import action
from solvers.errors import UnavailableError

_CHECKED_AT_ONCE = 32
# Native gates of Braket by Qiskit's name, and what turns one into the other.
_QISKIT = {"prx": "r", "cz": "cz", "xx": "rxx", "rz": "rz"}
_BRAKET = {name: native for native, name in _QISKIT.items()}


class EmulatorService(RehearsalService):
    """The calls of a service on the emulator of a device: no account, no cost, no queue.

    Args:
        device: one that `emulated` has.

    Raises:
        UnavailableError: another one.
    """

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self._emulator = emulator(device.name)
        self._compiled: dict[str, tuple[BraketCircuit, list[int]]] = {}
        self._known: dict[str, NDArray[np.float64]] = {}

    def _native(self, circuit: BraketCircuit) -> tuple[BraketCircuit, list[int]]:
        """See `compiled`; once for the same circuit."""
        asked = action([circuit])
        if asked not in self._compiled:
            self._compiled[asked] = compiled(circuit, self._device.name)
        native, places = self._compiled[asked]
        return native.copy(), places

    def compiled(self, circuit: BraketCircuit) -> dict[str, Any]:
        """See `Service`: the native circuit's gates, and what the emulator takes for granted."""
        native, _ = self._native(circuit)
        names = [instruction.operator.name.lower() for instruction in native.instructions]
        known = emulated(self._device.name)
        kept = ("date", "two_qubit", "one_qubit", "readout", "published", "assumed")
        return {
            "emulator": {
                "native_gates": dict(Counter(names)),
                "native_two_qubit_gates": sum(len(one.target) == 2 for one in native.instructions),
                "native_depth": native.depth,
                **{key: known[key] for key in kept},
            }
        }

    def _probabilities(self, circuit: BraketCircuit) -> NDArray[np.float64]:
        """Of each bit string, qubit 0 first; noise included. The same circuit is run once."""
        asked = action([circuit])
        if asked not in self._known:
            self._known[asked] = self._run(circuit)
        return self._known[asked]

    def _run(self, circuit: BraketCircuit) -> NDArray[np.float64]:
        native, places = self._native(circuit)
        self._check(native)
        for place in places:
            native.measure(place)
        # The measurements are there for their noise; exact probabilities are asked for without.
        unmeasured = BraketCircuit()
        for instruction in self._emulator.noise_model.apply(native).instructions:
            if instruction.operator.name != "Measure":
                unmeasured.add_instruction(instruction)
        weights = np.asarray(
            LocalSimulator("braket_dm").run(unmeasured.probability(), shots=0).result().values[0]
        )
        # Qubits in order, then those of the variables in theirs; the others are summed over.
        qubits = [int(qubit) for qubit in unmeasured.qubits]
        cube = weights.reshape((2,) * len(qubits))
        order = [qubits.index(place) for place in places]
        moved = np.moveaxis(cube, order, range(len(order)))
        return moved.sum(axis=tuple(range(len(order), len(qubits)))).ravel()

    def _check(self, native: BraketCircuit) -> None:
        """Has the emulator check every gate, some at a time: its time grows with their square."""
        instructions = list(native.instructions)
        for start in range(0, len(instructions), _CHECKED_AT_ONCE):
            some = BraketCircuit(instructions[start : start + _CHECKED_AT_ONCE])
            self._emulator.validate(BraketCircuit().add_verbatim_box(some))


def compiled(circuit: BraketCircuit, name: str) -> tuple[BraketCircuit, list[int]]:
    """A circuit in a device's native gates, on connected pairs of its qubits.

    Args:
        circuit: of the gates of `solvers.qaoa.braket.to_braket`.
        name: of a device that `emulated` has.

    Returns:
        The native circuit, and the device's qubit in which each variable ends.
    """
    known = emulated(name)
    first = _first(known)
    pairs = [[int(one) - first for one in pair.split("-")] for pair in known["pairs"]]
    connected = CouplingMap(pairs) if pairs else None
    if connected is not None:
        connected.make_symmetric()
    found = transpile(
        _to_qiskit(circuit),
        basis_gates=[_QISKIT[gate] for gate in known["gates"]],
        coupling_map=connected,
        optimization_level=3,
        seed_transpiler=0,
    )
    native = BraketCircuit()
    for instruction in found.data:
        qubits = [found.find_bit(qubit).index + first for qubit in instruction.qubits]
        angles = [float(angle) for angle in instruction.operation.params]
        getattr(native, _BRAKET[instruction.operation.name])(*qubits, *angles)
    places = range(circuit.qubit_count)
    if found.layout is not None:
        places = found.layout.final_index_layout()[: circuit.qubit_count]
    return native, [place + first for place in places]


def _to_qiskit(circuit: BraketCircuit) -> QuantumCircuit:
    rendered = QuantumCircuit(circuit.qubit_count)
    for instruction in circuit.instructions:
        qubits = [int(qubit) for qubit in instruction.target]
        name = instruction.operator.name.lower()
        angles = [instruction.operator.angle] if hasattr(instruction.operator, "angle") else []
        if name == "xy":
            rendered.append(XXPlusYYGate(-angles[0]), qubits)
        else:
            getattr(rendered, {"cnot": "cx", "zz": "rzz"}.get(name, name))(*angles, *qubits)
    return rendered


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(files("solvers.cloud").joinpath("emulated.toml").read_text("utf-8"))


def emulated(name: str) -> dict[str, Any]:
    """What the committed file says of a device.

    Raises:
        UnavailableError: it does not have it.
    """
    if name not in _table():
        raise UnavailableError(
            f"device {name} has no emulator here: take {' or '.join(_table())}, or rehearse "
            "without noise (--rehearse)"
        )
    return dict(_table()[name])


def _first(known: dict[str, Any]) -> int:
    """Number of the first qubit; devices count from 0 or from 1."""
    return min((int(one) for pair in known["pairs"] for one in pair.split("-")), default=0)


@cache
def emulator(name: str) -> LocalEmulator:
    """Braket's local emulator of a device."""
    known = emulated(name)
    qubits = [str(_first(known) + place) for place in range(known["qubits"])]
    graph: dict[str, list[str]] = {qubit: [] for qubit in qubits if known["pairs"]}
    for one, other in (pair.split("-") for pair in known["pairs"]):
        graph[one].append(other)
        graph[other].append(one)
    pairs = known["pairs"] or ["-".join(pair) for pair in combinations(qubits, 2)]
    (gate,) = [gate for gate in known["gates"] if gate in ("cz", "xx")]
    # The emulator's noise is that of gates and readout; it makes no use of times.
    time = CoherenceTime(value=1.0, standardError=None, unit="S")
    qubit = OneQubitProperties(
        T1=time,
        T2=time,
        oneQubitFidelity=[
            Fidelity1Q(fidelityType=FidelityType(name=kind), fidelity=known[key])
            for kind, key in (("RANDOMIZED_BENCHMARKING", "one_qubit"), ("READOUT", "readout"))
        ],
    )
    benchmark = FidelityType(name="RANDOMIZED_BENCHMARKING")
    quality = GateFidelity2Q(gateName=gate, fidelity=known["two_qubit"], fidelityType=benchmark)
    pair = TwoQubitProperties(twoQubitGateFidelity=[quality])
    return LocalEmulator.from_device_properties(
        DeviceEmulatorProperties(
            qubitCount=known["qubits"],
            nativeGateSet=known["gates"],
            connectivityGraph=graph,
            oneQubitProperties=dict.fromkeys(qubits, qubit),
            twoQubitProperties=dict.fromkeys(pairs, pair),
            supportedResultTypes=[ResultType(name="Probability", minShots=1, maxShots=100_000)],
        )
    )
