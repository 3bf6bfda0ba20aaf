"""The published methods that the benchmark of row blocks writes out, and its races."""

import numpy as np
import pytest

from experiments.benchmarks.rows import FIXED, frank_wolfe, one_swap, race, wanda
from solvers.clock.deadline import NEVER
from tests.solvers.factories import massive


@pytest.mark.parametrize("k", [1, 20, 39])
def test_one_swap_ends_where_no_swap_helps_and_below_wanda(k):
    block = massive(40, k, seed=k, decades=2.0)
    state = one_swap(block, NEVER)
    assert block.energy(state) <= block.energy(wanda(block))
    deltas = block.swap_deltas(state)[2]
    assert deltas.min() >= -1e-9 * block.energy(state)


@pytest.mark.parametrize("k", [1, 20, 39])
def test_frank_wolfe_keeps_what_is_fixed(k):
    block = massive(40, k, seed=k, decades=2.0)
    state = frank_wolfe(block, NEVER)
    assert block.is_feasible(state)
    order = np.argsort(block.diagonal)
    assert state[order[: int(FIXED * k)]].all()
    assert not state[order[40 - int(FIXED * (40 - k)) :]].any()


def test_a_race_ends_at_its_goal_or_nowhere():
    block = massive(30, 15, seed=0, decades=1.0)
    assert race("tabu", block, 5.0, 0, float(block.energy(wanda(block)))) < 5.0
    assert race("tabu", block, 0.05, 0, 0.0) == np.inf
