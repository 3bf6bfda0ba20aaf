"""The 100 lowest states of block-removal instances, with proof, against enumeration.

Which M parts of a model can go (arXiv 2602.00161)? Each of N parts adds its output to the residual
stream; without the parts that x marks, and to first order, the stream loses the sum of their
outputs, whose power is x'Hx with ``H_ij`` the mean inner product of the outputs of parts i and j
over calibration tokens, as a share of the stream's own power. Parts of SmolLM2:

* N = 32: attention and MLP of the first 16 layers;
* N = 80: of the first 20 layers the MLP and three groups of attention heads, those that share keys.

    python -m experiments.benchmarks.lowest --out results/solvers/lowest.csv
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from icbs.data.loading import load_samples
from icbs.models.loading import load_model
from solvers import CardinalityProblem
from solvers.exact.lowest import lowest
from solvers.problem import Floats

COUNT = 100
WINDOWS, LENGTH = 16, 256
# Layers and groups of heads, and how many parts are to go.
CASES = {32: (16, 1, (4, 8, 12)), 80: (20, 3, (5, 10, 20))}


def outputs(layers: int, groups: int) -> Floats:
    """H of the parts of the first layers, shape (N, N), attention first in each layer.

    Args:
        layers: how many.
        groups: into which the heads of each layer are taken apart.
    """
    torch.set_num_threads(2)
    loaded = load_model("smollm2")
    samples = load_samples(loaded, count=WINDOWS, length=LENGTH)
    blocks = list(loaded.model.get_decoder().layers)[:layers]
    parts: list[torch.Tensor] = []
    last: list[torch.Tensor] = []

    def attention(module: Any, inputs: Any) -> None:
        heads = inputs[0].detach().flatten(0, -2)
        width = heads.shape[1] // groups
        for start in range(0, heads.shape[1], width):
            own = slice(start, start + width)
            parts.append((heads[:, own] @ module.weight[:, own].T).double())

    def mlp(module: Any, inputs: Any, output: Any) -> None:
        parts.append(output.detach().flatten(0, -2).double())

    def stream(module: Any, inputs: Any, output: Any) -> None:
        found = output[0] if isinstance(output, tuple) else output
        last.append(found.detach().flatten(0, -2).double())

    for block in blocks:
        block.self_attn.o_proj.register_forward_pre_hook(attention)
        block.mlp.register_forward_hook(mlp)
    blocks[-1].register_forward_hook(stream)
    H, power = np.zeros((layers * (groups + 1),) * 2), 0.0
    with torch.inference_mode():
        for window in range(WINDOWS):
            parts.clear()
            last.clear()
            loaded.model(input_ids=samples.inputs[window : window + 1])
            flat = torch.stack(parts).flatten(1)
            H += (flat @ flat.T).numpy()
            power += float((last[0] ** 2).sum())
    return H / power


def enumerated(problem: CardinalityProblem, count: int) -> Floats:
    """The lowest energies of all states, rising, by looking at each."""
    n, k = problem.n, problem.cardinality
    best = np.full(count, np.inf)
    chosen = itertools.combinations(range(n), k)
    while batch := list(itertools.islice(chosen, 200_000)):
        states = np.zeros((len(batch), n), dtype=np.bool_)
        np.put_along_axis(states, np.array(batch), True, axis=1)
        energies = problem.energy(states)
        if len(energies) > count:
            energies = np.partition(energies, count)[:count]
        best = np.sort(np.concatenate([best, energies]))[:count]
    return best


def runs(limit: float) -> Iterator[dict[str, Any]]:
    """A line an instance."""
    for n, (layers, groups, removed) in CASES.items():
        H = outputs(layers, groups)
        assert len(H) == n
        for ones in removed:
            problem = CardinalityProblem(linear=np.zeros(n), cardinality=ones, quadratic=2 * H)
            load, began = os.getloadavg()[0], time.perf_counter()
            found = lowest(problem, COUNT, time_limit=limit)
            line = {
                "n": n, "removed": ones, "condition": np.linalg.cond(H),
                "first": found.energies[0], "last": found.energies[-1],
                "bound": found.lower_bound, "proved": found.proved, "nodes": found.nodes,
                "seconds": time.perf_counter() - began, "load": load,
            }  # fmt: skip
            if n <= 32 and ones <= 8:
                began = time.perf_counter()
                every = enumerated(problem, COUNT)
                line["enumeration_seconds"] = time.perf_counter() - began
                line["worst_difference"] = np.abs(every - found.energies).max() / every[-1]
            yield line


def main() -> None:
    """Prints and writes the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--limit", type=float, default=600.0, help="seconds an instance")
    options = parser.parse_args()
    lines = []
    for line in runs(options.limit):
        lines.append(line)
        print(", ".join(f"{key} {value:.4g}" for key, value in line.items()), flush=True)
    if options.out is not None:
        pd.DataFrame(lines).to_csv(options.out, index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
