"""N:M patterns hold after every step, whatever the solver answers and the gate lets through."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

from icbs import Pruner
from icbs.blocks.selection import select_pairs
from icbs.errors import DensityError, LayerError, SettingError
from icbs.loop.moves import keep_pattern
from icbs.models.loading import LoadedModel
from solvers.problem import CardinalityProblem
from tests.icbs.factories import same
from tests.icbs_fixtures import BestOfSort, tiny_loaded, tiny_samples

OPTIONS = {"block_size": 40, "damping": 1.0, "batch_size": 3, "progress": False}


def tiny_gpt2():
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=61, n_embd=16, n_layer=2, n_head=2, n_positions=32, bos_token_id=1,
        eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.3)
    return LoadedModel(model, None, "tiny-gpt2", "random")


def pruner(loaded=None, **options):
    options = {"solver": "descent", "pattern": "2:4", **OPTIONS, **options}
    return Pruner(loaded or tiny_loaded(), tiny_samples(), **options)


def assert_pattern(run, n, m):
    """Group by group, on the weights as the module itself stores them."""
    for name, module in run.modules.items():
        stored = module.weight.detach()
        matrix = stored.T if isinstance(module, Conv1D) else stored
        for row in matrix.numpy():
            for start in range(0, len(row), m):
                assert np.count_nonzero(row[start : start + m]) == n, (name, start)


@pytest.mark.parametrize("make", [tiny_loaded, tiny_gpt2])
@pytest.mark.parametrize(("pattern", "solver"), [("2:4", BestOfSort()), ("4:8", "descent")])
def test_every_group_after_every_step(make, pattern, solver):
    n, m = map(int, pattern.split(":"))
    run = pruner(make(), pattern=pattern, density=n / m, solver=solver, layers="*.1.*")
    run.initialise()
    assert_pattern(run, n, m)
    swaps = 0
    for _ in range(3):
        swaps += run.step().swaps
        assert_pattern(run, n, m)
    assert swaps > 0
    assert run.density == n / m


def test_any_share_of_a_move_and_its_undoing(monkeypatch):
    """The gate refuses all, so every share is applied and undone before the next."""
    run = pruner(layers="*.1.*", heldout=tiny_samples(4, seed=9))
    run.initialise()
    before = {name: module.weight.detach().clone() for name, module in run.modules.items()}
    changed = []

    def refuse():
        assert_pattern(run, 2, 4)
        changed.append(sum(int((m.weight != before[n]).sum()) for n, m in run.modules.items()))
        return float("nan")

    monkeypatch.setattr(run.gate, "measure", refuse)
    record = run.step()
    assert record.share == 0
    assert changed[0] > changed[1] > changed[2] > 0
    assert all(torch.equal(m.weight, before[name]) for name, m in run.modules.items())


def test_blocks_are_pairs_of_one_group_each():
    blocks = []
    run = pruner(layers="*.1.mlp.*", on_block=blocks.append, tabu=0.5, fixed_kept=0.2)
    for _ in range(2):
        run.step()
    for block in blocks:
        assert block.n == 40
        assert block.cardinality == 20
        groups = block.indices // 4
        assert sorted(groups[block.initial]) == sorted(groups[~block.initial])
        assert len(set(groups)) == 20


@settings(max_examples=40)
@given(seed=st.integers(0, 999), pairs=st.integers(1, 6))
def test_pairs_are_the_best_by_brute_force(seed, pairs):
    rng = np.random.default_rng(seed)
    change = torch.from_numpy(rng.permutation(24).astype(np.float32))
    pruned = torch.from_numpy(np.concatenate([rng.permutation(4) < 2 for _ in range(6)]))
    free = torch.from_numpy(rng.random(24) < 0.8)
    best = []
    for start in range(0, 24, 4):
        at = range(start, start + 4)
        both = [
            (float(change[i] + change[j]), i, j)
            for i in at for j in at
            if free[i] and free[j] and pruned[i] and not pruned[j]
        ]  # fmt: skip
        best += [min(both)] if both else []
    if len(best) < pairs:
        with pytest.raises(LayerError, match=f"'up' has {len(best)} groups of 4"):
            select_pairs(change, pruned, free, pairs, 4, layer="up")
        return
    found = select_pairs(change, pruned, free, pairs, 4).tolist()
    total = sum(value for value, _, _ in sorted(best)[:pairs])
    assert float(change[found].sum()) == total
    assert {(i, j) for i, j in zip(found[:pairs], found[pairs:], strict=True)} <= {
        (i, j) for _, i, j in best
    }


@settings(max_examples=30)
@given(seed=st.integers(0, 999))
def test_half_a_pair_is_put_back(seed):
    rng = np.random.default_rng(seed)
    order = rng.permutation(10)
    pruned = np.array([True] * 5 + [False] * 5)[order]
    indices = np.concatenate([np.arange(5) * 4, np.arange(5) * 4 + 3])[order]
    problem = CardinalityProblem(
        linear=rng.normal(size=10), factor=np.zeros((1, 10)), cardinality=5, initial=pruned,
        indices=indices,
    )  # fmt: skip
    states = rng.random((6, 10)) < 0.5
    kept = keep_pattern(problem, states, 4)
    for state, result in zip(states, kept, strict=True):
        for group in range(5):
            pair = np.flatnonzero(indices // 4 == group)
            both = (state[pair] != pruned[pair]).all()
            assert (result[pair] == (state if both else pruned)[pair]).all()


def test_resumed_run_is_the_uninterrupted_one(tmp_path):
    options = {"layers": "*.1.self_attn.*", "tabu": 0.3, "heldout": tiny_samples(4, seed=9)}
    path = tmp_path / "run.safetensors"
    whole = pruner(**options)
    whole.run(3)
    pruner(**options).run(2, checkpoint=path)
    resumed = pruner(**options)
    resumed.run(3, checkpoint=path)
    same(whole, resumed)
    assert_pattern(resumed, 2, 4)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"pattern": "4:2", "density": 0.5}, DensityError, "pattern is '4:2'"),
        ({"pattern": "half"}, DensityError, "pattern is 'half'; choose N:M"),
        ({"density": 0.4}, DensityError, r"density is 0\.4, and pattern 2:4 keeps 0\.5"),
        ({"k": 20}, SettingError, "k is 20, which pattern 2:4 decides by itself"),
        ({"group": "layer"}, SettingError, "group is 'layer'"),
        ({"block_size": 41}, LayerError, "block_size is 41 .* choose an even number"),
    ],
)
def test_settings_that_cannot_be(options, error, message):
    with pytest.raises(error, match=message):
        pruner(**options)


def test_width_that_does_not_divide():
    loaded = tiny_loaded()
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    # Inputs of 24 and, in down_proj, of 40.
    with pytest.raises(DensityError, match=r"8:16 does not fit layer '.*gate_proj' of 24 inputs"):
        pruner(loaded, pattern="8:16", layers="*.1.mlp.*")
    assert all(torch.equal(value, before[n]) for n, value in loaded.model.state_dict().items())


def test_a_third_is_written_with_a_few_digits():
    run = pruner(pattern="1:3", density=0.333, layers="*.1.self_attn.*")
    run.step()
    assert run.density == pytest.approx(1 / 3)
    assert_pattern(run, 1, 3)
