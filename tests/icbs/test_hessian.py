import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from icbs.blocks.capture import Forward, capture
from icbs.blocks.gradients import LayerGradients
from icbs.blocks.hessian import block_hessian
from icbs.data.samples import next_token
from icbs.evaluation.losses import differentiable_losses, sample_losses
from icbs.models.prunable import layer_weight, prunable_layers
from tests.icbs_fixtures import tiny_llama, tiny_samples


def gpt2():
    torch.manual_seed(3)
    config = GPT2Config(
        vocab_size=61,
        bos_token_id=1,
        eos_token_id=1,
        n_positions=32,
        n_embd=12,
        n_layer=2,
        n_head=2,
    )
    return GPT2LMHeadModel(config).eval()


@pytest.mark.parametrize(
    # Llama's norms compute in single precision whatever the weights are: longer steps, less digits.
    ("build", "glob", "step", "tolerance"),
    [
        (tiny_llama, "*.1.mlp.down_proj", 0.1, 0.05),
        (tiny_llama, "*.1.self_attn.q_proj", 0.1, 0.05),
        (gpt2, "*1.attn.c_attn", 0.01, 5e-3),
        (gpt2, "*0.mlp.c_fc", 0.01, 5e-3),
    ],
)
def test_equals_finite_differences_of_the_gradient(build, glob, step, tolerance):
    model = build().double()
    layers = prunable_layers(model, glob)
    (layer,) = layers.values()
    forward = Forward(model, layers, tiny_samples(3))
    weight = layer_weight(layer)
    generator = torch.Generator().manual_seed(0)
    indices = torch.randperm(weight.numel(), generator=generator)[:37]
    H = block_hessian(forward, layer, indices).double()
    assert torch.equal(H, H.T)

    outs, ins = indices // weight.shape[1], indices % weight.shape[1]

    def gradient_at(delta):
        weight[outs, ins] += delta
        _, captures = capture(forward, layers)
        weight[outs, ins] -= delta
        return LayerGradients(*captures.values()).mean[indices]

    for _ in range(3):
        v = torch.randn(len(indices), generator=generator, dtype=torch.float64)
        v *= step / v.norm()
        found = (gradient_at(v) - gradient_at(-v)).double() / 2
        assert float((H @ v - found).norm()) <= tolerance * float(found.norm())


def test_differentiable_losses_are_the_losses():
    logits = torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(1))
    targets = next_token(torch.randint(0, 5, (3, 7))).targets
    targets[1] = -100
    expected, _ = sample_losses(logits, targets)
    torch.testing.assert_close(differentiable_losses(logits, targets), expected)
    classes = torch.tensor([0, 2, 4])
    expected, _ = sample_losses(logits[:, 0], classes)
    torch.testing.assert_close(differentiable_losses(logits[:, 0], classes), expected)
