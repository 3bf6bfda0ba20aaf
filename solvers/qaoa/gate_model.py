"""QAOA run as a circuit on a gate-model backend, its angles from the exact simulator."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from solvers.base import Request, Solution
from solvers.penalised.samples import repaired
from solvers.problem import CardinalityProblem, Floats
from solvers.qaoa.circuit.ansatz import (
    Ising,
    groups_of,
    parameter_values,
    subspace_ansatz,
    x_ansatz,
)
from solvers.qaoa.circuit.gates import Circuit
from solvers.qaoa.rounds import RoundsQAOA, Rows
from solvers.qaoa.sampler import GateModelQAOASampler, describe
from solvers.qaoa.solver import Trained


class CircuitQAOA(RoundsQAOA):
    """Dicke state, cost and XY or Grover mixer as gates, group by group where there are groups.

    Angles come from the exact simulator.

    Without noise every shot is feasible. With noise ``info`` reports post-selection and repair
    apart: ``feasible_shots`` is the share that post-selection keeps, ``post_selected_mean`` and
    ``repaired_mean`` the mean energies. The samples are the shots, the infeasible ones repaired
    greedily and charged as ``repair``; all shots as measured are in the record as ``raw_sample``.

    ``complete`` is the product over pairs, which is what a circuit can do.

    Args:
        backend: runs the circuits.
        max_variables: largest problem it takes; the backend's limit when None.
    """

    mixers: ClassVar = {"complete": "complete-trotter", "ring": "ring", "grover": "grover"}

    def __init__(self, backend: GateModelQAOASampler, max_variables: int | None = None) -> None:
        self.backend = backend
        self.max_variables = max_variables or backend.max_qubits

    def _measure(
        self, problem: CardinalityProblem, request: Request, trained: Trained, reads: int
    ) -> tuple[Rows, dict[str, Any]]:
        with request.timing.stage("preprocess"):
            circuit, values = gates(problem, trained)
        seed = int(request.rng.integers(2**31))
        rows = self.backend.run(circuit, values, reads, seed, request.timing)
        info = {
            **trained.said,
            "backend": self.backend.backend,
            **describe(trained.angles, circuit),
        }
        return rows, info

    def _answer(
        self, problem: CardinalityProblem, request: Request, rows: Rows, info: dict[str, Any]
    ) -> Solution:
        return answer(problem, request, rows, info)


def gates(problem: CardinalityProblem, trained: Trained) -> tuple[Circuit, Floats]:
    """The circuit of a problem and its parameter values."""
    ising = Ising.from_bqm(problem.to_bqm(trained.weight))
    depth = trained.angles.depth
    if trained.mixer == "x":
        circuit = x_ansatz(problem.n, ising.edges, depth)
    else:
        odds = None if trained.warm is None else tuple(trained.warm.odds.tolist())
        circuit = subspace_ansatz(groups_of(problem), ising.edges, depth, trained.mixer, odds)
    return circuit, parameter_values(ising, trained.angles)


def answer(
    problem: CardinalityProblem,
    request: Request,
    rows: NDArray[np.int8],
    info: dict[str, Any],
) -> Solution:
    """Shots, shape (reads, n), as a solution: infeasible ones repaired, both kept apart."""
    with request.timing.stage("repair"):
        states, unrepaired = repaired(problem, rows)
    energies, feasible = problem.energy(states), problem.is_feasible(rows)
    request.report(states[np.argmin(np.where(unrepaired, np.inf, energies))].astype(np.bool_))
    kept = energies[feasible]
    info = {
        "feasible_shots": float(feasible.mean()),
        "post_selected_mean": float(kept.mean()) if len(kept) else None,
        "repaired_mean": float(energies[~unrepaired].mean()),
        **info,
    }
    return Solution(states, info, {"raw_sample": rows})
