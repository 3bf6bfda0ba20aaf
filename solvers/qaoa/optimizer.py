"""Qiskit's own end-to-end path: `MinimumEigenOptimizer` around its variational QAOA.

The block goes in as a `QuadraticProgram` with its cardinality as a linear constraint; no CPLEX or
docplex is involved. Qiskit turns the constraint into a penalty and trains the angles on sampled
energies, which is what a Qiskit user gets without this package's exact simulator.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from qiskit.transpiler import generate_preset_pass_manager
from qiskit_aer.primitives import SamplerV2
from qiskit_optimization import QuadraticProgram
from qiskit_optimization.algorithms import MinimumEigenOptimizer
from qiskit_optimization.minimum_eigensolvers import QAOA
from qiskit_optimization.optimizers import COBYLA

from solvers.arguments import whole
from solvers.base import CardinalitySampler, Request, Solution
from solvers.errors import ParameterError
from solvers.penalised.penalty import DEFAULT_PENALTY, penalty_weight
from solvers.penalised.samples import repaired
from solvers.problem import CardinalityProblem
from solvers.qaoa.angles import checked_depth, linear_ramp
from solvers.qaoa.circuit.ansatz import Ising
from solvers.qaoa.qiskit import aer
from solvers.qaoa.sampler import DEFAULT_MAX_QUBITS, DEFAULT_READS


def to_quadratic_program(problem: CardinalityProblem) -> QuadraticProgram:
    """The problem with binary variables x0.. and one constraint, or one a group; E in float64."""
    program = QuadraticProgram("block")
    for i in range(problem.n):
        program.binary_var(f"x{i}")
    G = problem.gram()
    own = problem.linear + 0.5 * problem.diagonal
    program.minimize(problem.offset, own, np.triu(G, 1))
    for g, ones in enumerate(problem.group_ones):
        name = "cardinality" if problem.groups is None else f"cardinality_{g}"
        program.linear_constraint(problem.group_labels == g, "==", int(ones), name)
    return program


class QiskitOptimizerQAOA(CardinalitySampler):
    """`MinimumEigenOptimizer` with sampled X-mixer QAOA trained by COBYLA on Aer.

    Infeasible shots are repaired greedily, charged as ``repair``; all shots as measured are in the
    record as ``raw_sample``. ``training`` is the time in COBYLA, every evaluation of which takes as
    many shots as the final circuit.

    Parameters of `sample_problem`: ``depth`` (layers, 2 by default) and ``iterations`` (circuit
    evaluations of COBYLA, 100 by default).

    Args:
        max_qubits: largest problem it takes.
        penalty: P in units of the mean |linear bias|, as in `solvers.penalised.penalty`.
    """

    name = "qaoa-qiskit-optimizer"
    track = "penalised"
    takes_groups = True
    warm_up_by_size = True
    honours: ClassVar[tuple[str, ...]] = ("reads",)
    extra_parameters: tuple[str, ...] = ("depth", "iterations")

    def __init__(
        self, max_qubits: int = DEFAULT_MAX_QUBITS, *, penalty: float = DEFAULT_PENALTY
    ) -> None:
        if not 0 < penalty < np.inf:
            raise ParameterError(f"penalty is {penalty}, expected a number above 0")
        self.max_variables = max_qubits
        self.penalty = penalty

    def check_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Names and values of all of them."""
        super().check_parameters(parameters)
        checked_depth(parameters.get("depth", 2))
        whole("iterations", parameters.get("iterations", 100), 1)

    def _solve(
        self,
        problem: CardinalityProblem,
        request: Request,
        *,
        depth: int = 2,
        iterations: int = 100,
        **parameters: Any,
    ) -> Solution:
        del parameters
        p = checked_depth(depth)
        whole("iterations", iterations, 1)
        reads = request.budget.reads or DEFAULT_READS
        timing = request.timing
        with timing.stage("convert"):
            program = to_quadratic_program(problem)
            weight = penalty_weight(problem, self.penalty)
            ramp = linear_ramp(p, Ising.from_bqm(problem.to_bqm(weight)).std())
        with timing.stage("execute"):
            seed = int(request.rng.integers(2**31))
            qaoa = QAOA(
                SamplerV2.from_backend(aer(), seed=seed, default_shots=reads),
                COBYLA(maxiter=iterations),
                reps=p,
                # Qiskit wants the mixer angles first, and its mixer is +sum X.
                initial_point=np.concatenate([np.negative(ramp.betas), ramp.gammas]),
                pass_manager=generate_preset_pass_manager(1, aer()),
            )
            result = MinimumEigenOptimizer(qaoa, penalty=weight).solve(program)
        trained = result.min_eigen_solver_result
        timing["execute"] -= trained.optimizer_time
        timing["training"] += trained.optimizer_time
        counts = [round(sample.probability * reads) for sample in result.samples]
        found = np.array([sample.x for sample in result.samples], np.int8)
        with timing.stage("repair"):
            states, unrepaired = repaired(problem, found)
        energies = np.where(unrepaired, np.inf, problem.energy(states))
        request.report(states[np.argmin(energies)].astype(np.bool_))
        info = {
            "penalty": self.penalty,
            "penalty_weight": weight,
            "depth": p,
            "betas": (-trained.optimal_point[:p]).tolist(),
            "gammas": trained.optimal_point[p:].tolist(),
            "angles": "trained per instance: COBYLA on sampled energies",
            "training_seconds": trained.optimizer_time,
            "evaluations": int(trained.cost_function_evals),
        }
        raw = {"raw_sample": np.repeat(found, counts, axis=0)}
        return Solution(np.repeat(states, counts, axis=0), info, raw)
