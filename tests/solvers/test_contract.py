"""One contract for every registered solver, in both lanes."""

import copy
import json
import pickle
import time
import unittest

import dimod
import dimod.testing
import numpy as np
import pytest

import solvers
from solvers import Budget, CardinalityProblem, CardinalitySampler, SolverError, available
from solvers.base import TIMING_KEYS
from solvers.errors import ParameterError, ProblemError, UnavailableError, UnknownSolverError
from solvers.registry import SOLVERS, entry

# These train angles or compile a circuit in every call; tests/test_qaoa_*.py covers them quickly.
SLOW = {
    "qaoa-subspace", "qaoa-xy-aer", "qaoa-xy-braket-local", "qaoa-qiskit-optimizer", "qaoa-braket",
    "qaoa-xy-braket",
}  # fmt: skip
BRAKET = {"device": "SV1", "max_cost": 1000.0, "rehearse": True}
REHEARSED = {
    "qaoa-braket": BRAKET,
    "qaoa-xy-braket": BRAKET,
    "qpu": {"max_service_time": 1000.0, "rehearse": True},
    "leap-hybrid-cqm": {"max_service_time": 1000.0, "rehearse": True},
}
each_solver = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in SOLVERS],
)


def make(name):
    """The solver with what it cannot do without."""
    return solvers.make(name, **REHEARSED.get(name, {}))


def problem(n=8, k=None, seed=0, rank=3):
    """No symmetry: reversing or permuting the variables gives another problem."""
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


def check(sampler, given, samples):
    """What holds of every answer."""
    states = samples.record.sample
    assert samples.vartype is dimod.BINARY
    assert list(samples.variables) == list(range(given.n))
    assert given.is_feasible(states).all()
    assert np.abs(samples.record.energy - given.energy(states)).max() <= 1e-9
    info = samples.info
    assert info["solver"] == sampler.name
    assert info["lane"] == sampler.lane
    assert set(info["timing"]) == set(TIMING_KEYS)
    assert all(seconds >= 0 for seconds in info["timing"].values())
    assert info["received_incumbent"] is False
    if sampler.lane == "penalised":
        raw = samples.record.raw_sample
        assert raw.shape == states.shape
        assert np.isin(raw, (0, 1)).all()
    if "lower_bound" in info:
        assert info["lower_bound"] <= samples.first.energy + 1e-9
    assert json.dumps(info["timing"])


@each_solver
def test_registry_and_class_agree(name):
    sampler = make(name)
    assert sampler.name == name
    assert sampler.lane == entry(name).lane
    assert sampler.paid == entry(name).paid
    assert available()[name] is None
    assert isinstance(sampler, CardinalitySampler)
    dimod.testing.assert_sampler_api(sampler)
    assert json.dumps(sampler.properties)
    assert entry(name).properties == solvers.make(name).properties


for solver in SOLVERS:
    case = type(f"TestDimodSuite_{solver}", (unittest.TestCase,), {"__module__": __name__})
    case = dimod.testing.load_sampler_bqm_tests(lambda name=solver: make(name), 6)(case)
    globals()[case.__name__] = pytest.mark.slow(case) if solver in SLOW else case
del case


@each_solver
def test_answers_are_feasible_and_scored_right(name):
    sampler, given = make(name), problem()
    found = []
    samples = sampler.sample_problem(
        given.blinded(), budget=Budget(reads=20), seed=3, on_incumbent=found.append
    )
    check(sampler, given, samples)
    energies = given.energy(np.array(found))
    assert given.is_feasible(np.array(found)).all()
    assert (np.diff(energies) < 0).all()
    assert energies[-1] == pytest.approx(samples.first.energy, abs=1e-12)


@each_solver
@pytest.mark.parametrize(
    "given",
    [
        problem(0),
        problem(1, 0),
        problem(1, 1),
        problem(6, 0),
        problem(6, 6),
        problem(5, 1),
        problem(5, 4),
        problem(2, 1),
        problem(6, 3, rank=0),
        CardinalityProblem(linear=np.zeros(6), cardinality=3, factor=np.zeros((2, 6))),
        CardinalityProblem(linear=np.ones(6), cardinality=2, quadratic=np.ones((6, 6))),
        CardinalityProblem(linear=np.zeros(4), cardinality=2, quadratic=-np.eye(4)),
    ],
    ids=lambda p: f"n{p.n}k{p.cardinality}r{p.rank}",
)
def test_degenerate_problems(name, given):
    sampler = make(name)
    check(sampler, given, sampler.sample_problem(given.blinded(), budget=Budget(reads=3), seed=1))


@each_solver
def test_the_seed_decides(name):
    given = problem(12).blinded()
    budget = Budget(reads=5)
    one, again = (make(name).sample_problem(given, budget=budget, seed=5) for _ in range(2))
    assert (one.record.sample == again.record.sample).all()


def test_another_seed_makes_another_draw():
    given = problem(12).blinded()
    for name in ("random", "qaoa-aer", "qaoa-braket-local"):
        one, other = (
            make(name).sample_problem(given, budget=Budget(reads=20), seed=seed) for seed in (5, 6)
        )
        assert (one.record.raw_sample != other.record.raw_sample).any()


@each_solver
def test_no_time_limit_is_overrun_by_far(name):
    sampler = make(name)
    if "time_limit" not in sampler.honours:
        pytest.skip("does not claim to honour a time limit")
    given = problem(min(200, sampler.max_variables or 200), rank=8).blinded()
    sampler.sample_problem(given, budget=Budget(reads=1, time_limit=0.5), seed=0)
    start = time.perf_counter()
    sampler.sample_problem(given, budget=Budget(time_limit=0.2), seed=0)
    # Generous on purpose: one read of slack and a loaded machine; a hang would take minutes.
    assert time.perf_counter() - start < 5


@each_solver
def test_unknown_keywords_are_refused(name):
    with pytest.raises(ParameterError, match="nonsense"):
        make(name).sample_problem(problem(), nonsense=1)
    bqm = problem().to_bqm()
    with pytest.raises(ParameterError, match="nonsense"):
        make(name).sample(bqm, cardinality=4, nonsense=1)
    with pytest.raises(ParameterError, match="nonsense"):
        make(name).sample(bqm, nonsense=1)


@each_solver
def test_incumbent_is_used_or_refused(name):
    sampler, given = make(name), problem(12)
    if not sampler.takes_initial:
        with pytest.raises(ParameterError, match="leave it out"):
            sampler.sample_problem(given.blinded(), initial=given.initial)
        return
    samples = sampler.sample_problem(
        given.blinded(), initial=given.initial, budget=Budget(reads=1), seed=0
    )
    assert samples.info["received_incumbent"] is True
    with pytest.raises(ProblemError, match="expected 6"):
        sampler.sample_problem(given, initial=np.ones(12))


@each_solver
def test_too_many_variables_is_dimods_size_error(name):
    sampler = make(name)
    if sampler.max_variables is None:
        pytest.skip("no size limit")
    given = problem(sampler.max_variables + 1)
    with pytest.raises(dimod.exceptions.BinaryQuadraticModelSizeError, match="at most"):
        sampler.sample_problem(given)


@each_solver
@pytest.mark.parametrize("vartype", ["SPIN", "BINARY"])
def test_as_a_dimod_sampler_with_cardinality(name, vartype):
    rng = np.random.default_rng(1)
    labels = ["d", "b", ("a", 1), 7, "c"]
    bqm = dimod.BinaryQuadraticModel(vartype)
    for i, u in enumerate(labels):
        bqm.add_linear(u, rng.normal())
        for v in labels[:i]:
            bqm.add_quadratic(u, v, rng.normal())
    bqm.offset = 1.5
    samples = make(name).sample(bqm, cardinality=2, num_reads=10, seed=2)
    assert samples.vartype is bqm.vartype
    assert set(samples.variables) == set(labels)
    dimod.testing.assert_response_energies(samples, bqm)
    assert ((samples.record.sample > 0).sum(axis=1) == 2).all()


@each_solver
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_a_copy_solves_as_the_solver_does(name, copied):
    """Before its first call, and with what the first call left in it."""
    sampler, given = make(name), problem(6).blinded()
    before = copied(sampler)
    budget = Budget(reads=4)
    expected = sampler.sample_problem(given, budget=budget, seed=3).record.sample
    for other in (before, copied(sampler)):
        assert other.name == name
        assert other.properties == sampler.properties
        found = other.sample_problem(given, budget=budget, seed=3).record.sample
        assert (found == expected).all()


@each_solver
@pytest.mark.parametrize("vartype", ["SPIN", "BINARY"])
@pytest.mark.parametrize("keywords", [{}, {"cardinality": 0}])
def test_a_model_of_no_variables_has_one_state(name, vartype, keywords):
    bqm = dimod.BinaryQuadraticModel({}, {}, 1.5, vartype)
    samples = make(name).sample(bqm, **keywords)
    assert samples.record.sample.shape == (1, 0)
    assert samples.first.energy == 1.5
    assert samples.vartype is bqm.vartype


@each_solver
@pytest.mark.parametrize("keywords", [{}, {"cardinality": 1}])
def test_biases_that_are_not_finite_are_refused(name, keywords):
    for bias, words in ((np.nan, "bias nan"), (-np.inf, "bias -inf")):
        for linear, quadratic, place in (
            ({"a": bias, "b": 1.0}, {}, "on variable 'a'"),
            ({"a": 1.0, "b": 1.0}, {("a", "b"): bias}, "between '.' and '.'"),
        ):
            bqm = dimod.BinaryQuadraticModel(linear, quadratic, "BINARY")
            with pytest.raises(ProblemError, match=f"{words} {place}"):
                make(name).sample(bqm, **keywords)
    with pytest.raises(ProblemError, match="offset inf"):
        make(name).sample(dimod.BinaryQuadraticModel({"a": 1.0}, {}, np.inf, "SPIN"), **keywords)


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        ({"time_limit": 0}, "time_limit is 0"),
        ({"time_limit": float("nan")}, "time_limit is nan"),
        ({"reads": 0}, "reads is 0"),
        ({"sweeps": 1.5}, "sweeps is 1.5"),
    ],
)
def test_impossible_budgets(budget, words):
    with pytest.raises(ParameterError, match=words):
        Budget(**budget)


def test_unknown_solver_names_the_known_ones():
    with pytest.raises(UnknownSolverError, match="annealing"):
        make("anealing")


def test_missing_package_names_the_remedy(monkeypatch):
    monkeypatch.setattr("solvers.registry.find_spec", lambda module: None)
    with pytest.raises(UnavailableError, match="needs the package 'neal'"):
        make("neal")
    assert issubclass(UnavailableError, SolverError)


def test_neal_is_the_class_of_dwave_samplers():
    import neal
    from dwave.samplers import SimulatedAnnealingSampler

    assert neal.SimulatedAnnealingSampler is SimulatedAnnealingSampler


def test_qaoa_warms_up_for_every_size_and_nothing_else_does():
    by_size = {name for name in SOLVERS if make(name).warm_up_by_size}
    assert by_size == {name for name in SOLVERS if name.startswith("qaoa")}
