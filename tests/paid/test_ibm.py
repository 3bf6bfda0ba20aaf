"""IBM's processors: jobs sent once and under a cap, on local backends and on an account's."""

import json
import socket
import threading

import dimod
import numpy as np
import pytest
from qiskit_ibm_runtime.api.exceptions import RequestsApiError
from requests.exceptions import JSONDecodeError

from experiments import SolverSpec, Study, load_runs, run
from solvers import Budget, make
from solvers.base import Call
from solvers.cloud import ibm, ibm_backends, ibm_jobs, ibm_waiting
from solvers.cloud.quantum_time import SecondsJournal, executions, reserved
from solvers.errors import (
    CostError,
    FormatError,
    NotTakenError,
    OfflineError,
    ParameterError,
    TaskError,
)
from solvers.qaoa.angles import Angles
from solvers.qaoa.circuit.ansatz import Ising, groups_of, subspace_ansatz
from solvers.qaoa.simulator.subspace import Simulator
from solvers.testing import example
from tests.paid import calls
from tests.paid.calls import QUICK, Crash, crash
from tests.paid.ibm_account import SECONDS, Account, Network

NOISY = ("fake_manila", "fake_guadalupe")


@pytest.fixture
def network(monkeypatch):
    """An account with ``ibm_manila`` and whatever else has a fake backend."""
    network = Network()
    monkeypatch.setattr(Account, "network", network)
    monkeypatch.setattr(ibm_backends, "QiskitRuntimeService", Account)
    monkeypatch.setattr(ibm_waiting, "POLL", 0.01)
    return network


@pytest.fixture
def nobody(monkeypatch, tmp_path):
    """No account anywhere, and a network that must not be touched."""
    for name in ("QISKIT_IBM_TOKEN", "QISKIT_IBM_CHANNEL", "QISKIT_IBM_INSTANCE", "QISKIT_IBM_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(
        "qiskit_ibm_runtime.accounts.management._DEFAULT_ACCOUNT_CONFIG_JSON_FILE",
        str(tmp_path / "none.json"),
    )

    def touched(*args, **kwargs):
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket, "getaddrinfo", touched)
    monkeypatch.setattr(socket.socket, "connect", touched)


def solver(tmp_path, backend="ibm_manila", **options):
    given = {
        "max_quantum_time": 100, "journal": tmp_path / "ibm.sqlite", "optimization_level": 1
    } | options  # fmt: skip
    return make("qaoa-xy-ibm", backend=backend, **given)


def sample(sampler, seed=0, reads=100, n=4, **parameters):
    return sampler.sample_problem(
        example(n), budget=Budget(reads=reads), seed=seed, **{**QUICK, **parameters}
    )


def together(seed):
    return Call(example(4), Budget(reads=100), seed, QUICK)


@pytest.mark.parametrize("backend", NOISY)
def test_a_fake_backend_has_noise_and_no_account(nobody, tmp_path, backend):
    samples = sample(solver(tmp_path, backend), reads=200)
    assert len(samples) == 200
    assert (samples.record.sample.sum(axis=1) == 2).all()
    np.testing.assert_allclose(samples.record.energy, example(4).energy(samples.record.sample))
    info = samples.info
    assert 0.3 < info["feasible_shots"] < 1
    assert info["device"] == backend
    assert info["rehearsal"]
    assert info["task_status"] == "COMPLETED"
    assert info["isa_two_qubit_gates"] >= info["two_qubit_gates"] > 0
    assert (info["service_seconds"], info["service_seconds_used"]) == (0, 0)
    assert info["service_seconds_quote"] >= 10
    assert info["timing"]["queue"] == 0 < info["timing"]["execute"]
    # What is in the journal is not run again.
    again = sample(solver(tmp_path, backend), reads=200)
    assert (again.record.sample == samples.record.sample).all()
    assert again.info["task"] == info["task"]


def test_without_noise_the_shots_have_the_exact_distribution(tmp_path):
    problem = example(6)
    shots = 4000
    samples = solver(tmp_path, "aer_simulator").sample_problem(
        problem, budget=Budget(reads=shots), seed=3, depth=2, angles="ramp", mixer="ring"
    )
    assert samples.info["feasible_shots"] == 1
    simulator = Simulator(problem, "ring")
    info = samples.info
    exact = simulator.probabilities(Angles(info["gammas"], info["betas"], info["angles"]))
    states = simulator.states(np.arange(len(exact))).astype(int)
    rows = samples.record.raw_sample
    index = {tuple(state): place for place, state in enumerate(states)}
    seen = np.bincount([index[tuple(row)] for row in rows], minlength=len(exact)) / shots
    # The mean of the total variation is at most sqrt(states / shots) / 2.
    assert np.abs(seen - exact).sum() / 2 < np.sqrt(len(exact) / shots)
    assert np.abs(1 / len(exact) - exact).sum() / 2 > 2 * np.sqrt(len(exact) / shots)


@pytest.mark.parametrize(
    "options",
    [
        {"dynamical_decoupling": "XpXm"},
        {"dynamical_decoupling": "XY4", "mode": "session"},
        {"twirling": True, "mode": "batch"},
    ],
    ids=str,
)
def test_options_reach_the_sampler_and_the_program(tmp_path, monkeypatch, options):
    seen = []
    run = ibm_jobs.SamplerV2.run

    def watched(sampler, pubs, **keywords):
        seen.append((sampler.options, type(sampler.mode).__name__))
        return run(sampler, pubs, **keywords)

    monkeypatch.setattr(ibm_jobs.SamplerV2, "run", watched)
    plain = sample(solver(tmp_path, "fake_manila"), reads=100)
    samples = sample(solver(tmp_path, "fake_manila", **options), reads=100)
    assert len(samples) == 100
    assert samples.info["task"] != plain.info["task"]
    (_, (given, mode)) = seen
    sequence = options.get("dynamical_decoupling", False)
    assert given.dynamical_decoupling.enable == bool(sequence)
    assert given.dynamical_decoupling.sequence_type == (sequence or "XX")
    assert bool(given.twirling.enable_gates) == options.get("twirling", False)
    assert bool(given.twirling.enable_measure) == options.get("twirling", False)
    assert given.max_execution_time == samples.info["service_seconds_quote"]
    assert mode == {"session": "Session", "batch": "Batch"}.get(options.get("mode"), "NoneType")


def test_a_circuit_is_transpiled_once_for_all_seeds_and_values(tmp_path, monkeypatch):
    made = []
    passes = ibm.generate_preset_pass_manager
    monkeypatch.setattr(
        ibm, "generate_preset_pass_manager", lambda **given: made.append(given) or passes(**given)
    )
    ibm.isa_circuit.cache_clear()
    sampler = solver(tmp_path, "fake_manila")
    for seed in range(3):
        sample(sampler, seed=seed, reads=20)
    assert len(made) == 1
    sample(solver(tmp_path, "fake_guadalupe"), reads=20)
    assert len(made) == 2


def test_a_job_of_an_account_is_sent_once_and_charged_what_ibm_says(network, tmp_path):
    samples = sample(solver(tmp_path))
    (job,) = network.jobs
    assert job["shots"] == 100
    assert job["backend"] == "ibm_manila"
    assert job["max_execution_time"] == samples.info["service_seconds_quote"]
    assert len(job["tags"]) == 1
    assert len(samples) == 100
    assert samples.info["feasible_shots"] == 1
    assert samples.info["task"] == "job0"
    assert not samples.info["rehearsal"]
    assert samples.info["service_seconds"] == samples.info["service_seconds_used"] == SECONDS
    assert samples.info["timing"]["execute"] == pytest.approx(4)
    assert samples.info["timing"]["queue"] == pytest.approx(60)
    network.down = True
    again = sample(solver(tmp_path))
    assert (again.record.sample == samples.record.sample).all()
    assert len(network.jobs) == 1


def test_the_cap_counts_before_anything_is_sent(network, tmp_path):
    sampler = solver(tmp_path, max_quantum_time=14)
    sample(sampler)
    # 3 s are charged by now, so that 10 s more fit; then they do not.
    assert sample(sampler, seed=1).info["service_seconds_used"] == 2 * SECONDS
    with pytest.raises(CostError, match=r"10 s of quantum time more after 6 s in journal .* raise"):
        sample(sampler, seed=2)
    assert len(network.jobs) == 2
    sample(solver(tmp_path, max_quantum_time=16), seed=2)
    assert len(network.jobs) == 3


def test_usage_that_is_not_known_yet_keeps_the_reservation(network, tmp_path):
    network.usage = "pending"
    info = sample(solver(tmp_path)).info
    assert info["service_seconds"] is None
    assert info["service_seconds_used"] == info["service_seconds_quote"]


@pytest.mark.parametrize(
    ("where", "method"),
    [
        (ibm_jobs.SamplerV2, "run"),
        (SecondsJournal, "created"),
        (ibm_waiting.Waiting, "until_ended"),
        (SecondsJournal, "completed"),
    ],
    ids=["before the job", "job-journal", "journal-wait", "wait-journal"],
)
def test_a_crash_anywhere_uses_the_time_once(network, tmp_path, monkeypatch, where, method):
    with monkeypatch.context() as patch:
        patch.setattr(where, method, crash)
        with pytest.raises(Crash):
            sample(solver(tmp_path))
    with SecondsJournal(tmp_path / "ibm.sqlite") as journal:
        assert journal.spent() >= 10
    samples = sample(solver(tmp_path))
    assert len(samples) == 100
    assert len(network.jobs) == 1
    assert samples.info["service_seconds_used"] == SECONDS


@pytest.mark.parametrize(
    "lost",
    [
        RequestsApiError("connection reset by peer", -1),
        RequestsApiError("504 Server Error: Gateway Timeout", 504),
        RequestsApiError("408 Client Error: Request Timeout", 408),
        JSONDecodeError("Expecting value", "<html>", 0),
    ],
    ids=str,
)
def test_a_lost_answer_is_found_by_its_tag(network, tmp_path, lost):
    network.lost = lost
    with pytest.raises(TaskError, match="unknown") as failure:
        sample(solver(tmp_path))
    assert failure.value.info["pending"]
    network.down = True
    with pytest.raises(TaskError, match=r"cannot be asked.*nothing new was sent") as failure:
        sample(solver(tmp_path))
    assert failure.value.info["pending"]
    network.down = False
    assert len(sample(solver(tmp_path))) == 100
    assert len(network.jobs) == 1


def test_a_job_that_is_refused_is_free_and_may_be_sent_again(network, tmp_path):
    network.refuses = True
    with pytest.raises(NotTakenError, match=r"ibm_manila did not take the job.*400") as failure:
        sample(solver(tmp_path))
    assert failure.value.info["service_seconds"] == failure.value.info["service_seconds_used"] == 0
    network.refuses = False
    assert len(sample(solver(tmp_path))) == 100


@pytest.mark.parametrize(("said", "told"), [("Failed", "FAILED"), ("Cancelled", "CANCELLED")])
def test_a_job_that_ends_without_shots(network, tmp_path, said, told):
    network.status, network.reason = said, "the cryostat is warm"
    words = f"job0 on ibm_manila {told}: " + ("Job job0 has failed: " if said == "Failed" else "no")
    for _ in range(2):
        with pytest.raises(TaskError, match=words) as failure:
            sample(solver(tmp_path))
        assert not failure.value.info["pending"]
        assert failure.value.info["service_seconds_used"] == SECONDS
    assert len(network.jobs) == 1


def test_a_job_that_takes_too_long_is_collected_later(network, tmp_path):
    network.status = "Queued"
    with pytest.raises(
        TaskError, match=r"job0 .* still QUEUED after poll_timeout = 0.05 s"
    ) as late:
        sample(solver(tmp_path, poll_timeout=0.05))
    assert late.value.info["pending"]
    network.status = "Completed"
    assert len(sample(solver(tmp_path))) == 100
    assert len(network.jobs) == 1


def test_a_local_job_that_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "qiskit_ibm_runtime.fake_provider.local_service.run_quantum_program", lambda **given: 1 / 0
    )
    with pytest.raises(TaskError, match="fake_manila FAILED: division by zero; take another seed"):
        sample(solver(tmp_path, "fake_manila"))


def test_a_local_job_ends_with_its_process_and_is_run_again(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(ibm_waiting.Waiting, "until_ended", crash)
        with pytest.raises(Crash):
            sample(solver(tmp_path, "fake_manila"))
    assert len(sample(solver(tmp_path, "fake_manila"))) == 100


def test_a_result_that_is_late_is_asked_for_again(network, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Network, "job_results", lambda self, job_id: None)
        with pytest.raises(
            TaskError, match="DONE but has 0 shots to be read instead of 100"
        ) as late:
            sample(solver(tmp_path))
    assert late.value.info["pending"]
    assert len(sample(solver(tmp_path))) == 100
    assert len(network.jobs) == 1


def test_trouble_that_passes_does_not_end_the_wait(network, tmp_path, monkeypatch):
    answers = iter([None, True, True])
    get = Network.job_get

    def flaky(self, job_id, **given):
        self.down = bool(next(answers, False))
        return get(self, job_id, **given)

    monkeypatch.setattr(Network, "job_get", flaky)
    assert len(sample(solver(tmp_path))) == 100


@pytest.mark.parametrize("mode", ["batch", "session"])
def test_calls_sent_together_share_a_batch_or_session(network, tmp_path, mode):
    sampler = solver(tmp_path, mode=mode)
    sampler.submit_problems([together(seed) for seed in range(3)])
    assert [job["session_id"] for job in network.jobs] == ["session1"] * 3
    assert network.sessions == [("ibm_manila", 30 if mode == "session" else None, {
        "session": "dedicated"}.get(mode, mode))]  # fmt: skip
    assert network.closed == ["session1"]
    infos = [sample(sampler, seed=seed).info for seed in range(3)]
    assert len(network.jobs) == 3
    # A session is charged for its length, which its jobs do not tell.
    used = 3 * (SECONDS if mode == "batch" else 10)
    assert infos[-1]["service_seconds_used"] == used


def test_of_calls_sent_together_those_above_the_cap_are_left_out(network, tmp_path):
    sampler = solver(tmp_path, max_quantum_time=25)
    sampler.submit_problems([together(seed) for seed in range(3)])
    assert len(network.jobs) == 2
    with SecondsJournal(tmp_path / "ibm.sqlite") as journal:
        assert journal.spent() == 20


def test_processes_that_make_the_same_call_send_one_job(network, tmp_path):
    done = []

    def call():
        done.append(sample(solver(tmp_path)).info["task"])

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == ["job0"] * 3
    assert len(network.jobs) == 1


def test_a_backend_with_too_few_qubits(network, tmp_path):
    for backend in ("ibm_manila", "fake_manila"):
        with pytest.raises(
            dimod.exceptions.BinaryQuadraticModelSizeError,
            match=f"backend {backend} has 5 qubits, the problem has 6",
        ):
            sample(solver(tmp_path, backend), n=6)
    assert not network.jobs


def test_unknown_backends(network, tmp_path):
    with pytest.raises(ParameterError, match=r"'ibm_nowhere', which this account .* choose"):
        sample(solver(tmp_path, "ibm_nowhere"))
    with pytest.raises(ParameterError, match="'ibm_nowhere'"):
        solver(tmp_path, "ibm_nowhere").check()
    with pytest.raises(ParameterError, match=r"'fake_nowhere', .* fake_manila"):
        solver(tmp_path, "fake_nowhere")
    with pytest.raises(ParameterError, match="has no backend: pass backend="):
        make("qaoa-xy-ibm", max_quantum_time=1).check()


def test_without_an_account_it_says_what_to_do(nobody, tmp_path):
    sampler = solver(tmp_path)
    assert json.dumps(sampler.properties)
    with pytest.raises(OfflineError, match=r"no connection to IBM .*QISKIT_IBM_TOKEN"):
        sampler.check()
    with pytest.raises(OfflineError, match="QISKIT_IBM_TOKEN"):
        sample(sampler)


def test_a_network_that_is_down(network, tmp_path):
    network.down = True
    with pytest.raises(OfflineError, match=r"cannot be asked for .no route to host.; save"):
        sample(solver(tmp_path))


def test_nothing_is_sent_without_a_cap(nobody, tmp_path):
    for given in ({}, {"rehearse": True}):
        sampler = solver(tmp_path, max_quantum_time=None, **given)
        with pytest.raises(CostError, match="no max_quantum_time"):
            sampler.check()
        with pytest.raises(CostError, match="no max_quantum_time"):
            sample(sampler)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_quantum_time": 0}, "max_quantum_time is 0"),
        ({"poll_timeout": -1}, "poll_timeout is -1"),
        ({"mode": "party"}, "mode is 'party', expected one of job, batch, session"),
        ({"dynamical_decoupling": "XYZ"}, "'XYZ', expected False or one of XX, XpXm, XY4"),
        ({"dynamical_decoupling": True}, "dynamical_decoupling is True"),
        ({"readout_mitigation": True}, "readout_mitigation is True, .* does not offer it"),
        ({"optimization_level": 4}, "optimization_level is 4"),
    ],
)
def test_impossible_options(tmp_path, options, words):
    with pytest.raises(ParameterError, match=words):
        solver(tmp_path, **options)


def test_dollars_and_seconds_are_not_added_up(tmp_path, braket):
    calls.sample(calls.solver(tmp_path))
    with pytest.raises(FormatError, match="counts in another unit than SecondsJournal"):
        sample(solver(tmp_path, "fake_manila", journal=tmp_path / "journal.sqlite"))
    sample(solver(tmp_path, "fake_manila"))
    with pytest.raises(FormatError, match="counts in another unit than Journal"):
        calls.sample(calls.solver(tmp_path, journal=str(tmp_path / "ibm.sqlite")))


def test_what_is_reserved_grows_with_the_shots_and_the_circuit():
    backend = ibm_backends.local_backend("fake_manila")
    short, long = (ibm.isa_circuit(circuit_of(depth), backend, 1) for depth in (1, 8))
    assert reserved(short, backend, 100) == 10
    many = 10**6
    delay = many * backend.default_rep_delay
    assert 5 + 2 * delay < reserved(short, backend, many) < reserved(long, backend, many)
    assert executions(1000, twirling=False) == 1000
    assert executions(1000, twirling=True) == 16 * 64
    assert executions(10_000, twirling=True) == 32 * 313


def circuit_of(depth):
    problem = example(4)
    return subspace_ansatz(
        groups_of(problem), Ising.from_bqm(problem.to_bqm(None)).edges, depth, "ring", None
    )


def test_a_study_is_rehearsed_on_fake_backends(nobody, tmp_path):
    options = {"backend": "ibm_manila", "max_quantum_time": 100, "journal": "never.sqlite"}
    spec = SolverSpec("qaoa-xy-ibm", options=options, parameters=QUICK)
    plan = Study("ibm", [example(4)], [spec], [Budget(reads=50)], seeds=range(2)).rehearsed()
    run(plan, tmp_path / "s.sqlite", progress=False)
    rows = load_runs(tmp_path / "s.sqlite").to_dict("records")
    assert [row["status"] for row in rows] == ["done"] * 2
    for row in rows:
        told = json.loads(row["info"])
        assert told["rehearsal"]
        assert told["device"] == "fake_manila"
        assert told["service_seconds"] == 0
    assert ibm_backends.rehearsal_name(None, 5) == "fake_manila"
    assert ibm_backends.rehearsal_name("ibm_nowhere", 6) == "fake_guadalupe"
    assert ibm_backends.rehearsal_name("ibm_torino", 6) == "fake_torino"
    with pytest.raises(ParameterError, match="has 28 qubits: pass one as backend"):
        ibm_backends.rehearsal_name(None, 28)


def test_cells_of_a_study_share_a_batch_and_are_sent_once_whatever_the_cap(network, tmp_path):
    def rows(cap):
        options = {
            "backend": "ibm_manila", "max_quantum_time": cap, "mode": "batch",
            "journal": str(tmp_path / "ibm.sqlite"),
        }  # fmt: skip
        spec = SolverSpec("qaoa-xy-ibm", options=options, parameters=QUICK)
        plan = Study("ibm", [example(4)], [spec], [Budget(reads=50)], seeds=range(3))
        run(plan, tmp_path / "s.sqlite", progress=False)
        return load_runs(tmp_path / "s.sqlite").to_dict("records")

    first = rows(25)
    assert [row["status"] for row in first] == ["done"] * 3
    # Two cells are reserved 20 s; the third is sent when they are charged 3 s each.
    assert [job["session_id"] for job in network.jobs] == ["session1", "session1", "session2"]
    assert [row["key"] for row in rows(30)] == [row["key"] for row in first]
    assert len(network.jobs) == 3
