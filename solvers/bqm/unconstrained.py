"""Models with any number of ones, by solvers of problems with a fixed one.

`every_cardinality` is for solvers that prove: one problem a cardinality. It is settled by a bound
that is no better than the best state found, up to the tolerance of that state
(`solvers.arithmetic.convex.Value`); the answer is proved if all are settled. What is known before
any call, for x with k ones:

    E(x) >= offset + sum of the k smallest a_i,   a_i = c_i + G_ii/2 + 1/2 sum_{j != i} min(0, G_ij)

Cardinalities are taken from that of a descent's state outwards, so that a time limit too short for
all of them is spent where it may help.

`alternating` is for the others on large models: the solver at one cardinality and a descent over
single flips, which leads to the next, until that stops. On small ones n free variables that absorb
the difference (`solvers.bqm.convert.problem_from_bqm`) find better states, but they make a dense
problem of 4 n^2 couplings of one of n^2.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import dimod
import numpy as np
from numpy.typing import ArrayLike

from solvers.arithmetic.convex import Value, plus_offset, value
from solvers.clock.deadline import NEVER, Deadline
from solvers.problem import Bools, CardinalityProblem, Floats

Solve = Callable[[CardinalityProblem, float | None, Bools | None], dimod.SampleSet]
# A call gets this share of the time that is left, or an equal share if fewer cardinalities are.
CALLS = 10
# A round gets this share of the time that is left.
ROUND_SHARE = 0.7
# Flips between two looks at the clock.
FLIPS = 64


def every_cardinality(
    problem: CardinalityProblem, solve: Solve, deadline: Deadline, initial: Bools | None = None
) -> dimod.SampleSet:
    """The best state over all numbers of ones.

    Args:
        problem: n variables; its own cardinality does not matter.
        solve: problem, seconds or None, feasible start or None -> samples with their `info`.
        deadline: when to end.
        initial: start of any weight, shape (n,).

    Returns:
        One BINARY sample. ``info`` is as in `solvers.base`, of all calls together; its
        ``cardinalities`` counts those ``settled`` and ``open``.
    """
    n = problem.n
    start = time.perf_counter()
    # An offset that is large against the energies would hide their differences.
    bare = replace(problem, offset=0.0)
    bounds = bounds_by_cardinality(bare)
    best = flip_descent(bare, np.zeros(n) if initial is None else initial, deadline)
    known = value(bare, best)
    spent = time.perf_counter() - start
    centre = int(best.sum())
    order = sorted(range(n + 1), key=lambda k: (abs(k - centre), k))
    infos: list[dict[str, Any]] = []
    for number, k in enumerate(order):
        left = deadline.left
        if infos and deadline.over:
            break
        if infos and bounds[k] >= known.energy:
            continue
        seconds = None if left == np.inf else max(left, 1e-3) / min(n + 1 - number, CALLS)
        begin = initial if initial is not None and initial.sum() == k else None
        samples = solve(bare.with_cardinality(k), seconds, begin)
        infos.append(samples.info)
        bounds[k] = max(bounds[k], samples.info.get("lower_bound", -np.inf))
        found = samples.record.sample[int(np.argmin(samples.record.energy))].astype(np.bool_)
        if value(bare, found).energy < known.energy:
            best, known = found, value(bare, found)
    return _together(problem, best, known, bounds, infos, spent)


def alternating(
    problem: CardinalityProblem, solve: Solve, deadline: Deadline, initial: Bools | None = None
) -> dimod.SampleSet:
    """Solver and single flips in turn, as long as the flips find a better state of another weight.

    Args:
        problem: n variables; its own cardinality does not matter.
        solve: as for `every_cardinality`; the start it is given is the caller's `initial`, in the
            first round only.
        deadline: when to end.
        initial: start of any weight, shape (n,).

    Returns:
        The reads of the best round, each after a descent over flips; the descent's state from which
        the first round starts if it is better. ``info`` is that of the solver, of all ``rounds``
        together.
    """
    start = time.perf_counter()
    bounds = bounds_by_cardinality(problem)
    begin = np.zeros(problem.n) if initial is None else initial
    best = flip_descent(problem, begin, deadline)
    rows, energy = best[None], float(problem.energy(best))
    spent, seconds, infos = time.perf_counter() - start, None, list[dict[str, Any]]()
    while True:
        k = int(best.sum())
        left = deadline.left
        if left < np.inf:
            seconds = ROUND_SHARE * max(left, 1e-3)
        x = initial if initial is not None and not infos and initial.sum() == k else None
        samples = solve(problem.with_cardinality(k), seconds, x)
        infos.append(samples.info)
        start = time.perf_counter()
        found = np.array([flip_descent(problem, row, deadline) for row in samples.record.sample])
        energies = problem.energy(found)
        spent += time.perf_counter() - start
        if len(infos) == 1 and energies.min() >= energy:
            rows = np.concatenate([rows, found])
        if energies.min() >= energy:
            break
        rows, energy, best = found, float(energies.min()), found[int(np.argmin(energies))]
        if int(best.sum()) == k or deadline.over:
            break
    info = {
        **infos[-1],
        "received_start": any(one["received_start"] for one in infos),
        "received_incumbent": any(one["received_start"] for one in infos),
        "timing": _summed(infos, spent),
        # What the solver knows holds for one cardinality.
        "lower_bound": min(energy, float(bounds.min())),
        "proved_optimal": bool(energy <= bounds.min()),
        "rounds": len(infos),
    }
    return dimod.SampleSet.from_samples(
        rows.astype(np.int8), energy=problem.energy(rows), vartype=dimod.BINARY, info=info
    )


def _summed(infos: list[dict[str, Any]], spent: float) -> dict[str, float]:
    """Seconds by stage of several calls, and those between them."""
    timing = {key: sum(one["timing"][key] for one in infos) for key in infos[0]["timing"]}
    timing["preprocess"] += spent
    return timing


def _together(
    problem: CardinalityProblem,
    best: Bools,
    known: Value,
    bounds: Floats,
    infos: list[dict[str, Any]],
    spent: float,
) -> dimod.SampleSet:
    settled = bounds >= known.energy + known.error - known.tolerance
    lower = min(known.energy - known.error, float(bounds.min()))
    info = {
        "solver": infos[0]["solver"],
        "track": infos[0]["track"],
        "lane": infos[0]["track"],
        "received_start": any(one["received_start"] for one in infos),
        "received_incumbent": any(one["received_start"] for one in infos),
        "timing": _summed(infos, spent),
        "lower_bound": plus_offset(lower, problem),
        "proved_optimal": bool(settled.all()),
        "tolerance": known.tolerance,
        "cardinalities": {
            "settled": int(settled.sum()),
            "open": int((~settled).sum()),
        },
    }
    return dimod.SampleSet.from_samples(
        best[None].astype(np.int8),
        energy=[float(problem.energy(best))],
        vartype=dimod.BINARY,
        info=info,
    )


def bounds_by_cardinality(problem: CardinalityProblem) -> Floats:
    """Lower bounds on the energies of x with 0, 1, ..., n ones, shape (n + 1,).

    Args:
        problem: with a `quadratic`; its cardinality does not matter.
    """
    G, diagonal = problem.quadratic, problem.diagonal
    assert G is not None
    negative, sizes = np.empty(problem.n), np.empty(problem.n)
    for i, row in enumerate(G):
        negative[i], sizes[i] = np.minimum(row, 0.0).sum(), np.abs(row).sum()
    negative -= np.minimum(diagonal, 0.0)
    least = np.sort(problem.linear + 0.5 * diagonal + 0.5 * negative)
    bounds = problem.offset + np.concatenate([[0.0], np.cumsum(least)])
    # Every term may have been rounded in every sum.
    terms = abs(problem.offset) + float(np.abs(problem.linear).sum() + sizes.sum())
    return np.asarray(bounds - 4 * (problem.n + 1) * np.finfo(np.float64).eps * terms)


def flip_descent(problem: CardinalityProblem, x: ArrayLike, deadline: Deadline = NEVER) -> Bools:
    """Best single flips until none lowers the energy, whatever the number of ones.

    Args:
        problem: with a `quadratic`; its cardinality does not matter.
        x: start, shape (n,); left as it is.
        deadline: when it ends where it is.
    """
    G = problem.quadratic
    assert G is not None
    state = np.array(x, dtype=np.bool_)
    fields = problem.fields(state)
    terms = np.abs(problem.linear).max(initial=0.0) + np.abs(fields).max(initial=0.0)
    # Round-off may promise a gain for ever.
    for flip in range(10 * problem.n):
        if flip % FLIPS == 0 and deadline.over:
            break
        gains = np.where(state, -fields, fields) + 0.5 * problem.diagonal
        i = int(np.argmin(gains))
        if gains[i] >= -1e-12 * terms:
            break
        fields = fields + (-G[i] if state[i] else G[i])
        state[i] = not state[i]
    return state
