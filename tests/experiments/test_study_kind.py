"""What a new kind of study costs: its source, a figure, a study file; nothing else changes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import experiments
from experiments.errors import StudyError
from experiments.study.kinds import kinds, source

SOURCE = '''
from typing import Annotated

import numpy as np
from pydantic import Field

from experiments.study.kinds import source
from solvers.problem import CardinalityProblem


@source("coins", "experiments.study.coins:toss")
class Coins:
    """Problems whose linear terms are tossed."""

    sizes: Annotated[list[int], Field(title="a list of whole numbers")]
    seed: Annotated[int, Field(title="a whole number")] = 0


def toss(coins, store, *, progress):
    rng = np.random.default_rng(coins.seed)
    sizes = {}
    for n in coins.sizes:
        problem = CardinalityProblem(
            linear=rng.choice([-1.0, 1.0], n), cardinality=n // 2, factor=rng.normal(size=(2, n))
        )
        sizes[store.add_instance(problem, f"coins-{n}")] = n
    return sizes
'''
FIGURE = '''
from matplotlib.figure import Figure

from experiments.figures.figure import figure


@figure("heads", "Energies of coins", "A bar for each run.")
def heads(runs):
    """One bar a run."""
    drawn = Figure()
    drawn.subplots().bar(range(len(runs)), runs["energy"])
    return drawn
'''
STUDY = """
solvers = ["greedy", "random"]
budgets = [{reads = 5}]
seeds = 2
figures = ["heads"]

[[coins]]
sizes = [8, 16]

[[coins]]
sizes = [12]
seed = 1

[smoke]
seeds = 1
"""
PROGRAM = """
from experiments import Study, load_runs, run
from experiments.errors import StudyError
from experiments.report.page import write
from experiments.study.paths import study_path

study = Study.from_toml(study_path("coins"))
assert repr(study) == (
    "Study('coins': coins, coins; solvers greedy, random; 1 budgets, 2 seeds)"
), study
assert run(study, "s.sqlite", progress=False).counts == {"done": 12}
assert run(study, "s.sqlite", progress=False).resumed == 12
assert set(load_runs("s.sqlite")["instance_name"]) == {"coins-8", "coins-12", "coins-16"}
page = write("s.sqlite", "out").read_text()
assert "Energies of coins" in page
for wrong, words in (
    ({"coins": [{"size": [8]}]}, "coins: unknown key 'size'; did you mean 'sizes'?"),
    ({"coins": [{"sizes": "8"}]}, "coins.sizes is '8'; it should be a list of whole numbers"),
    ({"coin": []}, "unknown key 'coin'; did you mean 'coins'?"),
):
    try:
        Study.from_mapping({"solvers": ["greedy"]} | wrong)
    except StudyError as error:
        assert str(error) == words, error
    else:
        raise AssertionError(wrong)
"""


def test_a_kind_of_study_is_a_source_a_figure_and_a_file(tmp_path):
    ours = Path(experiments.__file__).parents[1]
    shutil.copytree(ours / "experiments", tmp_path / "experiments")
    for package in ("icbs", "solvers", "tests"):
        (tmp_path / package).symlink_to(ours / package)
    for name, text in (("study/coins.py", SOURCE), ("figures/heads.py", FIGURE),
                       ("studies/coins.toml", STUDY)):  # fmt: skip
        (tmp_path / "experiments" / name).write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "figures" / "heads.svg").is_file()


def test_two_kinds_of_one_key_are_refused():
    assert "blocks" in kinds()
    with pytest.raises(StudyError, match="source 'blocks' is there twice"):
        source("blocks", "somewhere:else")
