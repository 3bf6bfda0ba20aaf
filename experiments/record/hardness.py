"""How hard an instance is, before any solver of the study has seen it.

A block whose curvature is a small share of its gain is a sort in disguise: every sensible solver
ties, and a benchmark that does not say so measures nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from solvers.exact.relaxation import bound
from solvers.problem import Bools, CardinalityProblem, Floats

# Couplings of more variables are sampled for the coefficient range.
RANGE_VARIABLES = 512
# The spectrum of a dense problem without a factor costs n^3.
SPECTRUM_VARIABLES = 4096


@dataclass(frozen=True)
class Hardness:
    """Descriptors of one instance; NaN where one is not defined.

    Attributes:
        initial_energy: E of the current mask.
        random_energy: mean E over the feasible set, see `random_energy`.
        magnitude: size of the terms an energy is a sum of, see `magnitude`.
        lower_bound: certified bound of the relaxation.
        upper_bound: energy of the rounded relaxation after descent.
        core_size: variables not settled by reduced costs.
        bound_seconds: wall time of bound and rounding.
        bound_gap: ``(upper - lower) / (E_initial - upper)``.
        effective_rank: see `effective_rank`.
        curvature_share: see `curvature_share`.
        coefficient_range: see `coefficient_range`.
    """

    initial_energy: float
    random_energy: float
    magnitude: float
    lower_bound: float
    upper_bound: float
    core_size: int
    bound_seconds: float
    bound_gap: float
    effective_rank: float
    curvature_share: float
    coefficient_range: float


def describe(problem: CardinalityProblem) -> Hardness:
    """All descriptors of a problem; takes well under a second at n = 4096, r = 16."""
    initial = math.nan if problem.initial is None else float(problem.energy(problem.initial))
    if 0 < problem.cardinality < problem.n:
        found = bound(problem.blinded())
        state, lower = found.state, found.lower_bound
        core, seconds = found.core_size, found.seconds
    else:
        state = np.full(problem.n, problem.cardinality > 0)
        lower, core, seconds = float(problem.energy(state)), 0, 0.0
    upper = float(problem.energy(state))
    mean = random_energy(problem)
    size = magnitude(problem)
    reference = mean if math.isnan(initial) else initial
    attainable = reference - upper
    return Hardness(
        initial_energy=initial,
        random_energy=mean,
        magnitude=size,
        lower_bound=lower,
        upper_bound=upper,
        core_size=core,
        bound_seconds=seconds,
        bound_gap=max(0.0, upper - lower) / attainable if attainable > 1e-12 * size else math.nan,
        effective_rank=effective_rank(problem),
        curvature_share=curvature_share(problem, state),
        coefficient_range=coefficient_range(problem),
    )


def random_energy(problem: CardinalityProblem) -> float:
    """Exact mean of E over all masks of k ones.

    With ``p1 = P(x_i = 1) = k/n`` and ``p2 = P(x_i = x_j = 1) = k(k-1) / (n(n-1))`` for i != j,
    ``E[x'Gx] = p1 tr G + p2 (1'G1 - tr G)``, hence

        mean E = offset + p1 c.1 + 1/2 (p1 - p2) tr G + 1/2 p2 1'G1.
    """
    n, k = problem.n, problem.cardinality
    if n == 0:
        return problem.offset
    p1 = k / n
    p2 = k * (k - 1) / (n * (n - 1)) if n > 1 else 0.0
    trace = float(problem.diagonal.sum())
    if problem.factor is not None:
        rows = problem.factor.sum(axis=1)
        total = float(rows @ rows)
    else:
        assert problem.quadratic is not None
        total = float(problem.quadratic.sum())
    linear = float(problem.linear.sum())
    return problem.offset + p1 * linear + 0.5 * (p1 - p2) * trace + 0.5 * p2 * total


def magnitude(problem: CardinalityProblem) -> float:
    """Size of the terms that make up an energy, the yardstick of round-off.

    ``|offset|`` + the k largest ``|c_i|`` + the mean of ``1/2 x'|G|x``'s diagonal and total part
    over the feasible set. Two energies closer than about 1e-9 of it are not told apart.
    """
    n, k = problem.n, problem.cardinality
    if n == 0:
        return abs(problem.offset)
    sizes = np.sort(np.abs(problem.linear))[n - k :]
    quadratic = random_energy(problem) - problem.offset - k / n * float(problem.linear.sum())
    return abs(problem.offset) + float(sizes.sum()) + abs(quadratic)


def effective_rank(problem: CardinalityProblem) -> float:
    """``exp(-sum p_i ln p_i)`` with ``p_i`` the eigenvalues of the curvature over their sum.

    The entropy of Roy and Vetterli (2007, The effective rank), taken over the eigenvalues of
    ``P G P``, ``P = I - 11'/n``, not over singular values of the factor: the direction ``1`` is
    projected out because no feasible move has a part along it.
    """
    n = problem.n
    if problem.factor is not None:
        centred = problem.factor - problem.factor.mean(axis=1, keepdims=True)
        small = centred @ centred.T if len(centred) <= n else centred.T @ centred
        values = np.linalg.eigvalsh(small)
    elif n <= SPECTRUM_VARIABLES:
        assert problem.quadratic is not None
        G = problem.quadratic - problem.quadratic.mean(axis=0, keepdims=True)
        values = np.abs(np.linalg.eigvalsh(G - G.mean(axis=1, keepdims=True)))
    else:
        return math.nan
    return _entropy_rank(values)


def _entropy_rank(values: Floats) -> float:
    positive = values[values > 1e-14 * values.max(initial=0.0)]
    if not len(positive):
        return 0.0
    p = positive / positive.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def curvature_share(problem: CardinalityProblem, state: Bools) -> float:
    """``1/2 d'Gd / (E(x0) - E(x))`` of the move ``d = x - x0`` from the current mask to `state`.

    ``E(x) - E(x0) = f.d + 1/2 d'Gd`` with ``f`` the gradient at that mask ``x0``. 0 means that the
    block is a sort of ``f``; near and above 1 the first-order gain is mostly eaten by
    curvature. NaN without a current mask or without a gain.
    """
    if problem.initial is None:
        return math.nan
    d = state.astype(np.float64) - problem.initial
    gain = float(problem.energy(problem.initial) - problem.energy(state))
    if gain <= 1e-12 * magnitude(problem):
        return math.nan
    if problem.factor is not None:
        s = problem.factor @ d
        return 0.5 * float(s @ s) / gain
    assert problem.quadratic is not None
    return 0.5 * float(d @ problem.quadratic @ d) / gain


def coefficient_range(problem: CardinalityProblem) -> float:
    """Decades between the largest and the smallest nonzero coefficient of the unpenalised QUBO.

    ``log10(max / min)`` over linear biases ``c_i + G_ii / 2`` and couplings ``G_ij``; with more
    than 512 variables the couplings among 512 evenly spaced ones stand for all. An analog device
    of b bits resolves about ``0.3 b`` decades.
    """
    n = problem.n
    biases = np.abs(problem.linear + 0.5 * problem.diagonal)
    some = np.unique(np.linspace(0, max(n - 1, 0), min(n, RANGE_VARIABLES)).astype(np.intp))
    if problem.factor is not None:
        part = problem.factor[:, some]
        couplings = part.T @ part
    else:
        assert problem.quadratic is not None
        couplings = problem.quadratic[np.ix_(some, some)]
    upper = np.abs(couplings[np.triu_indices(len(some), 1)])
    sizes = np.concatenate([biases, upper])
    sizes = sizes[sizes > 0]
    return float(np.log10(sizes.max() / sizes.min())) if len(sizes) else math.nan
