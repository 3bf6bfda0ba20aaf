"""Calls of more shots than a task may have: several tasks, each paid for once."""

import json
from itertools import pairwise

import numpy as np
import pytest

from solvers.cloud.devices import Limits
from solvers.cloud.journal import Journal
from solvers.cloud.service import AwsService
from solvers.errors import CostError, NotTakenError, ParameterError, TaskError
from tests.paid import calls
from tests.paid.calls import Crash, crash, rows, sample, solver

SHOTS, PARTS = 31, [11, 10, 10]
PER_SHOT = 0.002  # of the endpoint
PRICE = 3 * 0.30 + SHOTS * PER_SHOT


@pytest.fixture
def braket(braket):
    """The endpoint with a Garnet that takes 15 shots a task."""
    braket.shots["Garnet"] = 15
    return braket


def spent(tmp_path):
    with Journal(tmp_path / "journal.sqlite") as journal:
        return journal.spent()


def ask(sampler):
    return sample(sampler, reads=SHOTS)


def submit(sampler):
    calls.submit(sampler, reads=SHOTS)


@pytest.mark.parametrize(
    ("shots", "most", "parts"),
    [
        (1, 1, [1]),
        (10, None, [10]),
        (10, 10, [10]),
        (11, 10, [6, 5]),
        (20, 10, [10, 10]),
        (21, 10, [7, 7, 7]),
        (5, 1, [1] * 5),
        (SHOTS, 15, PARTS),
    ],
)
def test_parts_are_few_and_equal(shots, most, parts):
    found = Limits(shots=(1, most)).parts("a device", shots)
    assert found == parts
    assert sum(found) == shots


def test_shots_that_no_split_takes():
    for shots in (99, 160):
        with pytest.raises(ParameterError, match="takes 100 to 150 a task"):
            Limits(shots=(100, 150)).parts("a device", shots)
    with pytest.raises(ParameterError, match="shots is 0"):
        Limits().parts("a device", 0)


def test_a_call_beyond_the_cap_of_a_task_is_several_tasks(braket, tmp_path):
    samples = ask(solver(tmp_path))
    assert [task["shots"] for task in braket.tasks.values()] == PARTS
    assert len(samples) == SHOTS
    measured = np.concatenate(
        [np.array(json.loads(data)["measurements"], int) for data in braket.objects.values()]
    )
    np.testing.assert_array_equal(samples.record.raw_sample, measured)
    info = samples.info
    assert [part["shots"] for part in info["parts"]] == PARTS
    assert [part["task"] for part in info["parts"]] == list(braket.tasks)
    assert info["quote"] == info["charged"] == info["reserved"] == pytest.approx(PRICE)
    assert sum(part["charged"] for part in info["parts"]) == pytest.approx(PRICE)
    assert spent(tmp_path) == pytest.approx(PRICE)
    # All were sent before any was waited for.
    assert braket.calls.index("get") > max(i for i, c in enumerate(braket.calls) if c == "create")
    again = ask(solver(tmp_path))
    np.testing.assert_array_equal(again.record.raw_sample, samples.record.raw_sample)
    assert (braket.paid, len(braket.creates)) == (3, 3)


def test_all_parts_are_within_the_cap_or_none_is_sent(braket, tmp_path):
    with pytest.raises(CostError, match="would exceed max_cost"):
        ask(solver(tmp_path, max_cost=PRICE - 0.01))
    assert (braket.paid, spent(tmp_path)) == (0, 0)
    assert len(ask(solver(tmp_path, max_cost=PRICE))) == SHOTS


def test_a_cap_that_another_call_used_up_meanwhile_leaves_no_part_behind(
    braket, tmp_path, monkeypatch
):
    sampler = solver(tmp_path, max_cost=PRICE + 1)
    checked = Journal.check_cap

    def late(journal, price, cap):
        """Another process pays when two parts are in the transaction."""
        checked(journal, price, 0.7 if price < 0.5 else cap)

    monkeypatch.setattr(Journal, "check_cap", late)
    with pytest.raises(CostError):
        ask(sampler)
    assert (braket.paid, len(braket.creates), spent(tmp_path)) == (0, 0, 0)


@pytest.mark.parametrize(
    ("kind", "method", "died_at"),
    [
        (AwsService, "create", 1),
        (AwsService, "create", 3),
        (Journal, "created", 2),
        (Journal, "completed", 1),
        pytest.param(Journal, "completed", 3, marks=pytest.mark.slow),
    ],
)
def test_a_crash_at_any_part_pays_once(braket, tmp_path, monkeypatch, kind, method, died_at):
    with monkeypatch.context() as patch:
        whole, seen = getattr(kind, method), []

        def at(*arguments):
            seen.append(arguments)
            return crash() if len(seen) == died_at else whole(*arguments)

        patch.setattr(kind, method, at)
        with pytest.raises(Crash):
            ask(solver(tmp_path))
    # What the device takes by then does not change the parts.
    braket.shots["Garnet"] = 12
    assert len(ask(solver(tmp_path))) == SHOTS
    assert (braket.paid, len(set(braket.creates))) == (3, 3)
    assert [task["shots"] for task in braket.tasks.values()] == PARTS
    assert spent(tmp_path) == pytest.approx(PRICE)


def refuse(braket, place):
    """The create call of one part is refused."""
    whole, seen = braket.create, set()

    def create(body):
        token = json.loads(body)["clientToken"]
        seen.add(token)
        if len(seen) == place and braket.refuses:
            return 400, {"message": "as the test wants it"}
        return whole(body)

    braket.refuses = True
    braket.create = create


def test_a_refusal_of_the_first_part_costs_nothing(braket, tmp_path):
    refuse(braket, 1)
    with pytest.raises(NotTakenError, match="nothing is charged") as failure:
        submit(solver(tmp_path))
    assert (braket.paid, spent(tmp_path)) == (0, 0)
    assert failure.value.info["reserved"] == failure.value.info["charged"] == 0
    # All of it is asked for anew, in the parts of now.
    braket.refuses, braket.shots["Garnet"] = False, 16
    assert len(ask(solver(tmp_path))) == SHOTS
    assert braket.paid == 2
    assert spent(tmp_path) == pytest.approx(PRICE - 0.30)


@pytest.mark.parametrize("place", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_a_refusal_of_a_later_part_is_sent_again_alone(braket, tmp_path, place):
    refuse(braket, place)
    with pytest.raises(TaskError, match=f"part {place} of 3 was not sent") as failure:
        submit(solver(tmp_path))
    assert not isinstance(failure.value, NotTakenError)
    assert failure.value.info["pending"]
    taken = list(braket.tasks)
    assert len(taken) == place - 1
    booked = sum(0.30 + shots * PER_SHOT for shots in PARTS[: place - 1])
    assert spent(tmp_path) == failure.value.info["reserved"] == pytest.approx(booked)
    # The cap holds for what is sent later, and a device that is away then changes nothing.
    braket.refuses = False
    with pytest.raises(TaskError, match="would exceed max_cost") as failure:
        ask(solver(tmp_path, max_cost=PRICE - 0.01 if place == 3 else booked + 0.01))
    assert failure.value.info["pending"]
    braket.offline.add("Garnet")
    with pytest.raises(TaskError, match="Garnet is OFFLINE"):
        ask(solver(tmp_path, max_cost=PRICE))
    braket.offline.clear()
    assert len(ask(solver(tmp_path, max_cost=PRICE))) == SHOTS
    assert list(braket.tasks)[: place - 1] == taken
    assert (braket.paid, spent(tmp_path)) == (3, pytest.approx(PRICE))


def test_what_was_paid_is_handed_out_without_a_part_that_can_never_be_sent(braket, tmp_path):
    refuse(braket, 2)
    with pytest.raises(TaskError, match="part 2 of 3"):
        submit(solver(tmp_path))
    braket.refuses = False
    braket.retired.add("Garnet")
    samples = ask(solver(tmp_path))
    assert len(samples) == PARTS[0]
    assert samples.info["task_status"] == "COMPLETED, REFUSED"
    assert [part["reserved"] for part in samples.info["parts"]] == [0.30 + 11 * PER_SHOT, 0, 0]
    assert samples.info["charged"] == spent(tmp_path) == pytest.approx(0.30 + 11 * PER_SHOT)
    assert len(braket.creates) == 1


def test_parts_that_fail_are_missing_and_said(braket, tmp_path):
    whole = braket.create
    ends = iter(["COMPLETED", "FAILED", "COMPLETED"])

    def create(body):
        braket.end = next(ends)
        return whole(body)

    braket.create = create
    samples = ask(solver(tmp_path))
    assert len(samples) == PARTS[0] + PARTS[2]
    info = samples.info
    assert [part["task_status"] for part in info["parts"]] == ["COMPLETED", "FAILED", "COMPLETED"]
    assert info["parts"][1]["reason"] == braket.reason
    assert info["task_status"] == "COMPLETED, FAILED"
    # Whether the failed one is charged is not known; the cap counts it.
    assert info["charged"] is None
    assert info["reserved"] == pytest.approx(PRICE)
    assert spent(tmp_path) == pytest.approx(PRICE)
    assert len(ask(solver(tmp_path))) == PARTS[0] + PARTS[2]
    assert len(braket.creates) == 3


def test_parts_that_all_fail_are_an_error(braket, tmp_path):
    braket.end = "FAILED"
    with pytest.raises(TaskError, match="FAILED: the lasers are off") as failure:
        ask(solver(tmp_path))
    assert not failure.value.info["pending"]
    assert failure.value.info["reserved"] == pytest.approx(PRICE)
    assert braket.paid == 3


def test_a_part_that_is_late_is_collected_with_the_others(braket, tmp_path):
    braket.end = "QUEUED"
    with pytest.raises(TaskError, match="still QUEUED") as failure:
        ask(solver(tmp_path, poll_timeout=0.1))
    assert failure.value.info["pending"]
    first, *others = braket.tasks
    for arn in others:
        braket.finish(arn)
    with pytest.raises(TaskError, match="still QUEUED"):
        ask(solver(tmp_path, poll_timeout=0.1))
    braket.finish(first)
    assert len(ask(solver(tmp_path, poll_timeout=0.1))) == SHOTS
    assert len(braket.creates) == 3


def test_every_part_on_a_simulator_is_stopped_after_its_time(braket, tmp_path):
    braket.shots["SV1"] = 50
    braket.end = "RUNNING"
    with pytest.raises(TaskError, match=r"it ran longer than task_seconds = 0\.1"):
        sample(solver(tmp_path, "SV1", task_seconds=0.1), reads=100)
    assert [task["status"] for task in braket.tasks.values()] == ["CANCELLED"] * 2


def test_a_rehearsal_has_parts_that_differ(tmp_path):
    (row,) = rows(tmp_path, device="Ibex-Q1", rehearse=True, max_cost=1000.0, reads=4002)
    info = json.loads(row["info"])
    assert (row["status"], row["reads"]) == ("done", 4002)
    assert [part["shots"] for part in info["parts"]] == [1334] * 3
    assert row["quote"] == pytest.approx(0.90 + 4002 * 0.0235)
    sampler = solver(tmp_path, "Ibex-Q1", rehearse=True, max_cost=1000.0)
    parts = np.split(sample(sampler, reads=4002).record.raw_sample, 3)
    assert all(not np.array_equal(one, other) for one, other in pairwise(parts))
