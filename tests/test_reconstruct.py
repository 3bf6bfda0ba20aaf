import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icbs.errors import ModelError, SettingError
from icbs.masks import mask_at_density
from icbs.models import prunable_layers
from icbs.reconstruct import masked_least_squares, repair_weights
from icbs.sequential import visit_in_order
from tests.icbs_fixtures import tiny_llama, tiny_tokens


def pruned_llama(density=0.5):
    model = tiny_llama()
    layers = prunable_layers(model)
    dense = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    kept = {name: mask_at_density(w.abs(), density) for name, w in dense.items()}
    for name, layer in layers.items():
        with torch.no_grad():
            layer.weight.mul_(kept[name])
    return model, layers, dense, kept


@settings(max_examples=40, deadline=None)
@given(
    outs=st.integers(1, 4),
    ins=st.integers(1, 6),
    seed=st.integers(0, 999),
    ridge=st.sampled_from([0.0, 0.01, 1.0]),
)
def test_equals_lstsq_on_each_row(outs, ins, seed, ridge):
    rng = np.random.default_rng(seed)
    X, T = rng.normal(size=(30, ins)), rng.normal(size=(30, outs))
    kept = rng.random((outs, ins)) < 0.6
    start = rng.normal(size=(outs, ins)) * kept
    H = X.T @ X / len(X)
    found = masked_least_squares(
        torch.from_numpy(H), torch.from_numpy(T.T @ X / len(X)), torch.from_numpy(start),
        torch.from_numpy(kept), ridge=ridge, iterations=3 * ins,
    ).numpy()  # fmt: skip
    lam = ridge * np.diag(H).mean()
    assert (found[~kept] == 0).all()
    for o in range(outs):
        S = kept[o]
        # the ridge as further rows of the same least-squares problem
        A = np.vstack([X[:, S] / np.sqrt(len(X)), np.sqrt(lam) * np.eye(S.sum())])
        t = np.concatenate([T[:, o] / np.sqrt(len(X)), np.sqrt(lam) * start[o, S]])
        np.testing.assert_allclose(found[o, S], np.linalg.lstsq(A, t)[0], rtol=1e-6, atol=1e-8)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), iterations=st.integers(0, 12), samples=st.integers(1, 9))
def test_no_row_gets_worse(seed, iterations, samples):
    rng = np.random.default_rng(seed)
    # badly scaled, rank deficient, and one input that is always 0
    X = torch.from_numpy(rng.normal(size=(samples, 8)) * 10.0 ** rng.integers(-2, 3, 8)).float()
    X[:, 3] = 0
    W = torch.from_numpy(rng.normal(size=(5, 8))).float()
    kept = torch.from_numpy(rng.random((5, 8)) < 0.5)
    start = W * kept
    found = masked_least_squares(
        X.T @ X, W @ (X.T @ X), start, kept, ridge=0.0, iterations=iterations
    )
    assert torch.isfinite(found).all()
    assert torch.equal(found[:, 3], start[:, 3])
    before, after = (((w - W).double() @ X.double().T).square().sum(1) for w in (start, found))
    # float32 rounds relative to the targets' power, not to the error
    power = (W.double() @ X.double().T).square().sum(1)
    assert (after <= before + 1e-5 * power).all()


@pytest.mark.parametrize("target", ["dense", "pruned"])
def test_mask_stays_and_the_model_comes_closer_to_the_dense_one(target):
    model, layers, dense, kept = pruned_llama()
    tokens = tiny_tokens(40)
    wanted = tiny_llama()(tokens).logits
    before = (model(tokens).logits - wanted).square().mean()
    records = repair_weights(
        model, layers, dense, kept, tokens, target=target, iterations=30, progress=False
    )
    after = (model(tokens).logits - wanted).square().mean()
    assert after < 0.8 * before
    assert {record.layer for record in records} == set(layers)
    assert all(record.after <= record.before + 1e-5 for record in records)
    assert sum(record.after for record in records) < sum(record.before for record in records)
    for name, layer in layers.items():
        assert (layer.weight[~kept[name]] == 0).all()
        assert (layer.weight[kept[name]] != 0).all()


@pytest.mark.parametrize("target", ["dense", "pruned"])
def test_nothing_changes_at_full_density(target):
    model = tiny_llama()
    layers = prunable_layers(model)
    dense = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    kept = {name: torch.ones_like(w, dtype=torch.bool) for name, w in dense.items()}
    repair_weights(model, layers, dense, kept, tiny_tokens(), target=target, progress=False)
    for name, layer in layers.items():
        torch.testing.assert_close(layer.weight.detach(), dense[name], rtol=1e-4, atol=1e-5)


def test_padding_never_counts():
    tokens = tiny_tokens(20)
    real = torch.ones_like(tokens, dtype=torch.bool)
    real[:, 7:] = False
    found = []
    for fill in (1, 2):
        model, layers, dense, kept = pruned_llama()
        padded = tokens.masked_fill(~real, fill)
        repair_weights(model, layers, dense, kept, padded, mask=real, progress=False)
        found.append([layer.weight.detach() for layer in layers.values()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_the_dense_half_sees_what_the_dense_model_sees():
    model, layers, dense, _ = pruned_llama()
    seen, plain, live = {}, {}, {}
    visit_in_order(
        model, layers, tiny_tokens(),
        lambda name, x, x_dense: seen.__setitem__(name, (x, x_dense)), dense=dense,
    )  # fmt: skip
    visit_in_order(model, layers, tiny_tokens(), lambda n, x, _: live.__setitem__(n, x))
    whole = tiny_llama()
    visit_in_order(
        whole, prunable_layers(whole), tiny_tokens(), lambda n, x, _: plain.__setitem__(n, x)
    )
    assert set(seen) == set(layers)
    for name, (x, x_dense) in seen.items():
        torch.testing.assert_close(x, live[name], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(x_dense, plain[name], rtol=1e-4, atol=1e-5)
    # layers side by side are handed the very same rows
    first = "model.layers.0.self_attn."
    assert seen[first + "q_proj"][0] is seen[first + "v_proj"][0]


def test_a_change_reaches_the_layers_after_it():
    model = tiny_llama()
    layers = prunable_layers(model)

    def wipe(name, x, _):
        if ".0." in name:
            layers[name].weight.zero_()
        if name == "model.layers.0.mlp.down_proj":
            assert not x.any()

    visit_in_order(model, layers, tiny_tokens(), wipe)
    assert not any(hasattr(layer, "_forward_hooks") and layer._forward_hooks for layer in
                   layers.values())  # fmt: skip


def test_bad_input():
    model, layers, dense, kept = pruned_llama()
    tokens = tiny_tokens()
    with pytest.raises(SettingError, match="target is 'output'"):
        repair_weights(model, layers, dense, kept, tokens, target="output", progress=False)
    with pytest.raises(SettingError, match="ridge=-1"):
        repair_weights(model, layers, dense, kept, tokens, ridge=-1, progress=False)
    with pytest.raises(ModelError, match="'stray' did not run"):
        visit_in_order(model, {"stray": torch.nn.Linear(2, 2)}, tokens, lambda *_: None)
    with torch.no_grad():
        layers["model.layers.0.mlp.up_proj"].weight[0, 0] = float("nan")
    with pytest.raises(ModelError, match=r"inputs of layer 'model\.layers\.0\.mlp\.down_proj'"):
        repair_weights(model, layers, dense, kept, tokens, progress=False)
