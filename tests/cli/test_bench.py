"""`icbs bench`: what it says, how it ends, and that a mistake leaves nothing in the way."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import dimod
import numpy as np
import pytest

from experiments import SolverSpec, Study, load_runs, run
from experiments.cli import pruning
from experiments.errors import StudyError
from solvers import make, save
from tests.study_fixtures import block

ROOT = Path(__file__).parents[2]


@pytest.fixture
def instance(tmp_path):
    return save(block(), tmp_path / "a.block.safetensors")


@pytest.fixture
def bench(icbs, instance, tmp_path):
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


def test_a_study_of_errors_only_fails(icbs, instance, tmp_path):
    plan = tmp_path / "s.toml"
    plan.write_text(f"""
instances = ["{instance}"]
seeds = 2
[[solvers]]
name = "ocean-tabu"
parameters = {{tenure = 1000}}
""")
    status, out, err = icbs("bench", plan, "--store", tmp_path / "s.sqlite")
    assert status == 1
    assert out.splitlines()[0] == "2 cells: 2 error"
    assert "first error: ocean-tabu: " in err
    assert "no cell is done" in err
    # Nothing is left to run, and still nothing is done.
    status, out, err = icbs("bench", plan, "--store", tmp_path / "s.sqlite", "--resume")
    assert status == 1
    assert out.splitlines()[0] == "2 cells: 2 in the store before (2 error)"
    assert "no cell is done" in err


WRONG = [
    ("qaoa-subspace", {"depth": 0}, "depth is 0"),
    ("qaoa-subspace", {"mixer": "z"}, "mixer is 'z'"),
    ("qaoa-subspace", {"alpha": 2}, "alpha is 2"),
    ("qaoa-subspace", {"angles": "guessed"}, "angles is 'guessed'"),
    ("qaoa-xy-aer", {"iterations": -1}, "iterations is -1"),
    ("qaoa-xy-braket", {"depth": "two"}, "depth is 'two'"),
    ("qaoa-aer", {"depth": 0}, "depth is 0"),
    ("qaoa-qiskit-optimizer", {"iterations": 0}, "iterations is 0"),
    ("neal", {"beta_range": [-1, 2]}, "neal refuses beta_range"),
    ("neal", {"num_sweeps_per_beta": 0}, "num_sweeps_per_beta is 0"),
    ("path-integral", {"beta_schedule_type": "cubic"}, "path-integral refuses beta_schedule_type"),
    ("ocean-tabu", {"tenure": -1}, "tenure is -1"),
    ("ocean-tabu", {"timeout": "soon"}, "ocean-tabu refuses timeout"),
]


@pytest.mark.parametrize(("name", "parameters", "words"), WRONG)
def test_a_value_that_no_problem_allows_stops_the_study(name, parameters, words, tmp_path):
    options = {"device": "SV1", "max_cost": 1} if name == "qaoa-xy-braket" else {}
    wrong = SolverSpec(name, options=options, parameters=parameters)
    with pytest.raises(StudyError, match=words):
        run(Study("s", [block()], ["descent", wrong]), tmp_path / "s.sqlite", progress=False)
    assert not (tmp_path / "s.sqlite").exists()


RIGHT = [
    ("qaoa-subspace", {"depth": 3, "mixer": "ring", "alpha": 0.5, "iterations": 0}),
    ("qaoa-aer", {"depth": 2}),
    ("neal", {"beta_range": [0.1, 2.0], "num_sweeps_per_beta": 3}),
    ("ocean-tabu", {"tenure": 40, "timeout": 60_000, "num_restarts": 3}),
    ("steepest-descent", {"large_sparse_opt": True}),
]


@pytest.mark.parametrize(("name", "parameters"), RIGHT)
def test_a_value_that_a_problem_may_allow_is_taken_in_less_than_a_second(name, parameters):
    sampler = make(name)
    start = time.process_time()
    sampler.check_parameters(parameters)
    assert time.process_time() - start < 1


@pytest.mark.parametrize("name", ["greedy", "neal", "qaoa-subspace"])
def test_a_parameter_that_a_solver_does_not_have_stops_the_study(name, tmp_path):
    wrong = SolverSpec(name, parameters={"sweps": 3})
    with pytest.raises(StudyError, match=f"solvers: {name}: {name} has no parameter 'sweps'"):
        run(Study("s", [block()], ["descent", wrong]), tmp_path / "s.sqlite", progress=False)
    assert not (tmp_path / "s.sqlite").exists()


def _has_runs(store):
    try:
        with contextlib.closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as db:
            return db.execute("SELECT count(*) FROM runs").fetchone()[0] > 0
    except sqlite3.OperationalError:
        return False


def test_ctrl_c_ends_with_130_and_says_how_to_resume(instance, tmp_path):
    command = [sys.executable, "-m", "icbs", "bench", "--instances", str(instance),
               "--solvers", "annealing", "--time-limits", "0.5", "--seeds", "40",
               "--store", "s.sqlite"]  # fmt: skip
    driver = subprocess.Popen(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    while not _has_runs(tmp_path / "s.sqlite"):
        assert driver.poll() is None
        time.sleep(0.05)
    driver.send_signal(signal.SIGINT)
    out, err = driver.communicate(timeout=120)
    assert driver.returncode == 130
    assert "left to run" in out.splitlines()[0]
    assert "--resume" in err
    assert "Traceback" not in err


def test_pruning_says_how_to_resume(tmp_path):
    for kept, words in ((False, "starts anew"), (True, "--resume goes on after the last")):
        if kept:
            (tmp_path / "checkpoint.safetensors").touch()
        with pytest.raises(KeyboardInterrupt, match=words), pruning._resumable(tmp_path):
            raise KeyboardInterrupt


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


def test_errors_name_the_option_that_was_given(icbs, instance, tmp_path):
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
