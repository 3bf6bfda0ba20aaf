"""QAOA that conserves the weight, run as a circuit on a gate-model backend."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from solvers.base import CardinalitySampler, Request, Solution
from solvers.errors import ParameterError
from solvers.problem import CardinalityProblem
from solvers.qaoa.angles import Angles
from solvers.qaoa.ansatz import Ising, parameter_values, subspace_ansatz
from solvers.qaoa.sampler import (
    DEFAULT_READS,
    GateModelQAOASampler,
    describe,
)
from solvers.qaoa.simulator import Simulator
from solvers.qaoa.training import chosen_angles
from solvers.repair import LocalSearch

# The exact simulator on which the angles of a circuit are trained.
_SIMULATED = {"ring": "ring", "complete": "complete-trotter", "grover": "grover"}


class CircuitQAOA(CardinalitySampler):
    """Dicke state, cost and XY or Grover mixer as gates; angles from the exact simulator.

    Without noise every shot is feasible. With noise the share that is (``feasible_shots`` in
    ``info``) is what post-selection would keep; the other shots are repaired greedily, charged as
    ``repair``, and all shots as measured are in the record as ``raw_sample``.

    Parameters of `sample_problem` are those of `solvers.qaoa.native.SubspaceQAOA`; ``complete`` is
    the product over pairs, which is what a circuit can do.

    Args:
        backend: runs the circuits.
        max_variables: largest problem it takes; the backend's limit when None.
    """

    warm_up_by_size = True
    honours: ClassVar[tuple[str, ...]] = ("reads", "time_limit")
    extra_parameters: ClassVar[tuple[str, ...]] = (
        "depth", "mixer", "angles", "alpha", "iterations",
    )  # fmt: skip

    def __init__(self, backend: GateModelQAOASampler, max_variables: int | None = None) -> None:
        self.backend = backend
        self.max_variables = max_variables or backend.max_qubits  # type: ignore[misc]

    def _solve(
        self,
        problem: CardinalityProblem,
        request: Request,
        *,
        depth: int | None = None,
        mixer: str = "complete",
        angles: str | Angles = "trained",
        alpha: float = 1.0,
        iterations: int = 100,
        **parameters: Any,
    ) -> Solution:
        del parameters
        if mixer not in _SIMULATED:
            raise ParameterError(f"mixer is {mixer!r}, expected one of {', '.join(_SIMULATED)}")
        timing = request.timing
        with timing.stage("preprocess"):
            simulator = Simulator(problem, _SIMULATED[mixer])
            chosen = chosen_angles(simulator, angles, depth, alpha, iterations, request.deadline)
            ising = Ising.from_bqm(problem.to_bqm())
            circuit = subspace_ansatz(
                problem.n, problem.cardinality, ising.edges, chosen.depth, mixer
            )
            values = parameter_values(ising, chosen)
        reads = request.budget.reads or DEFAULT_READS
        seed = int(request.rng.integers(2**31))
        rows = self.backend.run(circuit, values, reads, seed, timing)
        with timing.stage("repair"):
            feasible = problem.is_feasible(rows)
            states = rows.copy()
            if not feasible.all():
                search = LocalSearch(problem)
                for r in np.flatnonzero(~feasible):
                    states[r] = search.fill(rows[r])
        request.report(states[np.argmin(problem.energy(states))].astype(np.bool_))
        info = {
            "mixer": mixer,
            "backend": self.backend.backend,
            "feasible_shots": float(feasible.mean()),
            **describe(chosen, circuit),
        }
        return Solution(states, info, {"raw_sample": rows})
