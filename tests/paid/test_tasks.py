"""Paid tasks against the loopback endpoint: rows, shots, and calls that cannot be."""

import json

import numpy as np
import pytest
from dimod.exceptions import BinaryQuadraticModelSizeError

from experiments.errors import StudyError
from solvers import Budget, make
from solvers.cloud.devices import find_device
from solvers.cloud.journal import Journal
from solvers.errors import CostError, ParameterError, TaskError, UnavailableError
from tests.paid.calls import rows, sample, solver
from tests.study_fixtures import block


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


def test_too_many_qubits(braket, tmp_path):
    with pytest.raises(BinaryQuadraticModelSizeError, match="at most 20 variables"):
        sample(solver(tmp_path), n=21)
    with pytest.raises(UnavailableError, match="20 qubits, the circuit needs 21"):
        sample(solver(tmp_path, max_variables=24), n=21)
    assert not braket.creates


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
