"""Whether solvers keep their word: proofs, time limits, Ctrl-C.

    python -m experiments.benchmarks.trust proofs [--count 10000] [--solvers exact,milp]
    python -m experiments.benchmarks.trust limits [--limits 0.2,1,10] [--solvers ...]
    python -m experiments.benchmarks.trust first  [--solvers ...]
    python -m experiments.benchmarks.trust interrupts [--solvers ...]

``proofs``: small problems whose numbers lie up to 16 orders of magnitude apart, against brute force
in extended precision. ``limits``: seconds of a call against its limit, on dense problems of 300,
2000 and 6000 variables (full rank, five columns of 1000 times the size), on a factor of rank 256,
and on a model without a cardinality. ``first``: the first call of a process under a limit of 0.1 s,
with an empty and with a filled cache of compiled code. ``interrupts``: seconds from Ctrl-C to the
end of the process. Every row is printed as it comes and written to ``results/trust/``.
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dimod
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from solvers import Budget, CardinalityProblem, make
from solvers.registry import SOLVERS

PROVERS = ("exact", "enumerate", "relaxation", "milp", "miqp")
FAMILIES = (
    "one column", "all columns", "columns and costs", "dense of columns", "one coupling",
    "dense indefinite", "costs", "offset", "cancelling", "tiny",
)  # fmt: skip
# A proof is false if a state is better by more than this share of the terms at the optimum.
SHARE = 1e-9
# Devices, and solvers that simulate circuits, take a handful of variables only.
SEARCHES = [
    name for name, known in SOLVERS.items() if not known.paid and not name.startswith("qaoa")
]
KINDS = ("dense 300", "dense 2000", "dense 6000", "heavy 2000", "rank 256", "bqm")
FOLDER = Path("results/trust")
FIRST_LIMIT = 0.1
WAIT_BEFORE = 1.5
HANG = 60.0


def mixed(seed: int) -> CardinalityProblem:
    """A problem of 5 to 12 variables whose numbers lie up to 16 orders of magnitude apart."""
    family = FAMILIES[seed % len(FAMILIES)]
    rng = np.random.default_rng([FAMILIES.index(family), seed])
    n = int(rng.integers(5, 13))
    A, c = rng.standard_normal((int(rng.integers(1, 2 * n)), n)), rng.standard_normal(n)
    G: NDArray[np.float64] | None = None
    offset = 0.0
    if family == "one column":
        A[:, rng.integers(n)] *= 10.0 ** rng.integers(1, 9)
    elif family in ("all columns", "dense of columns"):
        A *= 10.0 ** rng.uniform(-8, 8, n)
    elif family == "columns and costs":
        A, c = A * 10.0 ** rng.uniform(-8, 8, n), c * 10.0 ** rng.uniform(-8, 8, n)
    elif family == "one coupling":
        signs = np.triu(rng.choice([-1.0, 1.0], (n, n)), 1)
        i, j = sorted(rng.choice(n, 2, replace=False))
        signs[i, j] = rng.choice([-1, 1]) * 10.0 ** rng.integers(2, 12)
        G, c = signs + signs.T, np.round(c)
    elif family == "dense indefinite":
        d = 10.0 ** rng.uniform(-4, 4, n)
        G = rng.standard_normal((n, n)) * d * d[:, None]
        G = (G + G.T) / 2
    elif family == "costs":
        c *= 10.0 ** rng.uniform(-8, 8)
    elif family == "offset":
        offset = float(rng.choice([-1, 1]) * 10.0 ** rng.integers(3, 18))
    elif family == "cancelling":
        i, j = rng.choice(n, 2, replace=False)
        A[:, i] *= 10.0 ** rng.integers(3, 9)
        A[:, j] = rng.standard_normal(len(A)) - A[:, i]
    elif family == "tiny":
        A, c = A * 1e-8, c * 10.0 ** rng.uniform(-16, -8)
    if family == "dense of columns":
        G = A.T @ A
        G = (G + G.T) / 2
    k = int(rng.integers(1, n))
    if G is None:
        return CardinalityProblem(linear=c, cardinality=k, offset=offset, factor=A)
    return CardinalityProblem(linear=c, cardinality=k, offset=offset, quadratic=G)


def long_energies(problem: CardinalityProblem, states: NDArray[Any]) -> tuple[Any, Any]:
    """Energies without the offset, in extended precision, and the size of the terms of each."""
    x = states.astype(np.longdouble)
    if problem.factor is not None:
        half = 0.5 * ((x @ problem.factor.T.astype(np.longdouble)) ** 2).sum(axis=1)
    else:
        assert problem.quadratic is not None
        half = 0.5 * ((x @ problem.quadratic.astype(np.longdouble)) * x).sum(axis=1)
    linear = problem.linear.astype(np.longdouble)
    return half + x @ linear, np.abs(half) + x @ np.abs(linear)


def feasible_states(problem: CardinalityProblem) -> NDArray[np.bool_]:
    """All of them, shape (binomial(n, k), n)."""
    rows = list(itertools.combinations(range(problem.n), problem.cardinality))
    states = np.zeros((len(rows), problem.n), dtype=np.bool_)
    for state, ones in zip(states, rows, strict=True):
        state[list(ones)] = True
    return states


def judged(name: str, problem: CardinalityProblem) -> dict[str, Any]:
    """What a solver claims of a problem, and what of it is false."""
    states = feasible_states(problem)
    energies, terms = long_energies(problem, states)
    best = int(energies.argmin())
    samples = make(name).sample_problem(problem, budget=Budget(time_limit=5), seed=0)
    answer = samples.record.sample[0].astype(bool)
    reached = energies[(states == answer).all(axis=1)][0]
    worse = bool(reached - energies[best] > SHARE * terms[best])
    claimed = bool(samples.info["proved_optimal"])
    # The reported bound is rounded once more when the offset is added.
    with_offset = energies[best] + np.longdouble(problem.offset)
    rounding = 4e-16 * abs(with_offset)
    return {
        "proved": claimed,
        "false_proof": claimed and worse,
        "not_optimal": worse,
        "false_bound": bool(samples.info["lower_bound"] > with_offset + rounding),
        "loose_tolerance": claimed and bool(samples.info["tolerance"] > SHARE * terms[best]),
    }


def proofs(names: list[str], count: int) -> Iterator[dict[str, Any]]:
    """A row a solver and family."""
    for name in names:
        found = pd.DataFrame(
            [
                {"family": FAMILIES[seed % len(FAMILIES)]} | judged(name, mixed(seed))
                for seed in range(count)
            ]
        )
        for family, part in found.groupby("family", sort=False):
            yield {"solver": name, "family": family, "problems": len(part)} | {
                column: int(part[column].sum()) for column in found.columns[1:]
            }


def large(kind: str, rng: np.random.Generator) -> CardinalityProblem:
    """A problem of the kind: full rank without a linear term, or a factor of rank 256."""
    word, number = kind.split()
    if word == "rank":
        n = 4096
        return CardinalityProblem(
            linear=rng.standard_normal(n),
            cardinality=n // 2,
            factor=rng.standard_normal((int(number), n)) / np.sqrt(n),
        )
    n = int(number)
    A = rng.standard_normal((n + 20, n))
    if word == "heavy":
        A[:, rng.choice(n, 5, replace=False)] *= 1e3
    G = A.T @ A / n
    return CardinalityProblem(linear=np.zeros(n), cardinality=n // 2, quadratic=(G + G.T) / 2)


def limits(names: list[str], seconds: list[float], kinds: list[str]) -> Iterator[dict[str, Any]]:
    """A row a solver, kind of problem and limit."""
    for kind in kinds:
        rng = np.random.default_rng(0)
        model = dimod.generators.gnm_random_bqm(40, 300, "SPIN", random_state=0)
        problem = None if kind == "bqm" else large(kind, rng)
        for name, limit in itertools.product(names, seconds):
            sampler = make(name)
            most = sampler.max_variables
            n = 40 if problem is None else problem.n
            if most is not None and n > most:
                continue
            sampler.warm_up(dense=problem is None or problem.factor is None)
            start = time.perf_counter()
            try:
                if problem is None:
                    energy = sampler.sample(model, time_limit=limit, seed=0).first.energy
                else:
                    budget = Budget(time_limit=limit)
                    energy = sampler.sample_problem(problem, budget=budget, seed=0).first.energy
            except (dimod.exceptions.BinaryQuadraticModelSizeError, ValueError) as refusal:
                yield {"solver": name, "kind": kind, "limit": limit, "refused": str(refusal)}
                continue
            wall = time.perf_counter() - start
            yield {
                "solver": name, "kind": kind, "limit": limit, "wall": round(wall, 3),
                "ratio": round(wall / limit, 2), "energy": energy,
                "honours": "time_limit" in sampler.honours,
            }  # fmt: skip


CHILD = """
import sys, time
import numpy as np
from experiments.benchmarks.trust import large
from solvers import Budget, CardinalityProblem, make

name, kind, limit = sys.argv[1], sys.argv[2], float(sys.argv[3])
problem = large(kind, np.random.default_rng(0))
sampler = make(name)
budget = Budget(time_limit=limit)
if "warm" in sys.argv[4:]:
    sampler.warm_up(dense=problem.factor is None)
print("ready", flush=True)
start = time.perf_counter()
try:
    samples = sampler.sample_problem(problem, budget=budget, seed=0)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    raise SystemExit(130)
wall = time.perf_counter() - start
print("ended", wall, samples.info.get("warm_up", 0.0), flush=True)
"""


def first(names: list[str]) -> Iterator[dict[str, Any]]:
    """A row a solver, kind of problem and state of the cache."""
    for name, kind in itertools.product(names, ("dense 64", "rank 256")):
        if (make(name).max_variables or 64) < 64 or (kind == "rank 256" and _small(name)):
            continue
        with tempfile.TemporaryDirectory() as cache:
            for state in ("empty", "filled"):
                child = subprocess.run(
                    [sys.executable, "-c", CHILD, name, kind, str(FIRST_LIMIT)],
                    env=os.environ | {"NUMBA_CACHE_DIR": cache},
                    capture_output=True,
                    text=True,
                    check=False,
                )
                words = child.stdout.split()
                if "ended" not in words:
                    failed = " ".join(child.stderr.split())[-100:]
                    yield {"solver": name, "kind": kind, "cache": state, "failed": failed}
                    continue
                wall, warm_up = map(float, words[-2:])
                yield {
                    "solver": name, "kind": kind, "cache": state, "limit": FIRST_LIMIT,
                    "wall": round(wall, 3), "warm_up": round(warm_up, 3),
                    "clock": round(wall - warm_up, 3),
                }  # fmt: skip


def _small(name: str) -> bool:
    most = make(name).max_variables
    return most is not None and most < 4096


def interrupts(names: list[str]) -> Iterator[dict[str, Any]]:
    """A row a solver and kind of problem: SIGINT 1.5 s into a call of 100 s."""
    for name, kind in itertools.product(names, ("dense 1000", "dense 2000", "rank 256")):
        most = make(name).max_variables
        if most is not None and most < (4096 if kind == "rank 256" else int(kind.split()[1])):
            continue
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, name, kind, "100", "warm"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(WAIT_BEFORE)
        row: dict[str, Any] = {"solver": name, "kind": kind}
        if child.poll() is None:
            start = time.perf_counter()
            child.send_signal(signal.SIGINT)
            try:
                told, _ = child.communicate(timeout=HANG)
                row |= {"seconds": round(time.perf_counter() - start, 2)}
                row |= {"said": told.split()[0] if told.split() else "nothing"}
            except subprocess.TimeoutExpired:
                child.kill()
                row |= {"seconds": HANG, "said": "hang"}
        else:
            row |= {"said": "over before"}
        child.stdout.close()
        child.wait()
        yield row


def main() -> None:
    """Runs one of the four, prints and writes its rows."""
    parser = argparse.ArgumentParser(description="Whether solvers keep their word.")
    parser.add_argument("what", choices=("proofs", "limits", "first", "interrupts"))
    parser.add_argument("--solvers", default="", help="names, separated by commas")
    parser.add_argument("--count", type=int, default=10_000, help="problems of `proofs`")
    parser.add_argument("--limits", default="0.2,1,10", help="seconds of `limits`")
    parser.add_argument("--kinds", default=",".join(KINDS), help="problems of `limits`")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the tables")
    arguments = parser.parse_args()
    told = [name for name in arguments.solvers.split(",") if name]
    rows = {
        "proofs": lambda: proofs(told or list(PROVERS), arguments.count),
        "limits": lambda: limits(
            told or SEARCHES,
            [float(word) for word in arguments.limits.split(",")],
            arguments.kinds.split(","),
        ),
        "first": lambda: first(told or SEARCHES),
        "interrupts": lambda: interrupts(told or SEARCHES),
    }[arguments.what]()
    print(f"load average {os.getloadavg()[0]:.1f}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    found = []
    for row in rows:
        found.append(row | {"load": round(os.getloadavg()[0], 1)})
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        # Anew with every row: an interrupt loses nothing.
        pd.DataFrame(found).to_csv(arguments.out / f"{arguments.what}.csv", index=False)


if __name__ == "__main__":
    main()
