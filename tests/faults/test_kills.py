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
    found = trial(tmp_path, "--drivers", "4", "--workers", "2", "--cells", "60")
    assert found["driver"]["kills"] == 4
    assert found["worker"]["kills"] >= 1


@pytest.mark.slow
def test_many_kills(tmp_path):
    found = trial(tmp_path, "--drivers", "100", "--pools", "20", "--workers", "50")
    assert found["driver"]["moments"]["during a cell"] > 20
    assert found["worker"]["kills"] == 40
