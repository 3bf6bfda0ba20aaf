"""Resumed runs are bit for bit those that never stopped; foreign checkpoints are refused."""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from icbs import Pruner
from icbs.errors import CheckpointError, OutputError
from icbs.loop.checkpoint import Checkpoint, pack_mask
from tests.icbs.factories import OPTIONS, pruner, same
from tests.icbs_fixtures import tiny_loaded, tiny_samples


@pytest.mark.parametrize("options", [{}, {"fisher": "position", "momentum": 0.0}])
def test_resumed_run_is_the_uninterrupted_one(tmp_path, options):
    path = tmp_path / "run.safetensors"
    whole = pruner(**options)
    whole.run(5)
    pruner(**options).run(2, checkpoint=path)
    resumed = pruner(**options)
    resumed.run(5, checkpoint=path)
    same(whole, resumed)
    # and what is on the disk is the state at the end
    again = pruner(**options)
    again.resume(path)
    same(whole, again)


CHILD = """
import sys
from pathlib import Path
from tests.icbs.factories import pruner
run = pruner(on_block=lambda problem: print("block", flush=True))
run.run(6, checkpoint=Path(sys.argv[1]))
print("done", flush=True)
"""


SLOW = pytest.mark.slow


@pytest.mark.parametrize("blocks", [pytest.param(5, marks=SLOW), 30, pytest.param(63, marks=SLOW)])
def test_killed_inside_a_step(tmp_path, blocks):
    """kill -9 after so many blocks, 21 a step: inside the first, the second, at a step's end."""
    path = tmp_path / "run.safetensors"
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    for _ in range(blocks):
        assert child.stdout.readline() == "block\n"
    child.send_signal(signal.SIGKILL)
    child.communicate(timeout=60)
    assert child.returncode == -signal.SIGKILL
    if path.exists():
        assert len(Checkpoint.load(path).steps) >= (blocks - 1) // 21
    resumed, whole = pruner(), pruner()
    resumed.run(6, checkpoint=path)
    whole.run(6)
    same(whole, resumed)


OLD = Path(__file__).parents[1] / "data" / "before-0.2" / "checkpoint.safetensors"


def test_a_checkpoint_from_before_the_modules_moved_goes_on(tmp_path):
    """Two steps of 0.1, whose modules had other names."""
    path = tmp_path / "old.safetensors"
    shutil.copy(OLD, path)
    run = pruner(layers="*.1.mlp.*")
    run.resume(path)
    assert [step.step for step in run.steps] == [1, 2]
    for name, state in Checkpoint.load(OLD).layers.items():
        assert torch.equal(run.layers[name].pruned, state.pruned)
        assert torch.equal(run.layers[name].weight.reshape(-1) == 0, state.pruned)
    records = run.run(3, checkpoint=path)
    assert records[2].heldout_before == records[1].heldout_after
    assert len(Checkpoint.load(path).steps) == 3


def test_settings_that_are_no_more_are_ignored_with_a_note(tmp_path, capsys):
    state = Checkpoint.load(OLD)
    settings = {**state.identity["settings"], "select_group": "output"}
    assert {"allocation", "spread", "select_group"} <= set(settings)
    path = tmp_path / "old.safetensors"
    replace(state, identity={**state.identity, "settings": settings}).save(path)
    run = pruner(layers="*.1.mlp.*", progress=True)
    capsys.readouterr()
    run.resume(path)
    told = capsys.readouterr().err
    assert "select_group='output', a setting that is no more" in told
    assert "allocation" not in told
    assert len(run.steps) == 2


def test_time_limit_ends_between_steps(tmp_path):
    path = tmp_path / "run.safetensors"
    run = pruner()
    run.initialise()
    start = time.perf_counter()
    run.run(10**6, time_limit=1.0, checkpoint=path)
    longest = max(sum(step.seconds.values()) for step in run.steps)
    assert time.perf_counter() - start < 2.0 + 2 * longest
    assert len(run.steps) >= 1
    losses = [run.steps[0].heldout_before, *(step.heldout_after for step in run.steps)]
    assert all(after <= before for before, after in pairwise(losses))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"density": 0.4}, "density was 0.5, is 0.4"),
        ({"gamma": 0.5, "lam": 0.1}, "gamma was 1.0, is 0.5; lam was 0.0, is 0.1"),
        ({"solver": "descent"}, "solver was 'relaxation', is 'descent'"),
        ({"samples": tiny_samples(seed=3)}, "calibration was"),
        ({"layers": "*.1.*"}, "layers"),
    ],
)
def test_changed_settings_are_named(tmp_path, options, message):
    path = tmp_path / "run.safetensors"
    pruner().run(1, checkpoint=path)
    with pytest.raises(CheckpointError, match=message):
        pruner(**options).run(2, checkpoint=path)


def test_checkpoint_of_another_model(tmp_path):
    path = tmp_path / "run.safetensors"
    pruner().run(1, checkpoint=path)
    other = Pruner(
        replace(tiny_loaded(), name="other", revision="2"), tiny_samples(),
        heldout=tiny_samples(4, seed=9), **OPTIONS,
    )  # fmt: skip
    message = "model was 'tiny', is 'other'; revision was 'random', is '2'"
    with pytest.raises(CheckpointError, match=message):
        other.run(2, checkpoint=path)


def test_checkpoint_that_is_none(tmp_path):
    path = tmp_path / "run.safetensors"
    path.write_bytes(b"\0" * 100)
    with pytest.raises(CheckpointError, match="cannot be read"):
        pruner().run(1, checkpoint=path)
    save_file({"a": torch.ones(1)}, path)
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        pruner().run(1, checkpoint=path)
    pruner().run(1, checkpoint=tmp_path / "good")
    tensors = load_file(tmp_path / "good")
    state = json.dumps({"schema": 99})
    save_file(tensors, path, {"kind": "icbs-pruning-run", "state": state})
    with pytest.raises(CheckpointError, match="schema 99"):
        pruner().run(1, checkpoint=path)
    whole = (tmp_path / "good").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="cannot be read"):
        pruner().run(1, checkpoint=path)


def test_checkpoint_that_cannot_be_written(tmp_path):
    path = tmp_path / "run.safetensors"
    run = pruner()
    run.run(1, checkpoint=path)
    before = path.read_bytes()
    (tmp_path / "run.safetensors.partial").mkdir()
    run.step()
    with pytest.raises((OutputError, OSError)):
        run.checkpoint().save(path)
    assert path.read_bytes() == before


def test_packed_mask():
    mask = torch.tensor([[True, False, True], [False, False, True]])
    assert pack_mask(mask).tolist() == [0b10100100]
