"""A pruned model is saved in the names, types and files of the one it came from."""

import json

import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, ViTImageProcessorPil

from experiments.scripts.families import kinds, tiny_model
from icbs.baselines.oneshot import prune_once
from icbs.blocks.probe import usable_layers
from icbs.errors import ModelError
from icbs.evaluation.quality import evaluate
from icbs.models.loading import load_model
from icbs.models.prunable import layer_weight, prunable_layers
from icbs.models.saving import round_weights, save_model
from tests.icbs.factories import FAMILIES, FEED, TEXT, moe, samples_of, save_tokenizer
from tests.icbs_fixtures import tiny_llama, tiny_samples


def prune_half(loaded, samples):
    layers = usable_layers(loaded.model, "*", samples).layers
    return prune_once("wanda", loaded.model, layers, samples, 0.5, progress=False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shard", ["3KB", "5GB"])
def test_type_shards_and_names(folder, tmp_path, dtype, shard):
    tiny_llama().to(dtype).save_pretrained(folder, max_shard_size=shard)
    if shard == "3KB":
        (folder / "model.safetensors").unlink()
    loaded = load_model(str(folder))
    assert loaded.dtype == dtype
    assert next(loaded.model.parameters()).dtype == torch.float32
    prune_half(loaded, tiny_samples())
    save_model(loaded, tmp_path / "new")
    old, new = ({p.name: p for p in f.glob("*.safetensors")} for f in (folder, tmp_path / "new"))
    assert old.keys() == new.keys()
    for name, path in old.items():
        before, after = load_file(path), load_file(new[name])
        assert before.keys() == after.keys()
        for key, tensor in before.items():
            assert after[key].dtype == dtype
            # the trained value or 0, bit for bit
            assert ((after[key] == tensor) | (after[key] == 0)).all()
    for name in ("config.json", "model.safetensors.index.json", "tokenizer.json"):
        if (folder / name).exists():
            assert (tmp_path / "new" / name).read_bytes() == (folder / name).read_bytes()
    again = load_model(str(tmp_path / "new"))
    samples = tiny_samples()
    found = [evaluate(one.model, samples, progress=False) for one in (loaded, again)]
    assert found[0] == found[1]


def test_weights_that_moved_are_rounded_before_they_are_measured(folder, tmp_path):
    tiny_llama().to(torch.bfloat16).save_pretrained(folder)
    loaded = load_model(str(folder))
    layers = prunable_layers(loaded.model)
    with torch.no_grad():
        for layer in layers.values():
            layer_weight(layer).mul_(1.001)
    round_weights(loaded, {name: layer_weight(layer) for name, layer in layers.items()})
    save_model(loaded, tmp_path / "new")
    again = load_model(str(tmp_path / "new"))
    for key, tensor in again.model.state_dict().items():
        assert torch.equal(tensor, loaded.model.state_dict()[key])


def test_values_that_the_computation_rounds_are_saved_as_they_were(folder, tmp_path):
    loaded = load_model(str(folder), dtype=torch.bfloat16)
    masks = prune_half(loaded, tiny_samples())
    save_model(loaded, tmp_path / "new")
    before, after = (load_file(f / "model.safetensors") for f in (folder, tmp_path / "new"))
    for key, tensor in before.items():
        mask = masks.get(key.removesuffix(".weight"))
        assert torch.equal(after[key], tensor if mask is None else tensor * mask)


@pytest.mark.parametrize("family", FAMILIES)
def test_experts_are_saved_and_loaded(family, tmp_path):
    """Exactly half of every stack is 0 after the way through the checkpoint's own names."""
    moe(family).to(torch.bfloat16).save_pretrained(tmp_path / "old")
    save_tokenizer(tmp_path / "old")
    loaded = load_model(str(tmp_path / "old"))
    samples = samples_of()
    masks = prune_half(loaded, samples)
    save_model(loaded, tmp_path / "new")
    old, new = (load_file(tmp_path / f / "model.safetensors") for f in ("old", "new"))
    assert {k: (v.dtype, v.shape) for k, v in old.items()} == {
        k: (v.dtype, v.shape) for k, v in new.items()
    }
    again = load_model(str(tmp_path / "new"))
    layers = prunable_layers(again.model)
    for name, mask in masks.items():
        assert torch.equal(layer_weight(layers[name]) != 0, mask)
    found = [evaluate(one.model, samples, progress=False) for one in (loaded, again)]
    assert found[0] == found[1]
    # and transformers on its own, without any of our code
    alone = AutoModelForCausalLM.from_pretrained(tmp_path / "new", dtype=torch.float32)
    assert evaluate(alone, samples, progress=False).loss == pytest.approx(found[0].loss, rel=1e-5)


def test_side_files_come_along(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    (kind,) = (kind for kind in kinds() if kind.id == "vit-image")
    tiny_model(kind).save_pretrained(old)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(old)
    (old / "LICENSE").write_text("free")
    (old / "templates").mkdir()
    (old / "templates" / "chat.jinja").write_text("{{ x }}")
    (old / "tf_model.h5").write_bytes(b"weights in another format, which are not pruned")
    (old / ".git").mkdir()
    (old / ".git" / "config").write_text("")
    loaded = load_model(str(old))
    save_model(loaded, new)
    names = {str(path.relative_to(new)) for path in new.rglob("*") if path.is_file()}
    assert names == {
        "LICENSE", "config.json", "model.safetensors", "preprocessor_config.json",
        "templates/chat.jinja",
    }  # fmt: skip
    made = transformers.AutoImageProcessor.from_pretrained(new, backend="pil")
    ask = transformers.pipeline("image-classification", model=str(new), image_processor=made)
    assert len(ask(Image.new("RGB", (50, 40)))) == 5


def test_tensors_that_the_model_does_not_use_are_said_and_kept(tmp_path):
    config = transformers.BertConfig(**TEXT, **FEED)
    transformers.BertForPreTraining(config).save_pretrained(tmp_path / "old")
    save_tokenizer(tmp_path / "old")
    loaded = load_model(str(tmp_path / "old"))
    (warning,) = loaded.warnings
    assert warning.startswith(
        "4 tensors of its files are no part of a BertForMaskedLM, bert.pooler.dense.bias among them"
    )
    save_model(loaded, tmp_path / "new")
    old, new = (load_file(tmp_path / f / "model.safetensors") for f in ("old", "new"))
    assert old.keys() == new.keys()
    assert all(torch.equal(tensor, new[key]) for key, tensor in old.items())


def test_names_of_another_time(tmp_path):
    """Checkpoints whose names transformers maps to new ones keep their type at least."""
    config = transformers.BertConfig(**TEXT, **FEED)
    transformers.BertForMaskedLM(config).to(torch.float16).save_pretrained(tmp_path / "old")
    save_tokenizer(tmp_path / "old")
    path = tmp_path / "old" / "model.safetensors"
    renamed = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for key, tensor in load_file(path).items()
    }
    save_file(renamed, path, metadata={"format": "pt"})
    loaded = load_model(str(tmp_path / "old"))
    save_model(loaded, tmp_path / "new")
    new = load_file(tmp_path / "new" / "model.safetensors")
    assert all(tensor.dtype == torch.float16 for tensor in new.values())
    assert json.loads((tmp_path / "new" / "config.json").read_text())["dtype"] == "float16"
    alone = AutoModelForMaskedLM.from_pretrained(tmp_path / "new", dtype=torch.float32)
    for key, tensor in loaded.model.state_dict().items():
        assert torch.equal(alone.state_dict()[key], tensor)


def test_our_own_class_says_what_it_needs(tmp_path):
    loaded = load_model("garment-mlp")
    note = save_model(loaded, tmp_path / "new")
    folder = tmp_path / "new"
    assert note == f"transformers loads {folder} after 'import icbs.models.mlp' (see its README.md)"
    assert "import icbs.models.mlp" in (tmp_path / "new" / "README.md").read_text()
    assert save_model(load_model("vit-fashion"), tmp_path / "vit") is None


@pytest.mark.parametrize("method", ["fp8", "mxfp4", "bitsandbytes", None])
def test_quantised_models_are_refused_in_a_sentence(folder, method):
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": method} if method else {"bits": 4}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=rf"is quantised \({method or 'quantization_config'} in"):
        load_model(str(folder))
    config["quantization_config"] = None
    (folder / "config.json").write_text(json.dumps(config))
    load_model(str(folder))


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_quantised_tensors_without_a_word_in_the_configuration(folder, dtype):
    weights = load_file(folder / "model.safetensors")
    key = "model.layers.1.mlp.up_proj.weight"
    weights[key] = weights[key].to(dtype)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=rf"is quantised: {key} is stored as [IUF]8"):
        load_model(str(folder))


def test_the_folder_of_a_run_is_a_model(folder, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    loaded = load_model(str(folder))
    save_model(loaded, run / "model")
    assert load_model(str(run)).revision == loaded.revision
