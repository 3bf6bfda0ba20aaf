from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icbs import Pruner
from icbs.errors import DataError, DensityError, LayerError, ModelError
from icbs.evaluate import perplexity
from icbs.loop import STAGES
from icbs.samples import next_token
from solvers.errors import UnknownSolverError
from tests.icbs_fixtures import BestOfSort, tiny_llama, tiny_loaded, tiny_samples, tiny_tokens

SMALL = {
    "block_size": 40,
    "batch_size": 3,
    "fixed_kept": 0.3,
    "fixed_pruned": 0.3,
    "progress": False,
}


def pruner(loaded=None, **options):
    options = {"solver": BestOfSort(), **SMALL, **options}
    return Pruner(loaded or tiny_loaded(), tiny_samples(), **options)


@settings(max_examples=8, deadline=None)
@given(
    density=st.sampled_from([0.2, 0.5, 0.71]),
    fisher=st.sampled_from(["sequence", "position"]),
    init=st.sampled_from(["wanda", "magnitude", "gradient", "random"]),
    group=st.sampled_from(["layer", "output", "input"]),
)
def test_density_never_drifts(density, fisher, init, group):
    run = pruner(
        density=density, fisher=fisher, init=init, group=group, gate=False, block_size=16,
        fixed_kept=0.0, fixed_pruned=0.0, lam=0.0,
    )  # fmt: skip
    dense = {name: layer.weight.clone() for name, layer in run.modules.items()}
    run.initialise()
    swaps = 0
    for _ in range(3):
        swaps += run.step().swaps
        for name, layer in run.modules.items():
            kept = layer.weight != 0
            assert int(kept.sum()) == round(density * kept.numel())
            # a revived weight has its trained value
            assert torch.equal(layer.weight[kept], dense[name][kept])
    assert swaps > 0
    assert run.density == pytest.approx(density, abs=0.01)
    run.restore()
    assert all(torch.equal(layer.weight, dense[name]) for name, layer in run.modules.items())


def test_record_of_a_step():
    found = []
    run = pruner(layers="*.1.*", on_block=found.append, heldout=tiny_samples(4, seed=9))
    run.initialise()
    record = run.step()
    assert len(record.layers) == len(found) == 7
    assert [entry.layer for entry in record.layers] == list(run.modules)
    assert set(record.seconds) == set(STAGES)
    assert record.step == 1
    assert all(entry.predicted <= 0 for entry in record.layers)
    assert record.heldout_after <= record.heldout_before
    assert record.loss_after == pytest.approx(float(run._batches[0].losses().mean()))
    with pytest.raises(AttributeError):
        record.step = 2


def test_gate_never_lets_the_heldout_loss_rise():
    run = pruner(heldout=tiny_samples(4, seed=9), lam=0.0, gamma=1.0)
    run.initialise()
    records = [run.step() for _ in range(5)]
    losses = [records[0].heldout_before, *(r.heldout_after for r in records)]
    assert all(after <= before for before, after in pairwise(losses))
    now = torch.cat([forward.losses() for forward in run._heldout])
    assert losses[-1] == pytest.approx(float(now.mean()), rel=1e-6)


def test_undone_step_leaves_the_weights(monkeypatch):
    run = pruner(heldout=tiny_samples(4, seed=9))
    run.initialise()
    before = {name: layer.weight.clone() for name, layer in run.modules.items()}
    monkeypatch.setattr(run, "_measure_heldout", lambda: float("nan"))
    record = run.step()
    assert record.share == 0
    assert record.swaps == 0
    assert record.predicted == 0
    assert all(torch.equal(layer.weight, before[name]) for name, layer in run.modules.items())
    assert run.step().lam > record.lam


def test_same_seed_same_run():
    runs = []
    for _ in range(2):
        run = pruner(seed=5, fisher="position", rank=7)
        runs.append([run.step() for _ in range(2)])
    for one, other in zip(*runs, strict=True):
        assert one.layers == other.layers
        assert one.loss_after == other.loss_after


def test_tabu_and_fixed_weights_stay_out():
    blocks = []
    run = pruner(layers="*.1.mlp.up_proj", on_block=blocks.append, tabu=1.0, block_size=60)
    run.initialise()
    (layer,) = run.layers.values()
    for _ in range(3):
        run.step()
    indices = [set(b.indices.tolist()) for b in blocks]
    assert not indices[0] & indices[1]
    assert not any(layer.fixed[list(i)].any() for i in indices)


def test_registered_solver_by_name():
    assert pruner(solver="descent").step().swaps >= 0
    with pytest.raises(UnknownSolverError):
        pruner(solver="nothing")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"density": 0}, DensityError, "density is 0"),
        ({"density": 1}, DensityError, "density is 1"),
        ({"k": 41}, DensityError, "k is 41"),
        ({"tabu": 2}, DensityError, "tabu is 2"),
        ({"layers": "nothing"}, LayerError, "match none"),
        ({"batch_size": 7}, DataError, "batch_size=7"),
        ({"fisher": "exact"}, ValueError, "fisher is 'exact'"),
    ],
)
def test_bad_settings(options, error, message):
    with pytest.raises(error, match=message):
        pruner(**options)


def test_block_larger_than_the_layer():
    run = pruner(block_size=577, layers="*.q_proj")
    run.initialise()
    with pytest.raises(LayerError, match="block"):
        run.step()


def test_weights_that_are_nan():
    loaded = tiny_loaded()
    with torch.no_grad():
        loaded.model.model.layers[1].mlp.up_proj.weight[0, 0] = float("nan")
    with pytest.raises((ModelError, DensityError), match="NaN"):
        pruner(loaded, init="magnitude").initialise()


def test_perplexity_is_that_of_the_whole_text():
    model, tokens = tiny_llama(), tiny_tokens(5)
    with torch.no_grad():
        logits = model(input_ids=tokens).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    value = perplexity(model, next_token(tokens), batch_size=2, progress=False)
    assert value == pytest.approx(float(loss.exp()), rel=1e-5)


def test_perplexity_never_counts_padding():
    model, tokens = tiny_llama(), tiny_tokens(2, 8)
    padded = torch.nn.functional.pad(tokens, (0, 5))
    mask = torch.nn.functional.pad(torch.ones_like(tokens), (0, 5)).bool()
    plain = perplexity(model, next_token(tokens), progress=False)
    assert perplexity(model, next_token(padded, mask), progress=False) == pytest.approx(
        plain, rel=1e-5
    )
    assert np.isfinite(plain)
