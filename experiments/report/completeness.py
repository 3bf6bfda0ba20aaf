"""How much of what was planned a store holds."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from solvers.registry import registered

_KEYS = ("study", "seed", "seeds", "budgets", "solvers", "options", "give_initial", "instances",
         "cells")  # fmt: skip


@dataclass
class Plan:
    """One study as it was started, however often.

    Attributes:
        study: its name.
        cells: how many it plans; None where the store does not say.
        found: how many of them are in the store, whoever made them, and not waiting for a device.
        problems: how many it has; None where the store does not say.
        problems_run: those with a run in the store.
        left: solver -> how many of its runs are not in the store, and how many it plans; empty
            where the store does not say, and without those that have all.
        repeat: options of ``icbs bench`` that say the same plan, after the instances; empty where
            only a study file can.
        command: words of the command line that asked for it first; empty where there was none, or
            the store does not say.
        made: driver's number -> how many of them it made.
    """

    study: str
    cells: int | None
    found: int
    problems: int | None = None
    problems_run: int = 0
    left: dict[str, tuple[int, int]] = field(default_factory=dict)
    repeat: str = ""
    command: tuple[str, ...] = ()
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
            instances = entry.get("instances")
            found[key] = Plan(
                entry["study"],
                cells if known else None,
                len(there),
                len(instances) if isinstance(instances, list) else None,
                there["instance"].nunique(),
                _left(entry, there),
                _repeat(entry),
                _given(entry),
            )
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


def _left(entry: dict[str, Any], there: pd.DataFrame) -> dict[str, tuple[int, int]]:
    lists = [entry.get(name) for name in ("instances", "budgets", "seeds")]
    solvers = entry.get("solvers")
    if not isinstance(solvers, list) or not all(isinstance(one, list) for one in lists):
        return {}
    each = math.prod(len(one) for one in lists if one is not None)
    if each * len(solvers) != entry.get("cells"):
        return {}
    have = there["solver"].value_counts()
    missing = {str(name): each - int(have.get(name, 0)) for name in solvers}
    return {name: (count, each) for name, count in missing.items() if count > 0}


def _given(entry: dict[str, Any]) -> tuple[str, ...]:
    """The command of a driver; only ``icbs bench``, as a store may come from anybody."""
    words = entry.get("command")
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        return ()
    return tuple(words) if words[:2] == ["icbs", "bench"] else ()


def _repeat(entry: dict[str, Any]) -> str:
    """The options of the command line, where nothing was set that it has none for."""
    try:
        options = [json.loads(text) for text in entry["options"]]
        limits = [json.loads(text) for text in entry["budgets"]]
        plain = not any(value for one in options for value in one.values())
        plain &= all(set(one) == {"time_limit"} for one in limits)
        plain &= list(entry["seeds"]) == list(range(len(entry["seeds"]))) and entry["seed"] == 0
        if not plain or not set(entry["solvers"]) <= set(registered()):
            return ""
        seconds = ",".join(f"{one['time_limit']:g}" for one in limits)
        said = f"--solvers {','.join(entry['solvers'])} --time-limits {seconds}"
        initial = " --give-initial" if entry.get("give_initial") else ""
        return f"{said} --seeds {len(entry['seeds'])}{initial}"
    except (KeyError, TypeError, ValueError, AttributeError):  # a store may come from anybody
        return ""
