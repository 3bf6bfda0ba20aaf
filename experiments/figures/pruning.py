"""Figures of whole models: quality against density, and against the seconds it took."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from experiments.figures import palette
from experiments.figures.figure import figure
from experiments.figures.methods import LOOP


def quality(table: pd.DataFrame) -> str:
    """The column that judges a model: perplexity of a language model, accuracy of a classifier."""
    return "accuracy" if table["perplexity"].isna().all() else "perplexity"


def _models(table: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(table["model"]))


def _methods(table: pd.DataFrame) -> list[str]:
    return [name for name in palette.METHOD_LOOKS if name in set(table["method"])]


def _quality_axis(axis: Axes, part: pd.DataFrame) -> None:
    column = quality(part)
    dense = float(part.loc[part["method"] == "dense", column].iloc[0])
    axis.axhline(dense, color="#333333", lw=0.8, ls=":")
    if column == "accuracy":
        axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.4g} %"))
        axis.set_ylabel("test accuracy")
        return
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.set_ylabel("test perplexity")


def _title(part: pd.DataFrame) -> str:
    return f"{part['model'].iloc[0]}, {int(part['layers'].iloc[0])} layers"


def _in_words(models: pd.DataFrame) -> str:
    said = []
    for model, part in models.groupby("model", sort=False):
        column = quality(part)
        for kept, here in part.groupby("density"):
            values = ", ".join(
                f"{row.method} {getattr(row, column):.3g}"
                for row in here.drop_duplicates("method", keep="last").itertuples()
            )
            said.append(f"{model}, density {kept:g}, {column}: {values}")
    return "; ".join(said)


@figure(
    "density",
    "Quality against density",
    lambda models: (
        f"Accuracy or perplexity against the density, a line a method. {_in_words(models)}."
    ),
)
def density(models: pd.DataFrame) -> Figure:
    """Accuracy or perplexity against density, a panel a model, a line a method.

    Args:
        models: of `experiments.pruning.comparing.measure`; of the loop its largest number of steps.
    """
    names = _models(models)
    last = models[~((models["method"] == LOOP) & (models["steps"] < _most(models)))]
    with palette.look():
        figure = palette.new_figure(palette.PAGE, 2.7)
        axes = figure.subplots(1, len(names), squeeze=False)[0]
        for axis, model in zip(axes, names, strict=True):
            part = last[last["model"] == model]
            column = quality(part)
            for method in _methods(part):
                one = part[part["method"] == method].sort_values("density")
                look = palette.METHOD_LOOKS[method]
                axis.plot(one["density"], one[column], color=look.colour, marker=look.marker)
            _quality_axis(axis, part)
            values = sorted(part.loc[part["method"] != "dense", "density"].unique())
            axis.xaxis.set_major_locator(FixedLocator(values))
            axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
            axis.set_xlabel("density (share of weights kept)")
            axis.set_title(_title(part), loc="left")
        _legend(figure, models)
        palette.caption(figure, f"{_conditions(models)} icbs: {_steps(models)}.")
    return figure


@figure(
    "tradeoff",
    "Quality against seconds of pruning",
    lambda models: (
        "Accuracy or perplexity against the seconds of pruning; methods that choose a mask once "
        f"are points, the loop is a line through its steps. {_in_words(models)}."
    ),
)
def tradeoff(models: pd.DataFrame) -> Figure:
    """Accuracy or perplexity against the seconds of pruning, a row a model, a column a density.

    Args:
        models: as for `density`; the loop is a line through its numbers of steps.
    """
    names = _models(models)
    columns = max(len(_densities(models, model)) for model in names)
    with palette.look():
        figure = palette.new_figure(palette.PAGE, 1.0 + 1.75 * len(names))
        axes = figure.subplots(len(names), columns, squeeze=False)
        for row, model in zip(axes, names, strict=True):
            part = models[models["model"] == model]
            column = quality(part)
            found = _densities(models, model)
            for axis in row[len(found) :]:
                axis.set_visible(False)
            for axis, at in zip(row, found, strict=False):
                here = part[part["density"] == at]
                for method in _methods(here):
                    one = here[here["method"] == method].sort_values("seconds")
                    look = palette.METHOD_LOOKS[method]
                    axis.plot(one["seconds"], one[column], color=look.colour, marker=look.marker,
                              linestyle="-" if method == LOOP else "none")  # fmt: skip
                axis.set_xscale("log")
                palette.log_ticks(axis.xaxis, here["seconds"].min(), here["seconds"].max())
                _quality_axis(axis, pd.concat([part[part["method"] == "dense"], here]))
                axis.set_title(f"{model}, density {at:g}", loc="left")
            for axis in row[1:]:
                axis.set_ylabel("")
        for axis in axes[-1]:
            axis.set_xlabel("seconds of pruning")
        _legend(figure, models)
        palette.caption(
            figure,
            f"{_conditions(models)} icbs, a marker each after {_every(models)} steps; "
            "evaluation off the clock, calibration data in memory.",
        )
    return figure


def _densities(table: pd.DataFrame, model: str) -> list[float]:
    own = table[(table["model"] == model) & (table["method"] != "dense")]
    return sorted(own["density"].unique(), reverse=True)


def _most(table: pd.DataFrame) -> Any:
    return table.groupby(["model", "density"])["steps"].transform("max")


def _steps(table: pd.DataFrame) -> str:
    most = table[table["method"] == LOOP].groupby("model", sort=False)["steps"].max()
    return "; ".join(f"{int(steps)} steps on {model}" for model, steps in most.items())


def _every(table: pd.DataFrame) -> str:
    own = table[table["method"] == LOOP]
    return " or ".join(
        f"{', '.join(str(int(s)) for s in sorted(one['steps'].unique()))} ({model})"
        for model, one in own.groupby("model", sort=False)
    )


def _conditions(table: pd.DataFrame) -> str:
    tests = table.drop_duplicates("model")
    each = "; ".join(
        f"{model}: {count} test {'windows' if text else 'images'}"
        for model, count, text in zip(
            tests["model"], tests["samples"], tests["perplexity"].notna(), strict=True
        )
    )
    return f"One run each, same calibration data for all methods. {each}. Dotted: the dense model."


def _legend(figure: Figure, table: pd.DataFrame) -> None:
    looks = {name: palette.METHOD_LOOKS[name] for name in _methods(table)}
    handles = [
        Line2D([], [], color=look.colour, marker=look.marker, label=name)
        for name, look in looks.items()
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=7, frameon=False)
