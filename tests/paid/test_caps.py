"""What may be spent, and what a device takes, in studies, quotes and rehearsals."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from typer.testing import CliRunner

from experiments import SolverSpec
from experiments.cli import app
from experiments.store.check import check
from solvers import make, save
from solvers.cloud.devices import find_device
from solvers.cloud.journal import Journal
from solvers.errors import CostError, ParameterError, UnavailableError
from tests.paid.calls import rows, sample
from tests.study_fixtures import block


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


SHOTS = {"SV1": (1, 50_000), "DM1": (1, 50_000), "Garnet": (1, 20_000), "Emerald": (1, 20_000),
         "Ibex-Q1": (1, 2000), "Forte-1": (100, 5000), "Forte-Enterprise-1": (100, 5000),
         "Cepheus-1-108Q": (10, 50_000)}  # fmt: skip


@pytest.mark.parametrize("device", SHOTS)
def test_the_table_limits_shots_in_quotes_and_rehearsals(tmp_path, device):
    path, (least, most) = save(block(4), tmp_path / "b.block.safetensors"), SHOTS[device]
    words = f"{device} takes {least} to {most} a task"
    arguments = ["quote", str(path), "--device", device, "--offline", "--json", "--shots"]
    for shots, tasks in ((least, 1), (most, 1), (most + 1, 2), (3 * most, 3)):
        quoted = json.loads(CliRunner().invoke(app, [*arguments, str(shots)]).stdout)
        found = find_device(device)
        assert quoted["tasks"] == tasks
        assert quoted["usd_at_least"] == pytest.approx(
            tasks * found.price(1) + (shots - tasks) * found.per_shot
        )
    for shots in {max(1, least - 1)} - {least}:
        refused = CliRunner().invoke(app, [*arguments, str(shots)])
        assert isinstance(refused.exception, ParameterError)
        assert words in str(refused.exception)
        with pytest.raises(ParameterError, match=words):
            sample(make("qaoa-xy-braket", device=device, max_cost=1, rehearse=True), reads=shots)


@pytest.mark.parametrize(
    ("device", "month", "instead"),
    [("TN1", "June 2026", "SV1"), ("Ankaa-3", "April 2026", "Cepheus-1-108Q")],
)
def test_retired_devices_are_neither_offered_quoted_nor_rehearsed(tmp_path, device, month, instead):
    path = save(block(4), tmp_path / "b.block.safetensors")
    words = f"{device} was retired in {month}: nothing was submitted; take {instead} in its place"
    refused = CliRunner().invoke(app, ["quote", str(path), "--device", device, "--shots", "10"])
    assert words in str(refused.exception)
    with pytest.raises(UnavailableError, match=words):
        sample(make("qaoa-xy-braket", device=device, max_cost=1, rehearse=True))
    with pytest.raises(ParameterError, match="one of SV1") as told:
        find_device("nowhere")
    assert device not in str(told.value)


def test_a_rehearsal_keeps_the_cap(tmp_path):
    options = {"device": "Garnet", "max_cost": 0.9, "rehearse": True}
    sampler = make("qaoa-xy-braket", **options)
    first = sample(sampler, seed=1)
    with pytest.raises(CostError, match="would exceed"):
        sample(sampler, seed=2, reads=200)
    again = sample(make("qaoa-xy-braket", **options), seed=1)
    np.testing.assert_array_equal(first.record.sample, again.record.sample)


def test_a_raised_cap_pays_for_the_rest_only(braket, tmp_path):
    rows(tmp_path, seeds=5, max_cost=1.2)
    assert braket.paid == 2
    frame = rows(tmp_path, seeds=5, max_cost=2.0)
    assert [row["status"] for row in frame].count("done") == 4
    assert len(frame) == 5
    frame = rows(tmp_path, seeds=5, max_cost=9.0, poll_timeout=60.0)
    assert [row["status"] for row in frame] == ["done"] * 5
    assert braket.paid == len(set(braket.creates)) == 5
    assert check(tmp_path / "s.sqlite").sound


def test_other_options_make_other_cells(tmp_path):
    def identity(name="qaoa-xy-braket", **options):
        return SolverSpec(name, {"device": "SV1", "max_cost": 1, **options}).identity

    assert identity() == identity(max_cost=2) == identity(journal="j.sqlite")
    assert len({identity(), identity(rehearse=True), identity(task_seconds=9.0)}) == 3
    # What an option of this name means to a solver that is free, only that solver knows.
    assert identity("greedy") != identity("greedy", max_cost=2)
