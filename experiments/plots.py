"""The figures of a study. Each states its reference tags, lanes, clock and who had the incumbent.

Every function takes data frames and returns a matplotlib figure; `experiments.palette.save` writes
it as PDF, SVG and PNG.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullLocator

from experiments import palette
from experiments.ranking import duration, percent, rank_table
from experiments.references import SCORED, TAGS

# A logarithmic axis ends here; below lies a band labelled 0, where each solver has its own height
# so that those at the reference do not hide each other.
FLOOR = 1e-7
BAND = 1e-3
# Gaps below this share one colour of the ranking.
LEAST = 1e-6
TAG_LETTERS = {"exact": "E", "bounded": "B", "best-known": "K"}
CLOCK = "clock: the runner's wall time of the whole call, warm-up outside"


def conditions(runs: pd.DataFrame) -> str:
    """Reference tags, lanes, clock and incumbent of the runs behind a figure, in one line."""
    per_instance = runs.drop_duplicates("instance")["tag"].value_counts()
    tags = ", ".join(f"{tag} on {per_instance[tag]}" for tag in TAGS if tag in per_instance)
    got = sorted(set(runs.loc[runs["received_incumbent"].fillna(False).astype(bool), "solver"]))
    start = f"incumbent given to {', '.join(got)}" if got else "incumbent given to nobody"
    lanes = "native solid, penalised dashed (after repair)"
    return f"Reference: {tags} instances. Lanes: {lanes}. {CLOCK}. {start}.".replace(
        ". clock", ". Clock"
    ).replace(". incumbent", ". Incumbent")


def gap_against_wall(runs: pd.DataFrame) -> Figure:
    """Median gap against median wall time per solver and budget, one panel per n and Fisher.

    Bars are interquartile ranges over instances and seeds. Gaps at the reference lie on the axis'
    floor, labelled 0.
    """
    scored = runs[runs["status"].isin(SCORED) & runs["gap"].notna()]
    scored = scored.assign(fisher=scored["fisher"].fillna(""))
    sizes, fishers = sorted(scored["n"].unique()), _fishers(scored)
    columns = len(fishers) if len(fishers) > 1 else min(2, max(1, len(sizes)))
    panels = [(n, f) for n in sizes for f in fishers]
    rows = max(1, math.ceil(len(panels) / columns))
    with palette.look():
        figure = palette.new_figure(palette.PAGE, 0.95 + 1.55 * rows)
        axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        labels = palette.ordered(set(scored["solver"]))
        lanes = _lanes(scored)
        for axis, (n, fisher) in zip(axes.flat, panels, strict=False):
            part = scored[(scored["n"] == n) & (scored["fisher"] == fisher)]
            for place, label in enumerate(labels):
                zero = FLOOR * BAND ** ((place + 1) / (len(labels) + 1))
                _gap_curve(axis, part[part["solver"] == label], label, lanes, zero)
            tags = part.drop_duplicates("instance")["tag"].value_counts()
            note = ", ".join(f"{tags[t]} {t}" for t in TAGS if t in tags)
            axis.set_title(f"n = {n}{_named(fisher)}  ({note})", loc="left")
        _gap_axes(axes, len(panels))
        figure.supylabel("gap to the reference (share of the incumbent's gain)", fontsize=7)
        figure.legend(
            handles=palette.solver_handles(labels, lanes),
            loc="outside upper center", ncols=6, frameon=False,
        )  # fmt: skip
        palette.caption(
            figure,
            "Median, bars interquartile, over instances and seeds; grey band: at the reference. "
            + conditions(scored),
        )
    return figure


def _gap_curve(
    axis: Axes, part: pd.DataFrame, label: str, lanes: dict[str, str], zero: float
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
        xerr=[x[0.5] - x[0.25], x[0.75] - x[0.5]], yerr=[y[0.5] - y[0.25], y[0.75] - y[0.5]],
        color=look.colour, marker=look.marker, linestyle=palette.LANES.get(lanes[label], ":"),
        elinewidth=0.6, markeredgecolor="white", markeredgewidth=0.3,
    )  # fmt: skip


def _gap_axes(axes: Any, used: int) -> None:
    for position, axis in enumerate(axes.flat):
        if position >= used:
            axis.set_visible(False)
            continue
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_ylim(FLOOR * BAND, 3)
        axis.axhspan(FLOOR * BAND, FLOOR, color="#F0F0F0", zorder=0)
        axis.set_yticks([FLOOR * BAND**0.5, 1e-5, 1e-3, 1e-1, 1], ["0", "10⁻⁵", "10⁻³", "0.1", "1"])
        axis.yaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        if position >= used - axes.shape[1]:
            axis.set_xlabel("wall time of the solver (s)")
            axis.xaxis.set_tick_params(labelbottom=True)


def ranking(runs: pd.DataFrame) -> Figure:
    """Solver x n: median gap as colour and number, rank in bold; reference tags per column.

    The longest time limit at each n counts. Instances on which nothing can be gained are left out.
    """
    table = rank_table(runs)
    fishers = _fishers(table)
    solvers = palette.ordered(set(table["solver"]))
    with palette.look():
        figure = palette.new_figure(palette.PAGE, 1.35 + 0.3 * len(solvers))
        axes = figure.subplots(1, max(1, len(fishers)), squeeze=False, sharey=True)
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
            axis.set_title(f"Fisher: {fisher}" if fisher else "all instances", loc="left")
            axis.set_xticks(range(len(sizes)), [_column_title(part, n) for n in sizes], fontsize=5)
            axis.set_xlabel("variables n; reference of how many % of instances")
            axis.set_yticks(range(len(solvers)), solvers)
            axis.grid(visible=False)
        if picture is not None:
            bar = figure.colorbar(picture, ax=axes, extend="min", pad=0.01, aspect=30)
            bar.set_label("median gap", fontsize=7)
        palette.caption(
            figure,
            "Bold: rank by median gap, ties share it; below: the gap; n/a: no row. References: "
            "E exact, B bounded, K best-known. "
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


def time_spent(runs: pd.DataFrame) -> Figure:
    """Share of each stage of the ledger per solver and n, the total beside it."""
    stages = list(palette.STAGES)
    scored = runs[runs["status"].isin(SCORED)]
    sizes = sorted(scored["n"].unique())
    columns = min(3, max(1, len(sizes)))
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
        figure.legend(handles=handles, loc="outside upper center", ncols=8, frameon=False)
        palette.caption(
            figure,
            "Share of the mean end-to-end time, its seconds at the right. Build (cutting the block "
            "out of the model) and score (the runner's) are not charged to the solver. "
            + conditions(scored),
        )
    return figure


def hardness(instances: pd.DataFrame) -> Figure:
    """Curvature share, effective rank and bound gap of every instance, by n and Fisher."""
    panels = (
        ("curvature_share", "curvature share of the gain", True),
        ("effective_rank", "effective rank of the curvature", False),
        ("bound_gap", "bound gap (share of the gain)", True),
    )
    fishers = _fishers(instances)
    frame = instances.assign(fisher=instances["fisher"].fillna(""))
    with palette.look():
        figure = palette.new_figure(palette.PAGE, 2.5)
        axes = figure.subplots(1, 3)
        for axis, (column, title, log) in zip(axes, panels, strict=True):
            values = frame[column].astype(float)
            floor = 1e-9 if column == "bound_gap" else 1e-6
            for fisher in fishers:
                look = _fisher_style(fisher)
                part = frame[frame["fisher"] == fisher]
                y = values[part.index].clip(lower=floor) if log else values[part.index]
                axis.plot(part["n"], y, look.marker, color=look.colour, alpha=0.6, markersize=3.5,
                          markeredgewidth=0, clip_on=False)  # fmt: skip
                middle = y.groupby(part["n"]).median()
                axis.plot(middle.index, middle, color=look.colour)
            axis.set_xscale("log", base=2)
            axis.set_xticks(sorted(frame["n"].unique()))
            axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0f}"))
            axis.xaxis.set_minor_locator(NullLocator())
            if log:
                axis.set_yscale("log")
                top = max(1.0, 2 * float(values.max())) if values.notna().any() else 1.0
                axis.set_ylim(floor, top)
                if (values <= floor).any():
                    powers = [e for e in (-7, -5, -3, -1) if 10.0**e > floor]
                    axis.set_yticks(
                        [floor, *(10.0**e for e in powers)],
                        ["0", *(f"$10^{{{e}}}$" for e in powers)],
                    )
            else:
                axis.set_ylim(bottom=0)
            axis.set_xlabel("variables n")
            axis.set_title(title, loc="left")
        handles = [Line2D([], [], color=_fisher_style(f).colour, marker=_fisher_style(f).marker,
                          label=f"{f} Fisher" if f else "all instances")
                   for f in fishers]  # fmt: skip
        figure.legend(handles=handles, loc="outside upper center", ncols=2, frameon=False)
        palette.caption(
            figure,
            "A dot an instance, lines are medians. No solver of the study took part: bound and "
            "rounded state are the relaxation's. Bound gap 0: the optimum is certified.",
        )
    return figure


def predicted_against_measured(steps: pd.DataFrame) -> Figure:
    """Loss change the quadratic model predicts against the one measured, a dot an applied mask.

    Args:
        steps: columns predicted, measured (loss units); optional layer, fisher, step, n.
    """
    frame = steps.dropna(subset=["predicted", "measured"])
    fisher = frame["fisher"].fillna("") if "fisher" in frame else pd.Series("", index=frame.index)
    loop = frame["step"].fillna(0) > 0 if "step" in frame else pd.Series(False, index=frame.index)
    sizes = np.abs(frame[["predicted", "measured"]].to_numpy())
    sizes = sizes[sizes > 0]
    reach = float(sizes.max()) * 2 if len(sizes) else 1.0
    near = 10 ** math.floor(math.log10(np.quantile(sizes, 0.1))) if len(sizes) else 1e-3
    with palette.look():
        figure = palette.new_figure(palette.COLUMN, 3.6)
        axis = figure.subplots()
        axis.plot([-reach, reach], [-reach, reach], color="#999999", linewidth=0.7, zorder=1)
        handles = []
        for name in _fishers(frame):
            for one, kind in ((False, "single blocks"), (True, "whole steps")):
                part = frame[(fisher == name) & (loop == one)]
                if part.empty:
                    continue
                look = _fisher_style(name)
                text = f"{kind}, {name} Fisher" if name else kind
                handles += axis.plot(
                    part["predicted"], part["measured"], look.marker, color=look.colour,
                    markerfacecolor=look.colour if one else "none", linestyle="none", label=text,
                )  # fmt: skip
        for put in (axis.set_xscale, axis.set_yscale):
            put("symlog", linthresh=near)
        shown = frame[["predicted", "measured"]].to_numpy()
        ends = (-reach if (shown < 0).any() else -near, reach if (shown > near).any() else near)
        axis.set_xlim(*ends)
        axis.set_ylim(*ends)
        for line in (axis.axhline, axis.axvline):
            line(0, color="#666666", linewidth=0.6)
        ticks = [10.0**e for e in range(round(math.log10(near)), math.ceil(math.log10(reach)))]
        ticks = ticks[:: max(1, math.ceil(len(ticks) / 3))]
        both = [*(-t for t in reversed(ticks)), 0.0, *ticks]
        both = [t for t in both if ends[0] <= t <= ends[1]]
        axis.set_xticks(both, [f"{t:g}" for t in both])
        axis.set_yticks(both, [f"{t:g}" for t in both])
        axis.set_xlabel("predicted change of the loss (nats per token)")
        axis.set_ylabel("measured change of the loss")
        figure.legend(
            handles=handles, frameon=False, loc="outside upper center", ncols=2, fontsize=6
        )
        palette.caption(
            figure,
            f"On the grey line the model is right; below 0 the mask helped. Axes are linear "
            f"within ±{near:g}. Loss of the calibration batch for single blocks, of the held-out "
            "batch for whole steps.",
        )
    return figure


def _fishers(frame: pd.DataFrame) -> list[str]:
    known = list(palette.FISHERS)
    found = set(frame["fisher"].fillna("")) if "fisher" in frame else {""}
    return sorted(found, key=lambda f: (known.index(f) if f in known else len(known), f)) or [""]


def _fisher_style(fisher: str) -> palette.Style:
    return palette.FISHERS.get(fisher, palette.Style("#009E73", "s"))


def _named(fisher: str) -> str:
    return f", {fisher} Fisher" if fisher else ""


def _lanes(runs: pd.DataFrame) -> dict[str, str]:
    return dict(runs.dropna(subset=["lane"]).groupby("solver")["lane"].first())
