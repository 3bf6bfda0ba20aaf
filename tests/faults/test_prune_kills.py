"""`icbs prune` killed between and inside its steps and its tuning ends as if nobody had."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from experiments.store.database import Store

# What the command says right before it is killed.
MOMENTS = [
    "Step 1: ",  # in the first step: nothing is written yet
    "step 2: held-out loss",  # between two steps, around the writing of the checkpoint
    "Step 4: ",  # inside a step
    "Tuning the kept weights",  # in what comes after the steps
]


def command(folder, out, *more):
    options = {
        "--out": out, "--data": folder / "text.txt", "--count": 6, "--heldout": 3, "--length": 10,
        "--batch-size": 3, "--steps": 6, "--evaluation": 1, "--block-size": 32, "--tune": 3,
        "--fisher": "position",
    }  # fmt: skip
    words = [word for pair in options.items() for word in pair]
    words += ["--set", "damping=1.0", "--set", "tabu=0.3", "--set", "rank=7", "--repair", *more]
    return [sys.executable, "-m", "icbs", "prune", *map(str, [folder, *words])]


def killed(words, moment):
    """Runs the command until it says so; kill -9."""
    child = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    said = []
    for line in child.stderr:
        said.append(line)
        if line.startswith(moment):
            break
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stderr.close()
    assert child.returncode == -signal.SIGKILL, "".join(said)


def finished(words):
    done = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr


def left(out):
    """Everything but the clock."""
    summary = json.loads((out / "summary.json").read_text())
    del summary["seconds"]
    for row in summary["quality"]:
        del row["seconds"]
    with Store(out / "run.sqlite") as store:
        tables = [store.table(name) for name in ("steps", "tuning")]
    timeless = [t.loc[:, ~t.columns.str.startswith("seconds")].astype(object) for t in tables]
    # None, because a NaN equals nothing.
    timeless = [t.where(t.notna(), None).to_dict("records") for t in timeless]
    # The order of a file's own metadata is not fixed; its tensors are compared bit by bit.
    weights = [
        {name: (str(tensor.dtype), tensor.shape, tensor.tobytes())
         for name, tensor in load_file(out / file).items()}
        for file in ("masks.safetensors", "model/model.safetensors")
    ]  # fmt: skip
    return summary, timeless, weights


@pytest.mark.slow
def test_killed_run_ends_as_the_undisturbed_one(model_folder, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    finished(command(model_folder, whole))
    for moment in MOMENTS:
        killed(command(model_folder, parts, "--resume"), moment)
        assert not (parts / "summary.json").exists()
    finished(command(model_folder, parts, "--resume"))
    assert left(parts) == left(whole)
