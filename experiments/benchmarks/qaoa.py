"""Exact QAOA simulators against Aer and Braket's local simulator, and how they grow.

* one expectation of ring-XY QAOA (Dicke start, p = 4): ours, Aer and Braket on the same circuit.
  Theirs is compiled and bound beforehand; only its run and the mean of the energies are timed;
* the full gradient of complete-graph XY at n = 20, p = 4, by threads;
* peak memory of one gradient at n = 24, in state vectors (Linux);
* seconds by n and p, as a table and, with ``--figure``, as a picture.

Rounds are interleaved, so that a busy machine slows all alike; medians are printed.

    python -m experiments.benchmarks.qaoa [--qubits 16] [--repeats 7] [--skip-braket] [--figure F]
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

from solvers import CardinalityProblem
from solvers.qaoa.angles import Angles
from solvers.qaoa.circuit.ansatz import Ising, groups_of, parameter_values, subspace_ansatz
from solvers.qaoa.simulator.subspace import Simulator

Call = Callable[[], object]
GROWTH_MIXERS = ("ring", "complete", "grover", "x")


def random_problem(n: int) -> CardinalityProblem:
    """Linear terms and rank-4 couplings of one size, k = n / 2."""
    rng = np.random.default_rng(n)
    factor = rng.normal(size=(4, n)) / 2
    return CardinalityProblem(linear=rng.normal(size=n), factor=factor, cardinality=n // 2)


def ramp(p: int, std: float) -> Angles:
    """Some angles; their values do not matter for the time."""
    t = (np.arange(p) + 0.5) / p
    return Angles.given(2 * t / std, 0.5 * (1 - t))


def interleaved(calls: Mapping[str, Call], repeats: int) -> dict[str, float]:
    """Median seconds of each call, one warm-up round, then `repeats` rounds in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in seconds.items()}


def expectations(n: int, p: int, *, with_braket: bool) -> dict[str, Callable[[], float]]:
    """The same expectation three ways; checks that all agree."""
    problem = random_problem(n)
    simulator = Simulator(problem, "ring", num_threads=1)
    angles = ramp(p, simulator.std)
    ising = Ising.from_bqm(problem.to_bqm())
    circuit = subspace_ansatz(groups_of(problem), ising.edges, p, "ring")
    values = parameter_values(ising, angles)
    ranks = simulator.states(np.arange(simulator.dim)) @ (1 << np.arange(n))
    costs = np.zeros(2**n)
    costs[ranks] = simulator.costs

    from qiskit import transpile
    from qiskit_aer import AerSimulator

    from solvers.qaoa.qiskit import to_qiskit

    aer = AerSimulator(method="statevector", max_parallel_threads=1)
    rendered = to_qiskit(circuit)
    rendered.save_statevector()
    bound = transpile(rendered, aer).assign_parameters(values)

    def by_aer() -> float:
        state = np.asarray(aer.run(bound, shots=1).result().data()["statevector"])
        return float(np.abs(state) ** 2 @ costs)

    calls: dict[str, Callable[[], float]] = {
        "ours": lambda: simulator.expectation(angles),
        "Aer": by_aer,
    }
    if with_braket:
        from braket.devices import LocalSimulator

        from solvers.qaoa.braket import to_braket

        device = LocalSimulator("braket_sv")
        task = to_braket(circuit, values).probability()
        # Braket counts qubit 0 as the most significant bit.
        reversed_costs = costs.reshape([2] * n).transpose().ravel()
        calls["Braket local"] = lambda: float(
            device.run(task, shots=0).result().values[0] @ reversed_costs
        )
    results = [call() for call in calls.values()]
    if not np.allclose(results, results[0], rtol=1e-7):
        raise SystemExit(f"the expectations differ: {results}")
    return calls


def peak_vectors(n: int, p: int) -> float | None:
    """Memory one gradient adds to an empty process state, in state vectors; None off Linux."""
    clear, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    if not clear.exists():
        return None

    def kibibytes(key: str) -> int:
        line = next(text for text in status.read_text().splitlines() if text.startswith(key))
        return int(line.split()[1])

    small = Simulator(random_problem(16), "complete")
    small.gradient(ramp(p, 1.0))
    before = kibibytes("VmRSS")
    clear.write_text("5")
    simulator = Simulator(random_problem(n), "complete", num_threads=2)
    simulator.gradient(ramp(p, simulator.std))
    return (kibibytes("VmHWM") - before) * 1024 / (16 * simulator.dim)


def growth(repeats: int) -> dict[str, list[tuple[int, int, float]]]:
    """``(n, p, seconds of one gradient)`` by mixer."""
    rows: dict[str, list[tuple[int, int, float]]] = {}
    for mixer in GROWTH_MIXERS:
        sizes = (8, 12, 16) if mixer == "x" else (8, 12, 16, 20)
        simulators = {
            n: Simulator(random_problem(n), mixer, penalty=0.1 if mixer == "x" else None)
            for n in sizes
        }
        for p in (1, 2, 4, 8):
            calls: dict[str, Call] = {
                str(n): partial(simulator.gradient, ramp(p, simulator.std))
                for n, simulator in simulators.items()
            }
            measured = interleaved(calls, repeats)
            rows.setdefault(mixer, []).extend((int(n), p, t) for n, t in measured.items())
    return rows


def draw(rows: dict[str, list[tuple[int, int, float]]], path: str) -> None:
    """Seconds of a gradient against n, one panel a mixer, one line a depth."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(rows), figsize=(3 * len(rows), 3), sharey=True)
    for axis, (mixer, points) in zip(axes, rows.items(), strict=True):
        for p in sorted({p for _, p, _ in points}):
            line = [(n, t) for n, q, t in points if q == p]
            axis.semilogy(*zip(*line, strict=True), marker="o", label=f"p = {p}")
        axis.set(title=mixer, xlabel="variables n", xticks=sorted({n for n, _, _ in points}))
    axes[0].set_ylabel("one gradient, s")
    axes[0].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    """Runs the measurements and prints them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--qubits", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--skip-braket", action="store_true")
    parser.add_argument("--skip-growth", action="store_true")
    parser.add_argument("--figure", help="file for the picture of the growth")
    args = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores")

    vectors = peak_vectors(24, 1)
    if vectors is not None:
        print(f"memory of one gradient, complete XY, n = 24: {vectors:.2f} state vectors")

    calls = expectations(args.qubits, 4, with_braket=not args.skip_braket)
    seconds = interleaved(calls, args.repeats)
    for name, value in seconds.items():
        ratio = value / seconds["ours"]
        print(f"expectation, ring XY, n = {args.qubits}, p = 4, {name}: "
              f"{value * 1e3:.2f} ms ({ratio:.0f} x ours)")  # fmt: skip

    by_threads = {
        f"{count} threads": Simulator(random_problem(20), "complete", num_threads=count)
        for count in (1, 2)
    }
    angles = ramp(4, by_threads["1 threads"].std)
    gradients: dict[str, Call] = {
        name: partial(simulator.gradient, angles) for name, simulator in by_threads.items()
    }
    for name, value in interleaved(gradients, args.repeats).items():
        print(f"gradient, complete XY, n = 20, p = 4, {name}: {value:.3f} s")

    if not args.skip_growth:
        rows = growth(3)
        print(f"{'gradient, ms':14}{'n':>4}" + "".join(f"{f'p = {p}':>10}" for p in (1, 2, 4, 8)))
        for mixer, points in rows.items():
            for n in sorted({n for n, _, _ in points}):
                cells = [t for m, _, t in points if m == n]
                print(f"{mixer:14}{n:4}" + "".join(f"{t * 1e3:10.2f}" for t in cells))
        if args.figure:
            draw(rows, args.figure)
    print(f"load average {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
