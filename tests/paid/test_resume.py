"""The journal: whatever dies or gets lost, nothing is paid twice and all is collected."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from experiments import load_runs
from solvers import save
from solvers.cloud.journal import Journal
from solvers.cloud.waiting import Waiting
from solvers.errors import TaskError
from tests.paid.calls import Crash, crash, rows, sample, solver, submit
from tests.study_fixtures import block


@pytest.mark.parametrize(
    ("where", "method"),
    [
        ("solvers.cloud.service.AwsService", "create"),
        ("solvers.cloud.journal.Journal", "created"),
        ("solvers.cloud.waiting.Waiting", "until_ended"),
        ("solvers.cloud.journal.Journal", "completed"),
        ("experiments.store.database.Store", "add_run"),
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
        submit(sampler)
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
        submit(sampler)
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


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "reads"), [(20, 100), (1, 300)], ids=["calls", "parts"])
def test_kill_9_and_resume_of_twenty_tasks(braket, tmp_path, seeds, reads):
    if seeds == 1:
        braket.shots["Garnet"] = 15
    save(block(4), tmp_path / "b.block.safetensors")
    (tmp_path / "study.toml").write_text(
        f'name = "paid"\ninstances = ["b.block.safetensors"]\nseeds = {seeds}\n'
        f"budgets = [{{reads = {reads}}}]\n[[solvers]]\n"
        'name = "qaoa-xy-braket"\nparameters = {depth = 1, angles = "ramp", mixer = "ring"}\n'
        f'options = {{device = "Garnet", max_cost = 10, journal = "{tmp_path}/j.sqlite", '
        "program_sets = false}\n"
    )
    command = [sys.executable, "-m", "icbs", "bench", str(tmp_path / "study.toml"),
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
    assert frame["status"].tolist() == ["done"] * seeds
    assert frame["reads"].tolist() == [reads] * seeds
    assert braket.paid == len(set(braket.creates)) == 20
    assert frame["cost"].sum() == pytest.approx(20 * 0.3 + seeds * reads * 0.002)


def test_an_offline_device_still_hands_out_what_was_paid(braket, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Waiting, "until_ended", crash)
        with pytest.raises(Crash):
            rows(tmp_path, seeds=2)
    braket.offline.add("Garnet")
    assert [row["status"] for row in rows(tmp_path, seeds=2)] == ["done"] * 2


def test_a_region_that_refuses_still_hands_out_what_was_paid(braket, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Waiting, "until_ended", crash)
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


def test_access_denied_to_the_task_leaves_it_to_be_collected(braket, tmp_path):
    braket.fail("get", 403, "AccessDeniedException", times=-1)
    (row,) = rows(tmp_path)
    assert (row["status"], row["pending"]) == ("error", 1)
    assert "AccessDenied" in row["reason"]
    braket.faults.clear()
    (row,) = rows(tmp_path)
    assert (row["status"], braket.paid) == ("done", 1)
