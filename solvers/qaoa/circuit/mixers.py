"""Mixers as gates: each function yields ``exp(-i beta M)`` for one parameter ``beta``."""

from __future__ import annotations

from collections.abc import Iterator

from solvers.qaoa.circuit.dicke import inverse, spread
from solvers.qaoa.circuit.gates import Gate


def x_mixer(n: int, parameter: int) -> Iterator[Gate]:
    """``M = -sum_i X_i``: one ``rx(-2 beta)`` a qubit."""
    for i in range(n):
        yield Gate("rx", (i,), -2.0, parameter)


def ring_edges(n: int) -> list[tuple[int, int]]:
    """Neighbours on a ring, in rounds of disjoint pairs: even, odd, and the odd ring's last."""
    ring = [(i, (i + 1) % n) for i in range(n)] if n > 2 else [(0, 1)][: n - 1]
    last = ring[-1:] if n % 2 and n > 2 else []
    open_ring = ring[: len(ring) - len(last)]
    return open_ring[::2] + open_ring[1::2] + last


def complete_edges(n: int) -> list[tuple[int, int]]:
    """Every pair once, in n - 1 (n even) or n rounds of disjoint pairs: a round-robin tournament.

    The circle method: one player stays, the others move on by one seat a round.
    """
    players = n + n % 2
    edges = []
    for turn in range(players - 1):
        seats = [0] + [1 + (turn + seat) % (players - 1) for seat in range(players - 1)]
        for near, far in zip(seats[: players // 2], reversed(seats), strict=False):
            if max(near, far) < n:
                edges.append((min(near, far), max(near, far)))
    return edges


def xy_mixer(edges: list[tuple[int, int]], parameter: int) -> Iterator[Gate]:
    """``exp(i beta (X_a X_b + Y_a Y_b)/2)`` on one pair after the other."""
    for edge in edges:
        yield Gate("xy", edge, -2.0, parameter)


def grover_mixer(n: int, k: int, parameter: int) -> Iterator[Gate]:
    """``exp(i beta |D><D|)`` on states of weight k, up to a global phase.

    ``|D> = V |0^(n-l) 1^l>`` with V weight-conserving, so the phase between V' and V has to see
    only whether the l qubits that are 1 there are all set: at weight l nothing else is possible.
    """
    less = min(k, n - k)
    preparation = spread(n, less)
    flips = [Gate("x", (i,)) for i in range(n)] if k != less else []
    yield from flips
    yield from inverse(preparation)
    yield from phase_if_all(list(range(n - less, n)), parameter)
    yield from preparation
    yield from flips


def phase_if_all(qubits: list[int], parameter: int) -> Iterator[Gate]:
    """``exp(i beta)`` on the states where all `qubits` are 1, up to a global phase.

    The AND of m bits is ``2^(1-m) sum_S (-1)^(|S|+1) parity_S`` over the non-empty subsets S. A
    Gray code visits the subsets with highest element t by one cx each, 2^m - 2 in all.
    """
    m = len(qubits)
    for t in range(m):
        code = 0
        for step in range(1 << t):
            sign = -1 if bin(code).count("1") % 2 else 1
            yield Gate("rz", (qubits[t],), sign * 2.0 ** (1 - m), parameter)
            if t:
                # The last step returns to the empty code by its highest bit.
                bit = ((step + 1) & -(step + 1)).bit_length() - 1 if step + 1 < 1 << t else t - 1
                code ^= 1 << bit
                yield Gate("cx", (qubits[bit], qubits[t]))
