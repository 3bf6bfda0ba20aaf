"""Figure of the row atlas: how far masks are from optimal, as distributions over rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.figures import palette

_CURVES = {
    "wanda_above": ("Wanda above the best known", "#E69F00", "-"),
    "one_swap_above": ("one-swap above the best known", "#0072B2", "-"),
    "certified": ("best known above the bound, at most", "#009E73", "--"),
}
# Left end of the axis: what is nearer counts as there.
_LEAST = 1e-5


def figure(table: pd.DataFrame) -> Figure:
    """A panel a model: the share of rows within a distance.

    Args:
        table: of `experiments.scripts.atlas.gaps`.
    """
    models = list(dict.fromkeys(table["model"]))
    with palette.look():
        drawing = palette.new_figure(palette.PAGE, 2.7)
        axes = drawing.subplots(1, len(models), squeeze=False, sharey=True)[0]
        for axis, model in zip(axes, models, strict=True):
            part = table[table["model"] == model]
            for name, (label, colour, line) in _CURVES.items():
                values = np.sort(part[name].clip(lower=_LEAST).to_numpy())
                share = 100 * np.arange(1, len(values) + 1) / len(values)
                axis.step(100 * values, share, line, where="post", color=colour, label=label)
            axis.set_xscale("log")
            axis.set_xlabel("distance, %")
            layers = part["layer"].nunique()
            axis.set_title(f"{model}: {len(part)} rows of {layers} layers", loc="left")
        axes[0].set_ylabel("rows within the distance, %")
        drawing.legend(
            *axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3,
            frameon=False,
        )  # fmt: skip
        palette.caption(
            drawing,
            "Output error of each row at density 0.5. The optimum lies between the certified bound "
            "and the best mask known; where the dashed curve is at the left, the best known is "
            f"proved. Distances below {100 * _LEAST:g} % are drawn there.",
        )
    return drawing
