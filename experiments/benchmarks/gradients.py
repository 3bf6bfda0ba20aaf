"""Per-sample gradients at a block's indices: gathered from one backward pass, or by autograd.

The plain way differentiates one sample after another with respect to the layer's weight. Ours takes
one backward pass for all samples and contracts activations with output gradients at the block's
indices only. Rounds are interleaved, so that a busy machine slows both alike; medians are compared.

    python -m experiments.benchmarks.gradients --layer model.layers.15.mlp.up_proj
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from icbs.blocks.capture import Forward, LayerCapture, capture, frozen
from icbs.blocks.gradients import LayerGradients
from icbs.data.loading import token_windows
from icbs.data.samples import next_token
from icbs.models.loading import load_model


def by_autograd(model: nn.Module, layer: nn.Linear, tokens: torch.Tensor) -> torch.Tensor:
    """Gradients of each sample's mean-token loss, one backward a sample, shape (B, out * in)."""
    rows = []
    with frozen(model):
        layer.weight.requires_grad_(True)
        for row in tokens:
            logits = model(input_ids=row[None], use_cache=False).logits[0, :-1]
            loss = functional.cross_entropy(logits, row[1:])
            rows.append(torch.autograd.grad(loss, layer.weight)[0].flatten())
        layer.weight.requires_grad_(False)
    return torch.stack(rows)


def by_capture(
    forward: Forward, name: str, layer: nn.Linear, indices: torch.Tensor
) -> torch.Tensor:
    """The same at some indices, shape (B, n), from one backward for all samples."""
    _, seen = capture(forward, {name: layer})
    return LayerGradients(seen[name]).at(indices)


def given(captured: LayerCapture, indices: torch.Tensor) -> torch.Tensor:
    """The contraction alone, shape (B, n)."""
    return LayerGradients(captured).at(indices)


def timed(call: Callable[[], torch.Tensor]) -> tuple[float, torch.Tensor]:
    """Seconds and result of one call."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def main() -> None:
    """Runs the comparison and prints it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--layer", default="model.layers.15.mlp.up_proj")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 1024, 2048, 4096, 16384])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="torch's own choice if left out")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)

    loaded = load_model(arguments.model)
    layer = loaded.model.get_submodule(arguments.layer)
    tokens = token_windows(loaded.tokenizer, count=arguments.samples, length=arguments.length)
    chosen = {arguments.layer: layer}
    batch = next_token(tokens)
    kept = Forward(loaded.model, chosen, batch)
    _, seen = capture(kept, chosen)
    rng = np.random.default_rng(0)
    blocks = {
        n: torch.from_numpy(rng.choice(layer.weight.numel(), n, replace=False))
        for n in arguments.sizes
    }
    n = blocks[1024 if 1024 in blocks else arguments.sizes[0]]
    ways: dict[str, Callable[[], torch.Tensor]] = {
        "autograd, sample by sample": lambda: by_autograd(loaded.model, layer, tokens),
        "one backward, whole model": lambda: by_capture(
            Forward(loaded.model, chosen, batch), arguments.layer, layer, n
        ),
        "one backward, kept prefix": lambda: by_capture(kept, arguments.layer, layer, n),
        "whole layer, d' a": lambda: LayerGradients(seen[arguments.layer]).per_sample,
    }
    for size, indices in blocks.items():
        ways[f"block of {size}, given a and d"] = partial(given, seen[arguments.layer], indices)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    results: dict[str, torch.Tensor] = {}
    load_before = os.getloadavg()[0]
    for turn in range(arguments.rounds + 1):
        for name, call in ways.items():
            spent, results[name] = timed(call)
            if turn:  # the first round warms up
                seconds[name].append(spent)

    plain = results["autograd, sample by sample"]
    ours = results["one backward, kept prefix"]
    error = float((ours - plain[:, n]).norm() / plain[:, n].norm())
    worst = float((ours - plain[:, n]).abs().max() / plain[:, n].abs().max())
    print(
        f"{arguments.layer} {tuple(layer.weight.shape)}, {arguments.samples} x {arguments.length} "
        f"tokens, {torch.get_num_threads()} threads, median of {arguments.rounds} rounds, "
        f"load average {load_before:.1f} before, {os.getloadavg()[0]:.1f} after"
    )
    base = statistics.median(seconds["autograd, sample by sample"])
    for name, laps in seconds.items():
        median = statistics.median(laps)
        print(f"{name:34} {1e3 * median:9.1f} ms  {base / median:8.1f} x")
    print(f"against autograd: relative error {error:.1e} (Euclidean), {worst:.1e} (largest entry)")


if __name__ == "__main__":
    main()
