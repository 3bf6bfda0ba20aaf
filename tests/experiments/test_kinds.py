"""Every kind of model is pruned, saved and loaded, or refused before anything slow runs."""

from pathlib import Path

import pytest
import torch
import transformers

from experiments.scripts.families import FAST, examine, kinds, samples_for, tiny_model
from icbs.blocks.capture import Forward, capture
from icbs.blocks.gradients import LayerGradients
from icbs.blocks.probe import usable_layers
from icbs.evaluation.losses import sample_losses
from icbs.models.coverage import IDLE, NO_MATRIX, coverage
from icbs.models.prunable import prunable_layers

KINDS = {kind.id: kind for kind in kinds()}
PAGE = Path(__file__).parents[2] / "docs" / "families.md"


@pytest.mark.filterwarnings("ignore")  # those of transformers' own models
@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in KINDS]
)
def test_pruned_or_refused(name, tmp_path):
    """As the page says, with the same sentence."""
    kind = KINDS[name]
    row = examine(kind, tmp_path)
    assert row.stage in ("pruned", "loading", "before anything is pruned")
    (line,) = [
        line
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith(f"| {kind.name} | {row.architecture} |")
    ]
    if row.refusal is None:
        assert "| pruned |" in line
        assert row.share > 0
        assert all(reason in line for reason in row.refused.values())
    else:
        assert "| refused |" in line
        assert row.refusal.replace("|", "/") in line


def test_the_page_has_every_kind():
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    assert len(rows) - 1 == len(KINDS) >= 45
    assert set(FAST) <= set(KINDS)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("Mixtral", {"num_hidden_layers": 2}),
        ("Qwen3Moe", {"num_hidden_layers": 2}),
        ("Olmoe", {"num_hidden_layers": 2}),
        ("GptOss", {"num_hidden_layers": 2}),
        ("DeepseekV2", {"num_hidden_layers": 2}),
        ("Qwen2Moe", {"num_hidden_layers": 2}),
        ("Llama4", {"num_hidden_layers": 2, "no_rope_layers": [1, 0]}),
        ("JetMoe", {"num_hidden_layers": 2}),
        ("LongcatFlash", {"num_layers": 2}),
        ("Dbrx", {"n_layers": 2, "attn_config": {"rope_theta": 5e5}}),
    ],
)
def test_experts_are_most_of_a_model(name, sizes):
    """Of the published sizes, two blocks deep, without weights: 95 % or more is under pruning."""
    named = f"{name}TextConfig" if name == "Llama4" else f"{name}Config"
    with torch.device("meta"):
        model = getattr(transformers, f"{name}ForCausalLM")(getattr(transformers, named)(**sizes))
    found = coverage(model, prunable_layers(model))
    assert found.share >= 0.95
    assert {part.reason for part in found.left} <= {*NO_MATRIX, "router of experts"}
    assert "note:" not in found.describe()
    idle = [part.weights for part in found.left if part.reason == IDLE]
    assert bool(idle) == (name == "LongcatFlash")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["poolformer-image", "efficientnet-image", "longformer-masked"])
def test_gradients_of_layers_with_rows_in_another_order(name):
    """Channels before pixels, positions before samples: each sample's gradient is autograd's."""
    model = tiny_model(KINDS[name])
    samples = samples_for(KINDS[name], model, 3)
    layers = usable_layers(model, "*", samples).layers
    losses, seen = capture(Forward(model, layers, samples), layers)
    weights = {key: layers[key].weight.requires_grad_() for key in list(seen)[:: len(seen) // 4]}
    again, _ = sample_losses(model(**samples.arguments(model)).logits, samples.targets)
    torch.testing.assert_close(losses, again.detach(), rtol=1e-4, atol=1e-5)
    for s in range(len(samples)):
        expected = torch.autograd.grad(again[s], list(weights.values()), retain_graph=True)
        for key, gradient in zip(weights, expected, strict=True):
            found = LayerGradients(seen[key]).per_sample[s]
            torch.testing.assert_close(found, gradient.reshape(-1), rtol=1e-3, atol=1e-5)
