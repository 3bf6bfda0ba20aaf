"""Where a step of the loop spends its time, and how near its passes come to the machine's limit.

Steps on all layers of a model after the usual first mask, `icbs prune`'s settings; the warm-up is a
step on the last layer. Stages are those of the step's record: forward and backward pass, select
(with the mean gradient), build, solve, and the gate (held-out loss, swaps put in and taken back).

The two passes are judged by their matrix products alone. Each prunable layer of P weights takes
``2 P`` floating-point operations a token forward and ``2 P`` backward, for the gradient of its
input, and so does the head; gradients of weights are not made there (the mean gradient, another
``2 P``, is part of select). Attention's own products and everything elementwise count as nothing.
The machine's throughput is what the same products reach alone, shape by shape, in the same process
right after the steps.

    python -m experiments.benchmarks.loop --out results/pruning/stages.csv
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from icbs.data.loading import load_samples
from icbs.loop.pruner import Pruner
from icbs.models.loading import LoadedModel, load_model
from icbs.models.prunable import layer_weight, prunable_layers
from icbs.models.tasks import TASKS

STAGES = {
    "forward and backward": ("capture",),
    "select": ("select",),
    "build": ("build",),
    "solve": ("solve",),
    "gate": ("apply", "measure"),
}
ROUNDS = 3


def products(loaded: LoadedModel) -> Counter[tuple[int, int]]:
    """How many prunable layers and heads there are of each shape (out, in)."""
    layers = prunable_layers(loaded.model)
    shapes = Counter(tuple(layer_weight(layer).shape) for layer in layers.values())
    head = loaded.model.get_output_embeddings()
    if head is not None:
        shapes[tuple(head.weight.shape)] += 1
    return shapes


def product_seconds(shapes: Counter[tuple[int, int]], tokens: int) -> float:
    """Seconds of all products of a forward and a backward pass, each alone, medians of rounds."""
    total = 0.0
    for (outs, ins), count in shapes.items():
        W, x, d = torch.randn(outs, ins), torch.randn(tokens, ins), torch.randn(tokens, outs)
        spent = []
        for _ in range(ROUNDS + 1):
            start = time.perf_counter()
            torch.nn.functional.linear(x, W)
            d @ W
            spent.append(time.perf_counter() - start)
        # The first round warms up.
        total += count * statistics.median(spent[1:])
    return total


def measured(loaded: LoadedModel, steps: int, **options: Any) -> pd.DataFrame:
    """One row a stage: seconds a step, and of the passes what they reach."""
    size, held = options["batch_size"], TASKS[loaded.task].usual(None)[1]
    samples = load_samples(loaded, count=steps * size + held)
    data = {"heldout": samples[:held], "progress": False, **options}
    last = list(prunable_layers(loaded.model))[-1]
    warm = Pruner(loaded, samples[held:], layers=last, **data)
    warm.run(1)
    warm.restore()
    run = Pruner(loaded, samples[held:], **data)
    records = run.run(steps)
    seconds = {
        stage: statistics.fmean(sum(r.seconds[name] for name in names) for r in records)
        for stage, names in STAGES.items()
    }
    shapes = products(loaded)
    tokens = size * samples.positions
    operations = 4 * tokens * sum(outs * ins * count for (outs, ins), count in shapes.items())
    alone = product_seconds(shapes, tokens)
    total = sum(seconds.values())
    table = pd.DataFrame(
        {
            "model": loaded.name,
            "layers": len(run.layers),
            "tokens": tokens,
            "steps": len(records),
            "threads": torch.get_num_threads(),
            "stage": list(seconds),
            "seconds": list(seconds.values()),
            "share": [value / total for value in seconds.values()],
        }
    )
    passes = table["stage"] == "forward and backward"
    reached = operations / seconds["forward and backward"]
    table.loc[passes, "gflop"] = operations / 1e9
    table.loc[passes, "gflop_per_s"] = reached / 1e9
    table.loc[passes, "products_alone_gflop_per_s"] = operations / alone / 1e9
    table.loc[passes, "throughput_share"] = alone / seconds["forward and backward"]
    return table


def main() -> None:
    """Prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--density", type=float, default=0.5)
    parser.add_argument("--out", type=Path, default=Path("results/pruning/stages.csv"))
    given = parser.parse_args()
    table = measured(
        load_model(given.model), given.steps, batch_size=given.batch_size, density=given.density
    )
    table.to_csv(given.out, index=False, float_format="%.5g")
    print(table.T.to_string())


if __name__ == "__main__":
    main()
