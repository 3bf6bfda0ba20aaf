"""How hard an instance is, before any solver of the study has seen it.

A block whose curvature is a small share of its gain is a sort in disguise: every sensible solver
ties, and a benchmark that does not say so measures nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solvers.exact.relaxation import bound
from solvers.problem import Bools, CardinalityProblem, Floats
from solvers.search.repair import LocalSearch

# Couplings of more variables are sampled for the coefficient range.
RANGE_VARIABLES = 512
# A column this much smaller than the largest counts as 0: of an input that hardly ever is not.
NO_SCALE = 1e-9
# The spectrum of a dense problem without a factor costs n^3.
SPECTRUM_VARIABLES = 4096
# So does the condition, of any problem of full rank.
CONDITION_VARIABLES = 2048


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
        condition: see `condition`.
        column_spread: see `column_spread`.
        greedy_energy: of the greedy state.
        one_swap_energy: of the one-swap optimum that a descent from it ends in.
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
    condition: float
    column_spread: float
    greedy_energy: float
    one_swap_energy: float


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
    greedy, swapped = greedy_and_one_swap(problem)
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
        condition=condition(problem),
        column_spread=column_spread(problem),
        greedy_energy=greedy,
        one_swap_energy=swapped,
    )


def random_energy(problem: CardinalityProblem) -> float:
    """Exact mean of E over all feasible masks.

    In a group of m variables and k ones ``P(x_i = 1) = k/m`` and ``P(x_i = x_j = 1) = k(k-1) /
    (m(m-1))`` for i != j; of two groups the ones are independent. With ``S_gh`` the sum of G over a
    pair of groups, ``t_g`` the trace and ``C_g`` the sum of c over one,

        mean E = offset + sum_g (p_g (C_g + t_g / 2) + q_g (S_gg - t_g) / 2)
                 + sum_(g != h) p_g p_h S_gh / 2.
    """
    if problem.n == 0:
        return problem.offset
    labels, ones = problem.group_labels, problem.group_ones.astype(np.float64)
    sizes = np.bincount(labels).astype(np.float64)
    p = ones / sizes
    q = p * np.divide(ones - 1, sizes - 1, out=np.zeros_like(p), where=sizes > 1)
    if problem.factor is not None:
        sums = _by_group(problem.factor.T, labels).T
        own, along = (sums * sums).sum(0), sums @ p
        total = float(along @ along)
    else:
        assert problem.quadratic is not None
        S = _by_group(_by_group(problem.quadratic, labels).T, labels)
        own, total = np.diag(S), float(p @ S @ p)
    trace, linear = (_by_group(v, labels) for v in (problem.diagonal, problem.linear))
    alone = p * (linear + 0.5 * trace) + 0.5 * q * (own - trace) - 0.5 * p**2 * own
    return problem.offset + float(alone.sum()) + 0.5 * total


def _by_group(values: Floats, labels: NDArray[np.int64]) -> Floats:
    """Sums over the groups of the first axis."""
    sums = np.zeros((int(labels.max()) + 1, *values.shape[1:]))
    np.add.at(sums, labels, values)
    return sums


def condition(problem: CardinalityProblem) -> float:
    """Condition of G with its diagonal scaled to 1, without columns of no scale; inf if singular.

    Of a row block that is the condition of the correlations of the layer's inputs: how far the
    variables are from being independent, whatever their scales.
    """
    scales = np.sqrt(np.abs(problem.diagonal))
    alive = scales > NO_SCALE * scales.max(initial=0.0)
    if problem.factor is not None and problem.rank < alive.sum():
        return math.inf
    if problem.n > CONDITION_VARIABLES or not alive.any():
        return math.nan
    G = problem.gram()[np.ix_(alive, alive)] / scales[alive, None] / scales[alive]
    values = np.abs(np.linalg.eigvalsh(G))
    least = float(values.min())
    return float(values.max()) / least if least > 1e-14 * values.max() else math.inf


def column_spread(problem: CardinalityProblem) -> float:
    """The largest column scale ``sqrt(G_ii)`` over the smallest above `NO_SCALE` of it."""
    scales = np.sqrt(np.abs(problem.diagonal))
    scales = scales[scales > NO_SCALE * scales.max(initial=0.0)]
    return float(scales.max() / scales.min()) if len(scales) else math.nan


def greedy_and_one_swap(problem: CardinalityProblem) -> tuple[float, float]:
    """Energies of the greedy state and of the one-swap optimum that a descent from it ends in."""
    search = LocalSearch(problem)
    greedy = search.fill(np.zeros(problem.n, dtype=np.bool_))
    return float(problem.energy(greedy)), float(problem.energy(search.descend(greedy)))


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
