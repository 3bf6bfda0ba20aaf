"""Starts biased by a classical answer: states, circuits, samplers."""

from itertools import pairwise

import numpy as np
import pytest

from solvers.base import Budget
from solvers.clock.deadline import NEVER
from solvers.cloud.paid import BraketPenaltyQAOA
from solvers.qaoa.angles import Angles
from solvers.qaoa.braket import BraketLocalSubspaceQAOA
from solvers.qaoa.circuit.ansatz import Ising, groups_of, parameter_values, subspace_ansatz
from solvers.qaoa.circuit.dicke import dicke_state
from solvers.qaoa.circuit.gates import Circuit
from solvers.qaoa.qiskit import AerSubspaceQAOA
from solvers.qaoa.rounds import _better
from solvers.qaoa.simulator.subspace import Simulator
from solvers.qaoa.subspace import SubspaceQAOA
from solvers.qaoa.warm import EPSILON, biased_odds, warm_started
from tests.solvers.circuits import (
    bits,
    braket_state,
    each_subspace_sampler,
    grouped_problem,
    problem,
    qiskit_state,
    run_dense,
    same_up_to_phase,
)

SIMULATED = {"ring": "ring", "complete": "complete-trotter"}
PROBLEMS = {
    "one group": lambda: problem(7, 3),
    "more ones than zeros": lambda: problem(6, 4),
    "2:4": lambda: grouped_problem((4, 4), (2, 2)),
    "uneven": lambda: grouped_problem((5, 3), (3, 1)),
    "one settled": lambda: grouped_problem((3, 4), (3, 1)),
}
by_problem = pytest.mark.parametrize("name", list(PROBLEMS))


def odds_of(n, seed=3):
    return np.exp(np.random.default_rng(seed).normal(size=n) * 2)


def dense_start(instance, odds):
    """Independent coins under the condition of the groups, over all 2^n states."""
    x = bits(instance.n)
    weights = np.prod(np.where(x, odds, 1.0), axis=1) * instance.is_feasible(x)
    return np.sqrt(weights / weights.sum())


@pytest.mark.parametrize(("n", "k"), [(1, 1), (2, 1), (4, 2), (5, 1), (5, 4), (6, 3), (5, 0)])
def test_biased_dicke_state(n, k):
    odds = odds_of(n)
    x = bits(n)
    weights = np.prod(np.where(x, odds, 1.0), axis=1) * (x.sum(1) == k)
    psi = run_dense(Circuit(n, tuple(dicke_state(n, k, list(odds)))))
    np.testing.assert_allclose(psi, np.sqrt(weights / weights.sum()), atol=1e-12)


def test_equal_odds_are_the_plain_state():
    assert dicke_state(9, 4, [1.0] * 9) == dicke_state(9, 4)


@pytest.mark.parametrize("state", [qiskit_state, braket_state])
@pytest.mark.parametrize("mixer", list(SIMULATED))
@by_problem
def test_circuit_is_the_simulated_state(state, mixer, name):
    instance = PROBLEMS[name]()
    odds = odds_of(instance.n)
    rng = np.random.default_rng(0)
    angles = Angles.given(rng.normal(size=2) * 0.3, rng.normal(size=2))
    ising = Ising.from_bqm(instance.to_bqm())
    circuit = subspace_ansatz(groups_of(instance), ising.edges, 2, mixer, tuple(odds))
    simulator = Simulator(instance, SIMULATED[mixer], odds=odds)
    full = np.zeros(2**instance.n, complex)
    index = simulator.states(np.arange(simulator.dim)) @ (1 << np.arange(instance.n))
    full[index] = simulator.state(Angles.given([0.0], [0.0]))
    np.testing.assert_allclose(full, dense_start(instance, odds), atol=1e-12)
    full[index] = simulator.state(angles)
    same_up_to_phase(full, state(circuit, parameter_values(ising, angles)))


@by_problem
def test_gradient_matches_finite_differences(name):
    instance = PROBLEMS[name]()
    simulator = Simulator(instance, odds=odds_of(instance.n))
    point, step = np.array([0.2, -0.1, 0.4, 0.7]), 1e-5
    _, *slopes = simulator.gradient(Angles.given(*np.split(point, 2)))
    for i, slope in enumerate(np.concatenate(slopes)):
        ends = [
            simulator.expectation(
                Angles.given(*np.split(point + sign * step * (np.arange(4) == i), 2))
            )
            for sign in (1, -1)
        ]
        assert slope == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-6)


def test_the_answer_is_likeliest_and_swaps_cost_a_factor():
    instance = problem(8, 4)
    warm = warm_started(instance, "greedy", 0, NEVER)
    assert instance.energy(warm.state) == pytest.approx(warm.energy)
    simulator = Simulator(instance, odds=biased_odds(warm.state))
    weights = simulator.probabilities(Angles.given([0.0], [0.0]))
    swaps = (simulator.states(np.arange(simulator.dim)) != warm.state).sum(1) // 2
    by_swaps = [weights[swaps == s] for s in range(5)]
    for near, far in pairwise(by_swaps):
        np.testing.assert_allclose(far / near[0], (EPSILON / (1 - EPSILON)) ** 2, rtol=1e-10)


@pytest.mark.parametrize("warm_start", ["descent", "greedy", "relaxation"])
@each_subspace_sampler
def test_samplers_say_what_they_started_from(solver, warm_start):
    instance = grouped_problem((4, 4), (2, 2))
    call = {"seed": 1, "mixer": "ring", "depth": 1, "angles": "ramp", "budget": Budget(reads=300)}
    warm = solver.sample_problem(instance, warm_start=warm_start, **call)
    assert instance.is_feasible(warm.record.sample).all()
    said = warm.info["warm_start"]
    assert said["solver"] == warm_start
    assert 0 < said["seconds"] <= warm.info["timing"]["training"]
    assert warm.info["angles"].endswith(f"; warm start from {warm_start}")
    assert said["energy"] >= Simulator(instance).costs.min() - 1e-12
    assert "warm_start" not in solver.sample_problem(instance, **call).info


def test_what_is_refused():
    with pytest.raises(TypeError, match="warm_start is 'tabu'"):
        SubspaceQAOA().sample_problem(problem(), warm_start="tabu")
    for call in (SubspaceQAOA().sample_problem, lambda p, **k: SubspaceQAOA().check_parameters(k)):
        with pytest.raises(TypeError, match="mixer is 'grover', which takes no biased start"):
            call(problem(), mixer="grover", warm_start="greedy")
    solver = BraketPenaltyQAOA("SV1", rehearse=True, max_cost=1e6)
    with pytest.raises(TypeError, match="mixer is 'x', which takes no biased start"):
        solver.sample_problem(problem(), warm_start="greedy")


ROUGH = {"mixer": "ring", "depth": 1, "angles": "ramp"}


@pytest.mark.parametrize(
    "solver", [SubspaceQAOA(), AerSubspaceQAOA(), BraketLocalSubspaceQAOA()], ids=lambda s: s.name
)
def test_one_round_is_plain_qaoa_and_several_share_the_reads(solver):
    instance = grouped_problem((4, 4), (2, 2))
    plain, one, three = (
        solver.sample_problem(instance, seed=4, budget=Budget(reads=100), **ROUGH, **more)
        for more in ({}, {"rounds": 1}, {"rounds": 3})
    )
    np.testing.assert_array_equal(plain.record.sample, one.record.sample)
    assert "rounds" not in one.info
    assert len(three) == 100
    told = three.info["rounds"]
    assert [one["reads"] for one in told] == [34, 33, 33]
    assert told[0]["start"] == "uniform"
    assert told[1]["start"] == "the best shot of round 1"
    assert told[0]["best"] >= told[1]["best"] >= told[2]["best"]
    assert told[2]["best"] == pytest.approx(three.record.energy.min())
    assert three.info["angles"].endswith(told[2]["start"])


def test_rounds_come_nearer():
    """The mean energy falls from round to round, on most problems."""
    nearer = []
    for seed in range(8):
        instance = problem(12, 6, seed=seed)
        samples = SubspaceQAOA().sample_problem(
            instance, seed=0, budget=Budget(reads=60), rounds=4, **ROUGH
        )
        rounds = samples.record.energy.reshape(4, 15).mean(axis=1)
        nearer.append(rounds[-1] < rounds[0])
    assert np.mean(nearer) > 0.7


def test_a_classical_start_stays_until_a_shot_is_better():
    instance = problem(10, 5)
    optimum = Simulator(instance).costs.min()
    samples = SubspaceQAOA().sample_problem(
        instance, seed=0, budget=Budget(reads=20), rounds=2, warm_start="descent", **ROUGH
    )
    first, second = samples.info["rounds"]
    assert first["best"] == pytest.approx(optimum)
    assert (first["start"], second["start"]) == ("descent", "descent")


def test_shots_that_are_not_feasible_start_nothing():
    instance = problem(6, 3)
    start = warm_started(instance, "greedy", 0, NEVER)
    worst = np.ones((4, 6), np.int8)
    assert _better(instance, None, worst, 0) is None
    assert _better(instance, start, worst, 0) is start
    states = Simulator(instance).states(np.arange(20))
    found = _better(instance, None, states, 1)
    assert found.energy == pytest.approx(instance.energy(states).min())
    assert found.solver == "the best shot of round 2"


def test_rounds_that_are_refused():
    for rounds, words in ((0, "rounds is 0"), (1.5, "rounds is 1.5"), (7, "rounds is 7 and reads")):
        with pytest.raises(TypeError, match=words):
            SubspaceQAOA().sample_problem(problem(), rounds=rounds, budget=Budget(reads=6))
    with pytest.raises(TypeError, match="mixer is 'grover', which takes no biased start"):
        SubspaceQAOA().check_parameters({"rounds": 2, "mixer": "grover"})
    # On a device each round would wait in the queue.
    with pytest.raises(TypeError, match="no parameter 'rounds'"):
        BraketPenaltyQAOA("SV1", rehearse=True, max_cost=1e6).sample_problem(problem(), rounds=2)
