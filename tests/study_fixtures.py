"""Small blocks and solvers that misbehave, for the tests of studies."""

import os
import time
from dataclasses import replace
from typing import ClassVar

import dimod
import numpy as np

from experiments import SolverSpec
from solvers import CardinalityProblem, CardinalitySampler
from solvers.base import Solution


def block(n=10, k=None, seed=0, rank=3, curvature=0.5, dense=False, **meta):
    """A block with an incumbent of energy 0."""
    rng = np.random.default_rng([seed, n])
    k = n // 2 if k is None else k
    start = np.zeros(n, dtype=bool)
    start[rng.permutation(n)[:k]] = True
    factor = curvature * rng.normal(size=(rank, n)) / np.sqrt(n)
    gram = factor.T @ factor
    problem = CardinalityProblem(
        linear=rng.normal(size=n),
        cardinality=k,
        factor=None if dense else factor,
        quadratic=(gram + gram.T) / 2 if dense else None,
        initial=start,
        meta={"layer": f"layer{seed}", "fisher": "sequence", "model": "toy", **meta},
    )
    return replace(problem, offset=-float(problem.energy(start)))


def spec(cls, **options):
    """A solver of this module as a study takes it."""
    return SolverSpec(cls.name, sampler=cls(), **options)


class First(CardinalitySampler):
    """Ones first: deterministic, quick and poor."""

    name = "first"
    honours: ClassVar[tuple[str, ...]] = ("time_limit",)

    def _solve(self, problem, request):
        state = np.arange(problem.n) < problem.cardinality
        request.report(state)
        return Solution(state[None])


class Drawn(First):
    """Random feasible states, as many as the budget's reads."""

    name = "drawn"
    takes_initial = True

    def _solve(self, problem, request):
        rows = np.zeros((request.budget.reads or 4, problem.n), dtype=np.int8)
        for row in rows:
            row[request.rng.permutation(problem.n)[: problem.cardinality]] = 1
            request.report(row.astype(bool))
        return Solution(rows)


class Raising(First):
    name = "raising"

    def _solve(self, problem, request):
        raise RuntimeError("out of\nqubits <b>now</b>")


class Hopeless(First):
    name = "hopeless"

    def _solve(self, problem, request):
        return Solution(np.ones((3, problem.n), dtype=np.int8))


class Overwriting(First):
    """Hands the same array to the callback again and again."""

    name = "overwriting"

    def _solve(self, problem, request):
        state = np.arange(problem.n) < problem.cardinality
        for _ in range(5):
            request.report(state)
            state[:] = request.rng.permutation(state)
        return Solution(state[None])


class Slow(First):
    name = "slow"

    def _solve(self, problem, request):
        if problem.n > 8:
            time.sleep(1.15)
        return super()._solve(problem, request)


class Proud(First):
    """Claims a proof and a bound that are wrong."""

    name = "proud"

    def _solve(self, problem, request):
        solution = super()._solve(problem, request)
        solution.info |= {"proved_optimal": True, "lower_bound": 1e3}
        return solution


class Deadly(First):
    """Takes its process along."""

    name = "deadly"

    def _solve(self, problem, request):
        if problem.n == 12:
            os._exit(9)
        return super()._solve(problem, request)


class _Answering(First):
    """Changes the sample set on its way out."""

    def sample_problem(self, problem, **keywords):
        return self.changed(problem, super().sample_problem(problem, **keywords))


class Lying(_Answering):
    name = "lying"

    def changed(self, problem, samples):
        record = samples.record
        return dimod.SampleSet.from_samples(
            record.sample, energy=record.energy - 5, vartype="BINARY", info=samples.info
        )


class NotANumber(_Answering):
    name = "not-a-number"

    def changed(self, problem, samples):
        rows = samples.record.sample
        return dimod.SampleSet.from_samples(
            rows, energy=np.full(len(rows), np.nan), vartype="BINARY", info=samples.info
        )


class TooShort(_Answering):
    name = "too-short"

    def changed(self, problem, samples):
        rows = samples.record.sample[:, :-1]
        return dimod.SampleSet.from_samples(rows, energy=[0.0], vartype="BINARY", info=samples.info)


class Spinning(_Answering):
    name = "spinning"

    def changed(self, problem, samples):
        return samples.change_vartype("SPIN", inplace=False)


class Silent(_Answering):
    name = "silent"

    def changed(self, problem, samples):
        return None


class Empty(_Answering):
    name = "empty"

    def changed(self, problem, samples):
        return samples.slice(0)


FAULTS = {
    Raising: "RuntimeError: out of qubits <b>now</b>",
    Hopeless: "infeasible",
    Lying: "re-scored",
    NotANumber: "energy of nan",
    TooShort: "returned 9 variables",
    Spinning: "SPIN",
    Silent: "NoneType",
    Empty: "no sample",
}
