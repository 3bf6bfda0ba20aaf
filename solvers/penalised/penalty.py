"""The penalised track: any dimod sampler on ``E(x) + P (sum x - k)^2``, then greedy repair.

With groups there is one such term a group.

The penalty is given in units of the mean |linear bias| of the unpenalised model. On block problems
0.01 to 0.1 finds good states once repaired, 1 and more is always feasible and poor.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar

import dimod
import numpy as np

from solvers.arguments import positive, seeded
from solvers.base import Budget, CardinalitySampler, Request, Solution
from solvers.bqm.convert import check_model
from solvers.clock.deadline import Deadline
from solvers.clock.warmup import tiny_problems, two_groups
from solvers.errors import ParameterError
from solvers.penalised.samples import checked_rows, repaired
from solvers.problem import CardinalityProblem

DEFAULT_PENALTY = 0.1
# Share of a time limit that the sampler leaves for the repair of its rows, that the repair may take
# beyond it, and that the sampler gets however late it starts.
SHARE = 0.1
# Kinds of problems, dense and grouped or not, for which the repair is compiled.
_WARM: set[tuple[bool, bool]] = set()
# SA of Ocean takes signed 32-bit seeds.
MAX_SEED = 2**31 - 1


def penalty_weight(problem: CardinalityProblem, penalty: float) -> float:
    """`penalty` in the problem's own energy unit; positive even where all linear biases are 0."""
    linear = np.abs(problem.linear + 0.5 * problem.diagonal).mean()
    return penalty * float(linear or problem.diagonal.mean() or 1.0)


class PenaltyComposite(CardinalitySampler, dimod.Composite):
    """Puts any dimod sampler on the penalised track.

    The sampler's own rows stay in the sample set's record as ``raw_sample``; the samples are the
    repaired ones, with the sampler's ``num_occurrences``. Equal rows are repaired once. Repair is
    charged as its own stage and kept within the time limit and
    `solvers.penalised.samples.MAX_REPAIRED` rows: those of the lowest energies have their turn
    first, the rest stays infeasible, as it came, and its reads are counted in
    ``info["unrepaired"]``.

    Args:
        child: any dimod sampler.
        name: what to call it; the child's class name when None.
        penalty: P in units of the mean |linear bias|, > 0.
        repair: ``greedy`` flips, ``descent`` adds a swap descent, None leaves rows as they are.

    Raises:
        ParameterError: a penalty that is not positive, an unknown repair.
    """

    track = "penalised"
    compiles = True
    takes_groups = True
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
        positive("penalty", penalty)
        if repair not in self.repairs:
            raise ParameterError(f"repair is {repair!r}, expected one of {self.repairs}")
        self._child = child
        self.penalty = penalty
        self.repair = repair
        self.name = name or type(child).__name__
        self.max_variables = child.properties.get("max_variables")
        self.warm_up_by_size = getattr(child, "warm_up_by_size", False)
        self.extra_parameters = tuple(
            sorted(set(child.parameters) - {*super().parameters, "initial_states"})
        )

    def warm_up(self, *, dense: bool, grouped: bool = False) -> float:
        """Compiles the repair; the sampler, which may cost money, is not called for that."""
        if self.repair is None or (dense, grouped) in _WARM:
            return 0.0
        start = time.perf_counter()
        _WARM.add((dense, grouped))
        groups = two_groups(16, 8) if grouped else None
        for tiny in tiny_problems(16, 8, dense=dense, groups=groups):
            repaired(tiny, np.eye(1, tiny.n, dtype=np.int8), descend=True)
        return time.perf_counter() - start

    @property
    def children(self) -> list[dimod.Sampler]:
        """The wrapped sampler."""
        return [self._child]

    def child_parameters(
        self,
        bqm: dimod.BinaryQuadraticModel,
        problem: CardinalityProblem | None,
        request: Request,
    ) -> dict[str, Any]:
        """Keywords for the child; a generic sampler gets those of its own it understands.

        Args:
            bqm: what the child gets.
            problem: what is being solved; None where a bare model goes straight to the child.
            request: budget and source of randomness.
        """
        budget = request.budget
        limit = budget.time_limit
        wanted = {
            "num_reads": budget.reads,
            "num_sweeps": budget.sweeps,
            "time_limit": None if limit is None else time_left(request),
            "seed": int(request.rng.integers(MAX_SEED)),
        }
        known = self._child.parameters
        return {key: v for key, v in wanted.items() if v is not None and key in known}

    def _sampled(self, bqm: dimod.BinaryQuadraticModel, keywords: dict[str, Any]) -> Any:
        """The child's answer, complete."""
        samples = self._child.sample(bqm, **keywords)
        if isinstance(samples, dimod.SampleSet):
            samples.resolve()
        return samples

    def _compile(self, tiny: CardinalityProblem) -> None:
        """Only repair has compiled loops of ours; the sampler is not called for nothing."""
        repaired(tiny, np.eye(tiny.n, dtype=np.int8), descend=True)

    def check_parameters(self, parameters: Mapping[str, Any]) -> None:
        """As of any solver; the values if the child has a method of this name."""
        super().check_parameters(parameters)
        if hasattr(self._child, "check_parameters"):
            self._child.check_parameters(parameters)

    def check_time(self, n: int, time_limit: float | None) -> None:
        """Refuses a limit that would be over long before the sampler has read n variables."""

    def _solve(self, problem: CardinalityProblem, request: Request, **parameters: Any) -> Solution:
        self.check_time(problem.n, request.budget.time_limit)
        timing = request.timing
        with timing.stage("convert"):
            weight = penalty_weight(problem, self.penalty)
            bqm = problem.to_bqm(weight)
        with timing.stage("preprocess"):
            keywords = self.child_parameters(bqm, problem, request) | parameters
        start = time.perf_counter()
        samples = self._sampled(bqm, keywords)
        spent = time.perf_counter() - start
        with timing.stage("postprocess"):
            rows, counts, kept = checked_rows(samples, bqm.variables, self.name)
            self._split_time(samples.info, spent, request)
        states, unrepaired = rows, np.zeros(len(rows), dtype=np.bool_)
        if self.repair is not None:
            with timing.stage("repair"):
                states, unrepaired = repaired(
                    problem,
                    rows,
                    descend=self.repair == "descent",
                    promise=np.asarray(samples.record.energy, dtype=np.float64)[kept],
                    deadline=request.deadline,
                    late=_later(request),
                )
            # Reported after the repair, which is when these states are known.
            feasible = states[~unrepaired]
            if len(feasible):
                request.report(feasible[int(np.argmin(problem.energy(feasible)))].astype(np.bool_))
        off = np.abs(problem.ones_of(rows) - problem.group_ones).sum(axis=1)
        info = {
            "penalty": self.penalty,
            "penalty_weight": weight,
            "repair": self.repair,
            "raw_violation": float(off @ counts / counts.sum()) if len(rows) else None,
            "unrepaired": int(counts[unrepaired].sum()),
        }
        child = {key: value for key, value in samples.info.items() if key != "timing"}
        vectors: dict[str, Any] = {"raw_sample": rows, "num_occurrences": counts}
        return Solution(states, info | {"child": child}, vectors)

    def _split_time(self, info: dict[str, Any], spent: float, request: Request) -> None:
        """Splits the child's wall time by the stages it reports, in whichever unit."""
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

    def sample(
        self, bqm: dimod.BinaryQuadraticModel, *, cardinality: int | None = None, **parameters: Any
    ) -> dimod.SampleSet:
        """As `CardinalitySampler.sample`; without a cardinality the child gets the bare model."""
        if cardinality is not None:
            return super().sample(bqm, cardinality=cardinality, **parameters)
        check_model(bqm)
        unknown = sorted(set(parameters) - set(self.parameters))
        if unknown:
            raise ParameterError(f"{self.name} has no parameter {unknown[0]!r}")
        if parameters.pop("initial_state", None) is not None:
            raise ParameterError(
                f"initial_state is given, but {self.name} cannot start from a state: leave it out"
            )
        self.check_size(bqm.num_variables)
        budget = Budget(
            parameters.pop("time_limit", None),
            parameters.pop("num_reads", None),
            parameters.pop("num_sweeps", None),
        )
        rng = seeded(parameters.pop("seed", None))
        if not bqm.num_variables:
            # A model of no variables has one state; not every sampler returns it.
            return dimod.SampleSet.from_samples_bqm((np.empty((1, 0), np.int8), []), bqm)
        request = Request(budget, rng, None, lambda state: None, Deadline(budget.time_limit))
        samples = self._sampled(bqm, self.child_parameters(bqm, None, request) | parameters)
        checked_rows(samples, bqm.variables, self.name)
        return samples.change_vartype(bqm.vartype, inplace=False)


def time_left(request: Request, overhead: float = 0.0) -> float:
    """Seconds that a sampler may search, so that repair is within the limit too; inf without one.

    Args:
        request: with its deadline.
        overhead: seconds that the sampler takes before it searches.
    """
    share = SHARE * (request.budget.time_limit or 0.0)
    return max(share, request.deadline.left - share - overhead)


def _later(request: Request) -> Deadline:
    """When repair must end."""
    if request.budget.time_limit is None:
        return request.deadline
    return Deadline(request.deadline.left + SHARE * request.budget.time_limit)
