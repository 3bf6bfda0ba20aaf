"""A few kills of `tests.faults.kills`; all of them with ``-m slow``."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


def trial(tmp_path, *options):
    out = tmp_path / "kills.json"
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.kills", "--out", out, *options],
        cwd=Path(__file__).parents[2], capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(out.read_text())


def test_some_kills(tmp_path):
    found = trial(tmp_path, "--drivers", "5", "--workers", "3", "--cells", "160")
    assert found["driver"]["kills"] == 5
    assert found["worker"]["kills"] >= 2


@pytest.mark.slow
def test_many_kills(tmp_path):
    found = trial(tmp_path, "--drivers", "100", "--pools", "20", "--workers", "50")
    assert found["driver"]["moments"]["during a cell"] > 20
    assert found["worker"]["kills"] == 50
