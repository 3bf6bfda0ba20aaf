"""Figures of the blocks themselves: how hard they are, and whether their loss model is right."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from experiments.figures import palette
from experiments.figures.figure import figure
from experiments.metrics import glossary
from experiments.metrics.readable import share
from experiments.metrics.references import EQUAL, SCORED

# Sizes beyond this many would touch one another.
MOST_UPRIGHT = 4


def how_hard(instances: pd.DataFrame) -> str:
    """How hard the problems are, in words."""
    certified = int((instances["bound_gap"] <= EQUAL).sum())
    part = instances["curvature_share"].dropna()
    text = (
        "The relaxation alone, which also computes a bound, proves the best answer of "
        f"{certified} of {len(instances)} problems"
    )
    open_gap = instances["bound_gap"].max()
    if certified < len(instances) and pd.notna(open_gap):
        text += f"; on the others a better one could be ahead by {share(float(open_gap))} at most"
    if len(part):
        text += (
            ". The curvature takes back "
            f"{share(float(part.median()))} of the gain in the median problem, and "
            f"{share(float(part.min()))} to {share(float(part.max()))} in all: near 0 % sorting by "
            "gradients is enough, above 100 % more than half of what they promise is lost"
        )
    return f"{text}."


@figure(
    "hardness",
    "Instance hardness",
    lambda instances: (
        "Curvature share of the gain, effective rank of the curvature and bound gap against the "
        f"number of variables. {how_hard(instances)} Numbers: the hardness table on this page."
    ),
    always=4,
    # Where nothing was solved nobody asks how hard it was.
    when=lambda runs: bool(runs["status"].isin(SCORED).any()),
)
def hardness(instances: pd.DataFrame) -> Figure:
    """Curvature share, effective rank and bound gap of every instance, by n and Fisher."""
    panels = (
        ("curvature_share", "curvature share of the gain", True),
        ("effective_rank", "effective rank of the curvature", False),
        ("bound_gap", "bound gap (share of the gain)", True),
    )
    fishers = glossary.fishers(instances)
    frame = instances.assign(fisher=instances["fisher"].fillna(""))
    with palette.look():
        figure = palette.new_figure(palette.PAGE, 2.5)
        axes = figure.subplots(1, 3)
        for axis, (column, title, log) in zip(axes, panels, strict=True):
            values = frame[column].astype(float)
            floor = 1e-9 if column == "bound_gap" else 1e-6
            for fisher in fishers:
                look = palette.fisher_style(fisher)
                part = frame[frame["fisher"] == fisher]
                y = values[part.index].clip(lower=floor) if log else values[part.index]
                axis.plot(part["n"], y, marker=look.marker, linestyle="none", color=look.colour,
                          alpha=0.6, markersize=3.5, markeredgewidth=0, clip_on=False)  # fmt: skip
                middle = y.groupby(part["n"]).median()
                axis.plot(middle.index, middle, color=look.colour)
            axis.set_xscale("log", base=2)
            axis.set_xticks(sorted(frame["n"].unique()))
            axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0f}"))
            axis.xaxis.set_minor_locator(NullLocator())
            if frame["n"].nunique() > MOST_UPRIGHT:
                axis.tick_params("x", rotation=60)
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
        styles = {f: palette.fisher_style(f) for f in fishers}
        handles = [Line2D([], [], color=look.colour, marker=look.marker,
                          label=glossary.curvature(f) or "all instances")
                   for f, look in styles.items()]  # fmt: skip
        figure.legend(handles=handles, loc="outside upper center", ncols=2, frameon=False)
        palette.caption(
            figure,
            "A dot an instance, lines are medians. No solver of the study took part: bound and "
            "rounded state are the relaxation's. Bound gap 0: the optimum is certified.",
        )
    return figure


@figure(
    "predicted-against-measured",
    "Predicted against measured loss change",
    "Scatter of the loss change the quadratic model predicts for an applied mask against the "
    "measured one; the same numbers are in the table of applied masks on this page.",
    always=5,
    when=lambda steps: steps is not None and {"predicted", "measured"} <= set(steps),
)
def predicted_against_measured(steps: pd.DataFrame) -> Figure:
    """Loss change the quadratic model predicts against the one measured, a dot an applied mask.

    Args:
        steps: columns predicted, measured (loss units); optional fisher, step (0: a single block)
            and batch, which names the data the loss was measured on.
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
        for name in glossary.fishers(frame):
            for one, kind in ((False, "single blocks"), (True, "whole steps")):
                part = frame[(fisher == name) & (loop == one)]
                if part.empty:
                    continue
                look = palette.fisher_style(name)
                text = f"{kind}, {glossary.curvature(name)}" if name else kind
                handles += axis.plot(
                    part["predicted"], part["measured"], marker=look.marker, color=look.colour,
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
            f"within ±{near:g}. {_batches(frame, loop)}",
        )
    return figure


def _batches(frame: pd.DataFrame, loop: pd.Series) -> str:
    """Which data the losses are of, as far as the steps say."""
    if "batch" not in frame:
        return ""
    said = []
    for one, kind in ((False, "single blocks"), (True, "whole steps")):
        names = sorted(set(frame.loc[loop == one, "batch"].dropna()))
        if names:
            said.append(f"Loss of {kind}: {', '.join(names)}.")
    return " ".join(said)
