"""An independent reference for everything in solvers.qaoa: dense matrices from Kronecker products.

Index convention: basis state ``sum_i x_i 2^i``, so qubit 0 is the last Kronecker factor.
"""

import numpy as np
from scipy.linalg import expm

from solvers.qaoa.circuit.gates import Circuit, Gate
from tests.solvers.circuits import generator, unitary


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
