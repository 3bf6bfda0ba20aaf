"""Every kind of model is pruned, saved and loaded, or refused before anything slow runs."""

from pathlib import Path

import pytest
import torch
import transformers

from experiments.families import FAST, examine, kinds
from icbs.coverage import coverage
from icbs.prunable import prunable_layers

KINDS = {kind.id: kind for kind in kinds()}
PAGE = Path(__file__).parent.parent / "docs" / "families.md"


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
    "name", ["Mixtral", "Qwen3Moe", "Olmoe", "GptOss", "DeepseekV2", "Qwen2Moe"]
)
def test_experts_are_most_of_a_model(name):
    """Of the published sizes, two blocks deep, without weights: 95 % or more is under pruning."""
    config = getattr(transformers, f"{name}Config")(num_hidden_layers=2)
    with torch.device("meta"):
        model = getattr(transformers, f"{name}ForCausalLM")(config)
    found = coverage(model, prunable_layers(model))
    assert found.share >= 0.95
    assert {part.reason for part in found.left} <= {"embedding", "head", "router of experts"}
    assert "note:" not in found.describe()
