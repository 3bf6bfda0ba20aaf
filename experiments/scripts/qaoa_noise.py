"""QAOA under noise: depolarising two-qubit gates against the approximation ratio, density matrix.

For each sub-block, mixer, depth and noise level, with angles trained without noise:

* ``feasible``: share of shots that post-selection keeps;
* ``post_selected`` and ``repaired``: approximation ratio of the feasible shots, and of all shots
  after greedy repair; ``uniform_repaired`` is that of uniformly random bit strings repaired in the
  same way: what is above it comes from the circuit;
* size of the circuit.

Exact probabilities from Braket's local density matrix. Means over blocks with 95 % bootstrap
intervals go to ``noise.csv`` and ``noise.png``.

    python -m experiments.scripts.qaoa_noise SUBBLOCK... --out results/qaoa
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from experiments.progress import cell_progress
from experiments.scripts.qaoa_library import X_PENALTY, simulator_of
from experiments.scripts.qaoa_quality import LABELS, summary
from solvers import CardinalityProblem, load
from solvers.clock.deadline import NEVER
from solvers.penalised.penalty import penalty_weight
from solvers.qaoa.braket import BraketLocalQAOASampler
from solvers.qaoa.gate_model import gates
from solvers.qaoa.sampler import describe
from solvers.qaoa.solver import Trained
from solvers.qaoa.training import chosen_angles
from solvers.search.repair import LocalSearch

LEVELS = (0.0, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2)
# Mixer -> what the exact simulator calls what the circuit does.
SIMULATED = {"complete": "complete-trotter", "ring": "ring", "grover": "grover", "x": "x"}


def noisy(problem: CardinalityProblem, mixer: str, depth: int) -> list[dict[str, object]]:
    """One row for each noise level."""
    simulator = simulator_of(problem, SIMULATED[mixer])
    angles = chosen_angles(simulator, "trained", depth, 1.0, 100, NEVER)
    weight = penalty_weight(problem, X_PENALTY) if mixer == "x" else None
    circuit, values = gates(problem, Trained(mixer, simulator, angles, weight))
    size = describe(angles, circuit)
    strings = _bit_strings(problem.n)
    feasible = problem.is_feasible(strings)
    energies = problem.energy(strings)
    search = LocalSearch(problem)
    repaired = problem.energy(np.array([search.fill(row) for row in strings]))
    mean, optimum = energies[feasible].mean(), problem.meta["optimum"]
    rows: list[dict[str, object]] = []
    for level in LEVELS:
        sampler = BraketLocalQAOASampler(problem.n, noise=level)
        weights = sampler.probabilities(sampler._prepared(circuit, values))
        share = weights[feasible].sum()
        kept = weights[feasible] @ energies[feasible] / share
        rows.append(
            {
                "n": problem.n,
                "mixer": mixer,
                "depth": depth,
                "noise": level,
                "feasible": share,
                "post_selected": (mean - kept) / (mean - optimum),
                "repaired": (mean - weights @ repaired) / (mean - optimum),
                "uniform_repaired": (mean - repaired.mean()) / (mean - optimum),
                "two_qubit_gates": size["two_qubit_gates"],
                "two_qubit_depth": size["two_qubit_depth"],
            }
        )
    return rows


def _bit_strings(n: int) -> NDArray[np.int8]:
    """All of them, in the order of Braket's probabilities."""
    return ((np.arange(1 << n)[:, None] >> np.arange(n)[::-1]) & 1).astype(np.int8)


def draw(table: pd.DataFrame, path: Path) -> None:
    """Ratio of post-selected and repaired shots against the noise, one panel a mixer."""
    mixers = list(dict.fromkeys(table["mixer"]))
    figure = Figure(figsize=(2.9 * len(mixers), 3.6), layout="constrained")
    axes = figure.subplots(1, len(mixers), sharey=True, squeeze=False)[0]
    for axis, mixer in zip(axes, mixers, strict=True):
        here = table[table["mixer"] == mixer]
        for depth, colour in zip(
            sorted(here["depth"].unique()), ("#0072B2", "#E69F00", "#009E73"), strict=False
        ):
            part = here[here["depth"] == depth]
            noise = part["noise"].replace(0, LEVELS[1] / 3)
            axis.semilogx(noise, part["post_selected"], "o-", ms=3, color=colour,
                          label=f"p = {depth}, post-selected")  # fmt: skip
            axis.fill_between(noise, part["post_selected_low"], part["post_selected_high"],
                              color=colour, alpha=0.15, lw=0)  # fmt: skip
            axis.semilogx(noise, part["repaired"], "s--", ms=3, color=colour,
                          label=f"p = {depth}, all shots repaired")  # fmt: skip
        axis.axhline(here["uniform_repaired"].mean(), color="#333333", lw=0.8, ls=":",
                     label="random strings, repaired")  # fmt: skip
        gates_by_depth = here.groupby("depth")["two_qubit_gates"].first().astype(int)
        sizes = ", ".join(f"p = {p}: {count}" for p, count in gates_by_depth.items())
        axis.set_title(f"{LABELS[mixer]}\n(two-qubit gates, {sizes})", fontsize=9)
        axis.set_xlabel("error of a two-qubit gate (left end: 0)", fontsize=8)
    axes[0].set_ylabel("approximation ratio")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, frameon=False, ncols=3, loc="outside lower center")
    figure.savefig(path, dpi=130)


def main() -> None:
    """Runs, summarises, draws."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("blocks", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--mixers", default="complete,ring,x")
    parser.add_argument("--depths", default="1,2")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    runs = []
    with cell_progress("Noisy circuits", len(args.blocks)) as advance:
        for path in args.blocks:
            problem = load(path)
            for mixer in args.mixers.split(","):
                for depth in args.depths.split(","):
                    rows = noisy(problem, mixer, int(depth))
                    runs += [row | {"block": path.name} for row in rows]
            advance()
    measures = ("feasible", "post_selected", "repaired", "uniform_repaired", "two_qubit_gates",
                "two_qubit_depth")  # fmt: skip
    table = summary(pd.DataFrame(runs), ["n", "mixer", "depth", "noise"], measures)
    table.to_csv(args.out / "noise.csv", index=False, float_format="%.4g")
    draw(table, args.out / "noise.png")


if __name__ == "__main__":
    main()
