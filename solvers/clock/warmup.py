"""Small problems that make a solver compile all it has."""

from __future__ import annotations

import numpy as np

from solvers.problem import CardinalityProblem

# Not below `solvers.search.kernels.DESCENT_RANK`, from which on descent keeps the matrix.
HIGH_RANK = 48


def tiny_problems(n: int, k: int, *, dense: bool) -> list[CardinalityProblem]:
    """Problems that are solved in far less than a second by what is compiled.

    One of low and one of high rank, for which solvers compile a loop each, and the same with little
    or no linear term: they have no easy proof, so that exact solvers come to their search.

    Args:
        n: variables.
        k: ones.
        dense: whether the problems hold their matrix, not a factor.
    """
    rng = np.random.default_rng(0)
    problems = []
    for rank, linear in ((1, 1.0), (HIGH_RANK, 1.0), (4, 0.0), (n, 0.1)):
        c, factor = linear * rng.standard_normal(n), rng.standard_normal((rank, n))
        if dense:
            G = factor.T @ factor
            problems.append(CardinalityProblem(linear=c, cardinality=k, quadratic=(G + G.T) / 2))
        else:
            problems.append(CardinalityProblem(linear=c, cardinality=k, factor=factor))
    return problems
