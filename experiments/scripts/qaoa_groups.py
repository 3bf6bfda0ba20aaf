"""QAOA on 2:4 blocks of real rows: what it reaches, and what its circuits cost.

Nine rows of three layers of SmolLM2 with Wanda's 2:4 mask; of each the nested sub-blocks of 8, 16,
24 and 32 variables, in groups of four with two ones. Exact state vectors over the 6^(n/4) feasible
states, no noise, no shots:

* approximation ratio ``(E_mean - <E>) / (E_mean - E_opt)`` over these states, and P(optimum) of a
  shot, the optimum by enumeration of them;
* beside them a uniform draw, and one-swap descent from the current mask.

Angles are trained for each sub-block up to 24 variables. At 32 they are those that the row's
sub-block of 24 was trained to, in units of the energy's spread: ``angles`` says so. Means over rows
with 95 % bootstrap intervals go to ``groups.csv``, gate counts and two-qubit depth, beside those of
one Dicke state over all variables, to ``groups-gates.csv``, both to ``groups.png``.

    python -m experiments.scripts.qaoa_groups --out results/qaoa
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.figures import palette
from experiments.instances.subblocks import nested_subblocks
from experiments.progress import cell_progress
from experiments.scripts.qaoa_quality import LABELS, summary
from icbs.blocks.rowexport import export_rows
from icbs.data.loading import load_samples
from icbs.models.loading import load_model
from solvers import Budget, CardinalityProblem, make
from solvers.problem import Bools
from solvers.qaoa.angles import Angles
from solvers.qaoa.circuit.ansatz import Group, subspace_ansatz
from solvers.qaoa.sampler import describe
from solvers.qaoa.simulator.subspace import Simulator
from solvers.qaoa.training import normalised, optimise, scan, transfer

LAYERS = (
    "model.layers.0.self_attn.q_proj",
    "model.layers.15.mlp.up_proj",
    "model.layers.29.self_attn.o_proj",
)
ROWS, WINDOWS, LENGTH = 3, 16, 256
SIZES = (8, 16, 24, 32)
TRAINED = 24
DEPTHS = (1, 2, 4, 8)
MIXERS = ("complete", "ring", "grover")
ITERATIONS = 30
GROUP, ONES = 4, 2


def blocks() -> list[CardinalityProblem]:
    """The 2:4 rows."""
    loaded = load_model("smollm2")
    samples = load_samples(loaded, count=WINDOWS, length=LENGTH)
    layers = ",".join(LAYERS)
    return export_rows(loaded, samples, layers=layers, rows=ROWS, pattern="2:4", progress=False)


def measured(
    title: str, records: Callable[[CardinalityProblem, int], Iterable[dict[str, object]]]
) -> pd.DataFrame:
    """The records of every row and its number, the latter as column ``block``."""
    rows, found = blocks(), []
    with cell_progress(title, len(rows)) as advance:
        for number, row in enumerate(rows):
            found += [record | {"block": number} for record in records(row, number)]
            advance()
    return pd.DataFrame(found)


def both(row: CardinalityProblem, _: int) -> Iterator[dict[str, object]]:
    """What QAOA with each mixer reaches on a row, and the controls."""
    for mixer in MIXERS:
        yield from quantum(row, mixer)
    yield from classical(row)


def is_best(simulator: Simulator) -> Bools:
    """Which states are optimal, up to rounding."""
    costs = simulator.costs
    return np.asarray(costs <= costs.min() + 1e-9 * (costs.max() - costs.min()))


def quantum(row: CardinalityProblem, mixer: str) -> Iterator[dict[str, object]]:
    """One record for each size and depth of a row."""
    found: dict[int, Angles] = {}
    for n, problem in nested_subblocks(row, SIZES).items():
        simulator = Simulator(problem, mixer, num_threads=2)
        best, mean = is_best(simulator), simulator.costs.mean()
        for depth in DEPTHS:
            if n <= TRAINED:
                angles = optimise(simulator, scan(simulator, depth), iterations=ITERATIONS)
                found[depth] = normalised(angles, simulator)
            else:
                angles = transfer(found[depth], simulator)
            weights = simulator.probabilities(angles)
            yield {
                "n": n,
                "method": mixer,
                "depth": depth,
                "angles": "trained" if n <= TRAINED else f"of the row's n = {TRAINED}",
                "ratio": (mean - weights @ simulator.costs) / (mean - simulator.costs.min()),
                "p_optimum": weights[best].sum(),
            }


def classical(row: CardinalityProblem) -> Iterator[dict[str, object]]:
    """A uniform draw, and one-swap descent from the current mask."""
    for n, problem in nested_subblocks(row, SIZES).items():
        simulator = Simulator(problem)
        best, mean = is_best(simulator), simulator.costs.mean()
        least = simulator.costs.min()
        start = problem.initial
        samples = make("descent").sample_problem(
            problem.blinded(), budget=Budget(reads=1), seed=0, initial=start
        )
        energy = samples.first.energy
        hit = energy <= simulator.costs[best].max() + 1e-9 * (mean - least)
        none: dict[str, object] = {"n": n, "depth": 0, "angles": ""}
        yield none | {"method": "uniform", "ratio": 0.0, "p_optimum": best.mean()}
        yield none | {
            "method": "descent",
            "ratio": (mean - energy) / (mean - least),
            "p_optimum": float(hit),
        }


def gate_counts() -> Iterator[dict[str, object]]:
    """Two-qubit gates and their depth, with all couplings and without the cost layers."""
    for n in SIZES:
        quads = tuple(Group(tuple(range(i, i + GROUP)), ONES) for i in range(0, n, GROUP))
        shapes = {"groups of 4": quads, "one Dicke state": (Group(tuple(range(n)), n // 2),)}
        for shape, groups in shapes.items():
            for mixer in ("ring", "complete"):
                for depth in DEPTHS:
                    edges = tuple(combinations(range(n), 2))
                    full = describe(
                        Angles.given([0.0] * depth, [0.0] * depth),
                        subspace_ansatz(groups, edges, depth, mixer),
                    )
                    bare = subspace_ansatz(groups, (), depth, mixer)
                    yield {
                        "n": n,
                        "shape": shape,
                        "mixer": mixer,
                        "depth": depth,
                        "two_qubit_gates": full["two_qubit_gates"],
                        "two_qubit_depth": full["two_qubit_depth"],
                        "gates_without_cost": sum(len(gate.qubits) == 2 for gate in bare.gates),
                        "depth_without_cost": bare.two_qubit_depth(),
                    }


def draw(table: pd.DataFrame, gates: pd.DataFrame, path: Path) -> None:
    """Ratio and P(optimum) by size, a line a depth; two-qubit depth of both shapes."""
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    axes = figure.subplots(1, 3)
    for axis, measure, word in (
        (axes[0], "ratio", "approximation ratio"),
        (axes[1], "p_optimum", "P(optimum) of a shot"),
    ):
        for mixer, line in (("complete", "-"), ("ring", "--")):
            for depth, marker in ((1, "o"), (8, "s")):
                part = table.query("method == @mixer and depth == @depth")
                colour = palette.MIXERS[mixer].colour
                axis.plot(part["n"], part[measure], line, marker=marker, ms=4, color=colour,
                          label=f"{LABELS[mixer]}, p = {depth}")  # fmt: skip
                axis.fill_between(part["n"], part[f"{measure}_low"], part[f"{measure}_high"],
                                  color=colour, alpha=0.12, lw=0)  # fmt: skip
        for method, style in (("descent", "^"), ("uniform", "x")):
            part = table.query("method == @method")
            label = "one-swap descent" if method == "descent" else "uniform draw"
            axis.plot(part["n"], part[measure], style, color="#333333", ms=5, label=label)
        axis.set(xlabel="variables n", xticks=SIZES, title=word)
    axes[1].set_yscale("log")
    for (shape, name), part in gates.query("depth == 1").groupby(["shape", "mixer"]):
        colour = palette.MIXERS[str(name)].colour
        line = "-" if shape == "groups of 4" else ":"
        axes[2].semilogy(part["n"], part["depth_without_cost"], line, marker="o", ms=4,
                         color=colour, label=f"{shape}, {name}")  # fmt: skip
    axes[2].set(xlabel="variables n", xticks=SIZES,
                title="two-qubit depth at p = 1,\nstate and mixer")  # fmt: skip
    axes[2].legend(fontsize=7, frameon=False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, frameon=False, ncols=3, loc="outside lower center")
    figure.savefig(path, dpi=130)


def main() -> None:
    """Cuts, runs, summarises, draws."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    keys = ["n", "method", "depth", "angles"]
    table = summary(measured("QAOA on 2:4 blocks", both), keys, ("ratio", "p_optimum"))
    gates = pd.DataFrame(gate_counts())
    table.to_csv(args.out / "groups.csv", index=False, float_format="%.4g")
    gates.to_csv(args.out / "groups-gates.csv", index=False)
    draw(table, gates, args.out / "groups.png")


if __name__ == "__main__":
    main()
