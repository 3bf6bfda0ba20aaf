"""Masks of whole layers by ever better searches, and what the model is worth with them."""

import numpy as np
import pytest

from experiments.figures.fidelity import figure
from experiments.scripts.fidelity import Case, annealed_rows, greedy_rows, study
from solvers import CardinalityProblem, make


def test_greedy_of_all_rows_is_greedy_of_each():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 12)) * np.geomspace(1e-3, 1e3, 12)
    H = X.T @ X / len(X)
    W = rng.normal(size=(5, 12)).astype(np.float32)
    counts = np.array([0, 3, 6, 11, 12])
    masks = greedy_rows(H, W, counts)
    assert masks.sum(axis=1).tolist() == counts.tolist()
    for w, mask, k in zip(W.astype(float), masks, counts, strict=True):
        problem = CardinalityProblem(
            linear=np.zeros(12), cardinality=int(k), quadratic=2 * np.outer(w, w) * H
        )
        found = make("greedy").sample_problem(problem).first.energy
        assert problem.energy(mask) == pytest.approx(found, rel=1e-9)


def test_annealing_takes_each_row_by_itself():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(30, 10))
    H = X.T @ X / len(X)
    W = rng.normal(size=(4, 10)).astype(np.float32)
    W[2] = 0
    start = np.arange(10) < np.array([5, 5, 5, 0])[:, None]
    found = annealed_rows(H, W, start, 0.01)
    assert found.sum(axis=1).tolist() == [5, 5, 5, 0]
    assert (found[2:] == start[2:]).all()
    for w, mask in zip(W[:2].astype(float), found, strict=False):
        problem = CardinalityProblem(
            linear=np.zeros(10), cardinality=5, quadratic=2 * np.outer(w, w) * H
        )
        best = make("enumerate").sample_problem(problem).first.energy
        assert problem.energy(mask) == pytest.approx(best, rel=1e-9)


def test_better_searches_lose_less_of_the_layers_and_the_loss_is_measured():
    case = Case(
        layers="mlp.layers.1", density=0.3, count=64, texts=(None,), heldout=100,
        iterations=(1,), annealing=None,
    )  # fmt: skip
    table = study("garment-mlp", case, progress=False)
    plain = table[table["shrinkage"] == 0].set_index("search")["lost_calibration"]
    assert set(plain.index) == {"wanda", "greedy", "one-swap", "tabu, 1 d"}
    assert plain["tabu, 1 d"] <= plain["one-swap"] * (1 + 1e-6)
    assert plain["one-swap"] < plain["wanda"]
    # The shrunk H is searched, not the one that is scored.
    shrunk = table[table["shrinkage"] > 0].set_index("search")["lost_calibration"]
    assert shrunk["one-swap"] > plain["one-swap"]
    wanda = table[table["search"] == "wanda"].iloc[0]
    assert wanda["change"] == 0
    change = table["rise"] - wanda["rise"]
    assert table["change"].to_numpy() == pytest.approx(change.to_numpy(), abs=1e-9)
    assert (table["change_low"] <= table["change"] + 1e-12).all()
    assert len(figure(table).axes) == 1
