"""Row blocks: energies against the layer run with the mask, variants, patterns, bad input."""

import itertools
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, ViTConfig, ViTForImageClassification

from icbs.blocks.kinds import KINDS
from icbs.blocks.layers import prune_layers
from icbs.blocks.moments import Moments, input_moments
from icbs.blocks.positions import real_rows
from icbs.blocks.rowexport import export_rows
from icbs.blocks.rows import joined, mixed, row_problem
from icbs.data.samples import Samples, next_token
from icbs.errors import DataError, DensityError, LayerError, ModelError, SettingError
from icbs.models.loading import LoadedModel
from icbs.models.prunable import layer_weight, prunable_layers
from icbs.settings import Settings
from solvers import CardinalityProblem
from tests.icbs_fixtures import tiny_loaded, tiny_samples, tiny_tokens


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def gpt2():
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=61, n_positions=32, n_embd=16, n_layer=2, n_head=2, initializer_range=0.3
    )
    return LoadedModel(GPT2LMHeadModel(config).eval(), None, "gpt2", "random")


def vit():
    torch.manual_seed(0)
    config = ViTConfig(
        image_size=8, patch_size=4, num_channels=1, hidden_size=16, intermediate_size=24,
        num_hidden_layers=2, num_attention_heads=2, num_labels=3, initializer_range=0.3,
    )  # fmt: skip
    model = ViTForImageClassification(config).eval()
    rng = np.random.default_rng(2)
    images = torch.from_numpy(rng.normal(size=(9, 1, 8, 8)).astype(np.float32))
    return LoadedModel(model, None, "vit", "random"), Samples(images, torch.arange(9) % 3)


def padded():
    mask = torch.ones(6, 10, dtype=torch.bool)
    mask[1, 4:] = mask[4, 7:] = False
    return next_token(tiny_tokens(), mask)


CASES = {
    "Linear": lambda: (tiny_loaded(), tiny_samples(), "*.1.mlp.down_proj"),
    "padding": lambda: (tiny_loaded(), padded(), "*.1.self_attn.o_proj"),
    "Conv1D": lambda: (gpt2(), tiny_samples(), "*.1.mlp.c_fc"),
    "images": lambda: (*vit(), "*.layers.1.*o_proj"),
}


def inputs(model, layers, samples):
    """What each layer sees at real positions, float64, one pass."""
    seen = {}
    handles = [
        layer.register_forward_pre_hook(
            lambda module, args, name=name: seen.__setitem__(
                name, real_rows(module, args, samples, name).double()
            )
        )
        for name, layer in layers.items()
    ]
    with torch.no_grad():
        model(**samples.arguments(model))
    for handle in handles:
        handle.remove()
    return seen


def output(layer, weight, x):
    """The layer's own output with other weights, float64, without bias."""
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=torch.float64)
    with torch.no_grad():
        module.weight.copy_(weight)
        return module(x)


def masks(problem, rng, count=5):
    return [problem.initial, *(problem.random_state(rng) for _ in range(count))]


def after(layer, problem, x):
    """The trained weights with one row masked as x says."""
    weight = layer_weight(layer).double().clone()
    weight[problem.meta["row"], problem.indices[x.astype(bool)]] = 0
    return weight


@pytest.mark.parametrize("pattern", [None, "2:4"])
@pytest.mark.parametrize("case", CASES)
def test_energy_is_the_share_of_the_output_that_is_lost(case, pattern, rng):
    loaded, samples, glob = CASES[case]()
    problems = export_rows(loaded, samples, layers=glob, rows=(0, 3), pattern=pattern)
    modules = dict(loaded.model.named_modules())
    for problem in problems:
        layer, o = modules[problem.meta["layer"]], problem.meta["row"]
        x = inputs(loaded.model, {"it": layer}, samples)["it"]
        wanted = output(layer, layer_weight(layer).double(), x)[:, o]
        for mask in masks(problem, rng):
            got = output(layer, after(layer, problem, mask), x)[:, o]
            share = float((wanted - got).square().sum() / wanted.square().sum())
            assert problem.energy(mask) == pytest.approx(share, rel=1e-10)
            mean = float((wanted - got).square().mean())
            assert problem.energy(mask) * problem.scale == pytest.approx(mean, rel=1e-10)


@pytest.mark.parametrize("case", CASES)
def test_sequential_targets_are_the_trained_models(case, rng):
    loaded, samples, glob = CASES[case]()
    model, modules = loaded.model, dict(loaded.model.named_modules())
    before = {name: p.clone() for name, p in model.named_parameters()}
    problems = export_rows(loaded, samples, layers=glob, rows=(1,), density=0.6, sequential=True)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    for problem in problems:
        name = problem.meta["layer"]
        layer, o = modules[name], problem.meta["row"]
        x = inputs(model, {"it": layer}, samples)["it"]
        wanted = output(layer, layer_weight(layer).double(), x)[:, o]
        with wanda_everywhere(loaded, samples, 0.6):
            y = inputs(model, {"it": layer}, samples)["it"]
        assert not torch.equal(x, y)
        for mask in masks(problem, rng):
            got = output(layer, after(layer, problem, mask), y)[:, o]
            share = float((wanted - got).square().sum() / wanted.square().sum())
            assert problem.energy(mask) == pytest.approx(share, rel=1e-10)


@contextmanager
def wanda_everywhere(loaded, samples, density):
    settings = Settings(density=density, batch_size=len(samples))
    layers = prunable_layers(loaded.model, "*")
    pruned = prune_layers(loaded.model, layers, samples, settings)
    yield
    for layer in pruned.values():
        layer.restore()


def test_weighted_energies_weigh_positions_by_the_losss_gradient(rng):
    loaded, samples, glob = CASES["padding"]()
    (problem,) = export_rows(loaded, samples, layers=glob, rows=(2,), weighted=True)
    layer = dict(loaded.model.named_modules())[problem.meta["layer"]]
    kept = {}

    def hook(module, args, out):
        kept["x"] = args[0].detach().flatten(0, 1).double()
        out.requires_grad_().register_hook(lambda d: kept.update(d=d.flatten(0, 1).double()))

    handle = layer.register_forward_hook(hook)
    logits = loaded.model(**samples.arguments(loaded.model)).logits
    handle.remove()
    for s in range(len(samples)):
        loss = nn.functional.cross_entropy(logits[s], samples.targets[s])
        loss.backward(retain_graph=True)
        kept["all"] = kept.get("all", 0) + kept["d"]
    weights = kept["all"][:, problem.meta["row"]].square()
    wanted = output(layer, layer_weight(layer).double(), kept["x"])[:, problem.meta["row"]]
    for mask in masks(problem, rng):
        got = output(layer, after(layer, problem, mask), kept["x"])[:, problem.meta["row"]]
        lost = float((weights * (wanted - got).square()).sum())
        # The gradients are of float32.
        share = lost / float((weights * wanted.square()).sum())
        assert problem.energy(mask) == pytest.approx(share, rel=1e-4)


def test_shrunk_energies_and_wandas_ranking(rng):
    loaded, samples, glob = CASES["Linear"]()
    kinds = {a: export_rows(loaded, samples, layers=glob, rows=(5,), shrinkage=a)[0]
             for a in (0.0, 0.3, 1.0)}  # fmt: skip
    none, some, all_of_it = kinds.values()
    for mask in masks(none, rng):
        wanted = 0.7 * none.energy(mask) + 0.3 * all_of_it.energy(mask)
        assert some.energy(mask) == pytest.approx(wanted, rel=1e-10)
    layer = dict(loaded.model.named_modules())[all_of_it.meta["layer"]]
    x = inputs(loaded.model, {"it": layer}, samples)["it"]
    scores = (layer_weight(layer)[5].double().abs() * x.norm(dim=0)).numpy()
    assert not (all_of_it.gram() - np.diag(all_of_it.diagonal)).any()
    assert np.array_equal(np.argsort(scores), all_of_it.indices[np.argsort(all_of_it.diagonal)])
    # And Wanda's mask is its optimum.
    best = np.sort(all_of_it.diagonal)[: all_of_it.cardinality].sum() / 2
    assert all_of_it.energy(all_of_it.initial) == pytest.approx(best, rel=1e-12)


def test_a_mix_is_the_row_and_its_loss_block(rng):
    loaded, samples, glob = CASES["Linear"]()

    def row(lam):
        return export_rows(loaded, samples, layers=glob, rows=(4,), lam=lam)[0]

    plain, loss = row(0.0), row(1.0)
    assert float(loss.energy(loss.initial)) == pytest.approx(0, abs=1e-12)
    assert loss.linear.any()
    for lam in (0.25, 0.75):
        mix = row(lam)
        assert mix.meta["kind"] == "mix"
        for mask in masks(plain, rng):
            wanted = (1 - lam) * plain.energy(mask) + lam * loss.energy(mask)
            assert mix.energy(mask) == pytest.approx(wanted, rel=1e-10)
    # Both quadratics weigh the same.
    assert loss.diagonal.sum() == pytest.approx(plain.diagonal.sum())
    flat = CardinalityProblem(
        linear=plain.linear, cardinality=plain.cardinality, quadratic=np.zeros((40, 40))
    )
    with pytest.raises(LayerError, match="no influence"):
        mixed(plain, flat, 0.5)


def test_states_of_a_pattern_are_its_patterns():
    H = np.eye(8)
    w = np.arange(1.0, 9)
    pruned = np.array([1, 1, 0, 0, 0, 1, 1, 0], dtype=bool)
    problem = row_problem(Moments(H, 9), w, pruned, pattern="2:4")
    states = np.array(list(itertools.product([0, 1], repeat=8)))
    valid = (states.reshape(-1, 2, 4).sum(2) == 2).all(1)
    assert np.array_equal([problem.is_feasible(s) for s in states], valid)
    assert valid.sum() == 36
    uneven = row_problem(Moments(H, 9), w, np.arange(8) % 4 == 0, pattern="3:4")
    assert uneven.group_ones.tolist() == [1, 1]


def test_rows_together_lose_a_share_of_their_power_together(rng):
    loaded, samples, glob = CASES["Linear"]()
    parts = export_rows(loaded, samples, layers=glob, rows=(1, 6))
    (layer,) = export_rows(loaded, samples, layers=glob, rows=(1, 6), budget="layer")
    assert layer.n == 2 * parts[0].n
    assert layer.groups is None
    (grouped,) = export_rows(loaded, samples, layers=glob, rows=(1, 6), budget="rows")
    assert grouped.group_ones.tolist() == [p.cardinality for p in parts]
    assert "rows as groups" in grouped.meta["fisher"]
    rows = joined(parts, one_budget=False)
    assert rows.num_groups == 2
    for _ in range(5):
        a, b = (p.random_state(rng) for p in parts)
        lost = sum(float(p.energy(x)) * p.scale for p, x in zip(parts, (a, b), strict=True))
        wanted = lost / sum(p.scale for p in parts)
        assert rows.energy(np.concatenate([a, b])) == pytest.approx(wanted, rel=1e-10)
        flat = np.zeros((24, 40), dtype=bool)
        flat[1, parts[0].indices], flat[6, parts[1].indices] = a, b
        assert layer.energy(flat.reshape(-1)[layer.indices]) == pytest.approx(wanted, rel=1e-10)
    patterned = export_rows(loaded, samples, layers=glob, rows=(1, 6), pattern="2:4")
    assert joined(patterned, one_budget=False).num_groups == 20
    with pytest.raises(DensityError, match="one_budget"):
        joined(patterned, one_budget=True)


def test_moments_do_not_depend_on_the_batches():
    loaded, _, _ = CASES["Linear"]()
    layers = {"it": loaded.model.model.layers[0].mlp.down_proj}
    samples = tiny_samples(count=21)
    moments = input_moments(loaded.model, layers, samples)["it"]
    x = inputs(loaded.model, layers, samples)["it"]
    assert moments.positions == 210
    assert np.allclose(moments.gram, (x.T @ x / 210).numpy(), rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"rows": (24,)}, LayerError, "24.*24 outputs.*0..23"),
        ({"rows": (-1,)}, LayerError, "-1"),
        ({"rows": ()}, LayerError, "rows is"),
        ({"rows": (2, 2)}, LayerError, "once"),
        ({"rows": 25}, LayerError, "rows is 25"),
        ({"density": 1.5}, DensityError, "1.5"),
        ({"shrinkage": 1.5}, SettingError, "shrinkage is 1.5"),
        ({"lam": -0.1}, SettingError, "lam is -0.1"),
        ({"pattern": "2:3", "density": 2 / 3}, DensityError, "2:3"),
        ({"pattern": "2:4", "density": 0.3}, DensityError, "0.3"),
        ({"sequential": True, "weighted": True}, SettingError, "sequential and weighted"),
        ({"budget": "layer", "pattern": "2:4"}, DensityError, "budget"),
        ({"budget": "layer", "lam": 0.5}, SettingError, "budget"),
        ({"colour": 1}, SettingError, "colour"),
    ],
)
def test_bad_settings_are_one_sentence(settings, error, words):
    loaded, samples, glob = CASES["Linear"]()
    before = [p.clone() for p in loaded.model.parameters()]
    with pytest.raises(error, match=words) as refused:
        export_rows(loaded, samples, layers=glob, **settings)
    assert "\n" not in str(refused.value)
    assert all(map(torch.equal, before, loaded.model.parameters()))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda layer: layer.weight[3].zero_(), LayerError, "row 3 .*weights are all 0"),
        (lambda layer: layer.weight[3, 2].fill_(float("nan")), ModelError, "NaN"),
    ],
)
def test_bad_weights_are_one_sentence(change, error, words):
    loaded, samples, glob = CASES["Linear"]()
    layer = loaded.model.model.layers[1].mlp.down_proj
    with torch.no_grad():
        change(layer)
    before = layer.weight.clone()
    with pytest.raises(error, match=words):
        export_rows(loaded, samples, layers=glob, rows=(3,))
    assert torch.equal(before.nan_to_num(9), layer.weight.nan_to_num(9))


def test_inputs_that_are_all_zero_are_refused():
    loaded, samples, glob = CASES["Linear"]()
    with torch.no_grad():
        loaded.model.model.layers[1].mlp.up_proj.weight.zero_()
    with pytest.raises(LayerError, match=r"row 3 .*inputs are all 0"):
        export_rows(loaded, samples, layers=glob, rows=(3,))


def test_bad_samples_are_one_sentence():
    loaded, samples, glob = CASES["images"]()
    bare = samples.inputs.clone()
    bare[0, 0, 0, 0] = float("nan")
    for bad, words in (
        (samples[:0], "there are no samples"),
        (Samples(bare, samples.targets), "images hold NaN"),
    ):
        with pytest.raises(DataError, match=words):
            export_rows(loaded, bad, layers=glob, progress=False)


def test_a_mask_without_the_pattern_is_refused():
    with pytest.raises(DensityError, match=r"keeps 0 of inputs 0\.\.3"):
        row_problem(Moments(np.eye(8), 1), np.ones(8), np.arange(8) < 4, pattern="2:4")
    with pytest.raises(DensityError, match="does not fit"):
        row_problem(Moments(np.eye(6), 1), np.ones(6), np.arange(6) < 3, pattern="2:4")


def test_every_kind_says_what_it_is():
    for kind in KINDS.values():
        assert 40 < len(kind.meaning) < 200
        assert "\n" not in kind.meaning
        assert callable(kind.export)
