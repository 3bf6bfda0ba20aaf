"""The figures a study asks for by name, with what to say to those who cannot see them."""

from __future__ import annotations

from collections.abc import Callable, Collection

import pandas as pd
from matplotlib.figure import Figure

from experiments.figures import pruning as plots_pruning
from experiments.figures import quantum as plots_quantum
from experiments.figures import studies as plots_studies
from experiments.figures import targets as plots_targets
from experiments.metrics import glossary, targets
from experiments.metrics.ranking import duration, percent
from experiments.metrics.references import SCORED
from experiments.store.database import Store

# Name, title, text for those who cannot see it, and how to draw it.
Planned = tuple[str, str, str, Callable[[], Figure]]
METHODS = "methods"
"""The store's table of whole models, see `experiments.pruning.comparing.measure`."""


def planned(store: Store, runs: pd.DataFrame, wanted: Collection[str]) -> list[Planned]:
    """Those of times to targets, of circuits and of whole models.

    Args:
        store: open for reading.
        runs: its runs.
        wanted: names of `experiments.study.study.FIGURES`; those of other modules are left out.
    """
    plan: list[Planned] = []
    if (runs["status"].isin(SCORED) & runs["gap"].notna()).any():
        plan += _of_targets(store, runs, wanted)
        plan += _of_circuits(runs, wanted)
    table = store.table(METHODS)
    if table is None:
        return plan
    # A method that was refused has no quality.
    return plan + _of_models(table[table["loss"].notna()], wanted)


def _of_targets(store: Store, runs: pd.DataFrame, wanted: Collection[str]) -> list[Planned]:
    incumbents = store.incumbents()
    plan: list[Planned] = []
    if "ecdf" in wanted:
        plan.append((
            "ecdf", "Targets reached within a time",
            f"Share of pairs of run and target reached against seconds, a line a solver. In the "
            f"end: {_reached(runs, incumbents)}.",
            lambda: plots_targets.ecdf(runs, incumbents),
        ))  # fmt: skip
    if "profile" in wanted:
        plan.append((
            "profile", "Performance profiles",
            f"Share of instances on which a solver's expected running time to a gap of 1 % and to "
            f"the best known is within a factor of the quickest solver's. "
            f"{_quickest(runs, incumbents)}",
            lambda: plots_targets.profile(runs, incumbents),
        ))  # fmt: skip
    if "tts" in wanted:
        plan.append((
            "tts", "Time to solution",
            f"Time to solution at 99 % against the number of variables. {_solved(runs)}",
            lambda: plots_targets.time_to_solution(runs),
        ))  # fmt: skip
    return plan


def _reached(runs: pd.DataFrame, incumbents: pd.DataFrame) -> str:
    table = targets.times(runs, incumbents)
    shares = table["seconds"].lt(float("inf")).groupby(table["solver"]).mean()
    ordered = shares.sort_values(ascending=False)
    return ", ".join(f"{name} {100 * share:.0f} %" for name, share in ordered.items())


def _quickest(runs: pd.DataFrame, incumbents: pd.DataFrame) -> str:
    reached = targets.times(runs, incumbents, plots_targets.PROFILED)
    said = []
    for target in plots_targets.PROFILED:
        first = targets.profile(reached, target, [1.0]).iloc[0].sort_values(ascending=False)
        best = ", ".join(f"{name} {100 * share:.0f} %" for name, share in first.head(3).items())
        goal = "the best known" if target == 0 else f"a gap of {percent(target)}"
        said.append(f"The quickest to {goal}, by share of the instances: {best}.")
    return " ".join(said)


def _solved(runs: pd.DataFrame) -> str:
    table = targets.solutions(runs)
    top = table[table["n"] == table["n"].max()].sort_values("tts")
    said = [
        f"{row['solver']}{_kind(row['fisher'])} "
        f"{duration(row['tts']) if row['tts'] < float('inf') else 'never'}"
        for row in top.to_dict("records")
    ]
    return f"At n = {table['n'].max()}: {', '.join(said)}."


def _kind(fisher: str) -> str:
    return f" ({glossary.curvature(fisher)})" if fisher else ""


def penalty_words(runs: pd.DataFrame) -> str:
    """Feasible share at the ends of the axis, the best penalty, and what repair alone reaches."""
    scored, swept = plots_studies.penalties(runs)
    said = []
    for (name, n), part in swept.groupby(["solver_name", "n"]):
        by = part.groupby("penalty")
        feasible, gaps = by["raw_feasible"].mean(), by["gap"].median()
        said.append(
            f"{name}, n = {n}: feasible before repair {100 * feasible.iloc[0]:.0f} % at penalty "
            f"{feasible.index[0]:.2g} and {100 * feasible.iloc[-1]:.0f} % at "
            f"{feasible.index[-1]:.2g}; best gap after repair {percent(gaps.min())} at "
            f"{gaps.idxmin():.2g}, worst {percent(gaps.max())} at {gaps.idxmax():.2g}"
        )
    controls = scored[scored["solver_name"].isin(["random", "greedy"])]
    for (name, n), part in controls.groupby(["solver_name", "n"]):
        what = "random strings with repair" if name == "random" else "greedy without a sampler"
        said.append(f"{what}, n = {n}: {percent(part['gap'].median())}")
    return f"{'. '.join(said)}."


def ladder_words(runs: pd.DataFrame) -> str:
    """Up to which n each solver's median gap is 0, and which references are no proof."""
    scored = runs[runs["status"].isin(SCORED) & ~runs["flat"].astype(bool)]
    said = []
    for fisher, part in scored.assign(fisher=scored["fisher"].fillna("")).groupby("fisher"):
        reach = {}
        for name, own in part.groupby("solver"):
            gaps = own.groupby("n")["gap"].median()
            solved = gaps.index[(gaps == 0).cumprod() == 1]
            reach[str(name)] = int(max(solved, default=0))
        ordered = sorted(reach.items(), key=lambda item: -item[1])
        open_at = sorted(part.loc[part["tag"] != "exact", "n"].unique())
        proof = (
            f"not certified at n = {', '.join(map(str, open_at))}" if open_at else "all certified"
        )
        said.append(
            f"Median gap 0 up to n{_kind(str(fisher))}: "
            f"{', '.join(f'{name} {n}' for name, n in ordered)}; best known {proof}"
        )
    return f"{'. '.join(said)}."


def _of_circuits(runs: pd.DataFrame, wanted: Collection[str]) -> list[Planned]:
    quantum = runs[runs["solver_name"].str.startswith("qaoa") & runs["status"].isin(SCORED)]
    plan: list[Planned] = []
    if "depth" in wanted and len(quantum):
        keys = ["n", "mixer", "depth"]
        found = plots_quantum.circuits(runs).groupby(keys)["shot_ratio"].mean().reset_index()
        said = "; ".join(
            f"n = {row['n']}, {plots_quantum.LABELS[row['mixer']]}, p = {row['depth']:g}: "
            f"{row['shot_ratio']:.2f}"
            for row in found.to_dict("records")
        )
        plan.append((
            "depth", "QAOA by depth and mixer",
            f"Approximation ratio of the mean shot and probability of the optimum against the "
            f"number of layers. Mean ratios: {said}.",
            lambda: plots_quantum.depth(runs),
        ))  # fmt: skip
    priced = quantum[quantum["quote"].notna()]
    if "cost" in wanted and len(priced):
        means = priced.groupby(["n", "solver", "quote"])["hit"].mean().reset_index()
        said = "; ".join(
            f"n = {row['n']}, {row['solver']}, {row['quote']:.2f} USD: {100 * row['hit']:.0f} %"
            for row in means.to_dict("records")
        )
        plan.append((
            "cost", "What a device's answer costs",
            f"Share of tasks that hold the best known against their price: {said}.",
            lambda: plots_quantum.cost(runs),
        ))  # fmt: skip
    return plan


def _of_models(table: pd.DataFrame, wanted: Collection[str]) -> list[Planned]:
    said = []
    for model, part in table.groupby("model", sort=False):
        column = plots_pruning.quality(part)
        for density, here in part.groupby("density"):
            values = ", ".join(
                f"{row.method} {getattr(row, column):.3g}"
                for row in here.drop_duplicates("method", keep="last").itertuples()
            )
            said.append(f"{model}, density {density:g}, {column}: {values}")
    text = "; ".join(said)
    plan: list[Planned] = []
    if "density" in wanted:
        plan.append((
            "density", "Quality against density",
            f"Accuracy or perplexity against the density, a line a method. {text}.",
            lambda: plots_pruning.density(table),
        ))  # fmt: skip
    if "tradeoff" in wanted:
        plan.append((
            "tradeoff", "Quality against seconds of pruning",
            "Accuracy or perplexity against the seconds of pruning; methods that choose a mask "
            f"once are points, the loop is a line through its steps. {text}.",
            lambda: plots_pruning.tradeoff(table),
        ))  # fmt: skip
    return plan
