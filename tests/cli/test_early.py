"""Mistakes that need no weights to be seen are told before any are read."""

import json

import pytest
import torch

from experiments.figures.methods import ONE_SHOT
from experiments.pruning.comparing import compare
from icbs.baselines.oneshot import BASELINES, baseline_settings, prune_once, sparsegpt
from icbs.errors import DensityError, LayerError, SettingError
from icbs.evaluation.quality import worse_than_guessing
from icbs.models.loading import load_model, skeleton
from icbs.models.prunable import layer_weight, prunable_layers
from tests.experiments.factories import OPTIONS, data
from tests.icbs.factories import moe, samples_of
from tests.icbs_fixtures import tiny_llama, tiny_loaded, tiny_samples


@pytest.fixture
def unread(monkeypatch):
    """Reading weights is a failure."""

    def read(*_, **__):
        raise AssertionError("weights were read")

    monkeypatch.setattr("icbs.models.loading.load_model", read)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("prune", "--density", 50), "density is 50.0; choose a value between 0 and 1"),
        (("prune", "--solver", "relaxtion"), "solver 'relaxtion' is not registered"),
        (
            ("prune", "--layers", "*.mpl.*"),
            "--layers '*.mpl.*' match none of the layers; close names: model.",
        ),
        (("prune", "--heldout", 0), "--heldout is 0, expected at least one window"),
        (("prune", "--count", 0), "--count is 0"),
        (("prune", "--evaluation", 0), "--evaluation is 0"),
        (("prune", "--batch-size", 0), "--batch-size is 0; choose a whole number from 1"),
        (("prune", "--length", 65), "--length is 65 and the model has 64 positions"),
        (("prune", "--data", "nowhere.txt"), "'nowhere.txt' cannot be read"),
        (("prune", "--init", "wonda"), "init is 'wonda'"),
        (("prune", "--dtype", "float8"), "--dtype is 'float8'"),
        (("prune", "--device", "tpu9"), "device is 'tpu9'"),
        (
            ("prune", "--set", "pattern=5:7", "--density", 0.71429),
            "pattern 5:7 fits no layer",
        ),
        (("prune", "--set", "fisher=exakt"), "fisher is 'exakt'"),
        (("baselines", "--densities", "50"), "density is 50.0"),
        (("baselines", "--methods", "wonda"), "method is 'wonda', expected some of magnitude"),
        (("baselines", "--layers", "*.mpl.*"), "match none of the layers"),
        (("baselines", "--set", "pattern=2:4"), "density is 0.7, and pattern 2:4 keeps 0.5"),
        (("evaluate", "--batch-size", 0), "--batch-size is 0; choose a whole number from 1"),
        (("evaluate", "--count", 0), "--count is 0"),
        (("evaluate", "--length", 65), "--length is 65 and the model has 64 positions"),
        (("evaluate", "--data", "nowhere.txt"), "'nowhere.txt' cannot be read"),
    ],
)
def test_refused_before_weights_are_read(icbs, model_folder, unread, tmp_path, command, words):
    name, *options = command
    where = () if name == "evaluate" else ("--out", tmp_path / "out")
    status, _, err = icbs(name, model_folder, *where, *options)
    assert status in (1, 2)
    assert words in " ".join(err.split())
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_a_run_is_seen_first(icbs, unread, model_folder, tmp_path):
    (tmp_path / "checkpoint.safetensors").write_bytes(b"")
    status, _, err = icbs("prune", model_folder, "--out", tmp_path)
    assert status == 1
    assert "holds a pruning run: pass --resume" in err


@pytest.mark.parametrize("name", ["garment-mlp", "vit-fashion"])
def test_the_skeleton_has_the_layers_of_the_model(name):
    bare, task = skeleton(name)
    loaded = load_model(name)
    assert task == loaded.task
    assert all(parameter.is_meta for parameter in bare.parameters())
    assert list(prunable_layers(bare)) == list(prunable_layers(loaded.model))


def test_evaluate_takes_a_run_and_the_models_own_window(icbs, model_folder, tmp_path):
    out = tmp_path / "run"
    text = model_folder / "text.txt"
    status, _, err = icbs(
        "prune", model_folder, "--out", out, "--data", text, "--count", 6, "--heldout", 3,
        "--batch-size", 3, "--steps", 0, "--evaluation", 1, "--block-size", 32,
    )  # fmt: skip
    assert status == 0, err
    # said before anything started
    assert err.index("of the matrix weights are pruned") < err.index("Evaluating on")
    summary = json.loads((out / "summary.json").read_text())
    assert summary["density"] == 0.5
    assert summary["model_density"] > 0.5
    assert summary["coverage"]["share"] == 1.0
    assert summary["calibration"] == {"samples": 6, "length": 64, "tokens": 6 * 64}
    row = summary["quality"][-1]
    assert (row["split"], row["length"], row["targets"]) == ("evaluation", 64, 63)
    assert row["layer_density"] == 0.5
    status, answer, err = icbs("evaluate", out, "--data", text, "--count", 1, "--json")
    assert status == 0, err
    found = json.loads(answer)
    (result,) = found["results"]
    assert (result["length"], result["split"], result["targets"]) == (64, "evaluation", 63)
    assert result["loss"] == pytest.approx(row["loss"], rel=1e-5)
    assert (found["density"], found["sparsity"]) == (0.5, 0.5)
    assert found["model_density"] == summary["model_density"]
    # it is sparse already, and a random model is worse than guessing
    assert "the model is sparse already: 50.0% of its prunable weights are 0" in err
    assert "is worse than guessing (log 61 = 4.11)" in err
    # and cannot be pruned to what it is
    status, _, err = icbs(
        "prune", out, "--out", tmp_path / "again", "--data", text, "--count", 6, "--heldout", 3,
        "--batch-size", 3, "--density", 0.5, "--evaluation", 1,
    )  # fmt: skip
    assert status == 2, err
    assert "density is 0.5 (sparsity 0.5) and only 0.5 of the chosen layers' weights" in err


def test_worse_than_guessing():
    model = tiny_llama()
    assert worse_than_guessing(model, 4.1) is None
    assert "loss 4.12 is worse than guessing (log 61 = 4.11)" in worse_than_guessing(model, 4.12)
    classifier, _ = skeleton("garment-mlp")
    assert worse_than_guessing(classifier, 2.2) is None
    assert "log 10" in worse_than_guessing(classifier, 2.4)


def test_names_of_the_methods():
    assert tuple(BASELINES) == ONE_SHOT


@pytest.mark.parametrize("method", ["magnitude", "wanda", "gradient", "random", "sparsegpt"])
def test_a_pattern_holds_for_every_method(method):
    model = tiny_llama()
    layers = prunable_layers(model)
    prune_once(method, model, layers, tiny_samples(), 0.5, progress=False, pattern="2:4")
    for layer in layers.values():
        groups = (layer_weight(layer) != 0).reshape(-1, 4).sum(1)
        assert (groups == 2).all()


def test_a_pattern_holds_for_experts_that_nothing_reaches():
    model = moe("mixtral", num_local_experts=16, num_experts_per_tok=1)
    layers = prunable_layers(model)
    prune_once("sparsegpt", model, layers, samples_of(1), 0.5, progress=False, pattern="2:4")
    for layer in layers.values():
        assert ((layer_weight(layer) != 0).reshape(-1, 4).sum(1) == 2).all()


def test_a_group_holds_for_the_saliencies():
    assert baseline_settings("magnitude", 0.5, {}).group == "layer"
    assert baseline_settings("wanda", 0.5, {}).group == "output"
    assert baseline_settings("magnitude", 0.5, {"group": "input"}).group == "input"


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("sparsegpt", {"group": "input"}),
        ("cbs", {"group": "layer"}),
        ("cbs", {"pattern": "2:4"}),
    ],
)
def test_what_a_method_cannot_follow_is_refused(method, options):
    ((name, value),) = options.items()
    with pytest.raises(SettingError, match=f"{method} cannot follow {name}={value!r}: it "):
        baseline_settings(method, 0.5, options)


def test_sparsegpt_by_a_pattern_is_better_than_its_mask_alone():
    torch.manual_seed(0)
    weight, x = torch.randn(6, 24), torch.randn(200, 24) @ torch.randn(24, 24)
    gram = x.T @ x / len(x)
    found, mask = sparsegpt(weight, gram, 0.5, (2, 4))
    assert (mask.reshape(-1, 4).sum(1) == 2).all()
    assert not found[~mask].any()
    # no pattern is one group a row and block
    error, alone = (
        float((((w - weight) @ gram) * (w - weight)).sum()) for w in (found, weight * mask)
    )
    assert error < 0.8 * alone


def test_one_method_that_cannot_run_does_not_stop_the_table(tmp_path, monkeypatch):
    """CBS follows no pattern; the others do, and the reason is in the table."""
    options = {**OPTIONS, "pattern": "2:4"}
    methods = ["cbs", "wanda", "icbs"]
    loaded = tiny_loaded()
    table = compare(
        loaded, data(), tmp_path, densities=[0.5], methods=methods, steps=1, time_limit=5, **options
    )
    assert table["method"].tolist() == ["dense", "cbs", "wanda", "icbs", "icbs + repair"]
    refused = table[table["loss"].isna()]
    assert refused["method"].tolist() == ["cbs"]
    assert "cbs cannot follow pattern='2:4'" in refused["refused"].item()
    assert (table.loc[2:, "layer_density"] == 0.5).all()
    # what could not be run is not tried again
    monkeypatch.setattr("experiments.pruning.comparing.prune_once", None)
    more = compare(
        loaded, data(), tmp_path, densities=[0.5], methods=methods, steps=1, time_limit=5, **options
    )
    assert len(more) == len(table)


def test_too_large_for_cbs_is_a_row_too(tmp_path, monkeypatch):
    monkeypatch.setattr("icbs.baselines.surgeon.LARGEST", 10)
    table = compare(
        tiny_loaded(), data(), tmp_path, densities=[0.5], methods=["cbs", "wanda"], **OPTIONS
    )
    assert "weights are too many for cbs" in table["refused"].dropna().item()
    loaded = tiny_loaded()
    layers = prunable_layers(loaded.model)
    prune_once("wanda", loaded.model, layers, tiny_samples(), 0.5, progress=False)
    with pytest.raises(DensityError, match=r"only 0\.5 of the chosen"):
        prune_once("wanda", loaded.model, layers, tiny_samples(), 0.5, progress=False)
    with pytest.raises(LayerError, match="too many for cbs"):
        prune_once("cbs", loaded.model, layers, tiny_samples(), 0.1, progress=False)
