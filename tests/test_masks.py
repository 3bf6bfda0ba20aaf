import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icbs import scores
from icbs.errors import DensityError
from icbs.masks import Tabu, fixed_weights, mask_at_density


@given(
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    density=st.floats(0.01, 0.99),
    group=st.sampled_from(["layer", "output", "input"]),
    seed=st.integers(0, 99),
)
def test_exact_count(rows, columns, density, group, seed):
    # few distinct values, so that ties are the rule
    values = torch.from_numpy(np.random.default_rng(seed).integers(0, 3, (rows, columns))).float()
    mask = mask_at_density(values, density, group)
    assert int(mask.sum()) == round(density * rows * columns)
    if group != "layer":
        counts = mask.sum(1 if group == "output" else 0)
        assert int(counts.max() - counts.min()) <= 1


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
    with pytest.raises(DensityError, match=r"fixed fraction most is 1\.5"):
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
