"""The relaxation's certificate, and the Newton method that branch and bound uses."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers import CardinalityProblem
from solvers.arithmetic.convex import convex
from solvers.clock.deadline import NEVER
from solvers.errors import ProblemError
from solvers.exact import frank_wolfe, relaxation
from solvers.exact.diagonal_shift import diagonally_shifted
from solvers.exact.interval import certified_bound
from solvers.exact.newton import least_sum, proximal_point
from solvers.exact.relaxation import bound
from tests.solvers.reference import exact_energy, feasible_states, magnitude
from tests.strategies import problems


@settings(max_examples=60)
@given(problems(max_n=7, proper=True), st.sampled_from(["own", "random"]), st.integers(0, 2**32))
def test_certified_bound_holds_in_rational_arithmetic(problem, kind, seed):
    dual = bound(problem).dual
    if kind == "random":
        dual = np.random.default_rng(seed).normal(size=dual.shape) * 3
    certified = certified_bound(problem, dual)
    energies = [exact_energy(problem, x) for x in feasible_states(problem)]
    assert Fraction(certified) <= min(energies)
    # Rounding is counted, not exaggerated.
    assert certified == pytest.approx(
        plain_bound(problem, dual), abs=1e-10 * (magnitude(problem) + dual @ dual)
    )


def plain_bound(problem, s):
    """``-1/2 ||s||^2`` and the k smallest of ``A's + c``, as if floating point were exact."""
    own = convex(problem)
    g = np.sort(s @ own.A + own.c)
    return problem.offset - 0.5 * float(s @ s) + float(g[: problem.cardinality].sum())


def test_certificate_of_another_shape_is_refused():
    problem = CardinalityProblem(linear=np.ones(4), cardinality=2, factor=np.ones((2, 4)))
    with pytest.raises(ProblemError, match=r"expected \(2,\)"):
        certified_bound(problem, np.ones(3))
    with pytest.raises(ProblemError, match="finite"):
        certified_bound(problem, np.array([1.0, np.nan]))


@given(st.integers(1, 30), st.floats(1e-9, 1e3), st.integers(0, 2**32))
def test_proximal_point_satisfies_its_optimality_conditions(m, eps, seed):
    rng = np.random.default_rng(seed)
    k = int(rng.integers(0, m + 1))
    g = np.round(rng.normal(size=m), 1)
    z, x = rng.random(m), np.empty(m)
    mu = proximal_point(g, z, eps, k, 0.0, x)
    assert x.sum() == pytest.approx(k, abs=1e-6)
    slope = g + eps * (x - z) - mu
    size = 1e-9 * (1 + eps)
    assert (slope[x < 1] >= -size).all()
    assert (slope[x > 0] <= size).all()


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=12), st.integers(0, 12))
def test_least_sum(values, k):
    k = min(k, len(values))
    assert least_sum(np.array(values), k) == pytest.approx(sum(sorted(values)[:k]), abs=1e-12)


@pytest.mark.parametrize("curvature", [1.0, 1e2, 1e4])
@pytest.mark.parametrize(("n", "r"), [(60, 90), (200, 40), (300, 5)])
def test_relaxation_closes_its_own_gap_at_any_rank(n, r, curvature):
    problem = drawn(n, r, curvature)
    found = bound(problem)
    s = problem.factor @ found.relaxed
    primal = 0.5 * s @ s + problem.linear @ found.relaxed
    assert found.relaxed.sum() == pytest.approx(n // 3)
    assert found.iterations < 200
    assert primal - found.lower_bound <= 1e-8 * (found.upper_bound - found.lower_bound) + 1e-9


def drawn(n, r, curvature):
    rng = np.random.default_rng(n)
    return CardinalityProblem(
        linear=rng.normal(size=n),
        cardinality=n // 3,
        factor=rng.normal(size=(r, n)) * np.sqrt(curvature / n),
    )


@pytest.mark.parametrize("steps", [0, 3, 40])
def test_newton_takes_over_from_any_frank_wolfe_point(steps, monkeypatch):
    monkeypatch.setattr(frank_wolfe, "FRANK_WOLFE_STEPS", steps)
    for n, r, curvature in ((200, 40, 1e4), (256, 128, 1.0), (256, 128, 10.0)):
        problem = drawn(n, r, curvature)
        found = bound(problem)
        s = problem.factor @ found.relaxed
        primal = 0.5 * s @ s + problem.linear @ found.relaxed
        assert abs(primal - found.lower_bound) <= 1e-9 * abs(found.lower_bound)
        assert found.iterations < 200


@pytest.mark.parametrize(("n", "rank"), [(9, 4), (40, 40), (40, 200)])
def test_factors_have_the_layout_that_is_compiled(n, rank):
    """Fortran order would have the Newton steps compiled again, within the time limit."""
    A = np.random.default_rng(n).standard_normal((rank, n))
    G = A.T @ A
    for less in (0.0, 0.5):
        G -= less * np.eye(n)
        problem = CardinalityProblem(linear=np.zeros(n), cardinality=n // 2, quadratic=G)
        for own in (convex(problem), diagonally_shifted(problem)):
            assert own is not None and own.A.flags.c_contiguous


def test_descent_of_a_large_problem_looks_at_the_cheapest_flips(monkeypatch):
    """Rounds of small pools end where no swap of the cheapest flips helps."""
    problem = drawn(300, 20, 30.0)
    start = np.zeros(300, dtype=bool)
    start[:100] = True
    energies = []
    for nearest in (10, 40, 150):
        monkeypatch.setattr(relaxation, "NEAREST", nearest)
        state = relaxation._descended(problem, start, NEVER)
        assert problem.is_feasible(state)
        ones, zeros, deltas = problem.swap_deltas(state)
        f, half = problem.fields(state), 0.5 * problem.diagonal
        cheap_out = np.argsort((half - f)[ones])[:nearest]
        cheap_in = np.argsort((half + f)[zeros])[:nearest]
        assert deltas[np.ix_(cheap_out, cheap_in)].min() >= -1e-9
        energies.append(float(problem.energy(state)))
    assert max(energies) < float(problem.energy(start))
    assert start[:100].all()
