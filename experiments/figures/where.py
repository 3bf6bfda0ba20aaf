"""Where a solver matters: the figure that a page begins with."""

from __future__ import annotations

import math
import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from experiments.figures import palette
from experiments.figures.figure import figure
from experiments.figures.runs import conditions
from experiments.metrics import glossary, verdict

# Panels side by side, and letters of titles that have room above all of them.
MOST_ACROSS, WIDE = 5, 80
# Smaller gaps stand at the left end, which is called 0.
_LEAST = 1e-5


@figure(
    "where",
    "Where a solver matters",
    lambda runs: (
        "Median gap of every solver, a panel a kind of problem; 0 is the best known answer. "
        f"{verdict.sentence(runs)}"
    ),
    always=0,
    when=lambda runs: len(verdict.gaps(runs)) > 0,
)
def where(runs: pd.DataFrame) -> Figure:
    """Median gap of each solver with its quartiles over problems, a panel a kind."""
    found = verdict.gaps(runs)
    middle = verdict.medians(found)
    fishers, tracks = glossary.fishers(found), palette.tracks(found)
    labels = sorted(palette.ordered(set(found["solver"])), key=lambda s: tracks[s] == "penalised")
    labels.reverse()
    penalised = sum(tracks[label] == "penalised" for label in labels)
    top = max(2.0, 1.5 * float(middle["high"].max(skipna=True))) if len(middle) else 2.0
    with palette.look():
        across = min(len(fishers), MOST_ACROSS)
        down = math.ceil(len(fishers) / across)
        drawn = palette.new_figure(palette.PAGE, 0.6 + down * (0.6 + 0.16 * len(labels)))
        axes = drawn.subplots(down, across, squeeze=False, sharey=True)
        for axis in axes.flat[len(fishers) :]:
            axis.set_visible(False)
        for axis, fisher in zip(axes.flat, fishers, strict=False):
            own = middle[middle["fisher"] == fisher].set_index("solver")
            count = found.loc[found["fisher"] == fisher, "instance"].nunique()
            _dots(axis, own, labels)
            name = textwrap.fill(glossary.kinds(fisher), WIDE // across)
            axis.set_title(name, loc="left")
            axis.set_xlim(_LEAST / 2, top)
            axis.set_xlabel(f"{count} problem{'' if count == 1 else 's'}")
            if 0 < penalised < len(labels):
                axis.axhline(penalised - 0.5, color="black", linewidth=0.6)
        axes[0, 0].set_yticks(range(len(labels)), labels)
        palette.caption(
            drawn,
            "Gap: what is left of all that can be gained; 0 is the best known answer, 100 % the "
            "current mask. Dots: medians over problems at the longest time limit; bars: quartiles. "
            "Above the line solvers that always choose exactly k (native), below it those that get "
            f"k as a penalty (penalised). {conditions(runs)}",
        )
    return drawn


def _dots(axis: Axes, own: pd.DataFrame, labels: list[str]) -> None:
    for y, label in enumerate(labels):
        if label not in own.index:
            continue
        low, gap, high = np.maximum(own.loc[[label], ["low", "gap", "high"]].to_numpy()[0], _LEAST)
        look = palette.style(label)
        axis.plot([low, high], [y, y], color=look.colour, linewidth=1.0)
        axis.plot(gap, y, color=look.colour, marker=look.marker, linestyle="none", clip_on=False)
    axis.set_xscale("log")
    axis.set_xticks([_LEAST, 1e-2, 1], ["0", "1 %", "100 %"])
    axis.xaxis.set_minor_locator(NullLocator())
