"""A whole pruning run: what it leaves in its folder, resumed or not, and what it refuses."""

import json
import re
from dataclasses import replace

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from experiments.pruning.comparing import METHODS, compare, figure
from experiments.pruning.running import curve, prune, steps_table
from experiments.store.database import Store
from icbs.baselines.oneshot import prune_once
from icbs.data.fashion_mnist import EMBEDDED
from icbs.data.loading import load_samples
from icbs.errors import CheckpointError, OutputError, SettingError
from icbs.evaluation.quality import evaluate
from icbs.loop.pruned import load_masks, save_masks
from icbs.loop.records import STAGES
from icbs.models.loading import load_model
from icbs.models.prunable import prunable_layers
from icbs.settings import Settings, parse_settings
from tests.experiments.factories import OPTIONS, data
from tests.icbs_fixtures import tiny_loaded, tiny_samples


def test_folder_of_a_run(tmp_path):
    loaded = tiny_loaded()
    summary = prune(loaded, data(), tmp_path, steps=3, repair=True, tune=2, **OPTIONS)
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert {"curve.pdf", "curve.svg", "curve.png"} <= {path.name for path in tmp_path.iterdir()}
    masks = load_masks(tmp_path / "masks.safetensors")
    alone = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    for name, mask in masks.items():
        weight = alone.get_submodule(name).weight
        assert torch.equal(weight, loaded.model.get_submodule(name).weight)
        assert not weight[~mask].any()
    kept = sum(int(mask.sum()) for mask in masks.values())
    assert summary["density"] == kept / sum(mask.numel() for mask in masks.values())
    states = [row["state"] for row in summary["quality"]]
    assert states[:3] == ["dense", "first mask (wanda)", "3 iCBS steps"]
    assert states[3] in ("after repair", "repair refused by the gate")
    assert states[4] == "after 2 steps of tuning"
    # the last row is the model that was saved
    loss = evaluate(alone, tiny_samples(4, seed=5), progress=False).loss
    assert summary["quality"][-1]["loss"] == pytest.approx(loss, rel=1e-6)
    assert 0 < summary["touched"] < 1
    assert 0 < summary["swaps_accepted_share"] <= 1
    with Store(tmp_path / "run.sqlite") as store:
        steps, quality = store.table("steps"), store.table("quality")
        tuning = store.table("tuning")
    assert steps["step"].tolist() == [1, 2, 3]
    assert tuning["step"].tolist() == [1, 2]
    assert len(quality) == 5
    total = steps[[f"seconds_{name}" for name in STAGES]].to_numpy().sum()
    assert sum(summary["seconds"][name] for name in STAGES) == pytest.approx(total)


def test_heldout_loss_never_rises_over_a_run(tmp_path):
    prune(tiny_loaded(), data(), tmp_path, steps=6, **OPTIONS)
    with Store(tmp_path / "run.sqlite") as store:
        steps = store.table("steps")
    assert (steps["heldout_after"] <= steps["heldout_before"]).all()
    assert steps["heldout_after"].iloc[-1] < steps["heldout_before"].iloc[0]


def test_resumed_run_ends_as_the_uninterrupted_one(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    prune(tiny_loaded(), data(), whole, steps=4, **OPTIONS)
    prune(tiny_loaded(), data(), parts, steps=2, **OPTIONS)
    with pytest.raises(OutputError, match="pass --resume"):
        prune(tiny_loaded(), data(), parts, steps=4, **OPTIONS)
    with pytest.raises(CheckpointError, match=r"gamma was 1\.0, is 0\.5"):
        prune(tiny_loaded(), data(), parts, steps=4, resume=True, gamma=0.5, **OPTIONS)
    prune(tiny_loaded(), data(), parts, steps=4, resume=True, **OPTIONS)
    for name in ("masks.safetensors", "model/model.safetensors"):
        one, other = load_file(whole / name), load_file(parts / name)
        assert set(one) == set(other)
        assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())
    with Store(parts / "run.sqlite") as store:
        assert store.table("steps")["step"].tolist() == [1, 2, 3, 4]


def test_no_steps_is_the_first_mask(tmp_path):
    summary = prune(tiny_loaded(), data(), tmp_path, steps=0, **OPTIONS)
    assert [row["state"] for row in summary["quality"]] == ["dense", "first mask (wanda)"]
    assert summary["swaps_accepted_share"] is None
    assert len(steps_table([])) == 0
    curve([], 0.1, summary)


def test_masks_come_back_whatever_their_size(tmp_path):
    torch.manual_seed(0)
    masks = {"a": torch.rand(3, 5) > 0.5, "b": torch.rand(1, 1) > 0.5, "c": torch.rand(8, 2) > 0.5}
    save_masks(tmp_path / "m", masks, {"model": "tiny"})
    back = load_masks(tmp_path / "m")
    assert set(back) == set(masks)
    assert all(torch.equal(mask, back[name]) for name, mask in masks.items())
    (tmp_path / "m").write_bytes((tmp_path / "m").read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="damaged"):
        load_masks(tmp_path / "m")


def test_command_from_model_to_model(icbs, model_folder, tmp_path):
    out = tmp_path / "pruned"
    command = ["prune", model_folder, "--out", out, "--data", model_folder / "text.txt",
               "--count", 6, "--heldout", 3, "--length", 10, "--batch-size", 3, "--steps", 2,
               "--evaluation", 1, "--block-size", 32, "--solver", "greedy",
               "--set", "damping=1.0"]  # fmt: skip
    status, text, err = icbs(*command)
    assert status == 0, err
    assert "2 iCBS steps" in text
    assert "step 2: held-out loss" in err
    loaded = load_model(str(out / "model"))
    samples = load_samples(
        loaded, str(model_folder / "text.txt"), part="evaluation", count=1, length=64
    )
    summary = json.loads((out / "summary.json").read_text())
    loss = evaluate(loaded.model, samples, progress=False).loss
    assert summary["quality"][-1]["loss"] == pytest.approx(loss, rel=1e-6)
    status, _, err = icbs(*command)
    assert status == 1
    assert "--resume" in err
    status, _, err = icbs(*command, "--resume", "--steps", 3, "--json")
    assert status == 0, err


def test_images_that_come_along_are_enough_and_are_named(icbs, tmp_path, monkeypatch):
    """As they stand in README, the commands run on a machine without any data."""
    monkeypatch.setenv("ICBS_SYSTEM_DATA", "")
    out = tmp_path / "pruned"
    status, text, err = icbs("prune", "garment-mlp", "--density", 0.1, "--steps", 1,
                             "--block-size", 256, "--out", out)  # fmt: skip
    assert status == 0, err
    summary = json.loads((out / "summary.json").read_text())
    assert summary["data"] == EMBEDDED
    assert [(row["data"], row["samples"]) for row in summary["quality"]] == [(EMBEDDED, 2000)] * 3
    assert summary["quality"][-1]["accuracy"] > 0.8
    status, text, err = icbs("evaluate", out / "model", "--json")
    assert status == 0, err
    (found,) = json.loads(text)["results"]
    assert (found["data"], found["samples"]) == (EMBEDDED, 2000)
    assert found["accuracy"] == summary["quality"][-1]["accuracy"]
    rows = tmp_path / "rows"
    status, text, err = icbs("baselines", "garment-mlp", "--densities", 0.1, "--methods", "wanda",
                             "--out", rows)  # fmt: skip
    assert status == 0, err
    assert set(pd.read_csv(rows / "baselines.csv")["data"]) == {EMBEDDED}
    # The texts of a figure are drawn as paths with a comment each.
    for path in (out / "curve.svg", rows / "baselines.svg"):
        assert "6,000 embedded" in " ".join(re.findall(r"<!-- (.*?) -->", path.read_text()))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("dampin=3", "there is no setting 'dampin'; did you mean 'damping'?"),
        ("damping", "damping has no value; write damping=VALUE"),
        ("damping=high", "damping is 'high'; choose a number from 0"),
        ("rank=0.5", "rank is 0.5; choose a whole number from 1, or None"),
        ("batch_size=null", "size is None; choose a whole number from 1"),
        ("carry=1", "carry is 1; choose true or false"),
        ("select=3", "select is 3; choose one of wanda"),
        ("select=wonda", "select is 'wonda'; did you mean 'wanda'?"),
    ],
)
def test_settings_that_cannot_be(icbs, tmp_path, word, message):
    with pytest.raises(SettingError) as caught:
        Settings(**parse_settings([word]))
    assert message in str(caught.value)
    status, _, err = icbs("prune", "garment-mlp", "--out", tmp_path / "x", "--set", word)
    assert status == 2
    assert message in err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--density", 0.5, "--set", "density=0.3"], "--density is 0.5 and --set density is 0.3"),
        (
            ["--set", "block_size=64", "--block-size", 32],
            "--block-size is 32.0 and --set block_size",
        ),
        (["--fisher", "exact", "--set", "fisher=position"], "--fisher is exact and --set fisher"),
        (["--seed", 1, "--set", "seed=2"], "--seed is 1 and --set seed is 2"),
        (["--batch-size", 1, "--set", "batch_size=2"], "--batch-size is 1 and --set batch_size"),
        (["--init", "random", "--set", "init=wanda"], "--init is random and --set init"),
        (["--set", "density=0.3", "--set", "density=0.4"], "density is given twice; give it once"),
        (["--seed", -1], "seed is -1; choose a whole number from 0"),
    ],
)
def test_a_setting_is_given_once(icbs, tmp_path, words, message):
    status, _, err = icbs("prune", "garment-mlp", "--out", tmp_path / "x", *words)
    assert status == 2
    assert message in err
    assert not (tmp_path / "x" / "summary.json").exists()


def test_a_setting_may_stand_for_an_option_that_is_not_given(icbs, model_folder, tmp_path):
    out = tmp_path / "pruned"
    status, _, err = icbs(
        "prune", model_folder, "--out", out, "--data", model_folder / "text.txt", "--count", 6,
        "--heldout", 3, "--length", 10, "--steps", 0, "--evaluation", 1, "--json",
        "--set", "density=0.25", "--set", "batch_size=2",
    )  # fmt: skip
    assert status == 0, err
    assert json.loads((out / "summary.json").read_text())["density"] == pytest.approx(
        0.25, abs=0.01
    )


def test_densities_of_a_comparison_are_an_option(icbs, tmp_path):
    arguments = ["baselines", "garment-mlp", "--out", tmp_path / "x", "--set", "density=0.3"]
    status, _, err = icbs(*arguments)
    assert status == 2
    assert "--densities" in err


def test_settings_by_name():
    words = ["damping=3", "rank=null", "carry=false", "select=wanda", "k=4", "block_size=0.1"]
    found = parse_settings(words)
    assert found == {"damping": 3, "rank": None, "carry": False, "select": "wanda", "k": 4,
                     "block_size": 0.1}  # fmt: skip
    Settings(**{**found, "block_size": 10})


def test_comparison_of_every_method(tmp_path):
    loaded = tiny_loaded()
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    options = {"steps": 2, "time_limit": 2.0, **OPTIONS}
    table = compare(loaded, data(), tmp_path, densities=[0.5], **options)
    every = [*METHODS[:-2], "icbs + repair", *METHODS[-2:]]
    assert table["method"].tolist() == ["dense", *every]
    # the model is as it was, and what is there is not run again
    assert all(torch.equal(value, before[n]) for n, value in loaded.model.state_dict().items())
    seconds = pd.read_csv(tmp_path / "baselines.csv")["seconds"]
    some = ["wanda", "icbs"]
    more = compare(loaded, data(), tmp_path, densities=[0.5, 0.4], methods=some, **options)
    assert more["seconds"][: len(seconds)].tolist() == seconds.tolist()
    assert more["method"][len(seconds) :].tolist() == ["wanda", "icbs", "icbs + repair"]
    assert (tmp_path / "baselines.png").stat().st_size > 0
    longer, options["time_limit"] = tmp_path / "longer", 300.0
    longer.mkdir()
    loop = compare(loaded, data(), longer, densities=[0.4], methods=["icbs"], **options).iloc[-1]
    assert loop["steps"] == 2
    assert 0 < loop["touched"] < 1
    assert 0 <= loop["accepted"] <= 1
    assert more["touched"].notna().all()
    tuned = more[more["method"].str.endswith("tuning")]
    assert (tuned["tuning_steps"] >= 1).all()
    assert (tuned.loc[tuned["method"] == "wanda + tuning", "touched"] == 0).all()
    with pytest.raises(SettingError, match="expected some of magnitude"):
        compare(loaded, data(), longer, densities=[0.5], methods=["wonda"], **options)


def test_what_is_beyond_the_axis_is_named_on_the_figure():
    rows = [("dense", 1.0, 15.0), ("wanda", 0.5, 40.0), ("wanda", 0.4, 100.0), ("random", 0.5, 1e6),
            ("magnitude", 0.5, 400.0), ("magnitude", 0.4, 900.0)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["method", "density", "perplexity"])
    table = table.assign(data="text", accuracy=0.1, touched=0.0, accepted=None)
    drawing = figure(table, tiny_loaded())
    drawing.draw_without_rendering()
    said = drawing.findobj(lambda part: hasattr(part, "get_text"))
    assert any("not shown there: magnitude, random" in part.get_text() for part in said)
    (axis,) = drawing.axes
    assert axis.get_ylim()[1] == pytest.approx(1.1 * 10 * 15)


def test_rows_made_in_another_way_are_not_mixed(tmp_path):
    """A longer time limit, other data or settings: refused by name, and what is there stays."""
    loaded = tiny_loaded()
    compare(loaded, data(), tmp_path, densities=[0.5], methods=["wanda"], time_limit=5, **OPTIONS)
    before = (tmp_path / "baselines.csv").read_bytes()
    other = {"time_limit": (9, "time_limit was 5, is 9"), "labels": (0.5, "labels was 0.0, is 0.5"),
             "damping": (7.0, "options damping was 1.0, is 7.0")}  # fmt: skip
    for name, (value, message) in other.items():
        changed = {"time_limit": 5, **OPTIONS, name: value}
        with pytest.raises(SettingError, match=message):
            compare(loaded, data(), tmp_path, densities=[0.5], methods=["wanda"], **changed)
    fewer = replace(data(), calibration=data().calibration[:-1])
    options = {"time_limit": 5, **OPTIONS}
    with pytest.raises(SettingError, match="calibration was"):
        compare(loaded, fewer, tmp_path, densities=[0.4], methods=["wanda"], **options)
    assert (tmp_path / "baselines.csv").read_bytes() == before


def test_nothing_of_the_warm_up_stays(tmp_path):
    """What is measured as dense is dense, and a one-shot mask is that of the method alone."""
    loaded = tiny_loaded()
    table = compare(loaded, data(), tmp_path, densities=[0.5], methods=["wanda"], **OPTIONS)
    alone = evaluate(tiny_loaded().model, data().evaluation["text"], progress=False)
    assert table["loss"][0] == pytest.approx(alone.loss, rel=1e-6)
    again = tiny_loaded()
    layers = prunable_layers(again.model)
    prune_once("wanda", again.model, layers, data().calibration, 0.5, progress=False)
    found = evaluate(again.model, data().evaluation["text"], progress=False)
    assert table["loss"][1] == pytest.approx(found.loss, rel=1e-6)
