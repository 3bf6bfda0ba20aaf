import numpy as np
import pytest
import torch
from torch.nn import functional

from icbs.blocks.capture import Forward, capture, input_norms
from icbs.blocks.gradients import LayerGradients
from icbs.data.samples import next_token
from icbs.errors import LayerError, ModelError
from icbs.evaluation.losses import sample_losses
from icbs.models.prunable import prunable_layers
from tests.icbs.factories import autograd
from tests.icbs_fixtures import tiny_llama, tiny_samples, tiny_tokens


@pytest.mark.parametrize("crossover", [0, 10**9])
@pytest.mark.parametrize(
    "name", ["model.layers.0.self_attn.k_proj", "model.layers.1.mlp.down_proj"]
)
def test_per_sample_gradients_equal_autograd(name, crossover, monkeypatch):
    monkeypatch.setattr("icbs.blocks.gradients.CROSSOVER", crossover)
    model, tokens = tiny_llama(), tiny_tokens()
    layers = prunable_layers(model)
    losses, seen = capture(Forward(model, layers, next_token(tokens)), layers)
    expected = autograd(model, layers[name], tokens)
    indices = torch.from_numpy(np.random.default_rng(0).permutation(expected.shape[1])[:50])
    gradients = LayerGradients(seen[name])
    torch.testing.assert_close(gradients.at(indices), expected[:, indices], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(gradients.mean, expected.mean(0), rtol=1e-4, atol=1e-6)
    assert set(seen) == set(layers)
    assert losses.shape == (6,)


def test_losses_and_their_gradient():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 7, 11, generator=generator, dtype=torch.float64)
    tokens = torch.randint(0, 11, (3, 7), generator=generator)
    mask = torch.ones(3, 7, dtype=torch.bool)
    mask[1, 4:] = False
    mask[2, 1:] = False
    upstream = torch.tensor([0.5, -2.0, 3.0])
    ours, plain = logits.clone().requires_grad_(), logits.float().requires_grad_()
    losses, lengths = sample_losses(ours, next_token(tokens, mask).targets)
    (losses * upstream).sum().backward()
    expected = torch.stack(
        [
            functional.cross_entropy(plain[s, : n - 1], tokens[s, 1:n])
            if n > 1
            else plain.sum() * 0
            for s, n in enumerate((7, 4, 1))
        ]
    )
    (expected * upstream).sum().backward()
    torch.testing.assert_close(losses.float(), expected)
    torch.testing.assert_close(ours.grad.float(), plain.grad)
    assert lengths.tolist() == [6, 3, 0]


def test_padding_never_counts():
    model, tokens = tiny_llama(), tiny_tokens(3, 10)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[1, 6:] = False
    mask[2, 3:] = False
    layers = prunable_layers(model, "*.1.mlp.*")
    name = "model.layers.1.mlp.up_proj"
    losses, seen = capture(Forward(model, layers, next_token(tokens, mask)), layers)
    changed = torch.where(mask, tokens, 7)
    again, _ = capture(Forward(model, layers, next_token(changed, mask)), layers)
    assert torch.equal(losses, again)
    expected = autograd(model, layers[name], tokens, mask)
    indices = torch.arange(expected.shape[1])
    torch.testing.assert_close(
        LayerGradients(seen[name]).at(indices), expected, rtol=1e-4, atol=1e-6
    )
    assert seen[name].lengths.tolist() == [9, 5, 2]


def test_kept_prefix_gives_identical_captures():
    model, tokens = tiny_llama(), tiny_tokens()
    layers = prunable_layers(model, "*.layers.2.*")
    forward = Forward(model, layers, next_token(tokens))
    runs = []
    model.model.layers[0].register_forward_hook(lambda *_: runs.append(1))
    first = capture(forward, layers)
    second = capture(forward, layers)
    assert runs == [1, 1]
    assert torch.equal(first[0], second[0])
    for name in layers:
        for field in ("activations", "gradients"):
            assert torch.equal(getattr(first[1][name], field), getattr(second[1][name], field))


def test_blocks_before_the_first_chosen_one_do_not_run_again():
    model, tokens = tiny_llama(), tiny_tokens()
    layers = prunable_layers(model, "*.layers.2.*")
    forward = Forward(model, layers, next_token(tokens))
    runs = []
    model.model.layers[0].mlp.register_forward_hook(lambda *_: runs.append(1))
    before = forward.losses()
    assert torch.equal(before, forward.losses())
    assert len(runs) == 1
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.mul_(1.5)
    after = forward.losses()
    assert len(runs) == 2
    assert not torch.equal(before, after)
    assert torch.equal(after, Forward(model, prunable_layers(model), next_token(tokens)).losses())
    assert "forward" not in vars(model.model.layers[0])


def test_mixed_precision_rounds_the_passes_and_nothing_else():
    model, tokens = tiny_llama(), tiny_tokens()
    layers = prunable_layers(model)
    weights = {name: p.clone() for name, p in model.named_parameters()}
    losses, plain = capture(Forward(model, layers, next_token(tokens)), layers)
    forward = Forward(model, layers, next_token(tokens), mixed_precision=True)
    rounded, mixed = capture(forward, layers)
    torch.testing.assert_close(rounded, losses, rtol=0.02, atol=0)
    for name in layers:
        for field in ("activations", "gradients"):
            one, other = getattr(plain[name], field), getattr(mixed[name], field)
            assert other.dtype == torch.float32
            difference = float((one - other).norm() / one.norm())
            # bfloat16 has 8 bits; exactly equal would mean that nothing was rounded
            assert difference < 0.1
            assert difference > 0 or field == "activations"
    assert all(torch.equal(p, weights[name]) for name, p in model.named_parameters())


def test_the_model_comes_back_as_it_was():
    model, tokens = tiny_llama().train(), tiny_tokens()
    layers = prunable_layers(model, "*.mlp.*")
    capture(Forward(model, layers, next_token(tokens)), layers)
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_nothing_before_the_first_chosen_layer_is_differentiated():
    model, tokens = tiny_llama(), tiny_tokens()
    layers = prunable_layers(model, "*.layers.1.mlp.down_proj")
    seen = {}
    for block in (0, 1, 2):
        model.model.layers[block].register_forward_hook(
            lambda module, args, output, block=block: seen.__setitem__(block, output.requires_grad)
        )
    capture(Forward(model, layers, next_token(tokens)), layers)
    assert seen == {0: False, 1: True, 2: True}


def test_input_norms():
    model, tokens = tiny_llama(), tiny_tokens()
    layers = prunable_layers(model, "*.0.self_attn.*")
    _, seen = capture(Forward(model, layers, next_token(tokens)), layers)
    for name, norms in input_norms(model, layers, next_token(tokens), batch_size=2).items():
        expected = seen[name].activations.flatten(0, 1).norm(dim=0)
        torch.testing.assert_close(norms, expected, rtol=1e-5, atol=1e-6)


def test_layers_that_cannot_be():
    model = tiny_llama()
    assert not any("lm_head" in name or "embed" in name for name in prunable_layers(model))
    with pytest.raises(LayerError, match=r"close names: .*mlp\.up_proj"):
        prunable_layers(model, "model.layers.0.mlp.up_proy")
    with pytest.raises(LayerError, match="no Linear layer"):
        prunable_layers(torch.nn.Conv2d(1, 1, 3))


def test_a_loss_that_is_not_finite():
    model = tiny_llama()
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.fill_(float("nan"))
    layers = prunable_layers(model)
    with pytest.raises(ModelError, match="loss of sample 0 is nan"):
        capture(Forward(model, layers, tiny_samples()), layers)
