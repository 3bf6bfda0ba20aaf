"""Where a solver matters: how much the greedy control leaves on the table, by kind of problem."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from experiments.metrics import glossary
from experiments.metrics.readable import ROUND_OFF, share
from experiments.metrics.references import SCORED

CONTROL = "greedy"
# Median share of the gain that the control leaves; from here on a solver is worth having.
MATTERS = 0.01
# Of solvers that tie, so many are named.
NAMED = 3
_NO_SEARCH = ("greedy", "random")


def gaps(runs: pd.DataFrame) -> pd.DataFrame:
    """The gap of each solver on each problem: the median over seeds at its longest time limit.

    Args:
        runs: with references and gaps (`experiments.metrics.references.annotate`).

    Returns:
        Columns fisher, n, track, solver_name, solver, instance, gap, tag; problems on which nothing
        can be gained are left out.
    """
    scored = runs[runs["status"].isin(SCORED) & runs["gap"].notna() & ~runs["flat"].astype(bool)]
    limit = scored.groupby(["instance", "solver"])["time_limit"].transform("max")
    scored = scored[scored["time_limit"].isna() | (scored["time_limit"] == limit)]
    scored = scored.assign(fisher=scored["fisher"].fillna(""))
    keys = ["fisher", "n", "track", "solver_name", "solver", "instance"]
    return scored.groupby(keys).agg(gap=("gap", "median"), tag=("tag", "first")).reset_index()


def medians(found: pd.DataFrame) -> pd.DataFrame:
    """Median over problems of each solver and kind.

    Args:
        found: of `gaps`.

    Returns:
        Columns fisher, track, solver_name, solver, low, gap, high: the quartiles.
    """
    groups = found.groupby(["fisher", "track", "solver_name", "solver"])["gap"]
    ends = {name: groups.quantile(q) for name, q in (("low", 0.25), ("gap", 0.5), ("high", 0.75))}
    return pd.DataFrame(ends).reset_index()


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """Kinds of problems with the control's median gap and the best and worst native solver's.

    Args:
        runs: see `gaps`.

    Returns:
        Columns kind, greedy, best, best_gap, worst, worst_gap, problems; a row for each curvature
        on which the control ran, the largest gap first.
    """
    found = gaps(runs)
    rows = []
    for kind, part in medians(found).groupby("fisher"):
        control = part[part["solver_name"] == CONTROL]
        able = part[(part["track"] == "native") & _searches(part)].set_index("solver")["gap"]
        if control.empty or able.empty:
            continue
        best, worst = str(able.idxmin()), str(able.idxmax())
        rows.append(
            {
                "kind": kind, "greedy": float(control["gap"].min()), "best": best,
                "best_gap": able[best], "worst": worst, "worst_gap": able[worst],
                "problems": found.loc[found["fisher"] == kind, "instance"].nunique(),
            }
        )  # fmt: skip
    columns = ["kind", "greedy", "best", "best_gap", "worst", "worst_gap", "problems"]
    sorted_ = pd.DataFrame(rows, columns=columns)
    return sorted_.sort_values("greedy", ascending=False, kind="stable")


def _searches(rows: pd.DataFrame) -> pd.Series:
    names = rows["solver_name"]
    return ~names.isin(_NO_SEARCH) & ~names.str.startswith("reference")


def sentence(runs: pd.DataFrame) -> str:
    """Where a solver matters and where not; empty without the control or anything beside it."""
    found = table(runs)
    if found.empty:
        return ""
    matters = found[found["greedy"] >= MATTERS]
    ties = found[found["greedy"] < MATTERS]
    parts = []
    if len(matters):
        each = [
            f"{glossary.kinds(row['kind'])}, where taking the best weight at a time (greedy) "
            f"leaves {share(row['greedy'])} of what can be gained, {_searched(row)}"
            for row in matters.to_dict("records")
        ]
        parts.append(f"A solver matters on {'; and on '.join(each)}")
    if len(ties):
        most = share(max(ties["greedy"].max(), 0.0))
        parts.append(
            f"{'It' if parts else 'A solver'} hardly matters on {glossary.kinds(*ties['kind'])}, "
            f"where greedy leaves {'nothing' if most == '0 %' else f'{most} at most'}"
        )
    return f"{'. '.join(parts)} ({_sample(found, runs)})."


def _sample(found: pd.DataFrame, runs: pd.DataFrame) -> str:
    """What the medians are of: problems, and on how many the best known is proved."""
    each = gaps(runs)
    each = each[each["fisher"].isin(found["kind"])].drop_duplicates("instance")
    problems = sorted(set(found["problems"]))
    count = f"{problems[0]}" if len(problems) == 1 else f"{problems[0]} to {problems[-1]}"
    proved = int((each["tag"] == "exact").sum())
    return (
        f"medians over {count} problem{'' if problems[-1] == 1 else 's'} of each kind; "
        f"the best known is proved to be the best on {proved} of "
        f"{len(each)}"
    )


def _searched(row: Mapping[Hashable, Any]) -> str:
    """What the best and the worst search leave."""
    best, worst = share(row["best_gap"]), share(row["worst_gap"])
    if row["best"] == row["worst"]:
        return f"and {row['best']} {best}"
    return f"and searches leave {best} ({row['best']}) to {worst} ({row['worst']})"


def rows(runs: pd.DataFrame) -> list[list[str]]:
    """The table of kinds for people, a row a kind: who is best in each track, and what is known.

    Returns:
        Kind, sizes, problems, what the control leaves, best native and best penalised solvers, and
        on how many problems the best known is proved to be the best.
    """
    found = gaps(runs)
    middle = medians(found)
    out = []
    for fisher in glossary.fishers(found) if len(found) else []:
        part, own = found[found["fisher"] == fisher], middle[middle["fisher"] == fisher]
        control = own.loc[own["solver_name"] == CONTROL, "gap"]
        low, high = part["n"].min(), part["n"].max()
        each = part.drop_duplicates("instance")
        out.append([
            glossary.kinds(fisher), str(low) if low == high else f"{low} to {high}",
            str(len(each)), share(control.min()) if len(control) else "not run",
            *(_best(own[(own["track"] == track) & _searches(own)]) for track in glossary.TRACKS),
            f"{(each['tag'] == 'exact').sum()} of {len(each)}",
        ])  # fmt: skip
    return out


def _best(own: pd.DataFrame) -> str:
    """Who has the lowest median gap; solvers that tie are named up to a few."""
    if own.empty:
        return "–"
    least = own["gap"].min()
    names = sorted(own.loc[own["gap"] <= least + ROUND_OFF, "solver"])
    named = ", ".join(names) if len(names) <= NAMED else f"{len(names)} tie"
    return f"{share(least)} ({named})"
