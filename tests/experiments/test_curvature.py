"""The curvature study: correlations of known predictions, and a small run from end to end."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from experiments.figures.curvature import figure
from experiments.scripts.curvature import CASES, FISHERS, moves, quality, ranking


def table(blocks=4, count=30):
    rng = np.random.default_rng(0)
    rows = []
    for block in range(blocks):
        for kind in ("random", "optimised"):
            truth = rng.normal(size=count)
            rows.append(pd.DataFrame({
                "model": "m", "block": str(block), "moves": kind, "same": truth,
                # another scale a block: only the order within one may count
                "fresh": 100 * block + truth, "sequence": -truth, "position": np.exp(truth),
                "exact": rng.normal(size=count),
            }))  # fmt: skip
    return pd.concat(rows, ignore_index=True)


def test_correlations_of_known_predictions():
    found = ranking(table()).set_index(["moves", "data", "fisher"])
    for key in [(kind, data) for kind in ("random", "optimised") for data in ("same", "fresh")]:
        assert found.loc[(*key, "sequence"), "spearman"] == pytest.approx(-1)
        assert found.loc[(*key, "position"), "spearman"] == pytest.approx(1)
        assert found.loc[(*key, "position"), "low"] == pytest.approx(1)
        assert found.loc[(*key, "position"), "lead"] == pytest.approx(2)
        chance = found.loc[(*key, "exact")]
        assert chance["low"] <= chance["spearman"] <= chance["high"]
        assert chance["low"] < 0.1
        assert chance["high"] > -0.1


@pytest.mark.slow
def test_small_run_from_end_to_end():
    case = replace(CASES["garment-mlp"], layers="*0*", n=24, batch=48, fresh=48, batches=1,
                   seconds=0.5)  # fmt: skip
    found = moves("garment-mlp", case)
    assert {"random", "optimised"} == set(found["moves"])
    # one position a sample: without a sketch the two Fishers are one
    np.testing.assert_allclose(found["sequence"], found["position"], rtol=1e-4, atol=1e-9)
    own = found[found["moves"] == "random"]
    # on its own batch the true Hessian predicts small moves well
    few = own[own["swaps"] <= 3]
    np.testing.assert_allclose(few["exact"], few["same"], rtol=0.2, atol=1e-5)
    rows = [quality("garment-mlp", case, 0, fisher) for fisher in FISHERS[:1]]
    rows += [{**rows[0], "fisher": fisher} for fisher in FISHERS[1:]]
    assert rows[0]["accuracy"] > 0.5
    figure(ranking(found), pd.DataFrame(rows))
