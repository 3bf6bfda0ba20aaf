"""How commands end: what they leave behind, what Ctrl-C says, how errors name options."""

import errno
import sys

import numpy as np
import pytest
import typer

from experiments.cli import app, models, pruning, solving
from experiments.cli.app import as_typed, resumable
from solvers import CardinalityProblem, save


@pytest.fixture
def interrupted(monkeypatch):
    """Has a function end as by Ctrl-C."""

    def put(home, name, *told):
        def stop(*arguments, **options):
            raise KeyboardInterrupt(*told)

        monkeypatch.setattr(home, name, stop)

    return put


def test_an_interrupted_demo_ends_with_130_and_says_what_to_do(icbs, interrupted, tmp_path):
    from experiments.cli import demo

    out = tmp_path / "deep" / "demo"
    interrupted(demo, "load_model")
    status, _, err = icbs("demo", "--out", out)
    assert status == 130
    assert err == "icbs: interrupted; the same command starts anew; nothing is downloaded twice\n"
    assert not (tmp_path / "deep").exists()


def test_a_demo_interrupted_among_its_solvers_goes_no_further(icbs, monkeypatch, tmp_path):
    from types import SimpleNamespace

    import pandas as pd

    from experiments.cli import demo

    calls = []

    def run(study, store):
        calls.append(study.name)
        return SimpleNamespace(interrupted=True)

    monkeypatch.setattr(demo, "run", run)
    for name in ("load_model", "load_samples"):
        monkeypatch.setattr(demo, name, lambda *a, **k: None)
    monkeypatch.setattr(demo, "export_blocks", lambda *a, **k: [])
    monkeypatch.setattr(demo, "measured_moves", lambda *a: pd.DataFrame())
    monkeypatch.setattr(demo, "pruning", lambda *a: (pd.DataFrame(), pd.DataFrame()))
    monkeypatch.setattr(demo, "Study", lambda name, **k: SimpleNamespace(name=name))
    status, out, err = icbs("demo", "--fast", "--out", tmp_path)
    assert status == 130
    assert len(calls) == 1
    assert f"icbs report {tmp_path / 'runs.sqlite'} --out FOLDER" in err
    assert "report.html" not in out


@pytest.mark.parametrize(
    ("home", "name", "arguments", "words"),
    [
        (models, "load_on", ["evaluate", "garment-mlp"], "icbs: interrupted\n"),
        (pruning, "load_on", ["prune", "garment-mlp", "--out", "OUT"], "icbs: interrupted\n"),
        (pruning, "load_on", ["baselines", "garment-mlp", "--out", "OUT"], "icbs: interrupted\n"),
    ],
)  # fmt: skip
def test_long_commands_end_with_130(icbs, interrupted, home, name, arguments, words, tmp_path):
    interrupted(home, name)
    typed = [str(tmp_path / "out") if word == "OUT" else word for word in arguments]
    status, _, err = icbs(*typed)
    assert status == 130
    assert err.endswith(words)
    assert not (tmp_path / "out").exists()


def test_solving_ends_with_130(icbs, block, monkeypatch):
    from solvers.search.descent import Greedy

    def stop(self, problem, request, **parameters):
        raise KeyboardInterrupt

    monkeypatch.setattr(Greedy, "_solve", stop)
    status, out, err = icbs("solve", block, "--solver", "greedy")
    assert (status, out, err) == (130, "", "icbs: interrupted\n")


def test_who_knows_better_says_how_to_go_on():
    with pytest.raises(KeyboardInterrupt, match="start anew"), resumable("start anew"):
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt, match="step 3"), resumable("start anew"):
        raise KeyboardInterrupt("step 3")


def context_of(name):
    return typer.main.get_command(app).commands[name].make_context(name, ["x"])


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("a.bqm does not say how many ones: pass cardinality",
         "a.bqm does not say how many ones: pass --cardinality"),
        ("a.lp says 2 ones and cardinality is 3: leave cardinality out",
         "a.lp says 2 ones and --cardinality is 3: leave --cardinality out"),
        ("time_limit is 0, expected seconds", "--time-limit is 0, expected seconds"),
        ("the cardinality of a problem", "the cardinality of a problem"),
        ("solver 'x' is not registered", "--solver 'x' is not registered"),
        ("my.seed is 3", "my.seed is 3"),
    ],
)  # fmt: skip
def test_errors_name_options(message, told):
    assert as_typed(message, context_of("solve")) == told


def test_an_instance_of_a_study_is_told_the_key_not_the_option(icbs, tmp_path):
    import dimod

    with dimod.BinaryQuadraticModel({0: 1.0, 1: 2.0}, {}, "BINARY").to_file() as file:
        (tmp_path / "a.bqm").write_bytes(file.read())
    (tmp_path / "s.toml").write_text('instances = ["a.bqm"]\nsolvers = ["greedy"]\n')
    store = tmp_path / "s.sqlite"
    assert "pass cardinality" in icbs("bench", tmp_path / "s.toml", "--store", store)[2]
    err = icbs("bench", "--instances", tmp_path / "a.bqm", "--solvers", "greedy",
               "--store", store)[2]  # fmt: skip
    assert "pass --cardinality" in err
    assert "pass --cardinality" in icbs("solve", tmp_path / "a.bqm")[2]


def test_a_command_that_fails_leaves_no_folder(icbs, tmp_path):
    new = tmp_path / "a" / "b"
    assert icbs("report", tmp_path / "none.sqlite", "--out", new)[0] == 1
    assert icbs("cut", tmp_path / "none.block.safetensors", "--out", new)[0] == 1
    assert icbs("store", "merge", tmp_path / "none.sqlite", "--out", new / "m.sqlite")[0] == 1
    assert icbs("bench", "--instances", tmp_path / "*.none", "--solvers", "greedy",
                "--store", new / "s.sqlite")[0] == 1  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_cutting_needs_a_current_mask(icbs, tmp_path):
    problem = CardinalityProblem(linear=np.zeros(12), cardinality=6, factor=np.ones((1, 12)))
    path = save(problem, tmp_path / "a.block.safetensors")
    status, _, err = icbs("cut", path, "--out", tmp_path / "out")
    assert status == 1
    assert "a.block.safetensors holds no current mask" in err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_was_there_stays(icbs, tmp_path):
    out = tmp_path / "mine"
    out.mkdir()
    assert icbs("report", tmp_path / "none.sqlite", "--out", out)[0] == 1
    assert out.is_dir()


def test_a_reader_that_goes_away_is_no_error(icbs, monkeypatch):
    def gone(*arguments):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(solving, "print_table", gone)
    out, err = sys.stdout, sys.stderr
    try:
        status, _, told = icbs("solvers")
    finally:
        sys.stdout, sys.stderr = out, err
    assert status == 1
    assert told == ""
