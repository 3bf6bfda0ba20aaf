"""Intervals of a ranking, against cases worked out by hand and against plain loops."""

import math

import numpy as np
import pandas as pd
import pytest

from experiments.metrics.intervals import DRAWS, with_intervals
from experiments.metrics.ranking import rank_table

INF = math.inf


def frame(gaps):
    """Runs of one group from solver -> instance -> gaps of its seeds."""
    rows = [
        {"solver": solver, "instance": instance, "gap": gap, "n": 8, "fisher": "sequence",
         "track": "native", "status": "done", "flat": False, "time_limit": 1.0, "wall": 0.5,
         "tag": "exact", "pending": 0}
        for solver, by in gaps.items() for instance, values in by.items() for gap in values
    ]  # fmt: skip
    return pd.DataFrame(rows)


def intervals(gaps):
    runs = frame(gaps)
    return with_intervals(rank_table(runs), runs).set_index("solver")


def test_no_spread_no_interval():
    table = intervals({"a": {"x": [0.1] * 3, "y": [0.1] * 3}, "b": {"x": [0.2], "y": [0.2]}})
    assert table.loc["a", ["gap_low", "gap_high", "rank_low", "rank_high"]].tolist() == [
        0.1, 0.1, 1, 1,
    ]  # fmt: skip
    assert table.loc["b", ["rank_low", "rank_high"]].tolist() == [2, 2]


def test_solvers_that_win_on_different_instances_share_the_ranks():
    gaps = {"a": {str(i): [i % 2] for i in range(8)}, "b": {str(i): [1 - i % 2] for i in range(8)}}
    table = intervals(gaps)
    assert table[["rank_low", "rank_high"]].to_numpy().tolist() == [[1, 2], [1, 2]]


def test_instances_are_drawn_for_all_solvers_together():
    """b is always 0.01 behind a, on instances that differ by much more."""
    hard = {str(i): i / 3 for i in range(9)}
    table = intervals({"a": {i: [g] for i, g in hard.items()},
                       "b": {i: [g + 0.01] for i, g in hard.items()}})  # fmt: skip
    assert table["rank_low"].tolist() == table["rank_high"].tolist() == [1, 2]
    assert table.loc["a", "gap_high"] - table.loc["a", "gap_low"] > 0.5


def test_nothing_found_is_worse_than_any_gap():
    table = intervals({"a": {"x": [INF], "y": [INF]}, "b": {"x": [0.5], "y": [INF]}})
    assert table.loc["a", "gap_low"] == INF
    assert table.loc["b", "gap_low"] == 0.5
    assert table.loc["b", "rank_high"] == 1


def test_a_solver_without_every_instance():
    table = intervals({"a": {"x": [0.1], "y": [0.3]}, "b": {"x": [0.2]}})
    assert table.loc["b", ["gap_low", "gap_high"]].tolist() == [0.2, 0.2]


def test_late_solvers_have_no_rank():
    runs = frame({"a": {"x": [0.1]}, "b": {"x": [0.0]}})
    runs.loc[runs["solver"] == "b", "status"] = "timeout"
    table = with_intervals(rank_table(runs), runs).set_index("solver")
    assert np.isnan(table.loc["b", "rank_low"])
    assert table.loc["a", "rank_high"] == 1


def test_against_plain_loops():
    """Independent: both levels drawn one at a time with Python's own sorting."""
    rng = np.random.default_rng(3)
    gaps = {i: list(rng.exponential(1, size=4)) for i in "pqrst"}
    found = []
    for _ in range(4000):
        drawn = []
        for instance in rng.choice(list(gaps), size=5):
            drawn += list(rng.choice(gaps[instance], size=4))
        drawn = sorted(drawn)
        found.append((drawn[9] + drawn[10]) / 2)
    low, high = np.quantile(found, [0.025, 0.975])
    row = intervals({"a": gaps}).iloc[0]
    assert DRAWS >= 500
    assert row["gap_low"] == pytest.approx(low, abs=0.12)
    assert row["gap_high"] == pytest.approx(high, abs=0.25)
    again = intervals({"a": gaps}).iloc[0]
    assert again["gap_low"] == row["gap_low"]
