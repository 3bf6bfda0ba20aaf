"""How far from optimal is layer-wise pruning? Every row of a layer, one after the other.

For each output of a layer, at density 0.5 with one budget a row and H of the calibration data:

* ``wanda``: the energy of Wanda's mask, the share of the output's power that it loses;
* ``one_swap``: after swaps from there until none lowers it (`solvers.search.rows`);
* ``best``: the best that a search and the certificate's own roundings find;
* ``bound``: what no mask gets below, certified and verified again by numpy alone.

The optimum lies from ``bound`` to ``best``: ``(best - bound) / bound`` is the most that the best
mask can be away from it. Rows whose output is always 0 have no numbers.

``rows.csv`` has a line a row, written as it is done, so that an interrupted run goes on where it
was; ``layers.csv`` medians of each layer; ``atlas.png`` the distributions.

    python -m experiments.scripts.atlas --models vit-fashion --out results/atlas
    python -m experiments.scripts.atlas --models smollm2 --bound 3 --out results/atlas
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.figures import palette
from experiments.figures.atlas import figure
from experiments.progress import cell_progress
from icbs.blocks.layers import prune_layers
from icbs.blocks.moments import Moments, input_moments
from icbs.blocks.rows import row_problem
from icbs.data.loading import load_samples
from icbs.errors import LayerError
from icbs.models.loading import load_model
from icbs.models.prunable import prunable_layers
from icbs.settings import Settings
from solvers import Budget, make
from solvers.exact.certificate import verify
from solvers.problem import Bools, CardinalityProblem, Floats
from solvers.search.rows import search_rows

SOLVER = "portfolio"
DENSITY = 0.5
# A row is proved where the best mask is this close to the bound, as a share of it.
PROVED = 1e-9


@dataclass(frozen=True)
class Case:
    """Which layers of a model, on how much calibration data.

    Attributes:
        layers: globs.
        count: windows of 256 tokens, or images.
    """

    layers: str
    count: int


CASES = {
    "vit-fashion": Case("*", 1024),
    "smollm2": Case(
        "model.layers.0.self_attn.v_proj,model.layers.10.self_attn.k_proj,"
        "model.layers.20.self_attn.v_proj,model.layers.29.self_attn.k_proj",
        64,
    ),
}


@dataclass(frozen=True)
class Layer:
    """A layer's inputs, weights and masks, one row each."""

    name: str
    moments: Moments
    weights: Floats
    wanda: Bools
    one_swap: Bools


def layers(model: str, case: Case) -> Iterator[Layer]:
    """The layers of a model with Wanda's masks and those after swaps."""
    loaded = load_model(model)
    chosen = prunable_layers(loaded.model, case.layers)
    samples = load_samples(loaded, count=case.count, length=256)
    found = input_moments(loaded.model, chosen, samples)
    settings = Settings(density=DENSITY, batch_size=len(samples))
    for name, own in prune_layers(loaded.model, chosen, samples, settings).items():
        shape = own.weight.shape
        weights = own.dense.view(shape).double().cpu().numpy()
        wanda = own.pruned.view(shape).cpu().numpy().copy()
        swapped = search_rows(found[name].gram, weights, wanda).pruned
        yield Layer(name, found[name], weights, wanda, swapped)


def chart(
    problem: CardinalityProblem, one_swap: Bools, search: float, seconds: float
) -> dict[str, Any]:
    """What is known of one row.

    Args:
        problem: with Wanda's mask as the current one.
        one_swap: the mask after swaps.
        search: seconds of the search.
        seconds: of the bound.
    """
    assert problem.initial is not None
    blind = problem.blinded()
    found = [
        make(name).sample_problem(blind, budget=Budget(time_limit=limit), seed=0)
        for name, limit in ((SOLVER, search), ("semidefinite", seconds))
    ]
    lower, certificate = found[1].info["lower_bound"], found[1].info["certificate"]
    if certificate is not None:
        checked = verify(problem, certificate)
        # Both are rounded, on the scale of the energies.
        if not checked >= lower - 1e-9 * float(problem.energy(problem.initial)):
            raise AssertionError(f"verified {checked!r}, claimed {lower!r}")
    states = [samples.record.sample[samples.record.energy.argmin()] for samples in found]
    masks = [problem.initial, one_swap, *(state.astype(np.bool_) for state in states)]
    energies = problem.energy(np.stack(masks))
    return {
        "wanda": energies[0], "one_swap": energies[1], "best": energies.min(),
        "bound": max(0.0, lower), "bound_seconds": found[1].info["timing"]["execute"],
        "load": os.getloadavg()[0],
    }  # fmt: skip


def rows(model: str, case: Case, path: Path, search: float, seconds: float) -> None:
    """Writes a line for each row that is not there yet."""
    known = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=["model", "layer", "row"])
    done = set(known[["model", "layer", "row"]].itertuples(index=False, name=None))
    for layer in layers(model, case):
        count = len(layer.weights)
        with cell_progress(layer.name, count) as advance:
            for o in range(count):
                if (model, layer.name, o) not in done:
                    line = {
                        "model": model,
                        "layer": layer.name,
                        "row": o,
                        "n": len(layer.weights[o]),
                    }
                    try:
                        problem = row_problem(layer.moments, layer.weights[o], layer.wanda[o])
                    except LayerError:  # its output is always 0
                        line["k"] = 0
                    else:
                        line["k"] = problem.cardinality
                        line |= chart(problem, layer.one_swap[o], search, seconds)
                    table = pd.DataFrame([line], columns=_COLUMNS)
                    table.to_csv(
                        path, mode="a", header=not path.exists(), index=False, float_format="%.10g"
                    )
                advance()


_COLUMNS = [
    "model", "layer", "row", "n", "k", "wanda", "one_swap", "best", "bound", "bound_seconds",
    "load",
]  # fmt: skip


def gaps(table: pd.DataFrame) -> pd.DataFrame:
    """How far each row's masks are from optimal, as shares.

    Returns:
        The rows that have an output, with the columns certified, the most that `best` can be above
        the optimum, wanda_above and one_swap_above, above `best`, and proved.
    """
    known = table[table["best"].notna()].copy()
    known["certified"] = known["best"] / known["bound"] - 1
    for name in ("wanda", "one_swap"):
        known[f"{name}_above"] = known[name] / known["best"] - 1
    known["proved"] = known["certified"] <= PROVED
    return known


def by_layer(table: pd.DataFrame) -> pd.DataFrame:
    """Medians of `gaps` by layer, with how many rows and the share that is proved."""
    return (
        gaps(table)
        .groupby(["model", "layer"], sort=False)
        .agg(
            n=("n", "first"), rows=("row", "size"), wanda=("wanda", "median"),
            best=("best", "median"), wanda_above=("wanda_above", "median"),
            one_swap_above=("one_swap_above", "median"), certified=("certified", "median"),
            certified_worst=("certified", "max"), proved=("proved", "mean"),
            bound_seconds=("bound_seconds", "median"), load=("load", "median"),
        )
        .reset_index()
    )  # fmt: skip


def main() -> None:
    """The rows that are missing, the table of layers and the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--search", type=float, default=0.2, help="seconds of search a row")
    parser.add_argument("--bound", type=float, default=2.0, help="seconds of bound a row")
    parser.add_argument("--out", type=Path, default=Path("results/atlas"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "rows.csv"
    for model in given.models:
        rows(model, CASES[model], path, given.search, given.bound)
    table = pd.read_csv(path)
    by_layer(table).to_csv(given.out / "layers.csv", index=False, float_format="%.4g")
    print(by_layer(table).round(4).to_string())
    palette.save(figure(gaps(table)), given.out, "atlas")


if __name__ == "__main__":
    main()
