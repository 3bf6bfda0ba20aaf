"""Solvers that hang, in processes of their own; and whose modules those processes import."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from experiments import Study, load_runs, run
from experiments.running import limits
from icbs.shadows import hidden_by
from solvers import save
from tests.study_fixtures import First, block, spec

HANG = 600.0


class Hanging(First):
    """Never answers, in the warm-up or later."""

    name = "hanging"

    def _solve(self, problem, request):
        time.sleep(HANG)


class HangingLater(First):
    """Answers the small problems of a warm-up only."""

    name = "hanging-later"

    def _solve(self, problem, request):
        if problem.n > 8:
            time.sleep(HANG)
        return super()._solve(problem, request)


@pytest.mark.slow  # waits for the limit of a warm-up, 30 s
def test_a_solver_that_hangs_costs_its_warm_up_once_and_then_its_limit(tmp_path):
    study = Study("s", [block()], [spec(Hanging), spec(First)], [0.5], seeds=range(3))
    start = time.monotonic()
    outcome = run(study, tmp_path / "s.sqlite", isolate=True, progress=False)
    seconds = time.monotonic() - start
    assert outcome.counts == {"timeout": 3, "done": 3}
    limit = limits.kill_limit(study.limits[0])
    assert seconds < limits.WARM_UP_LIMIT + 3 * limit + 60
    late = load_runs(tmp_path / "s.sqlite").set_index("solver").loc["hanging"]
    assert late["wall"].between(limit, limit + 10).all()
    assert (late["track"] == "native").all()
    for wall, reason in zip(late["wall"], late["reason"], strict=True):
        assert reason == (
            f"no answer after {wall:.3g} s, killed; the limit is 0.5 s; called without a "
            "warm-up, since that was killed as well"
        )


def test_a_solver_that_hangs_in_its_call_is_warmed_up_each_time(tmp_path):
    study = Study("s", [block()], [spec(HangingLater)], [0.1], seeds=range(2))
    run(study, tmp_path / "s.sqlite", isolate=True, progress=False)
    late = load_runs(tmp_path / "s.sqlite")
    assert (late["status"] == "timeout").all()
    assert not late["reason"].str.contains("warm-up").any()
    assert np.all(late["wall"] >= limits.kill_limit(study.limits[0]))


ROOT = Path(__file__).parents[2]
SCRIPT = """
from experiments.cli import main
if __name__ == "__main__":
    main()
"""


def in_folder(folder, *command):
    """Runs Python in a folder that holds a solvers.py and an experiments package of its own."""
    (folder / "solvers.py").write_text("raise RuntimeError('mine')")
    (folder / "experiments").mkdir()
    (folder / "experiments" / "__init__.py").write_text("raise RuntimeError('mine')")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *command], cwd=folder, env=environment,
                          capture_output=True, text=True, check=False)  # fmt: skip


@pytest.mark.parametrize("how", [["--isolate"], ["--workers", "2"]])
def test_workers_do_not_import_from_the_working_directory(how, tmp_path):
    folder = tmp_path / "theirs"
    folder.mkdir()
    save(block(), folder / "a.block.safetensors")
    script = tmp_path / "icbs.script.py"
    script.write_text(SCRIPT)
    done = in_folder(folder, script, "bench", "--instances", "*.safetensors", "--solvers", "greedy",
                     "--time-limits", "0.05", *how, "--store", "s.sqlite")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "3 cells: 3 done"


def test_a_package_that_is_hidden_by_a_file_is_told(tmp_path):
    done = in_folder(tmp_path, "-m", "icbs", "solvers")
    assert done.returncode == 2
    assert done.stderr == (
        f"icbs: {tmp_path / 'solvers.py'} hides the package 'solvers' that icbs-bench needs: "
        "rename it, or work in another folder\n"
    )
    (tmp_path / "solvers.py").unlink()
    done = subprocess.run([sys.executable, "-m", "icbs", "solvers"], cwd=tmp_path,
                          env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.stderr.startswith(f"icbs: {tmp_path / 'experiments'} hides the package")


@pytest.mark.parametrize("line", ["from icbs import Pruner", "import icbs.loop.pruner",
                                  "from experiments import Study"])  # fmt: skip
def test_a_program_gets_the_sentence_as_an_import_error(line, tmp_path):
    (tmp_path / "solvers.py").write_text("raise RuntimeError('mine')")
    script = (
        f"try:\n    {line}\nexcept ImportError as error:\n    print(type(error).__name__, error)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.stdout == (
        f"HiddenPackageError {tmp_path / 'solvers.py'} hides the package 'solvers' that icbs-bench "
        "needs: rename it, or work in another folder\n"
    ), done.stderr


def test_our_own_packages_hide_nothing():
    assert hidden_by("solvers", ROOT) is None
    assert hidden_by("solvers", ROOT / "elsewhere") == ROOT / "solvers"
