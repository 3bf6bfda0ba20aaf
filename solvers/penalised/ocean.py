"""D-Wave Ocean's classical samplers on the penalised track.

Three things are done for them that cost nothing and matter much. Inverse temperatures come from the
spread of swap energies (Ocean derives its own in a Python loop over all couplings). A time limit
becomes what each sampler understands: an interrupt between reads for the annealers, milliseconds
per read for tabu; what the sampler spends on reading the model, which nothing interrupts, is
estimated first and taken off. And they run in a thread of their own, so that Ctrl-C is answered at
once: raised inside their compiled code it would be dropped. Annealers then end with the read they
are at, the others on their own; nothing waits for them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import dimod
import neal
import numpy as np
from dwave.samplers import (
    PathIntegralAnnealingSampler,
    RandomSampler,
    SteepestDescentSampler,
    TabuSampler,
)

from solvers.arguments import whole
from solvers.base import Budget, Request
from solvers.clock.background import run_until
from solvers.clock.deadline import Deadline
from solvers.errors import ParameterError
from solvers.penalised.penalty import MAX_SEED, PenaltyComposite, time_left
from solvers.problem import CardinalityProblem, Floats

# More rows than this are never kept: each is repaired and scored.
MAX_READS = 100
# Couplings, counted twice, of a dense model that are made and read a second, high on purpose.
MODEL_RATE = 1e7
# Reads that may fit if they are this many times as fast as estimated.
OPTIMISM = 10
# Seconds that an annealer takes to read a coupling; that tabu takes for one of its n^2, once and
# for every read.
READING = 1.2e-7
TABU_READING, TABU_SET_UP = 1e-8, 8e-9
# Draws that are made at a time: between two of them Ctrl-C is heard.
SLICE = 0.25
MAX_DRAWS = 1000


def swap_spread(problem: CardinalityProblem, rng: np.random.Generator) -> float:
    """Mean |energy change| of 1000 random swaps at a random feasible state."""
    state = problem.random_state(rng)
    out = rng.choice(np.flatnonzero(state), 1000)
    into = rng.choice(np.flatnonzero(~state), 1000)
    f = problem.fields(state) + 0.5 * problem.diagonal
    return float(np.abs(f[into] - f[out] + problem.diagonal[out]).mean())


def flip_spread(bqm: dimod.BinaryQuadraticModel, rng: np.random.Generator) -> float:
    """Mean |energy change| of all single flips at a random state."""
    h, (rows, columns, J), _ = bqm.spin.to_numpy_vectors(variable_order=list(bqm.variables))
    s = rng.choice((-1.0, 1.0), len(h))
    fields: Floats = h + np.bincount(rows, J * s[columns], len(h))
    fields += np.bincount(columns, J * s[rows], len(h))
    return float(2 * np.abs(fields).mean())


class ReadClock:
    """Stops an annealer between two reads, where the next would end too late.

    Attributes:
        deadline: when it must have ended; whoever wants no further read stops it.
    """

    def __init__(self, deadline: Deadline) -> None:
        self.deadline = deadline
        self._first: float | None = None
        self._reads = 0

    def __call__(self) -> bool:
        """Asked by the sampler after every read; True ends it."""
        now = time.perf_counter()
        if self._first is None:
            # What came before the first read is not known; the mean is that of the others.
            self._first = now
            return self.deadline.over
        self._reads += 1
        return self.deadline.left <= (now - self._first) / self._reads


def _clock(seconds: float) -> ReadClock:
    return ReadClock(Deadline(None if seconds == math.inf else seconds))


# Parameters whose bounds depend on the problem or the budget, with the least value of numbers.
_LATER = {"beta_schedule": None, "interrupt_function": None, "num_sweeps_per_beta": 1, "tenure": 0}


class _Ocean(PenaltyComposite):
    """Runs the sampler in a thread."""

    def check_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Has the sampler solve a model of four variables with them, for 10 ms.

        Raises:
            ParameterError: what it says of them.
        """
        super().check_parameters(parameters)
        for name, least in _LATER.items():
            if name in parameters and least is not None:
                whole(name, parameters[name], least)
        given = {name: value for name, value in parameters.items() if name not in _LATER}
        if not given:
            return
        if isinstance(given.get("timeout"), int | float):
            given["timeout"] = min(given["timeout"], 10)
        linear, rng = dict.fromkeys(range(4), 1.0), np.random.default_rng(0)
        tiny = dimod.BinaryQuadraticModel(linear, {(0, 1): -3.0}, "BINARY")
        budget = Budget(time_limit=0.01)
        request = Request(budget, rng, None, lambda state: None, Deadline(budget.time_limit))
        try:
            self._sampled(tiny, self.child_parameters(tiny, None, request) | given)
        except Exception as error:  # the sampler's own, of any kind
            names = ", ".join(sorted(given))
            raise ParameterError(f"{self.name} refuses {names}: {error}") from error

    def check_time(self, n: int, time_limit: float | None) -> None:
        """Refuses a limit that would be over long before the sampler has read n variables.

        Raises:
            BinaryQuadraticModelSizeError: to make a dense model of so many variables and to read
                it takes more than twice the limit and a second, and nothing can interrupt it.
        """
        seconds = n**2 / MODEL_RATE
        if time_limit is not None and seconds > 2 * time_limit + 1 and "time_limit" in self.honours:
            raise dimod.exceptions.BinaryQuadraticModelSizeError(
                f"time_limit is {time_limit:g}, but {self.name} takes about {seconds:.2g} s to "
                f"read a dense model of {n:,} variables: allow {seconds:.1g} s or more, or "
                "choose a native solver"
            )

    def _sampled(self, bqm: dimod.BinaryQuadraticModel, keywords: dict[str, Any]) -> Any:
        answer: list[Any] = []
        clock = keywords.get("interrupt_function")

        def stop() -> None:
            if isinstance(clock, ReadClock):
                clock.deadline.stop()

        # Waited for however long it takes: it cannot hand over what it has before it ends.
        run_until(lambda: answer.append(self._called(bqm, keywords)), Deadline(), stop)
        return answer[0]

    def _called(self, bqm: dimod.BinaryQuadraticModel, keywords: dict[str, Any]) -> Any:
        """The sampler's answer, in that thread."""
        return super()._sampled(bqm, keywords)


class _Annealer(_Ocean):
    """Reads of a fixed number of sweeps until the time limit, at least one."""

    honours = ("time_limit", "reads", "sweeps")
    updates_per_second = 1e9
    """Couplings the annealer touches a second; sizes a read to the time limit."""
    default_sweeps = 1000

    def child_parameters(
        self,
        bqm: dimod.BinaryQuadraticModel,
        problem: CardinalityProblem | None,
        request: Request,
    ) -> dict[str, Any]:
        """Reads, sweeps, seed, interrupt and inverse temperatures."""
        budget = request.budget
        seed = int(request.rng.integers(MAX_SEED))
        if problem is None:
            hot = flip_spread(bqm, request.rng) or 1.0
        else:
            hot = swap_spread(problem, request.rng) or 1.0
        sweeps = budget.sweeps or self.default_sweeps
        reads = budget.reads or (1 if budget.time_limit is None else MAX_READS)
        left = time_left(request, READING * bqm.num_interactions)
        if left < math.inf:
            sweep = (2 * bqm.num_interactions + bqm.num_variables) / self.updates_per_second
            if budget.sweeps is None:
                sweeps = int(np.clip(0.5 * left / sweep, 10, sweeps))
            if budget.reads is None:
                # The sampler scores a random start for each that it is asked for.
                reads = int(np.clip(OPTIMISM * left / (sweep * sweeps), 1, reads))
        return {
            "seed": seed,
            "num_reads": reads,
            "num_sweeps": sweeps,
            "beta_range": (1 / hot, 1000 / hot),
            "interrupt_function": _clock(time_left(request)),
        }


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
        self.max_variables = 1024


class OceanTabu(_Ocean):
    """Multistart tabu search; one read that takes the whole time limit."""

    honours = ("time_limit", "reads")

    def __init__(self, **options: Any) -> None:
        super().__init__(TabuSampler(), name="ocean-tabu", **options)

    def child_parameters(
        self,
        bqm: dimod.BinaryQuadraticModel,
        problem: CardinalityProblem | None,
        request: Request,
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
        square = bqm.num_variables**2
        left = time_left(request, (TABU_READING + reads * TABU_SET_UP) * square)
        return keywords | {"timeout": max(1, int(1000 * left / reads))}


class SteepestDescent(_Ocean):
    """Bit-flip descent on the penalised model from random starts."""

    def __init__(self, **options: Any) -> None:
        super().__init__(SteepestDescentSampler(), name="steepest-descent", **options)


class Random(_Ocean):
    """Uniform bit strings: what repair makes of nothing.

    Of the draws that fit into a time limit the best `MAX_DRAWS` are kept.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(RandomSampler(), name="random", **options)

    def child_parameters(
        self,
        bqm: dimod.BinaryQuadraticModel,
        problem: CardinalityProblem | None,
        request: Request,
    ) -> dict[str, Any]:
        """As any sampler's, and what stops it."""
        keywords = super().child_parameters(bqm, problem, request)
        return keywords | {"interrupt_function": _clock(keywords.pop("time_limit", math.inf))}

    def _called(self, bqm: dimod.BinaryQuadraticModel, keywords: dict[str, Any]) -> Any:
        """Slices of draws from one generator: the sampler lets no other thread run meanwhile."""
        keywords = dict(keywords)
        deadline = keywords.pop("interrupt_function").deadline
        reads = keywords.pop("num_reads", None)
        keywords["seed"] = np.random.default_rng(keywords["seed"])
        if reads is None and not deadline.limited:
            reads = 1
        parts: list[dimod.SampleSet] = []
        drawn = 0
        while not parts or (drawn < (reads or math.inf) and not deadline.over):
            left = {} if reads is None else {"num_reads": reads - drawn}
            seconds = min(SLICE, max(1e-6, deadline.left))
            parts.append(super()._called(bqm, keywords | left | {"time_limit": seconds}))
            drawn += len(parts[-1])
            if reads is None:
                parts = [dimod.concatenate(parts).truncate(MAX_DRAWS, sorted_by="energy")]
        return dimod.concatenate(parts)
