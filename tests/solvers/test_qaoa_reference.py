"""An independent reference for everything in solvers.qaoa: dense matrices from Kronecker products.

Index convention: basis state ``sum_i x_i 2^i``, so qubit 0 is the last Kronecker factor.
"""

from functools import reduce

import numpy as np
import pytest
from scipy.linalg import expm

from solvers.qaoa.circuit.gates import Circuit, Gate

I2 = np.eye(2)
X = np.array([[0, 1], [1, 0]], complex)
Y = np.array([[0, -1j], [1j, 0]])
Z = np.diag([1.0, -1.0]).astype(complex)
H = (X + Z) / np.sqrt(2)


def on(n, **factors):
    """Operator on n qubits; ``on(3, q0=X, q2=Z)``."""
    return reduce(np.kron, [factors.get(f"q{i}", I2) for i in reversed(range(n))])


def bits(n):
    """Every x of {0,1}^n in index order, shape (2^n, n)."""
    return (np.arange(2**n)[:, None] >> np.arange(n)) & 1


def generator(gate, n):
    names = [f"q{q}" for q in gate.qubits]
    pauli = {"rx": [X], "ry": [Y], "rz": [Z], "rzz": [Z, Z]}
    if gate.name == "xy":
        return sum(on(n, **dict(zip(names, [P, P], strict=True))) for P in (X, Y)) / 2
    return on(n, **dict(zip(names, pauli[gate.name], strict=True)))


def unitary(gate, values, n):
    if gate.name in ("h", "x"):
        return on(n, **{f"q{gate.qubits[0]}": {"h": H, "x": X}[gate.name]})
    if gate.name == "cx":
        c, t = (f"q{q}" for q in gate.qubits)
        return on(n, **{c: (I2 + Z) / 2}) + on(n, **{c: (I2 - Z) / 2, t: X})
    # P^3 = P for every generator P, Pauli products and (XX + YY)/2 alike.
    P, half = generator(gate, n), gate.angle(values) / 2
    return np.eye(2**n) + (np.cos(half) - 1) * P @ P - 1j * np.sin(half) * P


def run_dense(circuit, values=()):
    """Final state of a gate list, shape (2^n,)."""
    psi = np.zeros(2**circuit.num_qubits, complex)
    psi[0] = 1
    for gate in circuit.gates:
        psi = unitary(gate, values, circuit.num_qubits) @ psi
    return psi


def same_up_to_phase(a, b, tolerance=1e-9):
    assert np.linalg.norm(a) == pytest.approx(1)
    assert abs(np.vdot(a, b)) == pytest.approx(1, abs=tolerance)
    phase = np.vdot(a, b)
    np.testing.assert_allclose(b, a * phase / abs(phase), atol=tolerance)


def every_gate(n=4):
    """A circuit with each gate kind on pairs in both orders, far pairs included."""
    pairs = [(0, 1), (3, 1), (0, 2), (2, 3), (1, 0), (0, 3)]
    gates = [Gate("h", (i,)) for i in range(n)] + [Gate("x", (2,))]
    for step, (a, b) in enumerate(pairs):
        gates += [
            Gate("ry", (a,), 0.3 + step),
            Gate("rx", (b,), -2.0, step),
            Gate("cx", (a, b)),
            Gate("rz", (b,), 0.7, step),
            Gate("rzz", (a, b), 1.1 + 0.1 * step),
            Gate("xy", (b, a), 0.9, step),
        ]
    return Circuit(n, tuple(gates), len(pairs)), np.linspace(-1.3, 2.1, len(pairs))


def test_dense_gates_follow_textbook_matrices():
    n = 2
    flipped = unitary(Gate("cx", (0, 1)), (), n) @ np.eye(4)[1]
    np.testing.assert_array_equal(flipped, np.eye(4)[3])
    swap_like = unitary(Gate("xy", (0, 1), np.pi), (), n)
    np.testing.assert_allclose(swap_like[1:3, 1:3], [[0, -1j], [-1j, 0]], atol=1e-12)
    for name, qubits in {"rx": (1,), "ry": (0,), "rz": (1,), "rzz": (0, 1), "xy": (1, 0)}.items():
        gate = Gate(name, qubits, 0.8)
        np.testing.assert_allclose(
            unitary(gate, (), n), expm(-0.4j * generator(gate, n)), atol=1e-12
        )


def test_counts_and_two_qubit_depth():
    circuit = Circuit(
        3,
        (Gate("h", (0,)), Gate("cx", (0, 1)), Gate("cx", (1, 2)), Gate("rzz", (0, 1), 1.0)),
    )
    assert circuit.counts() == {"cx": 2, "h": 1, "rzz": 1}
    assert circuit.two_qubit_depth() == 3
    assert Circuit(0, ()).two_qubit_depth() == 0
