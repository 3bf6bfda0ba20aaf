"""Who won, in numbers and in words.

Every sentence is made from the rows; nothing is claimed that the rows do not say.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from experiments.figures import palette
from experiments.metrics import formulas as metrics
from experiments.metrics import glossary, paidruns
from experiments.metrics.glossary import TRACKS
from experiments.metrics.intervals import TIE, with_intervals
from experiments.metrics.references import SCORED, TAGS

CONTROL = "greedy"
# From this share of the instances on, the control's tie is the headline.
LOUD = 0.5


@dataclass(frozen=True)
class Headline:
    """What a reader should take away.

    Attributes:
        shout: in large letters; empty if there is nothing to shout.
        won: who leads each track, a sentence each; empty if no run can be ranked.
        sentences: plain statements, each with its numbers.
        winners: one row per n and curvature: what is known, best native and penalised solvers,
            control.
        table: `rank_table` with intervals.
    """

    shout: str
    won: list[str]
    sentences: list[str]
    winners: list[dict[str, str]]
    table: pd.DataFrame


def headline(runs: pd.DataFrame) -> Headline:
    """The take-away of a store's runs."""
    table = with_intervals(rank_table(runs), contenders(runs))
    if table.empty and not runs["status"].isin(SCORED).any():
        return Headline("", [], [], [], table)
    shout, control = _control(runs)
    sentences = [text for text in (control, *_best_sentences(table), *_quantum(runs),
                                   _known(runs)) if text]  # fmt: skip
    return Headline(shout, _won(table), sentences, _winners(table, runs), table)


def _control(runs: pd.DataFrame) -> tuple[str, str]:
    """What to shout and to say of the greedy control, where it had company."""
    scored = runs[runs["status"].isin(SCORED) & ~runs["flat"].astype(bool)]
    greedy = scored[scored["solver_name"] == CONTROL]
    rivals = set(scored.loc[scored["solver_name"] != CONTROL, "instance"])
    greedy = greedy[greedy["instance"].isin(rivals)]
    if greedy.empty:
        return "", ""
    tied = greedy.groupby("instance")["hit"].any()
    share, text = tied.mean(), f"{tied.sum()} of {len(tied)} instances ({100 * tied.mean():.0f} %)"
    sentence = (
        "The greedy control, which adds the best variable k times and never searches, ties the "
        f"best known on {text}"
    )
    if share >= LOUD:
        end = "" if share == 1 else f" Only on the other {(~tied).sum()} is it beaten."
        return "A greedy sort wins", f"{sentence}.{end}"
    return "", f"{sentence}; on the others it is beaten."


def _won(table: pd.DataFrame) -> list[str]:
    """Who leads each track, a sentence each; nobody does where one solver ran alone."""
    out = []
    for track in TRACKS:
        part = table[table["lane"] == track]
        solvers = sorted(set(part["solver"]))
        ranked = part[part["rank"].notna()]
        company = ranked.groupby(["fisher", "n"])["solver"].transform("size") > 1
        if part.empty:
            continue
        if ranked.empty:
            out.append(f"No {track} solver answered in time.")
        elif len(solvers) == 1:
            out.append(
                f"{solvers[0]} was alone among the solvers {_KINDS[track]}, so there nobody won."
            )
        elif not company.any():
            out.append(f"No two {track} solvers answered the same problems in time.")
        else:
            out.append(_leaders(track, ranked[company], len(solvers)))
    return out


# What the solvers of a track have in common, for who reads of it the first time.
_KINDS = {
    "native": "that always choose exactly k (native)",
    "penalised": "that get k as a penalty and are repaired (penalised)",
}


def _leaders(track: str, rivals: pd.DataFrame, count: int) -> str:
    keys = ["fisher", "n"]
    rivals = rivals[rivals.groupby(keys)["gap"].transform("min") < math.inf]
    wins = rivals[rivals["gap"] <= rivals.groupby(keys)["gap"].transform("min") + TIE]
    if wins.empty:
        return f"None of the {count} {track} solvers found a feasible answer."
    groups = len(rivals.drop_duplicates(keys))
    counts = wins["solver"].value_counts()
    first = sorted(counts[counts == counts.max()].index)
    where = "the only group" if groups == 1 else f"{counts.max()} of {groups} groups"
    alone = wins.groupby(keys)["solver"].transform("size") == 1
    verb = "wins with" if len(first) == 1 else "tie: all have"
    text = (
        f"Of the {count} solvers {_KINDS[track]}, {_listed(first)} {verb} the lowest median gap in "
        f"{where} of problems of one size and curvature"
    )
    if len(first) > 1:
        walls = wins[wins["solver"].isin(first)].groupby("solver")["wall"].median()
        text += f"; the quickest of them is {walls.idxmin()}"
    elif not alone[wins["solver"].isin(first)].any():
        text += ", always in a tie with others"
    return f"{text}."


def _best_sentences(table: pd.DataFrame) -> list[str]:
    """The best of each track on the largest problems of each curvature."""
    out = []
    for track in TRACKS:
        part = table[(table["lane"] == track) & table["rank"].notna()]
        part = part[part["gap"] < math.inf]
        if part.empty:
            continue
        n = int(part["n"].max())
        for fisher, rows in part[part["n"] == n].groupby("fisher"):
            least = rows["gap"].min()
            top = rows[rows["gap"] <= least + TIE].sort_values("wall")
            quick = top.iloc[0]
            others = f", tied with {_listed(list(top['solver'][1:]))}" if len(top) > 1 else ""
            who = (
                f"the best {track} solver is" if len(rows) > 1 else f"one {track} solver answered,"
            )
            out.append(
                f"At n = {n}{_named(str(fisher))} {who} {quick['solver']}: "
                f"median gap {percent(least)}{_interval(quick)} in {duration(quick['wall'])}"
                f"{others}."
            )
    return out


def _quantum(runs: pd.DataFrame) -> list[str]:
    """What QAOA reached, apart for every place where its circuits ran."""
    qaoa = runs[runs["solver_name"].str.startswith("qaoa") & runs["status"].isin(SCORED)]
    if qaoa.empty:
        return []
    out = []
    elsewhere = set()
    for use in paidruns.uses(qaoa):
        own = paidruns.paid(qaoa)
        own = own[(own["solver"] == use.solver) & (own["device"] == use.device)
                  & (own["rehearsal"] == use.rehearsal)]  # fmt: skip
        elsewhere |= set(own.index)
        out.append(_reached(f"{use.solver} on {use.place}", own))
    local = qaoa.drop(index=list(elsewhere))
    if len(local):
        out.append(_reached("QAOA on simulators of this machine", local))
    floor = runs[(runs["solver_name"] == "random") & runs["status"].isin(SCORED)]
    floor = floor[floor["instance"].isin(qaoa["instance"])]
    if len(floor):
        out.append(
            f"Uniformly random strings with the same repair, on the same instances, reach the best "
            f"known in {100 * floor['hit'].mean():.0f} % of the runs, with "
            f"{100 * floor['success'].mean():.0f} % of the strings."
        )
    return out


def _reached(who: str, runs: pd.DataFrame) -> str:
    text = f"{who} (n up to {runs['n'].max()}) reaches the best known in "
    text += f"{100 * runs['hit'].mean():.0f} % of its runs after repair"
    for column, what in (("raw_feasible", "were feasible before it"),
                         ("success", "are at the best known after it")):  # fmt: skip
        if runs[column].notna().any():
            text += f"; {100 * runs[column].mean():.0f} % of its shots {what}"
    return f"{text}; median wall {duration(runs['wall'].median())}."


_TAGS = {
    "exact": "proved to be the best there is (certified)",
    "bounded": "bounded by a proof",
    "best-known": "not proved at all",
}


def _known(runs: pd.DataFrame) -> str:
    """How sure the best known answers are."""
    each = runs.drop_duplicates("instance")
    each = each[each["reference"].notna() & ~each["flat"].astype(bool)]
    flat = int(runs.drop_duplicates("instance")["flat"].sum())
    left_out = (
        f"{flat} flat instances, on which nothing can be gained, are left out." if flat else ""
    )
    if each.empty:
        return left_out
    counts = each["tag"].value_counts()
    known = ", ".join(f"{_TAGS[tag]} on {counts[tag]}" for tag in TAGS if tag in counts)
    text = f"Of {len(each)} instances the best known answer is {known}"
    bounded = each[each["tag"] == "bounded"]
    if len(bounded):
        text += (
            "; where it is bounded, the true gap may exceed the one shown by at most "
            f"{percent(float(bounded['slack'].max()))} of the attainable gain"
        )
    return f"{text}. {left_out}".rstrip()


def _winners(table: pd.DataFrame, runs: pd.DataFrame) -> list[dict[str, str]]:
    out = []
    for n, fisher in group_order(table):
        part = table[(table["n"] == n) & (table["fisher"] == fisher)]
        limit = runs.loc[runs["n"] == n, "time_limit"].max()
        row = {
            "n": str(n),
            "curvature": glossary.curvature(fisher),
            "limit": "none" if pd.isna(limit) else duration(limit),
            "known": ", ".join(
                f"{100 * part[tag].iloc[0]:.0f} % {glossary.tag(tag)}"
                for tag in TAGS if part[tag].iloc[0] > 0
            ),
        }  # fmt: skip
        for track in TRACKS:
            own = part[part["lane"] == track]
            on_time = own[own["rank"].notna()]
            row[track] = _best(on_time) if len(on_time) else "none in time" if len(own) else "–"
        control = part[part["solver"] == CONTROL]
        row["control"] = percent(control["gap"].iloc[0]) if len(control) else "not run"
        out.append(row)
    return out


def group_order(table: pd.DataFrame) -> list[tuple[int, str]]:
    """Pairs of n and curvature, in the order in which every table and figure has them."""
    pairs = set(zip(table["n"], table["fisher"].fillna(""), strict=True))
    places = {name: place for place, name in enumerate(palette.fishers(table))}
    return sorted(pairs, key=lambda pair: (pair[0], places[pair[1]]))


def solver_order(table: pd.DataFrame, solvers: Iterable[str]) -> list[str]:
    """Solvers in the order of every table: by track, then by mean rank, then the quickest first.

    Args:
        table: of `rank_table`.
        solvers: labels; those that the table does not rank come last, by name.
    """
    means = table.groupby("solver")[["rank", "wall"]].mean().fillna(math.inf)
    mean = {str(name): (float(rank), float(wall)) for name, rank, wall in means.itertuples()}
    track = {name: TRACKS.index(lane) if lane in TRACKS else len(TRACKS)
             for name, lane in zip(table["solver"], table["lane"], strict=True)}  # fmt: skip

    def place(name: str) -> tuple[int, tuple[float, float], str]:
        return track.get(name, len(TRACKS)), mean.get(name, (math.inf, math.inf)), name

    return sorted(set(solvers), key=place)


def _best(rows: pd.DataFrame) -> str:
    least = rows["gap"].min()
    top = rows[rows["gap"] <= least + TIE].sort_values("wall")
    first = top.iloc[0]
    tied = f"; tied: {', '.join(top['solver'][1:])}" if len(top) > 1 else ""
    return f"{first['solver']} ({percent(least)}, {duration(first['wall'])}){tied}"


def _interval(row: pd.Series) -> str:
    """The 95 % interval of a median gap, where it has a width."""
    low, high = percent(row["gap_low"]), percent(row["gap_high"])
    return "" if low == high else f" (95 %: {low} to {high})"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _named(fisher: str) -> str:
    return f" ({glossary.curvature(fisher)})" if fisher else ""


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
