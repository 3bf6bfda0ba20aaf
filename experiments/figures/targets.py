"""Figures of times to targets: ECDF, performance profile, time to solution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from experiments.figures import palette
from experiments.figures.figure import figure
from experiments.figures.runs import conditions
from experiments.metrics import formulas as metrics
from experiments.metrics import glossary, targets
from experiments.metrics.readable import duration, percent
from experiments.metrics.references import SCORED

PROFILED = (0.01, 0.0)
"""Targets of the performance profile."""


def _named(fisher: str) -> str:
    return glossary.curvature(fisher) or "all instances"


def _target(gap: float) -> str:
    return "the best known" if gap == 0 else f"a gap of {percent(gap)}"


def in_the_end(runs: pd.DataFrame, incumbents: pd.DataFrame) -> str:
    """Share of targets that each solver reaches in the end, by curvature, in words."""
    table = targets.times(runs, incumbents)
    said = []
    for fisher in glossary.fishers(table):
        part = table[table["fisher"] == fisher]
        shares = part["seconds"].lt(float("inf")).groupby(part["solver"]).mean()
        ordered = shares.sort_values(ascending=False, kind="stable")
        names = ", ".join(f"{name} {100 * share:.0f} %" for name, share in ordered.items())
        said.append(f"{_named(fisher)}: {names}")
    return "; ".join(said)


@figure(
    "ecdf",
    "Targets reached within a time",
    lambda runs, incumbents: (
        "Share of pairs of run and target reached against seconds, a line a solver. In the end: "
        f"{in_the_end(runs, incumbents)}."
    ),
)
def ecdf(runs: pd.DataFrame, incumbents: pd.DataFrame) -> Figure:
    """Share of (run, target) pairs reached within a time, a panel a Fisher."""
    reached = targets.times(runs, incumbents)
    fishers, tracks = glossary.fishers(reached), palette.tracks(reached)
    labels = palette.ordered(set(reached["solver"]))
    finite = reached.loc[np.isfinite(reached["seconds"]), "seconds"]
    ends = (max(finite.min(), 1e-6), finite.max()) if len(finite) else (1e-3, 1.0)
    grid = np.geomspace(ends[0] * 0.8, ends[1] * 1.3, 400)
    with palette.look():
        figure, axes = _panels(len(fishers))
        for axis, fisher in zip(axes, fishers, strict=True):
            part = reached[reached["fisher"] == fisher]
            for place, label in enumerate(labels):
                one = part[part["solver"] == label]
                if len(one):
                    curve = metrics.ecdf(one["seconds"], grid)
                    _curve(axis, grid, curve, label, tracks, place, len(labels))
            axis.set_xscale("log")
            axis.set_ylim(-0.02, 1.02)
            axis.set_xlabel("seconds since the solver was called")
            low, high = part["n"].min(), part["n"].max()
            sizes = f"{low} to {high}" if low < high else low
            axis.set_title(f"{_named(fisher)}, n = {sizes}", loc="left")
        figure.supylabel("share of (run, target) pairs reached", fontsize=7)
        axes[0].yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.0f} %"))
        _legend(figure, labels, tracks)
        goals = ", ".join(_target(t) for t in targets.TARGETS)
        palette.caption(
            figure,
            f"Targets: {goals}. Runs that never get there, fail or are skipped as too large for "
            f"their solver count as not reached. Largest time limit. {conditions(runs)}",
        )
    return figure


def _quickest(runs: pd.DataFrame, incumbents: pd.DataFrame) -> str:
    reached = targets.times(runs, incumbents, PROFILED)
    said = []
    for fisher in glossary.fishers(reached):
        part = reached[reached["fisher"] == fisher]
        for target in PROFILED:
            first = targets.profile(part, target, [1.0]).iloc[0]
            best = first.sort_values(ascending=False, kind="stable").head(3)
            names = ", ".join(f"{name} {100 * share:.0f} %" for name, share in best.items())
            said.append(
                f"The quickest to {_target(target)}, by share of the instances "
                f"({_named(fisher)}): {names}."
            )
    return " ".join(said)


@figure(
    "profile",
    "Performance profiles",
    lambda runs, incumbents: (
        "Share of instances on which a solver's expected running time to a gap of 1 % and to the "
        "best known is within a factor of the quickest solver's. "
        f"{_quickest(runs, incumbents)}"
    ),
)
def profile(runs: pd.DataFrame, incumbents: pd.DataFrame) -> Figure:
    """Dolan-More performance profiles of the expected running time to two targets."""
    reached = targets.times(runs, incumbents, PROFILED)
    fishers, tracks = glossary.fishers(reached), palette.tracks(reached)
    labels = palette.ordered(set(reached["solver"]))
    ratios = np.geomspace(1, 1e5, 300).tolist()
    with palette.look():
        figure = palette.new_figure(palette.PAGE, 1.1 + 1.75 * len(fishers))
        axes = figure.subplots(len(fishers), len(PROFILED), squeeze=False, sharey=True, sharex=True)
        for row, fisher in zip(axes, fishers, strict=True):
            part = reached[reached["fisher"] == fisher]
            count = part["instance"].nunique()
            for axis, target in zip(row, PROFILED, strict=True):
                table = targets.profile(part, target, ratios)
                for place, label in enumerate(labels):
                    if label in table:
                        _curve(axis, ratios, table[label], label, tracks, place, len(labels))
                axis.set_xscale("log")
                axis.set_ylim(-0.02, 1.02)
                axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.0f} %"))
                axis.set_title(
                    f"{_named(fisher)} ({count}), to {_target(target)}", loc="left", fontsize=7
                )
        for axis in axes[-1]:
            axis.set_xlabel("times as long as the quickest solver of the instance (τ)")
        figure.supylabel("share of instances solved within τ", fontsize=7)
        _legend(figure, labels, tracks)
        palette.caption(
            figure,
            "Expected running time (ERT) to the target over seeds: seconds of all runs over the "
            "number that got there; in brackets the number of instances. Where a curve starts: the "
            f"share on which the solver is the quickest. {conditions(runs)}",
        )
    return figure


def _in_words(runs: pd.DataFrame) -> str:
    table = targets.solutions(runs)
    said = []
    for fisher in glossary.fishers(table):
        part = table[table["fisher"] == fisher]
        top = part[part["n"] == part["n"].max()].sort_values("tts")
        names = ", ".join(
            f"{row['solver']} {duration(row['tts']) if row['tts'] < float('inf') else 'never'}"
            for row in top.to_dict("records")
        )
        said.append(f"At n = {part['n'].max()}{glossary.in_brackets(fisher)}: {names}.")
    return " ".join(said)


@figure(
    "tts",
    "Time to solution",
    lambda runs: f"Time to solution at 99 % against the number of variables. {_in_words(runs)}",
)
def time_to_solution(runs: pd.DataFrame) -> Figure:
    """Time to solution at 99 % against n with bootstrap intervals, a panel a Fisher."""
    table = targets.solutions(runs)
    fishers, tracks = glossary.fishers(table), palette.tracks(table)
    labels = palette.ordered(set(table["solver"]))
    finite = table.loc[np.isfinite(table["tts"]), "tts"]
    top = finite.max() * 10 if len(finite) else 1.0
    with palette.look():
        figure, axes = _panels(len(fishers))
        for axis, fisher in zip(axes, fishers, strict=True):
            for place, label in enumerate(labels):
                one = table[(table["fisher"] == fisher) & (table["solver"] == label)]
                _solved(axis, one.sort_values("n"), label, tracks, top * 1.25**place, place)
            axis.set_xscale("log", base=2)
            axis.set_yscale("log")
            axis.axhspan(top * 0.8, top * 1.25 ** (len(labels) + 1), color="#F0F0F0", zorder=0)
            sizes = sorted(table.loc[table["fisher"] == fisher, "n"].unique())
            axis.set_xticks(sizes, [str(n) for n in sizes])
            axis.xaxis.set_minor_locator(NullLocator())
            axis.set_xlabel("variables n")
            axis.set_title(_named(fisher), loc="left")
        figure.supylabel("time to solution at 99 % (s)", fontsize=7)
        _legend(figure, labels, tracks)
        palette.caption(
            figure,
            "Median over instances of t ln 0.01 / ln(1 - p), at least one read: p the share of "
            "reads at the best known, t the wall time of a read, set-up included. Bars: 95 % "
            "bootstrap over instances and runs. Grey band: the median instance was never solved. "
            f"{conditions(runs[runs['status'].isin(SCORED)])}",
        )
    return figure


def _solved(
    axis: Axes, one: pd.DataFrame, label: str, tracks: dict[str, str], never: float, place: int
) -> None:
    if one.empty:
        return
    look, shift = palette.style(label), 1.02**place
    solved = np.isfinite(one["tts"])
    y = one["tts"].where(solved, never)
    x = one["n"] * shift
    axis.plot(
        x, y.where(solved), color=look.colour, linestyle=palette.LINES.get(tracks[label], ":")
    )
    high = one["high"].clip(upper=never)
    bars = np.array([(y - one["low"]).clip(lower=0).where(solved, 0), (high - y).clip(lower=0)])
    axis.errorbar(x, y, yerr=bars, color=look.colour, marker=look.marker, linestyle="none",
                  elinewidth=0.6, markeredgecolor="white", markeredgewidth=0.3)  # fmt: skip


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels: side by side, from three on two in a row."""
    rows = 1 if count < 3 else math.ceil(count / 2)
    figure = palette.new_figure(palette.PAGE, 1.3 + 1.8 * rows)
    axes = figure.subplots(rows, min(count, 2), squeeze=False, sharey=True)
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    return figure, list(axes.flat[:count])


def _curve(
    axis: Axes, x: Any, y: Any, label: str, tracks: dict[str, str], place: int, of: int
) -> None:
    """A line with a few markers, shifted from solver to solver so that none hides another."""
    look = palette.style(label)
    step = math.ceil(len(x) / 4)
    axis.plot(x, y, color=look.colour, linestyle=palette.LINES.get(tracks.get(label, ""), ":"),
              marker=look.marker, markevery=(place * step // max(1, of), step), markersize=3.5,
              drawstyle="steps-post")  # fmt: skip


def _legend(figure: Figure, labels: Sequence[str], tracks: dict[str, str]) -> None:
    figure.legend(handles=palette.solver_handles(list(labels), tracks), loc="outside upper center",
                  ncols=6, frameon=False)  # fmt: skip
