"""Certified gaps of the semidefinite bound and proofs of `exact` on rows of a real layer.

Rows of layers of SmolLM2: the output error of a row with half of its weights pruned, H from
calibration windows. By default parts of them: *fixed*, n variables near Wanda's threshold with the
others as Wanda has them, and *alone*, n random columns, half of them pruned, without the others.
Every certificate is verified again, and gaps are to the best energy that a run found.

    python -m experiments.benchmarks.certificates --out results/solvers/certificates.csv
    python -m experiments.benchmarks.certificates --full --seconds 60   # whole rows
    python -m experiments.benchmarks.certificates --qplib 'QPLIB_*.opb'
"""

from __future__ import annotations

import argparse
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from icbs.data.loading import load_samples
from icbs.models.loading import load_model
from solvers import Budget, CardinalityProblem, make
from solvers.clock.deadline import Deadline
from solvers.exact.certificate import verify
from solvers.exact.lowest import lowest
from solvers.exact.semidefinite import bound

LAYERS = (
    "model.layers.0.self_attn.q_proj",
    "model.layers.15.mlp.up_proj",
    "model.layers.29.self_attn.o_proj",
)
WINDOWS, LENGTH = 64, 256
# Part sizes, and seconds for the bound of each.
SECONDS = {64: 2.0, 128: 10.0}
QPLIB_ONES = {"QPLIB_3834": 10, "QPLIB_0633": 15}


def rows(count: int, seed: int = 0) -> Iterator[tuple[str, CardinalityProblem]]:
    """Rows of the layers: energy is the share of the row's output power that is lost."""
    torch.set_num_threads(2)
    loaded = load_model("smollm2")
    samples = load_samples(loaded, count=WINDOWS, length=LENGTH)
    modules = dict(loaded.model.named_modules())
    H: dict[str, Any] = {}

    def watch(name: str) -> Any:
        def hook(module: Any, inputs: Any) -> None:
            X = inputs[0].detach().reshape(-1, inputs[0].shape[-1]).double()
            H[name] = H.get(name, 0) + X.T @ X

        return hook

    hooks = [modules[name].register_forward_pre_hook(watch(name)) for name in LAYERS]
    with torch.no_grad():
        for tokens in samples.inputs.split(8):
            loaded.model(input_ids=tokens)
    for hook in hooks:
        hook.remove()
    rng = np.random.default_rng(seed)
    for name in LAYERS:
        W = modules[name].weight.detach().double().numpy()
        for row in rng.choice(len(W), count, replace=False):
            w = W[row]
            G = 2 * H[name].numpy() * np.outer(w, w)
            G /= 0.5 * G.sum()
            n = len(w)
            wanda = np.argsort(G.diagonal()) < 0
            wanda[np.argsort(G.diagonal())[: n // 2]] = True
            problem = CardinalityProblem(
                linear=np.zeros(n), cardinality=n // 2, quadratic=(G + G.T) / 2, initial=wanda
            )
            yield f"{name.removeprefix('model.layers.')}/{row}", problem.permuted(rng)


def parts(problem: CardinalityProblem, n: int) -> dict[str, CardinalityProblem]:
    """Two problems of n variables in a row."""
    d = problem.diagonal
    threshold = np.sort(d)[problem.cardinality]
    near = np.sort(np.argsort(np.abs(np.log((d + 1e-300) / threshold)))[:n])
    some = slice(0, n)
    assert problem.quadratic is not None
    alone = CardinalityProblem(
        linear=np.zeros(n), cardinality=n // 2, quadratic=problem.quadratic[some, some]
    )
    return {"fixed": problem.restricted(near).blinded(), "alone": alone}


def measured(name: str, problem: CardinalityProblem, seconds: float, proof: bool) -> list[dict]:
    """The bound at a time limit, then the proof if wanted."""
    about = {"instance": name, "n": problem.n, "cardinality": problem.cardinality}
    load = os.getloadavg()[0]
    start = time.perf_counter()
    found = bound(problem, Deadline(seconds))
    spent = time.perf_counter() - start
    proved = -np.inf if found.certificate is None else verify(problem, found.certificate)
    table = [
        about
        | {"task": "bound", "seconds": spent, "energy": float(problem.energy(found.state)),
           "lower_bound": found.lower + problem.offset, "verified": proved, "load": load}
    ]  # fmt: skip
    if proof:
        start = time.perf_counter()
        samples = make("exact").sample_problem(problem, budget=Budget(time_limit=60), seed=0)
        spent = time.perf_counter() - start
        table.append(
            about
            | {"task": "proof", "seconds": spent, "energy": float(samples.first.energy),
               "lower_bound": samples.info["lower_bound"], "nodes": samples.info["nodes"],
               "proved": samples.info["proved_optimal"], "load": load}
        )  # fmt: skip
    for row in table:
        print("  ".join(f"{k} {v:.6g}" if isinstance(v, float) else f"{v}" for k, v in row.items()))
    return table


def public(path: Path) -> CardinalityProblem:
    """A QPLIB instance in pseudo-Boolean form, its one constraint left out for its known k."""
    text = path.read_text(encoding="ascii")
    n = int(re.findall(r"#variable= (\d+)", text)[0])
    Q, c = np.zeros((n, n)), np.zeros(n)
    for number, names in re.findall(r"([+-]\d+)((?: x\d+)+)", text.split("min:")[1].split(";")[0]):
        places = [int(word[1:]) - 1 for word in names.split()]
        if len(places) == 1:
            c[places[0]] += float(number)
        else:
            Q[places[0], places[1]] += float(number)
    return CardinalityProblem(linear=c, cardinality=QPLIB_ONES[path.stem], quadratic=Q + Q.T)


def main() -> None:
    """Runs and prints."""
    parser = argparse.ArgumentParser(description="Certified gaps and proofs on rows.")
    parser.add_argument("--count", type=int, default=3, help="rows a layer")
    parser.add_argument("--full", action="store_true", help="whole rows, no parts")
    parser.add_argument("--seconds", type=float, default=60.0, help="for the bound of a whole row")
    parser.add_argument("--qplib", nargs="*", default=[], help="QPLIB files in OPB form")
    parser.add_argument("--out", type=Path, help="CSV to add to")
    arguments = parser.parse_args()
    make("semidefinite").warm_up(dense=True)
    make("exact").warm_up(dense=True)
    table: list[dict] = []
    for path in map(Path, arguments.qplib):
        problem = public(path)
        table += measured(path.stem, problem, 10.0, proof=True)
        start = time.perf_counter()
        found = lowest(problem, 100, time_limit=120)
        table.append(
            {"instance": path.stem, "n": problem.n, "cardinality": problem.cardinality,
             "task": "lowest 100", "seconds": time.perf_counter() - start, "proved": found.proved,
             "energy": float(found.energies[-1]), "lower_bound": found.lower_bound,
             "nodes": found.nodes, "load": os.getloadavg()[0]}
        )  # fmt: skip
        print(table[-1])
    if not arguments.qplib:
        for name, row in rows(arguments.count):
            if arguments.full:
                table += measured(name, row.blinded(), arguments.seconds, proof=False)
                continue
            for n, seconds in SECONDS.items():
                for kind, part in parts(row, n).items():
                    table += measured(f"{name}/{kind}", part, seconds, proof=True)
    frame = pd.DataFrame(table)
    single = frame["energy"].where(frame["task"] != "lowest 100")
    known = single.groupby([frame["instance"], frame["n"]]).transform("min")
    frame["gap"] = ((known - frame["lower_bound"]) / known.abs()).where(single.notna())
    print(frame.groupby(["task", "n"])[["seconds", "gap"]].median())
    if arguments.out:
        if arguments.out.exists():
            frame = pd.concat([pd.read_csv(arguments.out), frame], ignore_index=True)
        frame.to_csv(arguments.out, index=False, float_format="%.9g")


if __name__ == "__main__":
    main()
