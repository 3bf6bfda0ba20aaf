"""Angles found with the exact simulator: scan, L-BFGS, transfer.

Energies are measured in their standard deviation over the states the circuit lives in, so that
one set of angles means the same on every problem.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from scipy.optimize import OptimizeResult, minimize

from solvers.arguments import whole
from solvers.clock.deadline import NEVER, Deadline
from solvers.errors import ParameterError
from solvers.problem import Floats
from solvers.qaoa.angles import Angles, checked_depth, linear_ramp, ramp_steps, turn
from solvers.qaoa.simulator.subspace import Simulator, checked_alpha

STRATEGIES = ("ramp", "transferred", "scan", "trained")
DEFAULT_DEPTH = 4
# Factors on the default steps of a ramp.
SCAN = (0.5, 0.75, 1.0, 1.35, 1.8)


def untrained(simulator: Simulator, depth: int) -> Angles:
    """The default linear ramp of the simulator's mixer."""
    steps = ramp_steps(simulator.mixer, simulator.width)
    return linear_ramp(depth, simulator.std, steps)


def scan(
    simulator: Simulator, depth: int, *, alpha: float = 1.0, deadline: Deadline = NEVER
) -> Angles:
    """The best linear ramp of a grid of two steps, ``(dg, db)``.

    Args:
        simulator: of the problem.
        depth: layers.
        alpha: objective, see `Simulator.gradient`.
        deadline: after which no further point is tried.
    """
    start = time.perf_counter()
    dg, db = ramp_steps(simulator.mixer, simulator.width)
    best, best_value = untrained(simulator, depth), np.inf
    for a in SCAN:
        for b in SCAN:
            if deadline.over:
                break
            ramp = linear_ramp(depth, simulator.std, (a * dg, b * db))
            value = simulator.objective(ramp, alpha)
            if value < best_value:
                best, best_value = ramp, value
    label = "trained per instance: ramp scan"
    return replace(best, label=label, training_seconds=time.perf_counter() - start)


def optimise(
    simulator: Simulator,
    start: Angles,
    *,
    alpha: float = 1.0,
    iterations: int = 100,
    deadline: Deadline = NEVER,
) -> Angles:
    """L-BFGS on all 2p angles with exact gradients.

    Args:
        simulator: of the problem.
        start: where to begin; its training time is added to the result's.
        alpha: objective, see `Simulator.gradient`.
        iterations: at most so many steps.
        deadline: after which no further step is begun.
    """
    began = time.perf_counter()
    if deadline.over:
        return start
    std = simulator.std or 1.0

    def objective(point: Floats) -> tuple[float, Floats]:
        value, by_gamma, by_beta = simulator.gradient(_at(point, std), alpha)
        return value / std, np.concatenate([by_gamma / std, by_beta]) / std

    def stop(intermediate_result: OptimizeResult) -> None:
        if deadline.over:
            raise StopIteration

    result = minimize(
        objective,
        np.concatenate([np.multiply(start.gammas, std), start.betas]),
        jac=True,
        method="L-BFGS-B",
        callback=stop,
        options={"maxiter": iterations},
    )
    spent = start.training_seconds + time.perf_counter() - began
    label = "trained per instance: L-BFGS" + (f" on CVaR {alpha:g}" if alpha < 1 else "")
    return replace(_at(result.x, std), label=label, training_seconds=spent)


def _at(point: Floats, std: float) -> Angles:
    gammas, betas = np.split(point, 2)
    return Angles.given(gammas / std, betas)


def chosen_angles(
    simulator: Simulator,
    angles: str | Angles,
    depth: int | None,
    alpha: float,
    iterations: int,
    deadline: Deadline,
) -> Angles:
    """The angles a solver was asked for.

    Args:
        simulator: of the problem.
        angles: one of `STRATEGIES`, or the angles themselves.
        depth: layers; 4 or those of `angles` when None.
        alpha: objective, see `Simulator.gradient`.
        iterations: L-BFGS steps at most.
        deadline: see `scan` and `optimise`.

    Raises:
        ParameterError: an unknown strategy, or a depth that is not that of `angles`.
    """
    check_training(angles, depth, alpha, iterations)
    if isinstance(angles, Angles):
        return angles
    p = DEFAULT_DEPTH if depth is None else checked_depth(depth)
    if angles == "ramp":
        return untrained(simulator, p)
    if angles == "transferred":
        return transferred(simulator, p)
    ramp = scan(simulator, p, alpha=alpha, deadline=deadline)
    if angles == "scan":
        return ramp
    return optimise(simulator, ramp, alpha=alpha, iterations=iterations, deadline=deadline)


def check_training(angles: Any, depth: Any, alpha: Any, iterations: Any) -> None:
    """Refuses what `chosen_angles` cannot be asked for.

    Raises:
        ParameterError: a depth that is not that of `angles`, or a value out of range.
    """
    if depth is not None:
        checked_depth(depth)
    checked_alpha(alpha)
    whole("iterations", iterations, 0)
    if isinstance(angles, Angles):
        if depth is not None and depth != angles.depth:
            raise ParameterError(f"depth is {depth}, but angles has {angles.depth} layers")
    elif angles not in STRATEGIES:
        raise ParameterError(
            f"angles is {angles!r}, expected one of {', '.join(STRATEGIES)} or Angles"
        )


def normalised(angles: Angles, simulator: Simulator) -> Angles:
    """Angles that mean the same on every problem: gammas in 1 / std, betas in units of `turn`."""
    std, unit = simulator.std or 1.0, turn(simulator.mixer, simulator.width)
    gammas, betas = np.multiply(angles.gammas, std), np.divide(angles.betas, unit)
    return replace(angles, gammas=tuple(gammas.tolist()), betas=tuple(betas.tolist()))


def median(library: Sequence[Angles]) -> Angles:
    """Median angle by angle over `normalised` angles of training problems.

    Raises:
        ParameterError: an empty library, or angles of different depths.
    """
    depths = {angles.depth for angles in library}
    if len(depths) != 1:
        raise ParameterError(
            f"library holds angles of {len(depths)} depths, expected those of one depth"
        )
    gammas = np.median([angles.gammas for angles in library], axis=0)
    betas = np.median([angles.betas for angles in library], axis=0)
    return Angles.given(gammas, betas, f"transferred: median of {len(library)} problems")


def transfer(library_median: Angles, simulator: Simulator) -> Angles:
    """Normalised angles brought to a problem."""
    std, unit = simulator.std or 1.0, turn(simulator.mixer, simulator.width)
    gammas, betas = np.divide(library_median.gammas, std), np.multiply(library_median.betas, unit)
    return Angles.given(gammas, betas, library_median.label)


@cache
def library() -> dict[str, Any]:
    """The committed medians, ``library.json``: mixer -> depth -> normalised gammas and betas.

    Made by ``experiments/scripts/qaoa_library.py`` from sub-blocks that no reported result is
    about.
    """
    text = files("solvers.qaoa").joinpath("library.json").read_text("utf-8")
    return dict(json.loads(text))


def transferred(simulator: Simulator, depth: int) -> Angles:
    """The library's angles for the simulator's mixer.

    Raises:
        ParameterError: a depth that the library does not have.
    """
    known = library()
    angles = known["angles"][simulator.mixer].get(str(depth))
    if angles is None:
        most = max(map(int, known["angles"][simulator.mixer]))
        raise ParameterError(
            f"depth is {depth}: the library of transferred angles ends at {most}; take that, or "
            "angles='ramp', 'scan' or 'trained'"
        )
    label = f"transferred: median of {known['problems']} sub-blocks of {known['n']} variables"
    return transfer(Angles.given(angles["gammas"], angles["betas"], label), simulator)
