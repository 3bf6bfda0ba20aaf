"""How much of what was planned a store holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

_KEYS = ("study", "seed", "seeds", "budgets", "solvers", "options", "give_initial", "instances",
         "cells")  # fmt: skip


@dataclass
class Plan:
    """One study as it was started, however often.

    Attributes:
        study: its name.
        cells: how many it plans; None where the store does not say.
        found: how many of them are in the store, whoever made them, and not waiting for a device.
        made: driver's number -> how many of them it made.
    """

    study: str
    cells: int | None
    found: int
    made: dict[int, int] = field(default_factory=dict)

    @property
    def missing(self) -> int:
        """How many are not in the store."""
        return max(0, (self.cells or 0) - self.found)


def plans(runs: pd.DataFrame, invocations: Sequence[dict[str, Any]]) -> list[Plan]:
    """Every plan that a driver followed, in the order of their first.

    Drivers that resumed a study share its plan, as do those of stores that were merged. A cell that
    two plans have in common counts in both.

    Args:
        runs: of the store.
        invocations: its drivers.
    """
    found: dict[str, Plan] = {}
    seeds = runs["invocation"].map({entry["id"]: str(entry.get("seed")) for entry in invocations})
    for entry in invocations:
        key = json.dumps([entry.get(name) for name in _KEYS], sort_keys=True)
        if key not in found:
            there = runs[_planned(runs, seeds, entry)]
            cells = entry.get("cells")
            known = isinstance(cells, int) and cells >= 0
            found[key] = Plan(entry["study"], cells if known else None, len(there))
        made = runs["invocation"] == entry["id"]
        found[key].made[entry["id"]] = int(made.sum())
    return list(found.values())


def _planned(runs: pd.DataFrame, seeds: pd.Series, entry: dict[str, Any]) -> pd.Series:
    """Which runs a driver's plan has; what an older store does not say counts as equal."""
    chosen = (runs["pending"] != 1) & (seeds == str(entry.get("seed")))
    for name, column in (("instances", "instance"), ("solvers", "solver"), ("budgets", "budget"),
                         ("seeds", "seed_index")):  # fmt: skip
        if isinstance(entry.get(name), list):
            chosen &= runs[column].astype(str).isin(set(map(str, entry[name])))
    if isinstance(entry.get("options"), list) and isinstance(entry.get("solvers"), list):
        options = dict(
            zip(*(map(str, entry[name]) for name in ("solvers", "options")), strict=False)
        )
        chosen &= runs["options"] == runs["solver"].map(options)
    return chosen & (runs["give_initial"].astype("boolean") == bool(entry.get("give_initial")))
