"""A backend-neutral gate list: what every QAOA circuit here is written in.

The renderers in `solvers.qaoa.qiskit` and `solvers.qaoa.braket` know the gates of `GATES` and
nothing else; in particular there are no control modifiers, which Braket's local simulator applies
wrongly on some pairs of qubits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

# name -> number of qubits; rotations are exp(-i angle/2 P) with P = X, Y, Z, ZZ, (XX + YY)/2.
GATES = {"h": 1, "x": 1, "rx": 1, "ry": 1, "rz": 1, "cx": 2, "rzz": 2, "xy": 2}
ROTATIONS = frozenset({"rx", "ry", "rz", "rzz", "xy"})


class Gate(NamedTuple):
    """One gate.

    Attributes:
        name: a key of `GATES`.
        qubits: where it acts; control first for ``cx``.
        factor: the angle, or what the parameter is multiplied by; unused for h, x, cx.
        parameter: index into the values the circuit is run with; None for a fixed angle.
    """

    name: str
    qubits: tuple[int, ...]
    factor: float = 0.0
    parameter: int | None = None

    def angle(self, values: Sequence[float]) -> float:
        """The angle in radians for these parameter values."""
        if self.parameter is None:
            return self.factor
        return self.factor * float(values[self.parameter])


@dataclass(frozen=True)
class Circuit:
    """Gates in order of application on |0...0>.

    Attributes:
        num_qubits: n.
        gates: the list.
        num_parameters: how many values the circuit is run with.
    """

    num_qubits: int
    gates: tuple[Gate, ...]
    num_parameters: int = 0

    def counts(self) -> dict[str, int]:
        """Number of gates by name, in alphabetical order."""
        return dict(sorted(Counter(gate.name for gate in self.gates).items()))

    def two_qubit_depth(self) -> int:
        """Longest chain of two-qubit gates that share qubits; one-qubit gates are free."""
        depth = [0] * self.num_qubits
        for gate in self.gates:
            if len(gate.qubits) == 2:
                a, b = gate.qubits
                depth[a] = depth[b] = 1 + max(depth[a], depth[b])
        return max(depth, default=0)


def placed(gates: Iterable[Gate], qubits: Sequence[int]) -> Iterator[Gate]:
    """Gates on 0..m-1 moved to other qubits: what acts on i then acts on ``qubits[i]``."""
    for gate in gates:
        yield gate._replace(qubits=tuple(qubits[i] for i in gate.qubits))
