"""Sample sets of samplers that nobody here wrote, and composites around solvers that count."""

import time

import dimod
import numpy as np
import pytest
from dwave.preprocessing.composites import (
    ClipComposite,
    ConnectedComponentsComposite,
    FixVariablesComposite,
    ScaleComposite,
    SpinReversalTransformComposite,
)

from experiments.record.scoring import score
from solvers import Budget, CardinalityProblem, make
from solvers.clock.deadline import Deadline
from solvers.errors import ParameterError, SampleError
from solvers.penalised import samples as samples_module
from solvers.penalised.samples import checked_rows, repaired


def problem(n=6, k=2, seed=0):
    rng = np.random.default_rng(seed)
    return CardinalityProblem(
        linear=rng.normal(size=n), cardinality=k, factor=rng.normal(size=(2, n))
    )


class Canned(dimod.Sampler):
    """Returns what it is told to."""

    def __init__(self, answer):
        self.answer = answer

    @property
    def parameters(self):
        return {}

    @property
    def properties(self):
        return {}

    def sample(self, bqm):
        return self.answer(bqm)


def canned(rows, labels=None, vartype="BINARY", counts=None, dtype=None):
    def answer(bqm):
        labels_ = list(bqm.variables) if labels is None else labels
        return dimod.SampleSet.from_samples(
            (np.asarray(rows, dtype=dtype or np.int8), labels_),
            energy=np.zeros(len(rows)),
            vartype=vartype,
            sort_labels=False,
            num_occurrences=counts,
        )

    return make(Canned(answer), name="canned")


FAULTS = [
    (canned([[0] * 6], labels=range(1, 7)), "0 is missing; 6 is not a variable of the model"),
    (canned([[0] * 5], labels=range(5)), "returned 5 variables, its model has 6; 5 is missing"),
    (canned([[0] * 7], labels=range(7)), "returned 7 variables, its model has 6; 6 is not"),
    (canned([[-1, 1] * 3]), "returned -1 for variable 0 in BINARY samples, expected 0 or 1"),
    (canned([[0, 1] * 3], vartype="SPIN"), "returned 0 for variable 0 in SPIN samples"),
    (canned([[0, 257] * 3], dtype=np.int16), "returned 257 for variable 1"),
    (canned([[0, 0.5] * 3], dtype=np.float64), r"returned 0\.5 for variable 1"),
    (canned([[0, np.nan] * 3], dtype=np.float64), "returned nan for variable 1"),
    (canned([[0] * 6], counts=[-1]), "num_occurrences that are not whole numbers from 0"),
    (make(Canned(lambda bqm: None), name="canned"), "returned a NoneType, expected"),
    (make(Canned(lambda bqm: [{0: 1}]), name="canned"), "returned a list, expected"),
]


@pytest.mark.parametrize(("sampler", "words"), FAULTS, ids=[words[:24] for _, words in FAULTS])
def test_samples_that_do_not_fit_are_refused(sampler, words):
    with pytest.raises(SampleError, match=f"canned.*{words}"):
        sampler.sample_problem(problem())
    if "num_occ" not in words:
        with pytest.raises(SampleError, match=words):
            sampler.sample(problem().to_bqm())


def test_labels_are_honoured_in_any_order():
    def answer(bqm):
        labels = [3, 0, 5, 1, 4, 2]
        spins = np.array([[1, -1, 1, -1, -1, -1]], dtype=np.int8)
        return dimod.SampleSet.from_samples(
            (spins, labels), energy=0.0, vartype="SPIN", sort_labels=False
        )

    samples = make(Canned(answer)).sample_problem(problem())
    assert samples.record.raw_sample.tolist() == [[0, 0, 0, 1, 0, 1]]
    assert samples.record.sample.tolist() == [[0, 0, 0, 1, 0, 1]]


def test_rows_of_a_native_solver_are_checked_too():
    class Wrong(type(make("greedy"))):
        name = "wrong"
        states = np.array([[257, 1, 0, 0, 0, 0]])

        def _solve(self, problem, request, **parameters):
            from solvers.base import Solution

            return Solution(self.states)

    with pytest.raises(SampleError, match="wrong returned states of shape"):
        Wrong().sample_problem(problem())
    Wrong.states = np.array([[-1, 1, 0, 0, 0, 0]])
    with pytest.raises(SampleError, match="wrong returned states"):
        Wrong().sample_problem(problem())
    Wrong.states = np.array([[1, 1, 0]])
    with pytest.raises(SampleError, match="expected rows of 6"):
        Wrong().sample_problem(problem())


def test_counts_are_kept_and_shares_exact():
    given = problem()
    rows = [[1, 1, 0, 0, 0, 0], [0] * 6, [1] * 6, [0, 0, 1, 1, 0, 0]]
    counts = [3, 10**7, 1, 0]
    samples = canned(rows, counts=counts).sample_problem(given)
    assert samples.record.num_occurrences.tolist() == counts[:3]
    assert samples.record.raw_sample.tolist() == rows[:3]
    assert given.is_feasible(samples.record.sample).all()
    found = score(given, samples, "penalised")
    assert found.reads == 10**7 + 4
    assert found.raw_feasible == 3 / (10**7 + 4)
    assert found.feasible == 1
    best = samples.record.energy.min()
    assert found.best_reads == samples.record.num_occurrences[samples.record.energy == best].sum()
    assert samples.info["raw_violation"] == pytest.approx((2 * 10**7 + 4) / (10**7 + 4))
    expanded = canned(np.repeat(rows, [3, 2, 1, 0], axis=0)).sample_problem(given)
    counted = canned(rows, counts=[3, 2, 1, 0]).sample_problem(given)
    assert score(given, expanded, "penalised") == score(given, counted, "penalised")


def test_a_large_count_costs_no_time():
    start = time.perf_counter()
    canned([[0] * 6], counts=[10**9]).sample_problem(problem())
    assert time.perf_counter() - start < 5  # repaired one by one it would be hours


def test_repair_is_capped_and_says_so(monkeypatch):
    monkeypatch.setattr(samples_module, "MAX_REPAIRED", 3)
    given = problem(10, 5)
    rows = np.triu(np.ones((5, 10), dtype=np.int8), 6)  # all different, none has 5 ones
    samples = canned(rows, counts=[1, 2, 3, 4, 5]).sample_problem(given)
    feasible = given.is_feasible(samples.record.sample)
    assert feasible.tolist() == [True] * 3 + [False] * 2
    assert (samples.record.sample[3:] == rows[3:]).all()
    assert samples.info["unrepaired"] == 9
    found = score(given, samples, "penalised")
    assert (found.reads, found.feasible) == (15, 6 / 15)
    assert found.complaint == ""


def test_the_most_promising_rows_are_repaired_first_and_one_always():
    given = problem(10, 5)
    rows = np.triu(np.ones((4, 10), dtype=np.int8), 6)
    past = Deadline(-1)
    states, left = repaired(
        given, rows, promise=np.array([3.0, 0.0, 2.0, np.nan]), deadline=past, late=past
    )
    assert left.tolist() == [True, False, True, True]
    assert given.is_feasible(states).tolist() == [False, True, False, False]
    states, left = repaired(given, np.repeat(rows, 3, axis=0))
    assert not left.any()
    assert (states[::3] == states[1::3]).all()


def test_no_rows_and_rows_of_nothing():
    states, left = repaired(problem(), np.zeros((0, 6), np.int8))
    assert (states.shape, left.shape) == ((0, 6), (0,))
    empty = dimod.SampleSet.from_samples(np.zeros((2, 0)), energy=[0, 0], vartype="SPIN")
    rows, counts, kept = checked_rows(empty, [], "it")
    assert (rows.shape, counts.tolist(), kept.tolist()) == ((2, 0), [1, 1], [0, 1])


def test_a_problem_scores_many_states_in_parts(monkeypatch):
    given = problem()
    rows = np.random.default_rng(0).integers(0, 2, size=(50, 6)).astype(np.int8)
    whole = given.energy(rows)
    monkeypatch.setattr("solvers.problem._AT_ONCE", 25)
    np.testing.assert_array_equal(given.energy(rows), whole)


# What each composite does to the count of ones, were it let through.
COUNTING = {
    "flips": lambda s, b: SpinReversalTransformComposite(s, seed=1).sample(b, cardinality=3),
    "fixes": lambda s, b: FixVariablesComposite(s).sample(
        b, fixed_variables={0: 1, 1: 1}, cardinality=3
    ),
    "fixes by duality": lambda s, b: FixVariablesComposite(s, algorithm="roof_duality").sample(
        b, cardinality=3
    ),
    "splits": lambda s, b: ConnectedComponentsComposite(s).sample(b, cardinality=3),
    "adds": lambda s, b: dimod.HigherOrderComposite(s).sample_poly(
        dimod.BinaryPolynomial({(0, 1, 2): 1.0, (3,): 1.0}, "BINARY"), cardinality=2
    ),
    "flips, scaled": lambda s, b: ScaleComposite(SpinReversalTransformComposite(s)).sample(
        b, scalar=0.5, cardinality=3
    ),
    "flips through a harmless one": lambda s, b: SpinReversalTransformComposite(
        ScaleComposite(s)
    ).sample(b, scalar=0.5, cardinality=3),
    "fixes spins": lambda s, b: FixVariablesComposite(s).sample_ising(
        {0: 1.0, 1: 1.0}, {(0, 1): 1.0}, fixed_variables={0: 1}, cardinality=1
    ),
}


@pytest.mark.parametrize("name", ["annealing", "exact", "neal"])
@pytest.mark.parametrize("what", COUNTING)
def test_composites_that_change_what_is_counted_are_refused(name, what):
    bqm = problem().to_bqm()
    with pytest.raises(
        ParameterError, match=r"cardinality is passed on by .*Composite.*restricted"
    ):
        COUNTING[what](make(name), bqm)


@pytest.mark.parametrize("name", ["annealing", "neal"])
def test_composites_that_leave_the_variables_alone_are_not(name):
    bqm, sampler = problem().to_bqm(), make(name)
    nodes = list(bqm.variables)
    edges = [(u, v) for u in nodes for v in nodes if u < v]
    for composite, more in (
        (ScaleComposite(sampler), {"scalar": 0.5}),
        (ClipComposite(sampler), {"upper_bound": 1.0}),
        (dimod.StructureComposite(sampler, nodes, edges), {}),
        (dimod.TruncateComposite(sampler, 1), {}),
        (dimod.TrackingComposite(sampler), {}),
        (ScaleComposite(dimod.TrackingComposite(sampler)), {"scalar": 0.5}),
    ):
        samples = composite.sample(bqm, cardinality=3, **more)
        assert (samples.record.sample.sum(axis=1) == 3).all()


def test_composites_without_a_cardinality_are_nobodys_business():
    bqm = problem().to_bqm()
    for name in ("annealing", "neal"):
        samples = SpinReversalTransformComposite(make(name)).sample(bqm, seed=1)
        dimod.testing.assert_response_energies(samples, bqm)


def test_a_solver_inside_an_unrelated_composite_may_count():
    """A sampler that solves a problem of its own on the way is not the composite's child."""

    class Own(dimod.Sampler):
        parameters, properties = {}, {}

        def sample(self, bqm):
            make("greedy").sample(problem().to_bqm(), cardinality=2)
            return dimod.ExactSolver().sample(bqm)

    bqm = problem().to_bqm()
    assert len(SpinReversalTransformComposite(Own()).sample(bqm)) == 64


def test_limits_hold_with_many_rows():
    def answer(bqm):
        rows = np.random.default_rng(0).integers(0, 2, size=(20_000, 400)).astype(np.int8)
        return dimod.SampleSet.from_samples(rows, energy=rows.sum(axis=1), vartype="BINARY")

    given = problem(400, 150)
    sampler = make(Canned(answer))
    start = time.perf_counter()
    samples = sampler.sample_problem(given, budget=Budget(time_limit=0.3))
    assert time.perf_counter() - start < 10  # all of them take a minute on an idle machine
    assert given.is_feasible(samples.record.sample).any()
    assert samples.info["unrepaired"] > 0
