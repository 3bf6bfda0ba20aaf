"""What the service refuses, breaks or cannot do now, as a study tells it."""

import json

import pytest

from experiments import SolverSpec, Study, load_runs, run
from solvers import Budget
from solvers.cloud.journal import Journal
from solvers.errors import TaskError, UnavailableError
from tests.paid.calls import QUICK, rows, sample, solver
from tests.study_fixtures import block

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
