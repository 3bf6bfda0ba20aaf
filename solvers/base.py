"""What every solver is: a dimod sampler that also takes the structured problem.

A subclass sets the class attributes below and implements `_solve`; everything a caller may rely on
(checks, degenerate cases, seeds, the sample set and its ``info``) is done once, here.

``info`` of every sample set:

* ``solver``, ``lane``: the registry name and ``native`` or ``penalised``;
* ``received_incumbent``: whether the solver was handed a start;
* ``timing``: seconds, every key of `TIMING_KEYS`, measured by the solver itself;
* ``lower_bound``: certified lower bound on the optimum, where the solver has one;
* ``proved_optimal``: True only with a proof;
* ``quote``, ``cost``: USD before and after the run, of a solver that costs money (`paid`);
* ``earlier_seconds``: seconds that an earlier call spent on this answer and this one collected.
"""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import dimod
import numpy as np
from numpy.typing import ArrayLike, NDArray

from solvers.deadline import Deadline
from solvers.errors import ParameterError
from solvers.problem import Bools, CardinalityProblem

Lane = Literal["native", "penalised"]
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
        if self.time_limit is not None and not 0 < self.time_limit < np.inf:
            raise ParameterError(f"time_limit is {self.time_limit}, expected seconds above 0")
        for name in ("reads", "sweeps"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not value >= 1 or value % 1):
                raise ParameterError(f"{name} is {value!r}, expected a whole number from 1")


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
        vectors: per-read data for the sample set's record, each with m rows. The penalised lane
            puts the sampler's untouched rows under ``raw_sample``.
    """

    states: NDArray[Any]
    info: dict[str, Any] = field(default_factory=dict)
    vectors: dict[str, NDArray[Any]] = field(default_factory=dict)


class ReadPool:
    """Collects the reads of a solver that makes them one at a time.

    The first `MAX_ROWS` reads are kept, so that success shares can be counted, and the best one if
    it is not among them. Rows are in order of the reads' numbers, in whatever order they arrive.

    Attributes:
        reads: reads made so far.
        best: energy of the best one.
    """

    MAX_ROWS: ClassVar[int] = 1000

    def __init__(self, problem: CardinalityProblem, request: Request) -> None:
        self.reads = 0
        self.best = np.inf
        self._lock = threading.Lock()
        self._reported = np.inf
        self._best_row: tuple[int, Bools] | None = None
        self._problem = problem
        self._request = request
        self._rows: dict[int, Bools] = {}

    def improve(self, state: Bools) -> float:
        """Reports a feasible state if it is the best so far; returns its energy. Any thread may."""
        energy = float(self._problem.energy(state))
        with self._lock:
            if energy < self._reported:
                self._reported = energy
                self._request.report(state)
        return energy

    def add(self, state: Bools, number: int | None = None) -> None:
        """Takes a read, a feasible state of shape (n,).

        Args:
            state: of the caller no more.
            number: which read it is; the next one when None.
        """
        number = self.reads if number is None else number
        self.reads += 1
        energy = self.improve(state)
        known = -1 if self._best_row is None else self._best_row[0]
        if energy < self.best or (energy == self.best and number < known):
            self.best, self._best_row = energy, (number, state)
        if number < self.MAX_ROWS:
            self._rows[number] = state

    def solution(self, **info: Any) -> Solution:
        """What `_solve` returns."""
        rows = dict(self._rows)
        if self._best_row is not None:
            rows.setdefault(*self._best_row)
        states = [rows[number] for number in sorted(rows)]
        return Solution(np.array(states), {"reads": self.reads, **info})


# What is compiled in this process: class, and whether for dense problems.
_WARM: set[tuple[type, bool]] = set()


class CardinalitySampler(dimod.Sampler):
    """A dimod sampler for problems with a fixed number of ones.

    `compiles` says that a solver has compiled loops, which the first call of a process loads, or
    compiles after an installation: that is done before the clock starts, and its seconds are in
    ``info["warm_up"]`` of that call. `warm_up_by_size` says that a solver compiles something for
    every problem size (circuits), so that one call does not warm it up for another size.
    """

    name: ClassVar[str]
    lane: ClassVar[Lane] = "native"
    honours: ClassVar[tuple[str, ...]] = ()
    exact: ClassVar[bool] = False
    takes_initial: ClassVar[bool] = False
    compiles: ClassVar[bool] = False
    warm_up_by_size: ClassVar[bool] = False
    max_variables: ClassVar[int | None] = None
    paid: ClassVar[bool] = False
    extra_parameters: ClassVar[tuple[str, ...]] = ()

    @property
    def parameters(self) -> dict[str, list[str]]:
        """Keywords of `sample`, as dimod wants them."""
        names = ("cardinality", "initial_state", "num_reads", "num_sweeps", "time_limit", "seed")
        return {key: [] for key in (*names, *self.extra_parameters)}

    @property
    def properties(self) -> dict[str, Any]:
        """Lane, exactness, size limit and which parts of a `Budget` count."""
        return {
            "lane": self.lane,
            "exact": self.exact,
            "max_variables": self.max_variables,
            "honours": list(self.honours),
            "takes_initial": self.takes_initial,
        }

    def check(self) -> None:
        """Raises if the solver cannot work as it was set up; called once before a study."""

    @abstractmethod
    def _solve(
        self, problem: CardinalityProblem, request: Request, **parameters: Any
    ) -> Solution: ...

    def submit_problem(
        self,
        problem: CardinalityProblem,
        *,
        budget: Budget | None = None,
        seed: int | None = None,
        **parameters: Any,
    ) -> None:
        """Hands the problem to a queue without waiting; `sample_problem` of the same call collects.

        Only solvers that are `paid` have a queue; the others do nothing here.
        """

    def sample_problem(
        self,
        problem: CardinalityProblem,
        *,
        budget: Budget | None = None,
        seed: int | None = None,
        initial: ArrayLike | None = None,
        on_incumbent: OnIncumbent | None = None,
        **parameters: Any,
    ) -> dimod.SampleSet:
        """Solve the structured problem.

        Args:
            problem: n variables, k ones.
            budget: what may be spent; the solver's own defaults when None.
            seed: whole number; the same seed gives the same samples.
            initial: feasible start, shape (n,); None keeps the solver blind to any incumbent.
            on_incumbent: called with each improved feasible state, shape (n,) of bool; from a
                thread of the solver's if need be, but never from two at once.
            **parameters: the solver's own, listed in its `extra_parameters`.

        Returns:
            A BINARY sample set over variables 0..n-1, one row a read, with `info` as in the
            module's docstring.

        Raises:
            ParameterError: a keyword the solver does not have.
            ProblemError: an infeasible `initial`.
            BinaryQuadraticModelSizeError: more variables than `max_variables`.
        """
        unknown = sorted(set(parameters) - set(self.extra_parameters))
        if unknown:
            known = ", ".join(self.extra_parameters) or "none"
            raise ParameterError(f"{self.name} has no parameter {unknown[0]!r} (it has: {known})")
        start = None if initial is None else problem.checked_state(initial)
        if start is not None and not self.takes_initial:
            raise ParameterError(f"{self.name} cannot use an initial state; leave it out")
        self.check_size(problem.n)
        spent = self.warm_up(dense=problem.factor is None)
        budget = budget or Budget()
        request = Request(
            budget=budget,
            rng=np.random.default_rng(seed),
            initial=start,
            report=on_incumbent or (lambda state: None),
            deadline=Deadline(budget.time_limit),
        )
        if problem.cardinality in (0, problem.n):
            solution = self._forced(problem, request)
        else:
            solution = self._solve(problem, request, **parameters)
        if spent:
            solution.info["warm_up"] = spent
        return self._sample_set(problem, request, solution)

    def warm_up(self, *, dense: bool) -> float:
        """Compiles what the solver needs for a kind of problem, once in a process.

        Args:
            dense: whether problems hold their matrix, not a factor.

        Returns:
            Seconds it took; 0 where it was done before or there is nothing to compile.
        """
        if not self.compiles or (type(self), dense) in _WARM:
            return 0.0
        from solvers.warmup import tiny_problems

        start = time.perf_counter()
        # Noted first: the calls below come here as well.
        _WARM.add((type(self), dense))
        # At 8 variables the relaxation is solved before its Newton method is asked.
        for tiny in tiny_problems(16, 8, dense=dense):
            self.sample_problem(tiny, budget=Budget(reads=1), seed=0)
        return time.perf_counter() - start

    def check_size(self, n: int) -> None:
        """Raises dimod's size error if the solver cannot take n variables."""
        if self.max_variables is not None and n > self.max_variables:
            raise dimod.exceptions.BinaryQuadraticModelSizeError(
                f"{self.name} takes at most {self.max_variables} variables, the problem has {n}"
            )

    def _forced(self, problem: CardinalityProblem, request: Request) -> Solution:
        """With k = 0 or k = n there is one feasible state."""
        state = np.full(problem.n, problem.cardinality > 0)
        request.report(state)
        raw = {"raw_sample": state[None].astype(np.int8)} if self.lane == "penalised" else {}
        bound = float(problem.energy(state))
        return Solution(state[None], {"lower_bound": bound, "proved_optimal": True}, raw)

    def _sample_set(
        self, problem: CardinalityProblem, request: Request, solution: Solution
    ) -> dimod.SampleSet:
        states = np.asarray(solution.states, dtype=np.int8)
        return dimod.SampleSet.from_samples(
            states,
            energy=problem.energy(states),
            vartype=dimod.BINARY,
            info={
                "solver": self.name,
                "lane": self.lane,
                "received_incumbent": request.initial is not None,
                "timing": dict(request.timing),
                **solution.info,
            },
            **solution.vectors,
        )

    def sample(
        self,
        bqm: dimod.BinaryQuadraticModel,
        *,
        cardinality: int | None = None,
        initial_state: Mapping[Any, int] | None = None,
        num_reads: int | None = None,
        num_sweeps: int | None = None,
        time_limit: float | None = None,
        seed: int | None = None,
        **parameters: Any,
    ) -> dimod.SampleSet:
        """Solve a binary quadratic model, as every dimod sampler does.

        Args:
            bqm: any vartype, any labels.
            cardinality: number of variables that are 1 (SPIN: +1). None means any number; native
                solvers then work on n more variables of no cost that absorb the difference.
            initial_state: feasible start, variable -> value.
            num_reads: see `Budget`.
            num_sweeps: see `Budget`.
            time_limit: seconds, see `Budget`.
            seed: see `sample_problem`.
            **parameters: the solver's own.

        Returns:
            Samples over the model's variables, with the model's energies.
        """
        problem = problem_from_bqm(bqm, cardinality)
        initial: Bools | None = None
        if initial_state is not None:
            values = [initial_state[v] > 0 for v in bqm.variables]
            slack = problem.n - len(values)
            initial = np.array(values + [False] * slack, dtype=np.bool_)
            initial[len(values) : len(values) + problem.cardinality - int(initial.sum())] = True
        samples = self.sample_problem(
            problem,
            budget=Budget(time_limit, num_reads, num_sweeps),
            seed=seed,
            initial=initial,
            **parameters,
        )
        rows = samples.record.sample[:, : bqm.num_variables]
        if bqm.vartype is dimod.SPIN:
            rows = 2 * rows - 1
        return dimod.SampleSet.from_samples_bqm((rows, list(bqm.variables)), bqm, info=samples.info)


def problem_from_bqm(
    bqm: dimod.BinaryQuadraticModel, cardinality: int | None = None
) -> CardinalityProblem:
    """A dimod model as a dense problem.

    Args:
        bqm: n variables of any vartype and label.
        cardinality: number of ones; None adds n free variables at the end and sets k = n, which
            makes every x in {0,1}^n feasible.

    Returns:
        A problem of n (or 2n) variables with the same energies.
    """
    binary = bqm.change_vartype(dimod.BINARY, inplace=False)
    n = binary.num_variables
    size = n if cardinality is not None else 2 * n
    linear, (rows, columns, values), offset = binary.to_numpy_vectors(
        variable_order=list(binary.variables)
    )
    c = np.zeros(size)
    c[:n] = linear
    G = np.zeros((size, size))
    np.add.at(G, (rows, columns), values)
    G += G.T
    k = n if cardinality is None else cardinality
    return CardinalityProblem(linear=c, cardinality=k, quadratic=G, offset=float(offset))
