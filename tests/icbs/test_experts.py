"""Mixture-of-experts models: every matrix of every expert is a layer, whatever prunes it."""

import copy

import pytest
import torch

from icbs import Pruner
from icbs.baselines.oneshot import BASELINES, prune_once
from icbs.blocks.capture import Forward, capture, input_norms
from icbs.blocks.gradients import LayerGradients
from icbs.blocks.hessian import block_hessian
from icbs.blocks.probe import usable_layers
from icbs.blocks.rowexport import export_rows
from icbs.errors import LayerError, ModelError
from icbs.evaluation.losses import sample_losses
from icbs.evaluation.quality import evaluate
from icbs.models.coverage import IDLE, coverage
from icbs.models.experts import ExpertLinear, parameter_of
from icbs.models.loading import LoadedModel
from icbs.models.prunable import as_stored, layer_weight, prunable_layers
from tests.icbs.factories import EXPERTS, FAMILIES, MOE, TURNED, moe, samples_of
from tests.icbs_fixtures import BestOfSort, tiny_loaded, tiny_samples


@pytest.mark.parametrize("family", MOE)
def test_our_forward_is_that_of_transformers(family):
    model, samples = moe(family), samples_of()
    with torch.no_grad():
        before = model(**samples.arguments(model)).logits
        layers = prunable_layers(model)
        after = model(**samples.arguments(model)).logits
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
    experts = [name for name, layer in layers.items() if isinstance(layer, ExpertLinear)]
    assert len(experts) == EXPERTS.get(family, 16)
    # always the same layers, so that a run and its checkpoint speak of the same ones
    assert all(layer is layers[name] for name, layer in prunable_layers(model).items())


@pytest.mark.parametrize("family", MOE)
def test_writing_a_layer_writes_the_stack(family):
    model = moe(family)
    layers = prunable_layers(model)
    chosen = {n: m for n, m in layers.items() if isinstance(m, ExpertLinear) and ".2." in n}
    versions = {n: p._version for n, p in model.named_parameters()}
    for layer in chosen.values():
        layer_weight(layer)[1, 2] = 7.0
    parameters = dict(model.named_parameters())
    written = {parameter_of(name, layer): layer for name, layer in chosen.items()}
    assert len(written) == len(chosen)
    for name, layer in written.items():
        stack = parameters[name].unflatten(0, (4, -1)) if family == "dbrx" else parameters[name]
        turned = name.rpartition(".")[2] in TURNED.get(family, ())
        assert layer.transposed == turned
        assert (stack == 7.0).nonzero().tolist() == [[2, 2, 1] if turned else [2, 1, 2]]
        assert parameters[name]._version > versions[name]


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_equal_autograd_sample_by_sample(family, padded):
    model, samples = moe(family), samples_of(padded=padded)
    layers = usable_layers(model, "*", samples).layers
    losses, seen = capture(Forward(model, layers, samples), layers)
    assert sum(isinstance(layers[name], ExpertLinear) for name in seen) >= 6
    weights = {name: layers[name].get_parameter("weight").requires_grad_(True) for name in seen}
    logits = model(**samples.arguments(model)).logits
    again, _ = sample_losses(logits, samples.targets)
    torch.testing.assert_close(losses, again.detach(), rtol=1e-4, atol=1e-5)
    for s in range(len(samples)):
        expected = torch.autograd.grad(
            again[s], list(weights.values()), retain_graph=True, allow_unused=True
        )
        for name, gradient in zip(weights, expected, strict=True):
            if getattr(layers[name], "transposed", False):
                gradient = gradient.T
            found = LayerGradients(seen[name])
            torch.testing.assert_close(
                found.per_sample[s], gradient.reshape(-1), rtol=1e-3, atol=1e-5
            )
            # one row a position of the batch, in the place that it has in every other layer
            rows = found.rows(torch.arange(gradient.numel()), "position")
            assert len(rows) == samples.inputs.numel()


@pytest.mark.parametrize("family", FAMILIES)
def test_norms_are_those_of_the_routed_positions(family):
    model, samples = moe(family), samples_of(padded=True)
    layers = usable_layers(model, "*", samples).layers
    seen = {name: [] for name in layers}
    mask, handles = samples.mask.reshape(-1), []
    for name, layer in layers.items():
        if isinstance(layer, ExpertLinear):

            def hook(module, args, name=name):
                x, tokens, total = args
                assert total == mask.numel()
                seen[name] += [row for row, t in zip(x, tokens.tolist(), strict=True) if mask[t]]

            handles.append(layer.register_forward_pre_hook(hook))
    model(**samples.arguments(model))
    for handle in handles:
        handle.remove()
    norms = input_norms(model, layers, samples, batch_size=len(samples))
    for name, rows in seen.items():
        if rows:
            torch.testing.assert_close(norms[name], torch.stack(rows).norm(dim=0))
        else:
            assert (name in norms) != isinstance(layers[name], ExpertLinear)


@pytest.mark.parametrize("method", BASELINES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_method_prunes_every_expert_exactly(family, method):
    model, samples = moe(family), samples_of()
    layers = usable_layers(model, "*", samples).layers
    masks = prune_once(method, model, layers, samples, 0.5, progress=False)
    assert list(masks) == list(layers) or set(masks) == set(layers)
    for name, layer in layers.items():
        assert not layer_weight(layer)[~masks[name]].any()
    sizes = {name: layer_weight(layer).numel() for name, layer in layers.items()}
    if method == "cbs":
        kept = sum(int(mask.sum()) for mask in masks.values())
        assert kept == round(0.5 * sum(sizes.values()))
    else:
        assert all(int(masks[name].sum()) == round(0.5 * size) for name, size in sizes.items())
    if method != "cbs":
        left = coverage(model, layers).left
        idle = sum(part.weights for part in left if part.reason == IDLE)
        zeros = sum(int((p == 0).sum()) for p in model.parameters() if p.ndim == 3)
        stacks = sum(p.numel() for p in model.parameters() if p.ndim == 3)
        assert zeros == (stacks - idle) // 2


@pytest.mark.parametrize("fisher", ["sequence", "position", "exact"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_loop_repair_and_tuning(family, fisher):
    model, samples = moe(family), samples_of()
    loaded = LoadedModel(model, None, family, "random")
    run = Pruner(
        loaded, samples, solver=BestOfSort(), density=0.5, block_size=12, batch_size=3,
        fisher=fisher, heldout=samples_of(count=3), progress=False,
    )  # fmt: skip
    run.initialise()
    first = evaluate(model, run.heldout, progress=False).loss
    run.step()
    run.refit()
    run.tune(2, rate=1e-3)
    assert evaluate(model, run.heldout, progress=False).loss <= first
    for name, layer in run.layers.items():
        zero = layer_weight(run.modules[name]) == 0
        assert torch.equal(zero.reshape(-1), layer.pruned)
        assert int(zero.sum()) == layer.size - round(0.5 * layer.size)


@pytest.mark.parametrize("family", ["mixtral", "gpt_oss"])
def test_hessian_of_an_expert(family):
    """Equal to central differences of the gradient."""
    model, samples = moe(family).double(), samples_of()
    layers = prunable_layers(model)
    name = next(n for n in input_norms(model, layers, samples) if ".experts." in n)
    layer = layers[name]
    at = torch.tensor([0, 5, 40])
    found = block_hessian(Forward(model, {name: layer}, samples), layer, at).double()
    weight, step, rows = layer_weight(layer), 1e-5, []
    for index in at.tolist():
        place = divmod(index, weight.shape[1])
        sides = []
        for sign in (1, -1):
            weight[place] += sign * step
            _, seen = capture(Forward(model, {name: layer}, samples), {name: layer})
            sides.append(LayerGradients(seen[name]).mean[at].double())
            weight[place] -= sign * step
        rows.append((sides[0] - sides[1]) / (2 * step))
    torch.testing.assert_close(found, torch.stack(rows), rtol=0.05, atol=3e-3)


def with_idle_experts():
    """A model of which two of the four experts of each layer get nothing."""
    model = moe("mixtral", num_experts_per_tok=1)
    with torch.no_grad():
        for layer in model.model.layers:
            # the router sees one number, and its sign chooses between two of the four experts
            layer.post_attention_layernorm.weight.fill_(0.0)
            layer.post_attention_layernorm.weight[0] = 1.0
            layer.mlp.gate.weight[:, 0] = torch.tensor([1.0, -1.0, 0.5, 0.0])
    return model


def test_an_expert_that_nothing_reaches_has_no_row_blocks():
    loaded = LoadedModel(with_idle_experts(), None, "mixtral", "random")
    idle = "model.layers.0.mlp.experts.2.*"
    with pytest.raises(LayerError, match=r"no sample reaches layer .*0\.mlp\.experts\.2"):
        export_rows(loaded, samples_of(), layers=idle, rows=1, progress=False)


def test_an_expert_that_nothing_reaches_is_pruned_by_magnitude():
    model, samples = with_idle_experts(), samples_of()
    layers = prunable_layers(model)
    idle = set(layers) - set(input_norms(model, layers, samples))
    assert {name.split(".experts.")[1][0] for name in idle} >= {"2", "3"}
    loaded = LoadedModel(model, None, "mixtral", "random")
    run = Pruner(loaded, samples, solver=BestOfSort(), batch_size=3, group="layer", progress=False)
    run.initialise()
    assert set(run.unreached) == idle
    for name in idle:
        layer = run.layers[name]
        kept, gone = layer.dense[~layer.pruned].abs(), layer.dense[layer.pruned].abs()
        assert kept.min() >= gone.max()
    record = run.step()
    # nothing is decided in a layer that the batch does not reach, and the record says so
    assert {entry.layer for entry in record.layers if not entry.n} >= idle
    assert [entry.layer for entry in record.layers] == list(run.layers)
    assert not any(run.layers[name].touched.any() for name in idle)


@pytest.mark.parametrize("method", ["wanda", "gradient", "sparsegpt"])
def test_idle_experts_are_told(method, capsys):
    model = moe("mixtral", num_local_experts=16, num_experts_per_tok=1)
    layers = prunable_layers(model)
    prune_once(method, model, layers, samples_of(1), 0.5)
    err = " ".join(capsys.readouterr().err.split())
    assert "no calibration sample reached the expert of model.layers.0.mlp.experts." in err
    assert "pruned by magnitude" in err


def test_layers_before_the_chosen_experts_run_once():
    model, samples = moe("mixtral"), samples_of()
    layers = prunable_layers(model, "*.1.mlp.experts.*")
    runs = []
    model.model.layers[0].self_attn.q_proj.register_forward_hook(lambda *_: runs.append(1))
    forward = Forward(model, layers, samples)
    one, two = forward.losses(), forward.losses()
    assert torch.equal(one, two)
    assert len(runs) == 1
    # the stack before them changes, so the kept states are of no use any more
    layer_weight(prunable_layers(model, "*.0.mlp.experts.0.down_proj").popitem()[1])[:] = 1.0
    assert not torch.equal(forward.losses(), one)
    assert len(runs) == 2


def test_copies_and_moves_have_their_own_views():
    model, samples = moe("gpt_oss"), samples_of()
    prunable_layers(model)
    other = copy.deepcopy(model)
    for layer in prunable_layers(other, "*.experts.*").values():
        layer_weight(layer).zero_()
    assert evaluate(model, samples, progress=False) != evaluate(other, samples, progress=False)
    model.to(torch.bfloat16)
    for layer in prunable_layers(model).values():
        assert layer_weight(layer).dtype == torch.bfloat16
    evaluate(model, samples, progress=False)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_layer_may_compute_with_other_weights_for_a_while(family):
    """As in tuning, where the dense weights are put in to ask the dense model."""
    model, samples = moe(family), samples_of()
    layers = usable_layers(model, "*", samples).layers
    with torch.no_grad():
        wanted = model(**samples.arguments(model)).logits
        dense = {name: layer_weight(layer).clone() for name, layer in layers.items()}
        for layer in layers.values():
            layer_weight(layer).mul_(0.5)
        assert not torch.allclose(model(**samples.arguments(model)).logits, wanted)
        for name, layer in layers.items():
            layer.get_parameter("weight").data = as_stored(layer, dense[name])
        torch.testing.assert_close(model(**samples.arguments(model)).logits, wanted)


def test_products_that_are_not_known_are_refused():
    class Experts(torch.nn.Module):
        num_experts, input_size, output_size = 3, 4, 4

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(3, 4, 4))

        def forward(self, x, index=None):
            return (x if index is None else x[index]) @ self.weight[1]

    model = Experts()
    assert len(prunable_layers(model)) == 3
    with pytest.raises(ModelError, match="Experts multiplies its stack in a way not known"):
        model(torch.ones(2, 4))
    model.weight.data = model.weight.data + 1
    prunable_layers(model)
    with pytest.raises(ModelError, match="multiplies its stack"):
        model(torch.ones(2, 4), torch.tensor([0, 1]))
    # nothing is left behind
    assert torch.equal(torch.ones(2, 4) @ model.weight[1], torch.full((2, 4), 8.0))


def test_an_interrupted_pass_leaves_nothing_behind():
    model, samples = moe("mixtral"), samples_of()
    layers = prunable_layers(model)

    def interrupt(module, args):
        raise KeyboardInterrupt

    handle = model.model.layers[1].register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        model(**samples.arguments(model))
    handle.remove()
    assert not torch.overrides._get_current_function_mode_stack()
    # each layer is run once, as ever
    capture(Forward(model, layers, samples), layers)


def test_the_old_name_of_the_refit_warns():
    run = Pruner(
        tiny_loaded(), tiny_samples(), solver=BestOfSort(), batch_size=3, layers="*.1.mlp.*",
        progress=False,
    )  # fmt: skip
    run.initialise()
    with pytest.warns(DeprecationWarning, match="repair is now refit"):
        assert run.repair()
