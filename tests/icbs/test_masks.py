import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icbs.blocks import scores
from icbs.blocks.masks import Tabu, fixed_weights, mask_at_density, mask_n_m
from icbs.errors import DensityError


@given(
    rows=st.integers(1, 9),
    columns=st.integers(1, 12),
    density=st.floats(0.01, 0.99),
    group=st.sampled_from(["layer", "output", "input"]),
    seed=st.integers(0, 999),
)
def test_exactly_the_largest_stay_and_ties_go_to_the_smaller_index(
    rows, columns, density, group, seed
):
    """Against a stable sort of Python's; infinite scores and signed zeros, ties are the rule."""
    few = [-np.inf, -1.0, -0.0, 0.0, 0.5, np.inf]
    values = np.random.default_rng(seed).choice(few, (rows, columns))
    mask = mask_at_density(torch.from_numpy(values), density, group).numpy()
    assert mask.sum() == round(density * rows * columns)
    mask, values = (mask.T, values.T) if group == "input" else (mask, values)
    if group == "layer":
        mask, values = mask.reshape(1, -1), values.reshape(1, -1)
    assert np.ptp(mask.sum(axis=1)) <= 1
    for kept, row in zip(mask, values, strict=True):
        order = sorted(range(len(row)), key=lambda i: -row[i])
        assert set(np.flatnonzero(kept)) == set(order[: kept.sum()])


def test_keeps_the_largest_of_each_row():
    values = torch.tensor([[1.0, 9.0, 3.0, 4.0], [40.0, 10.0, 30.0, 20.0]])
    kept = mask_at_density(values, 0.5, "output")
    assert kept.tolist() == [[False, True, False, True], [True, False, True, False]]
    assert mask_at_density(values, 0.5, "layer")[0].sum() == 0


@pytest.mark.parametrize("density", [0, 1, 1.5, -0.1, float("nan")])
def test_impossible_density(density):
    with pytest.raises(DensityError, match="density is"):
        mask_at_density(torch.ones(2, 2), density)


def test_nan_scores_and_unknown_group():
    with pytest.raises(DensityError, match="NaN"):
        mask_at_density(torch.tensor([[float("nan"), 1.0]]), 0.5)
    with pytest.raises(DensityError, match="group is 'row'"):
        mask_at_density(torch.ones(2, 2), 0.5, "row")


def test_fixed_weights_are_the_extremes():
    values = torch.arange(10.0).view(2, 5)
    kept = values >= 4
    fixed = fixed_weights(values, kept, most=0.5, least=0.25)
    assert values[fixed].tolist() == [0, 7, 8, 9]
    with pytest.raises(DensityError, match=r"most is 1\.5"):
        fixed_weights(values, kept, most=1.5)


@settings(max_examples=50)
@given(st.lists(st.lists(st.integers(0, 29), max_size=8, unique=True), max_size=12))
def test_tabu_never_exceeds_its_capacity(blocks):
    tabu = Tabu(30, capacity=9)
    for block in blocks:
        tabu.add(torch.tensor(block, dtype=torch.long))
        assert int(tabu.active.sum()) <= 9
    while tabu.release():
        pass
    assert not tabu.active.any()


def test_scores():
    w = torch.tensor([[1.0, -2.0], [3.0, 0.5]])
    assert scores.magnitude(w).tolist() == [[1, 2], [3, 0.5]]
    assert scores.wanda(w, torch.tensor([2.0, 1.0])).tolist() == [[2, 2], [6, 0.5]]
    assert scores.gradient(w, torch.ones(2, 2)).tolist() == [[-1, 2], [-3, -0.5]]
    draws = [scores.random(w, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*draws)


@given(
    rows=st.integers(1, 5),
    groups=st.integers(1, 5),
    pattern=st.sampled_from([(1, 2), (2, 4), (4, 8), (1, 4), (3, 4)]),
    seed=st.integers(0, 99),
)
def test_n_m_group_by_group(rows, groups, pattern, seed):
    n, m = pattern
    rng = np.random.default_rng(seed)
    values = torch.from_numpy(rng.integers(0, 4, (rows, groups * m))).float()
    mask = mask_n_m(values, n, m)
    assert mask.shape == values.shape
    for row in range(rows):
        for start in range(0, groups * m, m):
            kept, group = mask[row, start : start + m], values[row, start : start + m]
            assert int(kept.sum()) == n
            assert group[kept].min() >= group[~kept].max()


@pytest.mark.parametrize(("n", "m"), [(0, 4), (4, 4), (5, 4), (-1, 2)])
def test_impossible_pattern(n, m):
    with pytest.raises(DensityError, match=f"pattern is {n}:{m}"):
        mask_n_m(torch.ones(2, 8), n, m)


def test_pattern_that_does_not_fit():
    with pytest.raises(DensityError, match="2:4 does not fit a layer of 6 inputs"):
        mask_n_m(torch.ones(2, 6), 2, 4)
    with pytest.raises(DensityError, match="NaN"):
        mask_n_m(torch.tensor([[float("nan"), 1.0]]), 1, 2)
