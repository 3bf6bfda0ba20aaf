"""Whether the shots of a quantum solver find more than guessing does."""

from __future__ import annotations

import numpy as np
import pandas as pd

from experiments.metrics import paidruns
from experiments.metrics.intervals import bootstrap
from experiments.metrics.references import SCORED

GUESSING = "random"
"""The solver whose strings are uniformly random, and repaired."""


def of_use(runs: pd.DataFrame, use: paidruns.Use) -> str:
    """What one solver's shots reached on one device, beside guessing; empty if nothing did."""
    own = paidruns.paid(runs)
    own = own[(own["solver"] == use.solver) & (own["device"] == use.device)
              & (own["rehearsal"] == use.rehearsal)]  # fmt: skip
    place = use.device
    if use.rehearsal:
        noisy = own["info"].str.contains('"emulator"', regex=False).any()
        place += " rehearsed on " + ("an emulator with its noise" if noisy else
                                     "a simulator without noise")  # fmt: skip
    return _compared(runs, runs.loc[own.index], f"{use.solver} on {place}")


def local(runs: pd.DataFrame) -> list[str]:
    """What QAOA on simulators of this machine reached, beside guessing."""
    qaoa = runs[runs["solver_name"].str.startswith("qaoa")]
    qaoa = qaoa.drop(index=qaoa.index.intersection(paidruns.paid(qaoa).index))
    text = _compared(runs, qaoa, "QAOA on simulators of this machine")
    return [text] if text else []


def _compared(runs: pd.DataFrame, own: pd.DataFrame, who: str) -> str:
    own = own[own["status"].isin(SCORED) & own["success"].notna()]
    if own.empty:
        return ""
    share = float(own["success"].mean())
    raw = own["raw_feasible"].dropna()
    repaired = f" ({100 * raw.mean():.2g} % choose exactly k before)" if len(raw) else ""
    text = (
        f"{who} (n up to {own['n'].max()}): {100 * share:.2g} % of the shots are at the best known "
        f"after repair{repaired}"
    )
    floor = runs[(runs["solver_name"] == GUESSING) & runs["status"].isin(SCORED)]
    floor = floor[floor["instance"].isin(own["instance"]) & floor["success"].notna()]
    if floor.empty:
        return f"{text}. No run of {GUESSING} tells whether that is better than guessing."
    guessed = float(floor["success"].mean())
    return (
        f"{text}; of uniformly random strings, repaired the same way, {100 * guessed:.2g} %: "
        f"{_verdict(own, floor)}."
    )


def _verdict(own: pd.DataFrame, floor: pd.DataFrame) -> str:
    """By the means of runs and their 95 % intervals."""
    if own["success"].mean() <= floor["success"].mean():
        return "no better than guessing"
    rng = np.random.default_rng(0)
    low, _ = bootstrap(own["success"], np.mean, rng=rng)
    _, high = bootstrap(floor["success"], np.mean, rng=rng)
    return "better than guessing" if low > high else "not to be told apart from guessing"
