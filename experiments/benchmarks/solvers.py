"""Hardness map: how soon each solver comes within 1 %, 0.1 % and 0 of the optimum, on which blocks.

Instances are exported blocks with H multiplied by 1, 10, 100 and 1000 and the rest left alone, and
random families of rank 16, 64 and 256 with and without linear term. Variables are permuted, nobody
is told the current mask, and solvers take turns instance by instance, so that a busy moment hits
all alike. A solver runs for the whole time limit; the times are those at which its incumbents
appeared.

A gap is ``(E - E_ref) / (E_start - E_ref)``. The reference is the proved optimum; where nobody
proved one in the time of `--proof`, it is the best energy anybody found, with annealing given that
time too, and the certified bound's distance to it is shown beside. The start is the mean over all
feasible masks, or the current mask if that is better but not the reference itself. Every row of the
CSV says which. Instances that are in the CSV already are not run again.

    python -m experiments.benchmarks.solvers --out results/solvers 'blocks/*-n1024-*.safetensors'
    python -m experiments.benchmarks.solvers --out results/solvers     # draws map.csv again
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

from experiments.figures import palette
from experiments.progress import cell_progress
from experiments.record import host
from solvers import Budget, CardinalityProblem, load, make

SOLVERS = ("greedy", "descent", "tabu", "annealing", "tempering", "relaxation", "exact",
           "reference-sa")  # fmt: skip
CURVATURES = (1, 10, 100, 1000)
RANKS = (16, 64, 256)
FAMILY_SIZE = 1024
TARGETS = {
    "time_1pct": (0.01, "1 % of the reference"),
    "time_01pct": (0.001, "0.1 % of the reference"),
    "time_best": (0.0, "the reference"),
}
KEYS = ("family", "layer", "curvature", "n", "rank")
RESOLUTION = 1e-9
"""Relative to start and reference: energies closer than this are equal."""


def random_family(rank: int, linear: float) -> CardinalityProblem:
    """Gaussian factor and linear term, half of the variables 1."""
    rng = np.random.default_rng(rank)
    return CardinalityProblem(
        factor=rng.normal(size=(rank, FAMILY_SIZE)),
        linear=linear * rng.normal(size=FAMILY_SIZE),
        cardinality=FAMILY_SIZE // 2,
    )


def mean_energy(problem: CardinalityProblem) -> float:
    """Mean over all feasible masks."""
    n, k = problem.n, problem.cardinality
    assert problem.factor is not None
    ones, trace = problem.factor.sum(axis=1), float(problem.diagonal.sum())
    pairs = k * (k - 1) / (n * (n - 1)) * (float(ones @ ones) - trace)
    return problem.offset + k / n * float(problem.linear.sum()) + 0.5 * (k / n * trace + pairs)


def instances(paths: list[str]) -> Iterator[tuple[dict[str, Any], CardinalityProblem, float]]:
    """What it is, the problem with its variables permuted, and the energy of its current mask."""
    for path in paths:
        block = load(path)
        for curvature in CURVATURES:
            assert block.factor is not None and block.initial is not None
            problem = replace(block, factor=block.factor * np.sqrt(curvature))
            about = {"family": block.meta["fisher"], "layer": block.meta["layer"],
                     "curvature": curvature, "n": block.n, "rank": block.rank}  # fmt: skip
            incumbent = float(problem.energy(block.initial))
            yield about, problem.permuted(np.random.default_rng(curvature)).blinded(), incumbent
    for rank in RANKS:
        for linear in (1.0, 0.0):
            problem = random_family(rank, linear).permuted(np.random.default_rng(rank))
            family = "random" if linear else "random, no linear term"
            about = {"family": family, "layer": "", "curvature": 1, "n": problem.n, "rank": rank}
            yield about, problem, np.inf


def attempt(
    solver: str, problem: CardinalityProblem, limit: float, seed: int
) -> tuple[dict[str, Any], list[tuple[float, float]]]:
    """One timed run: its row, and when which energy was reached."""
    seen: list[tuple[float, Any]] = []
    sampler = make(solver)
    start = time.perf_counter()
    samples = sampler.sample_problem(
        problem,
        budget=Budget(time_limit=limit),
        seed=seed,
        on_incumbent=lambda x: seen.append((time.perf_counter() - start, x.copy())),
    )
    wall = time.perf_counter() - start
    best = samples.record.sample[np.argmin(samples.record.energy)]
    seen.append((wall, best))
    curve = [(when, float(problem.energy(x))) for when, x in seen]
    row = {
        "solver": solver,
        "seed": seed,
        "limit": limit,
        "wall": wall,
        "energy": curve[-1][1],
        "lower_bound": samples.info.get("lower_bound", -np.inf),
        "proved": bool(samples.info.get("proved_optimal", False)),
        "load": host.load_average(),
    }
    return row, curve


def compare(
    problem: CardinalityProblem, incumbent: float, limit: float, proof: float, seeds: int
) -> pd.DataFrame:
    """All solvers on one instance, in turn; gaps and times against the reference they leave."""
    able = [
        name
        for name in SOLVERS
        if problem.n <= (make(name).properties["max_variables"] or problem.n)
    ]
    runs = [attempt(name, problem, limit, s) for s in range(seeds) for name in able]
    if not any(row["proved"] for row, _ in runs):
        for name in ("annealing", "exact"):
            longer, curve = attempt(name, problem, proof, seed=seeds)
            runs.append((longer | {"solver": f"reference: {name}"}, curve))
    frame = pd.DataFrame([row for row, _ in runs])
    reference, mean = frame["energy"].min(), mean_energy(problem)
    told = reference + RESOLUTION * (mean - reference) < incumbent < mean
    start = incumbent if told else mean
    span = start - reference
    frame["start"], frame["reference"] = start, reference
    frame["start_is"] = "incumbent" if told else "mean mask"
    frame["tag"] = "exact" if frame["proved"].any() else "best-known"
    # How far below the reference the optimum might lie.
    frame["open"] = max(0.0, reference - frame["lower_bound"].max()) / span
    frame["gap"] = (frame["energy"] - reference) / span
    for column, (target, _) in TARGETS.items():
        goal = reference + (target + RESOLUTION) * span
        frame[column] = [
            next((when for when, energy in curve if energy <= goal), np.inf) for _, curve in runs
        ]
    return frame


def warm_up() -> None:
    """Compiles everything that is timed later."""
    for rank in (2, 60):
        rng = np.random.default_rng(rank)
        tiny = CardinalityProblem(
            linear=rng.normal(size=128), cardinality=60, factor=rng.normal(size=(rank, 128))
        )
        for name in SOLVERS:
            make(name).sample_problem(tiny, budget=Budget(time_limit=1.0), seed=0)


def draw(frame: pd.DataFrame, folder: Path) -> None:
    """The map: a row a kind of instance, a column a solver, the cell its median time or gap."""
    frame = frame[frame["solver"].isin(SOLVERS)].copy()
    keys = ["family", "n", "rank", "curvature"]
    order = ["sequence", "position", "random", "random, no linear term"]
    frame["place"] = frame["family"].map(order.index)
    groups = list(frame.groupby(["place", *keys]))
    with palette.look():
        figure = palette.new_figure(14, 1.7 + 0.2 * len(groups))
        panels = figure.subplots(1, len(TARGETS), sharey=True)
        for axes, (column, (_, words)) in zip(panels, TARGETS.items(), strict=True):
            image = _panel(axes, groups, column)
            axes.set_title(f"Median time to {words} (gap where not reached)")
        panels[0].set_yticks(range(len(groups)), [_label(key[1:], part) for key, part in groups])
        figure.colorbar(image, ax=list(panels), label="seconds", shrink=0.5, pad=0.01)
        limit, seeds = frame["limit"].max(), frame["seed"].nunique()
        alone = (frame[frame["layer"] != ""]["start_is"] == "mean mask").mean()
        layers = frame.loc[frame["layer"] != "", "layer"].nunique()
        palette.caption(
            figure,
            f"SmolLM2-135M blocks of {layers} layers (4-bit release, dequantised), H multiplied by "
            f"the number after x, and random families; variables permuted, current mask given to "
            f"nobody; time limit {limit:g} s, {seeds} seed(s), all solvers in the native track, "
            f"wall time, compilation outside; load average {frame['load'].median():.1f} in the "
            f"median on {int(frame['cpus'].max())} CPUs. Reference: the proved optimum, or where a "
            f"share follows the name the best energy known, the optimum at most that far below it. "
            f"Shares are of the way from the current mask, or from the mean mask where the current "
            f"one is worse or is the reference itself ({alone:.0%} of the blocks' runs).",
        )
        palette.save(figure, folder, "map")


def _label(key: tuple[Any, ...], part: pd.DataFrame) -> str:
    family, n, rank, curvature = key
    scaled = f" x{curvature}" if family in palette.FISHERS else ""
    distance = float(part["open"].where(part["tag"] == "best-known", 0.0).max())
    unproved = f" ({_percent(distance)})" if distance else ""
    return f"{family} n={n} r={rank}{scaled}{unproved}"


def _panel(axes: Axes, groups: list[tuple[Any, pd.DataFrame]], column: str) -> Any:
    medians = np.array([
        [part.loc[part["solver"] == name, column].median() for name in SOLVERS]
        for _, part in groups
    ])  # fmt: skip
    shown = np.ma.masked_invalid(medians)
    axes.set_facecolor("#DDDDDD")
    axes.grid(visible=False)
    image = axes.imshow(shown, cmap="viridis_r", norm=LogNorm(1e-4, 1.0), aspect="auto")
    for row, (_, part) in enumerate(groups):
        for place, name in enumerate(SOLVERS):
            seconds = medians[row, place]
            if np.isfinite(seconds):
                text, dark = _seconds(seconds), seconds > 0.05
            else:
                gap = part.loc[part["solver"] == name, "gap"].median()
                text, dark = "too big" if np.isnan(gap) else _percent(gap), False
            colour = "white" if dark else "black"
            axes.text(place, row, text, ha="center", va="center", fontsize=5.5, color=colour)
    axes.set_xticks(range(len(SOLVERS)), SOLVERS, rotation=40, ha="right")
    return image


def _percent(gap: float) -> str:
    if gap < 1e-5:
        return "<.001 %"
    return f"{100 * gap:.0f} %" if gap > 0.1 else f"{100 * gap:.2g} %"


def _seconds(value: float) -> str:
    if value >= 0.995:
        return f"{value:.1f} s"
    return f"{1e3 * value:.0f} ms" if value >= 0.0095 else f"{1e3 * value:.1g} ms"


def read(table: Path) -> pd.DataFrame:
    """The CSV as it was written."""
    return pd.read_csv(table, keep_default_na=False, na_values=["nan"])


def run(paths: list[str], table: Path, limit: float, proof: float, seeds: int) -> None:
    """Runs the instances that `table` does not have, and appends to it after each."""
    frame = read(table) if table.exists() else pd.DataFrame(columns=list(KEYS))
    known = set(frame[list(KEYS)].itertuples(index=False, name=None))
    warm_up()
    total = len(paths) * len(CURVATURES) + 2 * len(RANKS)
    with cell_progress("hardness map", total) as advance:
        for about, problem, incumbent in instances(paths):
            if tuple(about[key] for key in KEYS) not in known:
                part = compare(problem, incumbent, limit, proof, seeds)
                part = part.assign(**about, cpus=host.usable_cpus())
                frame = pd.concat([frame, part]) if len(frame) else part
                frame.to_csv(table, index=False, float_format="%.8g")
            advance()


def main() -> None:
    """Runs what is asked for, writes ``map.csv`` as it goes, draws ``map``."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("blocks", nargs="*", help="globs of container files with a current mask")
    parser.add_argument("--out", type=Path, required=True, help="folder of map.csv and the figure")
    parser.add_argument("--limit", type=float, default=1.0, help="seconds a run")
    parser.add_argument("--proof", type=float, default=4.0, help="seconds for the reference")
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    table = arguments.out / "map.csv"
    paths = sorted(path for pattern in arguments.blocks for path in glob(pattern))  # noqa: PTH207
    if paths:
        run(paths, table, arguments.limit, arguments.proof, arguments.seeds)
    draw(read(table), arguments.out)


if __name__ == "__main__":
    main()
