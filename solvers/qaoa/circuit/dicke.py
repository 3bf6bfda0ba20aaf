"""Dicke states as gates: the equal superposition of all states of weight k.

Bärtschi and Eidenbenz, "Deterministic Preparation of Dicke States", FCT 2019 (arXiv:1904.07358):
``|0^(n-k) 1^k>`` goes through split-and-cyclic-shift unitaries made of rotations inside a weight,
so the whole circuit, and its inverse, conserves the weight. O(k n) gates, all of them plain.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import acos, sqrt

from solvers.qaoa.circuit.gates import ROTATIONS, Gate


def dicke_state(n: int, k: int) -> list[Gate]:
    """Prepares the Dicke state of n qubits and weight k from |0...0>."""
    # The state of weight n - k with every qubit flipped has fewer ones to move.
    less = min(k, n - k)
    gates = [Gate("x", (i,)) for i in range(n - less, n)]
    gates += spread(n, less)
    if k != less:
        gates += [Gate("x", (i,)) for i in range(n)]
    return gates


def spread(n: int, k: int) -> list[Gate]:
    """Takes ``|0^(n-l) 1^l>`` (the last l qubits are 1) to the Dicke state of weight l <= k."""
    gates: list[Gate] = []
    for m in range(n, 1, -1):
        gates += _split(m, min(k, m - 1))
    return gates


def inverse(gates: list[Gate]) -> list[Gate]:
    """The gates undone, for any gates of `solvers.qaoa.circuit.gates`."""
    return [
        gate._replace(factor=-gate.factor) if gate.name in ROTATIONS else gate
        for gate in reversed(gates)
    ]


def _split(m: int, k: int) -> Iterator[Gate]:
    """Split and cyclic shift on the first m qubits: Definition 2 and Section 2.2 of the paper."""
    last = m - 1
    for l in range(1, k + 1):  # noqa: E741
        target = m - 1 - l
        angle = 2 * acos(sqrt(l / m))
        yield Gate("cx", (target, last))
        if l == 1:
            yield from _controlled_ry(angle, last, target)
        else:
            yield from _twice_controlled_ry(angle, last, target + 1, target)
        yield Gate("cx", (target, last))


def _controlled_ry(angle: float, control: int, target: int) -> Iterator[Gate]:
    for sign in (1, -1):
        yield Gate("ry", (target,), sign * angle / 2)
        yield Gate("cx", (control, target))


def _twice_controlled_ry(angle: float, a: int, b: int, target: int) -> Iterator[Gate]:
    """Only with both controls set do the four quarter turns add up; 4 cx and 4 ry."""
    for sign, control in ((1, b), (-1, a), (1, b), (-1, a)):
        yield Gate("ry", (target,), sign * angle / 4)
        yield Gate("cx", (control, target))
