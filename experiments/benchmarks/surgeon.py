"""Ridges of one-shot CBS: why `icbs.baselines.surgeon` decides between some of them in every run.

For each model, density and ridge the model is pruned from `COUNT` training images as `icbs
baselines` does, and its loss is measured on `HELDOUT` others; the test images stay out of it. Run:
``python -m experiments.benchmarks.surgeon --out results/pruning/ridge.csv``
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import pandas as pd

from icbs.baselines.surgeon import prune_by_surgeon
from icbs.data.loading import load_samples
from icbs.evaluation.quality import evaluate
from icbs.models.loading import load_model
from icbs.models.prunable import prunable_layers

# All that `icbs baselines` gives its methods by default, and then others.
COUNT, HELDOUT = 8192, 4096
# In units of the mean of the Fisher's diagonal.
RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
CASES = {"vit-fashion": (0.5, 0.3, 0.2), "garment-mlp": (0.2, 0.1, 0.05)}


def run(name: str, density: float, ridge: float) -> dict[str, object]:
    """One pruning and its loss on the images held out."""
    loaded = load_model(name)
    samples = load_samples(loaded, count=COUNT + HELDOUT)
    start = time.perf_counter()
    layers = prunable_layers(loaded.model)
    prune_by_surgeon(loaded.model, layers, samples[:COUNT], density, ridges=[ridge])
    seconds = time.perf_counter() - start
    found = evaluate(loaded.model, samples[COUNT:], batch_size=512, progress=False)
    return {
        "model": name,
        "density": density,
        "ridge": ridge,
        "loss": found.loss,
        "accuracy": found.accuracy,
        "seconds": seconds,
    }


def main() -> None:
    """Every model, density and ridge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/pruning/ridge.csv"))
    given = parser.parse_args()
    rows = []
    for name, densities in CASES.items():
        for density in densities:
            for ridge in RIDGES:
                rows.append(run(name, density, ridge))
                pd.DataFrame(rows).to_csv(given.out, index=False, float_format="%.6g")
                print(rows[-1])
    table = pd.DataFrame(rows)
    print(table.pivot_table(index=["model", "density"], columns="ridge", values="loss").round(4))


if __name__ == "__main__":
    main()
