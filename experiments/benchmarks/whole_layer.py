"""A whole layer as one problem: n = 10^6, r = 256, solved and certified in bounded memory.

The drawn problem has the structure of a layer's: row s of the factor is ``(d' a) * w`` of sample s,
a sum of outer products over its positions with log-normal scales by input and output; the linear
term is their mean gradient and a ridge, the current mask prunes the least weights. Prints seconds,
peak memory, the certified bound (rounding counted) and the gap to it, also as a share of the gain
over the current mask.

    python -m experiments.benchmarks.whole_layer [--shape 1024x1024] [--rank 256] [--curvature 1]
    python -m experiments.benchmarks.whole_layer --instance layer.block.safetensors
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from dataclasses import replace

import numpy as np
from numba import get_num_threads

from solvers import Budget, CardinalityProblem, load, make
from solvers.arrays import frozen
from solvers.exact.interval import certified_bound

POSITIONS = 8


def drawn_layer(outputs: int, inputs: int, rank: int, curvature: float) -> CardinalityProblem:
    """A problem over all weights of an outputs x inputs layer, half of them pruned.

    Args:
        outputs: rows of the weight.
        inputs: its columns.
        rank: samples.
        curvature: factor on the quadratic part.
    """
    rng = np.random.default_rng(0)
    w = rng.normal(size=(outputs, inputs)) * 0.05
    by_input, by_output = (np.exp(rng.normal(size=size)) for size in (inputs, outputs))
    A = np.empty((rank, outputs * inputs))
    for row in A:
        a = rng.normal(size=(POSITIONS, inputs)) * by_input
        d = rng.normal(size=(POSITIONS, outputs)) * by_output * 1e-4
        np.multiply(d.T @ a, w, out=row.reshape(outputs, inputs))
    linear = -0.75 * A.mean(axis=0) + 1e-3 * np.square(w).ravel()
    A *= np.sqrt(curvature / rank)
    k = len(linear) // 2
    initial = np.zeros(len(linear), dtype=np.bool_)
    initial[np.argpartition(np.abs(w).ravel(), k)[:k]] = True
    return CardinalityProblem(linear=linear, cardinality=k, factor=frozen(A), initial=initial)


def main() -> None:
    """Runs and prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--shape", default="1024x1024", help="outputs x inputs")
    parser.add_argument("--rank", type=int, default=256)
    parser.add_argument("--curvature", type=float, default=1.0)
    parser.add_argument("--instance", help="an exported layer instead of a drawn one")
    parser.add_argument("--solver", default="relaxation")
    parser.add_argument("--time-limit", type=float, default=120.0)
    given = parser.parse_args()
    small = drawn_layer(40, 50, 4, 100.0)
    make(given.solver).sample_problem(small, budget=Budget(time_limit=5), seed=0)
    begin = time.perf_counter()
    if given.instance:
        problem = load(given.instance)
        if given.curvature != 1:
            assert problem.factor is not None
            problem = replace(problem, factor=frozen(problem.factor * np.sqrt(given.curvature)))
    else:
        outputs, inputs = map(int, given.shape.split("x"))
        problem = drawn_layer(outputs, inputs, given.rank, given.curvature)
    built = time.perf_counter()
    print(
        f"n {problem.n}, r {problem.rank}, k {problem.cardinality}, curvature x{given.curvature:g},"
        f" {given.solver}, {get_num_threads()} threads, load {os.getloadavg()[0]:.2f}"
    )
    print(f"built in {built - begin:.1f} s, peak memory so far {_peak():.2f} GB")
    samples = make(given.solver).sample_problem(
        problem, budget=Budget(time_limit=given.time_limit), seed=0
    )
    seconds = time.perf_counter() - built
    energy, info = float(samples.first.energy), samples.info
    print(f"solved in {seconds:.1f} s, peak memory {_peak():.2f} GB")
    assert problem.initial is not None
    lower = info["lower_bound"]
    if "certificate" in info:
        lower = certified_bound(problem, np.array(info["certificate"]))
        print(f"certificate checked in {time.perf_counter() - built - seconds:.1f} s")
    gain = float(problem.energy(problem.initial)) - energy
    print(
        f"energy {energy:.9g}, certified bound {lower:.9g}, gap {energy - lower:.3g} "
        f"({(energy - lower) / abs(lower):.2e} of the bound, {(energy - lower) / gain:.2e} "
        f"of the gain), core {info['core_size']}, proved {info['proved_optimal']}"
    )
    print(f"peak memory with the check {_peak():.2f} GB")


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()
