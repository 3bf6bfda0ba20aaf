"""Leap's hybrid solvers on a problem with its constraint: they use up quota, or money.

`LeapHybridNL` sends a nonlinear model whose every state has the right number of ones, see
`solvers.cloud.nonlinear`; `LeapHybridCQM` a quadratic model with a constraint, whose answers may
break it. Both are charged for the whole time limit, and nothing is sent without a cap, see
`solvers.cloud.quota`. `rehearse` puts a local stand-in in the service's place, with the same checks
and records.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future
from functools import cached_property
from types import SimpleNamespace
from typing import Any, ClassVar

import dimod
import neal
import numpy as np
from dwave.optimization import Model
from dwave.system import LeapHybridCQMSampler, LeapHybridNLSampler

from solvers.base import Budget, CardinalitySampler, Request, Solution
from solvers.cloud.nonlinear import nonlinear_model, put_states, states_of
from solvers.cloud.quota import Cap, connected
from solvers.errors import ParameterError, SampleError
from solvers.penalised.penalty import MAX_SEED
from solvers.penalised.samples import checked_rows, repaired
from solvers.problem import CardinalityProblem
from solvers.search.descent import Descent


class _Hybrid(CardinalitySampler):
    """What the hybrid solvers share: the cap, the connection, the least time limit, the charge."""

    honours = ("time_limit",)
    paid = True
    max_variables = 8192
    client: ClassVar[type]
    stand_in: ClassVar[type]

    def __init__(self, *, max_service_time: float | None = None, rehearse: bool = False) -> None:
        self.cap = Cap(max_service_time, self.name)
        self.rehearse = rehearse

    def __getstate__(self) -> dict[str, Any]:
        # The connection belongs to this process.
        return {key: value for key, value in self.__dict__.items() if key != "service"}

    @cached_property
    def service(self) -> Any:
        """Leap, or the stand-in."""
        return self.stand_in() if self.rehearse else connected(self.client, self.name)

    def check(self) -> None:
        """Raises where nothing could ever be sent: no cap, no token, no network."""
        self.cap.check()
        assert self.service

    def _reserved(self, least: float, request: Request) -> float:
        """The seconds to ask for, taken from the cap; refused below the service's least."""
        limit = request.budget.time_limit or least
        if limit < least:
            raise ParameterError(
                f"time_limit is {limit:g}, {self.name} needs at least {least:g} s for this "
                "problem: raise it"
            )
        self.cap.reserve(limit)
        return limit

    def _settled(
        self, limit: float, waited: float, told: Mapping[str, Any], request: Request
    ) -> dict[str, Any]:
        """Books what was charged, splits the wait, and says so for ``info``.

        Args:
            limit: seconds reserved.
            waited: seconds until the answer was there.
            told: what the service says of its time, in microseconds.
            request: whose timing it goes into.
        """
        charged = 1e-6 * float(told.get("charge_time", 1e6 * limit))
        self.cap.settle(limit, charged)
        ran = min(waited, 1e-6 * float(told.get("run_time", 1e6 * charged)))
        request.timing["execute"] += ran
        request.timing["queue"] += waited - ran
        return {
            "service_seconds": charged,
            "service_seconds_used": self.cap.used,
            "rehearsal": self.rehearse,
        }


class RehearsedNL:
    """Stands in for Leap: swap descents, handed back as states of the model that was sent."""

    STATES: ClassVar[int] = 4

    def estimated_min_time_limit(self, model: Model) -> float:
        """Seconds; Leap's is 5 and more, here there is nothing to wait for."""
        return 0.1

    def sample(
        self, model: Model, *, time_limit: float, problem: CardinalityProblem, seed: int
    ) -> Future[Any]:
        """Some states, charged as Leap would: the whole time limit.

        Model and states go through files, as on their way to the service and back.
        """
        budget = Budget(reads=self.STATES, time_limit=time_limit)
        found = Descent().sample_problem(problem, budget=budget, seed=seed)
        with model.to_file() as file:
            sent = Model.from_file(file)
        sent.lock()
        put_states(sent, problem, found.record.sample)
        with sent.states.to_file() as file:
            model.states.from_file(file)
        timing = {"charge_time": 1e6 * time_limit, "run_time": 1e6 * time_limit}
        done: Future[Any] = Future()
        done.set_result(SimpleNamespace(model=model, info={"timing": timing}))
        return done


class LeapHybridNL(_Hybrid):
    """Leap's hybrid solver for nonlinear models: every state has the right number of ones.

    A time limit below the service's estimate for the problem is refused. ``info`` has the seconds
    charged.

    Args:
        max_service_time: seconds that all calls may run together; nothing is sent without it.
        rehearse: descend on this machine instead.
    """

    name = "leap-hybrid-nl"
    takes_groups = True
    client = LeapHybridNLSampler
    stand_in = RehearsedNL

    def _solve(self, problem: CardinalityProblem, request: Request, **parameters: Any) -> Solution:
        self.cap.check()
        with request.timing.stage("convert"):
            model = nonlinear_model(problem)
        limit = self._reserved(float(self.service.estimated_min_time_limit(model)), request)
        local: dict[str, Any] = {}
        if self.rehearse:
            local = {"problem": problem, "seed": int(request.rng.integers(MAX_SEED))}
        start = time.perf_counter()
        answer = self.service.sample(model, time_limit=limit, **local).result()
        waited = time.perf_counter() - start
        info = self._settled(limit, waited, answer.info.get("timing", {}), request)
        with request.timing.stage("postprocess"):
            states = states_of(model, problem)
        if not len(states):
            raise SampleError(f"{self.name} returned no state: raise the time limit")
        request.report(states[int(np.argmin(problem.energy(states)))].astype(np.bool_))
        return Solution(states, info)


class RehearsedCQM:
    """Stands in for Leap: simulated annealing with the constraint as a penalty, breaking some."""

    READS: ClassVar[int] = 8

    def min_time_limit(self, cqm: dimod.ConstrainedQuadraticModel) -> float:
        """Seconds; Leap's is 5 and more, here there is nothing to wait for."""
        return 0.1

    def sample_cqm(
        self, cqm: dimod.ConstrainedQuadraticModel, *, time_limit: float, seed: int
    ) -> dimod.SampleSet:
        """Some rows, charged as Leap would: the whole time limit."""
        biases = np.abs(list(cqm.objective.linear.values()))
        bqm, _ = dimod.cqm_to_bqm(cqm, lagrange_multiplier=0.1 * float(biases.mean() or 1.0))
        samples = neal.SimulatedAnnealingSampler().sample(
            bqm, num_reads=self.READS, num_sweeps=100, seed=seed, interrupt_function=None
        )
        samples.info.clear()
        samples.info.update(charge_time=1e6 * time_limit, run_time=1e6 * time_limit)
        return samples


class LeapHybridCQM(_Hybrid):
    """Leap's hybrid solver for constrained quadratic models.

    A time limit below the service's least for the problem is refused. Rows that break the
    constraint are repaired and counted in ``info["infeasible_rows"]``.

    Args:
        max_service_time: seconds that all calls may run together; nothing is sent without it.
        rehearse: anneal on this machine instead.
    """

    name = "leap-hybrid-cqm"
    client = LeapHybridCQMSampler
    stand_in = RehearsedCQM

    def _solve(self, problem: CardinalityProblem, request: Request, **parameters: Any) -> Solution:
        self.cap.check()
        with request.timing.stage("convert"):
            cqm = problem.to_cqm()
        limit = self._reserved(float(self.service.min_time_limit(cqm)), request)
        seed = {"seed": int(request.rng.integers(MAX_SEED))} if self.rehearse else {}
        start = time.perf_counter()
        samples = self.service.sample_cqm(cqm, time_limit=limit, **seed)
        samples.resolve()
        info = self._settled(limit, time.perf_counter() - start, samples.info, request)
        with request.timing.stage("repair"):
            rows, counts, _ = checked_rows(samples, cqm.variables, self.name)
            broken = ~problem.is_feasible(rows)
            states, unrepaired = repaired(problem, rows)
        # A native solver answers with feasible states only.
        states, counts = states[~unrepaired], counts[~unrepaired]
        request.report(states[int(np.argmin(problem.energy(states)))].astype(np.bool_))
        info["infeasible_rows"] = int(broken.sum())
        return Solution(states, info, {"num_occurrences": counts})
