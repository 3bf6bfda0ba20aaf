"""What every solver promises, as tests that a solver of any package runs in one line.

In a test module, for pytest or unittest::

    from solvers.testing import contract

    from my_package import MySolver

    TestMySolver = contract(MySolver)

or without a test runner, in a script or a notebook::

    from solvers.testing import check

    check(MySolver)

The solvers of this package are held to the same. A plain dimod sampler is tested as it takes part:
behind a penalty, its samples repaired. Nothing here needs more than a second or so of a solver that
answers quickly.
"""

from __future__ import annotations

import copy
import json
import pickle
import time
import unittest
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, get_args

import dimod
import dimod.testing
import numpy as np

from solvers.base import TIMING_KEYS, Budget, CardinalitySampler, Track
from solvers.errors import ParameterError, ProblemError
from solvers.problem import CardinalityProblem
from solvers.registry import make

# Energies of small problems are equal if they differ by less.
CLOSE = 1e-9
# A read of slack and a loaded machine; a solver that does not look at the clock takes longer.
OVERRUN_SECONDS = 5.0


def contract(solver: str | Callable[[], dimod.Sampler]) -> type[unittest.TestCase]:
    """The tests of a solver, as a class that pytest and unittest collect.

    Args:
        solver: a class, anything else that makes a sampler when called without arguments, or a
            registered name. Several samplers are made, and they must not share anything.

    Returns:
        A `unittest.TestCase`; bind it to a name of a test module.
    """

    def made() -> CardinalitySampler:
        return make(solver) if isinstance(solver, str) else make(solver())

    label = solver if isinstance(solver, str) else getattr(solver, "__name__", "solver")
    body = {"made": staticmethod(made), "__doc__": f"What {label} promises."}
    case = type(f"Contract[{label}]", (_Contract,), body)
    return dimod.testing.load_sampler_bqm_tests(made, 6)(case)


def check(solver: str | Callable[[], dimod.Sampler]) -> None:
    """Runs the tests of `contract`.

    Args:
        solver: see `contract`.

    Raises:
        AssertionError: names every promise that is broken, with the reason.
    """
    result = unittest.TestResult()
    tests = unittest.defaultTestLoader.loadTestsFromTestCase(contract(solver))
    tests.run(result)
    broken = [*result.failures, *result.errors]
    if broken:
        reasons = "\n".join(
            f"{test.id().rpartition('.')[2]}: {_reason(trace)}" for test, trace in broken
        )
        raise AssertionError(f"{len(broken)} of {result.testsRun} tests fail:\n{reasons}")


def _reason(trace: str) -> str:
    """The error at the end of a trace, its first line."""
    return next(line for line in trace.splitlines()[1:] if not line.startswith(" "))


def example(n: int = 8, k: int | None = None, seed: int = 0, rank: int = 3) -> CardinalityProblem:
    """A problem without symmetry: reversing or permuting its variables gives another one.

    Args:
        n: variables.
        k: ones; half of them when None.
        seed: of its numbers.
        rank: rows of the factor.
    """
    rng = np.random.default_rng(seed)
    k = n // 2 if k is None else k
    initial = np.zeros(n, dtype=bool)
    initial[rng.permutation(n)[:k]] = True
    return CardinalityProblem(
        linear=rng.normal(size=n) + np.arange(n) / max(n, 1),
        cardinality=k,
        factor=rng.normal(size=(rank, n)),
        offset=0.7,
        initial=initial,
    )


def degenerate_examples() -> Iterator[CardinalityProblem]:
    """Problems of no variables, of one feasible state, without couplings, flat, not convex."""
    for n, k in ((0, 0), (1, 0), (1, 1), (6, 0), (6, 6), (5, 1), (5, 4), (2, 1)):
        yield example(n, k)
    yield example(6, 3, rank=0)
    yield CardinalityProblem(linear=np.zeros(6), cardinality=3, factor=np.zeros((2, 6)))
    yield CardinalityProblem(linear=np.ones(6), cardinality=2, quadratic=np.ones((6, 6)))
    yield CardinalityProblem(linear=np.zeros(4), cardinality=2, quadratic=-np.eye(4))


def grouped_examples() -> Iterator[CardinalityProblem]:
    """Problems with a number of ones in each group: mixed sizes and orders, some groups settled."""
    for sizes, ones, seed in (
        ((4, 4), (2, 2), 0),
        ((2, 3, 3), (1, 2, 1), 1),
        ((3, 1, 2, 2), (1, 1, 0, 1), 2),
        ((5, 3), (0, 3), 3),
    ):
        rng = np.random.default_rng(seed)
        groups = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
        bare = example(len(groups), sum(ones), seed)
        yield replace(bare, initial=None, groups=groups, cardinalities=np.array(ones))


class _Contract(unittest.TestCase):
    """The tests; a subclass has `made`."""

    made: Callable[[], CardinalitySampler]

    def holds(
        self, sampler: CardinalitySampler, problem: CardinalityProblem, samples: dimod.SampleSet
    ) -> None:
        """What is true of every answer."""
        states, info = samples.record.sample, samples.info
        self.assertIs(samples.vartype, dimod.BINARY)
        self.assertEqual(list(samples.variables), list(range(problem.n)))
        feasible = bool(problem.is_feasible(states).all())
        self.assertTrue(feasible, f"states do not have {problem.cardinality} ones")
        off = np.abs(samples.record.energy - problem.energy(states)).max()
        self.assertLessEqual(off, CLOSE, "energies are not those of the states")
        self.assertEqual(info["solver"], sampler.name)
        self.assertEqual(info["track"], sampler.track)
        self.assertIs(info["received_start"], False)
        self.assertEqual(set(info["timing"]), set(TIMING_KEYS))
        self.assertTrue(all(seconds >= 0 for seconds in info["timing"].values()))
        json.dumps(info["timing"])
        if sampler.track == "penalised":
            raw = samples.record.raw_sample
            self.assertEqual(raw.shape, states.shape)
            self.assertTrue(np.isin(raw, (0, 1)).all(), "raw_sample is not zeros and ones")
        if "lower_bound" in info:
            self.assertLessEqual(info["lower_bound"], samples.first.energy + CLOSE)

    def test_it_is_a_dimod_sampler_that_describes_itself(self) -> None:
        """Name, track and properties, which must be JSON."""
        sampler = self.made()
        self.assertIsInstance(sampler, CardinalitySampler)
        self.assertIsInstance(sampler.name, str)
        self.assertIn(sampler.track, get_args(Track))
        self.assertLessEqual(set(sampler.honours), {"time_limit", "reads", "sweeps"})
        json.dumps(sampler.properties)
        dimod.testing.assert_sampler_api(sampler)

    def test_answers_are_feasible_and_scored_right(self) -> None:
        """The answer itself, and each improved state on the way, reported once."""
        sampler, problem = self.made(), example()
        found: list[Any] = []
        samples = sampler.sample_problem(
            problem.blinded(), budget=Budget(reads=20), seed=3, on_incumbent=found.append
        )
        self.holds(sampler, problem, samples)
        self.assertTrue(found, "no state was reported: call request.report with improved states")
        self.assertTrue(problem.is_feasible(np.array(found)).all(), "reported an infeasible state")
        energies = problem.energy(np.array(found))
        self.assertTrue((np.diff(energies) < 0).all(), "reported states do not improve")
        self.assertAlmostEqual(energies[-1], samples.first.energy, delta=1e-12)

    def test_degenerate_problems_are_answered(self) -> None:
        """See `degenerate_examples`."""
        sampler = self.made()
        for problem in degenerate_examples():
            with self.subTest(n=problem.n, k=problem.cardinality, rank=problem.rank):
                samples = sampler.sample_problem(problem.blinded(), budget=Budget(reads=3), seed=1)
                self.holds(sampler, problem, samples)

    def test_groups_are_kept_or_refused(self) -> None:
        """As `takes_groups` says."""
        sampler = self.made()
        for problem in grouped_examples():
            with self.subTest(ones=problem.group_ones.tolist()):
                if not sampler.takes_groups:
                    with self.assertRaisesRegex(ProblemError, "groups"):
                        sampler.sample_problem(problem)
                    continue
                samples = sampler.sample_problem(problem, budget=Budget(reads=3), seed=1)
                self.holds(sampler, problem, samples)

    def test_the_seed_decides(self) -> None:
        """The same seed gives the same samples."""
        children = getattr(self.made(), "children", [])
        if any("seed" not in child.parameters for child in children):
            self.skipTest("the sampler takes no seed")
        problem = example(12).blinded()
        one, again = (
            self.made().sample_problem(problem, budget=Budget(reads=5), seed=5) for _ in range(2)
        )
        same = np.array_equal(one.record.sample, again.record.sample)
        self.assertTrue(same, "the same seed gave other samples")

    def test_no_time_limit_is_overrun_by_far(self) -> None:
        """After a first call, which may compile."""
        sampler = self.made()
        if "time_limit" not in sampler.honours:
            self.skipTest("it does not claim to honour a time limit")
        problem = example(min(200, sampler.max_variables or 200), rank=8).blinded()
        sampler.sample_problem(problem, budget=Budget(reads=1, time_limit=0.5), seed=0)
        start = time.perf_counter()
        sampler.sample_problem(problem, budget=Budget(time_limit=0.2), seed=0)
        self.assertLess(time.perf_counter() - start, OVERRUN_SECONDS, "for a limit of 0.2 s")

    def test_unknown_keywords_are_refused(self) -> None:
        """By name, for problems and for models."""
        sampler, bqm = self.made(), example().to_bqm()
        for call in (
            lambda: sampler.sample_problem(example(), nonsense=1),
            lambda: sampler.sample(bqm, cardinality=4, nonsense=1),
            lambda: sampler.sample(bqm, nonsense=1),
        ):
            with self.assertRaisesRegex(ParameterError, "nonsense"):
                call()

    def test_a_start_is_used_or_refused(self) -> None:
        """As `takes_initial` says."""
        sampler, problem = self.made(), example(12)
        if not sampler.takes_initial:
            with self.assertRaisesRegex(ParameterError, "leave it out"):
                sampler.sample_problem(problem.blinded(), initial=problem.initial)
            return
        samples = sampler.sample_problem(
            problem.blinded(), initial=problem.initial, budget=Budget(reads=1), seed=0
        )
        self.assertIs(samples.info["received_start"], True)
        with self.assertRaisesRegex(ProblemError, "expected 6"):
            sampler.sample_problem(problem, initial=np.ones(12))

    def test_too_many_variables_are_dimods_size_error(self) -> None:
        """Where there is a limit at all."""
        sampler = self.made()
        if sampler.max_variables is None:
            self.skipTest("it has no size limit")
        with self.assertRaisesRegex(dimod.exceptions.BinaryQuadraticModelSizeError, "at most"):
            sampler.sample_problem(example(sampler.max_variables + 1))

    def test_models_with_a_cardinality_keep_labels_and_vartype(self) -> None:
        """Mixed labels, an offset, spins and binary variables."""
        labels = ["d", "b", ("a", 1), 7, "c"]
        for vartype in (dimod.SPIN, dimod.BINARY):
            with self.subTest(vartype=vartype.name):
                rng = np.random.default_rng(1)
                bqm = dimod.BinaryQuadraticModel(vartype)
                for i, u in enumerate(labels):
                    bqm.add_linear(u, rng.normal())
                    for v in labels[:i]:
                        bqm.add_quadratic(u, v, rng.normal())
                bqm.offset = 1.5
                samples = self.made().sample(bqm, cardinality=2, num_reads=10, seed=2)
                self.assertIs(samples.vartype, bqm.vartype)
                self.assertEqual(set(samples.variables), set(labels))
                dimod.testing.assert_response_energies(samples, bqm)
                counts = (samples.record.sample > 0).sum(axis=1).tolist()
                self.assertEqual(set(counts), {2}, "numbers of ones")

    def test_a_model_of_no_variables_has_one_state(self) -> None:
        """With and without a cardinality."""
        for vartype in (dimod.SPIN, dimod.BINARY):
            for keywords in _with_and_without(0):
                with self.subTest(vartype=vartype.name, **keywords):
                    bqm = dimod.BinaryQuadraticModel({}, {}, 1.5, vartype)
                    samples = self.made().sample(bqm, **keywords)
                    self.assertEqual(samples.record.sample.shape, (1, 0))
                    self.assertEqual(samples.first.energy, 1.5)
                    self.assertIs(samples.vartype, bqm.vartype)

    def test_biases_that_are_not_finite_are_refused(self) -> None:
        """The message names the bias and its variable."""
        for keywords in _with_and_without(1):
            for bias, words in ((np.nan, "bias nan"), (-np.inf, "bias -inf")):
                for linear, quadratic, place in (
                    ({"a": bias, "b": 1.0}, {}, "on variable 'a'"),
                    ({"a": 1.0, "b": 1.0}, {("a", "b"): bias}, "between '.' and '.'"),
                ):
                    bqm = dimod.BinaryQuadraticModel(linear, quadratic, "BINARY")
                    with self.assertRaisesRegex(ProblemError, f"{words} {place}"):
                        self.made().sample(bqm, **keywords)
            bqm = dimod.BinaryQuadraticModel({"a": 1.0}, {}, np.inf, "SPIN")
            with self.assertRaisesRegex(ProblemError, "offset inf"):
                self.made().sample(bqm, **keywords)

    def test_a_copy_solves_as_the_solver_does(self) -> None:
        """Deep copies and pickles, before the first call and after it: studies send solvers."""
        children = getattr(self.made(), "children", [])
        seeded = all("seed" in child.parameters for child in children)
        problem, budget = example(6).blinded(), Budget(reads=4)
        for copied in (copy.deepcopy, _pickled):
            with self.subTest(copied=copied.__name__):
                sampler = self.made()
                before = copied(sampler)
                expected = sampler.sample_problem(problem, budget=budget, seed=3).record.sample
                for other in (before, copied(sampler)):
                    self.assertEqual(other.name, sampler.name)
                    self.assertEqual(other.properties, sampler.properties)
                    samples = other.sample_problem(problem, budget=budget, seed=3)
                    same = np.array_equal(samples.record.sample, expected)
                    self.assertTrue(same or not seeded, "the copy gave other samples")


def _with_and_without(cardinality: int) -> Iterator[dict[str, Any]]:
    """Keywords of `CardinalitySampler.sample`."""
    yield {}
    yield {"cardinality": cardinality}


def _pickled(sampler: CardinalitySampler) -> CardinalitySampler:
    """What arrives in another process."""
    copied: CardinalitySampler = pickle.loads(pickle.dumps(sampler))  # noqa: S301  (our own)
    return copied
