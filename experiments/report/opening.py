"""The top of a page, for a new reader: what was solved, what a gap of 0 means, who won.

Before that comes what would make the rest misleading: a study that is not complete, runs that all
failed, answers that a device was paid for or that only a rehearsal gave.
"""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path

import pandas as pd

from experiments.metrics import paidruns
from experiments.metrics.ranking import Headline
from experiments.metrics.references import SCORED
from experiments.report.completeness import Plan

# Of the reasons for failures, so many are at the top; all are in their table.
REASONS = 3
# Solvers are listed by name up to this many.
NAMED = 8


def succeeded(runs: pd.DataFrame) -> pd.Series:
    """Which runs gave a feasible answer in time."""
    return (runs["status"] == "done") & runs["energy"].notna()


def incomplete(plans: list[Plan], store: Path, at_work: bool, runs: pd.DataFrame) -> list[str]:
    """What is missing of what was planned, and how to go on.

    Args:
        plans: of the store.
        store: its path.
        at_work: whether a driver is writing it now.
        runs: of the store.
    """
    out = []
    for plan in plans:
        if not plan.missing:
            continue
        here = f"{plan.found} of the {plan.cells} runs of study {plan.study} are in this store"
        if at_work:
            out.append(
                f"This study is running: {here} so far. Write the page again when it has ended."
            )
            continue
        pending = int((runs["pending"] == 1).sum())
        waiting = f" ({pending} wait for a device, and are collected then)" if pending else ""
        out.append(
            f"This study is not complete: {here}; it was interrupted, and {plan.missing} are left "
            f"to do{waiting}. What follows is about those that are there. To go on, give the same "
            f"icbs bench command again with --store {shlex.quote(str(store))} --resume: what is "
            "there is not run again."
        )
    return out


def failed(runs: pd.DataFrame) -> list[str]:
    """That no run succeeded, and why; nothing if one did."""
    if succeeded(runs).any():
        return []
    counts = Counter[str]()
    bad = runs[runs["reason"] != ""]
    for status in ("error", "timeout", "done", "skipped"):
        own = bad[bad["status"] == status]
        counts.update(own["solver"] + ": " + own["reason"])
    statuses = runs["status"].value_counts()
    said = ", ".join(f"{count} {_STATUSES[str(status)]}" for status, count in statuses.items())
    common = "; ".join(f"{reason} ({count} runs)" for reason, count in counts.most_common(REASONS))
    more = f"; and {len(counts) - REASONS} other reasons" if len(counts) > REASONS else ""
    return [
        f"No run succeeded, so nothing can be compared: of {len(runs)} runs, {said}. "
        f"Commonest {'reason' if len(counts) == 1 else 'reasons'}: {common}{more}."
    ]


_STATUSES = {
    "done": "ended without a feasible answer",
    "error": "ended in an error",
    "skipped": "were skipped",
    "timeout": "came too late",
}


def devices(runs: pd.DataFrame) -> list[str]:
    """What ran on devices that cost money, or was rehearsed for them."""
    return [use.sentence for use in paidruns.uses(runs)]


def sentences(runs: pd.DataFrame, instances: pd.DataFrame, said: Headline) -> list[str]:
    """What was solved, what a gap of 0 means, who won."""
    return [_solved(runs, instances), _gap(runs), _won(runs, said)]


def _solved(runs: pd.DataFrame, instances: pd.DataFrame) -> str:
    used = instances[instances["id"].isin(runs["instance"])]
    solvers = sorted(set(runs["solver"]))
    names = f" ({', '.join(solvers)})" if 1 < len(solvers) <= NAMED else ""
    who = f"{len(solvers)} solvers{names}" if len(solvers) > 1 else f"One solver, {solvers[0]},"
    sizes = _sizes(sorted(set(used["n"])))
    models = sorted(set(used["model"].dropna()) - {""})
    problems = "1 problem" if len(used) == 1 else f"{len(used)} problems"
    verb = "were" if len(solvers) > 1 else "was"
    if models:
        name = f"the {'model' if len(models) == 1 else 'models'} {', '.join(models)}"
        return (
            f"{who} {verb} given {problems} cut out of {name}: of {sizes} weights of "
            "a layer, choose the k to prune (set to zero) so that a quadratic estimate says the "
            "model loses least."
        )
    return (
        f"{who} {verb} given {problems}: of {sizes} variables, choose k so that a quadratic cost, "
        "the energy, is lowest."
    )


def _sizes(sizes: list[int]) -> str:
    if len(sizes) > 4:
        return f"n = {sizes[0]} to {sizes[-1]}"
    return f"n = {', '.join(map(str, sizes[:-1]))}{' or ' if len(sizes) > 1 else ''}{sizes[-1]}"


def _gap(runs: pd.DataFrame) -> str:
    each = runs.drop_duplicates("instance")
    each = each[~each["flat"].astype(bool)]
    proved = int((each["tag"] == "exact").sum())
    masks = set(each["baseline"])
    start = " or ".join(words for name, words in _STARTS.items() if name in masks)
    proof = (
        f" (on {'all' if proved == len(each) else proved} of {len(each)} a proof says that none "
        "exists)"
        if proved
        else ""
    )
    worth = f", 100 % that it is no better than {start}" if start else ""
    return f"A gap of 0 means that nobody knows a better answer{proof}{worth}."


_STARTS = {
    "incumbent": "the current mask, the choice that the model had before",
    "random mean": "a choice at random",
}


def _won(runs: pd.DataFrame, said: Headline) -> str:
    if said.won:
        return " ".join(said.won)
    scored = runs[runs["status"].isin(SCORED)]
    if len(scored) and scored["flat"].astype(bool).all():
        return "Nobody won: on these problems every choice costs the same."
    return "Nobody won: no run gave an answer that can be compared."
