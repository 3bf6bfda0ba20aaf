"""Figure of the curvatures: how each ranks moves, and what the loop makes of it."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.figures import palette

_KINDS = [("random", "same"), ("random", "fresh"), ("optimised", "same"), ("optimised", "fresh")]


def figure(ranking: pd.DataFrame, quality: pd.DataFrame) -> Figure:
    """A row a model: rank correlations with intervals, and the loss at equal time by seed.

    Args:
        ranking: of `experiments.scripts.curvature.ranking`.
        quality: one row a run of the loop.
    """
    models = list(dict.fromkeys(ranking["model"]))
    fishers = list(dict.fromkeys(ranking["fisher"]))
    with palette.look():
        drawing = palette.new_figure(palette.PAGE, 0.9 + 1.7 * len(models))
        rows = drawing.subplots(len(models), 2, squeeze=False, width_ratios=[2.2, 1])
        for (left, right), model in zip(rows, models, strict=True):
            _ranks(left, ranking[ranking["model"] == model], fishers)
            _losses(right, quality[quality["model"] == model], fishers)
            left.set_title(f"{model}: predicted against measured", loc="left")
            right.set_title("the loop at equal time", loc="left")
        handles, labels = rows[0][0].get_legend_handles_labels()
        drawing.legend(
            handles, labels, loc="outside upper center", ncols=len(fishers), frameon=False
        )
        palette.caption(
            drawing,
            "Left: Spearman's correlation of predicted and measured loss change within a block, "
            "mean over blocks, 95 % bootstrap intervals over blocks and moves; same: the images "
            "the curvature was made from, fresh: others. Right: test loss, a marker a seed. The "
            "perceptron has one position a sample: its two Fishers differ by the sketch alone.",
        )
    return drawing


def _ranks(axis: Axes, part: pd.DataFrame, fishers: list[str]) -> None:
    for i, fisher in enumerate(fishers):
        look = palette.fisher_style(fisher)
        own = part[part["fisher"] == fisher].set_index(["moves", "data"]).loc[_KINDS]
        places = [place + 0.22 * (i - (len(fishers) - 1) / 2) for place in range(len(_KINDS))]
        spread = [own["spearman"] - own["low"], own["high"] - own["spearman"]]
        axis.errorbar(
            places, own["spearman"], yerr=spread, fmt=look.marker, color=look.colour, label=fisher
        )
    axis.axhline(0.0, color="#333333", lw=0.6)
    axis.set_xticks(range(len(_KINDS)), [f"{kind},\n{data} images" for kind, data in _KINDS])
    axis.set_ylabel("rank correlation")
    axis.set_ylim(None, 1.02)


def _losses(axis: Axes, part: pd.DataFrame, fishers: list[str]) -> None:
    for i, fisher in enumerate(fishers):
        look = palette.fisher_style(fisher)
        own = part[part["fisher"] == fisher]
        axis.plot([i] * len(own), own["loss"], look.marker, color=look.colour)
    axis.set_xticks(range(len(fishers)), fishers)
    axis.set_ylabel("test loss")
