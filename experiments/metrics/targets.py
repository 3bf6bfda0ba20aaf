"""Times to targets: what the runs of a study say beyond their final gaps.

A target is a gap to the reference. A run reaches it when its first improvement at or below it
appears, by the runner's clock from the start of its call; a run that never does, failed or was
skipped as too large counts as unsolved, so that a solver which stays away from the hard instances
gains nothing by it. Of each solver and instance only the runs of the largest time limit count, and
flat instances not at all.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from experiments.metrics import anytime
from experiments.metrics import formulas as metrics
from experiments.metrics.intervals import bootstrap, percentile_interval
from experiments.metrics.references import SCORED

TARGETS = (0.1, 0.01, 1e-3, 1e-4, 0.0)
"""Gaps; 0 is the reference up to round-off."""
DRAWS = 1000


def times(
    runs: pd.DataFrame, incumbents: pd.DataFrame, targets: Sequence[float] = TARGETS
) -> pd.DataFrame:
    """One row a run and target.

    Args:
        runs: of a store, annotated.
        incumbents: of the same store.
        targets: gaps.

    Returns:
        Columns key, solver, track, instance, n, fisher, target, seconds (inf: never reached) and
        spent (the seconds to the target or else of the whole call; NaN where nothing was run).
    """
    part = anytime.longest(runs)
    known = anytime.clocked(part, incumbents)
    curves = {key: (one["wall"], one["gap"]) for key, one in known.groupby("run")}
    columns = ["key", "solver", "track", "instance", "n", "fisher", "wall"]
    tables = []
    for target in targets:
        table = part[columns].assign(fisher=part["fisher"].fillna(""), target=target)
        table["seconds"] = [
            metrics.time_to_target(*curves[key], target) if key in curves else math.inf
            for key in part["key"]
        ]
        table["spent"] = table["seconds"].where(np.isfinite(table["seconds"]), table["wall"])
        tables.append(table.drop(columns="wall"))
    return pd.concat(tables, ignore_index=True)


def running_times(reached: pd.DataFrame) -> pd.DataFrame:
    """`metrics.expected_running_time` over the runs of each solver, instance and target.

    Args:
        reached: as `times` gives it.

    Returns:
        Columns solver, track, instance, n, fisher, target, ert (seconds; inf where no run got
        there).
    """
    keys = ["solver", "track", "instance", "n", "fisher", "target"]
    rows = [
        (*key, metrics.expected_running_time(one["spent"].fillna(0.0), np.isfinite(one["seconds"])))
        for key, one in reached.groupby(keys, dropna=False)
    ]
    return pd.DataFrame(rows, columns=[*keys, "ert"])


def profile(reached: pd.DataFrame, target: float, ratios: Sequence[float]) -> pd.DataFrame:
    """`metrics.performance_profile` of the running times to one target, an instance a problem."""
    found = running_times(reached[reached["target"] == target])
    costs = found.pivot_table(index="instance", columns="solver", values="ert", dropna=False)
    return metrics.performance_profile(costs, ratios)


def solutions(runs: pd.DataFrame, *, seed: int = 0, draws: int = DRAWS) -> pd.DataFrame:
    """Time to solution at 99 % of each Fisher, n and solver: the median over instances.

    On an instance p is the share of reads at the reference over all runs, and t the wall time of
    all runs over all reads made; a solver without restarts makes one read a run. The interval
    (95 %, bootstrap) draws instances, and of each its runs, with replacement.

    Returns:
        Columns fisher, n, solver, track, instances, runs, success (mean p), tts, low, high;
        seconds, inf where the median instance was never solved.
    """
    scored = anytime.longest(runs)
    scored = scored[scored["status"].isin(SCORED)].assign(fisher=lambda f: f["fisher"].fillna(""))
    rows = []
    for key, part in scored.groupby(["fisher", "n", "solver", "track"]):
        counts = [_counts(one) for _, one in part.groupby("instance")]
        success = float(np.mean([c[:, 0].sum() / c[:, 1].sum() for c in counts]))
        rows.append((*key, len(counts), len(part), success,
                     *_median_over(counts, _time_to_solution, seed, draws)))  # fmt: skip
    names = ["fisher", "n", "solver", "track", "instances", "runs", "success", "tts", "low", "high"]
    return pd.DataFrame(rows, columns=names)


def _counts(runs: pd.DataFrame) -> Any:
    """Of each run: hits, reads that were kept, reads that were made, seconds.

    A run that was killed is one read that missed: it gave none, and took its time.
    """
    hits = runs["best_reads"].where(runs["hit"], 0)
    kept = runs["reads"].fillna(1)
    made = [_made(text, reads) for text, reads in zip(runs["info"], kept, strict=True)]
    wall = runs["wall"].fillna(runs["time_limit"])
    return np.column_stack([hits, kept, made, wall]).astype(np.float64)


def _made(info: Any, reads: float) -> float:
    """A solver under a time limit keeps some of its reads and says how many it made."""
    said = json.loads(info).get("reads") if isinstance(info, str) else None
    return float(said) if isinstance(said, int | float) and said >= reads else float(reads)


def _time_to_solution(sums: Any) -> Any:
    hits, kept, made, seconds = np.moveaxis(sums, -1, 0)
    return np.vectorize(metrics.time_to_solution)(np.minimum(1.0, hits / kept), seconds / made)


def _expected(sums: Any) -> Any:
    """`metrics.expected_running_time` of sums: seconds spent, runs that got there."""
    spent, reached = np.moveaxis(sums, -1, 0)
    return np.where(reached > 0, spent / np.maximum(reached, 1.0), np.inf)


def _median_over(
    counts: Sequence[Any], statistic: Callable[[Any], Any], seed: int, draws: int
) -> tuple[float, float, float]:
    """A statistic's median over instances, with its 95 % bootstrap interval.

    Each draw takes as many instances as there are, and of each as many of its runs, with
    replacement.

    Args:
        counts: of each instance what its runs count, shape (runs, columns).
        statistic: from sums over runs, shape (..., columns), to numbers of shape (...).
        seed: of the draws.
        draws: how many.
    """
    rng = np.random.default_rng(seed)
    chosen = rng.integers(len(counts), size=(draws, len(counts)))
    sums = np.empty((*chosen.shape, counts[0].shape[1]))
    for place, one in enumerate(counts):
        here = chosen == place
        sums[here] = one[rng.integers(len(one), size=(here.sum(), len(one)))].sum(axis=1)
    middle = _higher_median(statistic(np.array([one.sum(axis=0) for one in counts])))
    drawn = np.quantile(statistic(sums), 0.5, axis=1, method="higher")
    return middle, *percentile_interval(drawn)


def summary(runs: pd.DataFrame, incumbents: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """One row a Fisher, n and solver at its largest time limit, with 95 % bootstrap intervals.

    Returns:
        Columns fisher, n, solver, track, instances, runs, failed, gap (median, low, high), hit
        (share of runs at the reference, low, high), wall (median), success and tts (see
        `solutions`), and ``ert_TARGET`` (median over instances, low, high) for each of `TARGETS`.
    """
    part = anytime.longest(runs).assign(fisher=lambda f: f["fisher"].fillna(""))
    tries = part[part["status"] != "skipped"]
    reached = times(runs, incumbents)
    keys = ["fisher", "n", "solver"]
    searches = dict(iter(reached.groupby([*keys, "target"])))
    rows = []
    for key, one in tries.groupby(keys):
        scored = one[one["status"].isin(SCORED)]
        row: dict[str, Any] = dict(zip(keys, key, strict=True))
        row |= {"track": one["track"].iloc[0], "instances": one["instance"].nunique(),
                "runs": len(one), "failed": len(one) - len(scored),
                "wall": scored["wall"].median()}  # fmt: skip
        # No feasible answer is worse than any gap.
        row |= _interval("gap", scored["gap"].fillna(np.inf), _higher_median, seed)
        row |= _interval("hit", scored["hit"].astype(float), _mean, seed)
        for target in TARGETS:
            group = searches[(*key, target)]
            spent = group["spent"].fillna(0.0)
            group = group.assign(spent=spent, won=np.isfinite(group["seconds"]).astype(float))
            counts = [part[["spent", "won"]].to_numpy() for _, part in group.groupby("instance")]
            found = _median_over(counts, _expected, seed, DRAWS)
            row |= dict(zip((f"ert_{target:g}", f"ert_{target:g}_low", f"ert_{target:g}_high"),
                            found, strict=True))  # fmt: skip
        rows.append(row)
    table = pd.DataFrame(rows)
    solved = solutions(runs, seed=seed)[[*keys, "success", "tts", "low", "high"]]
    solved = solved.rename(columns={"low": "tts_low", "high": "tts_high"})
    return table.merge(solved, on=keys, how="left") if len(table) else table


def _interval(
    name: str, values: pd.Series, statistic: Callable[[Any], float], seed: int
) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    low, high = bootstrap(values, statistic, rng=rng, draws=DRAWS)
    middle = statistic(values.to_numpy()) if len(values) else math.nan
    return {name: middle, f"{name}_low": low, f"{name}_high": high}


def _mean(values: Any) -> float:
    return float(np.mean(values))


def _higher_median(values: Any) -> float:
    """A median that is one of the values, so that inf needs no arithmetic."""
    return float(np.quantile(np.asarray(values, dtype=np.float64), 0.5, method="higher"))
