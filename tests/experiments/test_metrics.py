"""Formulas against hand-computed cases and brute force."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.metrics import formulas as metrics
from experiments.metrics.intervals import bootstrap
from experiments.metrics.references import annotate
from experiments.record import hardness
from solvers import CardinalityProblem
from tests.strategies import grouped
from tests.study_fixtures import block

shares = st.floats(0, 1)


def test_gap_by_hand():
    assert metrics.gap(-8.0, -10.0, 0.0) == pytest.approx(0.2)
    assert metrics.certified_gap(-8.0, -12.0, 0.0) == pytest.approx(1 / 3)
    assert metrics.approximation_ratio(-8.0, -10.0, 2.0) == pytest.approx(10 / 12)


@given(st.floats(-100, -1), st.floats(0.1, 10), st.floats(0, 1))
def test_the_ratio_is_metriqs_effective_one(optimum, spread, share):
    """``(r - r_rand) / (1 - r_rand)`` with ``r = E / E_opt``, whatever the energy's zero is."""
    random = optimum + spread
    energy = optimum + share * spread
    ratio, floor = energy / optimum, random / optimum
    effective = (ratio - floor) / (1 - floor)
    assert metrics.approximation_ratio(energy, optimum, random) == pytest.approx(effective)
    assert metrics.approximation_ratio(energy + 7, optimum + 7, random + 7) == pytest.approx(
        effective
    )


@given(st.floats(-100, 0), st.floats(0, 10), st.floats(0, 10), st.floats(0.1, 10), st.floats(0, 1))
def test_certified_gap_brackets_the_true_gap(optimum, above, below, gain, share):
    """bound <= optimum <= best known < start, and an energy between best known and start."""
    best, bound = optimum + above, optimum - below
    start = best + gain
    energy = best + share * gain
    true = metrics.gap(energy, optimum, start)
    assert metrics.gap(energy, best, start) <= true + 1e-9
    assert true <= metrics.certified_gap(energy, bound, start) + 1e-9


def test_time_to_solution_by_hand():
    assert metrics.time_to_solution(0, 2) == math.inf
    assert metrics.time_to_solution(1, 2) == 2
    assert metrics.time_to_solution(0.99, 2) == 2
    assert metrics.time_to_solution(0.9, 2) == pytest.approx(4)
    assert metrics.time_to_solution(0.5, 1) == pytest.approx(math.log(0.01) / math.log(0.5))
    with pytest.raises(ValueError, match=r"1\.5"):
        metrics.time_to_solution(1.5, 1)


@given(shares, shares, st.floats(1e-6, 1e3))
def test_time_to_solution_falls_with_success(p, q, seconds):
    low, high = sorted((p, q))
    assert metrics.time_to_solution(high, seconds) <= metrics.time_to_solution(low, seconds)
    assert metrics.time_to_solution(p, seconds) >= seconds


def test_bootstrap():
    rng = np.random.default_rng(0)
    assert bootstrap([3.0] * 9, np.mean, rng=rng) == (3, 3)
    sample = np.random.default_rng(1).normal(size=400)
    low, high = bootstrap(sample, np.mean, rng=rng)
    assert low < sample.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * sample.std() / 20, rel=0.2)
    assert all(map(math.isnan, bootstrap([], np.mean, rng=rng)))


def test_bootstrap_of_a_statistic_that_may_be_infinite():
    """Time to solution over runs, each with its share of hits."""

    def seconds(sample):
        hits, reads = sample.sum(axis=0)
        return metrics.time_to_solution(hits / reads, 1.0)

    def interval(hits, reads):
        rng = np.random.default_rng(0)
        return bootstrap(np.column_stack([hits, reads]), seconds, rng=rng, draws=200)

    assert interval([0, 0, 0], [10, 10, 10]) == (math.inf, math.inf)
    assert interval([10, 10], [10, 10]) == (1, 1)
    low, high = interval([3, 5, 0, 4], [10] * 4)
    assert low < metrics.time_to_solution(0.3, 1) < high
    assert interval([1, 0, 0], [1, 1, 1])[1] == math.inf


def test_expected_running_time():
    assert metrics.expected_running_time([1, 2, 3], [True, False, True]) == 3
    assert metrics.expected_running_time([1, 2], [False, False]) == math.inf
    assert metrics.expected_running_time([1, 3], [True, True]) == 2


def test_time_to_target_and_anytime():
    seconds, energies = [0.3, 0.1, 0.2], [-3.0, -1.0, -2.0]
    assert metrics.time_to_target(seconds, energies, -2.0) == 0.2
    assert metrics.time_to_target(seconds, energies, -4.0) == math.inf
    curve = metrics.anytime(seconds, energies, [0.05, 0.1, 0.25, 9])
    np.testing.assert_array_equal(curve, [np.nan, -1, -2, -3])
    assert np.isnan(metrics.anytime([], [], [1.0])).all()


def test_ecdf():
    times = [1, 2, math.inf, 2]
    np.testing.assert_allclose(metrics.ecdf(times, [0, 1, 2, 1e9]), [0, 0.25, 0.75, 0.75])
    assert np.isnan(metrics.ecdf([], [1.0])).all()


def test_performance_profile_by_hand():
    costs = pd.DataFrame({"a": [1.0, 4.0, np.inf, np.nan], "b": [2.0, 2.0, 5.0, np.inf]})
    profile = metrics.performance_profile(costs, [1, 2, 10])
    np.testing.assert_allclose(profile["a"], [0.25, 0.5, 0.5])
    np.testing.assert_allclose(profile["b"], [0.5, 0.75, 0.75])


@given(st.lists(st.lists(st.floats(0.01, 100), min_size=3, max_size=3), min_size=1, max_size=8))
def test_performance_profile_against_its_definition(rows):
    costs = pd.DataFrame(rows, columns=list("abc"))
    taus = [1.0, 1.5, 3.0, 1e9]
    profile = metrics.performance_profile(costs, taus)
    for tau, solver in itertools.product(taus, "abc"):
        ratios = [row["abc".index(solver)] / min(row) for row in rows]
        assert profile.loc[tau, solver] == pytest.approx(np.mean([r <= tau for r in ratios]))
    assert (profile.loc[1e9] == 1).all()


def test_ranks():
    found = metrics.ranks(pd.DataFrame([[0.0, 1e-12, 0.5, np.nan]], columns=list("abcd")))
    np.testing.assert_array_equal(found.iloc[0], [1, 1, 3, np.nan])


@settings(max_examples=60)
@given(st.integers(1, 8), st.integers(0, 8), st.integers(0, 10**6), st.booleans())
def test_random_energy_is_the_mean_over_the_feasible_set(n, k, seed, dense):
    k = min(k, n)
    problem = block(n, k=k, seed=seed, dense=dense)
    states = [np.isin(np.arange(n), ones) for ones in itertools.combinations(range(n), k)]
    mean = problem.energy(np.array(states)).mean()
    assert hardness.random_energy(problem) == pytest.approx(mean, abs=1e-9)


@settings(max_examples=40)
@given(grouped(), st.booleans())
def test_random_energy_of_groups(problem, dense):
    if dense:
        problem = replace(problem, factor=None, quadratic=problem.gram())
    states = np.array(list(itertools.product((0, 1), repeat=problem.n)))
    mean = problem.energy(states[problem.is_feasible(states)]).mean()
    assert hardness.random_energy(problem) == pytest.approx(mean, abs=1e-9)


def test_condition_and_spread_of_scales():
    A = np.diag([1.0, 100.0, 0.01]) @ np.eye(3)
    problem = CardinalityProblem(linear=np.zeros(3), cardinality=1, factor=A)
    assert hardness.condition(problem) == pytest.approx(1)
    assert hardness.column_spread(problem) == pytest.approx(1e4)
    G = np.array([[1.0, 0.9], [0.9, 1.0]])
    scaled = CardinalityProblem(
        linear=np.zeros(2), cardinality=1, quadratic=G * np.outer([1, 1e5], [1, 1e5])
    )
    assert hardness.condition(scaled) == pytest.approx(19)
    low = CardinalityProblem(linear=np.zeros(5), cardinality=1, factor=np.ones((2, 5)))
    assert np.isinf(hardness.condition(low))
    nothing = CardinalityProblem(linear=np.ones(2), cardinality=1, factor=np.zeros((1, 2)))
    assert np.isnan(hardness.column_spread(nothing))


def test_greedy_and_one_swap():
    problem = block(10, k=4, seed=3)
    greedy, swapped = hardness.greedy_and_one_swap(problem)
    states = [np.isin(np.arange(10), ones) for ones in itertools.combinations(range(10), 4)]
    assert problem.energy(np.array(states)).min() - 1e-12 <= swapped <= greedy


def test_effective_rank():
    rng = np.random.default_rng(0)
    rows = np.linalg.qr(np.column_stack([np.ones(20), rng.normal(size=(20, 3))]))[0][:, 1:].T
    problem = block(20)
    assert hardness.effective_rank(with_factor(problem, rows)) == pytest.approx(3)
    assert hardness.effective_rank(with_factor(problem, rows[:1])) == pytest.approx(1)
    flat = with_factor(problem, np.ones((4, 20)))
    assert hardness.effective_rank(flat) == pytest.approx(0, abs=1e-6)
    factor = rng.normal(size=(5, 20))
    one = hardness.effective_rank(with_factor(problem, factor))
    gram = replace(problem, factor=None, quadratic=symmetric(factor.T @ factor))
    assert hardness.effective_rank(gram) == pytest.approx(one)


def symmetric(matrix):
    return (matrix + matrix.T) / 2


def with_factor(problem, factor):
    return replace(problem, factor=factor, initial=None)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.booleans())
def test_curvature_share_splits_the_gain(seed, dense):
    problem = block(9, seed=seed, dense=dense)
    facts = hardness.describe(problem)
    assert facts.lower_bound <= facts.upper_bound + 1e-9
    if math.isnan(facts.curvature_share):
        return
    gain = facts.initial_energy - facts.upper_bound
    states = [np.isin(np.arange(9), ones) for ones in itertools.combinations(range(9), 4)]
    state = min(states, key=lambda s: abs(float(problem.energy(s)) - facts.upper_bound))
    linear = -float(problem.fields(problem.initial) @ (state.astype(float) - problem.initial))
    assert linear - facts.curvature_share * gain == pytest.approx(gain, rel=1e-6)


def test_coefficient_range():
    problem = with_factor(block(4), np.zeros((1, 4)))
    wide = replace(problem, linear=np.array([1e-3, 0.0, 1.0, 10.0]))
    assert hardness.coefficient_range(wide) == pytest.approx(4)
    assert math.isnan(hardness.coefficient_range(replace(problem, linear=np.zeros(4))))


def frame(**columns):
    """Runs of one instance: incumbent at 0, mean 5, relaxation between -12 and -9."""
    base = {
        "instance": "i", "status": "done", "solver": "s", "energy": -8.0, "lower_bound": np.nan,
        "proved_optimal": False, "instance_upper": -9.0, "instance_bound": -12.0,
        "initial_energy": 0.0, "random_energy": 5.0, "magnitude": 10.0, "reads": 4,
        "best_reads": 2,
    }  # fmt: skip
    given = base | columns
    length = max(len(v) for v in given.values() if isinstance(v, list)) if columns else 1
    return pd.DataFrame({k: v if isinstance(v, list) else [v] * length for k, v in given.items()})


def test_reference_is_bounded_without_a_proof():
    out = annotate(frame(energy=[-8.0, -10.0, -6.0]))
    assert set(out["tag"]) == {"bounded"}
    assert set(out["reference"]) == {-10.0}
    assert out["gap"].tolist() == pytest.approx([0.2, 0, 0.4])
    assert out["certified_gap"].tolist() == pytest.approx([1 / 3, 1 / 6, 0.5])
    assert out["slack"].iloc[0] == pytest.approx(2 / 12)
    assert out["success"].tolist() == [0, 0.5, 0]


def test_reference_is_exact_by_proof_or_by_bound():
    proved = annotate(frame(energy=[-8.0, -10.0], proved_optimal=[False, True]))
    assert set(proved["tag"]) == {"exact"}
    assert proved["certified_gap"].tolist() == pytest.approx([0.2, 0])
    met = annotate(frame(energy=[-8.0, -12.0 + 1e-10]))
    assert set(met["tag"]) == {"exact"}
    assert met["gap"].tolist() == pytest.approx([1 / 3, 0])


def test_a_failed_run_proves_nothing_and_found_nothing():
    out = annotate(
        frame(energy=[-8.0, -20.0], proved_optimal=[False, True], status=["done", "error"])
    )
    assert set(out["reference"]) == {-9.0}
    assert set(out["tag"]) == {"bounded"}
    assert out["gap"].isna().tolist() == [False, True]


def test_refuted_claims_are_named():
    out = annotate(
        frame(
            energy=[-10.0, -8.0],
            solver=["a", "liar"],
            proved_optimal=[False, True],
            lower_bound=[-11.0, -5.0],
        )
    )
    assert set(out["refuted"]) == {"bound of liar, proof of liar"}
    assert set(out["tag"]) == {"bounded"}
    assert set(out["bound"]) == {-11.0}


def test_best_known_without_bound_and_random_baseline():
    out = annotate(frame(instance_bound=[np.nan], initial_energy=[np.nan], energy=[-9.0]))
    assert out["tag"].tolist() == ["best-known"]
    assert out["baseline"].tolist() == ["random mean"]
    assert out["gap"].tolist() == [0]
    assert out["certified_gap"].isna().all()


def test_flat_instances_have_no_gap():
    out = annotate(frame(energy=[0.0], instance_upper=[0.0], instance_bound=[0.0]))
    assert out["flat"].all()
    assert out["gap"].isna().all()
    assert out["hit"].all()
