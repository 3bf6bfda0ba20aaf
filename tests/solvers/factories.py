"""Problems of chosen kinds for the tests of solvers."""

import numpy as np

from solvers import CardinalityProblem


def drawn(n, k, rank, seed, curvature=1.0, dense=False):
    rng = np.random.default_rng(seed)
    problem = CardinalityProblem(
        linear=rng.normal(size=n), cardinality=k, factor=curvature * rng.normal(size=(rank, n))
    )
    if dense:
        return CardinalityProblem(
            linear=problem.linear, cardinality=k, quadratic=symmetric(problem.gram())
        )
    return problem


def symmetric(G):
    return (G + G.T) / 2


def random_source(seed=7):
    return np.array([seed], dtype=np.uint64)


FAMILIES = ("weak", "strong", "quadratic only", "ties", "zero columns", "dense indefinite")


def member(family, seed, n):
    """One problem of n variables."""
    rng = np.random.default_rng([FAMILIES.index(family), seed, n])
    linear = rng.normal(size=n)
    factor = rng.normal(size=(int(rng.integers(1, 2 * n)), n)) / np.sqrt(n)
    if family == "dense indefinite":
        G = rng.normal(size=(n, n))
        return CardinalityProblem(
            linear=linear, cardinality=int(rng.integers(1, n)), quadratic=(G + G.T) / 2
        )
    factor *= {"weak": 0.05, "strong": 30.0}.get(family, 1.0)
    if family == "quadratic only":
        linear[:] = 0
    if family == "ties":
        linear, factor = np.round(linear), np.round(2 * factor)
    if family == "zero columns":
        factor[:, rng.random(n) < 0.4] = 0
        linear[rng.random(n) < 0.4] = 0
    return CardinalityProblem(linear=linear, cardinality=int(rng.integers(1, n)), factor=factor)
