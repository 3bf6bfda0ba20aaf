"""The figures of a study. Each states what is known, tracks, clock and who had the current mask.

Every function takes data frames and returns a matplotlib figure; `experiments.figures.palette.save`
writes it as PDF, SVG and PNG.
"""

from __future__ import annotations

import math
import textwrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullLocator

from experiments.figures import palette
from experiments.figures.figure import figure
from experiments.metrics import glossary
from experiments.metrics.ranking import Headline, group_order, rank_table
from experiments.metrics.readable import duration, percent
from experiments.metrics.references import SCORED, TAGS
from experiments.record.ledger import STAGES

# A logarithmic axis ends here; below lies a band labelled 0, where each solver has its own height
# so that those at the reference do not hide each other.
FLOOR = 1e-7
BAND = 1e-3
# Panels side by side that have room for a title of several words.
MOST_ACROSS = 3
# Panels that stand two in a row; more stand in threes.
MOST_BY_TWO = 8
# Gaps below this share one colour of the ranking.
LEAST = 1e-6
TAG_LETTERS = {"exact": "C", "bounded": "B", "best-known": "K"}
LETTERS = "C certified, B bounded, K best known without a proof"
CLOCK = "Clock: the runner's wall time of the whole call, warm-up outside"


def conditions(runs: pd.DataFrame) -> str:
    """What is known, tracks, clock and who had the current mask, of the runs behind a figure."""
    per_instance = runs.drop_duplicates("instance")["tag"].value_counts()
    tags = ", ".join(
        f"{glossary.tag(tag)} on {per_instance[tag]}" for tag in TAGS if tag in per_instance
    )
    got = sorted(set(runs.loc[runs["received_start"].fillna(False).astype(bool), "solver"]))
    start = f"Current mask given to {', '.join(got) or 'nobody'}"
    return (
        f"Best known: {tags} instances. Tracks: native solid, penalised dashed (after repair). "
        f"{CLOCK}. {start}."
    )


def _won(headline: Headline, what: str, more: str = "") -> str:
    return " ".join([what, *headline.won, *headline.sentences, more]).strip()


@figure(
    "gap-against-wall",
    "Gap against wall time",
    lambda headline: _won(
        headline,
        "Median gap to the best known against median wall time, one panel per number of variables "
        "and curvature, one marker per solver.",
    ),
    always=1,
)
def gap_against_wall(runs: pd.DataFrame) -> Figure:
    """Median gap against median wall time per solver and budget, one panel per n and Fisher.

    Bars are interquartile ranges over instances and seeds. Gaps at the reference lie on the axis'
    floor, labelled 0.
    """
    scored = runs[runs["status"].isin(SCORED) & runs["gap"].notna()]
    scored = scored.assign(fisher=scored["fisher"].fillna(""))
    sizes, fishers = sorted(scored["n"].unique()), glossary.fishers(scored)
    panels = group_order(scored)
    full = len(panels) == len(sizes) * len(fishers)
    across = full and 1 < len(fishers) <= MOST_ACROSS
    columns = len(fishers) if across else min(3 if len(panels) > MOST_BY_TWO else 2, len(panels))
    columns = max(1, columns)
    if not across:
        panels.sort(key=lambda panel: fishers.index(panel[1]))
    rows = max(1, math.ceil(len(panels) / columns))
    with palette.look():
        figure = palette.new_figure(palette.PAGE, 0.95 + 1.55 * rows)
        axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        labels = palette.ordered(set(scored["solver"]))
        tracks = palette.tracks(scored)
        for axis, (n, fisher) in zip(axes.flat, panels, strict=False):
            part = scored[(scored["n"] == n) & (scored["fisher"] == fisher)]
            for place, label in enumerate(labels):
                zero = FLOOR * BAND ** ((place + 1) / (len(labels) + 1))
                _gap_curve(axis, part[part["solver"] == label], label, tracks, zero)
            tags = part.drop_duplicates("instance")["tag"].value_counts()
            note = ", ".join(f"{tags[t]} {glossary.tag(t)}" for t in TAGS if t in tags)
            between = "\n" if columns > 2 else "  "
            axis.set_title(f"n = {n}{_named(fisher)}{between}({note})", loc="left")
        # Markers are medians, and none may lie above the axis.
        medians = scored.groupby(["n", "fisher", "solver", "budget"])["gap"].median()
        _gap_axes(axes, len(panels), top=max(10.0, 3 * float(medians.max())))
        long = "gap to the best known (share of what the current mask leaves to gain)"
        figure.supylabel(long if rows > 1 else "gap (share of the gain)", fontsize=7)
        figure.legend(
            handles=palette.solver_handles(labels, tracks),
            loc="outside upper center", ncols=6, frameon=False,
        )  # fmt: skip
        palette.caption(
            figure,
            "Median, bars interquartile, over instances and seeds; grey band: at the best known. "
            + conditions(scored),
        )
    return figure


def _gap_curve(
    axis: Axes, part: pd.DataFrame, label: str, tracks: dict[str, str], zero: float
) -> None:
    if part.empty:
        return
    look = palette.style(label)
    groups = part.groupby("budget")
    x = pd.DataFrame({q: groups["wall"].quantile(q) for q in (0.25, 0.5, 0.75)})
    y = pd.DataFrame({q: groups["gap"].quantile(q) for q in (0.25, 0.5, 0.75)})
    y = y.clip(lower=FLOOR).where(y > 0, zero)
    order = x[0.5].to_numpy().argsort()
    x, y = x.iloc[order], y.iloc[order]
    axis.errorbar(
        x[0.5], y[0.5],
        xerr=np.array([x[0.5] - x[0.25], x[0.75] - x[0.5]]),
        yerr=np.array([y[0.5] - y[0.25], y[0.75] - y[0.5]]),
        color=look.colour, marker=look.marker, linestyle=palette.LINES.get(tracks[label], ":"),
        elinewidth=0.6, markeredgecolor="white", markeredgewidth=0.3,
    )  # fmt: skip


def _gap_axes(axes: Any, used: int, top: float) -> None:
    for position, axis in enumerate(axes.flat):
        if position >= used:
            axis.set_visible(False)
            continue
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_ylim(FLOOR * BAND, top)
        axis.axhspan(FLOOR * BAND, FLOOR, color="#F0F0F0", zorder=0)
        axis.set_yticks([FLOOR * BAND**0.5, 1e-5, 1e-3, 1e-1, 1], ["0", "10⁻⁵", "10⁻³", "0.1", "1"])
        axis.yaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        if position >= used - axes.shape[1]:
            axis.set_xlabel("wall time of the solver (s)")
            axis.xaxis.set_tick_params(labelbottom=True)


@figure(
    "ranking",
    "Ranking by size",
    lambda headline: _won(
        headline,
        "Table of solvers by number of variables with rank and median gap.",
        "Numbers: the table of ranks on this page.",
    ),
    always=2,
)
def ranking(runs: pd.DataFrame) -> Figure:
    """Solver x n: median gap as colour and number, rank in bold; reference tags per column.

    The longest time limit at each n counts. Instances on which nothing can be gained are left out.
    """
    table = rank_table(runs)
    fishers = glossary.fishers(table)
    tracks = palette.tracks(table)
    solvers = sorted(palette.ordered(set(tracks)), key=tracks.__getitem__)
    native = sum(tracks[solver] == "native" for solver in solvers)
    with palette.look():
        figure = palette.new_figure(palette.PAGE, 1.35 + 0.3 * len(solvers))
        widths = [table.loc[table["fisher"] == fisher, "n"].nunique() for fisher in fishers]
        axes = figure.subplots(
            1, max(1, len(fishers)), squeeze=False, sharey=True, width_ratios=widths or None
        )
        many = len(fishers) > 2
        norm = LogNorm(LEAST, 1)
        colours = colormaps["cividis_r"].with_extremes(under="#FFFDE0", bad="#EEEEEE")
        picture = None
        for axis, fisher in zip(axes.flat, fishers, strict=False):
            part = table[table["fisher"] == fisher]
            sizes = sorted(part["n"].unique())
            gaps = part.pivot_table(index="solver", columns="n", values="gap").reindex(
                index=solvers, columns=sizes
            )
            shown = np.where(gaps.to_numpy() > 0, gaps.to_numpy(), LEAST / 10)
            shown = np.ma.masked_where(gaps.isna().to_numpy(), shown)
            picture = axis.imshow(shown, cmap=colours, norm=norm, aspect="auto")
            _write_cells(axis, part, solvers, sizes)
            title = glossary.curvature(fisher) or "all instances"
            # Several narrow panels: as many letters a line as there are columns for.
            folded = textwrap.fill(title, 6 + 4 * len(sizes), break_long_words=False)
            axis.set_title(folded if many else title, loc="left")
            axis.set_xticks(range(len(sizes)), [_column_title(part, n) for n in sizes], fontsize=5)
            axis.set_xlabel("n" if many else "variables n; % of instances by what is known")
            axis.set_yticks(range(len(solvers)), solvers)
            axis.grid(visible=False)
            if 0 < native < len(solvers):
                axis.axhline(native - 0.5, color="white", linewidth=4)
                axis.axhline(native - 0.5, color="black", linewidth=0.8)
        if picture is not None:
            bar = figure.colorbar(picture, ax=axes, extend="min", pad=0.01, aspect=30)
            bar.set_label("median gap", fontsize=7)
        palette.caption(
            figure,
            "Bold: rank by median gap within the track (native above the line, penalised below), "
            "ties share it; under it the gap; n/a: no row. "
            f"Under n, the number of variables, of how many %: {LETTERS}. "
            "† late: most runs overran their time limit and do not rank. "
            + conditions(runs[runs["status"].isin(SCORED)]),
        )
    return figure


def _write_cells(axis: Axes, part: pd.DataFrame, solvers: list[str], sizes: list[int]) -> None:
    for _, row in part.iterrows():
        x, y = sizes.index(row["n"]), solvers.index(row["solver"])
        dark = row["gap"] > 1e-3
        rank = "†" if row["late"] else f"{row['rank']:.0f}"
        shade = "white" if dark else "black"
        axis.text(x, y - 0.2, rank, ha="center", va="center", color=shade, weight="bold",
                  fontsize=6)  # fmt: skip
        axis.text(x, y + 0.22, percent(row["gap"]), ha="center", va="center", color=shade,
                  fontsize=4.6)  # fmt: skip
    present = set(zip(part["solver"], part["n"], strict=True))
    for y, solver in enumerate(solvers):
        for x, n in enumerate(sizes):
            if (solver, n) not in present:
                axis.text(x, y, "n/a", ha="center", va="center", color="#777777", fontsize=5)


def _column_title(part: pd.DataFrame, n: int) -> str:
    row = part[part["n"] == n].iloc[0]
    tags = " ".join(f"{TAG_LETTERS[tag]}{100 * row[tag]:.0f}" for tag in TAGS if row[tag] > 0)
    return f"{n}\n{tags}"


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


def _staged(runs: pd.DataFrame) -> bool:
    return bool(runs.loc[runs["status"].isin(SCORED), list(STAGES)].notna().any(axis=None))


@figure(
    "time-spent",
    "Where the time went",
    lambda runs: (
        "Stacked bars: share of each stage in the end-to-end time per solver and number of "
        f"variables. {largest_stages(runs)} Numbers: the ledger table below."
    ),
    always=3,
    when=_staged,
)
def time_spent(runs: pd.DataFrame) -> Figure:
    """Share of each stage of the ledger per solver and n, the total beside it."""
    stages = list(palette.STAGES)
    scored = runs[runs["status"].isin(SCORED)]
    sizes = sorted(scored["n"].unique())
    columns = 2 if len(sizes) in (2, 4) else min(3, max(1, len(sizes)))
    rows = max(1, math.ceil(len(sizes) / columns))
    solvers = palette.ordered(set(scored["solver"]))[::-1]
    with palette.look():
        figure = palette.new_figure(palette.PAGE, 0.8 + rows * (0.45 + 0.145 * len(solvers)))
        axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for position, axis in enumerate(axes.flat):
            if position >= len(sizes):
                axis.set_visible(False)
                continue
            part = scored[scored["n"] == sizes[position]]
            mean = part.groupby("solver")[stages].mean().reindex(solvers)
            total = mean.sum(axis=1)
            left = np.zeros(len(solvers))
            for stage, (colour, hatch) in palette.STAGES.items():
                share = (mean[stage] / total).fillna(0.0).to_numpy()
                axis.barh(range(len(solvers)), share, left=left, height=0.72, color=colour,
                          hatch=hatch, edgecolor="#333333", linewidth=0.2)  # fmt: skip
                left += share
            for y, seconds in enumerate(total):
                text = "n/a" if pd.isna(seconds) or seconds == 0 else duration(seconds)
                axis.text(1.02, y, text, va="center", fontsize=5.5)
            axis.set_xlim(0, 1.24)
            axis.set_xticks([0, 0.5, 1], ["0", "50 %", "100 %"])
            axis.set_yticks(range(len(solvers)), solvers)
            axis.set_title(f"n = {sizes[position]}", loc="left")
            axis.grid(visible=False)
        handles = [Patch(facecolor=colour, hatch=hatch, edgecolor="#333333", linewidth=0.2,
                         label=stage)
                   for stage, (colour, hatch) in palette.STAGES.items()]  # fmt: skip
        figure.legend(handles=handles, loc="outside upper center", ncols=9, frameon=False)
        palette.caption(
            figure,
            "Share of the mean end-to-end time, its seconds at the right; all kinds of blocks of "
            "one size together. Build (cutting the block out of the model) and score (the "
            "runner's) are not charged to the solver. " + conditions(scored),
        )
    return figure


def _named(fisher: str) -> str:
    return f", {glossary.curvature(fisher)}" if fisher else ""
