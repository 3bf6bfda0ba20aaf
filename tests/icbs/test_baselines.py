"""Baselines: exact density; SparseGPT against its mask alone and against least squares."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import icbs.blocks.layers
from icbs.baselines.oneshot import BASELINES, prune_once, sparsegpt
from icbs.blocks.capture import each_input
from icbs.blocks.masks import mask_at_density, mask_n_m
from icbs.blocks.rowsearch import RowSearch
from icbs.errors import DensityError, ModelError, SettingError
from icbs.evaluation.losses import sample_losses
from icbs.models.prunable import prunable_layers
from icbs.settings import Settings
from tests.icbs_fixtures import tiny_llama, tiny_samples


def layer(rows=5, width=12, count=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator)
    x = torch.randn(count, width, generator=generator) @ mixing
    return torch.randn(rows, width, generator=generator), x


def error(weight, dense, x):
    return float(((weight - dense) @ x.T).square().sum())


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("density", [0.3, 0.5, 0.77])
def test_density_is_exact_and_masks_are_what_is_in_the_model(name, density):
    model = tiny_llama()
    layers = prunable_layers(model)
    before = {key: module.weight.clone() for key, module in layers.items()}
    masks = prune_once(name, model, layers, tiny_samples(), density, progress=False)
    total = sum(mask.numel() for mask in masks.values())
    assert sum(int(mask.sum()) for mask in masks.values()) == pytest.approx(density * total, abs=9)
    for key, module in layers.items():
        assert torch.equal(module.weight != 0, masks[key])
        if name != "cbs":
            assert int(masks[key].sum()) == round(density * masks[key].numel())
        if name not in ("sparsegpt", "cbs"):
            assert torch.equal(module.weight[masks[key]], before[key][masks[key]])


@pytest.mark.parametrize("pattern", [None, "2:4"])
def test_rows_lose_less_of_the_output_than_wanda_and_keep_every_budget(pattern):
    weight, x = layer(rows=9, width=24, count=400)
    settings = Settings(pattern=pattern)
    search = RowSearch(settings)
    kept = search.mask("it", weight, x)
    saliency = weight.abs() * x.norm(dim=0)
    wanda = mask_n_m(saliency, 2, 4) if pattern else mask_at_density(saliency, 0.5, "output")
    assert torch.equal(kept.sum(1), wanda.sum(1))
    if pattern:
        assert (kept.view(9, -1, 4).sum(2) == 2).all()
    assert search.shrinkages["it"] < 1
    assert error(weight * kept, weight, x) < 0.95 * error(weight * wanda, weight, x)


def test_the_shrinkage_is_what_positions_that_gave_no_h_like_best():
    """Inputs whose last quarter has no correlations, and the first nothing else."""
    generator = torch.Generator().manual_seed(0)
    together = torch.randn(300, 1, generator=generator) * torch.ones(24)
    apart = torch.randn(100, 24, generator=generator)
    weight = torch.randn(9, 24, generator=generator)
    search = RowSearch(Settings())
    x = torch.cat([together + 0.1 * torch.randn(300, 24, generator=generator), apart])
    search.mask("changed", weight, x)
    search.mask("same", weight, torch.cat([x[:300], x[:100]]))
    assert search.shrinkages["changed"] > search.shrinkages["same"]
    # A handful of positions judges nothing: Wanda's mask it is.
    few = search.mask("few", weight, x[:20])
    assert search.shrinkages["few"] == 1
    assert torch.equal(few, mask_at_density(weight.abs() * x[:20].norm(dim=0), 0.5, "output"))


def test_rows_see_what_pruned_layers_before_let_through():
    model, samples = tiny_llama(), tiny_samples()
    layers = prunable_layers(model)
    name = next(key for key in layers if key.endswith("1.mlp.down_proj"))
    seen = {}

    class Watched(RowSearch):
        def mask(self, name, weight, x):
            seen[name] = x
            return super().mask(name, weight, x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("icbs.baselines.oneshot.RowSearch", Watched)
        prune_once("rows", model, layers, samples, 0.3, progress=False)
    found = {}
    each_input(model, {name: layers[name]}, samples, found.__setitem__)
    assert torch.allclose(seen[name], found[name], atol=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_rows_refuse_what_is_not_finite(value):
    weight, x = layer(count=60)
    x[3, 2] = value
    with pytest.raises(ModelError, match="inputs of layer 'it' are not finite"):
        RowSearch(Settings()).mask("it", weight, x)
    weight, x = layer(count=60)
    weight[1, 1] = value
    with pytest.raises(ModelError, match="'it' has weights"):
        RowSearch(Settings()).mask("it", weight, x)


def test_gradients_of_many_samples_are_taken_a_batch_at_a_time(monkeypatch):
    """Saliency ``-w g`` of the mean loss of all samples, as autograd finds it, in 2, 2 and 1."""
    model, samples = tiny_llama(), tiny_samples(5)
    layers = prunable_layers(model)
    sample_losses(model(**samples.arguments(model)).logits, samples.targets)[0].mean().backward()
    expected = {
        name: mask_at_density(-(layer.weight * layer.weight.grad).detach(), 0.5, "layer")
        for name, layer in layers.items()
    }
    model.zero_grad()
    sizes = []
    forward = icbs.blocks.layers.Forward

    def noting(model, layers, batch):
        sizes.append(len(batch))
        return forward(model, layers, batch)

    monkeypatch.setattr("icbs.blocks.layers.Forward", noting)
    monkeypatch.setattr("icbs.blocks.layers._POSITIONS", 2 * samples.positions + 1)
    found = prune_once("gradient", model, layers, samples, 0.5, progress=False)
    assert sizes == [2, 2, 1]
    different = sum(int((found[name] != expected[name]).sum()) for name in layers)
    # Rounding may turn a tie of two weights in a million.
    assert different <= 2


@settings(max_examples=30)
@given(
    rows=st.integers(1, 6),
    width=st.integers(1, 40),
    density=st.floats(0.05, 0.95),
    seed=st.integers(0, 99),
)
def test_every_kept_weight_is_optimal_given_those_to_its_left(rows, width, density, seed):
    """With ``H^-1 = U'U`` the error is ``||delta U^-1||^2``: kept columns add nothing to it."""
    dense, x = (tensor.double() for tensor in layer(rows, width, 3 * width, seed))
    gram = x.T @ x / len(x)
    weight, kept = sparsegpt(dense, gram, density)
    assert torch.equal(weight != 0, kept)
    assert int(kept.sum()) == round(density * dense.numel())
    H = gram + 0.01 * gram.diagonal().mean() * torch.eye(width)
    # H = L L' in reversed order is H^-1 = U'U
    L = torch.linalg.cholesky(H.flip(0, 1)).flip(0, 1)
    residual = (weight - dense) @ L
    assert float(residual[kept].abs().sum()) <= 1e-8 * float(dense.abs().sum() * L.abs().max())


def test_update_lowers_the_error_of_the_mask():
    ratios = []
    for seed in range(20):
        dense, x = layer(8, 40, 120, seed)
        weight, kept = sparsegpt(dense, x.T @ x / len(x), 0.5)
        ratios.append(error(weight, dense, x) / error(dense * kept, dense, x))
    assert max(ratios) < 1


def test_one_pruned_column_is_the_optimal_surgeon():
    """With the mask given away in one column the update is the closed-form least-squares one."""
    dense, x = layer(4, 9, 60)
    dense[:, 0] = 1e-4 * torch.arange(1, 5)
    gram = (x.T @ x / len(x)).double()
    weight, kept = sparsegpt(dense.double(), gram, 8 / 9)
    assert not kept[:, 0].any()
    assert kept[:, 1:].all()
    H = gram + 0.01 * gram.diagonal().mean() * torch.eye(9)
    # min over the other columns of (w - W) H (w - W)' with w_0 = 0
    expected = (
        dense[:, 1:].double() + dense[:, :1].double() * torch.linalg.solve(H[1:, 1:], H[1:, :1]).T
    )
    torch.testing.assert_close(weight[:, 1:], expected, rtol=1e-9, atol=1e-12)


def test_blocks_of_columns_are_one_algorithm(monkeypatch):
    """Spreading errors block by block or column by column is the same, if the mask is."""
    dense, x = layer(1, 30, 90)
    dense[:, ::2] *= 1e-5
    gram = (x.T @ x / len(x)).double()
    whole = sparsegpt(dense.double(), gram, 0.5)
    monkeypatch.setattr("icbs.baselines.oneshot._BLOCK", 2)
    parts = sparsegpt(dense.double(), gram, 0.5)
    assert torch.equal(whole[1], parts[1])
    torch.testing.assert_close(whole[0], parts[0], rtol=1e-9, atol=1e-12)


def test_dead_inputs_go_first_and_nothing_becomes_nan():
    dense, x = layer(4, 8)
    x[:, [2, 5]] = 0
    weight, kept = sparsegpt(dense, x.T @ x / len(x), 0.5)
    assert torch.isfinite(weight).all()
    assert not kept[:, [2, 5]].any()
    weight, kept = sparsegpt(dense, torch.zeros(8, 8), 0.5)
    assert torch.isfinite(weight).all()
    assert int(kept.sum()) == 16


def test_what_is_refused():
    model = tiny_llama()
    layers = prunable_layers(model)
    with pytest.raises(SettingError, match="baseline is 'wonda'; did you mean 'wanda'"):
        prune_once("wonda", model, layers, tiny_samples(), 0.5)
    with pytest.raises(DensityError, match=r"density is 1\.0"):
        prune_once("sparsegpt", model, layers, tiny_samples(), 1.0)
    next(iter(layers.values())).weight.data[0, 0] = float("nan")
    with pytest.raises(ModelError):
        prune_once("sparsegpt", model, layers, tiny_samples(), 0.5, progress=False)
