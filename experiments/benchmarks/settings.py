"""Every setting of the loop, and every option of `Pruner`, varied alone on the perceptron.

`STEPS` steps from the first mask, `SEEDS` run a value, everything but the named setting as in
`BASE`; steps are counted, not seconds, so that the table does not depend on the machine's load.
Values that only make sense together with another (`layers_per_step` with a schedule, a density with
a pattern) name both. Runs are interleaved by seed. Run:
``python -m experiments.benchmarks.settings --out results/pruning/settings.csv``
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pandas as pd

from icbs.data.loading import load_samples
from icbs.evaluation.quality import evaluate
from icbs.loop.pruner import Pruner
from icbs.models.loading import load_model

MODEL = "garment-mlp"
STEPS = 8
SEEDS = 1
TUNING_STEPS = 20
COUNT, HELDOUT = 2000, 1000
BASE: dict[str, Any] = {"density": 0.1, "fisher": "position", "batch_size": 500}
# One line a setting: the values that it takes instead of the base's.
VARIED: dict[str, list[dict[str, Any]]] = {
    "density": [{"density": 0.2}, {"density": 0.05}],
    "pattern": [{"density": 0.5}, {"density": 0.5, "pattern": "2:4"}],
    "block_size": [{"block_size": 0.005}, {"block_size": 0.05}, {"block_size": 1024}],
    "k": [{"block_size": 1024, "k": 512}],
    "fisher": [{"fisher": "sequence"}],
    "rank": [{"rank": 64}, {"rank": None}],
    "gamma": [{"gamma": 0.0}, {"gamma": 0.5}],
    "damping": [{"damping": 0.0}, {"damping": 100.0}, {"damping": 10_000.0}],
    "lam": [{"damping": 0.0, "lam": 1e-4}, {"damping": 0.0, "lam": 1e-2}],
    "momentum": [{"momentum": 0.0}, {"momentum": 0.9}],
    "init": [{"init": "magnitude"}, {"init": "gradient"}, {"init": "random"}],
    "group": [{"group": "layer"}, {"group": "input"}],
    "select": [{"select": "wanda"}, {"select": "magnitude"}, {"select": "random"}],
    "schedule": [
        {"layers_per_step": 1},
        {"layers_per_step": 1, "schedule": "size"},
        {"layers_per_step": 1, "schedule": "gain"},
    ],
    "carry": [{"carry": False}],
    "tabu": [{"tabu": 0.1}, {"tabu": 0.5}],
    "fixed_kept": [{"fixed_kept": 0.2}, {"fixed_kept": 0.5}],
    "fixed_pruned": [{"fixed_pruned": 0.2}, {"fixed_pruned": 0.5}],
    "batch_size": [{"batch_size": 250}, {"batch_size": 1000}],
    "mixed_precision": [{"mixed_precision": True}],
    "tuning_batch_size": [{"tuning_batch_size": None}, {"tuning_batch_size": 100}],
}
# The same of what is no setting: of the gate, of the tuning and of the refit after the steps.
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "gate": [{"gate": False}],
    "tune": [{"rate": 2e-4}, {"rate": 6e-4}, {"rate": 2e-3}, {"labels": 0.5}],
    "refit": [{"ridge": 0.01}, {"ridge": 0.1}, {"ridge": 1.0}],
}


def run(setting: str, changed: dict[str, Any], seed: int) -> dict[str, Any]:
    """One run and what it came to on the test images."""
    values = json.dumps(changed)
    loaded = load_model(MODEL)
    samples = load_samples(loaded, count=COUNT + HELDOUT)
    changed = dict(changed)
    tuned = {name: changed.pop(name) for name in ("rate", "labels") if name in changed}
    refitted = {name: changed.pop(name) for name in ("ridge",) if name in changed}
    tests = load_samples(loaded, part="evaluation", count=None)
    pruner = Pruner(
        loaded,
        samples[:COUNT],
        heldout=samples[COUNT:],
        seed=seed,
        progress=False,
        **{**BASE, **changed},
    )
    pruner.initialise()
    first = evaluate(loaded.model, tests, batch_size=1000, progress=False)
    pruner.run(STEPS)
    if tuned or "tuning_batch_size" in changed:
        pruner.tune(TUNING_STEPS, **tuned)
    if refitted:
        pruner.refit(**refitted)
    last = evaluate(loaded.model, tests, batch_size=1000, progress=False)
    offered = sum(record.offered for record in pruner.steps)
    return {
        "setting": setting,
        "values": values,
        "seed": seed,
        "data": samples.source,
        "density": pruner.density,
        "first_loss": first.loss,
        "loss": last.loss,
        "accuracy": last.accuracy,
        "heldout_loss": pruner.gate.loss,
        "touched": pruner.touched,
        "accepted": sum(record.swaps for record in pruner.steps) / max(1, offered),
    }


def main() -> None:
    """Every value and seed, the base first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/pruning/settings.csv"))
    out = parser.parse_args().out
    varied: dict[str, list[dict[str, Any]]] = {"base": [{}], **VARIED, **OPTIONS}
    cases = [(name, values) for name, all_ in varied.items() for values in all_]
    rows = []
    for seed in range(SEEDS):
        for setting, changed in cases:
            rows.append(run(setting, changed, seed))
            print({key: rows[-1][key] for key in ("values", "seed", "loss", "accuracy")})
        # What is there is worth having if the rest is stopped.
        pd.DataFrame(rows).to_csv(out, index=False, float_format="%.5g")
    table = pd.DataFrame(rows)
    columns = ["first_loss", "loss", "accuracy", "accepted"]
    print(table.groupby(["setting", "values"], sort=False)[columns].median().round(4).to_string())


if __name__ == "__main__":
    main()
