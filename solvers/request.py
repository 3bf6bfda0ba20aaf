"""What a solver is asked, and what it answers: budget, request, timing, solution."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from solvers.arguments import plain, positive, whole
from solvers.clock.deadline import Deadline
from solvers.problem import Bools, CardinalityProblem

Track = Literal["native", "penalised"]
"""How a solver gets the number of ones: by construction, or by a penalty and repair."""
OnIncumbent = Callable[[Bools], None]

UNLIMITED = 2**62

TIMING_KEYS = (
    "convert", "preprocess", "training", "queue", "execute", "postprocess", "repair",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Budget:
    """What a solver may spend; each solver's ``properties["honours"]`` says which it heeds.

    Attributes:
        time_limit: seconds of wall time, > 0.
        reads: independent restarts or shots, >= 1.
        sweeps: passes over the variables per read, >= 1.
    """

    time_limit: float | None = None
    reads: int | None = None
    sweeps: int | None = None

    def __post_init__(self) -> None:
        for name in ("time_limit", "reads", "sweeps"):
            value = getattr(self, name)
            if value is None:
                continue
            if name == "time_limit":
                positive(name, value, what="seconds above 0")
            else:
                whole(name, value, 1)
            # 1 stays 1 and 1.0 stays 1.0: records name a budget as it was written.
            object.__setattr__(self, name, plain(value))


@dataclass(frozen=True, slots=True)
class Call:
    """Arguments of `solvers.base.CardinalitySampler.sample_problem`, for several calls at a time.

    Attributes:
        problem: n variables.
        budget: what it may spend.
        seed: whole number from 0; None for a call that cannot be made again.
        parameters: of the solver.
    """

    problem: CardinalityProblem
    budget: Budget = Budget()
    seed: int | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)


class Timing(dict[str, float]):
    """Seconds by stage; starts with every key of `TIMING_KEYS` at 0."""

    def __init__(self) -> None:
        super().__init__(dict.fromkeys(TIMING_KEYS, 0.0))

    @contextmanager
    def stage(self, key: str) -> Iterator[None]:
        """Adds the wall time of the ``with`` body to `key`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self[key] += time.perf_counter() - start


@dataclass
class Request:
    """One call of `CardinalitySampler.sample_problem`, as `_solve` sees it.

    Attributes:
        budget: what may be spent.
        rng: the only source of randomness.
        initial: feasible start, shape (n,) of bool, or None.
        report: takes each improved feasible state as it is found; the caller owns the clock.
        deadline: when the time limit ends, or the call is stopped.
        timing: to be filled by stage.
    """

    budget: Budget
    rng: np.random.Generator
    initial: Bools | None
    report: OnIncumbent
    deadline: Deadline
    timing: Timing = field(default_factory=Timing)


@dataclass
class Solution:
    """What `_solve` hands back.

    Attributes:
        states: one row a read, shape (m, n), 0/1.
        info: goes into the sample set's ``info``.
        vectors: data for the sample set's record, each with m rows. On the penalised track the
            sampler's untouched rows under ``raw_sample``, and how many reads gave a row under
            ``num_occurrences``.
    """

    states: NDArray[Any]
    info: dict[str, Any] = field(default_factory=dict)
    vectors: dict[str, NDArray[Any]] = field(default_factory=dict)
