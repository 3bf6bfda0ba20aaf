"""Every family end to end on a tiny random model: load, prune, step, save, reload."""

import shutil

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.pytorch_utils import Conv1D

from icbs import Pruner
from icbs.blocks.capture import Forward, capture, input_norms
from icbs.blocks.gradients import LayerGradients
from icbs.data.samples import Samples, masked_token, next_token
from icbs.errors import ModelError
from icbs.evaluation.losses import sample_losses
from icbs.evaluation.quality import evaluate
from icbs.models.loading import load_model
from icbs.models.mlp import MlpConfig
from icbs.models.prunable import layer_weight, prunable_layers
from icbs.models.saving import save_model
from tests.icbs.factories import FEED, TEXT
from tests.icbs_fixtures import BestOfSort

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]

IMAGE = {"image_size": 8, "patch_size": 4, "num_channels": 1, "num_labels": 5, **TEXT}
# OPT pads with token 1 and GPT-2 ends with a token beyond a small vocabulary unless told otherwise.
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}

# family: architecture, configuration, prunable layers of one block
FAMILIES = {
    "llama": ("LlamaForCausalLM", {**TEXT, **FEED, "num_key_value_heads": 1}, 7),
    "mistral": ("MistralForCausalLM", {**TEXT, **FEED, "num_key_value_heads": 1}, 7),
    "gpt_neox": ("GPTNeoXForCausalLM", {**TEXT, **FEED}, 4),
    "opt": ("OPTForCausalLM", {**TEXT, "ffn_dim": 24, "max_position_embeddings": 32}, 6),
    "gpt2": ("GPT2LMHeadModel", {"vocab_size": 41, "n_embd": 16, "n_layer": 2, "n_head": 2}, 4),
    "bert": ("BertForMaskedLM", {**TEXT, **FEED}, 6),
    "bert-classes": ("BertForSequenceClassification", {**TEXT, **FEED, "num_labels": 3}, 6),
    "deit": ("DeiTForImageClassification", {**IMAGE, "intermediate_size": 24}, 6),
    "deit-teacher": (
        "DeiTForImageClassificationWithTeacher", {**IMAGE, "intermediate_size": 24}, 6,
    ),
    "vit": ("ViTForImageClassification", {**IMAGE, "intermediate_size": 24}, 6),
    "mlp": (
        "MlpForImageClassification",
        {"image_size": 8, "hidden_sizes": [20, 12], "num_labels": 5},
        1,
    ),
}  # fmt: skip


def tiny(family):
    """A random model, with weights large enough that every gradient is far from 0."""
    architecture, options, _ = FAMILIES[family]
    torch.manual_seed(0)
    if family == "mlp":
        config = MlpConfig(**options)
        model = transformers.AutoModelForImageClassification.from_config(config)
    else:
        kind = getattr(transformers, architecture)
        special = {} if "image_size" in options else SPECIAL
        model = kind(kind.config_class(**options, **special))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(0, 0.3)
    return model.eval()


def samples_for(family, count=6, padded=False):
    rng = np.random.default_rng(3)
    if "image_size" in FAMILIES[family][1]:
        images = torch.from_numpy(rng.normal(size=(count, 1, 8, 8)).astype(np.float32))
        return Samples(images, torch.from_numpy(rng.integers(0, 5, count)))
    tokens = torch.from_numpy(rng.integers(4, 41, (count, 9)))
    mask = None
    if padded:
        mask = torch.arange(9)[None] < torch.from_numpy(rng.integers(4, 10, count))[:, None]
        tokens = tokens.masked_fill(~mask, 0)
    if family == "bert":
        return masked_token(tokens, 3, share=0.3, mask=mask)
    if family == "bert-classes":
        return Samples(tokens, torch.from_numpy(rng.integers(0, 3, count)), mask)
    return next_token(tokens, mask)


def alone(samples, s):
    """One sample without its padding."""
    one = samples[s : s + 1]
    if one.mask is None:
        return one
    real = int(one.mask.sum())
    targets = one.targets if one.targets.ndim == 1 else one.targets[:, :real]
    return Samples(one.inputs[:, :real], targets)


@pytest.fixture
def saved(tmp_path):
    def save(family):
        tiny(family).save_pretrained(tmp_path)
        if "image_size" not in FAMILIES[family][1]:
            words = {f"w{i}": i for i in range(41)}
            raw = Tokenizer(models.WordLevel(words, unk_token="w0"))
            raw.pre_tokenizer = pre_tokenizers.Whitespace()
            PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="w0").save_pretrained(tmp_path)
        return tmp_path

    return save


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("family", FAMILIES)
def test_load_prune_step_save_reload(family, device, saved, tmp_path):
    loaded = load_model(str(saved(family)), device=device)
    assert type(loaded.model).__name__ == FAMILIES[family][0]
    samples = samples_for(family)
    dense = evaluate(loaded.model, samples, progress=False)
    run = Pruner(
        loaded, samples, solver=BestOfSort(), density=0.5, block_size=12, batch_size=3,
        heldout=samples_for(family, count=3), fixed_kept=0.0, fixed_pruned=0.0, progress=False,
    )  # fmt: skip
    run.initialise()
    record = run.step()
    assert len(record.layers) == len(run.modules)
    for name, layer in run.layers.items():
        zero = layer_weight(run.modules[name]) == 0
        assert torch.equal(zero.reshape(-1), layer.pruned)
        assert int(zero.sum()) == layer.size - round(0.5 * layer.size)
    pruned = evaluate(loaded.model, samples, progress=False)
    assert pruned.loss != dense.loss
    loaded.model.save_pretrained(tmp_path / "pruned")
    if loaded.tokenizer is not None:
        loaded.tokenizer.save_pretrained(tmp_path / "pruned")
    again = load_model(str(tmp_path / "pruned"), device=device)
    assert again.task == loaded.task
    assert evaluate(again.model, samples, progress=False) == pruned


@pytest.mark.parametrize("family", FAMILIES)
def test_which_layers_can_be_pruned(family):
    """As many in each block as the architecture has; never a head or an embedding."""
    model = tiny(family)
    layers = prunable_layers(model)
    pooler = family == "bert-classes"
    assert len(layers) == 2 * FAMILIES[family][2] + pooler
    heads = ("lm_head", "embed_out", "classifier", "predictions", "embed")
    assert not any(word in name for name in layers for word in heads)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_equal_autograd_sample_by_sample(family, padded):
    model, samples = tiny(family), samples_for(family, padded=padded)
    layers = prunable_layers(model)
    losses, seen = capture(Forward(model, layers, samples), layers)
    weights = {name: layer.get_parameter("weight") for name, layer in layers.items()}
    for s in range(len(samples)):
        one = alone(samples, s)
        logits = model(**one.arguments(model)).logits
        loss = sample_losses(logits, one.targets)[0][0]
        torch.testing.assert_close(losses[s], loss.detach(), rtol=1e-4, atol=1e-5)
        expected = torch.autograd.grad(loss, list(weights.values()))
        for (name, layer), gradient in zip(layers.items(), expected, strict=True):
            gradient = gradient.T if isinstance(layer, Conv1D) else gradient
            found = LayerGradients(seen[name])
            torch.testing.assert_close(
                found.per_sample[s], gradient.reshape(-1), rtol=1e-3, atol=1e-5
            )
            # the position rows of a sample add up to its gradient
            weight = (found._lengths[s] / len(samples)).sqrt()
            rows = found.rows(torch.arange(gradient.numel()), "position").view(
                len(samples), -1, gradient.numel()
            )
            torch.testing.assert_close(
                rows[s].sum(0) / weight, gradient.reshape(-1), rtol=1e-3, atol=1e-5
            )


@pytest.mark.parametrize("family", [f for f in FAMILIES if "image_size" not in FAMILIES[f][1]])
def test_padding_never_counts(family):
    """Neither in the loss nor in the norms: both are those of the samples without padding."""
    model, samples = tiny(family), samples_for(family, padded=True)
    layers = prunable_layers(model)
    norms = input_norms(model, layers, samples, batch_size=4)
    squares = {name: torch.zeros_like(n) for name, n in norms.items()}
    loss, targets = 0.0, 0
    for s in range(len(samples)):
        one = alone(samples, s)
        for name, n in input_norms(model, layers, one).items():
            squares[name] += n**2
        quality = evaluate(model, one, progress=False)
        loss += quality.loss * quality.targets
        targets += quality.targets
    for name, n in norms.items():
        torch.testing.assert_close(n, squares[name].sqrt(), rtol=1e-4, atol=1e-5)
    found = evaluate(model, samples, batch_size=4, progress=False)
    assert found.targets == targets
    assert found.loss == pytest.approx(loss / targets, rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_before_the_chosen_ones_run_once(family):
    """The kept hidden states change nothing but the time."""
    model, samples = tiny(family), samples_for(family, padded=True)
    last = list(prunable_layers(model))[-1]
    layers = {last: prunable_layers(model)[last]}
    first = next(iter(prunable_layers(model).values()))
    runs = []
    first.register_forward_hook(lambda *_: runs.append(1))
    forward = Forward(model, layers, samples)
    one, two = forward.losses(), forward.losses()
    assert torch.equal(one, two)
    assert torch.equal(one, Forward(model, prunable_layers(model), samples).losses())
    # a pooler lies outside the stack; the perceptron's blocks are the layers that carry the hook
    assert len(runs) == (3 if family in ("bert-classes", "mlp") else 2)


@settings(max_examples=30)
@given(outs=st.integers(1, 5), ins=st.integers(1, 5), data=st.data(), transposed=st.booleans())
def test_writing_one_weight_changes_that_entry_only(outs, ins, data, transposed):
    layer = Conv1D(outs, ins) if transposed else torch.nn.Linear(ins, outs)
    with torch.no_grad():
        layer.weight.normal_()
    o, i = data.draw(st.integers(0, outs - 1)), data.draw(st.integers(0, ins - 1))
    before, x = layer.weight.detach().clone(), torch.eye(ins)
    outputs, version = layer(x).detach(), layer.weight._version
    assert layer_weight(layer).shape == (outs, ins)
    layer_weight(layer)[o, i] = 7.0
    expected = before.clone()
    expected[(i, o) if transposed else (o, i)] = 7.0
    assert torch.equal(layer.weight, expected)
    # only what input i does to output o is different, and the kept prefix notices
    changed = (layer(x) != outputs).nonzero().tolist()
    assert changed in ([[i, o]], [])
    assert layer.weight._version > version


@pytest.mark.parametrize("device_map", ["cpu", "auto", {"": "cpu"}])
@pytest.mark.parametrize("family", ["llama", "gpt2", "vit"])
def test_device_map(family, device_map, saved):
    """A model that accelerate spread is pruned as any other, here over one device."""
    folder, samples = str(saved(family)), samples_for(family)
    masks = []
    for loaded in (load_model(folder), load_model(folder, device_map=device_map)):
        run = Pruner(
            loaded, samples, solver=BestOfSort(), block_size=12, batch_size=3, heldout=samples,
            fixed_kept=0.0, fixed_pruned=0.0, progress=False,
        )  # fmt: skip
        run.step()
        masks.append({name: layer.pruned.cpu() for name, layer in run.layers.items()})
    assert masks[0].keys() == masks[1].keys()
    if not torch.cuda.is_available():
        assert all(torch.equal(mask, masks[1][name]) for name, mask in masks[0].items())


def test_device_map_that_leaves_layers_on_disk(saved, tmp_path):
    folder = str(saved("llama"))
    places = {"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk"}
    places |= {"model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"}
    with pytest.raises(ModelError, match=r"model\.layers\.1\..* was left on disk"):
        load_model(folder, device_map=places)


def test_hub_id(saved, tmp_path, monkeypatch):
    """A hub id takes the same path: here from the hub's cache, with nothing to reach."""
    commit, home = "0123456789abcdef0123456789abcdef01234567", tmp_path / "hub"
    place = home / "models--owner--tiny"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(commit)
    folder = saved("llama")
    shutil.copytree(
        folder, place / "snapshots" / commit, ignore=shutil.ignore_patterns("hub", "pruned")
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (place / "snapshots" / commit / "preprocessor_config.json").write_text("{}")
    loaded = load_model("owner/tiny", device_map="auto")
    assert (loaded.revision, loaded.note) == (commit, "hub")
    assert loaded.warnings == ()
    save_model(loaded, tmp_path / "saved")
    assert (tmp_path / "saved" / "preprocessor_config.json").read_text() == "{}"
    samples = samples_for("llama")
    if not torch.cuda.is_available():
        assert evaluate(loaded.model, samples, progress=False) == evaluate(
            load_model(str(folder)).model, samples, progress=False
        )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("family", ["llama", "gpt2", "bert", "deit", "mlp"])
def test_bfloat16(family, device, saved):
    loaded = load_model(str(saved(family)), device=device, dtype=torch.bfloat16)
    samples = samples_for(family)
    run = Pruner(
        loaded, samples, solver=BestOfSort(), block_size=12, batch_size=3, heldout=samples,
        fixed_kept=0.0, fixed_pruned=0.0, progress=False,
    )  # fmt: skip
    record = run.step()
    assert np.isfinite(record.heldout_after)
    assert all(p.dtype == torch.bfloat16 for p in loaded.model.parameters())
    assert all(layer_weight(layer).device.type == device for layer in run.modules.values())
