"""The tables of the page, row by row, and how numbers are written in them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from experiments.metrics import glossary, paidruns
from experiments.metrics.formulas import gap
from experiments.metrics.glossary import curvature, tag
from experiments.metrics.ranking import solver_order
from experiments.metrics.readable import ROUND_OFF, duration, share
from experiments.metrics.references import SCORED
from experiments.record.ledger import STAGES
from experiments.report.causes import causes
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
        self._curvatures = {name: i for i, name in enumerate(glossary.fishers(runs))}

    def sorted(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Rows with any of the columns n, fisher, solver, in this order; ties stay as they are."""
        known = [name for name in ("n", "fisher", "solver") if name in frame]
        return frame.sort_values(known, key=self._place, kind="stable")

    def _place(self, column: pd.Series) -> pd.Series:
        if column.name == "solver":
            return column.map(self._solvers)
        return column.fillna("").map(self._curvatures) if column.name == "fisher" else column


def ranking(table: pd.DataFrame, order: Order) -> list[list[Cell]]:
    """Every rank with its interval; none from a single run, and no rank where nobody else is.

    Where all solvers of a group and track are at the best known without doubt, they are one row.
    """
    keys = ["fisher", "n", "track"]
    ranked = table[table["rank"].notna()]
    rivals = ranked.groupby(keys)["solver"].nunique()
    # Nothing above the best known in any problem that was drawn; of one run, in that.
    at_best = table[["gap", "gap_high"]].max(axis=1) < ROUND_OFF
    settled = (at_best & ~table["late"]).groupby([table[key] for key in keys]).transform("all")
    out: list[list[Cell]] = []
    told = set()
    groups = dict(iter(table.groupby(keys)))
    for row in order.sorted(table.assign(settled=settled)).to_dict("records"):
        group = row["fisher"], row["n"], row["track"]
        if row["settled"] and rivals[group] > 1:
            if group not in told:
                told.add(group)
                out.append(_all_at_best(groups[group]))
            continue
        gap: Cell = "–"
        if not math.isnan(row["gap_low"]):
            gap = f"[{share(row['gap_low'])}, {share(row['gap_high'])}]", row["gap_high"]
        rank, interval = f"{row['rank']:.0f}", "–"
        if row["late"]:
            rank = "late"
        elif rivals[row["fisher"], row["n"], row["track"]] == 1:
            rank = "alone"
        elif not math.isnan(row["rank_low"]):
            interval = f"[{row['rank_low']:.0f}, {row['rank_high']:.0f}]"
        out.append([
            str(row["solver"]), str(row["n"]), rank, (share(row["gap"]), row["gap"]), gap,
            interval, curvature(row["fisher"]), str(row["track"]),
            (duration(row["wall"]), row["wall"]), str(row["instances"]), str(row["runs"]),
        ])  # fmt: skip
    return out


def _all_at_best(own: pd.DataFrame) -> list[Cell]:
    """The row of a group and track in which nobody is above the best known."""
    fastest, slowest = own["wall"].min(), own["wall"].max()
    runs, problems = (sorted(set(own[name])) for name in ("runs", "instances"))
    first = own.iloc[0]
    return [
        f"all {len(own)}", str(first["n"]), "1", ("0 %", 0.0), "–",
        "–", curvature(first["fisher"]), str(first["track"]),
        (f"{duration(fastest)} to {duration(slowest)}", slowest),
        *(f"{ends[0]}" if len(ends) == 1 else f"{ends[0]} to {ends[-1]}"
          for ends in (problems, runs)),
    ]  # fmt: skip


def times(table: pd.DataFrame, order: Order) -> list[list[Cell]]:
    """Time to solution and expected running times with their intervals.

    Args:
        table: of `targets.summary`.
        order: of all tables.
    """
    return [
        [
            str(row["solver"]), str(row["n"]), (f"{100 * row['hit']:.0f} %", row["hit"]),
            *_with_interval(row, "tts"), *_with_interval(row, "ert_0"),
            *_with_interval(row, "ert_0.01"),
            "–" if row["runs"] < 2
            else f"[{100 * row['hit_low']:.0f} %, {100 * row['hit_high']:.0f} %]",
            curvature(row["fisher"]), str(row["track"]),
            f"{row['runs']:.0f}" + (f", {row['failed']:.0f} failed" if row["failed"] else ""),
        ]
        for row in order.sorted(table).to_dict("records")
    ]  # fmt: skip


def _with_interval(row: dict[Any, Any], name: str) -> list[Cell]:
    """A time and its interval; what no run reached is censored, not long."""
    middle, low, high = (float(row[key]) for key in (name, f"{name}_low", f"{name}_high"))
    interval: Cell = (f"[{_time(low)}, {_time(high)}]", high)
    return [(_time(middle), middle), interval if row["runs"] > 1 else "–"]


def _time(seconds: float) -> str:
    if math.isnan(seconds):
        return "–"
    return "never" if math.isinf(seconds) else duration(seconds)


def hardness(instances: pd.DataFrame, runs: pd.DataFrame, order: Order) -> list[list[Cell]]:
    """The descriptors of every instance."""
    known = runs.drop_duplicates("instance").set_index("instance")
    ends = instances["id"].map(known["reference"]), instances["id"].map(known["baseline_energy"])
    for column in ("greedy_energy", "one_swap_energy"):
        above = gap(instances[column].astype(float), *ends)
        instances = instances.assign(**{column: above.where(np.isfinite(above))})
    return [
        [
            str(row["name"]), str(row["n"]), str(row["k"]), _share(row["curvature_share"]),
            _share(row["bound_gap"]), number(row["core_size"]), curvature(row["fisher"]),
            str(row["rank"]), number(row["effective_rank"]), number(row["coefficient_range"]),
            _seconds(row["bound_seconds"]), number(row["condition"]),
            number(row["column_spread"]), _share(row["greedy_energy"]),
            _share(row["one_swap_energy"]),
        ]
        for row in order.sorted(instances).to_dict("records")
    ]  # fmt: skip


def ledger(runs: pd.DataFrame, order: Order) -> list[list[Cell]]:
    """Mean time of every stage, by n and solver; a dash where nobody knows it.

    What a service does between submitting and answering it does not tell: of a task there is the
    wait as a whole, and a rehearsal waits for nobody.
    """
    scored = runs[runs["status"].isin(SCORED)].dropna(subset=list(STAGES), how="all").copy()
    costly = paidruns.paid(scored)
    for stage in ("queue", "execute"):
        unknown = costly.index[costly[stage] == 0]
        scored.loc[unknown, stage] = math.nan
    mean = scored.groupby(["n", "track", "solver"])[["wall", "cpu", *STAGES]].mean().reset_index()
    return [
        [str(solver), str(n), *(_seconds(value) for value in row), str(track)]
        for n, track, solver, *row in order.sorted(mean).itertuples(index=False)
    ]


def failures(runs: pd.DataFrame) -> list[list[str]]:
    """Solver, status, cause, count and remedy of all runs that are no plain success."""
    return [
        [one.solver, one.status, str(one.runs), one.reason, one.remedy or "–"]
        for one in causes(runs)
    ]


def groups(runs: pd.DataFrame, order: Order) -> list[list[Cell]]:
    """Medians of every group of n, curvature, solver and budget."""
    scored = runs[runs["status"].isin(SCORED)].assign(fisher=runs["fisher"].fillna(""))
    keys = ["n", "fisher", "solver", "track", "budget"]
    parts = dict(iter(scored.groupby(keys)))
    listed = order.sorted(pd.DataFrame(list(parts), columns=keys))
    out: list[list[Cell]] = []
    for n, fisher, solver, track, limits in listed.itertuples(index=False, name=None):
        part = parts[n, fisher, solver, track, limits]
        low, high = (float(part["gap"].quantile(q)) for q in (0.25, 0.75))
        quartiles: Cell = (f"[{share(low)}, {share(high)}]", high) if len(part) > 1 else "–"
        out.append([
            str(solver), str(n), budget(str(limits)), _share(part["gap"].median()), quartiles,
            _share(part["hit"].mean()), _seconds(part["wall"].median()), curvature(fisher),
            str(track), str(len(part)), _share(part["certified_gap"].median()),
            number(part["approximation_ratio"].median()), _share(part["raw_feasible"].mean()),
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
            entry["study"], f"{str(entry['started'])[:16].replace('T', ' ')} UTC",
            planned, str(plan.made[entry["id"]]), str(plan.found),
            ", ".join(budget(str(text)) for text in entry.get("budgets", [])),
            _few(entry.get("seeds", [])),
            "given where usable" if entry.get("give_initial") else "given to nobody",
            str(entry.get("workers", "")),
        ])  # fmt: skip
    return out


def _few(values: Sequence[Any]) -> str:
    """Numbers in a list, the first few where there are many."""
    shown = ", ".join(map(str, values[:8]))
    return f"{shown}, ... ({len(values)})" if len(values) > 8 else shown


def devices(runs: pd.DataFrame) -> list[list[str]]:
    """Solver and device, whether it was the real one, what was paid, tasks and shots, prices."""
    return [
        [
            use.solver, use.device, use.cost, use.sum or "–",
            paidruns.dated(use.prices) if use.prices else "–",
            f"{use.quoted:.2f} USD" if use.quoted else "–",
            str(use.tasks), ", ".join(map(str, use.shots)) or "–",
            f"{use.done} of {use.runs}", str(use.pending), use.region or "–", use.kind,
            "this machine (rehearsal)" if use.rehearsal else "the device",
        ]
        for use in paidruns.uses(runs)
    ]  # fmt: skip


def tasks(runs: pd.DataFrame) -> list[list[str]]:
    """Every task that a device was sent, as its owner finds it in the account.

    Of a program set a line for each circuit, with its share.
    """
    own = paidruns.paid(runs)
    own = own[own["task"].notna() & ~own["rehearsal"]].drop_duplicates(["task", "place"])
    return [
        [
            str(row["device"]), "–" if pd.isna(row["charged"]) else f"{row['charged']:.2f}",
            number(row["shots"]),
            str(row["region"]) or "–", str(row["started"])[:16].replace("T", " "),
            str(row["instance_name"]), str(row["seed_index"]), str(row["status"]),
            str(row["task"]),
        ]
        for row in own.to_dict("records")
    ]  # fmt: skip


def rows(runs: pd.DataFrame) -> list[list[Any]]:
    """The rows for the script: solver, n, gap, status, ...; shares in percent."""
    shares = {name: 100 * runs[name].mask(runs[name].abs() < ROUND_OFF, 0.0)
              for name in ("gap", "certified_gap", "raw_feasible")}  # fmt: skip
    runs = runs.assign(fisher=runs["fisher"].map(curvature), tag=runs["tag"].map(tag), **shares)
    names = ["solver", "n", "gap", "status", "wall", "instance_name", "fisher", "track",
             "time_limit", "seed_index", "tag", "energy", "certified_gap", "cpu", "raw_feasible",
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


def applied(steps: pd.DataFrame) -> dict[str, Any]:
    """Applied masks, the curvature by its name."""
    if "fisher" in steps:
        named = steps.assign(fisher=steps["fisher"].map(curvature))
        steps = named.rename(columns={"fisher": "curvature"})
    return plain(steps)


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
    return "0" if abs(value) < ROUND_OFF else f"{value:.3g}"


def _share(value: Any) -> Cell:
    return "–" if value is None or pd.isna(value) else (share(float(value)), float(value))


def _seconds(value: Any) -> Cell:
    if value is None or pd.isna(value):
        return "–"
    return ("0 s" if value == 0 else duration(float(value))), float(value)


def budget(text: str) -> str:
    """A stored budget for people: ``100 ms``, ``100 reads``, ``1.0 s and 10 reads``."""
    limits = json.loads(text)
    seconds = limits.pop("time_limit", None)
    parts = [] if seconds is None else [duration(seconds)]
    return " and ".join([*parts, *(f"{value} {name}" for name, value in limits.items())])
