"""Dicke states as gates: the equal superposition of all states of weight k.

Bärtschi and Eidenbenz, "Deterministic Preparation of Dicke States", FCT 2019 (arXiv:1904.07358):
``|0^(n-k) 1^k>`` goes through split-and-cyclic-shift unitaries made of rotations inside a weight,
so the whole circuit, and its inverse, conserves the weight. O(k n) gates, all of them plain.

With odds w_i the state is biased: ``P(x) = prod_i w_i^x_i / e_k(w)`` over the states of weight k,
e_k the elementary symmetric polynomial, so that each ``x_i`` is an independent coin of odds w_i
under the condition of k ones: the conditional Bernoulli distribution (Chen, Dempster and Liu,
Biometrika 81, 457, 1994). The gates are the same with other angles: if l of the first m are ones,
the last of them is with probability ``w_m e_(l-1)(w_<m) / e_l(w_<=m)``, which is l/m where all w
are equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import acos, sqrt

from solvers.qaoa.circuit.gates import ROTATIONS, Gate


def dicke_state(n: int, k: int, odds: Sequence[float] | None = None) -> list[Gate]:
    """Prepares the Dicke state of n qubits and weight k from |0...0>.

    Args:
        n: qubits.
        k: ones.
        odds: of each qubit, positive, for a biased state; equal when None.
    """
    # The state of weight n - k with every qubit flipped has fewer ones to move.
    less = min(k, n - k)
    if odds is not None and k != less:
        odds = [1 / w for w in odds]
    gates = [Gate("x", (i,)) for i in range(n - less, n)]
    gates += spread(n, less, odds)
    if k != less:
        gates += [Gate("x", (i,)) for i in range(n)]
    return gates


def spread(n: int, k: int, odds: Sequence[float] | None = None) -> list[Gate]:
    """Takes ``|0^(n-l) 1^l>`` (the last l qubits are 1) to the Dicke state of weight l <= k."""
    shares = _last_is_one([1.0] * n if odds is None else odds, k)
    gates: list[Gate] = []
    for m in range(n, 1, -1):
        gates += _split(m, min(k, m - 1), shares[m])
    return gates


def _last_is_one(odds: Sequence[float], k: int) -> list[list[float]]:
    """P(the last of the first m qubits is 1 | l of them are) at ``[m][l]``, l = 0..min(k, m)."""
    e = [1.0] + [0.0] * k
    shares = [[0.0]]
    for m, w in enumerate(odds, 1):
        before = e.copy()
        for l in range(min(k, m), 0, -1):  # noqa: E741
            e[l] += w * e[l - 1]
        row = [w * before[l - 1] / e[l] for l in range(1, min(k, m) + 1)]  # noqa: E741
        shares.append([0.0, *row])
    return shares


def inverse(gates: list[Gate]) -> list[Gate]:
    """The gates undone, for any gates of `solvers.qaoa.circuit.gates`."""
    return [
        gate._replace(factor=-gate.factor) if gate.name in ROTATIONS else gate
        for gate in reversed(gates)
    ]


def _split(m: int, k: int, shares: Sequence[float]) -> Iterator[Gate]:
    """Split and cyclic shift on the first m qubits: Definition 2 and Section 2.2 of the paper.

    ``shares[l]`` has the place of the paper's l/m.
    """
    last = m - 1
    for l in range(1, k + 1):  # noqa: E741
        target = m - 1 - l
        angle = 2 * acos(sqrt(shares[l]))
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
