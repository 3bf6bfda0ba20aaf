"""Rehearsals: the same records without an account."""

import json

import pytest
from typer.testing import CliRunner

from experiments import Study, load_runs, run
from experiments.cli import app
from experiments.errors import StudyError
from experiments.store.database import Store
from experiments.study.paths import STUDIES
from solvers import save
from solvers.cloud.devices import find_device
from tests.paid.calls import rows, study
from tests.study_fixtures import block


def test_rehearsal_is_the_same_record(braket, tmp_path, monkeypatch):
    (paid,) = rows(tmp_path)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    before = list(braket.calls)
    run(study(tmp_path).rehearsed(), tmp_path / "r.sqlite", progress=False)
    (free,) = load_runs(tmp_path / "r.sqlite").to_dict("records")
    assert braket.calls == before
    assert free.keys() == paid.keys()
    told = json.loads(free["info"])
    # The first call of a process also says what it compiled for.
    assert told.keys() == json.loads(paid["info"]).keys() - {"warm_up"}
    assert told["rehearsal"]
    assert free["status"] == "done"
    assert free["quote"] == pytest.approx(0.30 + 100 * 0.00145)
    assert free["cost"] == told["charged"] == 0
    assert told["reserved"] == free["quote"]
    assert free["key"] != paid["key"]


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


@pytest.mark.parametrize("smoke", [False, True])
@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.toml")), ids=lambda path: path.stem)
def test_studies_of_the_package_ask_for_shots_that_their_devices_take(path, smoke):
    plan = Study.from_toml(path, smoke=smoke)
    paid = [spec for spec in plan.specs if spec.paid]
    assert bool(paid) == (path.stem in ("hardware", "qaoa", "rehearsal"))
    for spec in paid:
        device = find_device(spec.options["device"])
        for budget in plan.limits:
            device.limits.check(device.name, budget.reads)
