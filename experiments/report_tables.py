"""The tables of the page, row by row, and how numbers are written in them."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

import pandas as pd

from experiments.ledger import STAGES
from experiments.ranking import duration, percent
from experiments.references import SCORED

# What is shown, and what it is sorted by.
Cell = str | tuple[str, float]


def ranking(table: pd.DataFrame) -> list[list[Cell]]:
    """Every rank with its interval, the largest n first."""
    order = ["n", "fisher", "lane", "rank", "wall"]
    sorted_rows = table.sort_values(order, ascending=[False, True, True, True, True])
    return [
        [
            str(row["fisher"]), str(row["n"]), str(row["lane"]),
            "late" if row["late"] else f"{row['rank']:.0f}",
            "–" if math.isnan(row["rank_low"])
            else f"{row['rank_low']:.0f} to {row['rank_high']:.0f}",
            str(row["solver"]), (percent(row["gap"]), row["gap"]),
            (f"{percent(row['gap_low'])} to {percent(row['gap_high'])}", row["gap_high"]),
            (duration(row["wall"]), row["wall"]), str(row["instances"]),
        ]
        for row in sorted_rows.to_dict("records")
    ]  # fmt: skip


def times(table: pd.DataFrame) -> list[list[Cell]]:
    """Time to solution and expected running times with their intervals, the largest n first.

    Args:
        table: of `targets.summary`.
    """
    sorted_rows = table.sort_values(["n", "fisher", "lane", "tts"],
                                    ascending=[False, True, True, True])  # fmt: skip
    return [
        [
            str(row["fisher"]), str(row["n"]), str(row["lane"]), str(row["solver"]),
            f"{row['runs']:.0f}" + (f", {row['failed']:.0f} failed" if row["failed"] else ""),
            (f"{100 * row['hit']:.0f} %", row["hit"]),
            f"{100 * row['hit_low']:.0f} to {100 * row['hit_high']:.0f} %",
            *_with_interval(row, "tts"), *_with_interval(row, "ert_0.01"),
            *_with_interval(row, "ert_0"),
        ]
        for row in sorted_rows.to_dict("records")
    ]  # fmt: skip


def _with_interval(row: dict[Any, Any], name: str) -> list[Cell]:
    """A time and its interval; what no run reached is censored, not long."""
    middle, low, high = (float(row[key]) for key in (name, f"{name}_low", f"{name}_high"))
    return [(_time(middle), middle), (f"{_time(low)} to {_time(high)}", high)]


def _time(seconds: float) -> str:
    if math.isnan(seconds):
        return "–"
    return "never" if math.isinf(seconds) else duration(seconds)


def how_hard(instances: pd.DataFrame) -> str:
    """How hard the instances are, in words."""
    certified = int((instances["bound_gap"] <= 0).sum())
    share = instances["curvature_share"].dropna()
    text = f"The relaxation alone certifies the optimum of {certified} of {len(instances)}"
    open_gap = instances["bound_gap"].max()
    if certified < len(instances) and pd.notna(open_gap):
        text += f", and leaves at most {percent(float(open_gap))} of the gain open on the rest"
    if len(share):
        text += (
            f". Curvature is {percent(float(share.median()))} of the gain in the median "
            f"({percent(float(share.min()))} to {percent(float(share.max()))})"
        )
    return f"{text}."


def hardness(instances: pd.DataFrame) -> list[list[str]]:
    """The descriptors of every instance."""
    out = []
    for _, row in instances.iterrows():
        out.append([
            str(row["name"]), str(row["n"]), str(row["k"]), str(row["rank"]),
            _blank(row["fisher"]), number(row["curvature_share"]), number(row["effective_rank"]),
            number(row["bound_gap"]), number(row["core_size"]), number(row["coefficient_range"]),
            number(1e3 * row["bound_seconds"]),
        ])  # fmt: skip
    return out


def largest_stages(runs: pd.DataFrame) -> str:
    """Which stage takes most of each solver's time, in words; empty where no run has stages."""
    scored = runs[runs["status"].isin(SCORED)]
    # A run that was killed has none.
    means = scored.dropna(subset=list(STAGES), how="all").groupby("solver")[list(STAGES)].mean()
    if means.empty:
        return ""
    most = means.idxmax(axis=1)
    parts = [f"{stage} for {', '.join(sorted(most.index[most == stage]))}"
             for stage in STAGES if (most == stage).any()]  # fmt: skip
    return f"The longest stage is {'; '.join(parts)}."


def ledger(runs: pd.DataFrame) -> list[list[str]]:
    """Mean milliseconds of every stage, by solver and n."""
    scored = runs[runs["status"].isin(SCORED)].dropna(subset=list(STAGES), how="all")
    mean = scored.groupby(["solver", "n"])[["wall", "cpu", *STAGES]].mean()
    return [
        [str(solver), str(n), *(number(1e3 * value) for value in row)]
        for (solver, n), row in zip(mean.index, mean.to_numpy(), strict=True)
    ]


def failures(runs: pd.DataFrame) -> list[list[str]]:
    """Status, solver and reason of every run that is no plain success, counted."""
    bad = runs[(runs["status"] != "done") | (runs["reason"] != "")]
    reason = bad["reason"].where(bad["status"] != "timeout", "came back later than twice its limit")
    counts = Counter(zip(bad["status"], bad["solver"], reason, strict=True))
    return [[*map(str, key), str(count)] for key, count in sorted(counts.items())]


def groups(runs: pd.DataFrame) -> list[list[str]]:
    """Medians of every group of n, Fisher, solver and budget."""
    scored = runs[runs["status"].isin(SCORED)].assign(fisher=runs["fisher"].fillna(""))
    out = []
    keys = ["n", "fisher", "solver", "lane", "budget"]
    for (n, fisher, solver, lane, limits), part in scored.groupby(keys):
        out.append([
            str(n), str(fisher), str(solver), str(lane), budget(str(limits)), str(len(part)),
            number(part["gap"].median()),
            f"{number(part['gap'].quantile(0.25))} to {number(part['gap'].quantile(0.75))}",
            number(part["certified_gap"].median()), number(part["approximation_ratio"].median()),
            number(part["hit"].mean()), number(part["raw_feasible"].mean()),
            number(part["wall"].median()),
        ])  # fmt: skip
    return out


def rows(runs: pd.DataFrame) -> list[list[Any]]:
    """The rows for the script: instance, n, Fisher, solver, lane, limit, seed, status, ..."""
    names = ["instance_name", "n", "fisher", "solver", "lane", "time_limit", "seed_index",
             "status", "tag", "energy", "gap", "certified_gap", "wall", "cpu", "raw_feasible",
             "reason"]  # fmt: skip
    return [[_json(value) for value in row] for row in runs[names].itertuples(index=False)]


def plain(frame: pd.DataFrame) -> dict[str, Any]:
    """Any data frame as the page shows it."""
    return {
        "columns": [str(name) for name in frame.columns],
        "rows": [
            [number(v) if isinstance(v, float) else str(v) for v in row]
            for row in frame.itertuples(index=False)
        ],
    }


def _json(value: Any) -> Any:
    """A value that JSON has: numbers to five digits, NaN and infinity as None."""
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    if value is None or value is pd.NA:
        return None
    return int(value) if hasattr(value, "__index__") else str(value)


def number(value: Any) -> str:
    """A number for a table: three digits; a dash for none."""
    if value is None or pd.isna(value):
        return "–"
    if math.isinf(value):
        return "∞"
    return f"{value:.3g}"


def _blank(value: Any) -> str:
    return "" if pd.isna(value) else str(value)


def budget(text: str) -> str:
    """A stored budget for people: ``100 ms``, ``100 reads``, ``1.0 s and 10 reads``."""
    limits = json.loads(text)
    seconds = limits.pop("time_limit", None)
    parts = [] if seconds is None else [duration(seconds)]
    return " and ".join([*parts, *(f"{value} {name}" for name, value in limits.items())])
