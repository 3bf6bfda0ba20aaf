"""Packages that are not in the portfolio, measured against those that are.

OpenJij (simulated and simulated quantum annealing) and simulated-bifurcation, each behind
`PenaltyComposite` like every penalised solver: same penalty, same greedy repair, 10 reads of 1000
sweeps (steps). Beside them the registry's `neal` and `ocean-tabu`, the repair-only control `random`
and the native `annealing`. Every block is taken as it is and with H times 1000, its variables
permuted, nobody told the current mask; solvers take turns, medians over the seeds. The gap is to
the best energy of all, as a share of the way from there to the mean mask. Seconds are of the whole
call: conversion, search, repair. In an environment of its own, since the project does not depend on
them:

    pip install openjij simulated-bifurcation
    python -m experiments.benchmarks.candidates --out results/solvers 'blocks/*-n1024-*'
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from glob import glob
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dimod
import numpy as np
import openjij
import pandas as pd
import simulated_bifurcation
import torch

from experiments.benchmarks.solvers import mean_energy
from experiments.record import host
from solvers import Budget, CardinalityProblem, load, make
from solvers.penalised.penalty import PenaltyComposite

READS, SWEEPS = 10, 1000
CURVATURES = (1, 1000)


class Bifurcation(dimod.Sampler):
    """Simulated bifurcation as a dimod sampler; one agent a read."""

    properties: dict[str, Any] = {}  # noqa: RUF012
    parameters: dict[str, Any] = {"num_reads": [], "num_sweeps": [], "seed": []}  # noqa: RUF012

    def __init__(self, mode: str) -> None:
        self.mode = mode

    def sample(
        self, bqm: dimod.BinaryQuadraticModel, *, num_reads: int, num_sweeps: int, seed: int
    ) -> dimod.SampleSet:
        """Minimises ``x'Qx + c.x`` over {0, 1}."""
        torch.manual_seed(seed)
        order = sorted(bqm.variables)
        linear, (rows, columns, biases), offset = bqm.to_numpy_vectors(variable_order=order)
        Q = torch.zeros((len(order), len(order)), dtype=torch.float32)
        Q[rows, columns] = torch.as_tensor(biases, dtype=torch.float32)
        states, _ = simulated_bifurcation.minimize(
            Q, torch.as_tensor(linear, dtype=torch.float32), float(offset),
            domain="binary", agents=num_reads, max_steps=num_sweeps, mode=self.mode,
            best_only=False, early_stopping=False, verbose=False,
        )  # fmt: skip
        found = np.atleast_2d(states.numpy()).astype(np.int8)
        return dimod.SampleSet.from_samples_bqm((found, order), bqm)


class OpenJij(dimod.Sampler):
    """One of OpenJij's samplers with its unused keywords left out."""

    properties: dict[str, Any] = {}  # noqa: RUF012
    parameters: dict[str, Any] = {"num_reads": [], "num_sweeps": [], "seed": []}  # noqa: RUF012

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler

    def sample(self, bqm: dimod.BinaryQuadraticModel, **keywords: Any) -> dimod.SampleSet:
        """As the wrapped sampler, given a dense model."""
        found = self.sampler.sample(bqm, sparse=False, **keywords)
        return dimod.SampleSet.from_samples_bqm(
            (found.record.sample.astype(np.int8), list(found.variables)), bqm
        )


def contestants() -> dict[str, Any]:
    """Name -> sampler."""
    known = {name: make(name) for name in ("random", "neal", "ocean-tabu", "annealing")}
    others = {
        "openjij-sa": OpenJij(openjij.SASampler()),
        "openjij-sqa": OpenJij(openjij.SQASampler()),
        "bifurcation-ballistic": Bifurcation("ballistic"),
        "bifurcation-discrete": Bifurcation("discrete"),
    }
    return known | {name: PenaltyComposite(child, name=name) for name, child in others.items()}


def problems(patterns: list[str]) -> Iterator[tuple[dict[str, Any], CardinalityProblem]]:
    """What it is, and the problem with its variables permuted."""
    rng = np.random.default_rng(0)
    for path in sorted(path for pattern in patterns for path in glob(pattern)):  # noqa: PTH207
        block = load(path)
        assert block.factor is not None
        for curvature in CURVATURES:
            problem = replace(block, factor=block.factor * np.sqrt(curvature)).permuted(rng)
            about = {"fisher": block.meta["fisher"], "n": block.n, "rank": block.rank,
                     "curvature": curvature}  # fmt: skip
            yield about, problem.blinded()


def compare(problem: CardinalityProblem, seeds: int) -> pd.DataFrame:
    """A row a contestant and seed."""
    rows = []
    budget = Budget(reads=READS, sweeps=SWEEPS)
    for seed in range(seeds + 1):
        for name, sampler in contestants().items():
            start = time.perf_counter()
            found = sampler.sample_problem(problem, budget=budget, seed=seed)
            wall = time.perf_counter() - start
            raw = found.record.raw_sample if "raw_sample" in found.record.dtype.names else None
            feasible = 1.0
            if raw is not None:
                kept = raw.sum(axis=1) == problem.cardinality
                feasible = float(np.average(kept, weights=found.record.num_occurrences))
            rows.append({"solver": name, "seed": seed, "seconds": wall, "raw_feasible": feasible,
                         "energy": float(found.record.energy.min())})  # fmt: skip
    frame = pd.DataFrame(rows)
    best = frame["energy"].min()
    frame["gap"] = (frame["energy"] - best) / (mean_energy(problem) - best)
    # The first round warms up.
    return frame[frame["seed"] > 0]


def main() -> None:
    """Runs, writes ``candidates.csv``, prints the medians."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("blocks", nargs="+", help="globs of container files")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True, help="folder of candidates.csv")
    given = parser.parse_args()
    frames = []
    for about, problem in problems(given.blocks):
        part = compare(problem, given.seeds).assign(**about, load=host.load_average())
        frames.append(part)
        shown = part.groupby("solver", sort=False)[["seconds", "raw_feasible", "gap"]].median()
        print(about, shown.to_string(float_format="%.3g"), sep="\n", flush=True)
    packages = " ".join(f"{name} {version(name)}" for name in ("openjij", "simulated-bifurcation"))
    table = pd.concat(frames).assign(packages=packages)
    given.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(given.out / "candidates.csv", index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
