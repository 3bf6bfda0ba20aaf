"""From row blocks to loss blocks: where a solver matters."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.figures import palette
from experiments.figures.figure import figure
from experiments.figures.runs import conditions
from experiments.metrics.intervals import bootstrap
from experiments.metrics.readable import percent
from experiments.metrics.references import SCORED

# A gap that nobody would notice, as a share of what a solver can gain.
TIE = 1e-3
_LEAST = 1e-5
# Below this share the axis is linear, so that 0 is on it.
_NEAR = 1e-6


def by_lam(runs: pd.DataFrame, instances: pd.DataFrame) -> pd.DataFrame:
    """Median gap of each solver at each share of the loss block, with its interval.

    The gap of an instance is the median over seeds; instances are resampled.

    Returns:
        Columns n, lam, solver, track, gap, low, high, instances.
    """
    lam = {row["id"]: json.loads(row["meta"]).get("lam") for row in instances.to_dict("records")}
    scored = runs[runs["status"].isin(SCORED) & ~runs["flat"].astype(bool)].copy()
    scored["lam"] = scored["instance"].map(lam).astype(float)
    scored = scored[scored["lam"].notna()]
    rows = []
    for (n, share, solver), part in scored.groupby(["n", "lam", "solver"]):
        gaps = part.groupby("instance")["gap"].median().to_numpy()
        low, high = bootstrap(gaps, lambda v: float(np.median(v)), rng=np.random.default_rng(0))
        rows.append(
            {
                "n": n, "lam": share, "solver": solver, "track": part["track"].iloc[0],
                "gap": float(np.median(gaps)), "low": low, "high": high, "instances": len(gaps),
            }
        )  # fmt: skip
    columns = ["n", "lam", "solver", "track", "gap", "low", "high", "instances"]
    return pd.DataFrame(rows, columns=columns)


def crossing(table: pd.DataFrame, solver: str) -> float:
    """The least lam from which on a solver's median gap is a tie at every size; NaN if never."""
    own = table[table["solver"] == solver].groupby("lam")["gap"].max().sort_index()
    late = own[::-1].le(TIE).cummin()[::-1]
    return float(late.index[late].min()) if late.any() else float("nan")


def words(runs: pd.DataFrame, instances: pd.DataFrame) -> str:
    """Who matters at both ends, and where that ends."""
    table = by_lam(runs, instances)
    if table.empty:
        return "There is no instance with a share of the loss block."
    said = []
    for lam in (table["lam"].min(), table["lam"].max()):
        part = table[table["lam"] == lam].groupby("solver")["gap"].max().sort_values()
        names = ", ".join(f"{name} {percent(gap)}" for name, gap in part.items())
        said.append(f"lam = {lam:g}: {names}")
    for solver in ("greedy", "descent"):
        if (table["solver"] == solver).any():
            point = crossing(table, solver)
            where = f"from lam = {point:g} on" if point == point else "at no lam"
            said.append(f"{solver} is within {percent(TIE)} of the best known {where}")
    return f"{'. '.join(said)}."


@figure(
    "kinds",
    "From the layer's output to the loss",
    lambda runs, instances: (
        "Median gap to the best known, as a share of what can be gained, against the share of the "
        f"loss block in a mix with the row block of the same weights. {words(runs, instances)}"
    ),
)
def kinds(runs: pd.DataFrame, instances: pd.DataFrame) -> Figure:
    """Median gap against lam, a panel a size; bars are intervals over instances."""
    table = by_lam(runs, instances)
    sizes = sorted(table["n"].unique()) or [0]
    labels, tracks = palette.ordered(set(table["solver"])), palette.tracks(table)
    with palette.look():
        drawn = palette.new_figure(palette.PAGE, 2.9)
        axes = drawn.subplots(1, len(sizes), squeeze=False, sharey=True)[0]
        for axis, n in zip(axes, sizes, strict=True):
            for place, label in enumerate(labels):
                part = table[(table["n"] == n) & (table["solver"] == label)].sort_values("lam")
                shift = 1 + 0.03 * (place - len(labels) / 2)
                y = part["gap"].clip(lower=_LEAST)
                ends = [y - part["low"].clip(lower=_LEAST), part["high"].clip(lower=_LEAST) - y]
                axis.errorbar(
                    part["lam"] * shift, y, yerr=np.maximum(ends, 0), marker="o", markersize=2.5,
                    linewidth=0.9, elinewidth=0.6, color=palette.style(label).colour,
                    linestyle=palette.LINES.get(tracks.get(label, ""), ":"),
                )  # fmt: skip
            axis.set_yscale("log")
            axis.set_xscale("symlog", linthresh=_NEAR)
            axis.set_xlim(left=-0.3 * _NEAR)
            axis.set_title(f"n = {n}", loc="left")
            axis.set_xlabel("lam: 0 row block, 1 loss block")
        axes[0].set_ylabel("median gap to the best known")
        drawn.legend(
            handles=palette.solver_handles(labels, tracks), loc="outside upper center", ncols=6,
            frameon=False,
        )  # fmt: skip
        palette.caption(
            drawn,
            f"Gap: 0 at the best known, 1 at the current mask; at the foot of an axis {_LEAST:g} "
            f"or less. Bars: 95 % intervals over instances. {conditions(runs)}",
        )
    return drawn
