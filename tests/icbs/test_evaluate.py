"""`icbs evaluate` and what it measures, against transformers' own loss."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, BertConfig, BertForMaskedLM

from icbs.data.loading import load_samples, token_windows
from icbs.data.samples import IGNORED
from icbs.errors import DataError, SettingError
from icbs.evaluation.quality import evaluate
from icbs.models.coverage import densities
from icbs.models.loading import load_model
from icbs.models.mlp import MlpConfig, MlpForImageClassification
from icbs.models.prunable import layer_weight, prunable_layers
from tests.icbs.factories import WORDS, images_and_labels, save_tokenizer, write
from tests.icbs_fixtures import tiny_llama, tiny_samples


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    tiny_llama().save_pretrained(folder)
    save_tokenizer(folder)
    rng = np.random.default_rng(0)
    paragraphs = (" ".join(rng.choice(WORDS, 30)) for _ in range(60))
    (folder / "text.txt").write_text("\n\n".join(paragraphs))
    return folder


@pytest.fixture
def icbs_evaluate(icbs):
    """Runs `icbs evaluate`; returns exit status, stdout, stderr."""
    return partial(icbs, "evaluate")


def test_perplexity_is_that_of_transformers(icbs_evaluate, llama):
    text = llama / "text.txt"
    options = ("--length", 20, "--count", 7, "--batch-size", 3)
    status, out, err = icbs_evaluate(llama, "--data", f"{text},pydoc", *options, "--json")
    assert status == 0
    assert f"Evaluating on {text}" in err
    answer = json.loads(out)
    assert answer["task"] == "causal-lm"
    assert answer["density"] == 1.0
    assert [result["data"] for result in answer["results"]] == [str(text), "pydoc"]
    model = AutoModelForCausalLM.from_pretrained(llama)
    tokenizer = load_model(str(llama)).tokenizer
    for result in answer["results"]:
        windows = token_windows(tokenizer, result["data"], part="evaluation", count=7, length=20)
        loss = model(input_ids=windows, labels=windows).loss.item()
        assert result["loss"] == pytest.approx(loss, rel=1e-5)
        assert result["perplexity"] == pytest.approx(np.exp(loss), rel=1e-4)
        assert (result["samples"], result["targets"]) == (7, 7 * 19)
    status, out, _ = icbs_evaluate(llama, "--data", text, *options)
    assert status == 0
    assert f"{answer['results'][0]['perplexity']:.2f}" in out


def test_all_windows_of_a_part(llama):
    loaded, text = load_model(str(llama)), str(llama / "text.txt")
    whole = load_samples(loaded, text, part="evaluation", count=None, length=20)
    # twelve paragraphs of thirty words are held out
    assert whole.inputs.shape == (12 * 30 // 20, 20)
    later = load_samples(loaded, text, part="evaluation", count=None, length=20, start=11)
    assert torch.equal(whole.inputs[11:], later.inputs)
    with pytest.raises(DataError, match="has 360 tokens for evaluation, 380 are needed"):
        load_samples(loaded, text, part="evaluation", count=None, length=20, start=18)


def test_accuracy_on_images(icbs_evaluate, tmp_path):
    folder, data = tmp_path / "model", write(tmp_path / "data")
    torch.manual_seed(0)
    model = MlpForImageClassification(MlpConfig(hidden_sizes=(6,), num_labels=10)).eval()
    model.save_pretrained(folder)
    status, out, _ = icbs_evaluate(folder, "--data", data, "--batch-size", 5, "--json")
    assert status == 0
    (result,) = json.loads(out)["results"]
    images, labels = images_and_labels(seed=1)
    pixels = (torch.from_numpy(images)[:, None].float() / 255 - 0.2860) / 0.3530
    found = model(pixel_values=pixels).logits.argmax(1)
    assert result["accuracy"] == float((found == torch.from_numpy(labels)).float().mean())
    assert result["targets"] == 12
    assert result["perplexity"] is None
    assert (
        json.loads(icbs_evaluate(folder, "--data", data, "--count", 4, "--json")[1])["results"][0][
            "samples"
        ]
        == 4
    )


def test_masked_language_models(icbs_evaluate, llama, tmp_path):
    """Only hidden tokens count."""
    config = BertConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=32,
    )  # fmt: skip
    BertForMaskedLM(config).save_pretrained(tmp_path)
    save_tokenizer(tmp_path, mask_token="<mask>")
    arguments = ("--data", llama / "text.txt", "--length", 20, "--count", 7)
    status, out, _ = icbs_evaluate(tmp_path, *arguments, "--json")
    assert status == 0
    (result,) = json.loads(out)["results"]
    assert result["targets"] == 7 * 3
    save_tokenizer(tmp_path)
    status, _, err = icbs_evaluate(tmp_path, *arguments)
    assert status == 1
    assert "has no mask token: the tokenizer belongs to another model" in err


def test_density_counts_prunable_weights_only():
    model = tiny_llama()
    with torch.no_grad():
        model.model.embed_tokens.weight.zero_()
        layers = prunable_layers(model)
        layer_weight(layers["model.layers.0.mlp.up_proj"]).zero_()
    total = sum(layer.weight.numel() for layer in layers.values())
    zeros = layers["model.layers.0.mlp.up_proj"].weight.numel()
    assert densities(model).layers == (total - zeros) / total


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("--dtype", "int8"), 2, "--dtype is 'int8', expected float32, bfloat16 or float16"),
        (("--device", "tpu9"), 2, "device is 'tpu9'"),
        (("--data", ","), 2, "--data is ','"),
        (("--batch-size", "0"), 2, "size is 0"),
        (("--data", "nowhere.txt"), 1, "'nowhere.txt' cannot be read"),
        (("--data", "pydoc", "--count", "0"), 1, "at least one window"),
        (("--data", "pydoc", "--length", "99"), 1, "has 64 positions: cut shorter windows"),
        (("--data", "pydoc", "--count", "999999"), 1, "ask for fewer or shorter windows"),
    ],
)
def test_refusals(icbs_evaluate, llama, arguments, status, words):
    base = () if "--data" in arguments else ("--data", "pydoc")
    base += () if "--length" in arguments else ("--length", "16")
    found, out, err = icbs_evaluate(llama, *base, *arguments)
    assert (found, out) == (status, "")
    assert words in " ".join(err.replace("│", " ").split())


def test_padding_moves_nothing():
    """A batch padded to any width has the loss of its samples."""
    model, samples = tiny_llama(), tiny_samples()
    longer = torch.nn.functional.pad
    mask = torch.ones_like(samples.inputs).bool()
    padded = type(samples)(
        longer(samples.inputs, (0, 5), value=7),
        longer(samples.targets, (0, 5), value=IGNORED),
        longer(mask, (0, 5)),
    )
    one, two = (evaluate(model, s, progress=False) for s in (samples, padded))
    assert one.targets == two.targets
    assert one.loss == pytest.approx(two.loss, rel=1e-6)
    with pytest.raises(SettingError, match="batch_size is -1"):
        evaluate(model, samples, batch_size=-1, progress=False)
