"""Figures of single studies: anytime curves, the penalty, the ladder of sizes."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from experiments.figures import palette
from experiments.figures.figure import figure
from experiments.figures.runs import LETTERS, TAG_LETTERS, conditions
from experiments.metrics import anytime, glossary
from experiments.metrics.readable import duration, percent
from experiments.metrics.references import SCORED

_LEAST = 1e-6


def _leaders(runs: pd.DataFrame, incumbents: pd.DataFrame) -> str:
    """Where the accounting changes who leads, in words."""
    table = anytime.summary(runs, anytime.clocked(runs, incumbents), "native")
    if table.empty:
        return "In the native track the leaders are the same on all three clocks at all times."
    parts = [
        f"n = {row['n']}{glossary.in_brackets(row['fisher'])}, {row['accounting']}, "
        f"{duration(row['start'])} to {duration(row['end'])}: {row['instead']} instead of "
        f"{row['wall']}"
        for row in table.to_dict("records")
    ]
    more = f", and {len(parts) - 6} more" if len(parts) > 6 else ""
    return f"Other leaders than by the wall clock, native track: {'; '.join(parts[:6])}{more}."


@figure(
    "anytime",
    "The same runs on three clocks",
    lambda runs, incumbents: (
        "Median gap against time by the solver's execution alone, by the whole call, and end to "
        f"end with the cutting of the block. {_leaders(runs, incumbents)}"
    ),
)
def anytime_curves(runs: pd.DataFrame, incumbents: pd.DataFrame) -> Figure:
    """Median gap against time on three clocks; grey where the leader differs from the wall clock's.

    A row a size and curvature: the largest of each curvature, see `_largest`.
    """
    improvements = anytime.clocked(runs, incumbents)
    kept = runs[~runs["flat"].astype(bool)].assign(fisher=lambda f: f["fisher"].fillna(""))
    groups = _largest(kept)
    labels = palette.ordered(set(runs.loc[runs["status"].isin(SCORED), "solver"]))
    tracks = palette.tracks(runs)
    with palette.look():
        figure = palette.new_figure(palette.PAGE, 1.1 + 1.6 * max(1, len(groups)))
        axes = figure.subplots(max(1, len(groups)), 3, squeeze=False, sharey=True, sharex="row")
        for row, (n, fisher) in zip(axes, groups, strict=False):
            part = kept[(kept["n"] == n) & (kept["fisher"] == fisher)]
            own = improvements[improvements["run"].isin(part["key"])]
            grid = anytime.time_grid(own)
            curves = {a: anytime.median_curves(part, own, grid, a) for a in anytime.ACCOUNTINGS}
            found = anytime.changes(curves)
            for axis, accounting in zip(row, anytime.ACCOUNTINGS, strict=True):
                _anytime_panel(axis, curves[accounting], labels, tracks)
                palette.log_ticks(axis.xaxis, grid[0], grid[-1])
                spans = found.loc[found["accounting"] == accounting, ["start", "end"]]
                for start, end in spans.to_numpy(dtype=float):
                    axis.axvspan(start, max(end, 1.05 * start), color="#E4E4E4", zorder=0)
                title = f"n = {n}{glossary.in_brackets(fisher)}"
                axis.set_title(f"{title}\n{accounting}", loc="left")
        for axis in axes[-1]:
            axis.set_xlabel("seconds")
        figure.supylabel("median gap to the best known", fontsize=7)
        figure.legend(handles=palette.solver_handles(labels, tracks), loc="outside upper center",
                      ncols=6, frameon=False)  # fmt: skip
        palette.caption(
            figure,
            "The largest sizes of each curvature. "
            "Execute: the solver's execution alone. Wall: the whole call. End to end: cutting the "
            "block comes first. Grey: another leader than on the wall clock (all tracks together). "
            f"At the foot of an axis: at the best known. Largest time limit of each solver. "
            f"{conditions(runs)}",
        )
    return figure


def _largest(runs: pd.DataFrame) -> list[tuple[int, str]]:
    """The largest sizes of each curvature, fewer of each where there are several."""
    fishers = glossary.fishers(runs)
    each = {1: 3, 2: 2}.get(len(fishers), 1)
    sizes = {fisher: sorted(runs.loc[runs["fisher"] == fisher, "n"].unique()) for fisher in fishers}
    return [(int(n), fisher) for fisher in fishers for n in sizes[fisher][-each:]]


def _anytime_panel(
    axis: Axes, curves: pd.DataFrame, labels: list[str], tracks: dict[str, str]
) -> None:
    for place, label in enumerate(labels):
        if label not in curves:
            continue
        y = curves[label].replace(np.inf, np.nan)
        # Those at the reference lie side by side at the foot.
        y = y.clip(lower=_LEAST).mask(y <= 0, _LEAST * 10 ** (-0.3 - 0.1 * place))
        axis.step(curves.index, y, where="post", color=palette.style(label).colour,
                  linestyle=palette.LINES.get(tracks.get(label, ""), ":"))  # fmt: skip
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_yticks([1e-6, 1e-4, 1e-2, 1], ["0", "10⁻⁴", "10⁻²", "1"])
    axis.yaxis.set_minor_locator(NullLocator())


def penalties(runs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All runs that count, and of them those whose penalty was varied.

    Returns:
        Both with columns penalty (mean |linear bias| = 1) and raw_violation (share of n).
    """
    scored = runs[runs["status"].isin(SCORED) & ~runs["flat"].astype(bool)].copy()
    scored["fisher"] = scored["fisher"].fillna("")
    scored["penalty"] = scored["info"].map(lambda text: _said(text, "penalty"))
    violated = scored["info"].map(lambda text: _said(text, "raw_violation"))
    scored["raw_violation"] = violated / scored["n"]
    return scored, scored[(scored["track"] == "penalised") & (scored["solver_name"] != "random")]


def penalty_words(runs: pd.DataFrame) -> str:
    """Feasible share at the ends of the axis, the best penalty, and what repair alone reaches."""
    scored, swept = penalties(runs)
    said = []
    for (name, fisher, n), part in swept.groupby(["solver_name", "fisher", "n"], sort=False):
        by = part.groupby("penalty")
        feasible, gaps = by["raw_feasible"].mean(), by["gap"].median()
        said.append(
            f"{name}, n = {n}{glossary.in_brackets(fisher)}: feasible before repair "
            f"{100 * feasible.iloc[0]:.0f} % at penalty "
            f"{feasible.index[0]:.2g} and {100 * feasible.iloc[-1]:.0f} % at "
            f"{feasible.index[-1]:.2g}; best gap after repair {percent(gaps.min())} at "
            f"{gaps.idxmin():.2g}, worst {percent(gaps.max())} at {gaps.idxmax():.2g}"
        )
    controls = scored[scored["solver_name"].isin(["random", "greedy"])]
    for (name, fisher, n), part in controls.groupby(["solver_name", "fisher", "n"], sort=False):
        what = "random strings with repair" if name == "random" else "greedy without a sampler"
        said.append(
            f"{what}, n = {n}{glossary.in_brackets(fisher)}: {percent(part['gap'].median())}"
        )
    return f"{'. '.join(said)}."


@figure(
    "penalty",
    "The penalty",
    lambda runs: (
        "Feasible share and violation before repair and median gap after it against the penalty, "
        f"for every sampler and size. {penalty_words(runs)}"
    ),
)
def penalty_frontier(runs: pd.DataFrame) -> Figure:
    """Feasible share before repair and gap after it, against the penalty; repair alone beside.

    A row a curvature. A run's penalty is read from what its solver reported, in units of the mean
    |linear bias|.
    """
    scored, swept = penalties(runs)
    sizes, fishers = sorted(scored["n"].unique()), glossary.fishers(scored)
    lines = dict(zip(sizes, _LINES, strict=False))
    panels = (("raw_feasible", "feasible share before repair"),
              ("raw_violation", "mean |sum x - k| / n before repair"),
              ("gap", "median gap after repair"))  # fmt: skip
    with palette.look():
        figure = palette.new_figure(palette.PAGE, 1.2 + 1.7 * len(fishers))
        axes = figure.subplots(len(fishers), 3, squeeze=False, sharex=True)
        for row, fisher in zip(axes, fishers, strict=True):
            for axis, (column, title) in zip(row, panels, strict=True):
                part = swept[swept["fisher"] == fisher]
                _penalty_panel(axis, part, column, lines)
                axis.set_title(
                    f"{glossary.curvature(fisher) or 'all instances'}\n{title}", loc="left"
                )
            _controls(row[2], scored[scored["fisher"] == fisher], lines)
        for axis in axes[-1]:
            axis.set_xlabel("penalty (mean |linear bias| = 1)")
        looks = {name: palette.style(name) for name in palette.ordered(set(swept["solver_name"]))}
        handles = [Line2D([], [], color=look.colour, marker=look.marker, label=name)
                   for name, look in looks.items()]  # fmt: skip
        handles += [Line2D([], [], color=colour, linewidth=0.8, label=what)
                    for name, (colour, what) in _WITHOUT.items()
                    if (scored["solver_name"] == name).any()]  # fmt: skip
        handles += [Line2D([], [], color="#666666", linestyle=line, label=f"n = {n}")
                    for n, line in lines.items()]  # fmt: skip
        figure.legend(handles=handles, loc="outside upper center", ncols=4, frameon=False)
        tags = scored.drop_duplicates("instance")["tag"].value_counts()
        palette.caption(
            figure,
            "Means and medians over instances and seeds. Best known: "
            f"{', '.join(f'{glossary.tag(tag)} on {count}' for tag, count in tags.items())} "
            "instances; flat ones, on which nothing can be gained, are left out. No track but the "
            "penalised has a penalty; greedy never sees one. Current mask given to nobody.",
        )
    return figure


# Styles of lines that tell sizes apart.
_LINES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))
# Colour and name of what no penalty was given to.
_WITHOUT = {"random": ("#999999", "random strings + repair"),
            "greedy": ("#000000", "greedy, no sampler")}  # fmt: skip


def _penalty_panel(axis: Axes, part: pd.DataFrame, column: str, lines: dict[Any, Any]) -> None:
    for (name, n), one in part.groupby(["solver_name", "n"]):
        by = one.groupby("penalty")[column]
        y = by.median().clip(lower=_LEAST) if column == "gap" else by.mean()
        look = palette.style(str(name))
        axis.plot(y.index, y, marker=look.marker, color=look.colour, linestyle=lines.get(n, "-"))
    axis.set_xscale("log")
    if column == "gap":
        axis.set_yscale("log")
        axis.set_ylim(bottom=_LEAST / 2)
        axis.set_yticks([_LEAST, 1e-4, 1e-2, 1], ["0", "10⁻⁴", "10⁻²", "1"])
    else:
        axis.set_ylim(-0.03, 1.03 if column == "raw_feasible" else None)
    axis.minorticks_off()


def _controls(axis: Axes, part: pd.DataFrame, lines: dict[Any, Any]) -> None:
    """Medians of what no penalty was given to, as lines across."""
    for (name, n), one in part[part["solver_name"].isin(_WITHOUT)].groupby(["solver_name", "n"]):
        value = max(float(one["gap"].median()), _LEAST)
        axis.axhline(value, color=_WITHOUT[str(name)][0], linestyle=lines.get(n, "-"),
                     linewidth=0.8)  # fmt: skip


def _said(text: Any, key: str) -> float:
    """A number from the JSON of what a solver said of its run."""
    value = json.loads(text).get(key) if isinstance(text, str) else None
    return float(value) if isinstance(value, int | float) else math.nan


def ladder_words(runs: pd.DataFrame) -> str:
    """Up to which n each solver's median gap is 0, and which references are no proof."""
    scored = runs[runs["status"].isin(SCORED) & ~runs["flat"].astype(bool)]
    said = []
    for fisher, part in scored.assign(fisher=scored["fisher"].fillna("")).groupby("fisher"):
        reach = {}
        for name, own in part.groupby("solver"):
            gaps = own.groupby("n")["gap"].median()
            solved = gaps.index[(gaps == 0).cumprod() == 1]
            reach[str(name)] = int(max(solved, default=0))
        ordered = sorted(reach.items(), key=lambda item: -item[1])
        open_at = sorted(part.loc[part["tag"] != "exact", "n"].unique())
        proof = (
            f"not certified at n = {', '.join(map(str, open_at))}" if open_at else "all certified"
        )
        said.append(
            f"Median gap 0 up to n{glossary.in_brackets(fisher)}: "
            f"{', '.join(f'{name} {n}' for name, n in ordered)}; best known {proof}"
        )
    return f"{'. '.join(said)}."


@figure(
    "ladder",
    "One block, nested parts of growing size",
    lambda runs: (
        "Median gap and wall time against the number of variables, a line a solver. "
        f"{ladder_words(runs)}"
    ),
)
def ladder(runs: pd.DataFrame) -> Figure:
    """Median gap and wall time against n; which kind of reference each n has stands below."""
    scored = runs[runs["status"].isin(SCORED) & ~runs["flat"].astype(bool)]
    fishers = glossary.fishers(scored)
    labels = palette.ordered(set(scored["solver"]))
    tracks = palette.tracks(scored)
    with palette.look():
        figure = palette.new_figure(palette.PAGE, 1.0 + 1.9 * len(fishers))
        axes = figure.subplots(len(fishers), 2, squeeze=False, sharex="row")
        for row, fisher in zip(axes, fishers, strict=True):
            part = scored[scored["fisher"].fillna("") == fisher]
            for axis, column in zip(row, ("gap", "wall"), strict=True):
                _ladder_panel(axis, part, column, labels, tracks)
            tags = part.drop_duplicates("instance").groupby("n")["tag"].first()
            row[0].set_title(glossary.curvature(fisher) or "all instances", loc="left")
            ticks = [f"{n}\n{_letters(tags.get(n, ''))}" for n in sorted(part["n"].unique())]
            for axis in row:
                axis.set_xticks(sorted(part["n"].unique()), ticks, fontsize=5.5)
                axis.xaxis.set_minor_locator(NullLocator())
                axis.xaxis.set_tick_params(labelbottom=True)
        figure.legend(handles=palette.solver_handles(labels, tracks), loc="outside upper center",
                      ncols=6, frameon=False)  # fmt: skip
        palette.caption(
            figure,
            f"Under n: {LETTERS}. Parts of one block of each curvature, "
            f"each inside the next. Foot of the left axes: gap 0. {conditions(scored)}",
        )
    return figure


def _letters(tag: Any) -> str:
    return TAG_LETTERS.get(str(tag), "")


def _ladder_panel(
    axis: Axes, part: pd.DataFrame, column: str, labels: list[str], tracks: dict[str, str]
) -> None:
    for place, label in enumerate(labels):
        y = part[part["solver"] == label].groupby("n")[column].median()
        if column == "gap":
            y = y.clip(lower=_LEAST).mask(y <= 0, _LEAST * 10 ** (-0.4 - 0.15 * place))
        look = palette.style(label)
        axis.plot(y.index, y, color=look.colour, marker=look.marker,
                  linestyle=palette.LINES.get(tracks[label], ":"))  # fmt: skip
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    if column == "gap":
        axis.set_yticks([1e-6, 1e-4, 1e-2, 1], ["0", "10⁻⁴", "10⁻²", "1"])
        axis.yaxis.set_minor_locator(NullLocator())
    axis.set_ylabel("median gap" if column == "gap" else "wall time (s)")
