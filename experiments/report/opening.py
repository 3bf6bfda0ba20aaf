"""The top of a page, for a new reader: what was solved, what a gap of 0 means, who leads.

Before that comes what would make the rest misleading: a study that is not complete, runs that all
failed, answers that a device was paid for or that only a rehearsal gave.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from experiments.metrics import chance, glossary, paidruns, verdict
from experiments.metrics.ranking import Headline
from experiments.metrics.references import SCORED
from experiments.report.causes import causes
from experiments.report.completeness import Plan
from solvers.registry import registered

# Of the reasons for failures, so many are at the top; all are in their table.
REASONS = 5


@dataclass(frozen=True)
class Note:
    """Something to read before all else.

    Attributes:
        text: a paragraph.
        points: a list under it.
        command: to be copied, on a line of its own.
        after: a paragraph after the command.
    """

    text: str
    points: tuple[str, ...] = ()
    command: str = ""
    after: str = ""


def succeeded(runs: pd.DataFrame) -> pd.Series:
    """Which runs gave a feasible answer in time."""
    return (runs["status"] == "done") & runs["energy"].notna()


def incomplete(plans: Sequence[Plan], store: Path, at_work: bool, runs: pd.DataFrame) -> list[Note]:
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
        if plan.problems is not None:
            here += f", on {plan.problems_run} of its {plan.problems} problems"
        left = tuple(
            f"{name}: {missing} of {planned} runs are missing"
            for name, (missing, planned) in plan.left.items()
        )
        if at_work:
            text = f"This study is running: {here} so far. Write the page again when it has ended."
            out.append(Note(text, left))
            continue
        pending = int((runs["pending"] == 1).sum())
        waiting = f" ({pending} wait for a device, and are collected then)" if pending else ""
        out.append(Note(
            f"This study is not complete: {here}; it was interrupted, and {plan.missing} are left "
            f"to do{waiting}. What follows is about those that are there. To go on, give the same "
            "command again with --resume (what is there is not run again):",
            left, *_command(plan, store),
        ))  # fmt: skip
    return out


def _command(plan: Plan, store: Path) -> tuple[str, str]:
    """The command that goes on, and what its reader has to put in."""
    if plan.command:
        resumed = [word for word in plan.command if word != "--resume"]
        return f"{shlex.join(resumed)} --resume", "In the folder where it was given first."
    end = f"--store {shlex.quote(str(store))} --resume"
    if plan.repeat and plan.study == store.stem:
        return (
            f"icbs bench --instances FILES {plan.repeat} {end}",
            "For FILES put the files or patterns of the first command.",
        )
    return f"icbs bench STUDY {end}", (
        "For STUDY put the study file of the first command; a study that was written in Python "
        "goes on when its program is run again."
    )


def failed(runs: pd.DataFrame) -> list[Note]:
    """That no run succeeded, and why; nothing if one did."""
    if succeeded(runs).any():
        return []
    statuses = runs["status"].value_counts()
    said = ", ".join(f"{count} {_STATUSES[str(status)]}" for status, count in statuses.items())
    found = causes(runs)
    points = tuple(
        f"{_runs(one.runs)} {_STATUSES[one.status]}: {one.solver}: {one.reason}"
        + (f" (To do: {one.remedy})" if one.remedy else "")
        for one in found[:REASONS]
    )
    more = (
        f" The others are under Failures and skips ({len(found)} in all)."
        if len(found) > REASONS
        else ""
    )
    heading = "Commonest causes" if len(found) > 1 else "The cause"
    return [Note(
        f"No run succeeded, so nothing can be compared: of {_runs(len(runs))}, {said}. "
        f"{heading}:", points, after=more.strip(),
    )]  # fmt: skip


def _runs(count: int) -> str:
    return f"{count} run{'' if count == 1 else 's'}"


_STATUSES = {
    "done": "ended without a feasible answer",
    "error": "ended in an error",
    "skipped": "were skipped",
    "timeout": "came too late",
}


def devices(runs: pd.DataFrame) -> list[list[str]]:
    """Of everything that ran on a device that costs money, or was rehearsed: a finding, its price.

    The finding comes first, then what it cost, then what a rehearsal is good for.
    """
    out = []
    for use in paidruns.uses(runs):
        finding = chance.of_use(runs, use)
        out.append([text for text in (finding, use.sentence, use.decision(finding)) if text])
    return out


def sentences(
    runs: pd.DataFrame, instances: pd.DataFrame, said: Headline, plans: Sequence[Plan]
) -> list[str]:
    """Where a solver matters, what was solved, what a gap of 0 means; that nobody leads.

    No gap where nothing succeeded.
    """
    gap = [_gap(runs)] if (runs["status"].isin(SCORED) & runs["gap"].notna()).any() else []
    first = verdict.sentence(runs) if gap else ""
    nobody = [] if said.won else [_nobody(runs)]
    return [*([first] if first else []), _solved(runs, instances, plans), *gap, *nobody]


def _solved(runs: pd.DataFrame, instances: pd.DataFrame, plans: Sequence[Plan]) -> str:
    used = instances[instances["id"].isin(runs["instance"])]
    solvers = sorted(set(runs["solver"]))
    sizes = _sizes(sorted(set(used["n"])))
    models = sorted(set(used["model"].dropna()) - {""})
    if models:
        name = f"the {'model' if len(models) == 1 else 'models'} {', '.join(models)}"
        task = (
            f"Each problem is a piece of a layer of {name}: choose k of its n weights to set to "
            f"zero (to prune), so that as little as possible is lost. {_energies(used)} Here n is "
            f"{sizes}."
        )
    else:
        task = (
            "Each problem: choose k of n variables, so that a quadratic cost, the energy, is "
            f"lowest. Here n is {sizes}."
        )
    problems = "1 problem" if len(used) == 1 else f"{len(used)} problems"
    if len(plans) == 1 and plans[0].missing and plans[0].problems is not None:
        problems = f"{len(used)} of {plans[0].problems} planned problems"
    who = f"{len(solvers)} solvers" if len(solvers) > 1 else f"one solver, {solvers[0]},"
    skipped = int((runs["status"] == "skipped").sum())
    some = f"; {skipped} of {_runs(len(runs))} were skipped" if skipped else ""
    sizes_of = runs.assign(fisher=runs["fisher"].fillna("")).groupby(["n", "fisher"])["instance"]
    groups = sorted(set(sizes_of.nunique()))
    each = f"{groups[0]}" if len(groups) == 1 else f"{groups[0]} to {groups[-1]}"
    seeds = runs["seed_index"].nunique()
    sure = f"{each} of each size and curvature, {seeds} seed{'' if seeds == 1 else 's'}"
    flat = int(runs.drop_duplicates("instance")["flat"].sum())
    out = f"; on {flat} nothing can be gained, so that no comparison has them" if flat else ""
    return f"{task} The study sets {who} to {problems} ({sure}{out}){some}."


def _energies(used: pd.DataFrame) -> str:
    """What the energy of each kind says that is there."""
    found = glossary.fishers(used)
    said = [words for kind, words in _ENERGIES.items()
            if any(glossary.kinds(fisher).startswith(kind) for fisher in found)]  # fmt: skip
    if not said:
        return "A quadratic formula, the energy, estimates how much that is."
    return f"A quadratic formula, the energy, says how much that is: {', '.join(said)}."


_ENERGIES = {
    "row": "of a row block the share of one output of the layer that is lost",
    "loss": "of a loss block an estimate of how much the model's loss changes",
    "mix": "of a mix the weighted sum of both",
}


def _sizes(sizes: list[int]) -> str:
    if len(sizes) > 4:
        return f"{sizes[0]} to {sizes[-1]}"
    return f"{', '.join(map(str, sizes[:-1]))}{' or ' if len(sizes) > 1 else ''}{sizes[-1]}"


def solvers(runs: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Every solver with its kind and what it does in one line, then that no quantum one ran."""
    entries = registered()
    names = dict(zip(runs["solver"], runs["solver_name"], strict=True))
    return [
        (label, _kind(str(name)), entries[name].summary if name in entries else "")
        for label, name in sorted(names.items())
    ]


def no_quantum(runs: pd.DataFrame) -> bool:
    """Whether none of the solvers has to do with quantum computing."""
    return not any(
        _kind(str(name)).startswith(("quantum", "hybrid")) for name in runs["solver_name"]
    )


_KINDS = {
    "greedy": "control: no search",
    "random": "control: guessing",
    "relaxation": "classical, with a bound",
    "path-integral": "classical, imitates quantum annealing",
    "qpu": "quantum annealer",
    "leap-hybrid-cqm": "hybrid of classical and quantum",
    "leap-hybrid-nl": "hybrid of classical and quantum",
}


def _kind(name: str) -> str:
    entry = registered().get(name)
    if name in _KINDS:
        return _KINDS[name]
    if name.startswith("qaoa"):
        return "quantum algorithm" if entry and entry.paid else "quantum algorithm, simulated"
    if entry is None:
        return "not one of the package's"
    return "classical, exact" if entry.exact else "classical"


def _gap(runs: pd.DataFrame) -> str:
    each = runs.drop_duplicates("instance")
    each = each[~each["flat"].astype(bool)]
    proved = int((each["tag"] == "exact").sum())
    masks = set(each["baseline"])
    start = " or ".join(words for name, words in _STARTS.items() if name in masks)
    text = (
        "The gap says how far an answer is from the best known one. A gap of 0 means that nobody "
        "knows a better answer."
    )
    if start:
        text += f" A gap of 100 % is no better than {start}."
    if proved:
        on = "all problems" if proved == len(each) else f"{proved} of {len(each)} problems"
        on = "the problem" if len(each) == 1 else on
        text += f" On {on} there is a proof that no better answer exists."
    return text


_STARTS = {
    "incumbent": "the current mask (the weights that were set to zero before)",
    "random mean": "a choice at random",
}


def _nobody(runs: pd.DataFrame) -> str:
    """Why nobody leads."""
    scored = runs[runs["status"].isin(SCORED)]
    if len(scored) and scored["flat"].astype(bool).all():
        return "Nobody leads: on these problems every choice costs the same."
    return "Nobody leads: no run gave an answer that can be compared."


def example(runs: pd.DataFrame) -> str:
    """Words that find rows in the table of runs."""
    first = runs.iloc[0]
    curvature = glossary.curvature(first["fisher"]).split(" ")[0]
    return " ".join(filter(None, [str(first["solver"]), str(first["n"]), curvature]))
