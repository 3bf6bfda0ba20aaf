"""The study of kinds: rows of a study file, the same rows at every lam, and its crossing point."""

import json

import numpy as np
import pandas as pd
import pytest

from experiments.errors import StudyError
from experiments.figures.kinds import by_lam, crossing, words
from experiments.instances.cutting import cut_rows
from experiments.study.sources import RowSource
from experiments.study.study import Study
from icbs.blocks.rowexport import export_rows
from icbs.data.loading import load_samples
from icbs.models.loading import load_model


def source(**changes):
    return RowSource(
        **{"model": "garment-mlp", "layers": "mlp.layers.1", "draw": 1, "count": 40} | changes
    )


def test_the_same_rows_at_every_lam():
    found = cut_rows(source(sizes=[16], lam=[0.0, 0.5, 1.0]), progress=False)
    assert [p.n for p in found] == [16] * 3
    assert len({p.meta["row"] for p in found}) == 1
    assert [p.meta["lam"] for p in found] == [0.0, 0.5, 1.0]
    row, mix, loss = cut_rows(source(lam=[0.0, 0.25, 1.0]), progress=False)
    (direct,) = export_rows(
        load_model("garment-mlp"), load_samples(load_model("garment-mlp"), count=40),
        layers="mlp.layers.1", rows=1, lam=0.25, progress=False,
    )  # fmt: skip
    x = row.random_state(np.random.default_rng(0))
    assert mix.energy(x) == pytest.approx(0.75 * row.energy(x) + 0.25 * loss.energy(x))
    assert mix.energy(x) == pytest.approx(float(direct.energy(x)))
    assert mix.meta["fisher"] == direct.meta["fisher"] == "mix"
    whole = cut_rows(source(pattern="2:4"), progress=False)
    assert [(p.n, p.num_groups) for p in whole] == [(512, 128)]


def test_a_study_file_has_rows(tmp_path):
    path = tmp_path / "mine.toml"
    text = 'name = "mine"\nsolvers = ["greedy"]\nbudgets = [0.1]\nseeds = 1\n[[rows]]\n'
    path.write_text(text + 'model = "garment-mlp"\nlam = [0.0, 1.0]\n')
    assert list(Study.from_toml(path).sources) == [RowSource(model="garment-mlp", lam=[0.0, 1.0])]
    path.write_text(text + 'model = "garment-mlp"\nlamb = [0.0]\n')
    with pytest.raises(StudyError, match="did you mean 'lam'"):
        Study.from_toml(path)


def frames(gaps):
    """Runs of two solvers, an instance at each lam; gaps by solver and lam."""
    runs, instances = [], []
    for lam in sorted({lam for _, lam in gaps}):
        instances.append({"id": f"i{lam}", "meta": json.dumps({"lam": lam})})
        runs += [
            {"instance": f"i{lam}", "n": 16, "solver": solver, "track": "native", "status": "done",
             "flat": False, "gap": gap}
            for (solver, at), gap in gaps.items() if at == lam
        ]  # fmt: skip
    instances.append({"id": "other", "meta": "{}"})
    runs.append(runs[0] | {"instance": "other", "gap": 9.0})
    return pd.DataFrame(runs), pd.DataFrame(instances)


def test_crossing_is_where_a_solver_ties_from_on():
    gaps = {("greedy", 0.0): 0.5, ("greedy", 0.5): 1e-5, ("greedy", 0.75): 0.2,
            ("greedy", 1.0): 0.0, ("tabu", 0.0): 0.0, ("tabu", 1.0): 0.0}  # fmt: skip
    runs, instances = frames(gaps)
    table = by_lam(runs, instances)
    assert len(table) == len(gaps)
    assert crossing(table, "greedy") == 1.0
    assert crossing(table, "tabu") == 0.0
    assert "greedy is within 0.1 % of the best known from lam = 1 on" in words(runs, instances)
    never, _ = frames({("greedy", 0.0): 0.5, ("greedy", 1.0): 0.5})
    assert np.isnan(crossing(by_lam(never, instances), "greedy"))
    assert "at no lam" in words(never, instances)
