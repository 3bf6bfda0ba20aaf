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


def massive(n, k, seed, groups=None, decades=8.0):
    """A row's problem, its columns orders of magnitude apart."""
    rng = np.random.default_rng(seed)
    scales = 10.0 ** rng.uniform(-decades / 2, decades / 2, n)
    A = (rng.normal(size=(n, n)) + 3 * rng.normal(size=(n, 1))) * scales
    labels = {} if groups is None else {"groups": np.arange(n) % groups}
    if groups is not None:
        labels["cardinalities"] = np.bincount(np.arange(k) % groups, minlength=groups)
    return CardinalityProblem(linear=np.zeros(n), cardinality=k, factor=A, **labels)


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


SCALES_APART = (
    "dense", "indefinite", "low rank", "linear", "zero columns", "duplicates", "one large column",
    "all equal", "massive pair",
)  # fmt: skip


def of_kind(kind, seed, n):
    """One problem of n variables and 0 < k < n, k = 1 and n - 1 among them."""
    rng = np.random.default_rng([SCALES_APART.index(kind), seed, n])
    k = int(rng.choice([1, n - 1, n // 2, rng.integers(1, n)]))
    linear = np.zeros(n)
    A = rng.normal(size=(n + 2, n)) * 10 ** rng.uniform(-2, 1, size=n)
    if kind == "low rank":
        factor = rng.normal(size=(2, n))
        return CardinalityProblem(linear=rng.normal(size=n), cardinality=k, factor=factor)
    if kind == "linear":
        linear = rng.normal(size=n) * float(np.abs(A).max()) ** 2
    if kind == "zero columns":
        A[:, rng.random(n) < 0.5] = 0
    if kind == "duplicates":
        A = A[:, rng.integers(0, (n + 1) // 2, size=n)]
    if kind == "one large column":
        A[:, rng.integers(n)] *= 1e8
    if kind == "massive pair":
        A[:, 1] = 1e8 * A[:, 0] * (1 + 1e-9 * rng.normal())
        A[:, 0] *= -1e8
    G = A.T @ A
    if kind == "indefinite":
        G = rng.normal(size=(n, n)) * 10 ** rng.uniform(-1, 1)
    if kind == "all equal":
        G = np.ones((n, n))
    return CardinalityProblem(
        linear=linear, cardinality=k, quadratic=(G + G.T) / 2, offset=float(rng.normal())
    )


def correlated(n, seed):
    """A row block's likeness: correlated columns of scales far apart, no linear term."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(4 * n, n)) + rng.normal(size=(4 * n, 3)) @ rng.normal(size=(3, n))
    X *= 10 ** rng.uniform(-1, 1, size=n)
    G = X.T @ X / len(X)
    return CardinalityProblem(linear=np.zeros(n), cardinality=n // 2, quadratic=(G + G.T) / 2)
