"""What every solver is: a dimod sampler that also takes the structured problem.

A subclass sets the class attributes below and implements `_solve`; everything a caller may rely on
(checks, degenerate cases, seeds, the sample set and its ``info``) is done once, here. All that the
author of a solver needs can be imported from this module; `solvers.testing` checks the result.

``info`` of every sample set:

* ``solver``: the registry name;
* ``track``: ``native`` or ``penalised``; until the next release also as ``lane``;
* ``received_start``: whether the solver was handed a start; until the next release also as
  ``received_incumbent``;
* ``timing``: seconds, every key of `TIMING_KEYS`, measured by the solver itself;
* ``lower_bound``: certified lower bound on the optimum, where the solver has one;
* ``proved_optimal``: True only with a proof;
* ``quote``, ``cost``: USD before and after the run, of a solver that costs money (`paid`);
* ``earlier_seconds``: seconds that an earlier call spent on this answer and this one collected.
"""

from __future__ import annotations

import time
import warnings
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import dimod
import numpy as np
from numpy.typing import ArrayLike

from solvers.answer import forced, sample_set
from solvers.arguments import seeded
from solvers.bqm.convert import (
    check_composites,
    check_model,
    check_time,
    conversion_error,
    problem_from_bqm,
    start_from,
    withhold,
)
from solvers.bqm.unconstrained import alternating, every_cardinality
from solvers.clock.deadline import Deadline
from solvers.errors import ParameterError, ProblemError
from solvers.problem import Bools, CardinalityProblem
from solvers.readpool import ReadPool
from solvers.request import (
    TIMING_KEYS,
    UNLIMITED,
    Budget,
    Call,
    OnIncumbent,
    Request,
    Solution,
    Timing,
    Track,
)

__all__ = [
    "TIMING_KEYS",
    "UNLIMITED",
    "Budget",
    "Call",
    "CardinalitySampler",
    "OnIncumbent",
    "ReadPool",
    "Request",
    "Solution",
    "Timing",
    "Track",
]

# Seconds that a solver gets where turning a model into a problem has taken the whole time limit.
LEAST_TIME = 1e-3
# Largest model without a cardinality that native solvers take with as many free variables more.
SLACK_MOST = 512

# What is compiled in this process: class, whether for dense problems, and whether for groups.
_WARM: set[tuple[type, bool, bool]] = set()


class CardinalitySampler(dimod.Sampler):
    """A dimod sampler for problems with a fixed number of ones.

    `compiles` says that a solver has compiled loops, which the first call of a process loads, or
    compiles after an installation: that is done before the clock starts, and its seconds are in
    ``info["warm_up"]`` of that call. `warm_up_by_size` says that a solver compiles something for
    every problem size (circuits), so that one call does not warm it up for another size.
    """

    # Of a class, or of an object where its options decide.
    name: str
    max_variables: int | None = None
    warm_up_by_size: bool = False
    extra_parameters: tuple[str, ...] = ()
    track: ClassVar[Track] = "native"
    honours: ClassVar[tuple[str, ...]] = ()
    exact: ClassVar[bool] = False
    takes_initial: ClassVar[bool] = False
    takes_groups: ClassVar[bool] = False
    compiles: ClassVar[bool] = False
    # Of the problems it is compiled on: variables and ones. At 8 variables the relaxation is solved
    # before its Newton method is asked.
    warm_up_size: ClassVar[tuple[int, int]] = (16, 8)
    paid: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "lane" in vars(cls):
            warnings.warn(f"{cls.__name__}.lane is now track", DeprecationWarning, stacklevel=2)
            cls.track = vars(cls)["lane"]
            del cls.lane

    @property
    def lane(self) -> Track:
        """The former name of `track`.

        Warns:
            DeprecationWarning: names the new one.
        """
        warnings.warn(f"{type(self).__name__}.lane is now track", DeprecationWarning, stacklevel=2)
        return self.track

    @property
    def parameters(self) -> dict[str, list[str]]:
        """Keywords of `sample`, as dimod wants them."""
        names = ("cardinality", "initial_state", "num_reads", "num_sweeps", "time_limit", "seed")
        return {key: [] for key in (*names, *self.extra_parameters)}

    @property
    def properties(self) -> dict[str, Any]:
        """Track, exactness, size limit and which parts of a `Budget` count."""
        return {
            "track": self.track,
            "lane": self.track,
            "exact": self.exact,
            "max_variables": self.max_variables,
            "honours": list(self.honours),
            "takes_initial": self.takes_initial,
            "takes_groups": self.takes_groups,
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
            problem: n variables, k ones; with groups only where the solver `takes_groups`.
            budget: what may be spent; the solver's own defaults when None.
            seed: whole number from 0; the same seed gives the same samples.
            initial: feasible start, shape (n,); None where the solver is to find its own.
            on_incumbent: called with each improved feasible state, shape (n,) of bool; from a
                thread of the solver's if need be, but never from two at once.
            **parameters: the solver's own, listed in its `extra_parameters`.

        Returns:
            A BINARY sample set over variables 0..n-1, one row a read or, on the penalised track,
            as many reads as ``num_occurrences`` says, with `info` as in the module's docstring.

        Raises:
            ParameterError: a keyword the solver does not have, a value of another type.
            ProblemError: an infeasible `initial`, groups that the solver does not keep.
            BinaryQuadraticModelSizeError: more variables than `max_variables`.
        """
        self._check_keywords(parameters)
        if not isinstance(problem, CardinalityProblem):
            raise ParameterError(
                f"problem is a {type(problem).__name__}, expected a CardinalityProblem; for a "
                "dimod.BinaryQuadraticModel call sample"
            )
        if not isinstance(budget, Budget | None):
            raise ParameterError(f"budget is {budget!r}, expected Budget(time_limit=..., ...)")
        if problem.groups is not None and not self.takes_groups:
            raise ProblemError(
                f"problem has {problem.num_groups} groups, each with its own number of ones, which "
                f"{self.name} cannot keep: use a solver that takes groups, such as annealing or "
                "tabu"
            )
        start = None if initial is None else problem.checked_state(initial)
        if start is not None and not self.takes_initial:
            raise ParameterError(
                f"initial is given, but {self.name} cannot start from a state: leave it out"
            )
        self.check_size(problem.n)
        spent = self.warm_up(dense=problem.factor is None, grouped=problem.groups is not None)
        budget = budget or Budget()
        request = Request(
            budget=budget,
            rng=seeded(seed),
            initial=start,
            report=on_incumbent or (lambda state: None),
            deadline=Deadline(budget.time_limit),
        )
        if (only := problem.only_state) is not None:
            solution = forced(problem, only, request, self.track)
        else:
            solution = self._solve(problem, request, **parameters)
        if spent:
            solution.info["warm_up"] = spent
        return sample_set(self.name, self.track, problem, request, solution)

    def check_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Refuses parameters of `sample_problem` before there is a problem to solve.

        Names always; values as far as a solver overrides this: those of the package's own solvers
        and of Ocean's local samplers, except where their bounds depend on the problem or the
        budget. Takes far less than a second, and never calls a service.

        Raises:
            ParameterError: a name that the solver does not have, or a value out of range.
        """
        self._check_keywords(parameters)

    def _check_keywords(self, parameters: Mapping[str, Any]) -> None:
        unknown = sorted(set(parameters) - set(self.extra_parameters))
        if unknown:
            known = ", ".join(self.extra_parameters) or "none"
            raise ParameterError(f"{self.name} has no parameter {unknown[0]!r} (it has: {known})")

    def warm_up(self, *, dense: bool, grouped: bool = False) -> float:
        """Compiles what the solver needs for a kind of problem, once in a process.

        Args:
            dense: whether problems hold their matrix, not a factor.
            grouped: whether they have groups.

        Returns:
            Seconds it took; 0 where it was done before or there is nothing to compile.
        """
        kind = type(self), dense, grouped
        if not self.compiles or kind in _WARM:
            return 0.0
        from solvers.clock.warmup import tiny_problems, two_groups

        start = time.perf_counter()
        # Noted first: the calls below come here as well.
        _WARM.add(kind)
        try:
            groups = two_groups(*self.warm_up_size) if grouped else None
            for tiny in tiny_problems(*self.warm_up_size, dense=dense, groups=groups):
                self._compile(tiny)
        except KeyboardInterrupt:
            # What is not compiled yet must not be so inside a clock.
            _WARM.discard(kind)
            raise
        return time.perf_counter() - start

    def _compile(self, tiny: CardinalityProblem) -> None:
        """Calls all compiled loops once."""
        self.sample_problem(tiny, budget=Budget(reads=1), seed=0)

    def check_size(self, n: int) -> None:
        """Raises dimod's size error if the solver cannot take n variables."""
        if self.max_variables is not None and n > self.max_variables:
            raise dimod.exceptions.BinaryQuadraticModelSizeError(
                f"{self.name} takes at most {self.max_variables} variables, the problem has {n}: "
                "choose a smaller problem or another solver"
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

        Without a cardinality any number of variables may be 1. Solvers that are `exact` then solve
        one problem for each number, see `solvers.bqm.unconstrained`; other native ones work on n
        more variables of no cost that absorb the difference, or on large models at one number after
        the other; those of the penalised track get the model as it is.

        Turning the model into a dense problem is part of a time limit.

        The cardinality counts the variables of the model that arrives here. dimod's composites pass
        it on beside a model in which variables are flipped, fixed or split up; those are refused.

        Args:
            bqm: any vartype, any labels.
            cardinality: number of variables that are 1 (SPIN: +1); None means any number.
            initial_state: feasible start, variable -> value.
            num_reads: see `Budget`.
            num_sweeps: see `Budget`.
            time_limit: seconds, see `Budget`.
            seed: see `sample_problem`.
            **parameters: the solver's own.

        Returns:
            Samples over the model's variables, with the model's energies.

        Raises:
            ParameterError: another kind of model, see `sample_problem`; a cardinality that came
                through a composite.
            ProblemError: a bias that is not finite, a cardinality outside 0..n.
            BinaryQuadraticModelSizeError: more variables than the solver takes, or than fit into
                the memory as a dense problem.
        """
        check_model(bqm)
        if cardinality is not None:
            check_composites(self)
        budget = Budget(time_limit, num_reads, num_sweeps)
        seeds = seeded(seed)
        self._check_keywords(parameters)
        n = bqm.num_variables
        several = every_cardinality if self.exact else alternating if n > SLACK_MOST else None
        if cardinality is not None:
            several = None
        self._check_model_size(n, 1 if several or cardinality is not None else 2)
        check_time(n, time_limit)
        warmed = self.warm_up(dense=True)
        start, deadline = time.perf_counter(), Deadline(budget.time_limit)
        # With several cardinalities to be tried, which one the problem has does not matter.
        problem = problem_from_bqm(bqm, 0 if several else cardinality)
        initial = None if initial_state is None else start_from(bqm, initial_state)

        def solve(problem: CardinalityProblem, limit: float | None, x: Bools | None) -> Any:
            return self.sample_problem(
                problem,
                budget=replace(budget, time_limit=limit),
                seed=int(seeds.integers(2**63)) if several else seed,
                initial=x,
                **parameters,
            )

        converted = time.perf_counter()
        if several:
            samples = several(problem, solve, deadline, initial)
        else:
            if initial is not None and problem.n > n:
                slack = np.arange(n) < n - int(initial.sum())
                initial = np.concatenate([initial, slack])
            left = max(deadline.left, LEAST_TIME)
            samples = solve(problem, None if left == np.inf else left, initial)
        samples.info["timing"]["convert"] += converted - start
        if warmed:
            samples.info["warm_up"] = warmed
        withhold(samples.info, conversion_error(bqm, problem))
        rows = samples.record.sample[:, :n]
        if bqm.vartype is dimod.SPIN:
            rows = 2 * rows - 1
        return dimod.SampleSet.from_samples_bqm(
            (rows, list(bqm.variables)),
            bqm,
            info=samples.info,
            num_occurrences=samples.record.num_occurrences,
        )

    def _check_model_size(self, n: int, factor: int) -> None:
        """Raises dimod's size error if a model of n variables makes too large a problem."""
        if factor == 2 and self.max_variables is not None and 2 * n > self.max_variables:
            raise dimod.exceptions.BinaryQuadraticModelSizeError(
                f"{self.name} takes at most {self.max_variables} variables, and without a "
                f"cardinality the {n} of the model become {2 * n}: pass cardinality"
            )
        self.check_size(n)
