"""Bounds and proofs where every group keeps its ones: against brute force in long double."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from solvers import Budget, CardinalityProblem, make
from solvers.exact.certificate import verify
from solvers.exact.lowest import lowest
from solvers.exact.relaxation import bound
from solvers.exact.semidefinite import bound as semidefinite_bound
from tests.solvers.factories import SCALES_APART, of_kind
from tests.solvers.reference import exact_energy

SHAPES = (((4, 4), (2, 2)), ((2, 3, 3), (1, 2, 1)), ((3, 1, 2, 2), (1, 1, 0, 1)), ((5, 3), (2, 3)))


def grouped(kind, seed):
    sizes, ones = SHAPES[seed % len(SHAPES)]
    rng = np.random.default_rng([seed, 7])
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    bare = of_kind(kind, seed, len(labels))
    return replace(
        bare, cardinality=sum(ones), initial=None, groups=labels, cardinalities=np.array(ones)
    )


def states_of(problem):
    choices = [
        list(itertools.combinations(part, ones))
        for part, ones in zip(problem.members, problem.group_ones, strict=True)
    ]
    states = []
    for chosen in itertools.product(*choices):
        x = np.zeros(problem.n, dtype=bool)
        x[[i for part in chosen for i in part]] = True
        states.append(x)
    return np.array(states)


def brute(problem):
    return np.sort(np.array([exact_energy(problem, x) for x in states_of(problem)]))


@pytest.mark.parametrize("kind", SCALES_APART)
def test_bounds_are_never_above_the_optimum(kind):
    for seed in range(6):
        problem = grouped(kind, seed)
        least = brute(problem)[0]
        plain = bound(problem)
        assert problem.is_feasible(plain.state)
        assert plain.lower_bound <= least
        found = semidefinite_bound(problem)
        assert problem.is_feasible(found.state)
        assert found.lower + problem.offset <= least + 1e-12 * abs(problem.offset)
        if found.certificate is not None:
            assert verify(problem, found.certificate) <= least


@pytest.mark.parametrize("name", ["exact", "enumerate", "milp", "miqp"])
@pytest.mark.parametrize("kind", SCALES_APART)
def test_proofs_are_right(name, kind):
    for seed in range(4 if name in ("exact", "enumerate") else 1):
        problem = grouped(kind, seed)
        energies = brute(problem)
        samples = make(name).sample_problem(problem, budget=Budget(time_limit=20), seed=seed)
        info, state = samples.info, samples.record.sample[0]
        assert problem.is_feasible(state)
        found = exact_energy(problem, state.astype(bool))
        assert info["lower_bound"] <= energies[0] + 1e-12 * abs(problem.offset)
        if info["proved_optimal"]:
            assert found <= energies[0] + info["tolerance"]
        # Of the massive pair float64 does not hold the digits that a proof would need.
        if name in ("exact", "enumerate") and kind != "massive pair":
            assert info["proved_optimal"]


@pytest.mark.parametrize("kind", ["dense", "low rank", "duplicates"])
def test_lowest_states_of_groups(kind):
    for seed in range(3):
        problem = grouped(kind, seed)
        energies = brute(problem)
        found = lowest(problem, 5, seed=seed)
        assert found.proved
        assert problem.is_feasible(found.states).all()
        count = min(5, len(energies))
        assert len(found.states) == count
        scale = 1e-9 * max(1.0, abs(float(energies[count - 1])))
        assert np.abs(found.energies - energies[:count].astype(float)).max() < scale


def test_a_pattern_of_48_is_proved():
    rng = np.random.default_rng(3)
    A = rng.normal(size=(96, 48)) @ np.linalg.cholesky(0.6 * np.eye(48) + 0.4).T
    A *= 10 ** rng.uniform(-0.5, 0.5, size=48)
    problem = CardinalityProblem(
        linear=np.zeros(48), cardinality=24, factor=A, groups=np.arange(48) // 4,
        cardinalities=np.full(12, 2),
    )  # fmt: skip
    samples = make("exact").sample_problem(problem, budget=Budget(time_limit=60), seed=0)
    assert samples.info["proved_optimal"]
    other = make("tabu").sample_problem(problem, budget=Budget(reads=20), seed=0)
    assert samples.record.energy.min() <= other.record.energy.min() + samples.info["tolerance"]
