"""Does a better solution of the rows' problems make a better model?

Whole layers of SmolLM2 (three decoder blocks) and of vit-fashion (all of them) are pruned row by
row, each row to the density, by Wanda, greedy, one-swap, tabu at rising numbers of iterations and
annealing, on H of the calibration data as it is and shrunk towards its diagonal. H is the trained
model's: no layer is told of the others. Of every mask:

* the share of the layers' output power that is lost, mean over the layers, on the calibration data
  and on held-out data of each kind;
* how much the model's loss rises on the held-out data, against the trained model and against
  Wanda's mask on the same windows or images, with 95 % bootstrap intervals over them.

``fidelity.csv`` has a row for each mask and data, ``fidelity.png`` shows them.

    python -m experiments.scripts.fidelity --out results/studies/fidelity
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from experiments.figures import palette
from experiments.figures.fidelity import figure
from experiments.metrics.intervals import bootstrap
from experiments.progress import cell_progress
from icbs.blocks.capture import Forward
from icbs.blocks.layers import PrunedLayer, prune_layers
from icbs.blocks.moments import Moments, input_moments
from icbs.blocks.rows import row_problem, shrunk
from icbs.data.loading import load_samples
from icbs.data.samples import Samples
from icbs.models.loading import LoadedModel, load_model
from icbs.models.prunable import prunable_layers
from icbs.settings import Settings
from solvers import Budget, make
from solvers.problem import Bools, Floats
from solvers.search.rows import row_errors, search_rows

SHRINKAGES = (0.0, 0.3)
SEED = 0
# Samples of one forward pass when losses are measured.
_BATCH = 4


@dataclass(frozen=True)
class Case:
    """How one model is asked.

    Attributes:
        layers: globs of those that are pruned.
        density: of every row.
        count: calibration samples.
        texts: kinds of held-out data by name; the calibration data is of the first kind.
        heldout: samples of each.
        length: tokens of a window.
        iterations: of tabu, in units of d a row, each a mask.
        annealing: seconds a row; None leaves it out.
    """

    layers: str
    density: float
    count: int
    texts: tuple[str | None, ...]
    heldout: int
    length: int = 256
    iterations: tuple[int, ...] = (1, 8)
    annealing: float | None = 0.01


CASES = {
    "smollm2": Case(
        layers="model.layers.3.*,model.layers.14.*,model.layers.25.*", density=0.5, count=64,
        texts=("wikipedia", "pydoc"), heldout=24,
    ),
    "vit-fashion": Case(
        layers="*", density=0.3, count=512, texts=(None,), heldout=2000,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """One layer's weights, its masks' home, and H on each data."""

    own: PrunedLayer
    wanda: Bools
    grams: Mapping[str, Floats]

    @property
    def weights(self) -> NDArray[np.float32]:
        """Shape (R, d)."""
        return self.own.dense.view(self.own.weight.shape).float().cpu().numpy()

    def lost(self, data: str) -> float:
        """Share of the output's power that the mask in the model loses."""
        W, H = self.weights, self.grams[data]
        pruned = self.own.pruned.view(self.own.weight.shape).cpu().numpy()
        everything = np.ones_like(pruned)
        return float(row_errors(H, W, pruned).sum() / row_errors(H, W, everything).sum())


def greedy_rows(H: Floats, weights: NDArray[np.float32], counts: NDArray[np.int64]) -> Bools:
    """Masks of all rows from nothing pruned, each time the weight that costs least.

    Args:
        H: shape (d, d).
        weights: shape (R, d).
        counts: weights to prune of each row, shape (R,).
    """
    W = np.asarray(weights, np.float64)
    own = W**2 * np.diag(H)
    q = np.zeros_like(W)
    pruned = np.zeros(W.shape, dtype=np.bool_)
    for step in range(int(counts.max(initial=0))):
        rows = np.flatnonzero(counts > step)
        cost = 2 * W[rows] * q[rows] + own[rows]
        cost[pruned[rows]] = np.inf
        chosen = cost.argmin(axis=1)
        pruned[rows, chosen] = True
        q[rows] += W[rows, chosen][:, None] * H[chosen]
    return pruned


def annealed_rows(H: Floats, weights: NDArray[np.float32], start: Bools, seconds: float) -> Bools:
    """Masks of all rows by `annealing` for so long each; shapes as in `greedy_rows`."""
    solver = make("annealing")
    moments, found = Moments(H, 1), start.copy()
    for o, w in enumerate(weights.astype(np.float64)):
        if not start[o].any() or w @ H @ w <= 0:
            continue
        problem = row_problem(moments, w, start[o])
        answer = solver.sample_problem(
            problem, budget=Budget(time_limit=seconds), seed=SEED, initial=start[o]
        )
        found[o] = answer.record.sample[answer.record.energy.argmin()]
    return found


def searches(case: Case) -> Iterator[tuple[str, str, int | float | None]]:
    """Label, method and effort of every search but Wanda's."""
    yield "greedy", "greedy", None
    yield "one-swap", "one-swap", None
    for number in case.iterations:
        yield f"tabu, {number} d", "tabu", number
    if case.annealing is not None:
        yield f"annealing, {case.annealing:g} s", "annealing", case.annealing


def search(layer: Layer, method: str, effort: int | float | None, shrinkage: float) -> Bools:
    """A mask of one layer on the shrunk H of the calibration data, from Wanda's."""
    H = shrunk(layer.grams["calibration"], shrinkage)
    if method == "greedy":
        return greedy_rows(H, layer.weights, layer.wanda.sum(axis=1))
    if method == "annealing":
        assert effort is not None
        return annealed_rows(H, layer.weights, layer.wanda, float(effort))
    options: dict[str, Any] = {} if effort is None else {"iterations": int(effort), "seed": SEED}
    single = H.astype(np.float32)
    name: Any = method
    return search_rows(single, layer.weights, layer.wanda, method=name, **options).pruned


def window_losses(model: nn.Module, layers: Mapping[str, nn.Module], samples: Samples) -> Floats:
    """Loss of each sample, shape (B,)."""
    parts = [Forward(model, layers, part).losses().double() for part in samples.split(_BATCH)]
    return np.asarray(torch.cat(parts).cpu().numpy(), np.float64)


def study(name: str, case: Case, *, progress: bool = True) -> pd.DataFrame:
    """Every mask on every data of one model; see the module's docstring.

    Returns:
        Columns model, density, data (calibration's kind is the first), heldout, search, shrinkage,
        seconds, lost, lost_calibration, loss, rise, rise_low, rise_high (against the trained
        model) and change, change_low, change_high (against Wanda's mask).
    """
    loaded = load_model(name)
    chosen = prunable_layers(loaded.model, case.layers)
    texts = {text or "images": _heldout(loaded, case, text) for text in case.texts}
    samples = load_samples(loaded, case.texts[0], count=case.count, length=case.length)
    moments = {"calibration": input_moments(loaded.model, chosen, samples)}
    moments |= {t: input_moments(loaded.model, chosen, part) for t, part in texts.items()}
    dense = {t: window_losses(loaded.model, chosen, part) for t, part in texts.items()}
    settings = Settings(density=case.density, batch_size=len(samples))
    layers = [
        Layer(
            own,
            own.pruned.view(own.weight.shape).cpu().numpy().copy(),
            {data: found[layer].gram for data, found in moments.items()},
        )
        for layer, own in prune_layers(loaded.model, chosen, samples, settings).items()
    ]
    plan: list[tuple[str, str, int | float | None, float]] = [("wanda", "wanda", None, 0.0)]
    plan += [(*one, a) for a in SHRINKAGES for one in searches(case)]
    rows: list[dict[str, Any]] = []
    wanda: dict[str, Floats] = {}
    with cell_progress(f"Masks of {name}", len(plan), show=progress) as advance:
        for label, method, effort, a in plan:
            start = time.perf_counter()
            for layer in layers:
                mask = layer.wanda if method == "wanda" else search(layer, method, effort, a)
                layer.own.pruned = torch.from_numpy(mask.reshape(-1)).to(layer.own.pruned.device)
            seconds = time.perf_counter() - start
            for layer in layers:
                layer.own.write()
            for text, part in texts.items():
                losses = window_losses(loaded.model, chosen, part)
                wanda.setdefault(text, losses)
                rise, change = losses - dense[text], losses - wanda[text]
                rows.append(
                    {
                        "model": name, "density": case.density, "data": text,
                        "heldout": len(part), "search": label, "shrinkage": a, "seconds": seconds,
                        "lost": np.mean([layer.lost(text) for layer in layers]),
                        "lost_calibration": np.mean([lay.lost("calibration") for lay in layers]),
                        "loss": losses.mean(), **_spread("rise", rise), **_spread("change", change),
                        "load": os.getloadavg()[0],
                    }
                )  # fmt: skip
            advance()
    return pd.DataFrame(rows)


def _heldout(loaded: LoadedModel, case: Case, text: str | None) -> Samples:
    return load_samples(loaded, text, part="evaluation", count=case.heldout, length=case.length)


def _spread(name: str, values: Floats) -> dict[str, float]:
    low, high = bootstrap(values, lambda v: float(v.mean()), rng=np.random.default_rng(0))
    return {name: float(values.mean()), f"{name}_low": low, f"{name}_high": high}


def main() -> None:
    """All cases, each as it is done, and the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--out", type=Path, default=Path("results/studies/fidelity"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "fidelity.csv"
    table = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=["model"])
    for name in given.models:
        rest = table[table["model"] != name]
        table = pd.concat([rest, study(name, CASES[name])], ignore_index=True)
        table.to_csv(path, index=False, float_format="%.6g")
    print(table.drop(columns=["loss", "load"]).round(4).to_string())
    palette.save(figure(table), given.out, "fidelity")


if __name__ == "__main__":
    main()
