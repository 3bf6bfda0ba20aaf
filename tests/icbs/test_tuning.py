import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel

import icbs.loop.tuning
from icbs.blocks.masks import mask_at_density
from icbs.data.samples import IGNORED
from icbs.errors import DataError, ModelError, SettingError
from icbs.loop.pruner import Pruner
from icbs.loop.tuning import _Divergence, tune_weights
from icbs.models.prunable import layer_weight, prunable_layers
from tests.icbs_fixtures import tiny_llama, tiny_loaded, tiny_samples


def pruned(model, density=0.5):
    layers = prunable_layers(model)
    dense = {name: layer_weight(layer).clone() for name, layer in layers.items()}
    kept = {name: mask_at_density(w.abs(), density) for name, w in dense.items()}
    for name, layer in layers.items():
        layer_weight(layer).mul_(kept[name])
    return model, layers, dense, kept


def tiny_gpt2():
    torch.manual_seed(3)
    config = GPT2Config(vocab_size=61, n_embd=24, n_layer=2, n_head=4, n_positions=64)
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.2)
    return model


def divergence(model, dense_logits, samples):
    with torch.no_grad():
        q = model(samples.inputs).logits.log_softmax(-1)
    p = dense_logits.log_softmax(-1)
    each = (p.exp() * (p - q)).sum(-1)
    counted = samples.targets != IGNORED
    return float(((each * counted).sum(1) / counted.sum(1)).mean())


@settings(max_examples=30)
@given(
    samples=st.integers(1, 3), positions=st.integers(0, 4), size=st.integers(2, 6),
    seed=st.integers(0, 999), labels=st.sampled_from([0.0, 0.3, 1.0]),
)  # fmt: skip
def test_divergence_and_its_gradient(samples, positions, size, seed, labels):
    generator = torch.Generator().manual_seed(seed)
    shape = (samples, positions) if positions else (samples,)
    logits = torch.randn(*shape, size, generator=generator, requires_grad=True)
    wanted = torch.randn(*shape, size, generator=generator)
    targets = torch.randint(0, size, shape, generator=generator)
    if positions > 1:
        targets[0, -1] = IGNORED
    marked = torch.nn.functional.one_hot(targets.clamp(min=0), size)
    target = (1 - labels) * wanted.softmax(-1) + labels * marked
    q = logits.log_softmax(-1)
    each = torch.nn.functional.kl_div(q, target, reduction="none").sum(-1)
    counted = (targets != IGNORED).float()
    if positions:
        expected = ((each * counted).sum(1) / counted.sum(1).clamp(min=1)).mean()
    else:
        expected = each.mean()
    (slope,) = torch.autograd.grad(expected, logits)
    found = _Divergence.apply(logits, wanted.clone(), targets, labels)
    (got,) = torch.autograd.grad(2 * found, logits)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(got, 2 * slope, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("mixed_precision", [False, True])
@pytest.mark.parametrize("build", [tiny_llama, tiny_gpt2])
def test_comes_nearer_to_the_dense_model_and_keeps_the_mask(build, mixed_precision):
    model = build()
    samples = tiny_samples(6)
    with torch.no_grad():
        wanted = model(samples.inputs).logits
    model, layers, dense, kept = pruned(model)
    others = {n: p.clone() for n, p in model.named_parameters() if p.ndim == 1}
    before = divergence(model, wanted, samples)
    records = tune_weights(
        model, layers, dense, kept, [samples], steps=20, rate=5e-3, progress=False,
        mixed_precision=mixed_precision,
    )  # fmt: skip
    first = records[0].divergence
    assert first == pytest.approx(before, rel=0.05 if mixed_precision else 1e-4)
    assert (abs(first - before) > 1e-6 * before) is mixed_precision
    assert divergence(model, wanted, samples) < 0.7 * before
    for name, layer in layers.items():
        weight = layer_weight(layer)
        assert not weight[~kept[name]].any()
        assert (weight != dense[name])[kept[name]].any()
    # nothing else moved, and no gradient is left behind
    for name, value in others.items():
        assert torch.equal(model.get_parameter(name), value)
    assert all(p.grad is None for p in model.parameters())
    assert all(p.requires_grad for p in model.parameters())


def test_a_dense_model_stays_as_it_is():
    model = tiny_llama()
    layers = prunable_layers(model)
    dense = {name: layer_weight(layer).clone() for name, layer in layers.items()}
    kept = {name: torch.ones_like(w, dtype=torch.bool) for name, w in dense.items()}
    (record,) = tune_weights(
        model, layers, dense, kept, [tiny_samples()], steps=1, measure=lambda: 0.0, progress=False
    )
    assert record.divergence == pytest.approx(0, abs=1e-5)


def test_the_best_measured_state_stays(monkeypatch):
    monkeypatch.setattr("icbs.loop.tuning._EVERY", 1)
    model, layers, dense, kept = pruned(tiny_llama())
    start = {name: layer_weight(layer).clone() for name, layer in layers.items()}
    # every state after the first is worse
    losses = iter([1.0, 2.0, 3.0, float("nan")])
    records = tune_weights(
        model, layers, dense, kept, [tiny_samples()], steps=3, progress=False,
        measure=lambda: next(losses),
    )  # fmt: skip
    assert [record.heldout for record in records[:2]] == [2.0, 3.0]
    for name, layer in layers.items():
        assert torch.equal(layer_weight(layer), start[name])


@pytest.mark.parametrize("rate", [1e-3, 0.5])
def test_gate_of_the_pruner_never_lets_the_loss_rise(rate):
    pruner = Pruner(
        tiny_loaded(), tiny_samples(), heldout=tiny_samples(4, seed=9), solver="greedy",
        block_size=40, batch_size=3, damping=1.0, progress=False,
    )  # fmt: skip
    pruner.run(2)
    before, masks = pruner.gate.loss, pruner.masks
    records = pruner.tune(6, rate=rate)
    assert len(records) == 6
    assert pruner.gate.loss <= before
    for name, layer in pruner.modules.items():
        assert not layer_weight(layer)[~masks[name]].any()


def test_time_limit_ends_it_and_the_rate_falls_to_nothing(monkeypatch):
    """A clock that ticks ten seconds at every look: two looks before and after a step."""
    model, layers, dense, kept = pruned(tiny_llama())
    ticks = iter(range(0, 10**6, 10))
    monkeypatch.setattr("icbs.loop.tuning.time.perf_counter", lambda: float(next(ticks)))
    rates = []
    step = torch.optim.Adam.step

    def noting(self, *arguments):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.Adam, "step", noting)
    records = tune_weights(
        model, layers, dense, kept, [tiny_samples()], time_limit=300.0, rate=1e-3, progress=False
    )
    spent = sum(record.seconds for record in records)
    assert 150 < spent <= 300
    assert rates[2] == max(rates)
    assert sorted(rates[2:], reverse=True) == rates[2:]
    assert rates[-1] < 3e-4


@pytest.mark.parametrize("gate", [True, False])
def test_the_heldout_loss_is_measured_no_more_than_needed(monkeypatch, gate):
    pruner = Pruner(
        tiny_loaded(), tiny_samples(), heldout=tiny_samples(4, seed=9), solver="greedy",
        block_size=40, batch_size=3, damping=1.0, gate=gate, progress=False,
    )  # fmt: skip
    pruner.run(1)
    measure, seen = pruner.gate.measure, []
    monkeypatch.setattr(pruner.gate, "measure", lambda: seen.append(measure()) or seen[-1])
    pruner.tune(9)
    # after the eighth and the last step; without a gate once, at the end
    assert len(seen) == (2 if gate else 1)
    assert pruner.gate.loss == pytest.approx(measure(), rel=1e-6)


def test_the_tuning_may_have_batches_of_its_own(monkeypatch):
    common = {"solver": "greedy", "block_size": 40, "batch_size": 4, "damping": 1.0}
    pruner = Pruner(tiny_loaded(), tiny_samples(), tuning_batch_size=3, progress=False, **common)
    assert {len(batch) for batch in pruner._batches} == {4}
    pruner.run(1)
    sizes = []
    gradients = icbs.loop.tuning._gradients

    def noting(model, layers, stored, masks, batch, *rest):
        sizes.append(len(batch))
        return gradients(model, layers, stored, masks, batch, *rest)

    monkeypatch.setattr("icbs.loop.tuning._gradients", noting)
    pruner.tune(3)
    assert sizes == [3, 3, 3]
    with pytest.raises(DataError, match=r"fewer than tuning_batch_size=99; .* lower tuning"):
        Pruner(tiny_loaded(), tiny_samples(), tuning_batch_size=99, progress=False, **common)


def test_same_twice():
    found = []
    for _ in range(2):
        model, layers, dense, kept = pruned(tiny_llama())
        tune_weights(model, layers, dense, kept, [tiny_samples()], steps=4, progress=False)
        found.append({name: layer_weight(layer).clone() for name, layer in layers.items()})
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_bad_input():
    model, layers, dense, kept = pruned(tiny_llama())
    for wrong, message in (
        ({}, "both None; give one"),
        ({"steps": -1}, "steps=-1 and time_limit=None; choose a whole number"),
        ({"time_limit": 0.0}, "seconds above 0"),
        ({"time_limit": float("nan")}, "seconds above 0"),
        ({"steps": 1, "rate": 0.0}, "choose a finite rate"),
        ({"steps": 1, "rate": float("inf")}, "choose a finite rate"),
        ({"steps": 1, "labels": 1.5}, "labels=1.5"),
    ):
        with pytest.raises(SettingError, match=message):
            tune_weights(model, layers, dense, kept, [tiny_samples()], **wrong)
    # The last layer: attention may turn NaN into 0.
    layer_weight(list(layers.values())[-1]).fill_(float("nan"))
    with pytest.raises(ModelError, match="divergence"):
        tune_weights(model, layers, dense, kept, [tiny_samples()], steps=1, progress=False)
