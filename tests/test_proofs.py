"""What is called proved is: against brute force, on numbers of very different sizes."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.benchmarks.trust import PROVERS, judged, mixed
from solvers import Budget, CardinalityProblem, make
from solvers.branch_and_bound import diagonally_shifted
from solvers.convex import convex, part, row_scales, value
from tests.test_native import feasible_states, proper
from tests.test_problem import problems
from tests.test_relaxation import exact_energy


@pytest.mark.parametrize("name", PROVERS)
def test_no_false_proof_of_200_problems(name):
    outcomes = [judged(name, mixed(seed)) for seed in range(200)]
    no_false_claim(outcomes)
    if name in ("exact", "enumerate"):
        assert sum(one["proved"] for one in outcomes) >= 180


@pytest.mark.slow
@pytest.mark.parametrize("name", PROVERS)
def test_no_false_proof_of_10000_problems(name):
    no_false_claim([judged(name, mixed(seed)) for seed in range(10_000)])


def no_false_claim(outcomes):
    for claim in ("false_proof", "false_bound", "loose_tolerance"):
        assert not any(one[claim] for one in outcomes)


@pytest.mark.parametrize("name", PROVERS)
def test_a_heavy_column_hides_no_optimum(name):
    rng = np.random.default_rng(1)
    A, c = rng.standard_normal((4, 10)), rng.standard_normal(10)
    A[:, 0] *= 1e7
    problem = CardinalityProblem(linear=c, cardinality=5, factor=A)
    samples = make(name).sample_problem(problem, budget=Budget(time_limit=5), seed=0)
    best = problem.energy(feasible_states(problem)).min()
    assert best == pytest.approx(-1.5916, abs=1e-4)
    if samples.info["proved_optimal"]:
        assert samples.first.energy == pytest.approx(best, abs=1e-9)
    if name in ("exact", "enumerate", "milp", "miqp"):
        assert samples.first.energy == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("name", PROVERS)
def test_a_heavy_coupling_hides_no_optimum(name):
    G = np.triu(np.random.default_rng(3).choice([-1.0, 1.0], (9, 9)), 1)
    G[2, 5] = 1e10
    problem = CardinalityProblem(linear=np.zeros(9), cardinality=5, quadratic=G + G.T)
    samples = make(name).sample_problem(problem, budget=Budget(time_limit=5), seed=0)
    best = problem.energy(feasible_states(problem)).min()
    if samples.info["proved_optimal"] or name in ("exact", "enumerate"):
        assert samples.first.energy == best


@pytest.mark.parametrize("scale", [1.0, 1e2, 1e4])
def test_the_bound_of_a_dense_problem_survives_large_columns(scale):
    """Five columns times `scale`: nobody takes them, and the bound is that of the others."""
    rng = np.random.default_rng(7)
    A = rng.standard_normal((45, 40))
    heavy = rng.choice(40, 5, replace=False)
    A[:, heavy] *= scale
    G = A.T @ A
    problem = CardinalityProblem(linear=np.zeros(40), cardinality=15, quadratic=(G + G.T) / 2)
    samples = make("relaxation").sample_problem(problem)
    plain = np.delete(A, heavy, axis=1)
    without = CardinalityProblem(linear=np.zeros(35), cardinality=15, factor=plain)
    alone = make("relaxation").sample_problem(without).info["lower_bound"]
    assert samples.info["lower_bound"] > 0
    if scale > 1:
        assert samples.info["lower_bound"] == pytest.approx(alone, rel=0.05)


@settings(max_examples=100)
@given(problems(max_n=7).filter(proper), st.integers(-6, 6), st.integers(0, 2**32))
def test_values_are_off_by_no_more_than_they_say(problem, power, seed):
    rng = np.random.default_rng(seed)
    d = 10.0 ** rng.uniform(-abs(power), abs(power), problem.n)
    problem = scaled(problem, d)
    for x in feasible_states(problem):
        found = value(problem, x)
        exact = exact_energy(problem, x) - Fraction(problem.offset)
        assert abs(Fraction(found.energy) - exact) <= Fraction(found.error)
        assert found.error <= 1e-12 * (float(np.abs(terms_of(problem, x)).sum()))


def scaled(problem, d):
    if problem.factor is not None:
        changes = {"factor": problem.factor * d}
    else:
        changes = {"quadratic": problem.quadratic * d * d[:, None]}
        changes["quadratic"] = (changes["quadratic"] + changes["quadratic"].T) / 2
    return CardinalityProblem(
        linear=problem.linear, cardinality=problem.cardinality, offset=problem.offset, **changes
    )


def terms_of(problem, x):
    """All products that the energy of x is the sum of."""
    G = np.abs(problem.factor).T @ np.abs(problem.factor) if problem.factor is not None else None
    G = np.abs(problem.quadratic) if G is None else G
    return np.concatenate([(G * x * x[:, None]).ravel(), problem.linear * x])


@settings(max_examples=60)
@given(problems(max_n=7).filter(proper), st.integers(0, 6), st.integers(0, 2**32))
def test_reduced_costs_hold_in_rational_arithmetic(problem, power, seed):
    """For the problem, a part of it, and the part with its diagonal shifted."""
    rng = np.random.default_rng(seed)
    problem = scaled(problem, 10.0 ** rng.uniform(-power, power, problem.n))
    states = feasible_states(problem)
    own = convex(problem)
    holds(problem, own, np.arange(problem.n), states[0], states, rng)
    free = np.sort(rng.permutation(problem.n)[: int(rng.integers(1, problem.n + 1))])
    at = states[int(rng.integers(len(states)))]
    sub = part(problem, free, at)
    others = np.setdiff1d(np.arange(problem.n), free)
    agreeing = states[(states[:, others] == at[others]).all(axis=1)]
    if 0 < sub.problem.cardinality < sub.problem.n:
        holds(problem, sub.below(convex(sub.problem)), free, at, agreeing, rng)
        holds(problem, sub.below(diagonally_shifted(sub.problem)), free, at, agreeing, rng)


def holds(problem, below, free, at, states, rng):
    for size in (0.0, 1.0, 1e3):
        s = rng.normal(size=len(below.A)) * size
        costs = below.reduced_costs(s)
        lower = below.lower_bound(s, costs)
        for x in states:
            exact = exact_energy(problem, x) - Fraction(problem.offset)
            assert Fraction(lower) <= exact
            assert Fraction(below.below(s, costs[x[free]])) <= exact


@given(st.integers(1, 8), st.integers(0, 2**32))
def test_row_scales_bring_rows_near_one(n, seed):
    rng = np.random.default_rng(seed)
    d = 10.0 ** rng.uniform(-6, 6, n)
    G = rng.standard_normal((n, n)) * d * d[:, None]
    G = np.abs(G + G.T)
    scales = row_scales(G)
    largest = (G / scales / scales[:, None]).max(axis=1)
    assert ((largest > 0.2) & (largest < 5)).all()
    assert (np.log2(scales) % 1 == 0).all()
