"""Small problems that make a solver compile all it has."""

from __future__ import annotations

from typing import Any

import numpy as np

from solvers.groups import Integers
from solvers.problem import CardinalityProblem

# Not below `solvers.search.kernels.DESCENT_RANK`, from which on descent keeps the matrix.
HIGH_RANK = 48


def tiny_problems(
    n: int, k: int, *, dense: bool, groups: tuple[Integers, Integers] | None = None
) -> list[CardinalityProblem]:
    """Problems that are solved in far less than a second by what is compiled.

    One of low and one of high rank, for which solvers compile a loop each, and the same with little
    or no linear term: they have no easy proof, so that exact solvers come to their search.

    Args:
        n: variables.
        k: ones.
        dense: whether the problems hold their matrix, not a factor.
        groups: label of each variable and number of ones of each group, shapes (n,) and (m,).
    """
    rng = np.random.default_rng(0)
    problems = []
    labels, ones = groups or (None, None)
    for rank, linear in ((1, 1.0), (HIGH_RANK, 1.0), (4, 0.0), (n, 0.1)):
        c, factor = linear * rng.standard_normal(n), rng.standard_normal((rank, n))
        G = factor.T @ factor
        form: dict[str, Any] = {"quadratic": (G + G.T) / 2} if dense else {"factor": factor}
        problems.append(
            CardinalityProblem(linear=c, cardinality=k, groups=labels, cardinalities=ones, **form)
        )
    return problems


def two_groups(n: int, k: int) -> tuple[Integers, Integers]:
    """Every other variable in another group, the ones shared evenly: see `tiny_problems`."""
    labels = np.arange(n) % 2
    return labels, np.bincount(labels[:k], minlength=2)
