"""Paid tasks against the loopback endpoint: whatever fails, nothing is paid twice."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from braket.tracking import pricing
from dimod.exceptions import BinaryQuadraticModelSizeError
from typer.testing import CliRunner

from experiments import SolverSpec, Study, load_runs, run
from experiments.errors import StudyError
from experiments.quoting import quote
from experiments.store import Store
from icbs.cli import app
from solvers import Budget, make, save
from solvers.errors import CostError, ParameterError, TaskError, UnavailableError
from solvers.qaoa import devices
from solvers.qaoa.devices import Device, find_device, known_devices
from solvers.qaoa.journal import Journal
from solvers.qaoa.tasks import PaidTasks
from tests.braket_endpoint import ARNS, Endpoint
from tests.study_fixtures import block

QUICK = {"depth": 1, "angles": "ramp", "mixer": "ring"}


@pytest.fixture
def braket(tmp_path, monkeypatch):
    """The endpoint, with the SDK's environment pointed at it and nothing remembered."""
    for name in [*os.environ]:
        if name.startswith(("AWS_", "AMZN_BRAKET")):
            monkeypatch.delenv(name)
    devices._offers.cache_clear()
    pricing._pricing._price_list.clear()
    pricing.price_search.cache_clear()
    # The SDK waits for seconds between its own attempts.
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda seconds: None))
    with Endpoint() as endpoint:
        for name, value in endpoint.environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        yield endpoint
    devices._offers.cache_clear()


def solver(tmp_path, device="Garnet", name="qaoa-xy-braket", **options):
    given = {"max_cost": 100.0, "journal": str(tmp_path / "journal.sqlite"), **options}
    return make(name, device=device, **given)


def study(tmp_path, seeds=1, device="Garnet", **options):
    spec = SolverSpec(
        "qaoa-xy-braket",
        options={"device": device, "max_cost": 100.0,
                 "journal": str(tmp_path / "journal.sqlite"), **options},
        parameters=QUICK,
    )  # fmt: skip
    return Study("paid", [block(4)], [spec], [Budget(reads=100)], seeds=range(seeds))


def rows(tmp_path, **options):
    """Runs (or resumes) the study and returns its rows."""
    run(study(tmp_path, **options), tmp_path / "s.sqlite", progress=False)
    return load_runs(tmp_path / "s.sqlite").to_dict("records")


def sample(sampler, seed=0, reads=100, n=4, problem=None, **parameters):
    return sampler.sample_problem(
        (problem or block(n)).blinded(),
        budget=Budget(reads=reads),
        seed=seed,
        **{**QUICK, **parameters},
    )


def test_a_task_is_a_row_with_its_price_and_queue(braket, tmp_path):
    (row,) = rows(tmp_path)
    assert row["status"] == "done"
    assert row["reads"] == 100
    assert row["quote"] == row["cost"] == pytest.approx(0.30 + 100 * 0.002)
    info = json.loads(row["info"])
    assert info["charged"] == info["reserved"] == row["cost"]
    assert info["task"] in braket.tasks
    assert info["task_status"] == "COMPLETED"
    assert info["price_source"] == "AWS Price List of 2026-11-01T00:00:00Z"
    assert not info["rehearsal"]
    assert info["two_qubit_gates"] == 34
    assert row["queue"] > 0
    assert np.isnan(row["pending"])
    assert braket.paid == 1


def test_shots_are_those_of_the_task(braket, tmp_path):
    problem = block(4)
    samples = sample(solver(tmp_path))
    (stored,) = braket.objects.values()
    measured = np.array(json.loads(stored)["measurements"], int)
    np.testing.assert_array_equal(samples.record.raw_sample, measured)
    assert problem.is_feasible(samples.record.sample).all()


def test_penalised_shots_are_post_selected_and_repaired_apart(braket, tmp_path):
    samples = make(
        "qaoa-braket", device="SV1", max_cost=1, journal=tmp_path / "j.sqlite"
    ).sample_problem(block(4).blinded(), budget=Budget(reads=200), seed=1, depth=1, angles="ramp")
    problem, info = block(4), samples.info
    raw = samples.record.raw_sample
    kept = problem.is_feasible(raw)
    assert 0 < kept.mean() < 1
    assert info["feasible_shots"] == kept.mean()
    assert info["post_selected_mean"] == pytest.approx(problem.energy(raw[kept]).mean())
    assert info["repaired_mean"] == pytest.approx(samples.record.energy.mean())
    assert problem.is_feasible(samples.record.sample).all()


def test_simulators_bill_time_and_free_what_they_did_not_use(braket, tmp_path):
    braket.run_milliseconds = 12_000
    sampler = solver(tmp_path, "SV1", task_seconds=60)
    info = sample(sampler).info
    assert info["quote"] == pytest.approx(0.075)
    assert info["cost"] == info["charged"] == pytest.approx(0.075 * 12 / 60)
    with Journal(tmp_path / "journal.sqlite") as journal:
        assert journal.spent() == pytest.approx(0.015)


def test_a_simulator_task_that_runs_on_is_stopped(braket, tmp_path):
    braket.end = "RUNNING"
    with pytest.raises(TaskError, match=r"it ran longer than task_seconds = 0\.1"):
        sample(solver(tmp_path, "SV1", task_seconds=0.1))
    assert [task["status"] for task in braket.tasks.values()] == ["CANCELLED"]


def test_the_same_call_is_the_same_task(braket, tmp_path):
    one, again = (sample(solver(tmp_path), seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.record.sample, again.record.sample)
    assert braket.paid == 1
    sample(solver(tmp_path), seed=4)
    sample(solver(tmp_path), seed=4, reads=101)
    sample(solver(tmp_path), seed=4, mixer="complete")
    assert braket.paid == 4


def test_batch_is_submitted_before_it_is_waited_for(braket, tmp_path):
    frame = rows(tmp_path, seeds=4)
    assert [row["status"] for row in frame] == ["done"] * 4
    assert braket.calls.index("get") > max(i for i, c in enumerate(braket.calls) if c == "create")
    for row in frame:
        # The wall counts what was spent before the cell's own call: sending it and its queue.
        assert row["wall"] > json.loads(row["info"])["earlier_seconds"] > 0


class Crash(BaseException):
    """Stands for the death of the process: nothing catches it."""


def crash(*arguments, **keywords):
    raise Crash


TEMPORARY = {
    "create throttled twice": lambda e: e.fail("create", 429, "ThrottlingException", 2),
    "create 500 once": lambda e: e.fail("create", 500, "InternalServiceException"),
    "answer to create lost": lambda e: e.fail(
        "create", 500, "InternalServiceException", after=True
    ),
    "get 500": lambda e: e.fail("get", 500, "InternalServiceException", 5),
    "result late": lambda e: e.fail("s3", 404, "NoSuchKey", 2),
}


@pytest.mark.parametrize("fault", TEMPORARY)
def test_what_passes_is_waited_out(braket, tmp_path, fault):
    TEMPORARY[fault](braket)
    (row,) = rows(tmp_path)
    assert (row["status"], braket.paid, len(set(braket.creates))) == ("done", 1, 1)


REFUSED = {
    "throttled": (429, "ThrottlingException"),
    "access denied": (403, "AccessDeniedException"),
    "invalid": (400, "ValidationException"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_is_refused_costs_nothing(braket, tmp_path, fault):
    status, kind = REFUSED[fault]
    braket.fail("create", status, kind, times=-1)
    (row,) = rows(tmp_path)
    assert row["status"] == "error"
    assert kind in row["reason"]
    assert "nothing is charged" in row["reason"]
    assert json.loads(row["info"])["charged"] == json.loads(row["info"])["reserved"] == 0
    assert braket.paid == 0
    with Journal(tmp_path / "journal.sqlite") as journal:
        assert journal.spent() == 0


def test_access_denied_to_the_task_leaves_it_to_be_collected(braket, tmp_path):
    braket.fail("get", 403, "AccessDeniedException", times=-1)
    (row,) = rows(tmp_path)
    assert (row["status"], row["pending"]) == ("error", 1)
    assert "AccessDenied" in row["reason"]
    braket.faults.clear()
    (row,) = rows(tmp_path)
    assert (row["status"], braket.paid) == ("done", 1)


@pytest.mark.parametrize("end", ["FAILED", "CANCELLED"])
def test_a_task_that_ends_without_result_is_a_row_with_its_reason(braket, tmp_path, end):
    braket.end = end
    for _ in range(2):
        (row,) = rows(tmp_path)
        assert row["status"] == "error"
        assert end in row["reason"]
        assert end == "CANCELLED" or braket.reason in row["reason"]
        assert not row["pending"]
        assert row["quote"] == pytest.approx(0.5)
        # Not known, so not told; but the cap still counts it.
        info = json.loads(row["info"])
        assert (info["charged"], info["cost"]) == (None, None)
        assert info["reserved"] == pytest.approx(0.5)
        with Journal(tmp_path / "journal.sqlite") as journal:
            assert journal.spent() == pytest.approx(0.5)
    with pytest.raises(TaskError, match=end):
        sample(solver(tmp_path), seed=rows(tmp_path)[0]["seed"])
    assert braket.paid == 1


def test_poll_timeout_is_a_row_that_resume_collects(braket, tmp_path):
    braket.end = "QUEUED"
    (row,) = rows(tmp_path, poll_timeout=0.2)
    assert (row["status"], row["pending"]) == ("error", 1)
    assert "still QUEUED after 0.2 s" in row["reason"]
    assert json.loads(row["info"])["charged"] is None
    braket.finish(next(iter(braket.tasks)))
    (row,) = rows(tmp_path, poll_timeout=0.2)
    assert (row["status"], braket.paid) == ("done", 1)
    assert np.isnan(row["pending"])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: None, "NoSuchKey"),
        (lambda data: data[:200], "cannot be read"),
        (lambda data: b"", "cannot be read"),
        (lambda data: data.replace(b"[0, ", b"[", 1), "cannot be read"),
    ],
    ids=["missing", "truncated", "empty", "ragged"],
)
def test_a_damaged_result_is_a_row_that_resume_collects(braket, tmp_path, damage, words):
    whole, braket.damage = braket.damage, damage
    (row,) = rows(tmp_path)
    assert (row["status"], row["pending"]) == ("error", 1)
    assert words in row["reason"]
    braket.damage = whole
    braket.finish(next(iter(braket.tasks)))
    (row,) = rows(tmp_path)
    assert (row["status"], braket.paid) == ("done", 1)


@pytest.mark.parametrize(
    ("where", "method"),
    [
        ("solvers.qaoa.service.AwsService", "create"),
        ("solvers.qaoa.journal.Journal", "created"),
        ("solvers.qaoa.tasks.PaidTasks", "_waited"),
        ("solvers.qaoa.journal.Journal", "completed"),
        ("experiments.store.Store", "add_run"),
    ],
    ids=["before create", "create-journal", "journal-poll", "poll-journal", "journal-store"],
)
def test_a_crash_anywhere_pays_once(braket, tmp_path, monkeypatch, where, method):
    with monkeypatch.context() as patch:
        patch.setattr(f"{where}.{method}", crash)
        with pytest.raises(Crash):
            rows(tmp_path, seeds=3)
    assert braket.paid <= 3
    frame = rows(tmp_path, seeds=3)
    assert [row["status"] for row in frame] == ["done"] * 3
    assert braket.paid == len(set(braket.creates)) == 3


def test_a_lost_answer_is_found_again_even_if_tokens_expire(braket, tmp_path):
    braket.fail("create", 500, "InternalServiceException", times=-1, after=True)
    sampler = solver(tmp_path)
    with pytest.raises(TaskError, match="never pays twice") as failure:
        sampler.submit_problem(block(4).blinded(), budget=Budget(reads=100), seed=0, **QUICK)
    assert failure.value.info["pending"]
    braket.faults.clear()
    braket.forget_tokens()
    before = len(braket.creates)
    assert len(sample(sampler)) == 100
    assert (braket.paid, len(braket.creates)) == (1, before)


def test_a_refusal_after_a_lost_answer_is_no_refusal(braket, tmp_path):
    braket.fail("create", 500, "InternalServiceException", after=True)
    braket.fail("create", 429, "ThrottlingException", times=-1)
    sampler = solver(tmp_path)
    with pytest.raises(TaskError, match="unknown") as failure:
        sampler.submit_problem(block(4).blinded(), budget=Budget(reads=100), seed=0, **QUICK)
    assert failure.value.info["pending"]
    with Journal(tmp_path / "journal.sqlite") as journal:
        assert journal.spent() == pytest.approx(0.5)
    assert len(sample(sampler)) == 100
    assert braket.paid == 1


def test_unknown_stays_pending_while_the_service_cannot_be_asked(braket, tmp_path):
    braket.fail("create", 500, "InternalServiceException", times=-1)
    braket.fail("search", 403, "AccessDeniedException", times=-1)
    for _ in range(2):
        (row,) = rows(tmp_path)
        assert (row["status"], row["pending"], braket.paid) == ("error", 1, 0)
    assert "cannot be asked" in row["reason"]
    braket.faults.clear()
    (row,) = rows(tmp_path)
    assert (row["status"], braket.paid) == ("done", 1)


def test_without_price_list_the_committed_table_holds(braket, tmp_path):
    braket.prices = None
    (row,) = rows(tmp_path)
    assert row["status"] == "done"
    assert row["quote"] == pytest.approx(0.30 + 100 * 0.00145)
    assert np.isnan(row["cost"])
    assert "committed table of 2026" in json.loads(row["info"])["price_source"]


def test_the_cap_holds_over_a_study_and_its_resume(braket, tmp_path):
    for _ in range(2):
        frame = rows(tmp_path, seeds=5, max_cost=1.2)
        status = [row["status"] for row in frame]
        assert sorted(status) == ["done"] * 2 + ["error"] * 3
        assert all("max_cost" in row["reason"] for row in frame if row["status"] == "error")
        assert braket.paid == 2
    assert sum(row["cost"] for row in frame if row["status"] == "done") <= 1.2


def test_the_cap_holds_between_processes_that_share_a_journal(tmp_path):
    def reserve(number):
        with Journal(tmp_path / "j.sqlite") as journal:
            try:
                journal.reserve(
                    f"call {number}", {"deviceArn": "d"}, circuit="", note={}, price=0.5, cap=1.7
                )
            except CostError:
                return 0
        return 1

    Journal(tmp_path / "j.sqlite").close()
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(reserve, range(12))) == 3


@pytest.mark.slow
def test_kill_9_and_resume_of_twenty_tasks(braket, tmp_path):
    save(block(4), tmp_path / "b.block.safetensors")
    (tmp_path / "study.toml").write_text(
        'name = "paid"\ninstances = ["b.block.safetensors"]\nseeds = 20\n'
        "budgets = [{reads = 100}]\n[[solvers]]\n"
        'name = "qaoa-xy-braket"\nparameters = {depth = 1, angles = "ramp", mixer = "ring"}\n'
        f'options = {{device = "Garnet", max_cost = 10, journal = "{tmp_path}/j.sqlite"}}\n'
    )
    command = [sys.executable, "-m", "icbs.cli", "bench", str(tmp_path / "study.toml"),
               "--store", str(tmp_path / "s.sqlite")]  # fmt: skip
    for enough in (7, 15):
        process = subprocess.Popen(command + ["--resume"] * (enough > 7), stderr=subprocess.DEVNULL)
        while len(set(braket.creates)) < enough and process.poll() is None:
            time.sleep(0.01)
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert braket.paid < 20
    subprocess.run([*command, "--resume"], check=True, stderr=subprocess.DEVNULL)
    frame = load_runs(tmp_path / "s.sqlite")
    assert frame["status"].tolist() == ["done"] * 20
    assert braket.paid == len(set(braket.creates)) == 20
    assert frame["cost"].sum() == pytest.approx(20 * 0.5)


NOTHING_SENT = {
    "no credentials": ("AWS_ACCESS_KEY_ID", {}, UnavailableError, "no AWS credentials"),
    "no region": ("AWS_DEFAULT_REGION", {"device": "SV1"}, UnavailableError, "no AWS region"),
    "unknown device": (
        "", {"device": "arn:aws:braket:us-east-1::device/qpu/ionq/Nope"}, UnavailableError,
        "not found",
    ),
    "no cap": ("", {"max_cost": None}, CostError, "no max_cost"),
    "above the cap": ("", {"max_cost": 0.4}, CostError, "would exceed max_cost"),
}  # fmt: skip


@pytest.mark.parametrize("case", NOTHING_SENT)
def test_set_ups_that_cannot_be(braket, tmp_path, monkeypatch, case):
    unset, options, kind, words = NOTHING_SENT[case]
    if unset:
        monkeypatch.delenv(unset)
    with pytest.raises(kind, match=words):
        sample(solver(tmp_path, **options))
    assert not braket.creates
    if case != "above the cap":
        with pytest.raises(StudyError, match=words):
            rows(tmp_path, **options)
    assert not braket.creates


def test_offline_device(braket, tmp_path):
    braket.offline.add("Garnet")
    with pytest.raises(UnavailableError, match="Garnet is OFFLINE: nothing was submitted"):
        sample(solver(tmp_path))
    assert not braket.creates


def test_a_device_that_is_offline_comes_back_and_a_retired_one_does_not(braket, tmp_path):
    braket.offline.add("Garnet")
    with pytest.raises(UnavailableError, match="try again later"):
        sample(solver(tmp_path))
    braket.retired.add("Garnet")
    with pytest.raises(UnavailableError, match=r"Garnet is RETIRED: .*another device: SV1") as told:
        sample(solver(tmp_path))
    assert "later" not in str(told.value)
    assert not braket.creates


@pytest.mark.parametrize(("device", "month"), [("TN1", "June 2026"), ("Ankaa-3", "April 2026")])
def test_retired_devices_are_neither_offered_quoted_nor_rehearsed(tmp_path, device, month):
    path = save(block(4), tmp_path / "b.block.safetensors")
    words = f"{device} was retired in {month}: nothing was submitted; take another device: SV1, DM1"
    refused = CliRunner().invoke(app, ["quote", str(path), "--device", device, "--shots", "10"])
    assert words in str(refused.exception)
    with pytest.raises(UnavailableError, match=words):
        sample(make("qaoa-xy-braket", device=device, max_cost=1, rehearse=True))
    with pytest.raises(ParameterError, match="one of SV1") as told:
        find_device("nowhere")
    assert device not in str(told.value)


def test_an_offline_device_still_hands_out_what_was_paid(braket, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(PaidTasks, "_waited", crash)
        with pytest.raises(Crash):
            rows(tmp_path, seeds=2)
    braket.offline.add("Garnet")
    assert [row["status"] for row in rows(tmp_path, seeds=2)] == ["done"] * 2


DENIED = {
    "denied": (403, "AccessDeniedException"),
    "down": (500, "InternalServiceException"),
}


@pytest.mark.parametrize("fault", DENIED)
def test_a_region_that_refuses_costs_its_own_cells_only(braket, tmp_path, fault):
    status, kind = DENIED[fault]
    braket.deny("eu-north-1", status, kind)
    paid = {"max_cost": 100.0, "journal": str(tmp_path / "journal.sqlite")}
    specs = [
        SolverSpec("qaoa-xy-braket", {"device": device, **paid}, device, QUICK)
        for device in ("Garnet", "SV1")
    ]
    mixed = Study("mixed", [block(4)], [*specs, "greedy"], [Budget(reads=100)], seeds=[0])
    run(mixed, tmp_path / "s.sqlite", progress=False)
    frame = load_runs(tmp_path / "s.sqlite").set_index("solver")
    assert frame["status"].to_dict() == {"Garnet": "error", "SV1": "done", "greedy": "done"}
    assert kind in frame["reason"]["Garnet"]
    assert "cannot be reached in eu-north-1" in frame["reason"]["Garnet"]
    assert braket.paid == 1


def test_a_region_that_refuses_still_hands_out_what_was_paid(braket, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(PaidTasks, "_waited", crash)
        with pytest.raises(Crash):
            rows(tmp_path, seeds=2)
    braket.fail("device", 403, "AccessDeniedException", times=-1)
    assert [row["status"] for row in rows(tmp_path, seeds=2)] == ["done"] * 2
    assert braket.paid == 2


def test_what_is_pending_stays_so_where_the_region_refuses(braket, tmp_path):
    braket.end = "QUEUED"
    rows(tmp_path, poll_timeout=0.2)
    for route in ("device", "get"):
        braket.fail(route, 403, "AccessDeniedException", times=-1)
    (row,) = rows(tmp_path, poll_timeout=0.2)
    assert (row["status"], row["pending"]) == ("error", 1)
    braket.faults.clear()
    braket.finish(next(iter(braket.tasks)))
    (row,) = rows(tmp_path, poll_timeout=0.2)
    assert (row["status"], braket.paid) == ("done", 1)


def test_too_many_qubits(braket, tmp_path):
    with pytest.raises(BinaryQuadraticModelSizeError, match="at most 20 variables"):
        sample(solver(tmp_path), n=21)
    with pytest.raises(UnavailableError, match="20 qubits, the circuit needs 21"):
        sample(solver(tmp_path, max_variables=24), n=21)
    assert not braket.creates


def test_too_many_shots(braket, tmp_path):
    with pytest.raises(ParameterError, match="takes 1 to 20000"):
        sample(solver(tmp_path), reads=20_001)
    # Whatever it would cost, and what the service says goes before the table.
    with pytest.raises(ParameterError, match="Ibex-Q1 takes 1 to 1500 a task"):
        sample(solver(tmp_path, "Ibex-Q1", max_cost=0.01), reads=2000)
    assert not braket.creates


SHOTS = {"SV1": (1, 100_000), "DM1": (1, 100_000), "Garnet": (1, 20_000), "Emerald": (1, 20_000),
         "Ibex-Q1": (1, 2000), "Forte-1": (100, 5000), "Forte-Enterprise-1": (100, 5000),
         "Cepheus-1-108Q": (1, 50_000)}  # fmt: skip


@pytest.mark.parametrize("device", SHOTS)
def test_the_table_limits_shots_in_quotes_and_rehearsals(tmp_path, device):
    path, (least, most) = save(block(4), tmp_path / "b.block.safetensors"), SHOTS[device]
    words = f"{device} takes {least} to {most} a task"
    arguments = ["quote", str(path), "--device", device, "--offline", "--shots"]
    for shots in (least, most):
        assert CliRunner().invoke(app, [*arguments, str(shots)]).exit_code == 0
    for shots in {max(1, least - 1), most + 1} - {least}:
        refused = CliRunner().invoke(app, [*arguments, str(shots)])
        assert isinstance(refused.exception, ParameterError)
        assert words in str(refused.exception)
        with pytest.raises(ParameterError, match=words):
            sample(make("qaoa-xy-braket", device=device, max_cost=1, rehearse=True), reads=shots)


def test_shots_0(braket, tmp_path):
    for shots in (0, -1, 1.5):
        with pytest.raises(ParameterError, match="reads is"):
            sample(solver(tmp_path), reads=shots)
        with pytest.raises(ParameterError, match="shots is"):
            find_device("Garnet").price(shots)
    assert not braket.creates


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": "Garnett"}, "one of SV1"),
        ({"device": "SV1", "max_cost": 0}, "max_cost is 0"),
        ({"device": "SV1", "max_cost": float("nan")}, "max_cost is nan"),
        ({"device": "SV1", "poll_timeout": -1}, "poll_timeout is -1"),
    ],
)
def test_options_that_cannot_be(options, words):
    with pytest.raises(ParameterError, match=words):
        make("qaoa-xy-braket", **options)


def test_no_device_is_said_when_it_is_needed():
    with pytest.raises(ParameterError, match="has no device"):
        make("qaoa-xy-braket", max_cost=1).check()


def test_rehearsal_is_the_same_record(braket, tmp_path, monkeypatch):
    (paid,) = rows(tmp_path)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    before = list(braket.calls)
    run(study(tmp_path).rehearsed(), tmp_path / "r.sqlite", progress=False)
    (free,) = load_runs(tmp_path / "r.sqlite").to_dict("records")
    assert braket.calls == before
    assert free.keys() == paid.keys()
    told = json.loads(free["info"])
    assert told.keys() == json.loads(paid["info"]).keys()
    assert told["rehearsal"]
    assert free["status"] == "done"
    assert free["quote"] == pytest.approx(0.30 + 100 * 0.00145)
    assert free["cost"] == told["charged"] == 0
    assert told["reserved"] == free["quote"]
    assert free["key"] != paid["key"]


def test_a_rehearsal_keeps_the_cap(tmp_path):
    options = {"device": "Garnet", "max_cost": 0.9, "rehearse": True}
    sampler = make("qaoa-xy-braket", **options)
    first = sample(sampler, seed=1)
    with pytest.raises(CostError, match="would exceed"):
        sample(sampler, seed=2, reads=200)
    again = sample(make("qaoa-xy-braket", **options), seed=1)
    np.testing.assert_array_equal(first.record.sample, again.record.sample)


def test_bench_rehearses_from_the_command_line(tmp_path):
    save(block(4), tmp_path / "b.block.safetensors")
    (tmp_path / "study.toml").write_text(
        'instances = ["b.block.safetensors"]\nseeds = 2\nbudgets = [{reads = 50}]\n[[solvers]]\n'
        'name = "qaoa-braket"\nparameters = {depth = 1, angles = "ramp"}\n'
        'options = {device = "SV1", max_cost = 1}\n'
    )
    arguments = ["bench", str(tmp_path / "study.toml"), "--store", str(tmp_path / "s.sqlite")]
    result = CliRunner().invoke(app, [*arguments, "--rehearse"])
    assert result.exit_code == 0, result.output
    with Store(tmp_path / "s.sqlite") as store:
        frame = store.runs()
    assert frame["status"].tolist() == ["done"] * 2
    assert all(json.loads(info)["rehearsal"] for info in frame["info"])


def test_rehearsing_what_is_free_is_refused(tmp_path):
    with pytest.raises(StudyError, match="none of them costs money"):
        Study("s", [block(4)], ["greedy"]).rehearsed()


def quoted(*arguments):
    result = CliRunner().invoke(app, ["quote", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def test_quote(braket, tmp_path):
    paths = [save(block(n), tmp_path / f"{n}.block.safetensors") for n in (4, 30)]
    answer = json.loads(
        quoted(*paths, "--device", "garnet", "--shots", 1000, "--tasks", 3, "--json")
    )
    assert answer["usd_per_task"] == pytest.approx(2.30)
    assert answer["usd_at_most"] == answer["usd_at_least"] == pytest.approx(3 * 2.30)
    assert answer["source"].startswith("AWS Price List of 2026-11-01")
    assert [i["fits"] for i in answer["instances"]] == [True, False]
    text = quoted(paths[0], "--device", ARNS["SV1"], "--shots", 10, "--offline")
    assert "$0.0750 at most, $0.0037 at 3 s each" in text.replace("0.0038", "0.0037")
    assert "committed table of 2026" in text
    assert not braket.creates


def test_a_quote_counts_what_the_solver_would_send(braket, tmp_path):
    """The README's path, and instances that are answered without a task."""
    paths = [save(block(n), tmp_path / f"{n}.block.safetensors") for n in (8, 12, 16, 20, 24)]
    paths += [save(block(6, k), tmp_path / f"k{k}.block.safetensors") for k in (0, 6)]
    arguments = [*paths, "--shots", 1000, "--offline", "--json", "--device"]
    answer = json.loads(quoted(*arguments, "Garnet"))
    assert answer["tasks"] == 4
    assert answer["usd_at_most"] == pytest.approx(4 * 1.75) == pytest.approx(7.00)
    assert [i["tasks"] for i in answer["instances"]] == [1, 1, 1, 1, 0, 0, 0]
    for device in ("Garnet", "Emerald", "SV1"):
        large = save(block(25), tmp_path / "25.block.safetensors")
        told = json.loads(quoted(large, *arguments[1:], device))["instances"]
        limit = make("qaoa-xy-braket", device=device).max_variables
        assert [i["fits"] for i in told] == [i["n"] <= limit for i in told]
    for k in (0, 6):
        assert len(sample(solver(tmp_path), problem=block(6, k))) > 0
    assert not braket.creates


STUDY = """
instances = ["*.block.safetensors"]
seeds = 5
seeds_by_size = {12 = 2}
budgets = [{reads = 100}, {reads = 1000}]
solvers = [
    "greedy",
    {name = "qaoa-xy-braket", label = "on Garnet", options = {device = "Garnet", max_cost = 25}},
    {name = "qaoa-braket", label = "on SV1", max_variables = 8, options = {device = "SV1", task_seconds = 6}},
]
"""  # noqa: E501


def test_a_quote_of_a_study_is_what_running_it_reserves(braket, tmp_path):
    for n, k in ((4, 2), (6, 6), (12, 6), (21, 4)):
        save(block(n, k), tmp_path / f"{n}.block.safetensors")
    (tmp_path / "study.toml").write_text(STUDY)
    answer = json.loads(quoted(tmp_path / "study.toml", "--json"))
    # Per budget: n = 4 under five seeds, n = 12 under two; n = 6 has no choice, n = 21 no room.
    garnet = 7 * (0.30 + 100 * 0.002) + 7 * (0.30 + 1000 * 0.002)
    on_garnet, on_simulator = answer["solvers"]
    assert (on_garnet["solver"], on_garnet["tasks"]) == ("on Garnet", 14)
    assert on_garnet["usd_at_most"] == on_garnet["usd_at_least"] == pytest.approx(garnet)
    assert (on_simulator["tasks"], on_simulator["max_cost"]) == (10, None)
    assert on_simulator["usd_at_most"] == pytest.approx(10 * 0.075 * 6 / 60)
    assert on_simulator["usd_at_least"] == pytest.approx(10 * 0.075 * 3 / 60)
    assert answer["usd_at_most"] == pytest.approx(garnet + 0.075)
    offline = quoted(tmp_path / "study.toml", "--offline")
    assert "24 tasks" in offline
    assert "committed table of 2026" in offline
    assert not braket.calls
    plan = Study.from_toml(tmp_path / "study.toml")
    spec = replace(
        plan.specs[1], options=study(tmp_path).specs[0].options, parameters=QUICK
    )  # fmt: skip
    run(replace(plan, solvers=[spec]), tmp_path / "s.sqlite", progress=False)
    with Journal(tmp_path / "journal.sqlite") as journal:
        assert journal.spent() == pytest.approx(garnet)
    assert braket.paid == 14


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (("reads = 1000}", "reads = 20001}"), "on Garnet: .*takes 1 to 20000"),
        (('Garnet"', 'Ankaa-3"'), "Ankaa-3 was retired in April 2026"),
        (('device = "Garnet", ', ""), "has no device"),
    ],
)
def test_studies_that_cannot_be_quoted(tmp_path, changes, words):
    save(block(4), tmp_path / "4.block.safetensors")
    (tmp_path / "study.toml").write_text(STUDY.replace(*changes))
    refused = CliRunner().invoke(app, ["quote", str(tmp_path / "study.toml"), "--offline"])
    assert isinstance(refused.exception, StudyError)
    assert re.search(words, str(refused.exception))


def test_a_quote_names_what_it_has_no_price_for(tmp_path):
    pytest.importorskip("dwave.system")
    save(block(4), tmp_path / "4.block.safetensors")
    (tmp_path / "study.toml").write_text(STUDY.replace('"greedy"', '"qpu"'))
    text = quoted(tmp_path / "study.toml", "--offline")
    assert "no price is known" in text
    assert "20 tasks: " in text
    assert ", without qpu" in text


def test_what_a_quote_needs_is_said(tmp_path):
    path = save(block(4), tmp_path / "4.block.safetensors")
    for arguments, words in (
        ([path], "--device and --shots"),
        ([path, tmp_path / "s.toml"], "STUDY.toml alone"),
        ([tmp_path / "s.toml", "--shots", 5], "--shots is the study's to say"),
    ):
        refused = CliRunner().invoke(app, ["quote", *map(str, arguments)])
        assert refused.exit_code == 2
        assert words in " ".join(refused.output.replace("│", " ").split())


def test_a_free_study_has_no_quote():
    with pytest.raises(StudyError, match="none of them costs money"):
        quote(Study("s", [block(4)], ["greedy"]))


def test_price_table():
    for name, device in known_devices().items():
        assert device.shots[1]
        assert find_device(device.arn) == find_device(name.lower()) == device
        assert device.price(1000) > 0
        assert device.is_qpu == (device.per_shot > 0) == (device.per_minute == 0)
    assert find_device("Garnet").price(1000) == pytest.approx(0.30 + 1.45)
    assert find_device("SV1").price(1, 0.1) == pytest.approx(3 / 60 * 0.075)
    assert find_device("SV1").price(1, 120) == pytest.approx(0.15)


def test_a_device_without_a_price_is_refused():
    unknown = find_device("arn:aws:braket:us-east-1::device/qpu/acme/New-1")
    assert unknown == Device("New-1", "arn:aws:braket:us-east-1::device/qpu/acme/New-1")
    with pytest.raises(CostError, match="no price is known"):
        unknown.price(10)
