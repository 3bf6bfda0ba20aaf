"""Who won, in numbers and in words.

Every sentence is made from the rows; nothing is claimed that the rows do not say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from experiments import metrics
from experiments.intervals import with_intervals
from experiments.references import SCORED, TAGS

CONTROL = "greedy"
# From this share of the instances on, the control's tie is the headline.
LOUD = 0.5


@dataclass(frozen=True)
class Headline:
    """What a reader should take away.

    Attributes:
        shout: in large letters; empty if there is nothing to shout.
        sentences: plain statements, each with its numbers.
        winners: one row per Fisher and n: reference, best native and penalised solvers, control.
        table: `rank_table` with intervals.
    """

    shout: str
    sentences: list[str]
    winners: list[dict[str, str]]
    table: pd.DataFrame


def headline(runs: pd.DataFrame) -> Headline:
    """The take-away of a store's runs."""
    table = with_intervals(rank_table(runs), contenders(runs))
    shout, control = _control(runs)
    sentences = [text for text in (control, *_lane_sentences(table), _quantum(runs),
                                   _reference(runs)) if text]  # fmt: skip
    return Headline(shout, sentences, _winners(table, runs), table)


def _control(runs: pd.DataFrame) -> tuple[str, str]:
    greedy = runs[(runs["solver_name"] == CONTROL) & runs["status"].isin(SCORED)]
    greedy = greedy[~greedy["flat"].astype(bool)]
    if greedy.empty:
        return "", ""
    tied = greedy.groupby("instance")["hit"].any()
    share, text = tied.mean(), f"{tied.sum()} of {len(tied)} instances ({100 * tied.mean():.0f} %)"
    sentence = (
        "The greedy control, which adds the best variable k times and never searches, ties the "
        f"best on {text}"
    )
    if share >= LOUD:
        end = "" if share == 1 else f" Only on the other {(~tied).sum()} is it beaten."
        return "A greedy sort wins", f"{sentence}.{end}"
    return "", f"{sentence}; on the others it is beaten."


def _lane_sentences(table: pd.DataFrame) -> list[str]:
    out = []
    for lane in ("native", "penalised"):
        part = table[(table["lane"] == lane) & table["rank"].notna()]
        if part.empty:
            continue
        best = part.groupby(["fisher", "n"])["gap"].transform("min")
        wins = part[part["gap"] <= best + 1e-9]
        groups = part.drop_duplicates(["fisher", "n"])
        counts = wins["solver"].value_counts()
        leaders = sorted(counts[counts == counts.max()].index)
        alone = wins.groupby(["fisher", "n"])["solver"].transform("size") == 1
        sole = int(alone[wins["solver"].isin(leaders)].sum())
        verb = "has" if len(leaders) == 1 else "have"
        out.append(
            f"{lane.capitalize()} lane: {_listed(leaders)} {verb} the lowest median gap in "
            f"{counts.max()} of {len(groups)} groups of n and Fisher"
            f"{'' if sole else ', always in a tie'}."
        )
        n = int(part["n"].max())
        for fisher, rows in part[part["n"] == n].groupby("fisher"):
            least = rows["gap"].min()
            top = rows[rows["gap"] <= least + 1e-9].sort_values("wall")
            quick = top.iloc[0]
            others = f", tied with {_listed(list(top['solver'][1:]))}" if len(top) > 1 else ""
            out.append(
                f"At n = {n}{_fisher(str(fisher))} the best {lane} solver is {quick['solver']}: "
                f"median gap {percent(least)}{_interval(quick)} in {duration(quick['wall'])}"
                f"{others}."
            )
    return out


def _quantum(runs: pd.DataFrame) -> str:
    qaoa = runs[runs["solver_name"].str.startswith("qaoa") & runs["status"].isin(SCORED)]
    if qaoa.empty:
        return ""
    text = (
        f"QAOA on simulators (up to n = {qaoa['n'].max()}) reaches the reference in "
        f"{100 * qaoa['hit'].mean():.0f} % of its runs after repair; "
        f"{100 * qaoa['raw_feasible'].mean():.0f} % of its shots were feasible before it, "
        f"{100 * qaoa['success'].mean():.0f} % of its shots are at the reference after it; "
        f"median wall {duration(qaoa['wall'].median())}."
    )
    floor = runs[(runs["solver_name"] == "random") & runs["status"].isin(SCORED)]
    floor = floor[floor["instance"].isin(qaoa["instance"])]
    if len(floor):
        text += (
            f" Uniformly random strings with the same repair, on the same instances: "
            f"{100 * floor['hit'].mean():.0f} % of the runs, "
            f"{100 * floor['success'].mean():.0f} % of the strings."
        )
    return text


def _reference(runs: pd.DataFrame) -> str:
    each = runs.drop_duplicates("instance")
    counts = each["tag"].value_counts()
    known = ", ".join(f"{tag} on {counts[tag]}" for tag in TAGS if tag in counts)
    text = f"The reference is {known} of {len(each)} instances"
    bounded = each[each["tag"] == "bounded"]
    if len(bounded):
        text += (
            "; where it is bounded, the true gap may exceed the one shown by at most "
            f"{percent(float(bounded['slack'].max()))} of the attainable gain"
        )
    flat = int(each["flat"].sum())
    return text + (f". {flat} flat instances, on which nothing can be gained, are left out."
                   if flat else ".")  # fmt: skip


def _winners(table: pd.DataFrame, runs: pd.DataFrame) -> list[dict[str, str]]:
    out = []
    # Sequence before position, as in the figures.
    order = sorted(table.groupby(["fisher", "n"]), key=lambda item: (item[0][0] != "sequence",
                                                                    *item[0]))  # fmt: skip
    for (fisher, n), part in order:
        limit = runs.loc[runs["n"] == n, "time_limit"].max()
        row = {
            "fisher": str(fisher),
            "n": str(n),
            "limit": "" if pd.isna(limit) else duration(limit),
            "reference": ", ".join(
                f"{100 * part[tag].iloc[0]:.0f} % {tag}" for tag in TAGS if part[tag].iloc[0] > 0
            ),
        }
        for lane in ("native", "penalised"):
            on_time = part[(part["lane"] == lane) & part["rank"].notna()]
            row[lane] = _best(on_time) if len(on_time) else "none on time"
        control = part[part["solver"] == CONTROL]
        row["control"] = percent(control["gap"].iloc[0]) if len(control) else "not run"
        out.append(row)
    return out


def _best(rows: pd.DataFrame) -> str:
    least = rows["gap"].min()
    top = rows[rows["gap"] <= least + 1e-9].sort_values("wall")
    first = top.iloc[0]
    tied = f"; tied: {', '.join(top['solver'][1:])}" if len(top) > 1 else ""
    return f"{first['solver']} ({percent(least)}, {duration(first['wall'])}){tied}"


def _interval(row: pd.Series) -> str:
    """The 95 % interval of a median gap, where it has a width."""
    low, high = percent(row["gap_low"]), percent(row["gap_high"])
    return "" if low == high else f" (95 %: {low} to {high})"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _fisher(fisher: str) -> str:
    return f" ({fisher} Fisher)" if fisher else ""


def contenders(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that are ranked: those at the longest time limit of each n, not flat."""
    scored = runs[runs["status"].isin(SCORED) & ~runs["flat"].astype(bool)].copy()
    longest = scored.groupby("n")["time_limit"].transform("max")
    scored = scored[(scored["time_limit"] == longest) | longest.isna()]
    # A solver that found nothing feasible is worse than any gap.
    scored["gap"] = scored["gap"].fillna(np.inf)
    scored["late"] = scored["status"] == "timeout"
    scored["fisher"] = scored["fisher"].fillna("")
    return scored


def rank_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Median gap, wall and rank per Fisher, n and solver, at the longest time limit of each n.

    Solvers are ranked within their lane. One most of whose runs came late has a gap and no rank.

    Returns:
        Columns fisher, n, solver, lane, gap, wall, late, rank, instances, exact.
    """
    scored = contenders(runs)
    keys = ["fisher", "n", "solver"]
    groups = scored.groupby(keys)
    table = groups.agg(
        lane=("lane", "first"), gap=("gap", "median"), wall=("wall", "median"),
        late=("late", "mean"), instances=("instance", "nunique"),
    ).reset_index()  # fmt: skip
    table["late"] = table["late"] > 0.5
    on_time = table["gap"].where(~table["late"])
    table["rank"] = np.nan
    for index in table.groupby(["fisher", "n", "lane"]).groups.values():
        row = pd.DataFrame([on_time[index].to_numpy()])
        table.loc[index, "rank"] = metrics.ranks(row).to_numpy()[0]
    tags = scored.drop_duplicates("instance").groupby(["fisher", "n"])["tag"]
    for tag in TAGS:
        share = {group: float((column == tag).mean()) for group, column in tags}
        table[tag] = [share[group] for group in zip(table["fisher"], table["n"], strict=True)]
    return table


def percent(gap: float) -> str:
    """A gap for people: ``0``, ``0.03 %``, ``3e-05 %``, ``none`` for no feasible answer."""
    if math.isnan(gap) or math.isinf(gap):
        return "none"
    if gap == 0:
        return "0"
    value = 100 * gap
    if value >= 10:
        return f"{value:.0f} %"
    return f"{value:.0e} %" if value < 0.001 else f"{value:.2g} %"


def duration(seconds: float) -> str:
    """Seconds for people: ``3.1 s``, ``12 ms``, ``80 µs``."""
    units = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6))
    unit, size = next((u for u in units if seconds >= u[1]), units[-1])
    value = seconds / size
    return f"{value:.0f} {unit}" if value >= 9.95 else f"{value:.1f} {unit}"
