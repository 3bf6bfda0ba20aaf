"""D-Wave's services through their stand-ins, and without a token."""

import itertools
import json
import socket
from dataclasses import replace
from types import SimpleNamespace

import dimod
import dimod.testing
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers import Budget, CardinalityProblem, make
from solvers.cloud import dwave, leap
from solvers.cloud.quota import Cap
from solvers.errors import CostError, ParameterError, UnavailableError
from solvers.testing import example as problem
from solvers.testing import grouped_examples

SERVICES = ("qpu", "leap-hybrid-cqm", "leap-hybrid-nl")
each = pytest.mark.parametrize("name", SERVICES)


@pytest.fixture
def nobody(monkeypatch, tmp_path):
    """No token anywhere, and a network that must not be touched."""
    for variable in ("DWAVE_API_TOKEN", "DWAVE_CONFIG_FILE", "DWAVE_PROFILE", "DWAVE_API_ENDPOINT"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("dwave.cloud.config.loaders.get_configfile_paths", lambda *a, **k: [])
    monkeypatch.chdir(tmp_path)

    def touched(*args, **kwargs):
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket, "getaddrinfo", touched)
    monkeypatch.setattr(socket.socket, "connect", touched)


@each
def test_without_a_token_it_says_what_to_do(name, nobody):
    solver = make(name, max_service_time=1.0)
    assert json.dumps(solver.properties)
    with pytest.raises(UnavailableError, match="DWAVE_API_TOKEN"):
        solver.check()
    with pytest.raises(UnavailableError, match="token"):
        solver.sample_problem(problem(), seed=0)


@each
def test_nothing_is_sent_without_a_cap(name, nobody, monkeypatch):
    for module in (dwave, leap):
        monkeypatch.setattr(module, "connected", lambda *a, **k: pytest.fail("connected"))
    for solver in (make(name), make(name, rehearse=True)):
        with pytest.raises(CostError, match="max_service_time"):
            solver.check()
        with pytest.raises(CostError, match="max_service_time"):
            solver.sample_problem(problem(), seed=0)
    with pytest.raises(ParameterError, match="max_service_time is 0"):
        make(name, max_service_time=0)


def test_access_time_counts_against_the_cap_before_anything_is_sent(monkeypatch):
    one = 1e-6 * (dwave.REHEARSAL_PROGRAMMING + 50 * dwave.REHEARSAL_READ)
    solver = make("qpu", max_service_time=2.5 * one, rehearse=True)
    for calls in (1, 2):
        info = solver.sample_problem(problem(), budget=Budget(reads=50), seed=0).info["child"]
        assert info["service_seconds_used"] == pytest.approx(calls * one)
        assert info["qubits"] >= 8
    monkeypatch.setattr(
        dwave.MockDWaveSampler, "sample", lambda *a, **k: pytest.fail("it was sent")
    )
    with pytest.raises(CostError, match="raise it"):
        solver.sample_problem(problem(), budget=Budget(reads=50), seed=0)


def test_the_chips_own_figures_are_what_is_reserved_and_charged(monkeypatch):
    """A chip that estimates 3 s and charges what the mock reports."""
    solver = make("qpu", max_service_time=4.0)
    chip = dwave.MockDWaveSampler(**dwave.REHEARSAL_TOPOLOGY, parameter_warnings=False)
    asked = []
    chip.solver = SimpleNamespace(
        estimate_qpu_access_time=lambda **given: asked.append(given) or 3e6
    )
    monkeypatch.setattr(dwave, "connected", lambda *a, **k: chip)
    samples = solver.sample_problem(problem(), budget=Budget(reads=7), seed=0, annealing_time=50.0)
    assert asked == [
        {"num_qubits": samples.info["child"]["qubits"], "num_reads": 7, "annealing_time": 50.0}
    ]
    assert samples.info["child"]["service_seconds"] == pytest.approx(8550.28e-6)
    assert samples.info["child"]["service_seconds_used"] == pytest.approx(8550.28e-6)
    assert samples.info["timing"]["execute"] >= 0.99 * 8550.28e-6
    assert len(samples.record.raw_sample) == 7
    # A failed submission stays reserved: it may have been charged.
    monkeypatch.setattr(chip, "sample", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        solver.sample_problem(problem(), seed=0)
    with pytest.raises(CostError):
        solver.sample_problem(problem(), seed=0)


def test_a_chip_too_small_is_dimods_size_error(monkeypatch):
    monkeypatch.setattr(
        dwave, "REHEARSAL_TOPOLOGY", {"topology_type": "chimera", "topology_shape": [2, 2, 4]}
    )
    solver = make("qpu", max_service_time=4.0, rehearse=True)
    with pytest.raises(dimod.exceptions.BinaryQuadraticModelSizeError, match="no clique of 20"):
        solver.sample_problem(problem(20), seed=0)


def test_cap_adds_up():
    cap = Cap(1.0, "x")
    cap.reserve(0.6)
    cap.settle(0.6, 0.1)
    cap.reserve(0.9)
    with pytest.raises(CostError):
        cap.reserve(0.01)


def chip_graph():
    return dwave.MockDWaveSampler(
        **dwave.REHEARSAL_TOPOLOGY, parameter_warnings=False
    ).to_networkx_graph()


@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=6), missing=st.integers(0, 60))
@settings(max_examples=20, deadline=None)
def test_cliques_share_no_qubit_and_have_every_coupler(sizes, missing):
    graph = chip_graph()
    broken = np.random.default_rng(missing).permutation(sorted(graph))[:missing]
    graph.remove_nodes_from(broken.tolist())
    before = set(graph)
    found, complete = dwave.disjoint_cliques(graph, sizes)
    assert set(graph) == before
    assert complete == (len(found) == len(sizes))
    used = [qubit for one in found for chain in one.values() for qubit in chain]
    assert len(used) == len(set(used))
    assert set(used) <= before
    for one, n in zip(found, sizes, strict=False):
        assert set(one) == set(range(n))
        for chain in one.values():
            inside = graph.subgraph(chain)
            reached = {chain[0]}
            for _ in chain:
                reached |= {v for u in reached for v in inside[u]}
            assert reached == set(chain)
        for a, b in itertools.combinations(one.values(), 2):
            assert any(graph.has_edge(u, v) for u in a for v in b)


def submissions(monkeypatch):
    """What arrives at the stand-in: the model and the keywords of each call."""
    sent, sample = [], dwave.MockDWaveSampler.sample

    def watched(self, bqm, **keywords):
        sent.append((bqm, keywords))
        return sample(self, bqm, **keywords)

    monkeypatch.setattr(dwave.MockDWaveSampler, "sample", watched)
    return sent


def test_copies_multiply_the_reads_of_one_submission(monkeypatch):
    sent, block = submissions(monkeypatch), problem(10)
    one = 1e-6 * (dwave.REHEARSAL_PROGRAMMING + 7 * dwave.REHEARSAL_READ)
    qubits = {}
    for copies in (1, 3):
        solver = make("qpu", copies=copies, max_service_time=one, rehearse=True)
        samples = solver.sample_problem(block, budget=Budget(reads=7), seed=0)
        child = samples.info["child"]
        assert samples.record.num_occurrences.sum() == 7 * copies
        assert child["copies"] == copies
        assert child["service_seconds"] == pytest.approx(one)
        qubits[copies] = child["qubits"]
        assert len(sent[-1][0]) == child["qubits"]
        assert sent[-1][1]["num_reads"] == 7
    assert len(sent) == 2
    assert qubits[3] >= 3 * 10 > qubits[1] >= 10


def test_the_most_copies_are_as_many_as_fit():
    block = problem(30)
    most = make("qpu", copies="most", max_service_time=1.0, rehearse=True)
    samples = most.sample_problem(block, budget=Budget(reads=2), seed=0)
    count = samples.info["child"]["copies"]
    assert count > 1
    assert samples.record.num_occurrences.sum() == 2 * count
    solver = make("qpu", copies=count + 1, max_service_time=1.0, rehearse=True)
    words = f"room for 30 variables {count} times: pass copies={count} or fewer, or 'most'"
    with pytest.raises(ParameterError, match=words):
        solver.sample_problem(block, budget=Budget(reads=2), seed=0)
    assert solver._annealer.cap.used == 0
    for wrong in (0, 1.5, "all"):
        with pytest.raises(ParameterError, match="copies is"):
            make("qpu", copies=wrong)


def test_copies_of_a_bare_model_keep_its_variables():
    bqm = dimod.BinaryQuadraticModel({"a": 1.0, "b": -2.0}, {("a", "b"): 0.5}, 3.0, "SPIN")
    solver = make("qpu", copies=4, max_service_time=1.0, rehearse=True)
    samples = solver.sample(bqm, num_reads=5, seed=0)
    assert samples.record.num_occurrences.sum() == 20
    assert samples.vartype is dimod.SPIN
    dimod.testing.assert_response_energies(samples, bqm)
    assert samples.first.energy == pytest.approx(bqm.energy({"a": -1, "b": 1}))


@pytest.mark.parametrize("copies", [1, 2])
def test_several_problems_in_one_call(monkeypatch, copies):
    """Scales far apart, groups, and one that has a single feasible state."""
    sent = submissions(monkeypatch)
    large = replace(problem(9, 3, seed=4), linear=1e6 * problem(9, 3, seed=4).linear)
    several = [problem(5, 2, seed=1), large, problem(6, 6), *grouped_examples()][:5]
    one = 1e-6 * (dwave.REHEARSAL_PROGRAMMING + 20 * dwave.REHEARSAL_READ)
    solver = make("qpu", copies=copies, max_service_time=one, rehearse=True)
    answers = solver.sample_problems(several, budget=Budget(reads=20), seed=0)
    assert len(sent) == 1
    assert len(answers) == len(several)
    for own, samples in zip(several, answers, strict=True):
        states = samples.record.sample
        assert list(samples.variables) == list(range(own.n))
        assert own.is_feasible(states).all()
        np.testing.assert_allclose(samples.record.energy, own.energy(states), rtol=1e-12)
        assert samples.info["solver"] == "qpu"
        if own.only_state is None:
            child = samples.info["child"]
            assert samples.record.num_occurrences.sum() == 20 * copies
            assert samples.record.raw_sample.shape == states.shape
            assert child["service_seconds"] == pytest.approx(one / 4)
            assert (child["problems"], child["copies"]) == (4, copies)
            assert child["qubits"] == len(sent[0][0])
            assert samples.info["timing"]["execute"] > 0
    paid = [samples.info["child"] for samples in answers if "child" in samples.info]
    assert sum(child["own_qubits"] for child in paid) == len(sent[0][0])
    assert sum(child["service_seconds"] for child in paid) == pytest.approx(one)


def test_each_of_several_problems_gets_what_it_would_get_alone():
    """The stand-in descends to the optimum of problems as easy as these, mixed up or not."""
    several = [
        CardinalityProblem(linear=np.roll(-np.arange(6.0), shift), cardinality=2,
                           quadratic=np.zeros((6, 6)))
        for shift in range(4)
    ]  # fmt: skip
    solver = make("qpu", penalty=0.5, repair=None, max_service_time=1.0, rehearse=True)
    answers = solver.sample_problems(several, budget=Budget(reads=200), seed=0)
    for own, samples in zip(several, answers, strict=True):
        feasible = samples.record[own.is_feasible(samples.record.sample)]
        best = feasible.sample[np.argmin(feasible.energy)]
        assert (np.flatnonzero(best) == np.sort(np.argsort(own.linear)[:2])).all()


def test_several_problems_are_refused_before_anything_is_sent(monkeypatch):
    sent = submissions(monkeypatch)
    solver = make("qpu", max_service_time=1e-3, rehearse=True)
    with pytest.raises(CostError, match="max_service_time"):
        solver.sample_problems([problem(6), problem(7)], budget=Budget(reads=5))
    with pytest.raises(dimod.exceptions.BinaryQuadraticModelSizeError, match="at most 60"):
        solver.sample_problems([problem(6), problem(61)])
    with pytest.raises(
        dimod.exceptions.BinaryQuadraticModelSizeError, match=r"room for \d of these 9 problems"
    ):
        solver.sample_problems([problem(40)] * 9)
    with pytest.raises(ParameterError, match=r"problems\[1\] is a str"):
        solver.sample_problems([problem(6), "x"])
    with pytest.raises(ParameterError, match="nonsense"):
        solver.sample_problems([problem(6)], nonsense=1)
    assert solver.sample_problems([]) == []
    assert not sent
    with pytest.raises(CostError, match="max_service_time"):
        make("qpu", rehearse=True).sample_problems([problem(6)])


def test_several_problems_are_reserved_once_for_all_their_qubits(monkeypatch):
    chip = dwave.MockDWaveSampler(**dwave.REHEARSAL_TOPOLOGY, parameter_warnings=False)
    asked = []
    chip.solver = SimpleNamespace(
        estimate_qpu_access_time=lambda **given: asked.append(given) or 3e6
    )
    monkeypatch.setattr(dwave, "connected", lambda *a, **k: chip)
    solver = make("qpu", copies=2, max_service_time=4.0)
    answers = solver.sample_problems(
        [problem(6), problem(8)], budget=Budget(reads=7), annealing_time=50.0
    )
    qubits = answers[0].info["child"]["qubits"]
    assert asked == [{"num_qubits": qubits, "num_reads": 7, "annealing_time": 50.0}]
    assert answers[1].info["child"]["service_seconds"] == pytest.approx(0.5 * 8550.28e-6)
    assert solver._annealer.cap.used == pytest.approx(8550.28e-6)
