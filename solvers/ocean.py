"""D-Wave Ocean's classical samplers in the penalised lane.

Two things are done for them that cost nothing and matter much: inverse temperatures come from the
spread of swap energies (Ocean derives its own in a Python loop over all couplings), and a time
limit becomes what each sampler understands: an interrupt between reads for the annealers,
milliseconds per read for tabu.
"""

from __future__ import annotations

from typing import Any

import neal
import numpy as np
from dwave.samplers import (
    PathIntegralAnnealingSampler,
    RandomSampler,
    SteepestDescentSampler,
    TabuSampler,
)

from solvers.base import Request
from solvers.penalty import MAX_SEED, PenaltyComposite
from solvers.problem import CardinalityProblem

# More rows than this are never kept: each is repaired and scored.
MAX_READS = 100


def swap_spread(problem: CardinalityProblem, rng: np.random.Generator) -> float:
    """Mean |energy change| of 1000 random swaps at a random feasible state."""
    n, k = problem.n, problem.cardinality
    state = np.zeros(n, dtype=np.bool_)
    state[rng.permutation(n)[:k]] = True
    out = rng.choice(np.flatnonzero(state), 1000)
    into = rng.choice(np.flatnonzero(~state), 1000)
    f = problem.fields(state) + 0.5 * problem.diagonal
    return float(np.abs(f[into] - f[out] + problem.diagonal[out]).mean())


class _Annealer(PenaltyComposite):
    """Reads of a fixed number of sweeps until the time limit, at least one."""

    honours = ("time_limit", "reads", "sweeps")
    updates_per_second = 1e9
    """Couplings the annealer touches a second; sizes a read to the time limit."""
    default_sweeps = 1000

    def child_parameters(
        self, problem: CardinalityProblem | None, request: Request
    ) -> dict[str, Any]:
        """Reads, sweeps, seed, interrupt and inverse temperatures."""
        budget = request.budget
        sweeps = budget.sweeps or self.default_sweeps
        reads = budget.reads or (1 if budget.time_limit is None else MAX_READS)
        keywords: dict[str, Any] = {"seed": int(request.rng.integers(MAX_SEED)), "num_reads": reads}
        if problem is not None:
            hot = swap_spread(problem, request.rng) or 1.0
            keywords["beta_range"] = (1 / hot, 1000 / hot)
            if budget.time_limit is not None and budget.sweeps is None:
                fit = 0.5 * budget.time_limit * self.updates_per_second / problem.n**2
                sweeps = int(np.clip(fit, 10, sweeps))
        if budget.time_limit is not None:
            keywords["interrupt_function"] = lambda: request.deadline.over
        return keywords | {"num_sweeps": sweeps}


class Neal(_Annealer):
    """Simulated annealing of `dwave-neal` (which re-exports dwave-samplers' class)."""

    def __init__(self, **options: Any) -> None:
        super().__init__(neal.SimulatedAnnealingSampler(), name="neal", **options)


class PathIntegral(_Annealer):
    """Path-integral Monte Carlo, a classical simulation of quantum annealing.

    One read of ten sweeps on a dense model of 4096 variables takes 9 s, hence the size limit.
    """

    updates_per_second = 3e7
    default_sweeps = 100

    def __init__(self, **options: Any) -> None:
        super().__init__(PathIntegralAnnealingSampler(), name="path-integral", **options)
        self.max_variables = 1024  # type: ignore[misc]


class OceanTabu(PenaltyComposite):
    """Multistart tabu search; one read that takes the whole time limit."""

    honours = ("time_limit", "reads")

    def __init__(self, **options: Any) -> None:
        super().__init__(TabuSampler(), name="ocean-tabu", **options)

    def child_parameters(
        self, problem: CardinalityProblem | None, request: Request
    ) -> dict[str, Any]:
        """The time left, in milliseconds, shared out over the reads."""
        reads = request.budget.reads or 1
        keywords = {"seed": int(request.rng.integers(MAX_SEED)), "num_reads": reads}
        if request.budget.time_limit is None:
            # With its default of 20 ms the result would hang on the machine's load.
            return keywords | {
                "timeout": 10**6,
                "num_restarts": 1,
                "coefficient_z_first": 100,
                "lower_bound_z": 10_000,
            }
        left = request.deadline.left
        return keywords | {"timeout": max(1, int(1000 * left / reads))}


class SteepestDescent(PenaltyComposite):
    """Bit-flip descent on the penalised model from random starts."""

    def __init__(self, **options: Any) -> None:
        super().__init__(SteepestDescentSampler(), name="steepest-descent", **options)


class Random(PenaltyComposite):
    """Uniform bit strings: what repair makes of nothing."""

    def __init__(self, **options: Any) -> None:
        super().__init__(RandomSampler(), name="random", **options)
