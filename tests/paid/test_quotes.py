"""Quotes: what a study costs, before it is submitted."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from experiments import Study, run
from experiments.cli import app
from experiments.errors import StudyError
from experiments.running.quoting import quote
from solvers import make, save
from solvers.cloud.devices import Device, find_device, known_devices
from solvers.cloud.journal import Journal
from solvers.errors import CostError
from solvers.qaoa.sampler import DEFAULT_READS
from tests.braket_endpoint import ARNS
from tests.paid.calls import QUICK, rows, sample, solver, study
from tests.study_fixtures import block


def quoted(*arguments):
    result = CliRunner().invoke(app, ["quote", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def test_without_price_list_the_committed_table_holds(braket, tmp_path):
    braket.prices = None
    (row,) = rows(tmp_path)
    assert row["status"] == "done"
    assert row["quote"] == pytest.approx(0.30 + 100 * 0.00145)
    assert np.isnan(row["cost"])
    assert "committed table of 2026" in json.loads(row["info"])["price_source"]


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
    {name = "qaoa-xy-braket", label = "on Garnet", options = {device = "Garnet", max_cost = 25, program_sets = false}},
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
        (("reads = 1000}", "reads = 99}"), "on Garnet: .*takes 100 to 5000"),
        (('Garnet"', 'Ankaa-3"'), "Ankaa-3 was retired in April 2026"),
        (('device = "Garnet", ', ""), "has no device"),
    ],
)
def test_studies_that_cannot_be_quoted(tmp_path, changes, words):
    save(block(4), tmp_path / "4.block.safetensors")
    text = STUDY.replace(*changes)
    if "reads" in changes[0]:
        text = text.replace('device = "Garnet"', 'device = "Forte-1"')
    (tmp_path / "study.toml").write_text(text)
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


LOOP = """
solvers = [
    {name = "qaoa-xy-braket", options = {device = "Garnet", max_cost = 1000}},
    "greedy",
    {name = "qaoa-braket", options = {device = "SV1", max_cost = 1000}},
]
budgets = [{reads = 200}]
seeds = 2
[loop]
model = "garment-mlp"
steps = 2
fork_at = 1
count = 64
heldout = 32
evaluation = 32
contestants = ["qaoa-xy-braket", "greedy"]
settings = {density = 0.1, block_size = 8, fisher = "position", batch_size = 64}
"""


@pytest.mark.slow
def test_a_quote_of_a_loop_bounds_what_running_it_reserves(braket, tmp_path):
    (tmp_path / "study.toml").write_text(LOOP)
    answer = json.loads(quoted(tmp_path / "study.toml", "--json"))
    assert not braket.calls
    on_garnet, on_simulator = answer["solvers"]
    layers = 2
    # Before the fork 1 step, 1 for its blocks, 2 after it and 1 to warm up; then two seeds.
    assert on_garnet["tasks"] == layers * (1 + 1 + 2 + 1) + layers * 2
    by_reads = 10 * (0.30 + DEFAULT_READS * 0.002) + 4 * (0.30 + 200 * 0.002)
    assert on_garnet["usd_at_most"] == pytest.approx(by_reads)
    # It drives no loop and gets the blocks of the fork.
    assert on_simulator["tasks"] == layers * 2
    plan = Study.from_toml(tmp_path / "study.toml")
    options = {**plan.specs[0].options, "journal": str(tmp_path / "journal.sqlite")}
    run(
        replace(plan, solvers=[replace(plan.specs[0], options=options), "greedy"]),
        tmp_path / "s.sqlite",
        progress=False,
    )
    with Journal(tmp_path / "journal.sqlite") as journal:
        spent = journal.spent()
    assert 0.5 * by_reads < spent <= by_reads


def test_a_loop_whose_blocks_do_not_fit_has_no_quote(tmp_path):
    (tmp_path / "study.toml").write_text(LOOP.replace("block_size = 8", "block_size = 64"))
    with pytest.raises(
        StudyError, match=r"blocks of 64 variables: qaoa-xy-braket takes at most 20"
    ):
        quote(Study.from_toml(tmp_path / "study.toml"), offline=True)
