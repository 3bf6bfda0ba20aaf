"""Row blocks: how far each solver is from the best known, and how long it takes to get there.

Instances of the library, their variables permuted, the current mask told to nobody. Solvers take
turns on each instance, so that a busy moment hits all alike, and compiling comes before the clock.
Beside the registered solvers, the peers on both tracks and two mixed-integer programs among them,
two published methods are written out plainly: one-swap search from Wanda's mask as in SparseSwaps
(arXiv 2512.10922), and Frank-Wolfe on the relaxation with nine tenths of Wanda's mask fixed, then
rounding, as in SparseFW (arXiv 2510.13713).

The best known is the least energy of the library's table, of all runs, and of one long run of
`portfolio`. A distance is ``(E - best) / |best|``. The time to the best known is when a state
within 0.01 % of it was found in a run that may take `--until` seconds, infinite where none was.

    python -m experiments.benchmarks.rows                    # all rows: about an hour
    python -m experiments.benchmarks.rows --instances 'rows/*up*' --seeds 3
    python -m experiments.benchmarks.rows --show             # prints the table's medians again
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.instances.library.reading import Entry, matching, problem
from experiments.progress import cell_progress
from experiments.record import host
from solvers import Budget, CardinalityProblem, make
from solvers.clock.deadline import Deadline
from solvers.problem import Bools

TABLE = Path("results/solvers/rows.csv")
SOLVERS = (
    "portfolio", "tabu", "annealing", "tempering", "descent", "relaxation", "semidefinite", "exact",
    "greedy", "ocean-tabu", "neal", "path-integral", "steepest-descent", "miqp", "milp",
    "one-swap from Wanda", "Frank-Wolfe",
)  # fmt: skip
RACERS = ("portfolio", "tabu", "ocean-tabu", "neal")
NEAR = 1e-4
# Share of Wanda's choices that Frank-Wolfe leaves as they are, and its steps at the most.
FIXED, STEPS = 0.9, 2000

Method = Callable[[CardinalityProblem, Deadline], Bools]


def wanda(block: CardinalityProblem) -> Bools:
    """The mask of least ``w_i^2 H_ii``, shape (n,)."""
    state = np.zeros(block.n, dtype=np.bool_)
    state[np.argsort(block.diagonal, kind="stable")[: block.cardinality]] = True
    return state


def one_swap(block: CardinalityProblem, deadline: Deadline) -> Bools:
    """The best of all swaps again and again, from Wanda's mask, until none helps."""
    state, G = wanda(block), block.gram()
    fields, half = block.fields(state), 0.5 * block.diagonal
    while not deadline.over:
        ones, zeros = np.flatnonzero(state), np.flatnonzero(~state)
        deltas = (half - fields)[ones][:, None] + (half + fields)[zeros] - G[np.ix_(ones, zeros)]
        place = int(deltas.argmin())
        i, j = ones[place // len(zeros)], zeros[place % len(zeros)]
        if deltas.flat[place] >= -1e-12 * (half[i] + half[j]):
            break
        state[i], state[j] = False, True
        fields += G[j] - G[i]
    return state


def frank_wolfe(block: CardinalityProblem, deadline: Deadline) -> Bools:
    """Frank-Wolfe with exact steps on what Wanda is least sure of, then the largest k."""
    start, G = wanda(block), block.gram()
    order = np.argsort(block.diagonal, kind="stable")
    k, n = block.cardinality, block.n
    free = order[int(FIXED * k) : n - int(FIXED * (n - k))]
    take = int(start[free].sum())
    x = start.astype(np.float64)
    fields = G @ x + block.linear
    for _ in range(STEPS):
        if deadline.over:
            break
        vertex = x.copy()
        vertex[free] = 0.0
        vertex[free[np.argsort(fields[free], kind="stable")[:take]]] = 1.0
        step = vertex - x
        slope, product = float(fields @ step), G @ step
        bend = float(step @ product)
        if slope >= 0:
            break
        length = 1.0 if bend <= 0 else min(1.0, -slope / bend)
        x += length * step
        fields += length * product
    state = np.zeros(n, dtype=np.bool_)
    state[order[: int(FIXED * k)]] = True
    state[free[np.argsort(-x[free], kind="stable")[:take]]] = True
    return state


METHODS: dict[str, Method] = {"one-swap from Wanda": one_swap, "Frank-Wolfe": frank_wolfe}


class ReachedError(Exception):
    """Ends a race."""


def run(name: str, block: CardinalityProblem, limit: float, seed: int) -> dict[str, Any]:
    """One timed run: energy, seconds, what it says it picked."""
    begun = time.perf_counter()
    picked = ""
    if name in METHODS:
        state = METHODS[name](block, Deadline(limit))
        energy = float(block.energy(state))
        assert block.is_feasible(state)
    else:
        samples = make(name).sample_problem(block, budget=Budget(time_limit=limit), seed=seed)
        states = samples.record.sample
        energy = float(block.energy(states)[block.is_feasible(states)].min(initial=np.inf))
        picked = samples.info.get("picked", "")
    return {"wall": time.perf_counter() - begun, "energy": energy, "picked": picked}


def race(name: str, block: CardinalityProblem, limit: float, seed: int, goal: float) -> float:
    """Seconds until a state of at most the goal's energy was found; infinite if none was."""
    begun, reached = time.perf_counter(), [np.inf]

    def watch(state: Bools) -> None:
        if reached[0] == np.inf and block.energy(state) <= goal:
            reached[0] = time.perf_counter() - begun
            raise ReachedError

    try:
        samples = make(name).sample_problem(
            block, budget=Budget(time_limit=limit), seed=seed, on_incumbent=watch
        )
    except ReachedError:
        return reached[0]
    late = time.perf_counter() - begun
    return min(reached[0], late if float(samples.first.energy) <= goal else np.inf)


def warm_up(names: list[str]) -> None:
    """Compiles what is timed later."""
    for name in names:
        if name not in METHODS:
            for dense in (False, True):
                make(name).warm_up(dense=dense)


def able(name: str, n: int) -> bool:
    """Whether a solver takes n variables."""
    return name in METHODS or n <= (make(name).properties["max_variables"] or n)


def measured(
    entry: Entry, arguments: argparse.Namespace, advance: Callable[[], None]
) -> list[dict[str, Any]]:
    """The rows of the table of one instance."""
    block = problem(entry).permuted(np.random.default_rng(entry.n)).blinded()
    about = {"instance": entry.name, "n": entry.n, "k": entry.k, "density": entry.density}
    rows: list[dict[str, Any]] = []

    def note(task: str, name: str, limit: float, seed: int, **values: Any) -> None:
        rows.append(
            about | {"task": task, "solver": name, "limit": limit, "seed": seed} | values
            | {"load": host.load_average()}
        )  # fmt: skip

    long = run("portfolio", block, arguments.reference, arguments.seeds)
    note("reference", "portfolio", arguments.reference, arguments.seeds, **long)
    for seed in range(arguments.seeds):
        for limit in arguments.limits:
            for name in arguments.solvers:
                if able(name, entry.n):
                    note("distance", name, limit, seed, **run(name, block, limit, seed))
                advance()
    best = min([entry.best, *(float(row["energy"]) for row in rows)])
    goal = best + NEAR * abs(best)
    for seed in range(arguments.seeds):
        for name in arguments.racers:
            if able(name, entry.n):
                seconds = race(name, block, arguments.until, seed, goal)
                note("race", name, arguments.until, seed, seconds=seconds)
            advance()
    for row in rows:
        row["best"] = best
        row["distance"] = (row.get("energy", np.nan) - best) / abs(best)
    return rows


def show(frame: pd.DataFrame) -> None:
    """Prints medians."""
    runs = frame[frame["task"] == "distance"]
    medians = 100 * runs.pivot_table(
        index="solver", columns=["n", "limit"], values="distance", aggfunc="median", sort=False
    )
    print("median distance from the best known, %\n", medians.round(3).to_string())
    races = frame[frame["task"] == "race"]
    if len(races):
        keys = ["solver", "n"]
        races = races.assign(reached=np.isfinite(races["seconds"]))
        table = races.groupby(keys, sort=False).agg({"seconds": "median", "reached": "mean"})
        print(f"\nseconds to within {NEAR:.2%} of the best known\n", table.round(3).to_string())
    print(f"\nload {frame['load'].median():.1f} in the median")


def main() -> None:
    """Runs and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--instances", default="rows/*", help="names of the library (shell pattern)"
    )
    parser.add_argument("--solvers", nargs="+", default=list(SOLVERS), help="what is compared")
    parser.add_argument("--racers", nargs="*", default=list(RACERS), help="who races to the best")
    parser.add_argument("--limits", nargs="+", type=float, default=[0.05, 0.1, 1.0],
                        help="seconds a run")  # fmt: skip
    parser.add_argument("--seeds", type=int, default=1, help="runs of each")
    parser.add_argument("--until", type=float, default=10.0, help="seconds of a race")
    parser.add_argument("--reference", type=float, default=30.0, help="seconds of the long run")
    parser.add_argument("--out", type=Path, default=TABLE, help="CSV, which is replaced")
    parser.add_argument("--show", action="store_true", help="print the CSV's medians, run nothing")
    arguments = parser.parse_args()
    if arguments.show:
        show(pd.read_csv(arguments.out))
        return
    entries = matching(arguments.instances)
    warm_up([*arguments.solvers, *arguments.racers])
    each = arguments.seeds * (
        len(arguments.limits) * len(arguments.solvers) + len(arguments.racers)
    )
    rows: list[dict[str, Any]] = []
    about = {key: host.describe()[key] for key in ("cpu", "usable_cpus")}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with cell_progress("rows", each * len(entries)) as advance:
        for entry in entries:
            rows += measured(entry, arguments, advance)
            frame = pd.DataFrame(rows).assign(**about)
            frame.to_csv(arguments.out, index=False, float_format="%.9g")
    show(frame)


if __name__ == "__main__":
    main()
