"""Why runs failed or were skipped: a line a cause, and what to do about it."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pandas as pd

LATE = "came back later than twice its limit and a second"
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w])")
# Of numbers in which messages of one cause differ, so many are listed; of more, the ends.
LISTED = 4

_REMEDIES = (
    (r"the study limits .* variables", "Raise max_variables of this solver in the study, or give "
     "it smaller problems."),
    (r"takes at most .* variables", "Give it smaller problems, or leave it out."),
    (r"ParameterError|should be a|unexpected keyword|expected a", "Correct this parameter in the "
     "study and run it again; other runs are not repeated."),
    (r"later than|no answer after|overran", "Give a longer time limit, or leave it out on problems "
     "of this size."),
    (r"MemoryError|memory", "Give more memory (--memory-limit), or smaller problems."),
    (r"No module named|is not installed", "Install the missing package."),
    (r"AccessDenied|credentials|[Tt]oken", "Check the account and its rights, then run it again."),
)  # fmt: skip


@dataclass(frozen=True)
class Cause:
    """One reason, of one solver.

    Attributes:
        solver: its label.
        status: of the runs.
        reason: with all the numbers that its messages have.
        runs: how many.
        remedy: what to do, where that is known.
    """

    solver: str
    status: str
    reason: str
    runs: int
    remedy: str


def causes(runs: pd.DataFrame) -> list[Cause]:
    """Of every run that is no plain success, the commonest first."""
    bad = runs[(runs["status"] != "done") | (runs["reason"] != "")]
    reason = bad["reason"].where(bad["status"] != "timeout", LATE)
    shape = reason.str.replace(_NUMBER, "#", regex=True)
    found = []
    groups = bad.assign(reason=reason, shape=shape).groupby(["solver", "status", "shape"])
    for (solver, status, _), part in groups:
        text = _merged(list(part["reason"]))
        remedy = next((say for pattern, say in _REMEDIES if re.search(pattern, text)), "")
        found.append(Cause(str(solver), str(status), text, len(part), remedy))
    return sorted(found, key=lambda one: (-one.runs, one.solver, one.reason))


def _merged(texts: list[str]) -> str:
    """Messages that differ in their numbers only, as one."""
    columns = zip(*(_NUMBER.findall(text) for text in texts), strict=True)
    numbers = iter([_several(set(column)) for column in columns])
    return _NUMBER.sub(lambda _: next(numbers), texts[0])


def _several(numbers: set[str]) -> str:
    ordered = sorted(numbers, key=float)
    if len(ordered) > LISTED:
        return f"{ordered[0]} to {ordered[-1]}"
    return f"{', '.join(ordered[:-1])} or {ordered[-1]}" if len(ordered) > 1 else ordered[0]
