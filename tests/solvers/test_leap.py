"""Leap's hybrid solvers through their stand-ins, and the nonlinear model that one of them sends."""

import itertools
import json
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import dimod
import numpy as np
import pytest
from dwave.optimization import Model
from dwave.system import LeapHybridNLSampler
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers import Budget, CardinalityProblem, make
from solvers.cloud import leap
from solvers.cloud.nonlinear import nonlinear_model, put_states, states_of
from solvers.errors import CostError, ParameterError, SampleError
from solvers.testing import degenerate_examples, example, grouped_examples

KINDS = ("factor", "dense", "no linear", "scales", "no factor rows", "no couplings")


def gross(problem, states):
    """Sum of the sizes of an energy's terms: what its rounding is relative to."""
    x = np.asarray(states, dtype=np.float64)
    size = abs(problem.offset) + x @ np.abs(problem.linear)
    if problem.factor is not None:
        return size + 0.5 * ((x @ np.abs(problem.factor).T) ** 2).sum(axis=-1)
    return size + 0.5 * ((x @ np.abs(problem.quadratic)) * x).sum(axis=-1)


@st.composite
def problems(draw):
    n = draw(st.integers(2, 9))
    kind = draw(st.sampled_from(KINDS))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    labels = np.sort(rng.integers(0, draw(st.integers(1, 3)), n))
    labels = rng.permutation(np.unique(labels, return_inverse=True)[1])
    ones = np.array([rng.integers(0, size + 1) for size in np.bincount(labels)])
    linear = 0.0 * rng.normal(size=n) if kind == "no linear" else rng.normal(size=n)
    rank = 0 if kind == "no factor rows" else draw(st.integers(1, 5))
    factor = rng.normal(size=(rank, n))
    if kind == "scales":
        scale = 10.0 ** rng.choice([-3.0, 0.0, 3.0], size=n)
        factor, linear = factor * scale, linear * scale
    form = {"factor": factor}
    if kind in ("dense", "no couplings"):
        G = rng.normal(size=(n, n)) if kind == "dense" else np.diag(rng.normal(size=n))
        form = {"quadratic": (G + G.T) / 2}
    return CardinalityProblem(
        linear=linear,
        cardinality=int(ones.sum()),
        offset=float(rng.normal()),
        groups=labels,
        cardinalities=ones,
        **form,
    )


@given(problems())
@settings(max_examples=80, deadline=None)
def test_the_model_has_the_problems_states_and_energies(problem):
    """Against every 0/1 vector: the feasible ones are states, the others are refused."""
    model = nonlinear_model(problem)
    everything = np.array(list(itertools.product((0, 1), repeat=problem.n)))
    right = problem.is_feasible(everything)
    feasible = everything[right]
    put_states(model, problem, feasible)
    np.testing.assert_array_equal(states_of(model, problem), feasible)
    found = np.array([float(model.objective.state(i)) for i in range(len(feasible))])
    off = np.abs(found - problem.energy(feasible))
    assert (off <= 1e-9 * gross(problem, feasible)).all()
    assert model.num_constraints() == 0
    for row in everything[~right][:20]:
        with pytest.raises(ValueError, match="sum constraint"):
            put_states(model, problem, row[None])


@given(problems())
@settings(max_examples=30, deadline=None)
def test_the_model_survives_its_way_to_the_service(problem):
    """Numbers of ones and order of symbols are in the file, whatever the groups' sizes."""
    model = nonlinear_model(problem)
    with model.to_file() as file:
        arrived = Model.from_file(file)
    arrived.lock()
    symbols = list(arrived.iter_decisions())
    sums = [symbol.sum_constraints() for symbol in symbols]
    assert sums == [[(["=="], [ones])] for ones in problem.group_ones.tolist()]
    states = np.array([problem.random_state(np.random.default_rng(i)) for i in range(3)])
    put_states(arrived, problem, states)
    with arrived.states.to_file() as file:
        model.states.from_file(file)
    np.testing.assert_array_equal(states_of(model, problem), states)
    for i in range(3):
        assert float(arrived.objective.state(i)) == float(model.objective.state(i))


def rehearsed(**options):
    return make("leap-hybrid-nl", rehearse=True, **{"max_service_time": 10.0} | options)


def test_the_objective_of_every_returned_state_is_its_energy(monkeypatch):
    models = []

    def kept(problem):
        models.append(nonlinear_model(problem))
        return models[-1]

    monkeypatch.setattr(leap, "nonlinear_model", kept)
    dense = example(30, rank=4)
    dense = replace(dense, factor=None, quadratic=dense.gram(), initial=None)
    open_ones = [p for p in degenerate_examples() if p.only_state is None]
    several = [example(40, rank=8), dense, *open_ones]
    several += [problem for problem in grouped_examples() if problem.only_state is None]
    for problem in several:
        samples = rehearsed().sample_problem(problem.blinded(), seed=1)
        states = samples.record.sample
        assert problem.is_feasible(states).all()
        assert len(states) == models[-1].states.size() == leap.RehearsedNL.STATES
        for i, state in enumerate(states):
            off = abs(float(models[-1].objective.state(i)) - problem.energy(state))
            assert off <= 1e-9 * max(gross(problem, state), 1e-300)


def test_seconds_of_the_nonlinear_solver_are_capped_and_recorded(monkeypatch):
    block = example(20)
    solver = rehearsed(max_service_time=1.0)
    with pytest.raises(ParameterError, match=r"needs at least 0\.1 s"):
        solver.sample_problem(block, budget=Budget(time_limit=0.01))
    info = solver.sample_problem(block, budget=Budget(time_limit=0.7), seed=1).info
    assert info["service_seconds"] == info["service_seconds_used"] == pytest.approx(0.7)
    assert info["rehearsal"] is True
    json.dumps(info)
    monkeypatch.setattr(solver.service, "sample", lambda *a, **k: pytest.fail("it was sent"))
    with pytest.raises(CostError, match=r"0\.7 s of max_service_time=1"):
        solver.sample_problem(block, budget=Budget(time_limit=0.7), seed=1)


class Cloud:
    """The service behind the SDK's own sampler: takes files, and answers with files."""

    def __init__(self, rows, problem):
        self.rows, self.problem, self.asked, self.files = rows, problem, [], []
        self.properties = {"category": "hybrid", "min_time_limit": 5, "maximum_number_of_states": 9}

    def upload_nlm(self, model, max_num_states):
        with model.to_file(max_num_states=max_num_states) as file:
            self.sent = Model.from_file(file)
        done = Future()
        done.set_result("data")
        return done

    def sample_nlm(self, data, time_limit):
        assert data == "data"
        self.asked.append(time_limit)
        self.sent.lock()
        put_states(self.sent, self.problem, self.rows)
        self.files.append(self.sent.states.to_file())
        timing = {"charge_time": 5_000_000, "run_time": 4_900_000, "qpu_access_time": 40_000}
        return SimpleNamespace(
            answer_data=self.files[-1], timing=timing, id="1", label=None, wait_id=lambda: "1"
        )


@pytest.fixture
def cloud(monkeypatch):
    """Six states of a problem, through the SDK's own sampler, which never connects."""
    block = example(12).blinded()
    rows = np.array([block.random_state(np.random.default_rng(i)) for i in range(6)])
    there = Cloud(rows, block)
    sampler = LeapHybridNLSampler.__new__(LeapHybridNLSampler)
    with ThreadPoolExecutor(1) as sampler._executor:
        sampler.solver = there
        monkeypatch.setattr(leap, "connected", lambda *a, **k: sampler)
        yield there
    for file in there.files:
        file.close()


def test_the_services_answer_is_read_and_its_charge_kept(cloud, monkeypatch):
    block = cloud.problem
    solver = make("leap-hybrid-nl", max_service_time=12.0)
    with pytest.raises(ParameterError, match="needs at least 5 s"):
        solver.sample_problem(block, budget=Budget(time_limit=4.0))
    seen = []
    samples = solver.sample_problem(block, budget=Budget(time_limit=6.0), on_incumbent=seen.append)
    assert cloud.asked == [6.0]
    np.testing.assert_array_equal(samples.record.sample, cloud.rows)
    assert samples.info["service_seconds"] == solver.cap.used == pytest.approx(5.0)
    assert samples.info["rehearsal"] is False
    assert block.energy(np.array(seen)).tolist() == [samples.first.energy]
    cloud.rows = cloud.rows[:0]
    with pytest.raises(SampleError, match="returned no state"):
        solver.sample_problem(block)
    # What failed on the way may have been charged: it stays reserved.
    monkeypatch.setattr(cloud, "sample_nlm", lambda *a, **k: 1 / 0)
    solver.cap.used = 0.0
    with pytest.raises(ZeroDivisionError):
        solver.sample_problem(block)
    assert solver.cap.used == 5.0


def test_limits_of_the_constrained_solver_and_broken_rows(monkeypatch):
    block = example(30)
    solver = make("leap-hybrid-cqm", max_service_time=1.0, rehearse=True)
    with pytest.raises(ParameterError, match=r"needs at least 0\.1 s"):
        solver.sample_problem(block, budget=Budget(time_limit=0.01))
    info = solver.sample_problem(block, budget=Budget(time_limit=0.7), seed=1).info
    assert info["service_seconds"] == pytest.approx(0.7)
    assert info["infeasible_rows"] > 0
    with pytest.raises(CostError, match=r"0\.7 s of max_service_time=1"):
        solver.sample_problem(block, budget=Budget(time_limit=0.7), seed=1)

    def permuted(cqm, **keywords):
        rows = np.vstack([block.initial, ~block.initial]).astype(np.int8)[:, ::-1]
        return dimod.SampleSet.from_samples(
            (rows, range(29, -1, -1)), energy=[0, 0], vartype="BINARY"
        )

    monkeypatch.setattr(solver.service, "sample_cqm", permuted)
    samples = solver.sample_problem(block, budget=Budget(time_limit=0.2))
    assert samples.info["infeasible_rows"] == 0
    assert (samples.record.sample[0] == block.initial).all()
