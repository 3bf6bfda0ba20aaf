"""`icbs bench --solvers MODULE:CLASS`, and the command that a store keeps."""

import json
import sys

import pytest

from experiments import Store, load_runs
from experiments.report import opening
from experiments.report.completeness import plans
from solvers import save
from tests.study_fixtures import block

MODULE = """
import dimod
import numpy as np

from solvers.base import CardinalitySampler, Solution


class Last(CardinalitySampler):
    name = "last"

    def _solve(self, problem, request):
        return Solution((np.arange(problem.n) >= problem.n - problem.cardinality)[None])


class Foreign(dimod.RandomSampler):
    pass


class Needy(Last):
    def __init__(self, licence):
        pass


class NoSampler:
    pass
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a module of samplers and an instance, where the command is given."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "mine_of_a_test.py").write_text(MODULE)
    save(block(), tmp_path / "a.block.safetensors")
    yield tmp_path
    sys.modules.pop("mine_of_a_test", None)


@pytest.mark.parametrize("how", [[], ["--isolate"]])
def test_samplers_of_ones_own_take_part(icbs, folder, how):
    words = ["bench", "--instances", "*.safetensors", "--solvers",
             "greedy,mine_of_a_test:Last,mine_of_a_test:Foreign", "--time-limits", "0.5",
             "--seeds", "1", *how]  # fmt: skip
    status, out, err = icbs(*words)
    assert (status, out.splitlines()[0]) == (0, "3 cells: 3 done"), err
    frame = load_runs("runs.sqlite").set_index("solver")
    assert sorted(frame.index) == ["Foreign", "greedy", "last"]
    assert frame.loc["Foreign", "track"] == "penalised"
    problem = block()
    last = [i >= problem.n - problem.cardinality for i in range(problem.n)]
    assert frame.loc["last", "energy"] == pytest.approx(float(problem.energy(last)))
    status, out, _ = icbs(*words, "--resume")
    assert (status, out.splitlines()[0]) == (0, "3 cells: 3 in the store before")


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("mine_of_a_test:Lost", "AttributeError"),
        ("nowhere_at_all:Last", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("mine_of_a_test:Needy", "TypeError"),
        ("mine_of_a_test:NoSampler", "is no dimod sampler"),
        (":Last", "ValueError: Empty module name"),
    ],
)
def test_what_cannot_take_part_is_told_with_the_remedy(icbs, folder, target, words):
    status, _, err = icbs("bench", "--instances", "*.safetensors", "--solvers", target)
    assert status == 1
    assert f"--solvers has {target!r}, which" in err
    assert words in err
    assert "give MODULE:CLASS of a dimod sampler that is made without arguments" in err
    assert not (folder / "runs.sqlite").exists()


def test_a_store_keeps_its_command_and_nothing_of_the_environment(icbs, folder, monkeypatch):
    monkeypatch.setenv("A_SECRET_OF_THIS_TEST", "hush-hush")
    words = ["bench", "--instances", "a *.safetensors", "--solvers", "greedy", "--seeds", "2"]
    save(block(), folder / "a b.block.safetensors")
    assert icbs(*words)[0] == 0
    with Store("runs.sqlite") as store:
        (entry,), runs = store.invocations(), store.runs()
    assert entry["command"] == ["icbs", *words]
    assert b"hush-hush" not in (folder / "runs.sqlite").read_bytes()
    (note,) = opening.incomplete(
        plans(runs, [entry | {"cells": 4}]), folder / "runs.sqlite", False, runs
    )
    assert note.command == (
        "icbs bench --instances 'a *.safetensors' --solvers greedy --seeds 2 --resume"
    )
    # A store may come from anybody.
    for other in (["rm", "-rf", "~"], ["icbs", "export"], "icbs bench", ["icbs", "bench", 3]):
        (plan,) = plans(runs, [json.loads(json.dumps(entry | {"command": other}))])
        assert plan.command == ()
