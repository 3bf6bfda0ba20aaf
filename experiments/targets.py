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

from experiments import anytime, metrics
from experiments.references import SCORED

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
        Columns key, solver, lane, instance, n, fisher, target, seconds (inf: never reached) and
        spent (the seconds to the target or else of the whole call; NaN where nothing was run).
    """
    part = anytime.longest(runs)
    known = anytime.clocked(part, incumbents)
    curves = {key: (one["wall"], one["gap"]) for key, one in known.groupby("run")}
    columns = ["key", "solver", "lane", "instance", "n", "fisher", "wall"]
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
        Columns solver, lane, instance, n, fisher, target, ert (seconds; inf where no run got
        there).
    """
    keys = ["solver", "lane", "instance", "n", "fisher", "target"]
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
        Columns fisher, n, solver, lane, instances, runs, success (mean p), tts, low, high;
        seconds, inf where the median instance was never solved.
    """
    scored = anytime.longest(runs)
    scored = scored[scored["status"].isin(SCORED)].assign(fisher=lambda f: f["fisher"].fillna(""))
    rows = []
    for key, part in scored.groupby(["fisher", "n", "solver", "lane"]):
        counts = [_counts(one) for _, one in part.groupby("instance")]
        rng = np.random.default_rng(seed)
        drawn = [_median(_resampled(counts, rng)) for _ in range(draws)]
        # "nearest" does not interpolate, and so never computes inf - inf.
        low, high = np.quantile(drawn, [0.025, 0.975], method="nearest")
        success = float(np.mean([c[:, 0].sum() / c[:, 1].sum() for c in counts]))
        rows.append((*key, len(counts), len(part), success, _median(counts), low, high))
    names = ["fisher", "n", "solver", "lane", "instances", "runs", "success", "tts", "low", "high"]
    return pd.DataFrame(rows, columns=names)


def _counts(runs: pd.DataFrame) -> Any:
    """Of each run: hits, reads that were kept, reads that were made, seconds."""
    hits = runs["best_reads"].where(runs["hit"], 0)
    made = [_made(text, reads) for text, reads in zip(runs["info"], runs["reads"], strict=True)]
    return np.column_stack([hits, runs["reads"], made, runs["wall"]]).astype(np.float64)


def _made(info: Any, reads: float) -> float:
    """A solver under a time limit keeps some of its reads and says how many it made."""
    said = json.loads(info).get("reads") if isinstance(info, str) else None
    return float(said) if isinstance(said, int | float) and said >= reads else float(reads)


def _resampled(counts: Sequence[Any], rng: np.random.Generator) -> list[Any]:
    chosen = [counts[i] for i in rng.integers(len(counts), size=len(counts))]
    return [one[rng.integers(len(one), size=len(one))] for one in chosen]


def _median(counts: Sequence[Any]) -> float:
    found = []
    for one in counts:
        hits, kept, made, seconds = one.sum(axis=0)
        found.append(metrics.time_to_solution(min(1.0, hits / kept), seconds / made))
    return float(np.quantile(found, 0.5, method="higher"))


def summary(runs: pd.DataFrame, incumbents: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """One row a Fisher, n and solver at its largest time limit, with 95 % bootstrap intervals.

    Returns:
        Columns fisher, n, solver, lane, instances, runs, failed, gap (median, low, high), hit
        (share of runs at the reference, low, high), wall (median), success and tts (see
        `solutions`), and ``ert_TARGET``, the median over instances for each of `TARGETS`.
    """
    part = anytime.longest(runs).assign(fisher=lambda f: f["fisher"].fillna(""))
    tries = part[part["status"] != "skipped"]
    expected = running_times(times(runs, incumbents))
    keys = ["fisher", "n", "solver"]
    rows = []
    for key, one in tries.groupby(keys):
        scored = one[one["status"].isin(SCORED)]
        row: dict[str, Any] = dict(zip(keys, key, strict=True))
        row |= {"lane": one["lane"].iloc[0], "instances": one["instance"].nunique(),
                "runs": len(one), "failed": len(one) - len(scored),
                "wall": scored["wall"].median()}  # fmt: skip
        # No feasible answer is worse than any gap.
        row |= _interval("gap", scored["gap"].fillna(np.inf), _higher_median, seed)
        row |= _interval("hit", scored["hit"].astype(float), _mean, seed)
        here = expected[(expected[keys] == list(key)).all(axis=1)]
        for target, times_to in here.groupby("target")["ert"]:
            row[f"ert_{target:g}"] = _higher_median(times_to.to_numpy())
        rows.append(row)
    table = pd.DataFrame(rows)
    found = solutions(runs, seed=seed)[[*keys, "success", "tts", "low", "high"]]
    found = found.rename(columns={"low": "tts_low", "high": "tts_high"})
    return table.merge(found, on=keys, how="left") if len(table) else table


def _interval(
    name: str, values: pd.Series, statistic: Callable[[Any], float], seed: int
) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    low, high = metrics.bootstrap(values, statistic, rng=rng, draws=DRAWS)
    middle = statistic(values.to_numpy()) if len(values) else math.nan
    return {name: middle, f"{name}_low": low, f"{name}_high": high}


def _mean(values: Any) -> float:
    return float(np.mean(values))


def _higher_median(values: Any) -> float:
    """A median that is one of the values, so that inf needs no arithmetic."""
    return float(np.quantile(np.asarray(values, dtype=np.float64), 0.5, method="higher"))
