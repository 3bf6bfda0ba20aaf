"""QAOA in rounds: each later circuit starts warm from the best shot of those before it.

One round is plain QAOA. With more, the reads are shared out among the rounds; a round biases its
start by the best feasible state so far (see `solvers.qaoa.warm`), a classical answer or a shot, and
trains its angles anew.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.arguments import whole
from solvers.base import Request, Solution
from solvers.errors import ParameterError
from solvers.problem import CardinalityProblem
from solvers.qaoa.sampler import DEFAULT_READS
from solvers.qaoa.simulator.subspace import check_start
from solvers.qaoa.solver import Trained, TrainedQAOA
from solvers.qaoa.warm import WarmStart

Rows = NDArray[np.int8]


class RoundsQAOA(TrainedQAOA):
    """QAOA on a simulator of this machine, in one round or in several.

    Parameters of `sample_problem`: those of `solvers.qaoa.solver.TrainedQAOA`, and ``rounds``, 1 by
    default; with several, ``info["rounds"]`` has the reads, the start and the best energy of each.
    """

    extra_parameters: tuple[str, ...] = (*TrainedQAOA.extra_parameters, "rounds")

    def check_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Names and values of all of them."""
        super().check_parameters(parameters)
        if whole("rounds", parameters.get("rounds", 1), 1) > 1:
            check_start(self.mixers[self._known(parameters.get("mixer"))])

    @abstractmethod
    def _measure(
        self, problem: CardinalityProblem, request: Request, trained: Trained, reads: int
    ) -> tuple[Rows, dict[str, Any]]:
        """Shots of a circuit, shape (reads, n), and what ``info`` says of it."""

    @abstractmethod
    def _answer(
        self, problem: CardinalityProblem, request: Request, rows: Rows, info: dict[str, Any]
    ) -> Solution:
        """The shots of all rounds as a solution."""

    def _solve(
        self, problem: CardinalityProblem, request: Request, *, rounds: int = 1, **parameters: Any
    ) -> Solution:
        reads = request.budget.reads or DEFAULT_READS
        if whole("rounds", rounds, 1) > reads:
            raise ParameterError(
                f"rounds is {rounds} and reads is {reads}: give a round 1 read at least"
            )
        best: WarmStart | None = None
        shots: list[Rows] = []
        told: list[dict[str, Any]] = []
        info: dict[str, Any] = {}
        for place in range(rounds):
            share = reads // rounds + (place < reads % rounds)
            trained = self._trained(problem, request, best=best, **parameters)
            rows, info = self._measure(problem, request, trained, share)
            shots.append(rows)
            best = _better(problem, trained.warm, rows, place)
            told.append({
                "reads": share,
                "start": "uniform" if trained.warm is None else trained.warm.solver,
                "best": None if best is None else best.energy,
            })  # fmt: skip
        if rounds > 1:
            info["rounds"] = told
        return self._answer(problem, request, np.concatenate(shots), info)


def _better(
    problem: CardinalityProblem, start: WarmStart | None, rows: Rows, place: int
) -> WarmStart | None:
    """The best of a round's feasible shots and of the state that it started from."""
    feasible = rows[problem.is_feasible(rows)]
    if not len(feasible):
        return start
    energies = problem.energy(feasible)
    lowest = int(np.argmin(energies))
    if start is not None and start.energy <= energies[lowest]:
        return start
    state = feasible[lowest].astype(np.bool_)
    return WarmStart(f"the best shot of round {place + 1}", state, float(energies[lowest]))
