"""Mixers as gates: each function yields ``exp(-i beta M)`` for one parameter ``beta``."""

from __future__ import annotations

from collections.abc import Iterator

from solvers.qaoa.circuit import Gate


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
