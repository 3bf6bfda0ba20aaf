"""Figure of masks that solve the layers' problem ever better, and of the models they make."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.figures import palette
from experiments.metrics.readable import percent

_COLOURS = ("#0072B2", "#D55E00", "#009E73")


def figure(table: pd.DataFrame) -> Figure:
    """A panel for each model and held-out data: rise of the loss against what layers lose.

    Args:
        table: of `experiments.scripts.fidelity.study`.
    """
    panels = list(table[["model", "data"]].drop_duplicates().itertuples(index=False, name=None))
    searches = [name for name in dict.fromkeys(table["search"]) if name != "wanda"]
    markers = dict(zip(searches, [look.marker for look in palette.SPARE], strict=False))
    with palette.look():
        drawing = palette.new_figure(palette.PAGE, 3.2)
        axes = drawing.subplots(1, len(panels), squeeze=False)[0]
        for axis, (model, data) in zip(axes, panels, strict=True):
            _panel(axis, table[(table["model"] == model) & (table["data"] == data)], markers)
            axis.set_title(f"{model}, held-out {data}", loc="left")
        axes[0].set_ylabel("rise of the loss by pruning, nats")
        handles = [
            axes[0].plot([], [], marker, color="#555555", label=search, linestyle="")[0]
            for search, marker in markers.items()
        ]
        handles += [
            axes[0].plot(
                [], [], "-", color=colour, label=f"H shrunk by {a:g}" if a else "H as it is"
            )[0]
            for colour, a in zip(_COLOURS, sorted(set(table["shrinkage"])), strict=False)
        ]
        drawing.legend(handles=handles, loc="outside upper center", ncols=4, frameon=False)
        calibrated = ", ".join(
            f"{model} at density {part['density'].iloc[0]:g} calibrated on {part['data'].iloc[0]}"
            for model, part in table.groupby("model", sort=False)
        )
        palette.caption(
            drawing,
            "Each point is a mask of whole layers, each row solved by itself. Left is a better "
            "solution, down a better model; bars: 95 % bootstrap intervals of the difference to "
            f"the mask of Wanda on the same samples. {calibrated}.",
        )
    return drawing


def _panel(axis: Axes, part: pd.DataFrame, markers: dict[str, Any]) -> None:
    wanda = part[part["search"] == "wanda"].iloc[0]
    for colour, (_, own) in zip(_COLOURS, part.groupby("shrinkage"), strict=False):
        own = own[own["search"] != "wanda"].sort_values("lost_calibration")
        axis.plot(100 * own["lost_calibration"], own["rise"], "-", color=colour, lw=0.6)
        for _, row in own.iterrows():
            spread = [[row["change"] - row["change_low"]], [row["change_high"] - row["change"]]]
            axis.errorbar(
                100 * row["lost_calibration"], row["rise"], yerr=spread,
                fmt=markers[row["search"]], color=colour, elinewidth=0.6,
            )  # fmt: skip
    axis.axhline(wanda["rise"], color="#333333", lw=0.8, ls=":")
    axis.annotate(
        f"Wanda, which loses {percent(wanda['lost_calibration'])}", (0.98, wanda["rise"]),
        xycoords=("axes fraction", "data"), xytext=(0, -2), textcoords="offset points",
        ha="right", va="top", fontsize=6,
    )  # fmt: skip
    axis.set_xlabel("output lost on calibration data, %")
