"""Does a new run of a study say what the committed one says? Tolerances, one a statement.

* ``cells``: the same blocks by name, solvers, budgets and seeds.
* ``blocks``: a block's coefficients come from a model's passes, which round differently on another
  kind of processor: its magnitude, and its random states' mean energy in units of that, to `BLOCK`
  (3e-4 was the most between processors with and without AVX512). ``blocks of other bits`` counts
  those that are not the same to the last bit.
* ``skips and errors``: of every cell alike. ``status`` besides, for budgets of reads or sweeps.
* ``energy``: of budgets of reads or sweeps, on blocks that are the same to the last bit, to
  `ENERGY` of the block's magnitude; ``gap`` to `ENERGY` as well.
* ``median gap``: of time limits, where the machine decides how far a solver gets: per solver and
  instance at the largest limit, over seeds, to `GAP` of the attainable gain. The same of blocks
  of other bits by budgets of reads or sweeps, over seeds and blocks: a cell's seed comes from its
  block's content, so that every solver draws other random numbers there.
* ``loss``: at the end of every contestant's loop, mean over seeds, to `LOSS`, relative; the same
  of whole models per method and density.

Seconds are reported as a ratio and not judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

BLOCK = 1e-3
ENERGY = 1e-9
GAP = 0.05
LOSS = 0.05


@dataclass(frozen=True)
class Finding:
    """One statement.

    Attributes:
        study: its name.
        what: the statement.
        worst: the largest difference, or the number of cells that differ.
        tolerance: the largest that passes; None: not judged.
        where: which cell or group differs most.
    """

    study: str
    what: str
    worst: float
    tolerance: float | None
    where: str = ""

    @property
    def breach(self) -> bool:
        """Whether the new run says something else."""
        return self.tolerance is not None and not self.worst <= self.tolerance

    def __str__(self) -> str:
        verdict = "BREACH" if self.breach else "-" if self.tolerance is None else "ok"
        limit = "" if self.tolerance is None else f"{self.tolerance:g}"
        numbers = f"{self.worst:10.3g} {limit:>8} {verdict:6}"
        return f"{self.study:10} {self.what:26} {numbers} {self.where}".rstrip()


Tables = Mapping[str, pd.DataFrame]

# What names a solver, and a block in a study; what is compared over blocks, and over seeds alone.
_SOLVER = ["solver", "options", "track", "give_initial"]
_BLOCK = ["model", "density", "step", "instance_name"]
_OVER_BLOCKS = [*_SOLVER, "budget"]
_OVER_SEEDS = [*_BLOCK, *_OVER_BLOCKS]


def compare(old: Tables, new: Tables, study: str = "") -> list[Finding]:
    """Every statement on a committed and a new run.

    Args:
        old: the committed tables by name, ``runs`` among them.
        new: those of the new run.
        study: its name.
    """
    before, after = _by_place(old["runs"]), _by_place(new["runs"])
    apart = before.index.symmetric_difference(after.index)
    found = [Finding(study, "cells", len(apart), 0, _first(apart))]
    both = before.index.intersection(after.index)
    before, after = before.loc[both], after.loc[both]
    found += _statuses(study, before, after)
    fixed, same = before["time_limit"].isna(), before["instance"] == after["instance"]
    found += _blocks(study, before, after)
    others = before.loc[~same, "instance"].nunique()
    found.append(Finding(study, "blocks of other bits", others, None))
    found += _energies(study, before[fixed & same], after[fixed & same])
    limit = before.groupby([*_BLOCK, *_SOLVER], dropna=False)["time_limit"].transform("max")
    last = before["time_limit"] == limit
    found += _gaps(study, "median gap, time limit", _OVER_SEEDS, before[last], after[last])
    rounded = fixed & ~same
    found += _gaps(study, "median gap, other bits", _OVER_BLOCKS, before[rounded], after[rounded])
    found += _losses(study, old, new)
    ratio = (after["wall"] / before["wall"]).dropna()
    if len(ratio):
        found.append(Finding(study, "seconds, ratio", float(ratio.median()), None))
    return found


def _by_place(runs: pd.DataFrame) -> pd.DataFrame:
    columns = runs[[*_OVER_SEEDS, "seed_index"]]
    # Instances of the library come from no step; texts of pandas keep what is missing.
    known = columns.astype(object).where(columns.notna(), "").map(str)
    return runs.set_index(known.agg(" | ".join, axis=1))


def _statuses(study: str, before: pd.DataFrame, after: pd.DataFrame) -> list[Finding]:
    out = []
    fixed = before["time_limit"].isna()
    # Whether an answer came late is up to the machine.
    as_one = {"timeout": "done"}
    for what, left, right in (
        ("skips and errors", before["status"].replace(as_one), after["status"].replace(as_one)),
        ("status, no time limit", before.loc[fixed, "status"], after.loc[fixed, "status"]),
    ):
        differs = left.index[left != right]
        out.append(Finding(study, what, len(differs), 0, _cell(before, differs)))
    return out


def _blocks(study: str, before: pd.DataFrame, after: pd.DataFrame) -> list[Finding]:
    columns = ["magnitude", "random_energy"]
    apart = (after[columns] - before[columns]).abs().div(before["magnitude"], axis=0).max(axis=1)
    # A block that only one run could read is as far apart as can be.
    unread = before["magnitude"].isna() != after["magnitude"].isna()
    apart = apart.mask(unread, np.inf).dropna().sort_values()
    if apart.empty:
        return []
    return [Finding(study, "blocks", float(apart.iloc[-1]), BLOCK, _cell(before, apart.index[-1:]))]


def _energies(study: str, before: pd.DataFrame, after: pd.DataFrame) -> list[Finding]:
    out = []
    for column, unit in (("energy", before["magnitude"]), ("gap", 1.0)):
        apart = (after[column] - before[column]).abs() / unit
        # One without an energy where the other has one is as far apart as can be.
        apart = apart.mask(before[column].isna() != after[column].isna(), np.inf).dropna()
        if len(apart):
            worst = apart.sort_values().index[-1:]
            out.append(Finding(study, f"{column}, no time limit", float(apart.max()), ENERGY,
                               _cell(before, worst)))  # fmt: skip
    return out


def _gaps(
    study: str, what: str, keys: list[str], before: pd.DataFrame, after: pd.DataFrame
) -> list[Finding]:
    left, right = (
        frame.fillna({"gap": np.inf}).groupby(keys, dropna=False)["gap"].median()
        for frame in (before, after)
    )
    apart = (right - left).abs().mask(np.isinf(left) & np.isinf(right), 0.0)
    if apart.empty:
        return []
    where = dict(zip(keys, apart.sort_values().index[-1], strict=True))
    names = ("solver", "instance_name", "budget")
    cell = ", ".join(str(where[name]) for name in names if name in where)
    return [Finding(study, what, float(apart.max()), GAP, cell)]


_GROUPS = {"trajectories": ["model", "contestant"], "methods": ["model", "density", "method"]}


def _losses(study: str, old: Tables, new: Tables) -> list[Finding]:
    out = []
    for name, keys in _GROUPS.items():
        if name not in old and name not in new:
            continue
        if name not in old or name not in new:
            out.append(Finding(study, f"{name}: tables", 1, 0, "only one has it"))
            continue
        left, right = (_ends(one[name], keys) for one in (old, new))
        groups = left.index.symmetric_difference(right.index)
        out.append(Finding(study, f"{name}: groups", len(groups), 0, _first(groups)))
        apart = (right / left - 1).abs().dropna().sort_values()
        if len(apart):
            at = apart.index[-1]
            out.append(Finding(study, f"{name}: loss at the end", float(apart.iloc[-1]), LOSS,
                               ", ".join(map(str, at))))  # fmt: skip
    return out


def _ends(table: pd.DataFrame, keys: list[str]) -> pd.Series:
    """Loss after the last step of each group, mean over seeds."""
    steps = table["step" if "step" in table else "steps"].fillna(0)
    last = steps == steps.groupby([table[key] for key in keys]).transform("max")
    return table[last].groupby(keys)["loss"].mean()


def _cell(runs: pd.DataFrame, keys: pd.Index) -> str:
    if len(keys) == 0:
        return ""
    row = runs.loc[keys[0]]
    return f"{row['solver']}, {row['instance_name']}, seed {row['seed_index']}"


def _first(items: pd.Index) -> str:
    return str(items[0]) if len(items) else ""
