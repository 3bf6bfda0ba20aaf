"""Batch annealing on a torch device: the chain of the kernels with other random numbers."""

import time

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp

from solvers import Budget, make
from solvers.clock.deadline import NEVER
from solvers.errors import ParameterError
from solvers.search.annealing_torch import Batch, anneal_batch
from solvers.search.repair import LocalSearch
from solvers.search.schedule import cooling, hottest
from solvers.search.walks import Walk
from tests.solvers.factories import drawn, random_source
from tests.solvers.reference import boltzmann, feasible_states, frequencies

CPU = torch.device("cpu")


@pytest.mark.parametrize("dense", [False, True])
def test_reads_settle_in_the_boltzmann_distribution(dense):
    problem = drawn(6, 2, 2, seed=4, dense=dense)
    states, expected = boltzmann(problem, 1.3)
    starts = np.repeat(states[:1], 30_000, axis=0)
    found = anneal_batch(problem, starts, np.full(25, 1.3), np.inf, CPU, 5, NEVER)
    # One deviation of the commonest state's share is below 0.003.
    assert np.abs(frequencies(states, found) - expected).max() < 0.012


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("margin", [2.0, np.inf])
def test_energies_are_distributed_as_those_of_the_compiled_chain(dense, margin):
    """A whole cooling from the same starts, windows included."""
    problem = drawn(24, 10, 6, seed=2, curvature=0.7, dense=dense)
    rng = np.random.default_rng(0)
    starts = np.array([rng.permutation(24) < 10 for _ in range(1500)])
    search, compiled = LocalSearch(problem), []
    temperatures = 5 * hottest(search, starts[0], rng) * cooling(12)
    batch = anneal_batch(problem, starts, temperatures, margin, CPU, 1, NEVER)
    for seed, start in enumerate(starts):
        walk = Walk(search, start, random_source(seed))
        walk.anneal(temperatures, margin)
        compiled.append(walk.x)
    ours, theirs = problem.energy(batch), problem.energy(np.array(compiled))
    assert len(np.unique(np.round(theirs, 9))) > 50
    assert ks_2samp(ours, theirs).pvalue > 1e-3


@pytest.mark.parametrize("dense", [False, True])
def test_moments_stand_for_the_states(dense):
    problem = drawn(9, 4, 3, seed=1, dense=dense)
    starts = feasible_states(problem)
    batch = Batch(problem, starts, CPU, 3)
    assert (batch.states() == starts).all()
    for number in range(40):
        batch.step(2.0, *batch.open_window(np.inf), number % 9)
    states = batch.states()
    assert problem.is_feasible(states).all()
    assert (states != starts).any()
    assert np.allclose(batch.fields().numpy(), problem.fields(states), atol=1e-9)


def test_window_is_that_of_the_kernel():
    problem = drawn(9, 4, 3, seed=1)
    starts = feasible_states(problem)
    batch = Batch(problem, starts, CPU, 3)
    m1, m0 = batch.open_window(1.0)
    cost = 0.5 * problem.diagonal + np.where(starts, -1, 1) * problem.fields(starts)
    for row, x in enumerate(starts):
        pairs = cost[row, x][:, None] + cost[row, ~x][None, :]
        ones = np.flatnonzero(x)[pairs.min(axis=1) <= 1.0]
        zeros = np.flatnonzero(~x)[pairs.min(axis=0) <= 1.0]
        assert (int(m1[row]), int(m0[row])) == (len(ones), len(zeros))
        assert sorted(batch.ones[row, : len(ones)].tolist()) == ones.tolist()
        assert sorted(batch.zeros[row, : len(zeros)].tolist()) == zeros.tolist()


def test_device_option_makes_one_batch_and_repeats_itself():
    problem = drawn(40, 20, 30, seed=8, curvature=10.0)
    best = make("tabu").sample_problem(problem, budget=Budget(reads=8), seed=0).first.energy
    solver, budget = make("annealing", device="cpu"), Budget(reads=30, sweeps=20)
    one, again = (solver.sample_problem(problem, budget=budget, seed=2) for _ in range(2))
    assert len(one.record.sample) == 30
    assert (one.record.sample == again.record.sample).all()
    assert one.first.energy == pytest.approx(best, abs=1e-9)
    start = np.array([one.first.sample[i] for i in range(40)], dtype=bool)
    led = solver.sample_problem(problem, budget=Budget(reads=1, sweeps=1), seed=3, initial=start)
    assert led.first.energy == pytest.approx(best, abs=1e-9)


def test_time_limit_ends_the_batch():
    problem = drawn(300, 100, 8, seed=1)
    solver = make("annealing", device="cpu")
    begun = time.perf_counter()
    samples = solver.sample_problem(
        problem, budget=Budget(time_limit=0.2, reads=500, sweeps=10_000), seed=0
    )
    # Unheeded, the limit would be overrun by minutes.
    assert time.perf_counter() - begun < 3
    assert problem.is_feasible(samples.record.sample).all()


@pytest.mark.parametrize("device", ["nonsense", "meta:x", "cuda:99"])
def test_a_device_that_cannot_be_used_is_named(device):
    with pytest.raises(ParameterError, match=f"device is '{device}'"):
        make("annealing", device=device)
