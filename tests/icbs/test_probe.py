"""What no method can take is found by two short samples, before anything slow runs."""

from dataclasses import replace

import pytest
import torch
import transformers
from torch import nn
from transformers.modeling_outputs import CausalLMOutput

from icbs.blocks.capture import Forward, capture
from icbs.blocks.positions import real_rows
from icbs.blocks.probe import usable_layers
from icbs.data.samples import longest_window, masked_token, next_token, usual_length
from icbs.errors import DataError, DensityError, LayerError, ModelError
from icbs.evaluation.losses import sample_losses
from icbs.loop.pruner import Pruner
from icbs.models.loading import LoadedModel
from icbs.models.prunable import layer_weight, prunable_layers
from tests.icbs.factories import FEED, TEXT
from tests.icbs_fixtures import tiny_llama, tiny_loaded, tiny_samples, tiny_tokens

WORDS = {**TEXT, "vocab_size": 61}


class Toy(nn.Module):
    """Embedding, some layers, head; `run` says how the layers are used."""

    def __init__(self, run):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(61, 8)
        self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 8)
        self.head = nn.Linear(8, 61)
        self.run = run

    def get_output_embeddings(self):
        return self.head

    def forward(self, input_ids):
        return CausalLMOutput(logits=self.head(self.run(self, self.embed(input_ids))))


def twice(model, x):
    return model.one(torch.tanh(model.two(torch.tanh(model.two(x)))))


def by_weight(model, x):
    return model.one(x) @ model.two.weight


def time_first(model, x):
    return model.one(x) + model.two(x.transpose(0, 1)).transpose(0, 1)


def mixing(model, x):
    return model.one(x) + model.two(x + x.mean(0))


def no_influence(model, x):
    model.two(x)
    return model.one(x)


def shared_table(model, x):
    return model.one(x) + model.two(model.embed.weight[None, :1]).sum(1)


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (twice, "runs 2 times in a pass"),
        (by_weight, "never runs, or its weight is used without it"),
        (mixing, "mixes samples in its rows"),
        (no_influence, "has no influence on the loss"),
        (shared_table, "sees rows that cannot be told apart by sample"),
    ],
)
@pytest.mark.parametrize("length", [10, 40])
def test_layers_that_no_method_can_take(run, reason, length):
    model, samples = Toy(run), tiny_samples(length=length)
    found = usable_layers(model, "*", samples)
    assert list(found.layers) == ["one"]
    assert found.refused == {"two": reason}
    with pytest.raises(
        LayerError, match=f"none of the 1 chosen layers can be pruned: 'two' {reason}"
    ):
        usable_layers(model, "two", samples)
    # the rest is pruned, and what was left out is told
    loaded = LoadedModel(model, None, "toy", "random")
    run = Pruner(loaded, samples, block_size=8, batch_size=3, solver="greedy", progress=False)
    dense = model.two.weight.clone()
    run.step()
    assert torch.equal(model.two.weight, dense)
    assert int((model.one.weight == 0).sum()) == 32
    assert run.coverage.share == 0.5
    (left,) = [part for part in run.coverage.left if part.reason == reason]
    assert (left.weights, left.example) == (64, "two.weight")
    assert "50.0% of the matrix weights stay dense" in run.coverage.describe()


def test_a_model_that_would_be_pruned_in_name_only():
    """ALBERT: one block run again and again; a layer outside it is not a pruned model."""
    config = transformers.AlbertConfig(**WORDS, **FEED, embedding_size=8)
    model = transformers.AlbertForMaskedLM(config)
    samples = masked_token(tiny_tokens(), 3, share=0.3)
    with pytest.raises(LayerError, match=r"only .*% of the weights .* runs 2 times in a pass"):
        usable_layers(model, "*", samples)
    assert list(usable_layers(model, "*mapping_in", samples).layers)


def test_a_model_most_of_which_is_no_linear_layer():
    """Unless its layers are chosen by name, as is said."""
    model = transformers.XLNetLMHeadModel(
        transformers.XLNetConfig(vocab_size=61, d_model=16, n_layer=2, n_head=2, d_inner=24)
    )
    with pytest.raises(LayerError, match=r"most of the rest is stacks of matrices in a layout"):
        usable_layers(model, "*", tiny_samples())
    assert usable_layers(model, "*layer_1", tiny_samples()).layers


@pytest.mark.parametrize("length", [3, 10, 40])
def test_positions_before_samples(length):
    """Each sample's gradient is its own, also where there are as many samples as positions."""
    model, samples = Toy(time_first), tiny_samples(3, length=length)
    layers = usable_layers(model, "*", samples).layers
    assert list(layers) == ["one", "two"]
    _, seen = capture(Forward(model, layers, samples), layers)
    model.requires_grad_(True)
    again, _ = sample_losses(model(samples.inputs).logits, samples.targets)
    for s in range(3):
        (expected,) = torch.autograd.grad(again[s], [model.two.weight], retain_graph=True)
        torch.testing.assert_close(
            seen["two"].gradients[s].T @ seen["two"].activations[s], expected
        )
    mask = torch.ones(3, length, dtype=torch.int64)
    mask[1, length // 2 :] = 0
    rows, padded = [], replace(samples, mask=mask)
    model.two.register_forward_pre_hook(
        lambda module, args: rows.append(real_rows(module, args, padded, "two"))
    )
    with torch.no_grad():
        model(samples.inputs)
        assert torch.equal(rows[0], model.embed(samples.inputs[mask.bool()]))


def test_what_is_written_to_in_place_is_differentiated():
    def scaled(model, x):
        y = model.one(x)
        y /= 2.0
        return model.two(y)

    model, samples = Toy(scaled), tiny_samples()
    layers = usable_layers(model, "*", samples).layers
    assert list(layers) == ["one", "two"]


def test_mamba_is_pruned_but_for_its_time_step():
    config = transformers.MambaConfig(
        vocab_size=61, hidden_size=16, num_hidden_layers=2, state_size=4, time_step_rank=2
    )
    model = transformers.MambaForCausalLM(config)
    found = usable_layers(model, "*", tiny_samples())
    assert {name.rpartition(".")[2] for name in found.layers} == {"in_proj", "x_proj", "out_proj"}
    assert {name.rpartition(".")[2] for name in found.refused} == {"dt_proj"}


def test_whatever_a_model_raises_is_one_sentence():
    def broken(model, x):
        raise KeyError("bbox")

    with pytest.raises(
        ModelError, match=r"a Toy cannot be run on such samples \(KeyError: 'bbox'\)"
    ):
        usable_layers(Toy(broken), "*", tiny_samples())


def test_models_that_take_one_length_only():
    def picky(model, x):
        if x.shape[1] != 40:
            raise ValueError("40 tokens")
        return model.two(model.one(x))

    assert len(usable_layers(Toy(picky), "*", tiny_samples(length=40)).layers) == 2
    with pytest.raises(ModelError, match="40 tokens"):
        usable_layers(Toy(picky), "*", tiny_samples(length=20))


def test_a_density_that_the_model_has_already():
    loaded = tiny_loaded()
    for layer in prunable_layers(loaded.model).values():
        weight = layer_weight(layer)
        weight[:, : weight.shape[1] // 2] = 0
    options = {"solver": "greedy", "batch_size": 3, "block_size": 8, "progress": False}
    with pytest.raises(
        DensityError, match=r"density is 0\.5 .* and only 0\.5 of the chosen layers"
    ):
        Pruner(loaded, tiny_samples(), density=0.5, **options)
    Pruner(loaded, tiny_samples(), density=0.4, **options)


@pytest.mark.parametrize(
    ("model", "longest"),
    [
        (lambda: tiny_llama(), 64),
        # positions start after that of the padding
        (lambda: transformers.RobertaForMaskedLM(transformers.RobertaConfig(**WORDS, **FEED)), 30),
        (lambda: transformers.MPNetForMaskedLM(transformers.MPNetConfig(**WORDS, **FEED)), 30),
        (
            lambda: transformers.MptForCausalLM(
                transformers.MptConfig(d_model=16, n_heads=2, n_layers=1, max_seq_len=20,
                                       vocab_size=61)
            ),
            20,
        ),
        (lambda: Toy(twice), None),
    ],
)  # fmt: skip
def test_longest_window(model, longest):
    model = model()
    assert longest_window(model) == longest
    assert usual_length(model, None, 128) == (longest or 128)
    assert usual_length(model, 77, 128) == 77
    if longest is None:
        return
    tokens = tiny_tokens(2, longest + 1).clamp(min=4)
    with pytest.raises(
        DataError, match=f"have {longest + 1} tokens and the model has {longest} pos"
    ):
        next_token(tokens).check(model)
    samples = next_token(tokens[:, :longest])
    samples.check(model)
    assert model(**samples.arguments(model)).logits.shape[1] == longest
