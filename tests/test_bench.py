"""`icbs bench`: what it says, how it ends, and that a mistake leaves nothing in the way."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dimod
import numpy as np
import pytest

from experiments import SolverSpec, Study, load_runs, run
from experiments.errors import StudyError
from icbs.cli import pruning
from solvers import save
from tests.study_fixtures import block
from tests.test_cli import icbs  # noqa: F401, a fixture

ROOT = Path(__file__).parents[1]


@pytest.fixture
def instance(tmp_path):
    return save(block(), tmp_path / "a.block.safetensors")


@pytest.fixture
def bench(icbs, instance, tmp_path):  # noqa: F811
    """Runs `icbs bench` on one block into s.sqlite, other options last."""

    def command(*options, instances=instance, solvers="greedy"):
        return icbs("bench", "--instances", instances, "--solvers", solvers, "--time-limits",
                    "0.05", "--seeds", 2, "--store", tmp_path / "s.sqlite", *options)  # fmt: skip

    return command


def test_it_counts_cells_by_status(bench, tmp_path):
    status, out, _ = bench(solvers="greedy,random")
    assert status == 0
    assert out.splitlines() == ["4 cells: 4 done", str(tmp_path / "s.sqlite")]
    status, out, _ = bench("--resume", solvers="greedy,random,descent")
    assert status == 0
    assert out.splitlines()[0] == "6 cells: 2 done, 4 in the store before"


def test_a_study_of_errors_only_fails(icbs, instance, tmp_path):  # noqa: F811
    plan = tmp_path / "s.toml"
    plan.write_text(f"""
instances = ["{instance}"]
seeds = 2
[[solvers]]
name = "qaoa-subspace"
parameters = {{depth = 0}}
""")
    status, out, err = icbs("bench", plan, "--store", tmp_path / "s.sqlite")
    assert status == 1
    assert out.splitlines()[0] == "2 cells: 2 error"
    assert "first error: qaoa-subspace: ParameterError: depth is 0" in err
    assert "no cell was done" in err


@pytest.mark.parametrize("name", ["greedy", "neal", "qaoa-subspace"])
def test_a_parameter_that_a_solver_does_not_have_stops_the_study(name, tmp_path):
    wrong = SolverSpec(name, parameters={"sweps": 3})
    with pytest.raises(StudyError, match=f"solvers: {name}: no parameter 'sweps'"):
        run(Study("s", [block()], ["descent", wrong]), tmp_path / "s.sqlite", progress=False)
    assert not (tmp_path / "s.sqlite").exists()


def test_ctrl_c_ends_with_130_and_says_how_to_resume(instance, tmp_path):
    command = [sys.executable, "-m", "icbs.cli", "bench", "--instances", str(instance),
               "--solvers", "annealing", "--time-limits", "0.5", "--seeds", "40",
               "--store", "s.sqlite"]  # fmt: skip
    driver = subprocess.Popen(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    wal = tmp_path / "s.sqlite-wal"
    while driver.poll() is None and not (wal.exists() and wal.stat().st_size):
        time.sleep(0.01)
    driver.send_signal(signal.SIGINT)
    out, err = driver.communicate(timeout=120)
    assert driver.returncode == 130
    assert "left to run" in out.splitlines()[0]
    assert "--resume" in err
    assert "Traceback" not in err


def test_pruning_says_how_to_resume(tmp_path, capsys):
    for kept, words in ((False, "starts anew"), (True, "--resume goes on after the last")):
        if kept:
            (tmp_path / "checkpoint.safetensors").touch()
        with pytest.raises(KeyboardInterrupt), pruning._resumable(tmp_path):
            raise KeyboardInterrupt
        assert words in capsys.readouterr().err


def test_a_glob_of_nothing_leaves_no_store(bench, tmp_path):
    status, _, err = bench(instances=tmp_path / "*.none")
    assert status == 1
    assert "matches no file" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.block.safetensors"]
    assert bench()[0] == 0


def test_an_instance_without_a_cardinality_leaves_no_store(bench, instance, tmp_path):
    path = tmp_path / "b.bqm"
    model = dimod.BinaryQuadraticModel(np.diag(np.arange(6.0)), "BINARY")
    with model.to_file() as file:
        path.write_bytes(file.read())
    both = f"{instance},{path}"
    status, _, err = bench(instances=both)
    assert status == 1
    assert "cardinality" in err
    assert not (tmp_path / "s.sqlite").exists()
    # What was there before stays.
    assert bench()[0] == 0
    assert bench("--resume", instances=both)[0] == 1
    assert len(load_runs(tmp_path / "s.sqlite")) == 2


def test_a_store_without_runs_is_gone_on_with(bench, tmp_path):
    from experiments import Store

    Store(tmp_path / "s.sqlite", create=True).close()
    assert bench()[0] == 0
    status, _, err = bench()
    assert status == 1
    assert f"--store {tmp_path / 's.sqlite'} has runs: pass --resume" in err


def test_errors_name_the_option_that_was_given(icbs, instance, tmp_path):  # noqa: F811
    (tmp_path / "file").touch()
    status, _, err = icbs("bench", "--instances", instance, "--solvers", "greedy",
                          "--store", tmp_path / "file" / "s.sqlite")  # fmt: skip
    assert status == 1
    assert "--store" in err
    assert "--out" not in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workers", 0], "for '--workers'"),
        (["--seeds", 0], "for '--seeds'"),
        (["--memory-limit", -1], "--memory-limit is -1"),
        (["--scheduler", "tcp://a:1", "--isolate"], "leave --isolate out"),
    ],
)
def test_wrong_options_are_refused_by_their_names(bench, tmp_path, words, message):
    status, _, err = bench(*words)
    assert status == 2
    assert message in err
    assert not (tmp_path / "s.sqlite").exists()
