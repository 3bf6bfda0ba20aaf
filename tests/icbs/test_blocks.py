import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icbs import export_blocks
from icbs.blocks.build import block_problem
from icbs.blocks.capture import Forward, LayerCapture, capture
from icbs.blocks.gradients import LayerGradients
from icbs.blocks.selection import select_block
from icbs.errors import DataError, DensityError, LayerError, ModelError
from icbs.models.prunable import prunable_layers
from tests.icbs_fixtures import tiny_llama, tiny_loaded, tiny_samples


def random_block(seed, n, r, gamma, lam, permute=True):
    rng = np.random.default_rng(seed)
    J = rng.normal(size=(r, n)) * 10.0 ** rng.integers(-4, 3)
    g, w0 = rng.normal(size=n) * 1e-3, rng.normal(size=n) * 0.1
    pruned = rng.random(n) < 0.5
    problem = block_problem(
        J, g, w0, pruned, gamma=gamma, lam=lam, indices=np.arange(n), rng=rng if permute else None
    )
    return J, g, w0, pruned, problem


blocks = given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 40),
    r=st.integers(1, 12),
    gamma=st.sampled_from([0.0, 0.75, 1.0]),
    lam=st.sampled_from([0.0, 0.001, 1.0]),
)


@settings(max_examples=150)
@blocks
def test_no_move_is_no_change_exactly(seed, n, r, gamma, lam):
    *_, pruned, problem = random_block(seed, n, r, gamma, lam)
    assert float(problem.energy(problem.initial)) == 0.0
    assert problem.cardinality == pruned.sum()
    assert np.array_equal(problem.initial, pruned[problem.indices])


@settings(max_examples=150)
@blocks
def test_energy_is_the_loss_model(seed, n, r, gamma, lam):
    J, g, w0, pruned, problem = random_block(seed, n, r, gamma, lam)
    rng = np.random.default_rng(seed + 1)
    dw = np.where(pruned, -w0, 0)
    for _ in range(5):
        x = rng.random(n) < rng.random()
        delta = -(dw + x * w0)
        terms = np.array(
            [gamma * (g @ delta), 0.5 * np.sum((J @ delta) ** 2), lam * (delta @ delta)]
        )
        energy = float(problem.energy(x[problem.indices])) * problem.scale
        # round-off is relative to the parts that cancel
        u = J @ dw
        size = np.abs(terms).sum() + u @ u + gamma * np.abs(g * w0).sum() + lam * (w0 @ w0)
        assert abs(energy - terms.sum()) <= 1e-12 * max(size, 1e-300)


@settings(max_examples=50)
@blocks
def test_offset_agrees_with_the_formula(seed, n, r, gamma, lam):
    J, g, w0, pruned, problem = random_block(seed, n, r, gamma, lam)
    dw = np.where(pruned, -w0, 0)
    u = J @ dw
    analytic = 0.5 * u @ u - gamma * (g @ dw) + lam * (dw @ dw)
    size = u @ u + gamma * np.abs(g * w0).sum() + lam * (w0 @ w0)
    assert abs(problem.offset * problem.scale - analytic) <= 1e-12 * max(size, 1e-300)


def test_scaling_loses_no_bit():
    *_, plain = random_block(3, 30, 5, 0.75, 0.001, permute=False)
    assert np.log2(plain.scale) == round(np.log2(plain.scale))
    assert 0.2 < np.abs(plain.linear).mean() < 5


def some_capture(seed=0, samples=4, length=6, width=5, out=7):
    generator = torch.Generator().manual_seed(seed)
    return LayerCapture(
        torch.randn(samples, length, width, generator=generator),
        torch.randn(samples, length, out, generator=generator),
        torch.full((samples,), length),
    )


def test_position_fisher_is_the_sum_over_positions():
    seen = some_capture()
    J = LayerGradients(seen).rows(torch.arange(35), "position").double().numpy()
    H = np.zeros((35, 35))
    for s in range(4):
        for t in range(6):
            row = torch.outer(seen.gradients[s, t], seen.activations[s, t]).flatten().numpy()
            H += 6 / 4 * np.outer(row, row)
    np.testing.assert_allclose(J.T @ J, H, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("seeds", "apart"), [(200, 0.15), pytest.param(2000, 0.05, marks=pytest.mark.slow)]
)
def test_sketch_is_unbiased_and_follows_its_seed(monkeypatch, seeds, apart):
    monkeypatch.setattr("icbs.blocks.gradients._CHUNK", 70)
    gradients, indices = LayerGradients(some_capture()), torch.arange(35)
    full = gradients.rows(indices, "position")

    def sketch(seed):
        return gradients.rows(indices, "position", rank=8, rng=np.random.default_rng(seed))

    assert torch.equal(sketch(1), sketch(1))
    assert sketch(1).shape == (8, 35)
    assert not torch.equal(sketch(1), sketch(2))
    mean = sum(rows.T @ rows for rows in map(sketch, range(seeds))) / seeds
    H = full.T @ full
    assert (mean - H).norm() / H.norm() < apart
    whole = gradients.rows(indices, "position", rank=24, rng=np.random.default_rng(0))
    assert torch.equal(whole, full)


def test_sequence_fisher_sums_to_the_mean_gradient():
    gradients, indices = LayerGradients(some_capture()), torch.arange(35)
    rows = gradients.rows(indices) * 2  # sqrt(B) = 2
    torch.testing.assert_close(rows.mean(0), gradients.mean)


@pytest.mark.parametrize("options", [{"fisher": "token"}, {"fisher": "position", "rank": 0},
                                     {"fisher": "position", "rank": 3}])  # fmt: skip
def test_impossible_rows(options):
    with pytest.raises(ValueError, match=r"fisher is|rank is|needs rng"):
        LayerGradients(some_capture()).rows(torch.arange(3), **options)


@settings(max_examples=60)
@given(seed=st.integers(0, 999), n=st.integers(1, 12), data=st.data())
def test_selection(seed, n, data):
    rng = np.random.default_rng(seed)
    k = data.draw(st.integers(0, n))
    change = torch.from_numpy(rng.normal(size=60))
    pruned = torch.from_numpy(rng.permutation(60) < 30)
    free = torch.from_numpy(rng.permutation(60) < 50)
    sides = (free & pruned).sum(), (free & ~pruned).sum()
    if k > sides[0] or n - k > sides[1]:
        return
    chosen = select_block(change, pruned, free, n, k)
    assert len(set(chosen.tolist())) == n
    assert free[chosen].all()
    assert int(pruned[chosen].sum()) == k
    rest = free.clone()
    rest[chosen] = False
    if k:
        left = change[rest & pruned]
        assert not len(left) or change[chosen][pruned[chosen]].max() <= left.min()
    if n > k:
        left = change[rest & ~pruned]
        assert not len(left) or change[chosen][~pruned[chosen]].max() <= left.min()


def test_impossible_blocks():
    change, pruned = torch.arange(10.0), torch.arange(10) < 5
    free = torch.ones(10, dtype=torch.bool)
    with pytest.raises(LayerError, match=r"block_size is 11 and layer 'q' has 10 weights"):
        select_block(change, pruned, free, 11, 2, layer="q")
    with pytest.raises(DensityError, match="k is 5"):
        select_block(change, pruned, free, 4, 5)
    with pytest.raises(LayerError, match="5 free pruned weights"):
        select_block(change, pruned, free, 8, 6)
    with pytest.raises(ModelError, match="weight holds NaN"):
        block_problem(np.ones((1, 2)), np.ones(2), np.array([1, np.nan]), np.array([True, False]))


def test_exported_blocks():
    loaded, samples = tiny_loaded(), tiny_samples(4)
    before = {name: p.clone() for name, p in loaded.model.named_parameters()}
    options = {"layers": "*.1.mlp.*", "sizes": (8, 32), "batch_size": 4, "progress": False}
    found = export_blocks(loaded, samples, **options, rank=5, seed=3)
    assert len(found) == 3 * 2 * 2
    for problem in found:
        assert float(problem.energy(problem.initial)) == 0.0
        assert problem.meta["k"] == problem.cardinality == problem.n // 2
        assert problem.rank == {"sequence": 4, "position": 5}[problem.meta["fisher"]]
        assert problem.meta["layer"].startswith("model.layers.1.mlp.")
        assert not np.array_equal(problem.indices, np.sort(problem.indices))
        # the incumbent is not at the front
        assert not problem.initial[: problem.cardinality].all()
    assert all(torch.equal(p, before[name]) for name, p in loaded.model.named_parameters())
    again = export_blocks(loaded, samples, **options, rank=5, seed=3)
    assert [p.content_hash for p in again] == [p.content_hash for p in found]


def test_exports_that_cannot_be():
    loaded, samples = tiny_loaded(), tiny_samples(4)
    options = {"layers": "*.q_proj", "batch_size": 4, "progress": False}
    with pytest.raises(LayerError, match="block size 577 does not fit"):
        export_blocks(loaded, samples, sizes=[577], **options)
    with pytest.raises(DataError, match="there are 4 samples, fewer than batch_size=5"):
        export_blocks(loaded, samples, sizes=[8], **{**options, "batch_size": 5})
    with pytest.raises(DensityError, match=r"density is 1\.5"):
        export_blocks(loaded, samples, sizes=[8], density=1.5, **options)
    with pytest.raises(LayerError, match="match none"):
        export_blocks(loaded, samples, sizes=[8], **{**options, "layers": "nothing"})


def test_predicted_change_follows_the_measured_one_for_small_steps():
    """With the true weights a tiny swap changes the loss as the first-order part says."""
    model, samples = tiny_llama(), tiny_samples()
    layers = prunable_layers(model, "*.1.mlp.up_proj")
    forward = Forward(model, layers, samples)
    losses, seen = capture(forward, layers)
    ((name, layer),) = layers.items()
    gradients = LayerGradients(seen[name])
    step = torch.randn(layer.weight.numel(), generator=torch.Generator().manual_seed(0)) * 1e-3
    with torch.no_grad():
        layer.weight.add_(step.view_as(layer.weight))
    measured = float((forward.losses().double() - losses.double()).mean())
    assert measured == pytest.approx(float(gradients.mean @ step), rel=0.02)
