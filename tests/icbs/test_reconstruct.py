import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel

from icbs.blocks.masks import mask_at_density
from icbs.blocks.sequential import visit_in_order
from icbs.data.samples import next_token
from icbs.errors import ModelError, SettingError
from icbs.loop.refit import masked_least_squares, refit_weights
from icbs.models.prunable import layer_weight, prunable_layers
from tests.icbs_fixtures import tiny_llama, tiny_samples, tiny_tokens


def pruned_llama(density=0.5):
    model = tiny_llama()
    layers = prunable_layers(model)
    dense = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    kept = {name: mask_at_density(w.abs(), density) for name, w in dense.items()}
    for name, layer in layers.items():
        with torch.no_grad():
            layer.weight.mul_(kept[name])
    return model, layers, dense, kept


@settings(max_examples=40)
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


@settings(max_examples=40)
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


def test_mask_stays_and_the_model_comes_closer_to_the_dense_one():
    model, layers, dense, kept = pruned_llama()
    tokens = tiny_tokens(40)
    wanted = tiny_llama()(tokens).logits
    before = (model(tokens).logits - wanted).square().mean()
    records = refit_weights(
        model, layers, dense, kept, next_token(tokens), iterations=30, progress=False
    )
    after = (model(tokens).logits - wanted).square().mean()
    assert after < 0.8 * before
    assert {record.layer for record in records} == set(layers)
    assert all(record.after <= record.before + 1e-5 for record in records)
    assert sum(record.after for record in records) < sum(record.before for record in records)
    for name, layer in layers.items():
        assert (layer.weight[~kept[name]] == 0).all()
        assert (layer.weight[kept[name]] != 0).all()


def test_nothing_changes_at_full_density():
    model = tiny_llama()
    layers = prunable_layers(model)
    dense = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    kept = {name: torch.ones_like(w, dtype=torch.bool) for name, w in dense.items()}
    refit_weights(model, layers, dense, kept, tiny_samples(), progress=False)
    for name, layer in layers.items():
        assert torch.equal(layer.weight, dense[name])


def test_layers_stored_as_in_by_out():
    torch.manual_seed(0)
    config = GPT2Config(n_layer=1, n_embd=12, n_head=2, n_positions=16, vocab_size=61)
    model = GPT2LMHeadModel(config).eval()
    layers = prunable_layers(model)
    dense = {name: layer_weight(layer).clone() for name, layer in layers.items()}
    kept = {name: mask_at_density(w.abs(), 0.5, "output") for name, w in dense.items()}
    records = refit_weights(model, layers, dense, kept, tiny_samples(), progress=False)
    assert len(records) == len(layers) == 4
    assert all(record.after < record.before for record in records)
    for name, layer in layers.items():
        assert torch.equal(layer_weight(layer) != 0, kept[name])


def test_padding_never_counts():
    tokens = tiny_tokens(20)
    real = torch.ones_like(tokens, dtype=torch.bool)
    real[:, 7:] = False
    found = []
    for fill in (1, 2):
        model, layers, dense, kept = pruned_llama()
        padded = next_token(tokens.masked_fill(~real, fill), real)
        refit_weights(model, layers, dense, kept, padded, progress=False)
        found.append([layer.weight.detach() for layer in layers.values()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_layers_see_what_the_model_feeds_them():
    model = tiny_llama()
    seen, hooked = {}, {}
    layers = prunable_layers(model)
    visit_in_order(model, layers, tiny_samples(), seen.__setitem__)
    for name, layer in layers.items():
        layer.register_forward_pre_hook(
            lambda module, args, name=name: hooked.__setitem__(name, args[0])
        )
    model(tiny_samples().inputs)
    for name, x in seen.items():
        torch.testing.assert_close(x, hooked[name].flatten(0, 1), rtol=1e-4, atol=1e-5)
    # layers side by side are handed the very same rows
    first = "model.layers.0.self_attn."
    assert seen[first + "q_proj"] is seen[first + "v_proj"]
    assert seen[first + "q_proj"] is not seen[first + "o_proj"]


def test_a_change_reaches_the_layers_after_it():
    model = tiny_llama()
    layers = prunable_layers(model)

    def wipe(name, x):
        if ".0." in name:
            layers[name].weight.zero_()
        if name == "model.layers.0.mlp.down_proj":
            assert not x.any()

    visit_in_order(model, layers, tiny_samples(), wipe)
    assert not any(layer._forward_pre_hooks for layer in layers.values())


def test_bad_input():
    model, layers, dense, kept = pruned_llama()
    samples = tiny_samples()
    with pytest.raises(SettingError, match="ridge=-1"):
        refit_weights(model, layers, dense, kept, samples, ridge=-1, progress=False)
    with pytest.raises(ModelError, match="'stray' did not run"):
        visit_in_order(model, {"stray": torch.nn.Linear(2, 2)}, samples, lambda *_: None)
    dense["model.layers.0.mlp.up_proj"][0, 0] = float("nan")
    with pytest.raises(ModelError, match=r"inputs of layer 'model\.layers\.0\.mlp\.down_proj'"):
        refit_weights(model, layers, dense, kept, samples, progress=False)
