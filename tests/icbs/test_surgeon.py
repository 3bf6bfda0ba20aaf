"""CBS: selection against enumeration, update against the dense equations."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import icbs.baselines.surgeon
from icbs.baselines.surgeon import fisher_factor, prune_by_surgeon, select, surgeon_step
from icbs.blocks.capture import Forward, capture
from icbs.blocks.gradients import LayerGradients
from icbs.errors import DataError, LayerError, ModelError, SettingError
from icbs.models.prunable import layer_weight, prunable_layers
from tests.icbs_fixtures import tiny_llama, tiny_samples


def problem(n, r, seed, coupling=1.0):
    generator = torch.Generator().manual_seed(seed)
    J, w = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((r, n), (n,))
    )
    return coupling * J / r**0.5, w


def energy(J, w, lam, pruned):
    d = -w * pruned
    return float(0.5 * (J @ d).square().sum() + 0.5 * lam * d.square().sum())


@settings(max_examples=60)
@given(
    n=st.integers(1, 60), r=st.integers(1, 80), seed=st.integers(0, 10**6),
    share=st.floats(0, 1), lam=st.sampled_from([1e-3, 0.1, 10.0]),
)  # fmt: skip
def test_update_is_the_constrained_minimum(n, r, seed, share, lam):
    J, w = problem(n, r, seed)
    pruned = torch.rand(n, generator=torch.Generator().manual_seed(seed)) < share
    found = surgeon_step(J, w, lam, pruned)
    assert torch.equal(found[pruned], -w[pruned])
    # Karush-Kuhn-Tucker of the whole dense system, one multiplier a pruned weight.
    H = J.T @ J + lam * torch.eye(n, dtype=torch.float64)
    C = torch.eye(n, dtype=torch.float64)[pruned]
    m = len(C)
    system = torch.cat(
        [torch.cat([H, C.T], 1), torch.cat([C, torch.zeros(m, m, dtype=torch.float64)], 1)]
    )
    solution = torch.linalg.solve(system, torch.cat([torch.zeros_like(w), -w[pruned]]))
    torch.testing.assert_close(found, solution[:n], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("coupling", [0.1, 1.0, 3.0])
def test_selection_against_enumeration(coupling):
    reached = 0
    for seed in range(40):
        n, k, lam = 10, 4, 0.6
        J, w = problem(n, 3, seed, coupling)
        found = select(J, w, lam, k)
        assert int(found.sum()) == k
        states = torch.zeros(210, n, dtype=torch.bool)
        for row, chosen in zip(states, combinations(range(n), k), strict=True):
            row[list(chosen)] = True
        energies = np.array([energy(J, w, lam, state) for state in states])
        own = energy(J, w, lam, found)
        # no swap helps
        near = (states ^ found).sum(1).numpy() == 2
        assert own <= energies[near].min() + 1e-9
        reached += own <= energies.min() + 1e-9
    assert reached >= {0.1: 40, 1.0: 38, 3.0: 34}[coupling]


@settings(max_examples=30)
@given(n=st.integers(1, 50), seed=st.integers(0, 999), share=st.floats(0, 1))
def test_without_curvature_selection_is_a_sort(n, seed, share):
    J, w = problem(n, 2, seed, coupling=0.0)
    count = round(share * n)
    found = select(J, w, 0.2, count)
    costs = 0.1 * w.square()
    assert set(found.nonzero()[:, 0].tolist()) == set(costs.argsort()[:count].tolist())


def test_small_pools_reach_an_optimum_of_swaps(monkeypatch):
    """A round at a time among a few variables; the last round is one in which nothing helps."""
    monkeypatch.setattr("icbs.baselines.surgeon._POOL", 6)
    monkeypatch.setattr("icbs.baselines.surgeon._LAST", 0.0)
    J, w = problem(80, 5, 0, 3.0)
    found = select(J, w, 0.01, 40)
    start = torch.zeros(80, dtype=torch.bool)
    alone = 0.005 * w.square() + 0.5 * w.square() * J.square().sum(0)
    start[alone.argsort()[:40]] = True
    assert energy(J, w, 0.01, found) < 0.9 * energy(J, w, 0.01, start)


def test_factor_has_every_samples_gradient_in_the_models_order(monkeypatch):
    monkeypatch.setattr("icbs.baselines.surgeon._BATCH", 4)
    model, samples = tiny_llama(), tiny_samples(6)
    layers = prunable_layers(model, "*.1.*")
    J = fisher_factor(model, layers, samples) * 6**0.5
    _, seen = capture(Forward(model, layers, samples), layers)
    whole = torch.cat([LayerGradients(seen[name]).per_sample for name in layers], 1)
    torch.testing.assert_close(J, whole, rtol=1e-4, atol=1e-6)


def test_update_lowers_the_loss_of_the_mask():
    model, samples = tiny_llama(), tiny_samples(32, seed=2)
    layers = prunable_layers(model, "*.1.*")
    dense = {name: layer_weight(layer).clone() for name, layer in layers.items()}
    masks = prune_by_surgeon(model, layers, samples, 0.6)
    total = sum(mask.numel() for mask in masks.values())
    assert sum(int(mask.sum()) for mask in masks.values()) == round(0.6 * total)
    for name, layer in layers.items():
        assert torch.equal(layer_weight(layer) != 0, masks[name])
    updated = float(Forward(model, layers, samples).losses().mean())
    for name, layer in layers.items():
        layer_weight(layer).copy_(dense[name] * masks[name])
    assert updated < float(Forward(model, layers, samples).losses().mean())


def test_an_endless_ridge_prunes_the_smallest_and_moves_nothing():
    model, samples = tiny_llama(), tiny_samples(32, seed=2)
    layers = prunable_layers(model, "*.1.*")
    dense = {name: layer_weight(layer).clone() for name, layer in layers.items()}
    masks = prune_by_surgeon(model, layers, samples, 0.6, ridges=[1e9])
    sizes = torch.cat([weight.abs().reshape(-1) for weight in dense.values()])
    kept = torch.cat([mask.reshape(-1) for mask in masks.values()])
    assert sizes[kept].min() >= sizes[~kept].max()
    for name, layer in layers.items():
        torch.testing.assert_close(layer_weight(layer).data, dense[name] * masks[name])


def test_the_ridge_is_decided_on_samples_that_gave_no_gradient(monkeypatch):
    ridges, samples = [1e-4, 1.0, 1e4], tiny_samples(20, seed=2)
    seen = []
    factor = icbs.baselines.surgeon.fisher_factor

    def noting(model, layers, samples, on_share):
        seen.append(len(samples))
        return factor(model, layers, samples, on_share)

    monkeypatch.setattr("icbs.baselines.surgeon.fisher_factor", noting)
    found, losses = [], []
    for tried in (ridges, *([ridge] for ridge in ridges)):
        model = tiny_llama()
        layers = prunable_layers(model, "*.1.*")
        # one ridge alone takes gradients from all it is given
        masks = prune_by_surgeon(model, layers, samples if tried == ridges else samples[:16], 0.4,
                                 ridges=tried)  # fmt: skip
        found.append({name: layer_weight(layer).clone() for name, layer in layers.items()})
        losses.append(float(Forward(model, layers, samples[16:]).losses().mean()))
        assert all(torch.equal(masks[name], found[-1][name] != 0) for name in layers)
    assert seen == [16, 16, 16, 16]
    assert losses[0] == min(losses) < max(losses)
    best = found[losses.index(losses[0], 1)]
    assert all(torch.equal(found[0][name], best[name]) for name in best)


def test_refusals(monkeypatch):
    model = tiny_llama()
    layers = prunable_layers(model)
    for ridges in ([], [0.0], [1.0, -1.0], [float("nan")], [float("inf")]):
        with pytest.raises(SettingError, match="ridges are"):
            prune_by_surgeon(model, layers, tiny_samples(), 0.5, ridges=ridges)
    with pytest.raises(DataError, match=r"1 sample cannot .* between 3 ridges: give more"):
        prune_by_surgeon(model, layers, tiny_samples(1), 0.5)
    monkeypatch.setattr("icbs.baselines.surgeon.LARGEST", 1000)
    with pytest.raises(LayerError, match=r"too many for cbs.*choose fewer layers"):
        prune_by_surgeon(model, layers, tiny_samples(), 0.5)
    monkeypatch.undo()
    layer_weight(next(iter(layers.values())))[0, 0] = float("nan")
    with pytest.raises(ModelError, match="NaN"):
        prune_by_surgeon(model, layers, tiny_samples(), 0.5)
