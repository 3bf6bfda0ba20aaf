"""Figures of QAOA: depth and mixer, and what a device's answer costs."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from experiments.figures import palette
from experiments.figures.figure import figure
from experiments.metrics import formulas as metrics
from experiments.metrics import glossary, paidruns
from experiments.metrics.intervals import bootstrap
from experiments.metrics.references import SCORED, TAGS

LABELS = {"complete": "complete XY", "ring": "ring XY", "grover": "Grover", "x": "X + penalty"}
_WIDTHS: dict[str, Any] = {"trained": "-", "transferred": "--"}


def circuits(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of QAOA with what their circuits were.

    Returns:
        Rows of `runs` with columns mixer, depth, strategy, device (None: exact simulator),
        shot_ratio: the approximation ratio of the mean feasible shot, exact where the solver gives
        the expectation itself; and repaired_ratio, that of all shots after repair.
    """
    own = runs[runs["solver_name"].str.startswith("qaoa") & runs["status"].isin(SCORED)]
    said = pd.DataFrame([json.loads(text) for text in own["info"]], index=own.index)
    for name in ("mixer", "depth", "angles", "expectation", "post_selected_mean", "repaired_mean"):
        if name not in said:
            said[name] = np.nan
    out = own.assign(mixer=said["mixer"].fillna("x"), depth=said["depth"])
    out["fisher"] = out["fisher"].fillna("")
    out["strategy"] = said["angles"].astype(str).str.split(r"[ (:,]").str[0]
    mean = said["expectation"].fillna(said["post_selected_mean"])
    for name, energy in (("shot_ratio", mean), ("repaired_ratio", said["repaired_mean"])):
        out[name] = metrics.approximation_ratio(
            pd.to_numeric(energy), out["reference"], out["random_energy"]
        )
    return out


def _answered(runs: pd.DataFrame) -> pd.DataFrame:
    return runs[runs["solver_name"].str.startswith("qaoa") & runs["status"].isin(SCORED)]


def _priced(runs: pd.DataFrame) -> pd.DataFrame:
    quantum = _answered(runs)
    return quantum[quantum["quote"].notna()]


def _mean_ratios(runs: pd.DataFrame) -> str:
    keys = ["fisher", "n", "mixer", "depth"]
    found = circuits(runs).groupby(keys)["shot_ratio"].mean().reset_index()
    said = "; ".join(
        f"n = {row['n']}{glossary.in_brackets(row['fisher'])}, {LABELS[row['mixer']]}, "
        f"p = {row['depth']:g}: {row['shot_ratio']:.2f}"
        for row in found.to_dict("records")
    )
    return (
        "Approximation ratio of the mean shot and probability of the optimum against the number "
        f"of layers. Mean ratios: {said}."
    )


def _shares_by_price(runs: pd.DataFrame) -> str:
    means = _priced(runs).groupby(["n", "solver", "quote"])["hit"].mean().reset_index()
    said = "; ".join(
        f"n = {row['n']}, {row['solver']}, {row['quote']:.2f} USD: {100 * row['hit']:.0f} %"
        for row in means.to_dict("records")
    )
    return f"Share of tasks that hold the best known against their price: {said}."


@figure(
    "depth",
    "QAOA by depth and mixer",
    _mean_ratios,
    when=lambda runs: bool(len(_answered(runs)) and runs["gap"].notna().any()),
)
def depth(runs: pd.DataFrame) -> Figure:
    """Approximation ratio and P(optimum) of a shot against the depth, a row an n and curvature."""
    quantum = circuits(runs)
    groups = [
        (n, fisher)
        for fisher in glossary.fishers(quantum)
        for n in sorted(quantum.loc[quantum["fisher"] == fisher, "n"].unique())
    ]
    controls = _controls(runs[runs["instance"].isin(quantum["instance"])])
    with palette.look():
        figure = palette.new_figure(palette.PAGE, 1.05 + 1.4 * len(groups))
        axes = figure.subplots(len(groups), 2, squeeze=False, sharex=True)
        for row, (n, fisher) in zip(axes, groups, strict=True):
            part = quantum[(quantum["n"] == n) & (quantum["fisher"] == fisher)]
            count = part["instance"].nunique()
            _by_depth(row[0], part, "shot_ratio")
            _by_depth(row[1], part, "success")
            row[0].set_ylim(min(0.0, row[0].get_ylim()[0]), 1.03)
            beside = controls[(controls["n"] == n) & (controls["fisher"] == fisher)]
            for _, one in beside.iterrows():
                colour, line, _ = _CONTROL_LOOKS[one["solver_name"]]
                row[1].axhline(max(one["success"], 1e-4), color=colour, linestyle=line,
                               linewidth=0.8)  # fmt: skip
            row[1].set_yscale("log")
            row[1].set_ylim(8e-5, 1.6)
            named = f"{glossary.curvature(fisher)}, n = {n}".removeprefix(", ")
            row[0].set_title(f"{named} ({count}): ratio of the mean shot", loc="left")
            row[1].set_title(f"{named}: P(optimum) of a shot", loc="left")
        for axis in axes[-1]:
            depths = sorted(quantum["depth"].unique())
            axis.set_xticks(depths, [f"{p:.0f}" for p in depths])
            axis.xaxis.set_minor_locator(NullLocator())
            axis.set_xlabel("layers p")
        handles = [
            Line2D([], [], color=palette.MIXERS[m].colour, marker=palette.MIXERS[m].marker,
                   label=LABELS[m])
            for m in palette.MIXERS if m in set(quantum["mixer"])
        ]  # fmt: skip
        handles += [Line2D([], [], color="#333333", linestyle=line, label=f"angles {name}")
                    for name, line in _WIDTHS.items()
                    if name in set(quantum["strategy"])]  # fmt: skip
        handles += _control_handles(controls)
        figure.legend(handles=handles, loc="outside upper center", ncols=4, frameon=False)
        palette.caption(
            figure,
            "Means over blocks, as many as in brackets, bars 95 % bootstrap. Ratio: 1 the optimum, "
            "0 the mean feasible state; exact expectation for XY and Grover, feasible shots of X. "
            f"P(optimum): share of {_reads(quantum)} shots; X + penalty and random strings after "
            "greedy repair. "
            f"{_noise(quantum)} {_known(quantum)} Classical solvers: share of their runs.",
        )
    return figure


# Colour, line and legend of the lines that circuits are compared with.
_CONTROL_LOOKS: dict[str, tuple[str, Any, str]] = {
    "random": ("#999999", ":", "random strings, repaired"),
    "greedy": ("#000000", "-.", "greedy control"),
}


def _controls(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean success of the controls by curvature and n, in the order of `_CONTROL_LOOKS`."""
    own = runs[runs["solver_name"].isin(_CONTROL_LOOKS) & runs["status"].isin(SCORED)]
    own = own[~own["flat"].astype(bool)].assign(fisher=lambda f: f["fisher"].fillna(""))
    table = own.groupby(["fisher", "n", "solver_name"])["success"].mean().reset_index()
    order = {name: place for place, name in enumerate(_CONTROL_LOOKS)}
    return table.sort_values("solver_name", key=lambda names: names.map(order))


def _control_handles(controls: pd.DataFrame) -> list[Line2D]:
    """For a legend: the controls that there are."""
    return [
        Line2D([], [], color=look[0], linestyle=look[1], label=look[2])
        for name, look in _CONTROL_LOOKS.items()
        if name in set(controls["solver_name"])
    ]


def _by_depth(axis: Axes, part: pd.DataFrame, column: str) -> None:
    for (mixer, strategy), one in part.groupby(["mixer", "strategy"]):
        look = palette.MIXERS[str(mixer)]
        blocks = one.pivot_table(index="depth", columns="instance", values=column)
        middle = blocks.mean(axis=1)
        ends = np.array([
            bootstrap(values.dropna(), _mean, rng=np.random.default_rng(0))
            for _, values in blocks.iterrows()
        ])  # fmt: skip
        if column == "success":
            middle, ends = middle.clip(lower=1e-4), np.maximum(ends, 1e-4)
        bars = np.abs(np.array([middle - ends[:, 0], ends[:, 1] - middle]))
        axis.errorbar(middle.index, middle, yerr=bars, color=look.colour, marker=look.marker,
                      linestyle=_WIDTHS.get(str(strategy), ":"), elinewidth=0.6,
                      markersize=3.5)  # fmt: skip


@figure(
    "cost",
    "What a device's answer costs",
    _shares_by_price,
    when=lambda runs: bool(len(_priced(runs)) and runs["gap"].notna().any()),
)
def cost(runs: pd.DataFrame) -> Figure:
    """P(optimum) within a task, and the mean ratio of a shot, against the task's price."""
    paid = circuits(runs[runs["quote"].notna()])
    sizes = sorted(paid["n"].unique())
    names = palette.ordered(set(paid["solver"]))
    looks = dict(zip(names, (s for s in palette.SPARE), strict=False))
    with palette.look():
        legend = 0.2 * -(-len(names) // 4)
        figure = palette.new_figure(palette.PAGE, 1.1 + legend + 1.7 * len(sizes))
        axes = figure.subplots(len(sizes), 2, squeeze=False, sharex=True)
        for row, n in zip(axes, sizes, strict=True):
            part = paid[paid["n"] == n]
            for name in names:
                one = part[part["solver"] == name].groupby("quote")
                for axis, column in zip(row, ("hit", "gap"), strict=True):
                    y = one[column].mean()
                    axis.plot(y.index, y, color=looks[name].colour, marker=looks[name].marker,
                              linestyle=palette.LINES[part["track"].iloc[0]])  # fmt: skip
            free = runs[(runs["n"] == n) & runs["quote"].isna() & runs["status"].isin(SCORED)]
            free = free[free["instance"].isin(part["instance"])]
            for solver, own in free.groupby("solver"):
                for axis, column in zip(row, ("hit", "gap"), strict=True):
                    best = own.groupby("budget")[column].mean()
                    level = best.max() if column == "hit" else best.min()
                    axis.axhline(level, color=palette.style(str(solver)).colour, linewidth=0.8,
                                 linestyle=_FREE_LINES.get(str(solver), ":"))  # fmt: skip
            row[0].set_title(f"n = {n}: share of tasks that hold the optimum", loc="left")
            row[1].set_title(f"n = {n}: mean gap of a task's best shot", loc="left")
            row[0].set_ylim(-0.03, 1.05)
            row[0].yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.0f} %"))
            row[1].set_ylim(bottom=-0.02)
        for axis in axes[-1]:
            axis.set_xscale("log")
            palette.log_ticks(axis.xaxis, paid["quote"].min(), paid["quote"].max())
            axis.set_xlabel("price of the task, USD at most")
        handles = [Line2D([], [], color=looks[name].colour, marker=looks[name].marker, label=name)
                   for name in names]  # fmt: skip
        free = runs[runs["quote"].isna() & runs["status"].isin(SCORED)]
        handles += [
            Line2D([], [], color=palette.style(s).colour, linestyle=_FREE_LINES.get(s, ":"),
                   label=f"{s}, for nothing")
            for s in palette.ordered(set(free["solver"]))
        ]  # fmt: skip
        figure.legend(handles=handles, loc="outside upper center", ncols=4, frameon=False)
        shots = ", ".join(str(int(r)) for r in sorted(paid["reads"].unique()))
        palette.caption(
            figure,
            f"A marker a number of shots ({shots}), prices of the package's dated table. "
            f"{_charged(paid)} {_known(paid)} Lines across: free solvers at "
            "their best "
            "budget.",
        )
    return figure


@figure(
    "devices",
    "What noise leaves of a circuit",
    lambda runs: "Share of feasible shots, ratio, P(optimum) and price against the layers.",
    when=lambda runs: bool(len(_priced(runs)) and runs["gap"].notna().any()),
)
def devices(runs: pd.DataFrame) -> Figure:
    """Feasible shots, ratio, P(optimum) and price of the optimum against layers, by device."""
    paid = circuits(runs[runs["quote"].notna()])
    told = paidruns.paid(paid)
    priced = paid
    paid = paid.assign(device=told["device"], each=told["quote"] / told["shots"])
    paid["warm"] = paid["info"].str.contains('"warm_start"', regex=False)
    paid["dollars"] = [
        metrics.time_to_solution(share, price)
        for share, price in zip(paid["success"], paid["each"], strict=True)
    ]
    paid = paid[paid["reads"] == paid["reads"].max()]
    names = sorted(paid["device"].unique())
    looks = dict(zip(names, palette.SPARE[:4], strict=False))
    sizes = sorted(paid["n"].unique())
    columns = {
        "raw_feasible": "shots with exactly k ones",
        "shot_ratio": "ratio of the mean of these",
        "success": "P(optimum), repaired shots",
        "dollars": "USD for the optimum, 99 %",
    }
    controls = _controls(runs)
    starts: dict[str, Any] = {"uniform": "-", "warm": "--"}
    with palette.look():
        figure = palette.new_figure(palette.PAGE, 1.2 + 2.0 * len(sizes))
        axes = figure.subplots(len(sizes), len(columns), squeeze=False)
        for row, n in zip(axes, sizes, strict=True):
            part = paid[paid["n"] == n]
            for axis, (column, title) in zip(row, columns.items(), strict=True):
                for (device, warm), one in part.groupby(["device", "warm"]):
                    middle = one.groupby("depth")[column].median()
                    axis.plot(middle.index, middle, color=looks[device].colour,
                              marker=looks[device].marker,
                              linestyle=starts["warm" if warm else "uniform"])  # fmt: skip
                axis.set_title(title if n == sizes[0] else "", fontsize="small")
                axis.set_xlabel("layers p")
                axis.xaxis.set_minor_locator(NullLocator())
                axis.set_xticks(sorted(part["depth"].unique()))
                if column == "dollars":
                    axis.set_yscale("log")
                else:
                    axis.set_ylim(-0.03, 1.03)
                if column == "success":
                    for name, own in controls[controls["n"] == n].groupby("solver_name"):
                        look = _CONTROL_LOOKS[str(name)]
                        axis.axhline(own["success"].mean(), color=look[0], linestyle=look[1])
            row[0].set_ylabel(f"n = {n}")
        handles = [Line2D([], [], color=looks[name].colour, marker=looks[name].marker, label=name)
                   for name in names]  # fmt: skip
        handles += [Line2D([], [], color="#333333", linestyle=line, label=f"{word} start")
                    for word, line in starts.items()]  # fmt: skip
        handles += _control_handles(controls)
        figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False)
        palette.caption(
            figure,
            "Medians over blocks and seeds. Ratio: 1 the optimum, 0 the mean feasible state. USD: "
            "shots that hold the optimum with 99 % certainty, with their share of the task's fee. "
            f"{_noise(priced)} {_known(priced)}",
        )
    return figure


_FREE_LINES: dict[str, Any] = {"greedy": "-.", "random": ":", "descent": "-", "annealing": "--"}


def _mean(values: Any) -> float:
    return float(np.mean(values))


def _reads(runs: pd.DataFrame) -> str:
    return ", ".join(str(int(reads)) for reads in sorted(runs["reads"].unique()))


def _noise(runs: pd.DataFrame) -> str:
    """Whether circuits ran with noise: a device has its own, a simulator what it was told."""
    real = [use for use in paidruns.uses(runs) if use.kind == paidruns.QPU and not use.rehearsal]
    if real:
        return f"With the noise of {', '.join(sorted({use.device for use in real}))}."
    if any(use.noisy for use in paidruns.uses(runs)):
        return "With noise as emulators have it."
    return "" if runs["options"].str.contains('"noise"').any() else "No noise."


def _charged(runs: pd.DataFrame) -> str:
    """What was paid for the circuits, and what they ran on."""
    uses = paidruns.uses(runs)
    by_place: dict[tuple[str, str], list[str]] = {}
    for use in uses:
        by_place.setdefault((use.place, use.cost), []).append(use.solver)
    said = [
        f"{', '.join(sorted(names))} ran on {place}; paid: {cost}."
        for (place, cost), names in by_place.items()
    ]
    if any(use.rehearsal and not use.noisy for use in uses):
        said.append("A rehearsal has no noise, so a device would at best do this.")
    return " ".join(said)


def _known(runs: pd.DataFrame) -> str:
    tags = runs.drop_duplicates("instance")["tag"].value_counts()
    known = ", ".join(f"{glossary.tag(tag)} on {tags[tag]}" for tag in TAGS if tag in tags)
    return f"Best known: {known} blocks."
