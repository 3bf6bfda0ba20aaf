"""D-Wave's quantum annealers and Leap's hybrid solver: they use up quota, or money.

As with the devices of Braket nothing is sent without a cap. D-Wave sells seconds of service, not
tasks, so the cap is `max_service_time`: QPU access time, or the hybrid solver's run time, that all
calls of one solver object may use together. It does not outlive the object: a study that is resumed
starts a new one.

Block problems are dense. The annealer therefore gets the clique embedding of its graph, which is
found without search and whose qubits are known before anything is sent; with them the SDK's own
model tells the access time.

Credentials come from the SDK's own chain (`dwave config create`, or the variable DWAVE_API_TOKEN).
`rehearse` puts a local stand-in in the service's place, with the same checks and records.
"""

from __future__ import annotations

import math
import time
from functools import cached_property
from typing import Any, ClassVar

import dimod
import neal
import numpy as np
from dwave.system import DWaveSampler, FixedEmbeddingComposite, LeapHybridCQMSampler
from dwave.system.testing import MockDWaveSampler
from minorminer.busclique import find_clique_embedding

from solvers.base import CardinalitySampler, Request, Solution
from solvers.errors import CostError, OfflineError, ParameterError
from solvers.penalised.penalty import MAX_SEED, PenaltyComposite
from solvers.penalised.samples import checked_rows, repaired
from solvers.problem import CardinalityProblem

DEFAULT_READS = 100
# Largest clique of an Advantage chip without faults; the chip at hand decides.
LARGEST_CLIQUE = 180
# The stand-in: a Pegasus graph that holds a clique of 60.
REHEARSAL_TOPOLOGY: dict[str, Any] = {"topology_type": "pegasus", "topology_shape": [6]}
REHEARSAL_CLIQUE = 60
# Microseconds that the stand-in claims for programming, and for a read at 20 of annealing.
REHEARSAL_PROGRAMMING, REHEARSAL_READ = 8468.2, 82.08
SETUP = "run 'dwave config create' or set DWAVE_API_TOKEN; rehearse=True works without"


class Cap:
    """Seconds of service that may be used in all.

    Args:
        seconds: the cap; None lets nothing through.
        name: of the solver.

    Attributes:
        used: seconds charged, and reserved for what is out.
    """

    def __init__(self, seconds: float | None, name: str) -> None:
        if seconds is not None and not 0 < seconds < math.inf:
            raise ParameterError(f"max_service_time is {seconds!r}, expected seconds above 0")
        self.seconds, self.name = seconds, name
        self.used = 0.0

    def check(self) -> None:
        """Raises CostError without a cap."""
        if self.seconds is None:
            raise CostError(
                f"{self.name} has no max_service_time: pass the seconds of service that it may use "
                "in all"
            )

    def reserve(self, seconds: float) -> None:
        """Takes what a call may use; CostError if that is more than is left."""
        self.check()
        assert self.seconds is not None
        if self.used + seconds > self.seconds:
            raise CostError(
                f"{self.name} would use {seconds:.4g} s of service, with {self.used:.4g} s of "
                f"max_service_time={self.seconds:g} already used; raise it or make fewer reads"
            )
        self.used += seconds

    def settle(self, reserved: float, charged: float) -> None:
        """Puts what was charged in the place of what was reserved."""
        self.used += charged - reserved


def _connected(service: type, name: str, **config: Any) -> Any:
    try:
        return service(**config)
    except Exception as error:  # the SDK has no common root: ValueError, SAPI and network errors
        raise OfflineError(f"solver {name!r}: no connection to D-Wave ({error}); {SETUP}") from (
            error
        )


class _Annealer(dimod.Sampler):
    """One chip, reached when it is first needed; every model as a clique, under the cap."""

    def __init__(self, cap: Cap, chip: str | None, rehearse: bool) -> None:
        self.cap, self._chip, self.rehearse = cap, chip, rehearse

    def __getstate__(self) -> dict[str, Any]:
        # The connection belongs to this process.
        return {k: value for k, value in self.__dict__.items() if k not in ("chip", "_graph")}

    @property
    def parameters(self) -> dict[str, Any]:
        """The seed belongs to the stand-in; nobody can seed a chip."""
        names = ["num_reads", "annealing_time", "chain_strength"] + ["seed"] * self.rehearse
        return {name: [] for name in names}

    @property
    def properties(self) -> dict[str, Any]:
        """The size limit that is known without asking anybody."""
        return {"max_variables": REHEARSAL_CLIQUE if self.rehearse else LARGEST_CLIQUE}

    @cached_property
    def chip(self) -> Any:
        """The chip, or the stand-in."""
        if self.rehearse:
            return MockDWaveSampler(**REHEARSAL_TOPOLOGY, parameter_warnings=False)
        return _connected(
            DWaveSampler, self.cap.name, **({"solver": self._chip} if self._chip else {})
        )

    @cached_property
    def _graph(self) -> Any:
        return self.chip.to_networkx_graph()

    def access_time(self, qubits: int, reads: int, annealing_time: float | None) -> float:
        """Seconds that a call will be charged, by the SDK's model of the chip."""
        if self.rehearse:
            extra = (annealing_time or 20.0) - 20.0
            return 1e-6 * (REHEARSAL_PROGRAMMING + reads * (REHEARSAL_READ + extra))
        given = {} if annealing_time is None else {"annealing_time": annealing_time}
        estimate = self.chip.solver.estimate_qpu_access_time
        return 1e-6 * float(estimate(num_qubits=qubits, num_reads=reads, **given))

    def sample(
        self,
        bqm: dimod.BinaryQuadraticModel,
        *,
        num_reads: int = DEFAULT_READS,
        annealing_time: float | None = None,
        chain_strength: float | None = None,
        seed: int | None = None,
    ) -> dimod.SampleSet:
        """One submission.

        Args:
            bqm: any model that fits the chip as a clique.
            num_reads: anneals.
            annealing_time: microseconds of one; the chip's default when None.
            chain_strength: the SDK's default when None.
            seed: of the stand-in.
        """
        self.cap.check()
        start = time.perf_counter()
        nodes = list(bqm.variables)
        embedding = find_clique_embedding(nodes, self._graph)
        if len(embedding) != len(nodes):
            raise dimod.exceptions.BinaryQuadraticModelSizeError(
                f"{self.cap.name} has no clique of {len(nodes)} variables on this chip: take a "
                "smaller problem"
            )
        qubits = sum(map(len, embedding.values()))
        reserved = self.access_time(qubits, num_reads, annealing_time)
        self.cap.reserve(reserved)
        keywords = {"annealing_time": annealing_time, "chain_strength": chain_strength}
        keywords = {key: value for key, value in keywords.items() if value is not None}
        if self.rehearse:
            self.chip.substitute_kwargs = {} if seed is None else {"seed": seed}
        embedded = time.perf_counter()
        samples = FixedEmbeddingComposite(self.chip, embedding).sample(
            bqm, num_reads=num_reads, answer_mode="raw", **keywords
        )
        samples.resolve()
        waited = time.perf_counter() - embedded
        timing = samples.info.get("timing", {})
        charged = (
            reserved if self.rehearse else 1e-6 * timing.get("qpu_access_time", reserved * 1e6)
        )
        self.cap.settle(reserved, charged)
        samples.info.update(
            {
                "timing": {"preprocess": embedded - start, "queue": max(0.0, waited - charged)},
                "service_seconds": charged, "service_seconds_used": self.cap.used,
                "qubits": qubits, "chip": self.chip.properties.get("chip_id"),
                "rehearsal": self.rehearse,
            }
        )  # fmt: skip
        return samples


class QPU(PenaltyComposite):
    """A quantum annealer on the penalised problem.

    Parameters of `sample_problem`: ``annealing_time`` (microseconds), ``chain_strength``. ``info``
    has, under ``child``, the qubits, the chip and the seconds charged.

    Args:
        max_service_time: seconds of QPU access that all calls may use together; nothing is sent
            without it.
        chip: name of the solver at D-Wave; the SDK's choice when None.
        rehearse: run on the SDK's mock instead.
        **options: of `PenaltyComposite`.
    """

    paid = True

    def __init__(
        self,
        *,
        max_service_time: float | None = None,
        chip: str | None = None,
        rehearse: bool = False,
        **options: Any,
    ) -> None:
        self._annealer = _Annealer(Cap(max_service_time, "qpu"), chip, rehearse)
        super().__init__(self._annealer, name="qpu", **options)

    def check(self) -> None:
        """Raises where nothing could ever be sent: no cap, no token, no network."""
        self._annealer.cap.check()
        assert self._annealer.chip


class LeapHybridCQM(CardinalitySampler):
    """Leap's hybrid solver on the problem with its constraint.

    A time limit below the service's least for the problem is refused. Rows that break the
    constraint are repaired and counted in ``info["infeasible_rows"]``.

    Args:
        max_service_time: seconds that all calls may run together; nothing is sent without it.
        rehearse: anneal on this machine instead.
    """

    name = "leap-hybrid-cqm"
    honours = ("time_limit",)
    paid = True
    max_variables = 8192

    def __init__(self, *, max_service_time: float | None = None, rehearse: bool = False) -> None:
        self.cap = Cap(max_service_time, self.name)
        self.rehearse = rehearse

    def __getstate__(self) -> dict[str, Any]:
        # The connection belongs to this process.
        return {key: value for key, value in self.__dict__.items() if key != "service"}

    @cached_property
    def service(self) -> Any:
        """Leap, or the stand-in."""
        return RehearsedCQM() if self.rehearse else _connected(LeapHybridCQMSampler, self.name)

    def check(self) -> None:
        """Raises where nothing could ever be sent: no cap, no token, no network."""
        self.cap.check()
        assert self.service

    def _solve(self, problem: CardinalityProblem, request: Request, **parameters: Any) -> Solution:
        self.cap.check()
        with request.timing.stage("convert"):
            cqm = problem.to_cqm()
        least = float(self.service.min_time_limit(cqm))
        limit = request.budget.time_limit or least
        if limit < least:
            raise ParameterError(
                f"time_limit is {limit:g}, {self.name} needs at least {least:g} s for this "
                "problem: raise it"
            )
        self.cap.reserve(limit)
        seed = {"seed": int(request.rng.integers(MAX_SEED))} if self.rehearse else {}
        start = time.perf_counter()
        samples = self.service.sample_cqm(cqm, time_limit=limit, **seed)
        samples.resolve()
        waited = time.perf_counter() - start
        charged = 1e-6 * float(samples.info.get("charge_time", 1e6 * limit))
        self.cap.settle(limit, charged)
        ran = min(waited, 1e-6 * float(samples.info.get("run_time", 1e6 * charged)))
        request.timing["execute"] += ran
        request.timing["queue"] += waited - ran
        with request.timing.stage("repair"):
            rows, counts, _ = checked_rows(samples, cqm.variables, self.name)
            broken = ~problem.is_feasible(rows)
            states, unrepaired = repaired(problem, rows)
        # A native solver answers with feasible states only.
        states, counts = states[~unrepaired], counts[~unrepaired]
        request.report(states[int(np.argmin(problem.energy(states)))].astype(np.bool_))
        info = {
            "infeasible_rows": int(broken.sum()), "service_seconds": charged,
            "service_seconds_used": self.cap.used, "rehearsal": self.rehearse,
        }  # fmt: skip
        return Solution(states, info, {"num_occurrences": counts})


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
