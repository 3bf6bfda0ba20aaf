"""The penalised lane: any dimod sampler on ``E(x) + P (sum x - k)^2``, then greedy repair.

The penalty is given in units of the mean |linear bias| of the unpenalised model. On block problems
0.01 to 0.1 finds good states once repaired, 1 and more is always feasible and poor.
"""

from __future__ import annotations

import time
from typing import Any, ClassVar

import dimod
import numpy as np

from solvers.base import Budget, CardinalitySampler, Request, Solution
from solvers.deadline import Deadline
from solvers.errors import ParameterError
from solvers.problem import CardinalityProblem
from solvers.repair import LocalSearch

DEFAULT_PENALTY = 0.1
# SA of Ocean takes signed 32-bit seeds.
MAX_SEED = 2**31 - 1


def penalty_weight(problem: CardinalityProblem, penalty: float) -> float:
    """`penalty` in the problem's own energy unit; positive even where all linear biases are 0."""
    linear = np.abs(problem.linear + 0.5 * problem.diagonal).mean()
    return penalty * float(linear or problem.diagonal.mean() or 1.0)


class PenaltyComposite(CardinalitySampler, dimod.Composite):
    """Puts any dimod sampler into the penalised lane.

    The sampler's own rows stay in the sample set's record as ``raw_sample``; the samples are the
    repaired ones. Repair is charged as its own stage.

    Args:
        child: any dimod sampler.
        name: what to call it; the child's class name when None.
        penalty: P in units of the mean |linear bias|, > 0.
        repair: ``greedy`` flips, ``descent`` adds a swap descent, None leaves rows as they are.

    Raises:
        ParameterError: a penalty that is not positive, an unknown repair.
    """

    lane = "penalised"
    honours: ClassVar[tuple[str, ...]] = ("reads",)
    repairs: ClassVar[tuple[str | None, ...]] = ("greedy", "descent", None)

    def __init__(
        self,
        child: dimod.Sampler,
        *,
        name: str | None = None,
        penalty: float = DEFAULT_PENALTY,
        repair: str | None = "greedy",
    ) -> None:
        if not 0 < penalty < np.inf:
            raise ParameterError(f"penalty is {penalty}, expected a number above 0")
        if repair not in self.repairs:
            raise ParameterError(f"repair is {repair!r}, expected one of {self.repairs}")
        self._child = child
        self.penalty = penalty
        self.repair = repair
        self.name = name or type(child).__name__  # type: ignore[misc]
        self.max_variables = child.properties.get("max_variables")  # type: ignore[misc]
        self.warm_up_by_size = getattr(child, "warm_up_by_size", False)  # type: ignore[misc]
        self.extra_parameters = tuple(  # type: ignore[misc]
            sorted(set(child.parameters) - {*super().parameters, "initial_states"})
        )

    @property
    def children(self) -> list[dimod.Sampler]:
        """The wrapped sampler."""
        return [self._child]

    def child_parameters(
        self, problem: CardinalityProblem | None, request: Request
    ) -> dict[str, Any]:
        """Keywords for the child; a generic sampler gets those of its own it understands.

        Args:
            problem: what is being solved; None where a bare model goes straight to the child.
            request: budget and source of randomness.
        """
        budget = request.budget
        wanted = {
            "num_reads": budget.reads,
            "num_sweeps": budget.sweeps,
            "time_limit": budget.time_limit,
            "seed": int(request.rng.integers(MAX_SEED)),
        }
        known = self._child.parameters
        return {key: v for key, v in wanted.items() if v is not None and key in known}

    def _solve(self, problem: CardinalityProblem, request: Request, **parameters: Any) -> Solution:
        timing = request.timing
        with timing.stage("convert"):
            weight = penalty_weight(problem, self.penalty)
            bqm = problem.to_bqm(weight)
        with timing.stage("preprocess"):
            keywords = self.child_parameters(problem, request) | parameters
        start = time.perf_counter()
        samples = self._child.sample(bqm, **keywords)
        samples.resolve()
        spent = time.perf_counter() - start
        with timing.stage("postprocess"):
            self._book(samples.info, spent, request)
            samples = samples.change_vartype(dimod.BINARY, inplace=False)
            rows = _expanded(samples, problem.n)
        with timing.stage("repair"):
            states = self._repaired(problem, rows)
        # Not before the repair has run: a row is worth what is known when it is handed over.
        if self.repair is not None and len(states):
            request.report(states[int(np.argmin(problem.energy(states)))].astype(np.bool_))
        off = np.abs(rows.sum(axis=1, dtype=np.int64) - problem.cardinality)
        info = {
            "penalty": self.penalty,
            "penalty_weight": weight,
            "repair": self.repair,
            "raw_violation": float(off.mean()) if len(rows) else None,
        }
        child = {key: value for key, value in samples.info.items() if key != "timing"}
        return Solution(states, info | {"child": child}, {"raw_sample": rows})

    def _book(self, info: dict[str, Any], spent: float, request: Request) -> None:
        """Splits the child's wall time by what it reports, whatever unit it speaks."""
        reported = info.get("timing") or {}
        timing = request.timing
        seconds = {
            "preprocess": reported.get("preprocess", reported.get("preprocessing_ns", 0) * 1e-9),
            "postprocess": reported.get("postprocess", reported.get("postprocessing_ns", 0) * 1e-9),
            "queue": reported.get("queue", 0.0),
        }
        for key, value in seconds.items():
            timing[key] += value
        timing["execute"] += max(0.0, spent - sum(seconds.values()))

    def _repaired(self, problem: CardinalityProblem, rows: Any) -> Any:
        if self.repair is None:
            return rows
        search = LocalSearch(problem)
        states = np.empty_like(rows)
        for row, state in zip(rows, states, strict=True):
            state[:] = search.fill(row)
            if self.repair == "descent":
                state[:] = search.descend(state)
        return states

    def sample(
        self, bqm: dimod.BinaryQuadraticModel, *, cardinality: int | None = None, **parameters: Any
    ) -> dimod.SampleSet:
        """As `CardinalitySampler.sample`; without a cardinality the child gets the bare model."""
        if cardinality is not None:
            return super().sample(bqm, cardinality=cardinality, **parameters)
        unknown = sorted(set(parameters) - set(self.parameters))
        if unknown:
            raise ParameterError(f"{self.name} has no parameter {unknown[0]!r}")
        if parameters.pop("initial_state", None) is not None:
            raise ParameterError(f"{self.name} cannot use an initial state; leave it out")
        self.check_size(bqm.num_variables)
        if not bqm.num_variables:
            return dimod.SampleSet.from_samples_bqm({}, bqm)
        budget = Budget(
            parameters.pop("time_limit", None),
            parameters.pop("num_reads", None),
            parameters.pop("num_sweeps", None),
        )
        rng = np.random.default_rng(parameters.pop("seed", None))
        request = Request(budget, rng, None, lambda state: None, Deadline(budget.time_limit))
        return self._child.sample(bqm, **self.child_parameters(None, request) | parameters)


def _expanded(samples: dimod.SampleSet, n: int) -> Any:
    """One row a read over variables 0..n-1, shape (m, n) of int8."""
    order = np.argsort(np.asarray(samples.variables, dtype=np.intp))
    rows = samples.record.sample[:, order].astype(np.int8)
    if rows.shape[1] != n:
        raise ParameterError(f"the sampler returned {rows.shape[1]} variables, expected {n}")
    return np.repeat(rows, samples.record.num_occurrences, axis=0)
