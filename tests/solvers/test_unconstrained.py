"""Models without a cardinality: every number of ones is possible, and the clock holds."""

import time

import dimod
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers import Budget, make
from solvers.bqm.convert import problem_from_bqm
from solvers.bqm.unconstrained import (
    alternating,
    bounds_by_cardinality,
    every_cardinality,
    flip_descent,
)
from solvers.clock.deadline import NEVER, Deadline
from tests.solvers.reference import every_state


def random_model(n, seed=0, vartype="BINARY", scale=1.0):
    rng = np.random.default_rng(seed)
    return dimod.BinaryQuadraticModel(
        {f"v{i}": scale * rng.normal() for i in range(n)},
        {(f"v{i}", f"v{j}"): rng.normal() for i in range(n) for j in range(i)},
        0.5,
        vartype,
    )


def ring(n):
    rng = np.random.default_rng(0)
    couplings = {(i, (i + 1) % n): rng.normal() for i in range(n)}
    return dimod.BinaryQuadraticModel({i: 0.1 * rng.normal() for i in range(n)}, couplings, "SPIN")


@pytest.mark.parametrize("name", ["exact", "enumerate", "milp", "miqp"])
@pytest.mark.parametrize("vartype", ["BINARY", "SPIN"])
def test_solvers_that_prove_do_so_over_all_cardinalities(name, vartype):
    bqm = random_model(9, vartype=vartype)
    samples = make(name).sample(bqm, seed=1)
    optimum = dimod.ExactSolver().sample(bqm).first.energy
    assert len(samples) == 1
    assert samples.first.energy == pytest.approx(optimum, abs=1e-9)
    info = samples.info
    assert info["proved_optimal"] is True
    assert optimum - 1e-4 <= info["lower_bound"] <= optimum + 1e-9
    assert info["cardinalities"]["open"] == 0
    assert sum(info["cardinalities"].values()) == 10
    assert info["solver"] == name


def test_enumeration_takes_as_many_variables_as_with_a_cardinality():
    bqm = random_model(16)
    samples = make("enumerate").sample(bqm)
    assert samples.info["proved_optimal"]
    assert samples.first.energy == pytest.approx(dimod.ExactSolver().sample(bqm).first.energy)


def test_without_time_nothing_is_proved_and_the_bound_holds():
    bqm = random_model(60)
    start = time.perf_counter()
    samples = make("exact").sample(bqm, time_limit=0.2)
    assert time.perf_counter() - start < 10  # generous: a busy machine; all of them take minutes
    info = samples.info
    assert info["proved_optimal"] is False
    assert info["cardinalities"]["open"] > 0
    assert info["lower_bound"] < samples.first.energy
    assert samples.first.energy <= make("neal").sample(bqm, num_reads=1, seed=0).first.energy + 20


def test_one_that_cannot_prove_leaves_a_cardinality_open():
    """An answer that is proved for all cardinalities but one is not proved."""
    problem = problem_from_bqm(random_model(6), 0)
    honest = make("enumerate")
    optimum = int(
        every_cardinality(problem, lambda p, limit, x: honest.sample_problem(p), NEVER)
        .record.sample[0]
        .sum()
    )

    def solve(part, limit, x):
        samples = honest.sample_problem(part)
        if part.cardinality == optimum:
            del samples.info["lower_bound"]
            samples.info["proved_optimal"] = False
        return samples

    samples = every_cardinality(problem, solve, NEVER)
    assert samples.info["proved_optimal"] is False
    assert samples.info["cardinalities"]["open"] == 1
    assert samples.info["lower_bound"] <= samples.first.energy


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 7), st.integers(0, 2**32), st.sampled_from([1e-3, 1.0, 1e9]))
def test_bounds_by_cardinality_hold(n, seed, scale):
    rng = np.random.default_rng(seed)
    bqm = random_model(n, seed)
    bqm.scale(scale)
    if n:
        bqm.add_linear("v0", 1e12 * rng.normal())
    problem = problem_from_bqm(bqm, 0)
    states = every_state(n)
    energies, weights = problem.energy(states), states.sum(axis=1)
    bounds = bounds_by_cardinality(problem)
    assert len(bounds) == n + 1
    for k in range(n + 1):
        assert bounds[k] <= energies[weights == k].min()


def test_flip_descent_ends_in_a_local_optimum():
    problem = problem_from_bqm(random_model(30), 0)
    state = flip_descent(problem, np.zeros(30))
    energy = problem.energy(state)
    assert energy < problem.energy(np.zeros(30))
    for i in range(30):
        flipped = state.copy()
        flipped[i] = not flipped[i]
        assert problem.energy(flipped) >= energy - 1e-9
    assert (flip_descent(problem, state, Deadline(-1)) == state).all()


def test_solver_and_flips_in_turn_never_lose():
    problem = problem_from_bqm(random_model(40, scale=3), 0)
    start = float(problem.energy(flip_descent(problem, np.zeros(40))))
    sampler = make("annealing")

    def solve(part, limit, x):
        return sampler.sample_problem(
            part, budget=Budget(reads=3), seed=part.cardinality, initial=x
        )

    samples = alternating(problem, solve, NEVER)
    assert samples.first.energy <= start + 1e-9
    assert samples.info["rounds"] >= 1
    assert samples.info["proved_optimal"] is False
    assert samples.info["lower_bound"] <= samples.first.energy
    np.testing.assert_allclose(problem.energy(samples.record.sample), samples.record.energy)
    begin = np.zeros(40, dtype=np.bool_)
    begin[:20] = True
    assert alternating(problem, solve, NEVER, begin).first.energy <= problem.energy(begin) + 1e-9


def test_large_sparse_models_are_solved_without_free_variables():
    """As one problem of 2n variables the ring ended at +107 after 5 s, and took 844 MB."""
    bqm = ring(1000)
    samples = make("annealing").sample(bqm, time_limit=1.0, seed=0)
    np.testing.assert_allclose(samples.record.energy, bqm.energies(samples))
    assert samples.info["rounds"] >= 1
    assert samples.info["timing"]["convert"] > 0
    # The least conceivable energy is the sum of all sizes; single flips reach 0.85 of it.
    assert samples.first.energy < 0.8 * -sum(abs(v) for v in bqm.quadratic.values())


def test_models_that_do_not_fit_are_refused(monkeypatch):
    monkeypatch.setattr("solvers.memory.available", lambda: 10**9)
    bqm = ring(12_000)
    size = dimod.exceptions.BinaryQuadraticModelSizeError
    with pytest.raises(size, match=r"12,000.*needs 1\.73 GB, 1 GB are available: .*neal"):
        make("annealing").sample(bqm)
    with pytest.raises(size, match=r"12,000.*needs 1\.73 GB"):
        make("annealing").sample(bqm, cardinality=3)
    with pytest.raises(size, match=r"time_limit is 0\.1, but a dense problem of 30,000"):
        make("annealing").sample(ring(30_000), time_limit=0.1)
    samples = make("neal").sample(bqm, time_limit=0.2)
    np.testing.assert_allclose(samples.record.energy, bqm.energies(samples))


def test_the_size_limit_counts_what_is_added():
    with pytest.raises(
        dimod.exceptions.BinaryQuadraticModelSizeError,
        match="at most 20 variables, and without a cardinality the 13 of the model become 26",
    ):
        make("qaoa-subspace").sample(random_model(13))


@pytest.mark.parametrize("name", ["annealing", "exact"])
@pytest.mark.parametrize("n", [6, 600])
def test_the_seed_decides_without_a_cardinality(name, n):
    if (name, n) == ("exact", 600):
        pytest.skip("takes hours")
    bqm = random_model(n, scale=5)
    one, again = (make(name).sample(bqm, num_reads=2, seed=3) for _ in range(2))
    assert (one.record.sample == again.record.sample).all()
