"""How sure a number is: percentile intervals of a bootstrap, and those of every rank."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

DRAWS = 500
CONFIDENCE = 0.95
# Medians this close tie, as in `metrics.ranks`.
TIE = 1e-9


def percentile_interval(
    drawn: ArrayLike,
    confidence: float = CONFIDENCE,
    *,
    method: Literal["nearest", "linear"] = "nearest",
) -> tuple[float, float]:
    """Both ends of the percentile interval of a bootstrap (Efron 1979).

    Args:
        drawn: a statistic of every resample, shape (draws,); NaN where a resample has none.
        confidence: of the two-sided interval.
        method: ``nearest`` takes values that were drawn, and so never computes inf - inf.

    Returns:
        Low and high; NaN where no resample has a value.
    """
    values = np.asarray(drawn, dtype=np.float64)
    known = values[~np.isnan(values)]
    if len(known) == 0:
        return math.nan, math.nan
    tail = (1 - confidence) / 2
    low, high = np.quantile(known, [tail, 1 - tail], method=method)
    return float(low), float(high)


def bootstrap(
    values: ArrayLike,
    statistic: Callable[[NDArray[np.float64]], float],
    *,
    rng: np.random.Generator,
    draws: int = 1000,
    confidence: float = CONFIDENCE,
) -> tuple[float, float]:
    """Percentile interval of a statistic under resampling with replacement.

    Args:
        values: the sample, resampled along its first axis.
        statistic: of one resample; may be inf, in which case an end of the interval may be too.
        rng: the only source of randomness.
        draws: resamples.
        confidence: of the two-sided interval.
    """
    sample = np.asarray(values, dtype=np.float64)
    if len(sample) == 0:
        return math.nan, math.nan
    found = [statistic(sample[rng.integers(len(sample), size=len(sample))]) for _ in range(draws)]
    return percentile_interval(found, confidence)


def with_intervals(table: pd.DataFrame, contenders: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """The table of ranks with percentile intervals of gap and rank (Efron 1979).

    Two levels: instances are drawn with replacement, the same ones for all solvers of a group, and
    within each the seeds of each solver. With a single instance only the seeds are left to draw,
    and the interval says nothing about other instances.

    Args:
        table: of `ranking.rank_table`.
        contenders: the runs it was made from; inf where nothing feasible was found.
        seed: of the draws; the same rows give the same intervals.

    Returns:
        The table with gap_low, gap_high, rank_low and rank_high; ranks of late solvers stay empty.
    """
    out = table.assign(gap_low=np.nan, gap_high=np.nan, rank_low=np.nan, rank_high=np.nan)
    groups = dict(tuple(contenders.groupby(["fisher", "n"])))
    for key, rows in out.groupby(["fisher", "n"]):
        rng = np.random.default_rng(seed)
        runs = groups[key]
        instances = sorted(runs["instance"].unique())
        picked = rng.integers(len(instances), size=(DRAWS, len(instances)))
        medians = np.column_stack([
            _medians(runs[runs["solver"] == solver], instances, picked, rng)
            for solver in rows["solver"]
        ])  # fmt: skip
        out.loc[rows.index, ["gap_low", "gap_high"]] = _ends(medians)
        for _, rivals in rows[~rows["late"]].groupby("track"):
            own = medians[:, rows.index.get_indexer(rivals.index)]
            lower = own[:, None, :] < own[:, :, None] - TIE
            out.loc[rivals.index, ["rank_low", "rank_high"]] = _ends(1.0 + lower.sum(axis=2))
    return out


def _medians(
    runs: pd.DataFrame, instances: list[str], picked: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Median gap of one solver in every draw, shape (draws,)."""
    by_instance = runs.groupby("instance")["gap"]
    counts = by_instance.size().reindex(instances, fill_value=0).to_numpy()
    gaps = np.full((len(instances), max(1, counts.max())), np.nan)
    for position, instance in enumerate(instances):
        if counts[position]:
            gaps[position, : counts[position]] = by_instance.get_group(instance)
    width = gaps.shape[1]
    own = counts[picked][:, :, None]
    seeds = (rng.random((*picked.shape, width)) * own).astype(np.int64)
    drawn = gaps[picked[:, :, None], seeds]
    drawn[np.arange(width) >= own] = np.nan
    flat = np.sort(drawn.reshape(len(picked), -1), axis=1)
    # NaN sorts to the end; a solver that was not run on any instance drawn has no median.
    known = (~np.isnan(flat)).sum(axis=1)
    middle = np.maximum(known - 1, 0)
    rows = np.arange(len(flat))
    low, high = flat[rows, middle // 2], flat[rows, (middle + 1) // 2]
    # Not (low + high) / 2 where both are inf or equal.
    half = np.where(np.isfinite(high), (low + high) / 2, high)
    return np.where(known > 0, half, np.nan)


def _ends(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Both ends of the interval of each column, shape (columns, 2)."""
    return np.array([percentile_interval(drawn) for drawn in values.T])
