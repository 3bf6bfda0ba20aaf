"""Who leads, in numbers and in words.

Every sentence is made from the rows; nothing is claimed that the rows do not say. There is one
rule for ties, in sentences and tables: solvers tie where nothing within their 95 % intervals tells
them apart, or where their medians are equal.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from experiments.metrics import chance, glossary, paidruns, targets
from experiments.metrics import formulas as metrics
from experiments.metrics.glossary import TRACKS
from experiments.metrics.intervals import with_intervals
from experiments.metrics.readable import duration, percent, share
from experiments.metrics.references import SCORED, TAGS

CONTROL = "greedy"
# From this share of the time limit on, a solver counts as one that always uses it.
WHOLE = 0.9
# So many problems that the control loses are named.
NAMED = 3


@dataclass(frozen=True)
class Headline:
    """What a reader should take away.

    Attributes:
        won: who leads each track, a sentence each; that nobody is named, where the study is
            not complete or a rehearsal; empty if no run can be ranked.
        sentences: plain statements, each with its numbers.
        winners: one row per n and curvature: what is known, best native and penalised solvers,
            control.
        table: `rank_table`.
    """

    won: list[str]
    sentences: list[str]
    winners: list[dict[str, str]]
    table: pd.DataFrame


def headline(
    runs: pd.DataFrame, incumbents: pd.DataFrame | None = None, *, complete: bool = True
) -> Headline:
    """The take-away of a store's runs.

    Args:
        runs: of a store, annotated.
        incumbents: of the same store; without them nobody is called the quickest.
        complete: whether all that was planned is there; no winner is named before.
    """
    table = rank_table(runs)
    if table.empty and not runs["status"].isin(SCORED).any():
        return Headline([], [], [], table)
    sentences = [text for text in (_control(runs), _certainty(runs), *chance.local(runs),
                                   _known(runs)) if text]  # fmt: skip
    won = _won(table, runs, incumbents)
    if not complete:
        won = ["No winner is named, because the study is not complete."]
    elif any(use.rehearsal for use in paidruns.uses(runs)):
        won = ["No winner is named, because a rehearsal does not show what the device answers."]
    return Headline(won, sentences, _winners(table, runs), table)


def _control(runs: pd.DataFrame) -> str:
    """Where the greedy control is at the best known, and which problems it loses by how much."""
    scored = _at_longest(runs[runs["status"].isin(SCORED) & ~runs["flat"].astype(bool)])
    greedy = scored[scored["solver_name"] == CONTROL]
    rivals = set(scored.loc[scored["solver_name"] != CONTROL, "instance"])
    greedy = greedy[greedy["instance"].isin(rivals)]
    if greedy.empty:
        return ""
    each = greedy.groupby("instance").agg(
        name=("instance_name", "first"), tied=("hit", "any"), gap=("gap", "min")
    )
    lost = each[~each["tied"]].sort_values("gap", ascending=False)
    start = "The greedy control adds the best variable k times and never searches."
    problems = _count(len(each), "problem")
    if len(each) < runs["instance"].nunique():
        problems += " that another solver has run too"
    if lost.empty:
        return f"{start} It reaches the best known on all of {problems}."
    named = [f"{row['name']}, by {percent(row['gap'])}" for _, row in lost.head(NAMED).iterrows()]
    more = f"; and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
    return (
        f"{start} It misses the best known on {len(lost)} of {problems}: {'; '.join(named)}{more}."
    )


def _certainty(runs: pd.DataFrame) -> str:
    """How many problems and seeds every comparison rests on."""
    chosen = contenders(runs)
    groups = chosen.groupby(["fisher", "n", "track"])
    chosen = chosen[groups["solver"].transform("nunique") > 1]
    if chosen.empty:
        return ""
    groups = chosen.groupby(["fisher", "n", "track"])
    problems = sorted(set(groups["instance"].nunique()))
    seeds = sorted(set(chosen.groupby(["fisher", "n", "solver", "instance"]).size()))
    each = "in each group, " if len(groups) > 1 else ""
    return (
        f"How sure this is: {each}solvers are compared on {_span(problems, 'problem')}, with "
        f"{_span(seeds, 'run')} of each solver on each."
    )


def _span(numbers: list[int], noun: str) -> str:
    if len(numbers) == 1:
        return _count(numbers[0], noun)
    return f"{numbers[0]} to {_count(numbers[-1], noun)}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _won(table: pd.DataFrame, runs: pd.DataFrame, incumbents: pd.DataFrame | None) -> list[str]:
    """Who leads each track, a sentence each; nobody does where one solver ran alone."""
    out = []
    for track in TRACKS:
        part = table[table["track"] == track]
        solvers = sorted(set(part["solver"]))
        ranked = part[part["rank"].notna()]
        company = ranked.groupby(["fisher", "n"])["solver"].transform("size") > 1
        if part.empty:
            continue
        if ranked.empty:
            out.append(f"No {track} solver answered in time.")
        elif len(solvers) == 1:
            out.append(
                f"{solvers[0]} was alone among the solvers {_KINDS[track]}, so it is compared with "
                "nobody there."
            )
        elif not company.any():
            out.append(f"No two {track} solvers answered the same problems in time.")
        else:
            leads, text = _leaders(track, ranked[company], len(solvers))
            out.append(text + _fastest(leads, runs, incumbents))
    return out


# What the solvers of a track have in common, for who reads of it the first time.
_KINDS = {
    "native": "that always choose exactly k (native)",
    "penalised": "that may choose more or fewer than k, at a penalty (penalised)",
}


def _leaders(track: str, rivals: pd.DataFrame, count: int) -> tuple[pd.DataFrame, str]:
    """Who leads a track: their rows, and a sentence."""
    keys = ["fisher", "n"]
    rivals = rivals[rivals.groupby(keys)["gap"].transform("min") < math.inf]
    first = rivals[(rivals["rank"] == 1) & (rivals["gap"] < math.inf)]
    if first.empty:
        return first, f"None of the {count} {track} solvers found a feasible answer."
    groups = len(rivals.drop_duplicates(keys))
    counts = first["solver"].value_counts()
    most = int(counts.max())
    names = sorted(counts[counts == most].index)
    leads = first[first["solver"].isin(names)]
    alone = int((first.groupby(keys)["solver"].transform("size") == 1)[leads.index].sum())
    group = "(problems of one size and curvature)"
    every = f"all {groups} groups {group}" if groups > 1 else f"the only group {group}"
    where = f"{most} of {groups} groups {group}" if groups > 1 else every
    if len(names) > 1 and most == groups:
        said = f"{_listed(names)} rank first in {every}"
    elif len(names) > 1:
        said = f"{_listed(names)} rank first most often, in {where}"
    else:
        said = f"{names[0]} ranks first in {where}"
        if alone < most:
            said += f", in {alone} of them alone" if alone else ", always tied with others"
    return leads, f"Of the {count} solvers {_KINDS[track]}, {said}."


def _fastest(leads: pd.DataFrame, runs: pd.DataFrame, incumbents: pd.DataFrame | None) -> str:
    """Which of those who tie reaches the best known soonest; nobody was timed without a limit."""
    limited = runs[runs["time_limit"].notna() & ~runs["flat"].astype(bool)]
    if incumbents is None or leads["solver"].nunique() < 2 or not limited["gap"].notna().any():
        return ""
    keys = ["fisher", "n", "solver"]
    each = targets.running_times(targets.times(limited, incumbents, [0.0]))
    found = each.groupby(keys)["ert"].quantile(0.5, interpolation="higher").reset_index()
    found = leads[keys].merge(found, on=keys)
    found = found[found["ert"] < math.inf]
    if found.empty:
        return ""
    least = found.loc[found.groupby(["fisher", "n"])["ert"].idxmin()]
    counts = least["solver"].value_counts()
    name = str(counts.index[0])
    seconds = least.loc[least["solver"] == name, "ert"].median()
    if seconds >= WHOLE * limited["time_limit"].max():
        return (
            " None of them is called the quickest: on average even the soonest reaches the best "
            "known only as its time limit ends."
        )
    where = "" if len(least) == 1 else f", in {counts.iloc[0]} of {len(least)} groups"
    return (
        f" Of these, {name} reaches the best known soonest{where}: after {duration(seconds)} on "
        "average."
    )


def whole_limit(runs: pd.DataFrame) -> list[str]:
    """Solvers that search until their time limit whatever they have found, by name."""
    limited = runs[runs["status"].isin(SCORED) & runs["time_limit"].notna()]
    share = (limited["wall"] / limited["time_limit"]).groupby(limited["solver"]).median()
    return sorted(share.index[share >= WHOLE])


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
        f"{_count(flat, 'problem')} on which nothing can be gained (flat) "
        f"{'is' if flat == 1 else 'are'} left out."
        if flat
        else ""
    )
    if each.empty:
        return left_out
    counts = each["tag"].value_counts()
    known = ", ".join(f"{_TAGS[tag]} on {counts[tag]}" for tag in TAGS if tag in counts)
    text = f"Of {_count(len(each), 'problem')} the best known answer is {known}"
    bounded = each[each["tag"] == "bounded"]
    if len(bounded):
        text += (
            "; where it is bounded, the true gap may exceed the one shown by at most "
            f"{percent(float(bounded['slack'].max()))}"
        )
    return f"{text}. {left_out}".rstrip()


def _winners(table: pd.DataFrame, runs: pd.DataFrame) -> list[dict[str, str]]:
    out = []
    for n, fisher in group_order(table):
        part = table[(table["n"] == n) & (table["fisher"] == fisher)]
        here = (runs["n"] == n) & (runs["fisher"].fillna("") == fisher)
        limit = runs.loc[here, "time_limit"].max()
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
            own = part[part["track"] == track]
            on_time = own[own["rank"].notna()]
            row[track] = _best(on_time) if len(on_time) else "none in time" if len(own) else "–"
        control = part[part["solver"] == CONTROL]
        row["control"] = share(control["gap"].iloc[0]) if len(control) else "not run"
        out.append(row)
    return out


def group_order(table: pd.DataFrame) -> list[tuple[int, str]]:
    """Pairs of n and curvature, in the order in which every table and figure has them."""
    pairs = set(zip(table["n"], table["fisher"].fillna(""), strict=True))
    places = {name: place for place, name in enumerate(glossary.fishers(table))}
    return sorted(pairs, key=lambda pair: (pair[0], places[pair[1]]))


def solver_order(table: pd.DataFrame, solvers: Iterable[str]) -> list[str]:
    """Solvers in the order of every table: by track, then by mean rank, then the quickest first.

    Args:
        table: of `rank_table`.
        solvers: labels; those that the table does not rank come last, by name.
    """
    means = table.groupby("solver")[["rank", "wall"]].mean().fillna(math.inf)
    mean = {str(name): (float(rank), float(wall)) for name, rank, wall in means.itertuples()}
    track = {name: TRACKS.index(own) if own in TRACKS else len(TRACKS)
             for name, own in zip(table["solver"], table["track"], strict=True)}  # fmt: skip

    def place(name: str) -> tuple[int, tuple[float, float], str]:
        return track.get(name, len(TRACKS)), mean.get(name, (math.inf, math.inf)), name

    return sorted(set(solvers), key=place)


def _best(rows: pd.DataFrame) -> str:
    if not (rows["gap"] < math.inf).any():
        return "none feasible"
    top = rows[rows["rank"] == 1].sort_values(["gap", "wall"])
    first = top.iloc[0]
    tied = f"; tied: {', '.join(sorted(top['solver'][1:]))}" if len(top) > 1 else ""
    alone = ", alone" if len(rows) == 1 else ""
    return f"{first['solver']} ({share(first['gap'])}, {duration(first['wall'])}){alone}{tied}"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def contenders(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that are ranked: at the longest limit of each n and Fisher, not flat, in common.

    A problem counts where every solver of its track has been run on it, if only to fail: what an
    interrupted study has of one solver alone compares nobody.
    """
    tried = _at_longest(runs[(runs["pending"] != 1) & ~runs["flat"].astype(bool)])
    tried = tried.assign(fisher=tried["fisher"].fillna(""))
    keys = ["fisher", "n", "track"]
    answered = tried["status"].isin(SCORED).groupby([tried[k] for k in [*keys, "solver"]])
    rivals = tried[answered.transform("any")]
    everybody = rivals.groupby(keys)["solver"].transform("nunique")
    here = rivals.groupby([*keys, "instance"])["solver"].transform("nunique")
    scored = rivals[(here == everybody) & rivals["status"].isin(SCORED)].copy()
    # A solver that found nothing feasible is worse than any gap.
    scored["gap"] = scored["gap"].fillna(np.inf)
    scored["late"] = scored["status"] == "timeout"
    return scored


def _at_longest(runs: pd.DataFrame) -> pd.DataFrame:
    longest = runs.groupby(["n", runs["fisher"].fillna("")])["time_limit"].transform("max")
    return runs[(runs["time_limit"] == longest) | longest.isna()]


def rank_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Median gap, wall and rank per Fisher, n and solver, at the longest time limit of each n.

    Solvers are ranked within their track: 1 and the number of solvers that are better beyond doubt,
    which is the low end of the 95 % interval of the rank. Where there is one run, and so no
    interval, only equal medians tie. One most of whose runs came late has a gap and no rank.

    Returns:
        Columns fisher, n, solver, track, gap, wall, late, rank, instances, runs, a share of each
        tag, and the ends of the intervals of `intervals.with_intervals`.
    """
    scored = contenders(runs)
    keys = ["fisher", "n", "solver"]
    groups = scored.groupby(keys)
    table = groups.agg(
        track=("track", "first"), gap=("gap", "median"), wall=("wall", "median"),
        late=("late", "mean"), instances=("instance", "nunique"), runs=("instance", "size"),
    ).reset_index()  # fmt: skip
    table["late"] = table["late"] > 0.5
    on_time = table["gap"].where(~table["late"])
    table["rank"] = np.nan
    for index in table.groupby(["fisher", "n", "track"]).groups.values():
        row = pd.DataFrame([on_time[index].to_numpy()])
        table.loc[index, "rank"] = metrics.ranks(row).to_numpy()[0]
    tags = scored.drop_duplicates("instance").groupby(["fisher", "n"])["tag"]
    for tag in TAGS:
        share = {group: float((column == tag).mean()) for group, column in tags}
        table[tag] = [share[group] for group in zip(table["fisher"], table["n"], strict=True)]
    table = with_intervals(table, scored)
    fewest = table.groupby(["fisher", "n", "track"])["runs"].transform("min")
    table.loc[table["runs"] < 2, ["gap_low", "gap_high"]] = np.nan
    table.loc[fewest < 2, ["rank_low", "rank_high"]] = np.nan
    table["rank"] = table[["rank", "rank_low"]].min(axis=1)
    return table
