"""Where a solver matters: how much the greedy control leaves on the table, by kind of problem."""

from __future__ import annotations

import pandas as pd

from experiments.metrics.glossary import curvature
from experiments.metrics.readable import share
from experiments.metrics.references import SCORED

CONTROL = "greedy"
# Median share of the gain that the control leaves; from here on a solver is worth having.
MATTERS = 0.01
# Curvatures of loss blocks.
LOSS = ("sequence", "position", "exact")
# Part of the name of every curvature of row blocks, such as "reconstruction, 2:4".
ROW = "reconstruction"
_NO_SEARCH = ("greedy", "random")


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """Kinds of problems with the control's median gap and the best and worst native solver's.

    At the longest time limit of each solver; a problem's gap is the median over seeds.

    Args:
        runs: with references and gaps (`experiments.metrics.references.annotate`).

    Returns:
        Columns kind, greedy, best, best_gap, worst, worst_gap, problems; a row for each curvature
        on which the control ran, the largest gap first.
    """
    scored = runs[runs["status"].isin(SCORED) & runs["gap"].notna() & ~runs["flat"].astype(bool)]
    limit = scored.groupby(["instance", "solver"])["time_limit"].transform("max")
    scored = scored[scored["time_limit"].isna() | (scored["time_limit"] == limit)]
    scored = scored.assign(kind=scored["fisher"].fillna(""))
    rows = []
    for kind, part in scored.groupby("kind"):
        gaps = part.groupby(["solver_name", "solver", "instance"])["gap"].median()
        medians = gaps.groupby(["solver_name", "solver"]).median()
        if CONTROL not in medians.index.get_level_values(0):
            continue
        native = set(part.loc[part["track"] == "native", "solver"])
        able = {
            str(label): float(gap)
            for (name, label), gap in zip(medians.index, medians, strict=True)
            if label in native and name not in _NO_SEARCH and not name.startswith("reference")
        }
        if not able:
            continue
        best, worst = min(able, key=able.__getitem__), max(able, key=able.__getitem__)
        rows.append(
            {
                "kind": kind, "greedy": float(medians[CONTROL].min()), "best": best,
                "best_gap": able[best], "worst": worst, "worst_gap": able[worst],
                "problems": part["instance"].nunique(),
            }
        )  # fmt: skip
    columns = ["kind", "greedy", "best", "best_gap", "worst", "worst_gap", "problems"]
    found = pd.DataFrame(rows, columns=columns)
    return found.sort_values("greedy", ascending=False, kind="stable")


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
            f"{_named(row['kind'])}, where taking the best weight at a time leaves "
            f"{share(row['greedy'])} of what can be gained and the native solvers "
            f"{share(row['best_gap'])} ({row['best']}) to {share(row['worst_gap'])} "
            f"({row['worst']})"
            for row in matters.to_dict("records")
        ]
        parts.append(f"A solver matters on {'; on '.join(each)}")
    if len(ties):
        names = _named(*ties["kind"])
        most = share(max(ties["greedy"].max(), 0.0))
        parts.append(
            f"{'It' if parts else 'A solver'} hardly matters on {names}, where the best weight at "
            f"a time leaves {'nothing' if most == '0 %' else f'{most} at most'}"
        )
    return f"{'. '.join(parts)} (medians over the problems)."


def _named(*kinds: str) -> str:
    """Problems of these curvatures, in words for who never saw the project."""
    loss = [curvature(kind) for kind in kinds if kind in LOSS]
    rows = [kind.partition(ROW) for kind in kinds if ROW in kind]
    others = [curvature(kind) for kind in kinds if kind not in LOSS and ROW not in kind]
    named = []
    if rows:
        variants = ", ".join(filter(None, (f"{a}{b.strip(', ')}".strip() for a, _, b in rows)))
        named.append(
            "row blocks (what share of a layer's output is lost"
            + (f"; {variants})" if variants else ")")
        )
    if loss:
        named.append(f"loss blocks (how much the model's loss changes; {', '.join(loss)})")
    named += [name or "these problems" for name in others]
    return " and ".join(named)
