"""The training script on a few images: it learns, and a stopped run ends where a whole one does."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from transformers import DeiTConfig

from experiments.scripts import train_fashion
from icbs.data.loading import fashion_samples
from icbs.errors import DataError
from icbs.models.loading import load_model
from icbs.models.mlp import MlpConfig
from tests.icbs.factories import write

SMALL = {
    "garment-mlp": MlpConfig(hidden_sizes=(16,), dropout=0.1, num_labels=10),
    "vit-fashion": DeiTConfig(
        image_size=28, patch_size=7, num_channels=1, hidden_size=16, num_hidden_layers=1,
        num_attention_heads=2, intermediate_size=16, num_labels=10,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_a_stopped_run_ends_with_the_same_weights(name, tmp_path, monkeypatch):
    data = str(write(tmp_path / "data"))
    recipe = replace(
        train_fashion.RECIPES[name], config=SMALL[name], epochs=4, whole_epochs=2, batch_size=5
    )
    if name == "garment-mlp":
        recipe = replace(recipe, whole_epochs=4)
    monkeypatch.setitem(train_fashion.RECIPES, name, recipe)
    whole = train_fashion.train(name, data, tmp_path / "one", tmp_path / "whole", seed=3)

    epoch = train_fashion._epoch

    def stopping(*arguments):
        if arguments[4] == 2:
            raise KeyboardInterrupt
        return epoch(*arguments)

    monkeypatch.setattr(train_fashion, "_epoch", stopping)
    with pytest.raises(KeyboardInterrupt):
        train_fashion.train(name, data, tmp_path / "two", tmp_path / "resumed", seed=3)
    monkeypatch.setattr(train_fashion, "_epoch", epoch)
    assert train_fashion.train(name, data, tmp_path / "two", tmp_path / "resumed", seed=3) == whole
    one, two = (load_file(tmp_path / f / "model.safetensors") for f in ("whole", "resumed"))
    assert all(torch.equal(value, two[key]) for key, value in one.items())
    assert all(value.dtype == torch.float16 for value in one.values())
    loaded = load_model(str(tmp_path / "whole"))
    assert loaded.model.config.test_accuracy == whole


def test_the_part_that_comes_along_is_not_enough(tmp_path, monkeypatch):
    monkeypatch.setenv("ICBS_SYSTEM_DATA", "")
    with pytest.raises(DataError, match=r"all 60,000 images: run .* or --data hub"):
        train_fashion.train("garment-mlp", None, tmp_path, tmp_path / "out", seed=0)
    assert not (tmp_path / "out").exists()


def test_half_of_the_patches_and_both_class_tokens_stay():
    tokens = torch.arange(3 * 12.0).view(3, 12, 1).expand(3, 12, 4)
    found = train_fashion._drop_patches(None, None, tokens)
    assert found.shape == (3, 7, 4)
    assert torch.equal(found[:, :2], tokens[:, :2])
    for s in range(3):
        assert len(found[s, :, 0].unique()) == 7
        assert set(found[s, :, 0].tolist()) <= set(tokens[s, :, 0].tolist())


def test_the_models_learn(tmp_path, monkeypatch):
    """Twelve images are learnt by heart."""
    data = str(write(tmp_path / "data"))
    recipe = replace(
        train_fashion.RECIPES["garment-mlp"],
        config=MlpConfig(hidden_sizes=(64,), num_labels=10),
        epochs=60,
        whole_epochs=60,
        batch_size=4,
        learning_rate=0.01,
    )
    images = fashion_samples(data, part="calibration")
    torch.manual_seed(0)
    model = train_fashion.MlpForImageClassification(recipe.config)
    optimizer = torch.optim.AdamW(train_fashion._groups(model, 0.0), fused=True)
    losses = [
        train_fashion._epoch(model, optimizer, recipe, images, epoch, 0)
        for epoch in range(recipe.epochs)
    ]
    assert losses[-1] < 0.25 * losses[0]
