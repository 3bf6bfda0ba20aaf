"""Swap searches on groups: swaps inside a group only, local optima, brute force, patterns."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers import Budget, CardinalityProblem, make
from solvers.errors import ProblemError
from solvers.search.annealing import Annealing
from solvers.search.group_kernels import group_tabu_search, group_window
from solvers.search.randomness import random_state_from
from solvers.search.repair import LocalSearch
from solvers.search.starts import kicked
from solvers.search.tabu import core_of
from solvers.search.walks import Walk
from tests.strategies import grouped

SEARCHES = ("greedy", "descent", "annealing", "tabu", "tempering")


def pattern(n=16, *, seed=0, dense=False, apart=2.0, m=4, keep=2, rank=None):
    """A row block's likeness with N:M groups in random order, columns of scales far apart."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(rank or n + 4, n)) * 10 ** rng.uniform(-apart, apart, size=n)
    A += 0.5 * A.mean(axis=1, keepdims=True)
    groups = rng.permutation(np.arange(n) // m)
    G = A.T @ A
    form = {"quadratic": (G + G.T) / 2} if dense else {"factor": A}
    return CardinalityProblem(
        linear=np.zeros(n), cardinality=n // m * (m - keep), groups=groups,
        cardinalities=np.full(n // m, m - keep), **form,
    )  # fmt: skip


def optimum(problem):
    choices = [
        list(itertools.combinations(part, ones))
        for part, ones in zip(problem.members, problem.group_ones, strict=True)
    ]
    states = np.zeros((np.prod([len(c) for c in choices]), problem.n), dtype=bool)
    for row, chosen in zip(states, itertools.product(*choices), strict=True):
        row[[i for part in chosen for i in part]] = True
    return float(problem.energy(states).min())


def swaps(problem, x):
    """Every swap inside a group, and its energy change."""
    for i, j in itertools.product(np.flatnonzero(x), np.flatnonzero(~x)):
        if problem.group_labels[i] == problem.group_labels[j]:
            y = x.copy()
            y[i], y[j] = False, True
            yield i, j, float(problem.energy(y) - problem.energy(x))


@given(grouped(), st.integers(0, 99), st.booleans())
@settings(max_examples=60)
def test_repair_and_descent_keep_groups_and_end_in_a_local_optimum(problem, seed, dense):
    rng = np.random.default_rng(seed)
    if dense:
        problem = replace(problem, factor=None, quadratic=problem.gram())
    search = LocalSearch(problem)
    filled = search.fill(rng.random(problem.n) < 0.5)
    assert problem.is_feasible(filled)
    state = search.descend(filled)
    assert problem.is_feasible(state)
    assert problem.energy(state) <= problem.energy(filled) + 1e-9
    assert all(delta > -1e-9 for *_, delta in swaps(problem, state))


@given(grouped(), st.integers(0, 9))
@settings(max_examples=40)
def test_repair_takes_the_best_flip_each_time(problem, seed):
    state = np.random.default_rng(seed).random(problem.n) < 0.5
    x = state.copy()
    while (missing := problem.group_ones - problem.ones_of(x)).any():
        flips = {}
        for i in range(problem.n):
            lack = missing[problem.group_labels[i]]
            if lack and x[i] == (lack < 0):
                y = x.copy()
                y[i] = not x[i]
                flips[i] = float(problem.energy(y) - problem.energy(x))
        best = min(flips, key=flips.__getitem__)
        x[best] = not x[best]
    assert problem.energy(LocalSearch(problem).fill(state)) == pytest.approx(problem.energy(x))


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("name", SEARCHES)
def test_searches_reach_the_optimum_of_patterns(name, dense):
    for seed in range(4):
        problem = pattern(seed=seed, dense=dense)
        samples = make(name).sample_problem(problem, budget=Budget(reads=30), seed=seed)
        states = samples.record.sample
        assert problem.is_feasible(states).all()
        best = optimum(problem)
        gap = samples.record.energy.min() / best - 1
        assert -1e-9 < gap < (3 if name == "greedy" else 1e-9)


@pytest.mark.parametrize("name", SEARCHES)
def test_order_of_the_variables_does_not_matter_for_feasibility(name):
    problem = pattern(40, seed=3, m=8, keep=4, rank=12)
    moved = problem.permuted(np.random.default_rng(5))
    samples = make(name).sample_problem(moved, budget=Budget(reads=2), seed=1)
    assert moved.is_feasible(samples.record.sample).all()
    assert make(name).takes_groups


@pytest.mark.parametrize("dense", [False, True])
def test_a_walk_keeps_its_sums_and_visits_as_boltzmann_says(dense):
    problem = pattern(8, seed=1, dense=dense, apart=0.1)
    search = LocalSearch(problem)
    walk = Walk(
        search,
        problem.random_state(np.random.default_rng(0)),
        random_state_from(np.random.default_rng(1)),
    )
    spread = np.std(
        [problem.energy(problem.random_state(np.random.default_rng(s))) for s in range(50)]
    )
    seen: dict[bytes, int] = {}
    for _ in range(6000):
        walk.anneal(np.full(1, spread), np.inf)
        seen[walk.x.tobytes()] = seen.get(walk.x.tobytes(), 0) + 1
    assert walk.energy + problem.offset == pytest.approx(float(problem.energy(walk.x)))
    states = np.array([np.frombuffer(key, dtype=bool) for key in seen])
    assert problem.is_feasible(states).all()
    weights = np.exp(-problem.energy(states) / spread)
    expected = weights / weights.sum() * 6000
    counts = np.array(list(seen.values()))
    assert len(states) == 36
    assert np.abs(counts - expected).max() < 0.35 * expected.max()


def test_the_window_is_of_groups_that_can_swap():
    problem = replace(
        pattern(8), groups=np.repeat([0, 1, 2], [2, 3, 3]), cardinalities=np.array([2, 1, 1])
    )
    x = np.array([1, 1, 0, 1, 0, 0, 0, 1], dtype=bool)
    search = LocalSearch(problem)
    ones, zeros = np.empty(8, np.int64), np.empty(8, np.int64)
    first, count = np.empty(3, np.int64), np.empty(3, np.int64)
    m1, m0 = group_window(
        search.diagonal, problem.fields(x), x, *search.groups[1:], np.inf, ones, zeros,
        first, count,
    )  # fmt: skip
    assert sorted(ones[:m1]) == [3, 7]
    assert sorted(zeros[:m0]) == [2, 4, 5, 6]
    assert count.tolist() == [0, 2, 2]
    for u, i in ((1, 3), (2, 7)):
        part = zeros[first[u] : first[u] + count[u]]
        assert set(problem.groups[part]) == {u} == {problem.groups[i]}


def test_tabu_swaps_inside_groups_and_finds_the_optimum():
    problem = pattern(16, seed=2, dense=True)
    search = LocalSearch(problem)
    x = problem.random_state(np.random.default_rng(0))
    f, best = problem.fields(x), x.copy()
    energies = np.full(2, float(problem.energy(x)))
    group_tabu_search(
        problem.gram(), f, x, *search.groups[1:], np.zeros(16, np.int64), 0, 500,
        np.array([3, 3]), energies, 1e-12, best, random_state_from(np.random.default_rng(1)),
    )  # fmt: skip
    assert problem.is_feasible(x)
    assert f == pytest.approx(problem.fields(x))
    assert energies[0] == pytest.approx(float(problem.energy(x)))
    assert energies[1] == pytest.approx(optimum(problem))
    assert energies[1] == pytest.approx(float(problem.energy(best)))


def test_cores_and_kicks_stay_in_groups():
    problem = pattern(800, seed=4, rank=6)
    rng = np.random.default_rng(0)
    x = problem.random_state(rng)
    core = core_of(problem, x, 100)
    assert len(np.unique(core)) == 100
    part = problem.restricted(core, at=x)
    assert part.only_state is None
    y = kicked(x, core, 5, rng, problem.groups)
    assert problem.is_feasible(y)
    assert (x != y).sum() == 2 * 5
    assert not (x != y)[np.setdiff1d(np.arange(800), core)].any()


def test_batches_on_a_device_say_that_they_keep_no_groups():
    with pytest.raises(ProblemError, match=r"device.*groups"):
        Annealing(device="cpu").sample_problem(pattern())


def test_searches_without_groups_say_so():
    with pytest.raises(ProblemError, match="groups"):
        make("reference-sa").sample_problem(pattern())
