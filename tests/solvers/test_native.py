"""Native solvers against brute force, and the certificate against everything."""

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from solvers import Budget, CardinalityProblem, make
from solvers.arithmetic.convex import convex
from solvers.exact.enumeration import best_subset
from solvers.exact.interval import certified_bound, core
from solvers.exact.relaxation import bound
from solvers.search.repair import LocalSearch
from tests.solvers.reference import feasible_states, magnitude
from tests.strategies import problems

families = problems(max_n=9)
proper_families = problems(max_n=9, proper=True)


@given(families)
def test_enumerate_agrees_with_brute_force(problem):
    best = problem.energy(feasible_states(problem)).min()
    samples = make("enumerate").sample_problem(problem.blinded())
    assert samples.first.energy == pytest.approx(best, abs=1e-12 * magnitude(problem))
    assert samples.info["proved_optimal"] is True


def test_enumerate_visits_every_subset_once():
    n, k = 9, 4
    weights = 2.0 ** np.arange(n)
    seen = [
        best_subset(np.zeros((n, n)), -weights * mask, k)[0]
        for mask in (np.isin(np.arange(n), c) for c in itertools.combinations(range(n), k))
    ]
    expected = [-sum(weights[list(c)]) for c in itertools.combinations(range(n), k)]
    assert seen == expected


def test_enumerate_takes_24_variables():
    rng = np.random.default_rng(0)
    problem = CardinalityProblem(
        linear=rng.normal(size=24), cardinality=12, factor=rng.normal(size=(24, 24))
    )
    best = make("enumerate").sample_problem(problem).first.energy
    annealed = make("annealing").sample_problem(problem, budget=Budget(reads=20), seed=0)
    assert best == pytest.approx(annealed.first.energy, abs=1e-9)


@settings(max_examples=200)
@given(proper_families)
def test_bound_never_passes_the_optimum(problem):
    energies = problem.energy(feasible_states(problem))
    found = bound(problem)
    slack = 1e-11 * magnitude(problem)
    assert found.lower_bound <= energies.min() + slack
    assert found.upper_bound >= energies.min() - slack
    assert problem.is_feasible(found.state)
    assert problem.energy(found.state) == found.upper_bound
    # The certificate alone gives the bound.
    again = certified_bound(problem, found.dual)
    assert again == pytest.approx(found.lower_bound, abs=slack)
    if found.proved_optimal:
        assert found.upper_bound == pytest.approx(energies.min(), abs=slack)


@settings(max_examples=100)
@given(proper_families, st.integers(0, 2**32))
def test_every_dual_vector_is_a_bound(problem, seed):
    s = np.random.default_rng(seed).normal(size=len(convex(problem).A)) * 3
    best = problem.energy(feasible_states(problem)).min()
    assert certified_bound(problem, s) <= best + 1e-15 * magnitude(problem)


# Linear terms a millionth of the curvature: Newton's last point is far off, its dual is not.
TINY_LINEAR = CardinalityProblem(
    linear=[-5.34942942e-07, -6.19876091e-07, -5.61088525e-07, 1.20978412e-06],
    cardinality=1,
    factor=[
        [0.44342754, -1.35729174, 1.18678365, 0.0],
        [-1.69087432, -0.12743199, 0.32607591, 0.0],
        [0.72587454, 0.70339741, -1.03525823, 0.0],
    ],
    offset=-0.3994153228263481,
)


@settings(max_examples=100)
@example(TINY_LINEAR)
@given(proper_families)
def test_relaxation_is_solved_to_the_end(problem):
    """Primal value of the relaxed point equals the dual value: strong duality."""
    found, own = bound(problem), convex(problem)
    assert found.relaxed.sum() == pytest.approx(problem.cardinality)
    s = own.A @ found.relaxed
    primal = 0.5 * s @ s + own.c @ found.relaxed + problem.offset
    assert primal == pytest.approx(found.lower_bound, abs=1e-8 * magnitude(problem))


@settings(max_examples=100)
@given(proper_families)
def test_core_keeps_every_better_state(problem):
    """Any state better than the known one agrees with the selection outside the core."""
    found = bound(problem)
    g = found.costs
    gap = found.upper_bound - found.lower_bound + 1e-9 * magnitude(problem)
    open_variables = core(g, problem.cardinality, gap)
    inside = np.zeros(problem.n, dtype=bool)
    inside[np.argsort(g, kind="stable")[: problem.cardinality]] = True
    states = feasible_states(problem)
    for state in states[problem.energy(states) < found.upper_bound - 1e-9 * magnitude(problem)]:
        assert (state[~open_variables] == inside[~open_variables]).all()


@settings(max_examples=100)
@given(proper_families)
def test_descent_ends_where_no_swap_helps(problem):
    search = LocalSearch(problem)
    state = search.descend(problem.initial)
    _, _, deltas = problem.swap_deltas(state)
    assert deltas.min() >= -search.tolerance - 1e-12 * magnitude(problem)
    assert problem.energy(state) <= problem.energy(problem.initial) + 1e-12 * magnitude(problem)


@settings(max_examples=100)
@given(families, st.integers(0, 2**32))
def test_greedy_repair_takes_the_best_flip_each_time(problem, seed):
    x = np.random.default_rng(seed).random(problem.n) < 0.5
    repaired = LocalSearch(problem).fill(x)
    while x.sum() != problem.cardinality:
        wrong = np.flatnonzero(x == (x.sum() > problem.cardinality))
        flipped = np.repeat(x[None], len(wrong), axis=0)
        flipped[np.arange(len(wrong)), wrong] ^= True
        x = flipped[np.argmin(problem.energy(flipped))]
    assert problem.energy(repaired) == pytest.approx(
        problem.energy(x), abs=1e-9 * magnitude(problem)
    )


def test_annealing_beats_descent_where_curvature_rules():
    rng = np.random.default_rng(2)
    problem = CardinalityProblem(
        linear=rng.normal(size=256) * 0.01, cardinality=128, factor=rng.normal(size=(32, 256))
    )
    annealed = make("annealing").sample_problem(problem, budget=Budget(reads=3), seed=1)
    descended = make("descent").sample_problem(problem, budget=Budget(reads=3), seed=1)
    assert annealed.first.energy < descended.first.energy


def test_relaxation_proves_a_sequence_like_block_at_4096():
    rng = np.random.default_rng(0)
    problem = CardinalityProblem(
        linear=rng.normal(size=4096), cardinality=2048, factor=1e-4 * rng.normal(size=(16, 4096))
    )
    found = bound(problem)
    assert found.proved_optimal
    assert found.gap <= found.best.tolerance


def test_enumerate_proves_what_nearly_cancels():
    """Three numbers of size 1 whose sum is 0.02: rounding of their products hides nothing."""
    factor = np.array(
        [[1.38370976, -0.90584314, -0.81631473, 0.08130306, 0.28143084, -1.59898833, -1.73072419,
          0.3550784]]
    )  # fmt: skip
    problem = CardinalityProblem(linear=np.zeros(8), cardinality=3, factor=factor)
    best = problem.energy(feasible_states(problem)).min()
    samples = make("enumerate").sample_problem(problem)
    assert samples.info["proved_optimal"] is True
    assert samples.first.energy == pytest.approx(best, rel=1e-12)
