"""Mixers as gates: each function yields ``exp(-i beta M)`` for one parameter ``beta``."""

from __future__ import annotations

from collections.abc import Iterator

from solvers.qaoa.circuit import Gate


def x_mixer(n: int, parameter: int) -> Iterator[Gate]:
    """``M = -sum_i X_i``: one ``rx(-2 beta)`` a qubit."""
    for i in range(n):
        yield Gate("rx", (i,), -2.0, parameter)
