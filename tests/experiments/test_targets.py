"""Times to targets of a real store against plain pandas on the same rows."""

import math

import numpy as np
import pandas as pd
import pytest

from experiments import Store, Study, run
from experiments.figures import targets as plots_targets
from experiments.metrics import formulas as metrics
from experiments.metrics import targets
from experiments.metrics.references import annotate
from tests.study_fixtures import Raising, block, spec

SOLVERS = ["greedy", "descent", "annealing", "random", spec(Raising)]


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    path = tmp_path_factory.mktemp("targets") / "s.sqlite"
    blocks = [block(n, seed=s, curvature=3.0) for n in (14, 40) for s in (0, 1)]
    run(Study("s", blocks, SOLVERS, [0.02, 0.05], seeds=[0, 1]), path, progress=False)
    with Store(path) as store:
        return annotate(store.runs()), store.incumbents()


def by_pandas(runs, incumbents, target):
    """Seconds to the target of each run of the larger limit, inf where it was not reached."""
    last = runs[runs["time_limit"] == 0.05].set_index("key")
    seen = incumbents[incumbents["run"].isin(last.index)].copy()
    of = last.loc[seen["run"]].reset_index(drop=True)
    seen = seen.reset_index(drop=True)
    gap = (seen["energy"] - of["reference"]) / (of["baseline_energy"] - of["reference"])
    met = (gap <= target) | (seen["energy"] <= of["reference"] + of["tolerance"])
    return last.assign(first=seen[met].groupby("run")["seconds"].min()).fillna({"first": math.inf})


@pytest.mark.parametrize("target", targets.TARGETS)
def test_times_and_ecdf(records, target):
    reached = targets.times(*records, [target]).set_index("key")
    expected = by_pandas(*records, target)
    assert set(reached.index) == set(expected.index)
    assert reached["seconds"].to_dict() == expected["first"].to_dict()
    for solver, part in expected.groupby("solver"):
        own = reached.loc[reached["solver"] == solver, "seconds"]
        for at in (1e-4, 1e-3, 1e-2, 1.0):
            assert metrics.ecdf(own, [at])[0] == (part["first"] <= at).mean()
    assert np.isinf(reached.loc[reached["solver"] == "raising", "seconds"]).all()


@pytest.mark.parametrize("target", plots_targets.PROFILED)
def test_profile(records, target):
    expected = by_pandas(*records, target)
    spent = expected["first"].where(np.isfinite(expected["first"]), expected["wall"])
    rows = expected.assign(spent=spent.fillna(0.0), won=np.isfinite(expected["first"]))
    sums = rows.pivot_table(
        index="instance", columns="solver", values=["spent", "won"], aggfunc="sum"
    )
    ert = sums["spent"] / sums["won"].astype(float).where(sums["won"] > 0)
    ratio = ert.div(ert.min(axis=1), axis=0)
    profile = targets.profile(targets.times(*records), target, [1.0, 3.0, 1e9])
    for tau in profile.index:
        shares = (ratio <= tau * (1 + 1e-12)).mean()
        pd.testing.assert_series_equal(
            profile.loc[tau].sort_index(), shares.sort_index(), check_names=False
        )


def reads_of(hits, reads, info=None):
    base = {"status": "done", "flat": False, "time_limit": math.nan, "fisher": None, "n": 4,
            "solver": "s", "track": "native", "instance": "i", "hit": True, "wall": 2.0,
            "info": info}  # fmt: skip
    pairs = zip(hits, reads, strict=True)
    return pd.DataFrame([base | {"best_reads": h, "reads": r, "hit": h > 0} for h, r in pairs])


def test_time_to_solution_by_hand():
    never = targets.solutions(reads_of([0, 0], [10, 10]), draws=20).iloc[0]
    assert (never["tts"], never["low"], never["high"]) == (math.inf,) * 3
    always = targets.solutions(reads_of([10, 10], [10, 10]), draws=20).iloc[0]
    assert (always["tts"], always["low"], always["high"]) == (0.2,) * 3
    half = targets.solutions(reads_of([4, 6], [10, 10]), draws=20).iloc[0]
    assert half["tts"] == pytest.approx(0.2 * math.log(0.01) / math.log(0.5))
    # Of 1000 reads made only 10 were kept: a read took 2 ms.
    kept = targets.solutions(reads_of([5], [10], '{"reads": 1000}'), draws=20).iloc[0]
    assert kept["tts"] == pytest.approx(0.002 * math.log(0.01) / math.log(0.5))


def test_resampling_is_over_instances_and_runs_within_them():
    """Two instances of one run each: the median of a pair drawn from {1, 3} is 1 in a quarter."""
    counts = [np.array([[1.0, 1.0]]), np.array([[3.0, 1.0]])]
    assert targets._median_over(counts, targets._expected, 0, 1000) == (3.0, 1.0, 3.0)
    runs = [np.array([[1.0, 1.0], [1.0, 0.0]])]
    middle, low, high = targets._median_over(runs, targets._expected, 0, 1000)
    assert (middle, low, high) == (2.0, 1.0, math.inf)


def test_summary_and_figures(records):
    table = targets.summary(*records).set_index(["n", "solver"])
    solved = table.drop(index="raising", level="solver")
    assert (solved["gap_low"] <= solved["gap"]).all()
    assert (solved["gap"] <= solved["gap_high"]).all()
    assert (table.xs("raising", level="solver")["failed"] == 4).all()
    assert (table["ert_0"] >= table["ert_0.1"]).all()
    for time in ("tts", "ert_0.01", "ert_0"):
        own = table.dropna(subset=[time])
        assert (own[f"{time}_low"] <= own[time]).all()
        assert (own[time] <= own[f"{time}_high"]).all()
    expected = targets.running_times(targets.times(*records))
    here = expected.groupby(["n", "solver", "target"])["ert"].quantile(0.5, interpolation="higher")
    for (n, solver, target), ert in here.items():
        assert table.loc[(n, solver), f"ert_{target:g}"] == pytest.approx(ert)
    for figure in (plots_targets.ecdf(*records), plots_targets.profile(*records),
                   plots_targets.time_to_solution(records[0])):  # fmt: skip
        figure.draw_without_rendering()
