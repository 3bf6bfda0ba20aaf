"""Fixtures of the command line's tests."""

import numpy as np
import pytest

from solvers import CardinalityProblem, save


@pytest.fixture
def block(tmp_path):
    rng = np.random.default_rng(0)
    problem = CardinalityProblem(
        linear=rng.normal(size=10),
        cardinality=4,
        factor=rng.normal(size=(3, 10)),
        initial=np.arange(10) < 4,
        meta={"model": "m", "layer": "l", "fisher": "sequence"},
    )
    return save(problem, tmp_path / "a.block.safetensors")
