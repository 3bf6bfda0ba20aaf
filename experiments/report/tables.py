"""The tables of the page, row by row, and how numbers are written in them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from experiments.figures import palette
from experiments.metrics import paidruns
from experiments.metrics.glossary import curvature, tag
from experiments.metrics.ranking import duration, percent, solver_order
from experiments.metrics.references import SCORED
from experiments.record.ledger import STAGES
from experiments.report.completeness import Plan

# What is shown, and what it is sorted by.
Cell = str | tuple[str, float]


class Order:
    """The order of all tables: size, curvature, track, then solvers by their mean rank.

    Args:
        table: of `ranking.rank_table`.
        runs: of the store, for solvers that are not ranked.
    """

    def __init__(self, table: pd.DataFrame, runs: pd.DataFrame) -> None:
        self._solvers = {name: i for i, name in enumerate(solver_order(table, runs["solver"]))}
        self._curvatures = {name: i for i, name in enumerate(palette.fishers(runs))}

    def sorted(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Rows with any of the columns n, fisher, solver, in this order; ties stay as they are."""
        known = [name for name in ("n", "fisher", "solver") if name in frame]
        return frame.sort_values(known, key=self._place, kind="stable")

    def _place(self, column: pd.Series) -> pd.Series:
        if column.name == "solver":
            return column.map(self._solvers)
        return column.fillna("").map(self._curvatures) if column.name == "fisher" else column


def ranking(table: pd.DataFrame, order: Order) -> list[list[Cell]]:
    """Every rank with its interval."""
    return [
        [
            str(row["n"]), curvature(row["fisher"]), str(row["lane"]), str(row["solver"]),
            "late" if row["late"] else f"{row['rank']:.0f}",
            "–" if math.isnan(row["rank_low"])
            else f"[{row['rank_low']:.0f}, {row['rank_high']:.0f}]",
            (percent(row["gap"]), row["gap"]),
            (f"[{percent(row['gap_low'])}, {percent(row['gap_high'])}]", row["gap_high"]),
            (duration(row["wall"]), row["wall"]), str(row["instances"]),
        ]
        for row in order.sorted(table).to_dict("records")
    ]  # fmt: skip


def times(table: pd.DataFrame, order: Order) -> list[list[Cell]]:
    """Time to solution and expected running times with their intervals.

    Args:
        table: of `targets.summary`.
        order: of all tables.
    """
    return [
        [
            str(row["n"]), curvature(row["fisher"]), str(row["lane"]), str(row["solver"]),
            f"{row['runs']:.0f}" + (f", {row['failed']:.0f} failed" if row["failed"] else ""),
            (f"{100 * row['hit']:.0f} %", row["hit"]),
            f"[{100 * row['hit_low']:.0f} %, {100 * row['hit_high']:.0f} %]",
            *_with_interval(row, "tts"), *_with_interval(row, "ert_0.01"),
            *_with_interval(row, "ert_0"),
        ]
        for row in order.sorted(table).to_dict("records")
    ]  # fmt: skip


def _with_interval(row: dict[Any, Any], name: str) -> list[Cell]:
    """A time and its interval; what no run reached is censored, not long."""
    middle, low, high = (float(row[key]) for key in (name, f"{name}_low", f"{name}_high"))
    return [(_time(middle), middle), (f"[{_time(low)}, {_time(high)}]", high)]


def _time(seconds: float) -> str:
    if math.isnan(seconds):
        return "–"
    return "never" if math.isinf(seconds) else duration(seconds)


def hardness(instances: pd.DataFrame, order: Order) -> list[list[str]]:
    """The descriptors of every instance."""
    return [
        [
            str(row["name"]), str(row["n"]), str(row["k"]), str(row["rank"]),
            curvature(row["fisher"]), number(row["curvature_share"]), number(row["effective_rank"]),
            number(row["bound_gap"]), number(row["core_size"]), number(row["coefficient_range"]),
            number(1e3 * row["bound_seconds"]),
        ]
        for row in order.sorted(instances).to_dict("records")
    ]  # fmt: skip


def ledger(runs: pd.DataFrame, order: Order) -> list[list[str]]:
    """Mean milliseconds of every stage, by n and solver."""
    scored = runs[runs["status"].isin(SCORED)].dropna(subset=list(STAGES), how="all")
    mean = scored.groupby(["n", "lane", "solver"])[["wall", "cpu", *STAGES]].mean().reset_index()
    return [
        [str(n), str(track), str(solver), *(number(1e3 * value) for value in row)]
        for n, track, solver, *row in order.sorted(mean).itertuples(index=False)
    ]


def failures(runs: pd.DataFrame, order: Order) -> list[list[str]]:
    """Solver, status and reason of every run that is no plain success, counted."""
    bad = runs[(runs["status"] != "done") | (runs["reason"] != "")]
    reason = bad["reason"].where(bad["status"] != "timeout", "came back later than twice its limit")
    counts = bad.assign(reason=reason).groupby(["solver", "status", "reason"]).size().reset_index()
    return [list(map(str, row)) for row in order.sorted(counts).itertuples(index=False)]


def groups(runs: pd.DataFrame, order: Order) -> list[list[str]]:
    """Medians of every group of n, curvature, solver and budget."""
    scored = runs[runs["status"].isin(SCORED)].assign(fisher=runs["fisher"].fillna(""))
    keys = ["n", "fisher", "solver", "lane", "budget"]
    parts = dict(iter(scored.groupby(keys)))
    listed = order.sorted(pd.DataFrame(list(parts), columns=keys))
    out = []
    for n, fisher, solver, lane, limits in listed.itertuples(index=False, name=None):
        part = parts[n, fisher, solver, lane, limits]
        low, high = (number(part["gap"].quantile(q)) for q in (0.25, 0.75))
        out.append([
            str(n), curvature(fisher), str(lane), str(solver), budget(str(limits)), str(len(part)),
            number(part["gap"].median()), f"[{low}, {high}]",
            number(part["certified_gap"].median()), number(part["approximation_ratio"].median()),
            number(part["hit"].mean()), number(part["raw_feasible"].mean()),
            number(part["wall"].median()),
        ])  # fmt: skip
    return out


def plan_rows(plans: Sequence[Plan], invocations: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Every driver: what it planned, what it made, and what is there now of its plan."""
    plan_of = {number: plan for plan in plans for number in plan.made}
    out = []
    for entry in invocations:
        plan = plan_of[entry["id"]]
        planned = "–" if plan.cells is None else str(plan.cells)
        out.append([
            entry["study"], entry["started"],
            ", ".join(budget(str(text)) for text in entry.get("budgets", [])),
            _few(entry.get("seeds", [])),
            "given where usable" if entry.get("give_initial") else "given to nobody",
            planned, str(plan.made[entry["id"]]), str(plan.found), str(entry.get("workers", "")),
        ])  # fmt: skip
    return out


def _few(values: Sequence[Any]) -> str:
    """Numbers in a list, the first few where there are many."""
    shown = ", ".join(map(str, values[:8]))
    return f"{shown}, ... ({len(values)})" if len(values) > 8 else shown


def devices(runs: pd.DataFrame) -> list[list[str]]:
    """Solver and device, whether it was the real one, runs, answers, tasks and money."""
    return [
        [
            use.solver, use.device, use.kind,
            "this machine (rehearsal)" if use.rehearsal else "the device",
            str(use.runs), str(use.done), str(use.pending), str(use.tasks),
            f"{use.quoted:.2f}" if use.quoted else "–", use.cost,
        ]
        for use in paidruns.uses(runs)
    ]  # fmt: skip


def rows(runs: pd.DataFrame) -> list[list[Any]]:
    """The rows for the script: instance, n, curvature, track, solver, limit, seed, status, ..."""
    runs = runs.assign(fisher=runs["fisher"].map(curvature), tag=runs["tag"].map(tag))
    names = ["instance_name", "n", "fisher", "lane", "solver", "time_limit", "seed_index",
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


def budget(text: str) -> str:
    """A stored budget for people: ``100 ms``, ``100 reads``, ``1.0 s and 10 reads``."""
    limits = json.loads(text)
    seconds = limits.pop("time_limit", None)
    parts = [] if seconds is None else [duration(seconds)]
    return " and ".join([*parts, *(f"{value} {name}" for name, value in limits.items())])
