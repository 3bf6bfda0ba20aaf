"""One self-contained page per store: who won, on what, how sure, what failed.

The page needs no network and no other file: styles, script and figures are inside. Next to it lie
the figures as PDF, SVG and PNG and the runs as CSV. Whatever comes from the store (layer names,
labels, error messages) is untrusted: the template escapes it and the script only sets text.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup, escape

from experiments.errors import ReportError
from experiments.figures import palette
from experiments.figures.blocks import how_hard
from experiments.figures.figure import Records, planned
from experiments.metrics import glossary, paidruns, targets, verdict
from experiments.metrics.ranking import whole_limit
from experiments.metrics.references import SCORED
from experiments.report import completeness, opening
from experiments.report import tables as report_tables
from experiments.store.database import PERPLEXITY, TRAJECTORIES, WHOLE_MODELS, Store
from experiments.store.driverlock import driver_at_work
from icbs.data.fashion_mnist import EMBEDDED

PAGE = "report.html"
RUNS = "runs.csv"
FIRST = "where"
"""The figure that a page begins with."""
# A page with more rows than this is slow to open; the rest is in the CSV, which is then zipped.
ROWS_SHOWN = 20_000
_DATE = re.compile(r"(\d{4}-\d\d-\d\d(?: \d\d:\d\d(?: UTC)?)?)")


def write(store_path: str | Path, out_dir: str | Path, *, style: str = "screen") -> Path:
    """Draws every figure and writes the page.

    Args:
        store_path: a store with at least one run.
        out_dir: folder for ``report.html``, ``runs.csv`` (``runs.csv.gz`` if large) and
            ``figures/``; made if missing.
        style: one of `palette.STYLES`; on ``paper`` every figure has its caption beside it.

    Returns:
        The page.

    Raises:
        StoreError: no store.
        ReportError: a store without runs, a folder that cannot be written, no such
            style.
    """
    out = Path(out_dir)
    with Store(store_path) as store:
        records, quality = Records.of(store), store.table(PERPLEXITY)
        data = _data(records.instances, quality, *map(store.table, (TRAJECTORIES, WHOLE_MODELS)))
        invocations = store.invocations()
    if records.runs.empty:
        raise ReportError(f"store {store_path} has no runs yet; run a study into it first")
    runs, steps = records.runs, records.steps
    # An interrupted study has problems that nothing has run on yet.
    instances = records.instances[records.instances["id"].isin(runs["instance"])]
    try:
        (out / "figures").mkdir(parents=True, exist_ok=True)
        for name in (RUNS, f"{RUNS}.gz"):
            (out / name).unlink(missing_ok=True)
        runs_file = RUNS if len(runs) <= ROWS_SHOWN else f"{RUNS}.gz"
        level = {"method": "gzip", "compresslevel": 3} if runs_file != RUNS else None
        _written(runs).to_csv(out / runs_file, index=False, compression=level)
    except OSError as error:
        raise ReportError(f"folder {out} cannot be written: {error.strerror}") from error
    plans = completeness.plans(runs, invocations)
    complete = not any(plan.missing for plan in plans)
    records = replace(records, instances=instances, complete=complete)
    said = records.headline
    order = report_tables.Order(said.table, runs)
    with palette.drawn_for(style, f"Images: {EMBEDDED}." if EMBEDDED in data else ""):
        wanted = [name for entry in invocations for name in entry.get("figures", [])]
        figures_drawn = _figures(records, wanted, out / "figures")
    context = {
        "title": Path(store_path).stem,
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "alarms": [
            *opening.failed(runs),
            *opening.incomplete(plans, Path(store_path), driver_at_work(Path(store_path)), runs),
        ],
        "opening": opening.sentences(runs, instances, said, plans),
        "solvers": opening.solvers(runs),
        "no_quantum": opening.no_quantum(runs),
        "paid": opening.devices(runs),
        "headline": said,
        "settled": complete and not any(use.rehearsal for use in paidruns.uses(runs)),
        "late": bool(said.table["late"].any()),
        "whole_limit": whole_limit(runs),
        "ranking": report_tables.ranking(said.table, order),
        "times": _times(runs, records.incumbents, order),
        "facts": _facts(runs, instances, data, plans),
        "studies": report_tables.plan_rows(plans, invocations),
        "devices": report_tables.devices(runs),
        "tasks": report_tables.tasks(runs),
        "host": _host(invocations),
        "warnings": _warnings(runs, invocations),
        "first": [one for one in figures_drawn if one["name"] == FIRST],
        "figures": [one for one in figures_drawn if one["name"] != FIRST],
        "kinds": verdict.rows(runs),
        "quality": None if quality is None else report_tables.plain(quality),
        "steps": None if steps is None else report_tables.applied(steps),
        "how_hard": how_hard(instances),
        "hardness": report_tables.hardness(instances, runs, order),
        "ledger": report_tables.ledger(runs, order),
        "failures": report_tables.failures(runs),
        "none_failed": _none_failed(plans, len(runs)),
        "groups": report_tables.groups(runs, order),
        "rows": report_tables.rows(runs.head(ROWS_SHOWN)),
        "example": opening.example(runs),
        "runs_file": runs_file,
        "total": len(runs),
        "hidden": max(0, len(runs) - ROWS_SHOWN),
    }
    page = out / PAGE
    try:
        page.write_text(_rendered(context), "utf-8")
    except OSError as error:
        raise ReportError(f"{page} cannot be written: {error.strerror}") from error
    return page


def _rendered(context: dict[str, Any]) -> str:
    """The page; its glossary has the words that the rest of it uses."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("experiments.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["dates"] = _whole_dates
    template = environment.get_template("report.html.j2")
    bare = {
        part: [figure | {"data": ""} for figure in context[part]] for part in ("first", "figures")
    }
    words = template.render(context | bare | {"glossary": [], "rows": []})
    return template.render(context | {"glossary": glossary.used(glossary.shown(words))})


def _whole_dates(text: str) -> Markup:
    """The text, escaped, with dates that no line breaks."""
    return Markup(_DATE.sub(r'<span class="date">\1</span>', str(escape(text))))  # noqa: S704


def _none_failed(plans: list[completeness.Plan], runs: int) -> str:
    """What to say where no run failed."""
    if any(plan.missing for plan in plans):
        return f"All {runs} runs that are here succeeded; the study is not complete."
    if not plans or any(plan.cells is None for plan in plans):
        return f"All {runs} runs succeeded."
    return "None: every planned run was done."


def _written(runs: pd.DataFrame) -> pd.DataFrame:
    """Numbers that repeat, as those of an instance do, turned into text once and not row by row."""
    texts: dict[str, Any] = {}
    for name in map(str, runs.select_dtypes("float64")):
        places, values = pd.factorize(runs[name])
        if len(values) * 10 <= len(runs):
            texts[name] = np.append(values.astype(str).astype(object), "")[places]
    return runs.assign(**texts)


def _times(
    runs: pd.DataFrame, incumbents: pd.DataFrame, order: report_tables.Order
) -> list[list[report_tables.Cell]]:
    """Times to targets, of runs that had a time limit: without one nobody was asked to be quick."""
    limited = runs[runs["time_limit"].notna() & ~runs["flat"].astype(bool)]
    if not limited["gap"].notna().any():
        return []
    return report_tables.times(targets.summary(limited, incumbents), order)


def _data(instances: pd.DataFrame, *tables: pd.DataFrame | None) -> list[str]:
    """What blocks were cut on and models were judged on, where that is known."""
    found = [
        table["data"] for table in (instances, *tables) if table is not None and "data" in table
    ]
    return sorted({str(name) for column in found for name in column.dropna()} - {""})


_STATUSES = {
    "done": "done",
    "error": "ended in an error",
    "skipped": "skipped",
    "timeout": "too late",
}


def _facts(
    runs: pd.DataFrame, instances: pd.DataFrame, data: list[str], plans: list[completeness.Plan]
) -> list[tuple[str, str]]:
    counts = runs["status"].value_counts()
    models = sorted(set(instances["model"].dropna()))
    of_problems = of_runs = ""
    if len(plans) == 1 and plans[0].missing:
        of_problems = "" if plans[0].problems is None else f" of {plans[0].problems} planned"
        of_runs = f"{plans[0].found} of {plans[0].cells} planned: "
    sizes = ", ".join(map(str, sorted(set(instances["n"]))))
    return [
        ("Problems", f"{len(instances)}{of_problems}, n = {sizes}"),
        ("Models", ", ".join(models) or "not recorded"),
        ("Data", ", ".join(data) or "not recorded"),
        ("Layers", str(instances["layer"].nunique())),
        ("Solvers", str(runs["solver"].nunique())),
        ("Runs", of_runs + ", ".join(f"{counts[s]} {_STATUSES[s]}" for s in counts.index)),
    ]


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
    load = runs.loc[runs["status"].isin(SCORED), "load"].dropna()
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
        f"Refuted on {group['instance'].nunique()} problems by a feasible state that was found: "
        f"{claim}."
        for claim, group in runs[runs["refuted"] != ""].groupby("refuted")
    ]
    if any(int(entry.get("workers", 1)) > 1 for entry in invocations):
        out.append(
            "Several runs were made at the same time on one machine, which lengthens their wall "
            "times."
        )
    return out


def _figures(records: Records, wanted: Collection[str], folder: Path) -> list[dict[str, Any]]:
    """Draws what applies, into files and for the page."""
    out: list[dict[str, Any]] = []
    for entry in planned(records, wanted):
        figure = entry.drawn(records)
        palette.save(figure, folder, entry.name)
        data = base64.b64encode((folder / f"{entry.name}.svg").read_bytes()).decode()
        inches = figure.get_figwidth()
        out.append({"name": entry.name, "title": entry.title, "alt": entry.words(records),
                    "data": data, "caption": palette.caption_beside(figure), "inches": inches,
                    "width": "wide" if inches > palette.COLUMN else "narrow"})  # fmt: skip
    return out
