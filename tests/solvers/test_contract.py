"""One contract for every registered solver, on both tracks: `solvers.testing`."""

from functools import partial

import dimod
import numpy as np
import pytest

import solvers
from solvers import Budget, CardinalitySampler, SolverError, available
from solvers.base import Solution
from solvers.errors import ParameterError, UnavailableError, UnknownSolverError
from solvers.registry import SOLVERS, entry
from solvers.testing import check, contract, example

# These train angles or compile a circuit in every call; tests/test_qaoa_*.py covers them quickly.
SLOW = {
    "qaoa-subspace", "qaoa-xy-aer", "qaoa-xy-braket-local", "qaoa-qiskit-optimizer", "qaoa-braket",
    "qaoa-xy-braket", "qaoa-xy-ibm",
}  # fmt: skip
BRAKET = {"device": "SV1", "max_cost": 1000.0, "rehearse": True}
REHEARSED = {
    "qaoa-braket": BRAKET,
    "qaoa-xy-braket": BRAKET,
    "qaoa-xy-ibm": {"max_quantum_time": 1e6, "rehearse": True},
    "qpu": {"max_service_time": 1000.0, "rehearse": True},
    "leap-hybrid-cqm": {"max_service_time": 1000.0, "rehearse": True},
    "leap-hybrid-nl": {"max_service_time": 1000.0, "rehearse": True},
}
each_solver = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in SOLVERS],
)


def make(name):
    """The solver with what it cannot do without."""
    return solvers.make(name, **REHEARSED.get(name, {}))


@each_solver
def test_registry_and_class_agree(name):
    sampler = make(name)
    assert sampler.name == name
    assert sampler.track == entry(name).track
    assert sampler.paid == entry(name).paid
    assert available()[name] is None
    assert entry(name).properties == solvers.make(name).properties


for solver in SOLVERS:
    case = contract(partial(make, solver))
    globals()[f"Test_{solver}"] = pytest.mark.slow(case) if solver in SLOW else case
del case


def test_another_seed_makes_another_draw():
    given = example(12).blinded()
    for name in ("random", "qaoa-aer", "qaoa-braket-local"):
        one, other = (
            make(name).sample_problem(given, budget=Budget(reads=20), seed=seed) for seed in (5, 6)
        )
        assert (one.record.raw_sample != other.record.raw_sample).any()


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


def test_what_simulates_circuits_warms_up_for_every_size():
    simulated = ("solvers.qaoa.", "solvers.cloud.paid:", "solvers.cloud.ibm:")
    for name in SOLVERS:
        if entry(name).target.startswith(simulated):
            assert make(name).warm_up_by_size, name
    assert not any(make(name).warm_up_by_size for name in ("annealing", "exact", "neal"))


class First(CardinalitySampler):
    """The first k variables."""

    name = "first"

    def _solve(self, problem, request):
        states = np.arange(problem.n)[None] < problem.cardinality
        request.report(states[0])
        return Solution(states)


class Broken(First):
    """Breaks what a solver can break: feasibility, the listener, the seed, copies, JSON."""

    name = "broken"
    honours = ("patience",)

    def __init__(self):
        self.draw = np.random.default_rng()
        self.hook = lambda: None

    def _solve(self, problem, request):
        states = self.draw.random((3, problem.n)) < 0.5
        request.report(states[0])
        request.report(states[0])
        return Solution(states)


class Zeros(dimod.Sampler):
    """A sampler of somebody who never heard of this package, without a seed."""

    parameters, properties = {"num_reads": []}, {}

    def sample(self, bqm, num_reads=1):
        return dimod.SampleSet.from_samples_bqm(
            [dict.fromkeys(bqm.variables, min(bqm.vartype.value))] * num_reads, bqm
        )


TestFirst = contract(First)
TestZeros = contract(Zeros)


def test_check_says_which_promises_are_broken():
    check(First)
    with pytest.raises(AssertionError) as caught:
        check(Broken)
    said = str(caught.value)
    for words in (
        "test_answers_are_feasible_and_scored_right: AssertionError: False is not true : states do",
        "test_the_seed_decides: AssertionError: False is not true : the same seed gave",
        "test_a_copy_solves_as_the_solver_does (copied='_pickled'): AttributeError: Can't pickle",
        "test_it_is_a_dimod_sampler_that_describes_itself: AssertionError: {'patience'}",
    ):
        assert words in said, said
