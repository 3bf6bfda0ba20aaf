import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icbs import Pruner
from icbs.baselines.oneshot import prune_once
from icbs.blocks.capture import Forward, capture
from icbs.blocks.gradients import LayerGradients
from icbs.data.samples import next_token
from icbs.errors import (
    DataError,
    DensityError,
    LayerError,
    MemoryLimitError,
    ModelError,
    SettingError,
)
from icbs.evaluation.quality import perplexity
from icbs.loop.passes import BlockPass
from icbs.loop.records import STAGES, StepRecord
from icbs.models.prunable import prunable_layers
from icbs.settings import Settings
from solvers.errors import UnknownSolverError
from tests.icbs_fixtures import BestOfSort, tiny_llama, tiny_loaded, tiny_samples, tiny_tokens

SMALL = {
    "block_size": 40,
    "damping": 1.0,
    "batch_size": 3,
    "fixed_kept": 0.3,
    "fixed_pruned": 0.3,
    "progress": False,
}


def pruner(loaded=None, **options):
    options = {"solver": BestOfSort(), **SMALL, **options}
    return Pruner(loaded or tiny_loaded(), tiny_samples(), **options)


@pytest.mark.parametrize("pattern", [None, "2:4"])
def test_the_loop_starts_from_the_masks_of_row_search(pattern):
    """Those of the one-shot method, in a model whose weights are as trained; steps go on."""
    options = {"init": "rows", "pattern": pattern, "density": 0.5}
    run = pruner(**options)
    trained = {name: layer.weight.clone() for name, layer in run.modules.items()}
    run.initialise()
    once = tiny_loaded()
    layers = prunable_layers(once.model)
    wanted = prune_once(
        "rows", once.model, layers, tiny_samples(), 0.5, pattern=pattern, progress=False
    )
    wanda = pruner(**options | {"init": "wanda"})
    wanda.initialise()
    differ = 0
    for name, layer in run.layers.items():
        kept = ~layer.pruned.view(layer.weight.shape)
        assert torch.equal(kept, wanted[name])
        assert torch.equal(layer.weight, trained[name] * kept)
        assert torch.equal(layer.dense.view(layer.weight.shape), trained[name])
        differ += int((layer.pruned != wanda.layers[name].pruned).sum())
    assert differ
    run.run(2)
    assert len(run.steps) == 2


@settings(max_examples=8)
@given(
    density=st.sampled_from([0.2, 0.5, 0.71]),
    fisher=st.sampled_from(["sequence", "position"]),
    init=st.sampled_from(["wanda", "magnitude", "gradient", "random", "rows"]),
    group=st.sampled_from(["layer", "output", "input"]),
)
def test_density_never_drifts(density, fisher, init, group):
    run = pruner(
        density=density, fisher=fisher, init=init, group=group, gate=False, block_size=16,
        fixed_kept=0.0, fixed_pruned=0.0, damping=0.0,
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
    assert StepRecord.from_json(json.loads(json.dumps(record.to_json()))) == record
    assert len(record.layers) == len(found) == 7
    assert [entry.layer for entry in record.layers] == list(run.modules)
    assert set(record.seconds) == set(STAGES)
    assert record.step == 1
    assert all(entry.predicted <= 0 for entry in record.layers)
    assert record.heldout_after <= record.heldout_before
    assert record.loss_after is None
    assert record.measured == record.heldout_after - record.heldout_before
    assert 0 < record.touched < 1
    alone = pruner(layers="*.1.*").step()
    assert alone.measured == alone.loss_after - alone.loss_before
    with pytest.raises(AttributeError):
        record.step = 2


def test_gate_never_lets_the_heldout_loss_rise():
    run = pruner(heldout=tiny_samples(4, seed=9), damping=0.0)
    run.initialise()
    records = [run.step() for _ in range(5)]
    losses = [records[0].heldout_before, *(r.heldout_after for r in records)]
    assert all(after <= before for before, after in pairwise(losses))
    assert losses[-1] == pytest.approx(run.gate.measure(), rel=1e-6)


def test_undone_step_leaves_the_weights(monkeypatch):
    run = pruner(heldout=tiny_samples(4, seed=9))
    run.initialise()
    before = {name: layer.weight.clone() for name, layer in run.modules.items()}
    monkeypatch.setattr(run.gate, "measure", lambda: float("nan"))
    record = run.step()
    assert record.share == 0
    assert record.swaps == 0
    assert record.predicted == 0
    assert all(torch.equal(layer.weight, before[name]) for name, layer in run.modules.items())
    assert run.step().ridge > record.ridge


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


@pytest.mark.parametrize("fisher", ["sequence", "position", "exact"])
def test_every_curvature_and_selection_steps(fisher):
    for select in ("gradient", "wanda", "magnitude", "random"):
        run = pruner(
            fisher=fisher, select=select, layers="*.1.mlp.*", block_size=12, fixed_kept=0.0,
            fixed_pruned=0.0,
        )  # fmt: skip
        record = run.step()
        assert np.isfinite(record.loss_after)
        assert [entry.n for entry in record.layers] == [12, 12, 12]


def test_mixed_precision_steps_and_the_gate_keeps_the_full_one():
    held = tiny_samples(4, seed=9)
    plain, mixed = (
        pruner(heldout=held, fisher="position", mixed_precision=m) for m in (False, True)
    )
    one, other = plain.step(), mixed.step()
    assert one.heldout_before == other.heldout_before
    assert one.loss_before != other.loss_before == pytest.approx(one.loss_before, rel=0.02)
    assert other.heldout_after <= other.heldout_before
    for name, layer in mixed.layers.items():
        assert layer.weight.dtype == torch.float32, name


@pytest.mark.parametrize("schedule", ["uniform", "size", "gain"])
def test_schedule_gives_every_layer_its_turn(schedule):
    run = pruner(schedule=schedule, layers_per_step=5, block_size=8)
    seen = set()
    for _ in range(24):
        record = run.step()
        names = [entry.layer for entry in record.layers]
        assert len(names) == 5
        assert names == [name for name in run.modules if name in names]
        seen.update(names)
    assert seen == set(run.modules)


def test_gain_schedule_takes_what_promised_most():
    run = pruner(schedule="gain", layers_per_step=5, block_size=8)
    steps = [run.step() for _ in range(5)]
    last = {entry.layer: entry.predicted for record in steps for entry in record.layers}
    assert set(last) == set(run.modules)
    best = sorted(last, key=last.__getitem__)[:5]
    assert {entry.layer for entry in run.step().layers} == set(best)


def test_carried_changes_add_up_to_the_joint_model(monkeypatch):
    """Promises of the blocks of one pass, each knowing those before it, are the joint promise."""
    blocks, moves = [], []
    run = pruner(layers="*.1.mlp.*", block_size=30, on_block=blocks.append, damping=0.0)
    solve = BlockPass.solve

    def noting(*arguments):
        answer = solve(*arguments)
        moves.append(answer())
        return answer

    monkeypatch.setattr(BlockPass, "solve", noting)
    record = run.step()
    rows, linear = 0.0, 0.0
    for block, move in zip(blocks, moves, strict=True):
        change = np.zeros(block.n)
        change[move._revived], change[move._pruned] = -1, 1
        rows = rows - block.factor @ change * np.sqrt(block.scale)
        # the first-order part alone: what is left of the own promise without A's terms
        moved = move.predicted(1.0) - 0.5 * float(np.square(move.rows()).sum())
        linear += moved - float((rows - move.rows()) @ move.rows())
    np.testing.assert_allclose(rows, sum(move.rows() for move in moves), rtol=1e-6, atol=1e-12)
    assert sum(move.swaps(1.0) for move in moves) > 0
    joint = linear + 0.5 * float(rows @ rows)
    assert record.predicted == pytest.approx(joint, rel=1e-6)
    # g.delta summed over the blocks, from the captured gradients themselves
    assert linear == pytest.approx(_first_order(run, blocks, moves), rel=1e-4)


def _first_order(run, blocks, moves):
    undone = pruner(layers="*.1.mlp.*", block_size=30, damping=0.0)
    undone.initialise()
    forward = Forward(undone.loaded.model, undone.modules, undone._batches[0])
    _, captures = capture(forward, undone.modules)
    total = 0.0
    for block, move in zip(blocks, moves, strict=True):
        mean = LayerGradients(captures[move.layer.name]).mean.numpy()
        w0 = move.layer.dense.numpy()
        at = block.indices
        total += float((mean[at] * w0[at])[move._revived].sum())
        total -= float((mean[at] * w0[at])[move._pruned].sum())
    return total


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
        ({"fisher": "none"}, SettingError, "fisher is 'none'"),
        ({"block_size": 2.5}, LayerError, "block_size is 2.5"),
        ({"mixed_precision": True, "fisher": "exact"}, SettingError, "mixed_precision is True"),
        ({"momentum": 1}, SettingError, "momentum is 1"),
        ({"damping": -1}, SettingError, "damping is -1"),
        ({"select": "luck"}, SettingError, "select is 'luck'"),
        ({"layers_per_step": 0}, SettingError, "layers_per_step is 0"),
        ({"k": 3, "block_size": 0.1}, DensityError, "k is 3"),
        ({"dampnig": 3}, SettingError, "no setting 'dampnig'; did you mean 'damping'?"),
        ({"seed": True}, SettingError, "seed is True; choose a whole number from 0"),
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


def test_loss_that_is_nan():
    run = pruner()
    run.initialise()
    with torch.no_grad():
        run.loaded.model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(ModelError, match=r"the loss of sample 0 is nan: check the weights"):
        run.step()


def test_step_that_does_not_fit_says_what_to_lower():
    run = pruner()
    run.initialise()

    def exhausted(*_):
        torch.empty(1 << 60, dtype=torch.uint8)

    run.loaded.model.model.layers[1].register_forward_hook(exhausted)
    with pytest.raises(MemoryLimitError, match=r"a batch of 3 windows of 10 tokens: lower batch"):
        run.step()


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


def test_settings_are_values():
    one, other = (Settings(density=np.float64(0.25), block_size=np.int64(64)) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
    assert type(one.block_size) is int
    changed = replace(one, seed=3)
    assert (changed.seed, changed.density, one.seed) == (3, 0.25, 0)
    with pytest.raises(AttributeError):
        one.seed = 3
    assert replace(one, pattern="1:3", density=0.333).density == 1 / 3
