"""QAOA in rounds beside one circuit: the same reads in all, on rows and 2:4 rows.

For each instance, mixer and number of rounds: how often the best of all shots is the optimum (which
enumeration proves) over the seeds, and the mean energy of a shot as an approximation ratio. No
noise, one layer, transferred angles.

    python -m experiments.scripts.qaoa_rounds --out results/qaoa/rounds.csv
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.instances.library.reading import problem, table
from experiments.metrics.formulas import approximation_ratio
from experiments.record.hardness import random_energy
from solvers import Budget, make
from solvers.qaoa.subspace import SubspaceQAOA

NAMES = ("ladder/*-n12", "ladder/*-n16", "patterns/*2of4-n16")
READS, SEEDS = 64, 20


def lines() -> Iterator[dict[str, Any]]:
    """A line an instance, mixer and number of rounds."""
    for entry in table():
        if not any(Path(entry.name).match(name) for name in NAMES):
            continue
        whole = problem(entry)
        optimum = float(make("enumerate").sample_problem(whole.blinded()).first.energy)
        floor = random_energy(whole)
        for mixer in ("ring", "complete"):
            for rounds in (1, 2, 4):
                found = [
                    SubspaceQAOA().sample_problem(
                        whole.blinded(), seed=seed, budget=Budget(reads=READS), mixer=mixer,
                        depth=1, rounds=rounds, angles="transferred",
                    ).record.energy
                    for seed in range(SEEDS)
                ]  # fmt: skip
                best = np.array([energies.min() for energies in found])
                mean = float(np.mean([energies.mean() for energies in found]))
                yield {
                    "instance": entry.name, "n": entry.n, "mixer": mixer, "rounds": rounds,
                    "optimum_found": np.mean(best <= optimum + 1e-9 * abs(floor - optimum)),
                    "ratio": approximation_ratio(mean, optimum, floor),
                }  # fmt: skip


def main() -> None:
    """Prints and writes the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found = pd.DataFrame(lines())
    print(found.groupby(["n", "mixer", "rounds"])[["optimum_found", "ratio"]].mean())
    if options.out is not None:
        found.to_csv(options.out, index=False, float_format="%.5g")


if __name__ == "__main__":
    main()
