"""What a new figure costs: one decorated function, in any module of the package."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import experiments
from experiments import Study
from experiments.errors import FigureError, StudyError
from experiments.figures.figure import asked, entries, figure
from tests.study_fixtures import Drawn, block, spec

MODULE = '''
from matplotlib.figure import Figure

from experiments.figures.figure import figure


@figure("feasible", "Feasible reads", lambda runs: f"{len(runs)} runs, a bar each.")
def feasible(runs):
    """One bar."""
    drawn = Figure()
    drawn.subplots().bar(["runs"], [len(runs)])
    return drawn
'''
PROGRAM = """
import sys
from experiments import Study, run
from experiments.report.page import write
from tests.study_fixtures import Drawn, block, spec

study = Study("s", [block(8)], [spec(Drawn)], [0.1], seeds=[0], figures=["feasible"])
run(study, "s.sqlite", progress=False)
page = write("s.sqlite", "out").read_text()
assert "Feasible reads" in page
assert "1 runs, a bar each." in page
"""


def test_a_figure_is_one_function(tmp_path):
    ours = Path(experiments.__file__).parents[1]
    shutil.copytree(ours / "experiments", tmp_path / "experiments")
    # As they are, so that nothing is compiled again.
    for package in ("icbs", "solvers", "tests"):
        (tmp_path / package).symlink_to(ours / package)
    (tmp_path / "experiments" / "figures" / "feasible.py").write_text(MODULE)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "figures" / "feasible.svg").is_file()


def test_two_figures_of_one_name_are_refused():
    assert "ecdf" in entries()
    with pytest.raises(FigureError, match="figure 'ecdf' is there twice"):

        @figure("ecdf", "Another", "Another.")
        def another(runs):
            raise AssertionError


def test_studies_ask_for_figures_by_name():
    assert {"anytime", "ecdf", "penalty", "density"} <= set(asked())
    assert "ranking" not in asked()  # on every page
    with pytest.raises(StudyError, match="figures: 'ecd' is unknown"):
        Study("s", [block(8)], [spec(Drawn)], [0.1], seeds=[0], figures=["ecd"])


def test_every_figure_says_what_it_shows():
    for entry in entries().values():
        assert entry.title
        assert callable(entry.alt) or entry.alt.endswith(".")
