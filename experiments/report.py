"""One self-contained page per store: who won, on what, how sure, what failed.

The page needs no network and no other file: styles, script and figures are inside. Next to it lie
the figures as PDF, SVG and PNG and the runs as CSV. Whatever comes from the store (layer names,
labels, error messages) is untrusted: the template escapes it and the script only sets text.
"""

from __future__ import annotations

import base64
import json
import math
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from experiments import anytime, figures, palette, plots, plots_blocks, plots_studies
from experiments.errors import ReportError
from experiments.figures import Planned
from experiments.ledger import STAGES
from experiments.ranking import duration, headline
from experiments.references import SCORED
from experiments.store import Store

PAGE = "report.html"
RUNS = "runs.csv"
# A page with more rows than this is slow to open; the rest is in the CSV.
ROWS_SHOWN = 20_000


def write(store_path: str | Path, out_dir: str | Path) -> Path:
    """Draws every figure and writes the page.

    Args:
        store_path: a store with at least one run.
        out_dir: folder for ``report.html``, ``runs.csv`` and ``figures/``; made if missing.

    Returns:
        The page.

    Raises:
        StoreError: no store.
        ReportError: a store without runs, a folder that cannot be written.
    """
    out = Path(out_dir)
    with Store(store_path) as store:
        runs, instances = store.runs(), store.instances()
        steps, quality = store.table("steps"), store.table("perplexity")
        invocations = store.invocations()
        if runs.empty:
            raise ReportError(f"store {store_path} has no runs yet; run a study into it first")
        extra = _extra(store, runs, invocations)
    try:
        (out / "figures").mkdir(parents=True, exist_ok=True)
        runs.to_csv(out / RUNS, index=False)
    except OSError as error:
        raise ReportError(f"folder {out} cannot be written: {error.strerror}") from error
    context = {
        "title": Path(store_path).stem,
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "headline": headline(runs),
        "facts": _facts(runs, instances),
        "studies": [_study(entry) for entry in invocations],
        "host": _host(invocations),
        "warnings": _warnings(runs, invocations),
        "figures": _figures(runs, instances, steps, extra, out / "figures"),
        "quality": None if quality is None else _plain(quality),
        "steps": None if steps is None else _plain(steps),
        "hardness": _hardness(instances),
        "ledger": _ledger(runs),
        "failures": _failures(runs),
        "groups": _groups(runs),
        "rows": _rows(runs.head(ROWS_SHOWN)),
        "runs_file": RUNS,
        "total": len(runs),
        "hidden": max(0, len(runs) - ROWS_SHOWN),
    }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("experiments"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = out / PAGE
    try:
        page.write_text(environment.get_template("report.html.j2").render(context), "utf-8")
    except OSError as error:
        raise ReportError(f"{page} cannot be written: {error.strerror}") from error
    return page


def _facts(runs: pd.DataFrame, instances: pd.DataFrame) -> list[tuple[str, str]]:
    counts = runs["status"].value_counts()
    models = sorted(set(instances["model"].dropna()))
    return [
        ("Instances", f"{len(instances)}, n = {', '.join(map(str, sorted(set(instances['n']))))}"),
        ("Models", ", ".join(models) or "not recorded"),
        ("Layers", str(instances["layer"].nunique())),
        ("Solvers", str(runs["solver"].nunique())),
        ("Runs", ", ".join(f"{counts[s]} {s}" for s in counts.index)),
    ]


def _study(entry: dict[str, Any]) -> dict[str, str]:
    return {
        "study": entry["study"],
        "started": entry["started"],
        "cells": str(entry.get("cells", "")),
        "budgets": ", ".join(_budget(text) for text in entry.get("budgets", [])),
        "seeds": ", ".join(map(str, entry.get("seeds", []))),
        "workers": str(entry.get("workers", "")),
        "initial": "given where usable" if entry.get("give_initial") else "given to nobody",
    }


def _budget(text: str) -> str:
    """A stored budget for people: ``100 ms``, ``100 reads``, ``1.0 s and 10 reads``."""
    limits = json.loads(text)
    seconds = limits.pop("time_limit", None)
    parts = [] if seconds is None else [duration(seconds)]
    return " and ".join([*parts, *(f"{value} {name}" for name, value in limits.items())])


def _host(invocations: list[dict[str, Any]]) -> list[tuple[str, str]]:
    if not invocations:
        return []
    host = invocations[-1]["host"]
    packages = ", ".join(f"{name} {v}" for name, v in host.get("packages", {}).items() if v)
    return [
        ("Processor", f"{host.get('cpu')}, {host.get('usable_cpus')} CPUs usable"),
        ("Memory", f"{host.get('memory_gib')} GiB"),
        ("System", f"{host.get('system')}, Python {host.get('python')}"),
        ("Packages", packages),
    ]


def _warnings(runs: pd.DataFrame, invocations: list[dict[str, Any]]) -> list[str]:
    out = []
    cpus = invocations[-1]["host"].get("usable_cpus") if invocations else None
    load = runs["load"].dropna()
    if cpus and len(load) and (load > cpus).mean() > 0.05:
        out.append(
            f"The machine was busy: {100 * (load > cpus).mean():.0f} % of the runs started at a "
            f"load average above its {cpus} CPUs (highest {load.max():.1f}). Read wall times, and "
            "gaps at short limits, with care."
        )
    hosts = {(e["host"].get("cpu"), e["host"].get("python")) for e in invocations}
    if len(hosts) > 1:
        out.append("The runs come from more than one kind of host; their times do not compare.")
    out += [
        f"Refuted on {group['instance'].nunique()} instances by a feasible state that was found: "
        f"{claim}."
        for claim, group in runs[runs["refuted"] != ""].groupby("refuted")
    ]
    if any(int(entry.get("workers", 1)) > 1 for entry in invocations):
        out.append("Cells ran side by side; their wall times disturb each other.")
    return out


def _extra(store: Store, runs: pd.DataFrame, invocations: list[dict[str, Any]]) -> list[Planned]:
    """Figures that the studies ask for, and those of the loop if it was followed."""
    wanted = {name for entry in invocations for name in entry.get("figures", [])}
    incumbents, loop = store.incumbents(), store.table("trajectories")
    plan = figures.planned(store, runs, wanted)
    if not (runs["status"].isin(SCORED) & runs["gap"].notna()).any():
        wanted = set()
    if "anytime" in wanted:
        plan.append((
            "anytime", "The same runs on three clocks",
            f"Median gap against time by the solver's execution alone, by the whole call, and "
            f"end to end with the cutting of the block. {_clocks(runs, incumbents)}",
            lambda: plots_studies.anytime_curves(runs, incumbents),
        ))  # fmt: skip
    if "penalty" in wanted:
        plan.append((
            "penalty", "The penalty",
            "Feasible share and violation before repair and median gap after it against the "
            "penalty, for every sampler and size; the same numbers are in the table of groups.",
            lambda: plots_studies.penalty_frontier(runs),
        ))  # fmt: skip
    if "ladder" in wanted:
        plan.append((
            "ladder", "One block, nested parts of growing size",
            "Median gap and wall time against the number of variables, a line a solver; the same "
            "numbers are in the table of groups on this page.",
            lambda: plots_studies.ladder(runs),
        ))  # fmt: skip
    if loop is not None and loop["gap"].isna().any():
        ends = loop[loop["gap"].isna() & (loop["step"] == loop["step"].max())]
        means = ends.groupby("contestant")["accuracy"].mean().sort_values(ascending=False)
        said = "; ".join(f"{name} {100 * value:.1f} %" for name, value in means.items())
        if len(means) > 1:
            plan.append((
                "loop", "The model, by who drives the loop",
                f"Test loss and accuracy against seconds of the loop. Accuracy at the end: {said}.",
                lambda: plots_studies.trajectories(loop),
            ))  # fmt: skip
    if loop is not None and loop["gap"].notna().any():
        ends = loop[(loop["step"] == loop["step"].max()) & loop["gap"].notna()]
        means = ends.groupby("gap")["accuracy"].mean()
        said = "; ".join(f"gap {gap:g}: {100 * value:.1f} %" for gap, value in means.items())
        plan.append((
            "loss", "When solver quality stops mattering",
            f"Test loss and accuracy at the end of the loop against the share of each block's gain "
            f"that was left on the table. Mean accuracy: {said}.",
            lambda: plots_studies.loss_by_gap(loop, runs),
        ))  # fmt: skip
    return plan


def _clocks(runs: pd.DataFrame, incumbents: pd.DataFrame) -> str:
    """Where the accounting changes who leads, in words."""
    table = anytime.summary(runs, anytime.clocked(runs, incumbents), "native")
    if table.empty:
        return "In the native lane the leaders are the same on all three clocks at all times."
    parts = [
        f"n = {row['n']}{', ' + row['fisher'] if row['fisher'] else ''}, {row['accounting']}, "
        f"{duration(row['start'])} to {duration(row['end'])}: {row['instead']} instead of "
        f"{row['wall']}"
        for row in table.to_dict("records")
    ]
    more = f", and {len(parts) - 6} more" if len(parts) > 6 else ""
    return f"Other leaders than by the wall clock, native lane: {'; '.join(parts[:6])}{more}."


def _figures(
    runs: pd.DataFrame,
    instances: pd.DataFrame,
    steps: pd.DataFrame | None,
    extra: list[Planned],
    folder: Path,
) -> list[dict[str, str]]:
    scored = runs[runs["status"].isin(SCORED) & runs["gap"].notna()]
    plan: list[Planned] = []
    if len(scored):
        top = "; ".join(headline(runs).sentences)
        plan += [
            ("gap-against-wall", "Gap against wall time",
             "Median gap to the reference against median wall time, one panel per number of "
             f"variables and Fisher, one marker per solver. {top}",
             lambda: plots.gap_against_wall(runs)),
            ("ranking", "Ranking by size",
             "Table of solvers by number of variables with rank and median gap; the same numbers "
             "are in the tables of winners and of groups on this page.",
             lambda: plots.ranking(runs)),
        ]  # fmt: skip
    if runs["status"].isin(SCORED).any():
        plan.append((
            "time-spent", "Where the time went",
            "Stacked bars: share of each stage in the end-to-end time per solver and number of "
            "variables; the same numbers are in the ledger table on this page.",
            lambda: plots.time_spent(runs),
        ))  # fmt: skip
    plan.append((
        "hardness", "Instance hardness",
        "Curvature share of the gain, effective rank of the curvature and bound gap against the "
        "number of variables; the same numbers are in the hardness table on this page.",
        lambda: plots_blocks.hardness(instances),
    ))  # fmt: skip
    if steps is not None and {"predicted", "measured"} <= set(steps) and len(steps):
        plan.append((
            "predicted-against-measured", "Predicted against measured loss change",
            "Scatter of the loss change the quadratic model predicts for an applied mask against "
            "the measured one; the same numbers are in the table of applied masks on this page.",
            lambda: plots_blocks.predicted_against_measured(steps),
        ))  # fmt: skip
    out = []
    for name, title, alt, draw in [*plan, *extra]:
        figure = draw()
        palette.save(figure, folder, name)
        data = base64.b64encode((folder / f"{name}.svg").read_bytes()).decode()
        wide = figure.get_figwidth() > palette.COLUMN
        out.append({"name": name, "title": title, "alt": alt, "data": data,
                    "width": "wide" if wide else "narrow"})  # fmt: skip
    return out


def _hardness(instances: pd.DataFrame) -> list[list[str]]:
    out = []
    for _, row in instances.iterrows():
        out.append([
            str(row["name"]), str(row["n"]), str(row["k"]), str(row["rank"]),
            _blank(row["fisher"]), number(row["curvature_share"]), number(row["effective_rank"]),
            number(row["bound_gap"]), number(row["core_size"]), number(row["coefficient_range"]),
            number(1e3 * row["bound_seconds"]),
        ])  # fmt: skip
    return out


def _ledger(runs: pd.DataFrame) -> list[list[str]]:
    scored = runs[runs["status"].isin(SCORED)]
    mean = scored.groupby(["solver", "n"])[["wall", "cpu", *STAGES]].mean()
    return [
        [str(solver), str(n), *(number(1e3 * value) for value in row)]
        for (solver, n), row in zip(mean.index, mean.to_numpy(), strict=True)
    ]


def _failures(runs: pd.DataFrame) -> list[list[str]]:
    bad = runs[(runs["status"] != "done") | (runs["reason"] != "")]
    reason = bad["reason"].where(bad["status"] != "timeout", "came back later than twice its limit")
    counts = Counter(zip(bad["status"], bad["solver"], reason, strict=True))
    return [[*map(str, key), str(count)] for key, count in sorted(counts.items())]


def _groups(runs: pd.DataFrame) -> list[list[str]]:
    scored = runs[runs["status"].isin(SCORED)].assign(fisher=runs["fisher"].fillna(""))
    out = []
    keys = ["n", "fisher", "solver", "lane", "budget"]
    for (n, fisher, solver, lane, budget), part in scored.groupby(keys):
        out.append([
            str(n), str(fisher), str(solver), str(lane), _budget(str(budget)), str(len(part)),
            number(part["gap"].median()),
            f"{number(part['gap'].quantile(0.25))} to {number(part['gap'].quantile(0.75))}",
            number(part["certified_gap"].median()), number(part["approximation_ratio"].median()),
            number(part["hit"].mean()), number(part["raw_feasible"].mean()),
            number(part["wall"].median()),
        ])  # fmt: skip
    return out


def _rows(runs: pd.DataFrame) -> list[list[Any]]:
    """The rows for the script: instance, n, Fisher, solver, lane, limit, seed, status, ..."""
    names = ["instance_name", "n", "fisher", "solver", "lane", "time_limit", "seed_index",
             "status", "tag", "energy", "gap", "certified_gap", "wall", "cpu", "raw_feasible",
             "reason"]  # fmt: skip
    return [[_json(value) for value in row] for row in runs[names].itertuples(index=False)]


def _plain(frame: pd.DataFrame) -> dict[str, Any]:
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
