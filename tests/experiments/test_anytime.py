"""Three clocks on hand-made runs; metrics against their definitions in plain pandas."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments import Store, Study, run
from experiments.figures import studies as plots_studies
from experiments.metrics import anytime
from experiments.metrics import formulas as metrics
from experiments.metrics.intervals import bootstrap
from experiments.metrics.references import annotate
from tests.study_fixtures import block


def runs_of(*rows):
    base = {
        "status": "done", "flat": False, "reference": 0.0, "baseline_energy": 1.0,
        "tolerance": 1e-9, "convert": 0.0, "preprocess": 0.0, "training": 0.0, "queue": 0.0,
        "build": 0.0, "instance": "i", "time_limit": 1.0, "n": 8, "fisher": "", "track": "native",
    }  # fmt: skip
    return pd.DataFrame([base | row for row in rows])


def test_each_clock_by_hand():
    runs = runs_of({"key": "a", "solver": "A", "convert": 2.0, "execute": 1.0, "build": 5.0})
    seen = pd.DataFrame({"run": "a", "seconds": [1.0, 2.5, 4.0], "energy": [0.5, 0.25, 0.0]})
    out = anytime.clocked(runs, seen)
    assert out["wall"].tolist() == [1.0, 2.5, 4.0]
    assert out["execute"].tolist() == [0.0, 0.5, 1.0]
    assert out["end to end"].tolist() == [6.0, 7.5, 9.0]
    assert out["gap"].tolist() == [0.5, 0.25, 0.0]


def test_a_change_of_ranking_is_flagged_and_only_there():
    """B converts for 10 s and executes for 1 s; A needs 5 s for the same. Whose clock decides."""
    runs = runs_of(
        {"key": "a", "solver": "A", "execute": 5.0},
        {"key": "b", "solver": "B", "execute": 1.0, "convert": 10.0},
    )
    seen = pd.DataFrame({"run": ["a", "b"], "seconds": [5.0, 11.0], "energy": [0.0, 0.0]})
    clocks = anytime.clocked(runs, seen)
    grid = [0.5, 2.0, 6.0, 12.0]
    curves = {a: anytime.median_curves(runs, clocks, grid, a) for a in anytime.ACCOUNTINGS}
    found = anytime.changes(curves)
    # At 2 s only B has an answer by its execution, nobody by the wall; at 6 s A leads by the wall.
    assert found.to_dict("records") == [
        {"accounting": "execute", "start": 6.0, "end": 6.0, "wall": "A", "instead": "A, B"}
    ]
    assert anytime.leaders(curves["wall"]) == [
        frozenset(), frozenset(), frozenset("A"), frozenset("AB")
    ]  # fmt: skip


def test_clocks_of_a_real_study(tmp_path):
    study = Study("s", [block(60)], ["greedy", "annealing", "descent"], [0.05], seeds=[0, 1])
    run(study, tmp_path / "s.sqlite", progress=False)
    with Store(tmp_path / "s.sqlite") as store:
        runs, seen = annotate(store.runs()), store.incumbents()
    out = anytime.clocked(runs, seen)
    assert (out["execute"] <= out["wall"] + 1e-12).all()
    assert (out["end to end"] >= out["wall"]).all()
    last = out.groupby("run")["gap"].min()
    pd.testing.assert_series_equal(
        last.sort_index(), runs.set_index("key")["gap"].sort_index(), check_names=False
    )
    summary = anytime.summary(runs, out, "native")
    assert set(summary.columns) >= {"accounting", "wall", "instead"}


times = st.lists(
    st.lists(st.one_of(st.floats(0.01, 100), st.just(math.inf)), min_size=3, max_size=3),
    min_size=1, max_size=8,
)  # fmt: skip


@settings(max_examples=60)
@given(times)
def test_performance_profile_by_counting(rows):
    costs = pd.DataFrame(rows, columns=["a", "b", "c"])
    ratios = [1.0, 1.5, 10.0, 1e9]
    profile = metrics.performance_profile(costs, ratios)
    for tau in ratios:
        for name in costs:
            # Dolan and More by their words: within tau of the best, failures never.
            good = [
                math.isfinite(row[name]) and row[name] / row.min() <= tau
                for _, row in costs.iterrows()
            ]
            assert profile.loc[tau, name] == pytest.approx(sum(good) / len(costs))


@settings(max_examples=60)
@given(st.lists(st.one_of(st.floats(0, 50), st.just(math.inf)), min_size=1, max_size=20))
def test_ecdf_by_pandas(values):
    grid = [0.0, 1.0, 7.5, 50.0, 1e6]
    series = pd.Series(values)
    expected = [(series <= at).mean() for at in grid]
    assert metrics.ecdf(values, grid) == pytest.approx(expected)


def test_bootstrap_by_pandas():
    values = pd.Series(np.random.default_rng(0).normal(3, 1, 40))
    low, high = bootstrap(values, np.mean, rng=np.random.default_rng(1), draws=4000)
    means = pd.Series([values.sample(40, replace=True, random_state=i).mean() for i in range(2000)])
    assert low == pytest.approx(means.quantile(0.025), abs=0.03)
    assert high == pytest.approx(means.quantile(0.975), abs=0.03)


def test_time_to_solution_at_the_ends():
    assert metrics.time_to_solution(0.0, 2.0) == math.inf
    assert metrics.time_to_solution(1.0, 2.0) == 2.0
    assert metrics.expected_running_time([1, 2], [False, False]) == math.inf
    assert metrics.expected_running_time([1, 2], [True, True]) == 1.5


def test_nothing_is_drawn_before_the_first_answer():
    """A solver without an answer must not look like one at the reference."""
    more = {"received_start": False, "tag": "exact", "execute": 5.0}
    runs = runs_of({"key": "a", "solver": "A"} | more, {"key": "b", "solver": "B"} | more)
    seen = pd.DataFrame(
        {"run": ["a", "a", "b"], "seconds": [1.0, 5.0, 0.1], "energy": [0.5, 0.0, 0.25]}
    )
    wall = plots_studies.anytime_curves(runs, seen).axes[1].lines
    x, y = (np.asarray(values, dtype=float) for values in wall[0].get_data())
    assert (x < 0.99).any()
    assert np.isnan(y[x < 0.99]).all()
    assert y[(x > 1.01) & (x < 4.9)] == pytest.approx(0.5)
    assert (y[x > 5.01] < 1e-6).all()
    assert np.asarray(wall[1].get_ydata(), dtype=float) == pytest.approx(0.25)
