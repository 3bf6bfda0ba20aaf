"""The atlas: what is known of every row is right, and an interrupted run goes on."""

import numpy as np
import pandas as pd
import pytest

from experiments.figures.atlas import figure
from experiments.scripts import atlas
from icbs.blocks.moments import Moments
from icbs.blocks.rows import row_problem
from solvers import make
from solvers.search.rows import search_rows

CASE = atlas.Case("*", 1)


@pytest.fixture
def layer():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 12)) * np.geomspace(1, 1e3, 12)
    moments = Moments(X.T @ X / len(X), len(X))
    weights = rng.normal(size=(3, 12))
    weights[1] = 0
    saliency = weights**2 * np.diag(moments.gram)
    wanda = saliency.argsort(axis=1).argsort(axis=1) < 6
    swapped = search_rows(moments.gram, weights, wanda).pruned
    return atlas.Layer("fc", moments, weights, wanda, swapped)


def test_rows_are_right_and_those_that_are_there_are_not_done_again(layer, tmp_path, monkeypatch):
    monkeypatch.setattr(atlas, "layers", lambda model, case: iter([layer]))
    path = tmp_path / "rows.csv"
    atlas.rows("small", CASE, path, 0.01, 1.0)
    table = pd.read_csv(path)
    assert table["row"].tolist() == [0, 1, 2]
    assert np.isnan(table["best"][1])  # its output is always 0
    for o in (0, 2):
        problem = row_problem(layer.moments, layer.weights[o], layer.wanda[o])
        best = make("enumerate").sample_problem(problem).first.energy
        line = table.iloc[o]
        assert line["best"] == pytest.approx(best, rel=1e-8)
        assert line["bound"] <= best * (1 + 1e-9)
        assert line["bound"] == pytest.approx(best, rel=0.5)
        assert line["best"] <= line["one_swap"] <= line["wanda"]
    table.iloc[:2].to_csv(path, index=False)
    monkeypatch.setattr(atlas, "chart", _only_the_last(atlas.chart))
    atlas.rows("small", CASE, path, 0.01, 1.0)
    assert pd.read_csv(path)["row"].tolist() == [0, 1, 2]


def _only_the_last(chart):
    calls = []

    def charted(*given):
        calls.append(given)
        assert len(calls) == 1
        return chart(*given)

    return charted


def test_distances_and_medians_by_layer():
    table = pd.DataFrame(
        {
            "model": "m", "layer": ["a", "a", "b", "b"], "row": [0, 1, 0, 1], "n": 8,
            "k": [4, 4, 4, 0], "wanda": [4.0, 3.0, 2.0, None], "one_swap": [2.0, 1.5, 1.0, None],
            "best": [2.0, 1.0, 1.0, None], "bound": [1.0, 1.0, 0.5, None],
            "bound_seconds": 1.0, "load": 0.0,
        }
    )  # fmt: skip
    found = atlas.gaps(table)
    assert found["certified"].tolist() == [1.0, 0.0, 1.0]
    assert found["proved"].tolist() == [False, True, False]
    assert found["wanda_above"].tolist() == [1.0, 2.0, 1.0]
    layers = atlas.by_layer(table).set_index("layer")
    assert layers["rows"].to_dict() == {"a": 2, "b": 1}
    assert layers["proved"].to_dict() == {"a": 0.5, "b": 0.0}
    assert layers["one_swap_above"].to_dict() == {"a": 0.25, "b": 0.0}
    assert len(figure(found).axes) == 1
