"""D-Wave's services through their stand-ins, and without a token."""

import json
import socket
from types import SimpleNamespace

import dimod
import numpy as np
import pytest

from solvers import Budget, make
from solvers.cloud import dwave
from solvers.cloud.dwave import Cap
from solvers.errors import CostError, ParameterError, UnavailableError
from solvers.testing import example as problem

SERVICES = ("qpu", "leap-hybrid-cqm")
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
    monkeypatch.setattr(dwave, "_connected", lambda *a, **k: pytest.fail("connected"))
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
    monkeypatch.setattr(dwave, "_connected", lambda *a, **k: chip)
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


def test_hybrid_limits_and_broken_rows(monkeypatch):
    given = problem(30)
    solver = make("leap-hybrid-cqm", max_service_time=1.0, rehearse=True)
    with pytest.raises(ParameterError, match=r"needs at least 0\.1 s"):
        solver.sample_problem(given, budget=Budget(time_limit=0.01))
    info = solver.sample_problem(given, budget=Budget(time_limit=0.7), seed=1).info
    assert info["service_seconds"] == pytest.approx(0.7)
    assert info["infeasible_rows"] > 0
    with pytest.raises(CostError, match=r"0\.7 s of max_service_time=1"):
        solver.sample_problem(given, budget=Budget(time_limit=0.7), seed=1)

    def permuted(cqm, **keywords):
        rows = np.vstack([given.initial, ~given.initial]).astype(np.int8)[:, ::-1]
        return dimod.SampleSet.from_samples(
            (rows, range(29, -1, -1)), energy=[0, 0], vartype="BINARY"
        )

    monkeypatch.setattr(solver.service, "sample_cqm", permuted)
    samples = solver.sample_problem(given, budget=Budget(time_limit=0.2))
    assert samples.info["infeasible_rows"] == 0
    assert (samples.record.sample[0] == given.initial).all()


def test_cap_adds_up():
    cap = Cap(1.0, "x")
    cap.reserve(0.6)
    cap.settle(0.6, 0.1)
    cap.reserve(0.9)
    with pytest.raises(CostError):
        cap.reserve(0.01)
