"""Which curvature is right: sequence Fisher, position Fisher or the true Hessian of the block.

    python -m experiments.scripts.curvature ranking
    python -m experiments.scripts.curvature quality

Two questions on each of the package's image models:

* **Ranking.** Blocks are the same under every curvature: one mask, one batch, one choice of
  weights. Moves are random swaps, and optimised ones: the relaxation's answers under each curvature
  at several ridges, in whole and in part. Every curvature predicts the loss change of every move,
  without a ridge, which is a trust region and no curvature; it is measured on the batch that the
  curvature was made from, and on fresh images. Spearman's rank correlation within a block, its mean
  over the blocks, with percentile intervals of a bootstrap over blocks and, within them, moves
  (Efron 1979), which are the same for all curvatures, so that differences have intervals too.
* **Quality.** The loop for the same seconds under each curvature, everything else as `icbs prune`
  sets it; the true Hessian, whose price a block's size multiplies, in blocks and batches that leave
  time for steps.

``moves.csv``, ``ranking.csv`` and ``quality.csv`` go to OUT, and the figure of what is there. A
perceptron has one position a sample, so that both its Fishers are one.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata

from experiments.figures import palette
from experiments.figures.curvature import figure
from experiments.metrics.intervals import percentile_interval
from icbs.blocks.build import block_problem, cut_block
from icbs.blocks.capture import Forward, capture
from icbs.blocks.gradients import LayerGradients
from icbs.blocks.hessian import block_hessian
from icbs.blocks.layers import PrunedLayer, prune_layers
from icbs.data.loading import load_samples
from icbs.evaluation.quality import evaluate
from icbs.loop.moves import Move, best_state
from icbs.loop.pruner import Pruner
from icbs.models.loading import load_model
from icbs.models.prunable import prunable_layers
from icbs.settings import Curvature, Settings
from solvers import make
from solvers.problem import CardinalityProblem

FISHERS: tuple[Curvature, ...] = get_args(Curvature)
SEEDS = 3
DRAWS = 1000
# Ridges of the optimised moves; the first is the loop's usual one.
RIDGES = (1000.0, 100.0, 10.0)
SHARES = (1.0, 0.4, 0.1)
RANDOM_MOVES = 24


@dataclass(frozen=True)
class Case:
    """How one model is asked.

    Attributes:
        density: of the first mask, Wanda's.
        layers: globs of those that blocks are cut from.
        n: weights of a block.
        batch: images that gradients and curvature come from.
        fresh: other images.
        batches: blocks of each layer.
        seconds: of a run of the loop.
        exact: settings of the loop with the true Hessian.
    """

    density: float
    layers: str
    n: int
    batch: int
    fresh: int
    batches: int
    seconds: float
    exact: Mapping[str, Any]


CASES = {
    "garment-mlp": Case(
        density=0.1, layers="*", n=256, batch=512, fresh=4096, batches=4, seconds=12.0,
        exact={"block_size": 256, "batch_size": 512},
    ),
    "vit-fashion": Case(
        density=0.3, layers="*.0.*.fc1,*.2.*.o_proj", n=32, batch=128, fresh=512, batches=3,
        seconds=45.0,
        exact={"block_size": 32, "batch_size": 128, "layers_per_step": 1},
    ),
}  # fmt: skip


def moves(name: str, case: Case) -> pd.DataFrame:
    """Every move of every block with its predicted and measured loss changes."""
    loaded = load_model(name)
    size = case.batch + case.fresh
    samples = load_samples(loaded, count=case.batches * size)
    settings = Settings(density=case.density, batch_size=case.batch, block_size=case.n)
    every = prunable_layers(loaded.model)
    layers = prune_layers(loaded.model, every, samples[: case.batch], settings)
    chosen = prunable_layers(loaded.model, case.layers)
    rows: list[dict[str, Any]] = []
    for number in range(case.batches):
        part = samples[number * size : (number + 1) * size]
        forwards = [
            Forward(loaded.model, chosen, one) for one in (part[: case.batch], part[case.batch :])
        ]
        _, captures = capture(forwards[0], chosen)
        before = [float(f.losses().double().mean()) for f in forwards]
        for layer_name, captured in captures.items():
            layer = layers[layer_name]
            block = _Block(layer, LayerGradients(captured), settings, number)
            H = block_hessian(forwards[0], chosen[layer_name], torch.from_numpy(block.indices))
            problems = block.problems(H)
            rng = np.random.default_rng([number, len(rows)])
            for kind, move in block.moves(problems, H, rng):
                move.apply(1.0)
                after = [float(f.losses().double().mean()) for f in forwards]
                state = layer.pruned[block.indices].numpy().copy()
                move.undo()
                rows.append(
                    {
                        "model": name,
                        "block": f"{layer_name} {number}",
                        "moves": kind,
                        "swaps": move.swaps(1.0),
                        "same": after[0] - before[0],
                        "fresh": after[1] - before[1],
                    }
                    | {f: float(p.energy(state)) * p.scale for f, p in problems.items()}
                )
    return pd.DataFrame(rows)


class _Block:
    """Weights of one layer chosen as the loop would, under any curvature and ridge."""

    def __init__(
        self, layer: PrunedLayer, gradients: LayerGradients, settings: Settings, number: int
    ) -> None:
        self.layer, self.gradients = layer, gradients
        found = cut_block(layer, gradients, settings, np.random.default_rng([number, 1]))
        assert found.indices is not None
        self.indices: NDArray[np.int64] = np.sort(found.indices)

    def problems(self, H: torch.Tensor, ridge: float = 0.0) -> dict[str, CardinalityProblem]:
        """The block under each curvature, variables in the same order."""
        at = torch.from_numpy(self.indices)
        g, w0, curvature = (
            values[at].double().numpy()
            for values in (self.gradients.mean, self.layer.dense, self.gradients.curvature)
        )
        found: dict[str, CardinalityProblem] = {}
        for fisher in FISHERS:
            J = None
            if fisher != "exact":
                J = self.gradients.rows(at, fisher).double().numpy()
            found[fisher] = block_problem(
                J,
                g,
                w0,
                self.layer.pruned[at].numpy(),
                hessian=H.double().numpy() if J is None else None,
                lam=0.5 * ridge * curvature,
                indices=self.indices,
            )
        return found

    def moves(
        self, problems: Mapping[str, CardinalityProblem], H: torch.Tensor, rng: np.random.Generator
    ) -> Iterator[tuple[str, Move]]:
        """Random swaps, one to as many as fit; the answers under each curvature and ridge."""
        plain = problems["exact"]
        assert plain.initial is not None
        ones, zeros = np.flatnonzero(plain.initial), np.flatnonzero(~plain.initial)
        most = min(len(ones), len(zeros))
        for swaps in np.geomspace(1, most, RANDOM_MOVES).round().astype(int):
            state = plain.initial.copy()
            state[rng.choice(ones, swaps, replace=False)] = False
            state[rng.choice(zeros, swaps, replace=False)] = True
            yield "random", Move(plain, self.layer, state)
        seen = {plain.initial.tobytes()}
        solver = make("relaxation")
        for ridge in RIDGES:
            for problem in self.problems(H, ridge).values():
                whole = Move(problem, self.layer, best_state(problem, solver, None, 0))
                for share in SHARES:
                    whole.apply(share)
                    state = self.layer.pruned[self.indices].numpy().copy()
                    whole.undo()
                    if state.tobytes() not in seen:
                        seen.add(state.tobytes())
                        yield "optimised", Move(plain, self.layer, state)


def ranking(table: pd.DataFrame) -> pd.DataFrame:
    """Mean rank correlation by model, kind of move, data and curvature, and differences.

    Args:
        table: of `moves`.

    Returns:
        Columns model, moves, data, fisher, spearman, low, high, blocks, and the same of spearman's
        lead over the sequence Fisher: lead, lead_low, lead_high.
    """
    rows = []
    for (model, kind), part in table.groupby(["model", "moves"], sort=False):
        blocks = [block for _, block in part.groupby("block", sort=False) if len(block) > 2]
        for data in ("same", "fresh"):
            rng = np.random.default_rng(0)
            drawn = _drawn(blocks, data, rng)
            point = _correlations(blocks, data, [np.arange(len(b))[None] for b in blocks])
            means = point.mean(axis=0)[0]
            for i, fisher in enumerate(FISHERS):
                low, high = percentile_interval(drawn[:, i], method="linear")
                lead_low, lead_high = percentile_interval(
                    drawn[:, i] - drawn[:, 0], method="linear"
                )
                rows.append(
                    {
                        "model": model, "moves": kind, "data": data, "fisher": fisher,
                        "spearman": means[i], "low": low, "high": high,
                        "lead": means[i] - means[0], "lead_low": lead_low, "lead_high": lead_high,
                        "blocks": len(blocks), "count": sum(map(len, blocks)),
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)


def _drawn(blocks: list[pd.DataFrame], data: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """Mean correlation in every draw, shape (draws, curvatures)."""
    picks = [rng.integers(len(block), size=(DRAWS, len(block))) for block in blocks]
    values = _correlations(blocks, data, picks)
    chosen = rng.integers(len(blocks), size=(len(blocks), DRAWS))
    drawn: NDArray[np.float64] = values[chosen, np.arange(DRAWS)].mean(axis=0)
    return drawn


def _correlations(
    blocks: list[pd.DataFrame], data: str, picks: list[NDArray[np.intp]]
) -> NDArray[np.float64]:
    """Spearman's correlation of each block, draw and curvature, shape (blocks, draws, 3)."""
    return np.stack(
        [
            np.stack(
                [
                    _pearson(
                        rankdata(block[fisher].to_numpy()[pick], axis=1),
                        rankdata(block[data].to_numpy()[pick], axis=1),
                    )
                    for fisher in FISHERS
                ],
                axis=1,
            )
            for block, pick in zip(blocks, picks, strict=True)
        ]
    )


def _pearson(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    a, b = (values - values.mean(axis=1, keepdims=True) for values in (a, b))
    product = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    # A draw of equal values ranks nothing.
    return np.divide((a * b).sum(axis=1), product, out=np.zeros(len(a)), where=product > 0)


def quality(name: str, case: Case, seed: int, fisher: Curvature) -> dict[str, Any]:
    """One run of the loop and what it came to."""
    loaded = load_model(name)
    samples = load_samples(loaded, count=8192 + 2048)
    tests = load_samples(loaded, part="evaluation", count=None)
    options: dict[str, Any] = {"batch_size": 2048}
    if fisher == "exact":
        options |= case.exact
    start = time.perf_counter()
    pruner = Pruner(
        loaded, samples[:8192], heldout=samples[8192:], density=case.density, fisher=fisher,
        seed=seed, progress=False, **options,
    )  # fmt: skip
    pruner.run(10_000, time_limit=case.seconds)
    seconds = time.perf_counter() - start
    found = evaluate(loaded.model, tests, batch_size=500, progress=False)
    offered = sum(record.offered for record in pruner.steps)
    return {
        "model": name, "fisher": fisher, "seed": seed, "density": case.density,
        "seconds": seconds, "steps": len(pruner.steps), "loss": found.loss,
        "accuracy": found.accuracy, "touched": pruner.touched,
        "accepted": sum(record.swaps for record in pruner.steps) / max(1, offered),
    }  # fmt: skip


def main() -> None:
    """One of the two questions, or both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("ranking", "quality"))
    parser.add_argument("--models", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--out", type=Path, default=Path("results/curvature"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    paths = {part: given.out / f"{part}.csv" for part in ("moves", "ranking", "quality")}
    if given.part == "ranking":
        table = _kept(paths["moves"], given.models)
        for name in given.models:
            table = pd.concat([table, moves(name, CASES[name])], ignore_index=True)
            table.to_csv(paths["moves"], index=False, float_format="%.8g")
        ranking(table).to_csv(paths["ranking"], index=False, float_format="%.4g")
        print(ranking(table).round(3).to_string())
    else:
        table = _kept(paths["quality"], given.models)
        for name in given.models:
            # Unmeasured: kernels are compiled once a machine, not once a run.
            quality(name, Case(**{**vars(CASES[name]), "seconds": 1.0}), SEEDS, "position")
            for seed in range(SEEDS):
                for fisher in FISHERS:
                    row = quality(name, CASES[name], seed, fisher)
                    table = pd.concat([table, pd.DataFrame([row])], ignore_index=True)
                    table.to_csv(paths["quality"], index=False, float_format="%.6g")
        print(table.to_string())
    if paths["ranking"].exists() and paths["quality"].exists():
        drawing = figure(pd.read_csv(paths["ranking"]), pd.read_csv(paths["quality"]))
        palette.save(drawing, given.out, "curvature")


def _kept(path: Path, models: list[str]) -> pd.DataFrame:
    """What is known of the models that are not measured now."""
    table = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=["model"])
    return table[~table["model"].isin(models)]


if __name__ == "__main__":
    main()
