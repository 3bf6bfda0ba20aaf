"""What a solver's states become: a sample set, with energies and ``info``."""

from __future__ import annotations

import dimod
import numpy as np

from solvers.arithmetic.convex import plus_offset, value
from solvers.errors import SampleError
from solvers.problem import Bools, CardinalityProblem
from solvers.request import Request, Solution, Track


def forced(problem: CardinalityProblem, state: Bools, request: Request, track: Track) -> Solution:
    """The answer to a problem with one feasible state, shape (n,)."""
    request.report(state)
    raw = {"raw_sample": state[None].astype(np.int8)} if track == "penalised" else {}
    known = value(problem, state)
    info = {
        "lower_bound": plus_offset(known.energy - known.error, problem),
        "proved_optimal": True,
        "tolerance": known.tolerance,
    }
    return Solution(state[None], info, raw)


def sample_set(
    name: str, track: Track, problem: CardinalityProblem, request: Request, solution: Solution
) -> dimod.SampleSet:
    """A solution as a sample set with energies and `info`.

    Raises:
        SampleError: states that are not rows of n zeros and ones.
    """
    found = np.asarray(solution.states)
    with np.errstate(invalid="ignore"):
        states = found.astype(np.int8)
    if states.shape != (len(found), problem.n) or ((states != found) | (states & ~1)).any():
        raise SampleError(
            f"{name} returned states of shape {found.shape} and type {found.dtype}, "
            f"expected rows of {problem.n} zeros and ones"
        )
    return dimod.SampleSet.from_samples(
        states,
        energy=problem.energy(states),
        vartype=dimod.BINARY,
        info={
            "solver": name,
            "track": track,
            "lane": track,
            "received_start": request.initial is not None,
            "received_incumbent": request.initial is not None,
            "timing": dict(request.timing),
            **solution.info,
        },
        **solution.vectors,
    )
