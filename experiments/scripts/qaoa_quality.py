"""What QAOA reaches on real sub-blocks at best, and what classical solvers reach meanwhile.

Exact state vectors, no noise, no shots. For every sub-block, mixer, angle strategy and depth:

* approximation ratio ``(E_mean - <E>) / (E_mean - E_opt)`` over the feasible masks: 0 is a random
  mask, 1 the optimum. For the penalised X mixer <E> is that of the feasible shots;
* P(optimum) of one shot, and the share of shots that are feasible.

Beside them, the classical solvers under a time limit of one execution of the complete-XY circuit
at `LIMIT_DEPTH`, on this package's simulator: the shortest time in which anybody can have its
answer today. Means over blocks with 95 % bootstrap intervals go to ``quality.csv``, the classical
ones to ``classical.csv``, both to ``quality.png``.

    python -m experiments.scripts.qaoa_quality SUBBLOCK... --out results/qaoa
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from experiments.figures import palette
from experiments.metrics.intervals import percentile_interval
from experiments.progress import cell_progress
from experiments.scripts.qaoa_library import simulator_of
from solvers import Budget, CardinalityProblem, load, make
from solvers.clock.deadline import NEVER
from solvers.qaoa.angles import Angles
from solvers.qaoa.simulator.subspace import Simulator
from solvers.qaoa.training import STRATEGIES, chosen_angles

MIXERS = ("complete", "ring", "grover", "x")
LABELS = {"complete": "complete XY", "ring": "ring XY", "grover": "Grover", "x": "X + penalty"}
CLASSICAL = ("greedy", "descent", "annealing", "relaxation")
LIMIT_DEPTH = 8
SEEDS = 20
RESAMPLES = 10_000


@dataclass(frozen=True)
class Feasible:
    """Energies of a problem's masks by the ranks of one simulator.

    Attributes:
        ranks: of the feasible states.
        energies: of these.
        best: which of them are optimal.
    """

    ranks: NDArray[np.intp]
    energies: NDArray[np.float64]
    best: NDArray[np.bool_]

    @classmethod
    def of(cls, problem: CardinalityProblem, simulator: Simulator) -> Feasible:
        """Of all the simulator's states."""
        states = simulator.states(np.arange(simulator.dim))
        ranks = np.flatnonzero(problem.is_feasible(states))
        energies = problem.energy(states[ranks])
        return cls(ranks, energies, is_optimum(problem, energies))

    def scores(self, simulator: Simulator, angles: Angles) -> dict[str, float]:
        """Ratio, P(optimum) and feasible share of the circuit's final state."""
        weights = simulator.probabilities(angles)[self.ranks]
        mean, share = self.energies.mean(), weights.sum()
        return {
            "ratio": (mean - weights @ self.energies / share) / (mean - self.energies.min()),
            "p_optimum": weights[self.best].sum(),
            "feasible": share,
        }


def is_optimum(problem: CardinalityProblem, energies: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether energies are the proved optimum, up to rounding."""
    optimum = problem.meta["optimum"]
    tolerance = 1e-9 * max(np.abs(problem.linear).sum(), abs(optimum))
    return np.asarray(energies <= optimum + tolerance)


def quantum(problem: CardinalityProblem, depths: Sequence[int]) -> list[dict[str, object]]:
    """One row for each mixer, strategy and depth."""
    rows: list[dict[str, object]] = []
    for mixer in MIXERS:
        simulator = simulator_of(problem, mixer)
        feasible = Feasible.of(problem, simulator)
        for depth in depths:
            for strategy in STRATEGIES:
                angles = chosen_angles(simulator, strategy, depth, 1.0, 100, NEVER)
                rows.append(
                    {
                        "n": problem.n,
                        "mixer": mixer,
                        "strategy": strategy,
                        "depth": depth,
                        **feasible.scores(simulator, angles),
                        "training_s": angles.training_seconds,
                    }
                )
    return rows


def circuit_seconds(problem: CardinalityProblem) -> float:
    """One execution of complete XY at `LIMIT_DEPTH`: the median of seven."""
    simulator = simulator_of(problem, "complete")
    angles = chosen_angles(simulator, "ramp", LIMIT_DEPTH, 1.0, 0, NEVER)
    seconds = []
    for _ in range(8):
        start = time.perf_counter()
        simulator.state(angles)
        seconds.append(time.perf_counter() - start)
    return median(seconds[1:])


def classical(problem: CardinalityProblem, limit: float) -> list[dict[str, object]]:
    """One row for each solver and seed, the solver's wall time measured."""
    states = simulator_of(problem, "grover").costs
    mean, optimum = states.mean(), problem.meta["optimum"]
    blind = problem.blinded()
    rows: list[dict[str, object]] = []
    for name in CLASSICAL:
        sampler = make(name)
        timed = Budget(time_limit=limit) if "time_limit" in sampler.honours else None
        for seed in range(-1, SEEDS):
            start = time.perf_counter()
            found = sampler.sample_problem(blind, budget=timed, seed=max(seed, 0))
            seconds = time.perf_counter() - start
            energy = problem.energy(found.record.sample).min(keepdims=True)
            if seed >= 0:  # the first call compiles
                rows.append(
                    {
                        "n": problem.n,
                        "solver": name,
                        "limit_s": limit,
                        "seconds": seconds,
                        "ratio": float((mean - energy[0]) / (mean - optimum)),
                        "p_optimum": float(is_optimum(problem, energy)[0]),
                    }
                )
    return rows


def interval(values: pd.Series) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over blocks (percentile method)."""
    rng = np.random.default_rng(0)
    data = values.to_numpy(float)
    means = data[rng.integers(len(data), size=(RESAMPLES, len(data)))].mean(axis=1)
    return percentile_interval(means, method="linear")


def summary(frame: pd.DataFrame, keys: list[str], measures: Sequence[str]) -> pd.DataFrame:
    """Mean and interval of each measure by group; every block counts once."""
    rows = []
    for group, part in frame.groupby(keys, sort=False):
        by_block = part.groupby("block").mean(numeric_only=True)
        row = dict(zip(keys, group, strict=True)) | {"blocks": len(by_block)}
        for measure in measures:
            low, high = interval(by_block[measure])
            row |= {measure: by_block[measure].mean(), f"{measure}_low": low,
                    f"{measure}_high": high}  # fmt: skip
        rows.append(row)
    return pd.DataFrame(rows)


def draw(runs: pd.DataFrame, rivals: pd.DataFrame, path: Path) -> None:
    """Ratio and P(optimum) against depth by mixer; the classical solvers in a strip beside."""
    sizes = sorted(runs["n"].unique())
    colours = {mixer: palette.MIXERS[mixer].colour for mixer in MIXERS}
    figure = Figure(figsize=(11, 2.9 * len(sizes)), layout="constrained")
    axes = figure.subplots(
        len(sizes), 4, squeeze=False, gridspec_kw={"width_ratios": [3, 1.5, 3, 1.5]}
    )
    for line, n in zip(axes, sizes, strict=True):
        for column, measure in ((0, "ratio"), (2, "p_optimum")):
            for mixer in MIXERS:
                for strategy, style in (("trained", "-"), ("transferred", "--")):
                    part = runs.query("n == @n and mixer == @mixer and strategy == @strategy")
                    label = f"{LABELS[mixer]}, {strategy}"
                    line[column].plot(part["depth"], part[measure], style, marker="o", ms=3,
                                      color=colours[mixer], label=label)  # fmt: skip
                    if strategy == "trained":
                        line[column].fill_between(
                            part["depth"], part[f"{measure}_low"], part[f"{measure}_high"],
                            color=colours[mixer], alpha=0.15, lw=0,
                        )  # fmt: skip
            line[column].set(xlabel="layers p", ylim=(-0.02, 1.04))
            beside = line[column + 1]
            part = rivals[rivals["n"] == n]
            for place, row in enumerate(part.itertuples()):
                low, high = getattr(row, f"{measure}_low"), getattr(row, f"{measure}_high")
                value = getattr(row, measure)
                beside.errorbar(place, value, [[value - low], [high - value]], fmt="s", ms=4,
                                color="#333333", capsize=2)  # fmt: skip
            names = [f"{row.solver} {row.seconds * 1e3:.2g} ms" for row in part.itertuples()]
            beside.set_xticks(range(len(part)), names, rotation=60, ha="right", fontsize=7)
            beside.set(ylim=(-0.02, 1.04), xlim=(-0.6, len(part) - 0.4))
            limit = part["limit_s"].mean() * 1e3
            beside.set_title(f"classical, limit {limit:.2g} ms", fontsize=8)
            word = "approximation ratio" if measure == "ratio" else "P(optimum): one shot | one run"
            line[column].set_title(f"n = {n}: {word}", fontsize=9)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, frameon=False, ncols=4, loc="outside lower center")
    figure.savefig(path, dpi=130)


def main() -> None:
    """Runs, summarises, draws."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("blocks", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--depths", default="1,2,3,4,5,6,7,8")
    args = parser.parse_args()
    depths = [int(word) for word in args.depths.split(",")]
    args.out.mkdir(parents=True, exist_ok=True)
    runs, rivals = [], []
    with cell_progress("QAOA on sub-blocks", len(args.blocks)) as advance:
        for path in args.blocks:
            problem = load(path)
            runs += [row | {"block": path.name} for row in quantum(problem, depths)]
            limit = circuit_seconds(problem)
            rivals += [row | {"block": path.name} for row in classical(problem, limit)]
            advance()
    measures = ("ratio", "p_optimum", "feasible", "training_s")
    table = summary(pd.DataFrame(runs), ["n", "mixer", "strategy", "depth"], measures)
    others = summary(
        pd.DataFrame(rivals), ["n", "solver"], ("ratio", "p_optimum", "seconds", "limit_s")
    )
    table.to_csv(args.out / "quality.csv", index=False, float_format="%.4g")
    others.to_csv(args.out / "classical.csv", index=False, float_format="%.4g")
    draw(table, others, args.out / "quality.png")
    print(json.dumps({"blocks": len(args.blocks), "depths": depths}))


if __name__ == "__main__":
    main()
