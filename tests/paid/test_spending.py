"""AWS's own spending limits, made for a run and removed after it."""

import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from experiments import load_runs
from experiments.cli import app
from experiments.errors import StudyError
from solvers import save
from solvers.cloud.devices import find_device
from solvers.cloud.spending import TAG, SpendingLimits
from solvers.errors import OfflineError
from tests.paid.calls import QUICK
from tests.study_fixtures import block

STUDY = """
instances = ["b.block.safetensors"]
seeds = 3
budgets = [{{reads = 100}}]
solvers = [{{name = "qaoa-xy-braket", parameters = {parameters}, options = {options}}}]
"""


def toml(mapping):
    words = {True: "true", False: "false"}
    pairs = (f"{key} = {words.get(v, repr(v)) if isinstance(v, bool) else repr(v)}"
             for key, v in mapping.items())  # fmt: skip
    return "{" + ", ".join(pairs) + "}"


def bench(tmp_path, *arguments, **options):
    given = {"device": "Garnet", "max_cost": 2.5, "journal": f"{tmp_path}/j.sqlite", **options}
    save(block(4), tmp_path / "b.block.safetensors")
    (tmp_path / "study.toml").write_text(
        STUDY.format(parameters=toml(QUICK), options=toml(given)).replace("'", '"')
    )
    return [
        "bench", str(tmp_path / "study.toml"), "--store", str(tmp_path / "s.sqlite"),
        "--aws-spending-limit", *arguments,
    ]  # fmt: skip


def ran(command):
    return CliRunner().invoke(app, command)


def foreign(braket, usd, hours=24):
    """A limit that somebody else made; and its ARN."""
    now = datetime.now(UTC)
    arn = "arn:aws:braket:eu-north-1:123456789012:spending-limit/theirs"
    braket.limits[arn] = {
        "spendingLimitArn": arn, "deviceArn": find_device("Garnet").arn,
        "spendingLimit": str(usd), "queuedSpend": "0.5", "totalSpend": "1",
        "createdAt": now.isoformat(), "updatedAt": now.isoformat(),
        "timePeriod": {
            "startAt": (now - timedelta(days=1)).timestamp(),
            "endAt": (now + timedelta(hours=hours)).timestamp(),
        },
    }  # fmt: skip
    return arn


def test_a_run_makes_its_limit_and_removes_it(braket, tmp_path):
    made = []
    whole = braket.make_limit

    def watched(body):
        made.append(body)
        return whole(body)

    braket.make_limit = watched
    result = ran(bench(tmp_path))
    assert result.exit_code == 0, result.output
    assert "AWS spending limit made for this run: $2.50 on Garnet until" in result.output
    assert "removed from Garnet" in result.output
    assert (len(made), braket.limits) == (1, {})
    assert b'"spendingLimit": "2.50"' in made[0]
    # Before the first task, and gone after the last.
    assert braket.calls.index("limit") < braket.calls.index("create")
    assert braket.calls[-1] == "unlimit"
    # A resume limits to what the cap leaves: 2.5 - (0.3 + 3 x 0.2).
    assert ran(bench(tmp_path, "--resume")).exit_code == 0
    assert b'"spendingLimit": "1.60"' in made[1]


def test_the_limit_is_removed_from_a_run_that_fails(braket, tmp_path):
    braket.end = "FAILED"
    result = ran(bench(tmp_path))
    assert result.exit_code == 1
    assert braket.limits == {}


def test_a_limit_of_others_is_shown_and_kept(braket, tmp_path):
    arn = foreign(braket, 100)
    result = ran(bench(tmp_path))
    assert result.exit_code == 0, result.output
    assert "not of this run: $100.00 on Garnet" in result.output
    assert "$1.50 of it spent or queued" in result.output
    assert list(braket.limits) == [arn]
    assert "limit" not in braket.calls


def test_a_limit_that_is_over_is_none(braket, monkeypatch):
    foreign(braket, 100, hours=-1)
    limits = SpendingLimits(find_device("Garnet"))
    assert limits.existing() == []
    braket.limits.clear()
    made = limits.create(1.001, 60, "mine")
    (found,) = limits.existing()
    assert (found.arn, found.usd, found.run, found.spent) == (made.arn, 1.01, "mine", 0)
    assert next(iter(braket.limits.values()))["tags"] == {TAG: "mine"}


def test_what_a_limit_refuses_is_a_row_and_costs_nothing(braket, tmp_path):
    foreign(braket, 2)
    result = ran(bench(tmp_path, "--resume"))
    assert result.exit_code == 1
    frame = load_runs(tmp_path / "s.sqlite")
    assert frame["status"].tolist() == ["error"] * 3
    assert frame["reason"].str.contains("would exceed the spending limit of the device").all()
    assert braket.paid == 0
    # Somebody raises it: the same command goes on.
    next(iter(braket.limits.values()))["spendingLimit"] = "5"
    assert ran(bench(tmp_path, "--resume")).exit_code == 0
    assert braket.paid == 1


@pytest.mark.parametrize("route", ["limits", "limit"])
def test_a_limit_that_cannot_be_made_stops_the_run_before_it(braket, tmp_path, route):
    braket.fail(route, 403, "AccessDeniedException", times=-1)
    result = ran(bench(tmp_path))
    assert isinstance(result.exception, OfflineError)
    assert "leave out --aws-spending-limit (max_cost holds without it)" in str(result.exception)
    assert not braket.creates


def test_a_limit_that_cannot_be_removed_is_named(braket, tmp_path):
    braket.fail("unlimit", 403, "AccessDeniedException", times=-1)
    result = ran(bench(tmp_path))
    assert result.exit_code == 0
    (arn,) = braket.limits
    assert f"{arn} is left until" in result.output


@pytest.mark.parametrize("options", [{"device": "SV1"}, {"rehearse": True}])
def test_nothing_to_limit(braket, tmp_path, options):
    result = ran(bench(tmp_path, **options))
    assert isinstance(result.exception, StudyError)
    assert "none of them sends tasks to a QPU" in str(result.exception)
    assert not braket.calls


def test_a_limit_left_by_a_killed_run_is_made_anew(braket, tmp_path):
    braket.end = "QUEUED"
    command = [sys.executable, "-m", "icbs", *bench(tmp_path)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while "get" not in braket.calls and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (left,) = braket.limits
    braket.finish(next(iter(braket.tasks)))
    result = ran(bench(tmp_path, "--resume"))
    assert result.exit_code == 0, result.output
    assert "not of this run" not in result.output
    assert left not in braket.limits
    assert (braket.limits, braket.paid) == ({}, 1)
