"""Anytime curves under three accountings, and where the choice of accounting changes a ranking.

A run's improvements are stamped by the runner's clock, from the start of its call. The same curve
read by another clock:

* ``execute``: only the stage ``execute`` of the ledger counts. What came before it (convert,
  preprocess, training, queue) is taken off the front, and nothing later than its end counts: what
  repair made better is credited to the end of the execution, as a device's own clock would have it.
* ``wall``: the solver's call as it is.
* ``end to end``: the seconds that cutting the block out of the model took come first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from experiments.metrics import formulas as metrics
from experiments.metrics.references import SCORED

ACCOUNTINGS = ("execute", "wall", "end to end")
_BEFORE = ("convert", "preprocess", "training", "queue")


def clocked(runs: pd.DataFrame, incumbents: pd.DataFrame) -> pd.DataFrame:
    """Improvements on all three clocks.

    Args:
        runs: of a store, annotated.
        incumbents: of the same store: run (a key), seconds, energy.

    Returns:
        Columns run, energy, gap and a column of seconds for each of `ACCOUNTINGS`.
    """
    scored = runs[runs["status"].isin(SCORED) & ~runs["flat"].astype(bool)]
    keep = ["key", "build", "execute", "reference", "baseline_energy", "tolerance", *_BEFORE]
    joined = incumbents.merge(scored[keep], left_on="run", right_on="key")
    start = joined[list(_BEFORE)].fillna(0.0).sum(axis=1)
    execute = joined["execute"].fillna(0.0)
    gap = metrics.gap(joined["energy"], joined["reference"], joined["baseline_energy"])
    met = joined["energy"] <= joined["reference"] + joined["tolerance"]
    return pd.DataFrame(
        {
            "run": joined["run"],
            "energy": joined["energy"],
            "gap": gap.mask(met, 0.0),
            "execute": np.minimum((joined["seconds"] - start).clip(lower=0.0), execute),
            "wall": joined["seconds"],
            "end to end": joined["seconds"] + joined["build"].fillna(0.0),
        }
    )


def longest(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of the largest time limit of their solver and instance, flat instances left out."""
    kept = runs[~runs["flat"].astype(bool)]
    limit = kept.groupby(["solver", "instance"])["time_limit"].transform("max")
    return kept[(kept["time_limit"] == limit) | limit.isna()]


def median_curves(
    runs: pd.DataFrame, improvements: pd.DataFrame, grid: ArrayLike, accounting: str
) -> pd.DataFrame:
    """Median over runs of the gap known at each time; inf where fewer than half have any.

    Args:
        runs: those to take together; of each solver and instance only the largest budget's.
        improvements: as `clocked` gives them.
        grid: seconds, shape (m,).
        accounting: one of `ACCOUNTINGS`.

    Returns:
        Index: the grid; one column a solver.
    """
    times = np.asarray(grid, dtype=np.float64)
    by_run = dict(tuple(improvements.groupby("run")))
    scored = longest(runs[runs["status"].isin(SCORED)])
    curves: dict[str, NDArray[np.float64]] = {}
    for solver, part in scored.groupby("solver"):
        known = [by_run[key] for key in part["key"] if key in by_run]
        rows = [metrics.anytime(one[accounting], one["gap"], times) for one in known]
        rows += [np.full(len(times), np.nan)] * (len(part) - len(known))
        # Nothing found yet is worse than any gap.
        curves[str(solver)] = np.median(np.nan_to_num(rows, nan=np.inf), axis=0)
    return pd.DataFrame(curves, index=pd.Index(times, name="seconds"))


def leaders(curves: pd.DataFrame, tolerance: float = 1e-9) -> list[frozenset[str]]:
    """At each time, the solvers of smallest gap; none where nobody has found anything."""
    return [
        frozenset(
            str(name)
            for name, gap in row.items()
            if np.isfinite(gap) and gap <= row.min() + tolerance
        )
        for _, row in curves.iterrows()
    ]


def changes(curves: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Where an accounting crowns other solvers than the wall clock does.

    Args:
        curves: accounting -> `median_curves` on one common grid.

    Returns:
        One row a stretch of the grid: accounting, start, end, wall (leaders by the wall clock),
        instead (leaders by the accounting). Empty where the choice does not matter.
    """
    wall = leaders(curves["wall"])
    grid = curves["wall"].index.to_numpy()
    rows: list[dict[str, object]] = []
    for name, table in curves.items():
        last = None
        for i, (own, reference) in enumerate(zip(leaders(table), wall, strict=True)):
            pair = (own, reference)
            if not own or not reference or own == reference:
                last = None
            elif pair == last:
                rows[-1]["end"] = float(grid[i])
            else:
                rows.append({
                    "accounting": name, "start": float(grid[i]), "end": float(grid[i]),
                    "wall": ", ".join(sorted(reference)), "instead": ", ".join(sorted(own)),
                })  # fmt: skip
                last = pair
    return pd.DataFrame(rows, columns=["accounting", "start", "end", "wall", "instead"])


def time_grid(improvements: pd.DataFrame, points: int = 60) -> NDArray[np.float64]:
    """Times from the first improvement on any clock to the last, evenly on a logarithm."""
    seconds = improvements[list(ACCOUNTINGS)].to_numpy(dtype=np.float64)
    seconds = seconds[seconds > 0]
    if not len(seconds):
        return np.array([1.0])
    low, high = float(seconds.min()), float(seconds.max())
    return np.geomspace(max(low, 1e-6), max(high, low, 1e-6) * 1.2, points)


def summary(runs: pd.DataFrame, improvements: pd.DataFrame, track: str) -> pd.DataFrame:
    """`changes` of every group of n and Fisher within a track, with columns n and fisher first."""
    tables: Sequence[pd.DataFrame] = []
    part = runs[runs["track"] == track].assign(fisher=lambda frame: frame["fisher"].fillna(""))
    for (n, fisher), group in part.groupby(["n", "fisher"]):
        own = improvements[improvements["run"].isin(group["key"])]
        if own.empty:
            continue
        grid = time_grid(own)
        found = changes({a: median_curves(group, own, grid, a) for a in ACCOUNTINGS})
        found.insert(0, "fisher", [str(fisher)] * len(found))
        found.insert(0, "n", [n] * len(found))
        tables = [*tables, found]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
