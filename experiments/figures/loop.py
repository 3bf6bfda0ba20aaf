"""Figures of the closed loop: the model by who drives it, and by what every block leaves undone."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from experiments.figures import palette
from experiments.figures.figure import figure
from experiments.metrics.references import SCORED


def _ends(loop: pd.DataFrame, by: str) -> pd.Series:
    """Mean accuracy in the end, of real or of artificial contestants."""
    own = loop["gap"].isna() if by == "contestant" else loop["gap"].notna()
    ends = loop[own & (loop["step"] == loop["step"].max())]
    return ends.groupby(by)["accuracy"].mean()


def _drivers(loop: pd.DataFrame) -> str:
    means = _ends(loop, "contestant").sort_values(ascending=False)
    said = "; ".join(f"{name} {100 * value:.1f} %" for name, value in means.items())
    return f"Test loss and accuracy against seconds of the loop. Accuracy at the end: {said}."


@figure(
    "loop",
    "The model, by who drives the loop",
    _drivers,
    always=8,
    when=lambda loop: loop is not None and len(_ends(loop, "contestant")) > 1,
)
def trajectories(loop: pd.DataFrame) -> Figure:
    """Test loss and accuracy of the pruned model against seconds of the loop, by solver.

    Args:
        loop: of `experiments.running.closedloop`; artificial contestants are left out.
    """
    real = loop[loop["gap"].isna()]
    labels = palette.ordered(set(real["contestant"]))
    with palette.look():
        figure = palette.new_figure(palette.PAGE, 2.6)
        axes = figure.subplots(1, 2)
        for axis, column in zip(axes, ("loss", "accuracy"), strict=True):
            for label in labels:
                part = real[real["contestant"] == label].groupby("step")[["seconds", column]].mean()
                look = palette.style(label)
                axis.plot(part["seconds"], part[column], color=look.colour, marker=look.marker,
                          markersize=3, label=label)  # fmt: skip
            axis.set_xlabel("seconds of the loop after the fork")
        axes[0].set_ylabel("test loss (nats per target)")
        axes[1].set_ylabel("test accuracy")
        axes[1].yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.1f} %"))
        handles, names = axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=6, frameon=False)
        steps = int(real["step"].max())
        palette.caption(
            figure,
            f"{real['model'].iloc[0]}, mean over {real['seed'].nunique()} seed(s); a marker a "
            f"step, {steps} steps from the same state; evaluation off the clock.",
        )
    return figure


def _left(loop: pd.DataFrame) -> str:
    said = "; ".join(
        f"gap {gap:g}: {100 * value:.1f} %" for gap, value in _ends(loop, "gap").items()
    )
    return (
        "Test loss and accuracy at the end of the loop against the share of each block's gain "
        f"that was left on the table. Mean accuracy: {said}."
    )


@figure(
    "loss",
    "When solver quality stops mattering",
    _left,
    always=9,
    when=lambda loop: loop is not None and loop["gap"].notna().any(),
)
def loss_by_gap(loop: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """What the loop ends at if every block is solved to a chosen gap; real solvers' gaps as ticks.

    Args:
        loop: of `experiments.running.closedloop`, with artificial contestants.
        runs: of the same study: real solvers on the blocks of the fork.
    """
    last = loop[loop["step"] == loop["step"].max()]
    child = last.loc[last["gap"].notna(), "contestant"].iloc[0].rpartition(" leaving ")[0]
    first = last[last["contestant"] == child]
    chosen = pd.concat([first.assign(gap=0.0), last[last["gap"].notna()]])
    floor = chosen.loc[chosen["gap"] > 0, "gap"].min() / 3
    start = loop[loop["step"] == 0]
    scored = runs[runs["status"].isin(SCORED)]
    gaps = scored.groupby("solver")["gap"].median()
    with palette.look():
        figure = palette.new_figure(palette.PAGE, 2.8)
        axes = figure.subplots(1, 2)
        for axis, column in zip(axes, ("loss", "accuracy"), strict=True):
            x = chosen["gap"].clip(lower=floor)
            axis.plot(x, chosen[column], "o", color="#0072B2", alpha=0.5, markersize=3)
            mean = chosen.groupby("gap")[column].mean()
            axis.plot(mean.index.to_numpy().clip(min=floor), mean, color="#0072B2",
                      label="every block solved to this gap")  # fmt: skip
            axis.axhline(start[column].mean(), color="#666666", linestyle=":",
                         label="before the first step")  # fmt: skip
            axis.set_xscale("log")
            axis.set_xticks([floor, 0.001, 0.01, 0.1, 1], ["0", "0.1 %", "1 %", "10 %", "100 %"])
            axis.xaxis.set_minor_locator(NullLocator())
            axis.set_xlabel("share of each block's gain left on the table")
            low, high = axis.get_ylim()
            axis.set_ylim(low - 0.3 * (high - low), high)
            # One above the other: most of them are at 0.
            for place, solver in enumerate(palette.ordered(set(gaps.index))):
                look, height = palette.style(solver), 0.02 + 0.035 * place
                axis.plot([max(float(gaps[solver]), floor)], [height], marker=look.marker,
                          color=look.colour, transform=axis.get_xaxis_transform(), clip_on=False,
                          linestyle="none", label=f"gap of {solver}")  # fmt: skip
        axes[0].set_ylabel("test loss at the end (nats per target)")
        axes[1].set_ylabel("test accuracy at the end")
        axes[1].yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.4g} %"))
        handles, names = axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=4, frameon=False)
        palette.caption(
            figure,
            f"{loop['model'].iloc[0]}, {int(loop['step'].max())} steps, a dot a seed, lines are "
            "means. Markers at the foot: median gap of real solvers on the blocks of the first "
            "step, the time limit that of the loop.",
        )
    return figure
