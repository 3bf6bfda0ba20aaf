"""What was never sent is tried again by a resume, and what was sent never twice."""

import json
from dataclasses import replace

import pytest

from experiments import load_runs, run
from experiments.running.crew import row_of_the_dead
from experiments.running.limits import CALL
from experiments.running.pool import WorkerDied
from experiments.running.worker import Task
from experiments.study.study import Study
from solvers import Budget
from solvers.errors import CostError, NotSentError, OfflineError, TaskError, UnavailableError
from tests.paid.calls import rows, sample, solver, study, submit
from tests.study_fixtures import First, block, spec


def _refuse(route, status=403, kind="AccessDeniedException"):
    return lambda braket: braket.fail(route, status, kind, times=-1)


UNSENT = {
    "offline": (lambda braket: braket.offline.add("Garnet"), "Garnet is OFFLINE"),
    "region denied": (
        lambda braket: braket.deny("eu-north-1", 403, "AccessDeniedException"),
        "cannot be reached in eu-north-1",
    ),
    "region down": (
        lambda braket: braket.deny("eu-north-1", 500, "InternalServiceException"),
        "cannot be reached in eu-north-1",
    ),
    "no bucket": (_refuse("bucket", kind="AccessDenied"), "no bucket for results on Garnet"),
    "task denied": (_refuse("create"), "nothing is charged"),
    "throttled": (_refuse("create", 429, "ThrottlingException"), "nothing is charged"),
}


@pytest.mark.parametrize("case", UNSENT)
def test_what_was_not_sent_is_tried_again_on_resume(braket, tmp_path, case):
    fault, words = UNSENT[case]
    fault(braket)
    for _ in range(2):
        (row,) = rows(tmp_path)
        assert (row["status"], row["pending"], braket.paid) == ("error", 1, 0)
        assert words in row["reason"]
        info = json.loads(row["info"])
        assert (info["sent"], info["charged"], info["pending"]) == (False, 0, True)
    for trouble in (braket.offline, braket.denied, braket.faults):
        trouble.clear()
    before = len(braket.creates)
    (row,) = rows(tmp_path)
    assert (row["status"], braket.paid) == ("done", 1)
    rows(tmp_path)
    assert (braket.paid, len(braket.creates)) == (1, before + 1)


def test_a_run_says_what_a_resume_goes_on_with(braket, tmp_path):
    braket.offline.add("Garnet")
    outcome = run(study(tmp_path, seeds=3), tmp_path / "s.sqlite", progress=False)
    assert outcome.pending == 3
    assert outcome.summary == "3 cells: 3 error; 3 of them go on with --resume"
    braket.offline.clear()
    outcome = run(study(tmp_path, seeds=3), tmp_path / "s.sqlite", progress=False)
    assert (outcome.counts, outcome.resumed, outcome.pending) == ({"done": 3}, 0, 0)
    assert outcome.summary == "3 cells: 3 done"


def test_only_what_was_not_sent_is_tried_again(braket, tmp_path):
    (sent, *_) = rows(tmp_path, seeds=1)
    braket.offline.add("Garnet")
    frame = rows(tmp_path, seeds=3)
    assert [row["status"] for row in frame] == ["done", "error", "error"]
    braket.offline.clear()
    frame = rows(tmp_path, seeds=3)
    assert [row["status"] for row in frame] == ["done"] * 3
    assert json.loads(frame[0]["info"])["task"] == json.loads(sent["info"])["task"]
    assert braket.paid == len(braket.creates) == 3


def test_a_task_that_failed_after_it_was_sent_is_not_tried_again(braket, tmp_path):
    braket.end = "FAILED"
    (row,) = rows(tmp_path)
    assert (row["status"], row["pending"]) == ("error", 0)
    braket.end = "COMPLETED"
    assert rows(tmp_path)[0]["reason"] == row["reason"]
    assert (braket.paid, len(braket.creates)) == (1, 1)


def test_what_can_never_be_sent_is_not_tried_again(braket, tmp_path):
    braket.retired.add("Garnet")
    (row,) = rows(tmp_path)
    assert row["status"] == "error"
    assert row["pending"] != 1
    braket.retired.clear()
    few = replace(study(tmp_path, device="Forte-1", rehearse=True), budgets=[Budget(reads=99)])
    run(few, tmp_path / "m.sqlite", progress=False)
    (row,) = load_runs(tmp_path / "m.sqlite").to_dict("records")
    assert "takes 100 to 5000" in row["reason"]
    assert row["pending"] != 1
    assert not braket.creates


def test_errors_say_whether_anything_was_sent(braket, tmp_path):
    assert issubclass(OfflineError, UnavailableError)
    with pytest.raises(CostError) as failure:
        sample(solver(tmp_path, max_cost=0.1))
    assert isinstance(failure.value, NotSentError)
    braket.end = "FAILED"
    with pytest.raises(TaskError) as failure:
        sample(solver(tmp_path))
    assert not isinstance(failure.value, NotSentError)


@pytest.mark.parametrize("late", [True, False])
def test_a_worker_that_dies_of_a_paid_cell_leaves_it_to_be_collected(tmp_path, late):
    plan = study(tmp_path)
    for contestant, pending in ((plan.specs[0], 1), (spec(First), None)):
        mixed = Study("s", [block(4)], [contestant], [Budget(time_limit=1.0)], seeds=[0])
        (cell,) = mixed.cells({"i": 4})
        task = Task(cell, contestant, False, 0.0, "native")
        row = row_of_the_dead(task, WorkerDied("died", stage=CALL, late=late, seconds=3.0)).row
        assert row.get("pending") == pending


def test_a_task_is_collected_even_if_its_price_is_no_longer_known(braket, tmp_path):
    sampler = solver(tmp_path)
    submit(sampler)
    account = sampler._tasks._account
    account._device = replace(account._device, source="")
    samples = sample(sampler)
    assert samples.info["quote"] is None
    assert samples.info["charged"] == pytest.approx(0.5)
    assert braket.paid == 1
