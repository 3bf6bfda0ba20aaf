"""QAOA with a number of ones in each group: simulator, circuits, samplers."""

from dataclasses import replace

import dimod
import numpy as np
import pytest
from scipy.linalg import expm

from solvers.base import Budget
from solvers.cloud.paid import BraketPenaltyQAOA
from solvers.qaoa.angles import Angles
from solvers.qaoa.circuit.ansatz import Ising, groups_of, parameter_values, subspace_ansatz
from solvers.qaoa.circuit.mixers import complete_edges, ring_edges
from solvers.qaoa.simulator import product
from solvers.qaoa.simulator.subspace import MIXERS, Simulator
from tests.solvers.circuits import (
    X,
    Y,
    bits,
    braket_state,
    each_subspace_sampler,
    grouped_problem,
    make,
    on,
    problem,
    qiskit_state,
    same_up_to_phase,
)

# Groups of 2:4, of different sizes, with one settled at no ones or at all, and of pairs.
GROUPS = [((4, 4), (2, 2)), ((5, 3), (2, 1)), ((3, 1, 4), (3, 0, 1)), ((2, 3, 2), (1, 2, 1))]
SIMULATED = {"ring": "ring", "complete": "complete-trotter", "grover": "grover"}
by_groups = pytest.mark.parametrize(("sizes", "ones"), GROUPS)


def schedule(p=2):
    rng = np.random.default_rng(p)
    return Angles.given(rng.normal(size=p) * 0.3, rng.normal(size=p))


def full_state(simulator, angles):
    """The simulator's amplitudes spread over all 2^n states."""
    full = np.zeros(2**simulator.n, complex)
    index = simulator.states(np.arange(simulator.dim)) @ (1 << np.arange(simulator.n))
    assert len(set(index.tolist())) == simulator.dim
    full[index] = simulator.state(angles)
    return full


def generators(mixer, instance):
    """Of the mixer in order of application, as dense matrices."""
    n, found = instance.n, []
    for members, k in zip(instance.members, instance.group_ones, strict=True):
        m = len(members)
        if mixer == "grover":
            # A projector on the group's Dicke state, and identity on the qubits outside.
            x = bits(n)
            inside, outside = x[:, members], np.delete(x, members, axis=1)
            same = (outside[:, None] == outside[None]).all(-1)
            right = inside.sum(1) == k
            found.append((same & right[:, None] & right) / -right.sum() * 2.0 ** (n - m))
            continue
        edges = ring_edges(m) if mixer == "ring" else complete_edges(m)
        terms = [
            -sum(on(n, **{f"q{members[q]}": P for q in edge}) for P in (X, Y)) / 2 for edge in edges
        ]
        found += [sum(terms)] if mixer == "complete" and terms else terms
    return found


@pytest.mark.parametrize("mixer", [mixer for mixer in MIXERS if mixer != "x"])
@pytest.mark.parametrize(("sizes", "ones"), [((4, 2), (2, 1)), ((3, 1, 2), (2, 1, 1))])
def test_amplitudes_match_matrix_exponentials_over_all_states(mixer, sizes, ones):
    instance, angles = grouped_problem(sizes, ones), schedule()
    x = bits(instance.n)
    psi = instance.is_feasible(x) + 0j
    psi /= np.linalg.norm(psi)
    for gamma, beta in zip(angles.gammas, angles.betas, strict=True):
        psi = np.exp(-1j * gamma * instance.energy(x)) * psi
        for M in generators(mixer, instance):
            psi = expm(-1j * beta * M) @ psi
    same_up_to_phase(full_state(make(mixer, instance), angles), psi, 1e-10)


@by_groups
def test_states_and_energies_are_those_of_the_problem(sizes, ones):
    instance = grouped_problem(sizes, ones)
    simulator = Simulator(instance)
    states = simulator.states(np.arange(simulator.dim))
    assert simulator.dim == instance.is_feasible(bits(instance.n)).sum()
    assert instance.is_feasible(states).all()
    np.testing.assert_allclose(simulator.costs, instance.energy(states), atol=1e-12)


def test_energies_of_columns_eight_orders_of_magnitude_apart():
    bare = grouped_problem((4, 4, 4), (2, 1, 3))
    instance = replace(bare, factor=bare.factor * np.logspace(-4, 4, 12))
    simulator = Simulator(instance)
    expected = instance.energy(simulator.states(np.arange(simulator.dim)))
    np.testing.assert_allclose(simulator.costs, expected, rtol=1e-9)


@pytest.mark.parametrize("dense", [0, product.DENSE])
@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("alpha", [1.0, 0.35])
@by_groups
def test_gradients_match_finite_differences(mixer, alpha, sizes, ones, dense, monkeypatch):
    monkeypatch.setattr(product, "DENSE", dense)
    simulator, angles = make(mixer, grouped_problem(sizes, ones)), schedule()
    value, *slopes = simulator.gradient(angles, alpha)
    if alpha == 1:
        assert value == pytest.approx(simulator.expectation(angles), abs=1e-12)
    point, step = np.concatenate([angles.gammas, angles.betas]), 1e-5
    for i, slope in enumerate(np.concatenate(slopes)):
        ends = []
        for sign in (1, -1):
            moved = point.copy()
            moved[i] += sign * step
            ends.append(simulator.objective(Angles.given(*np.split(moved, 2)), alpha))
        assert slope == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-6)


@pytest.mark.parametrize("mixer", [mixer for mixer in MIXERS if mixer != "x"])
@by_groups
def test_matrices_and_slices_agree(mixer, sizes, ones, monkeypatch):
    instance = grouped_problem(sizes, ones)
    matrices = make(mixer, instance).state(schedule())
    monkeypatch.setattr(product, "DENSE", 0)
    np.testing.assert_allclose(make(mixer, instance).state(schedule()), matrices, atol=1e-12)


@pytest.mark.parametrize("mixer", [mixer for mixer in MIXERS if mixer != "x"])
def test_a_settled_group_changes_nothing_for_the_others(mixer):
    """The problem with the settled variables put in is one group's, whose states it shares."""
    instance = grouped_problem((6, 2), (3, 2))
    free, fixed = instance.members
    G = instance.gram()
    own = instance.linear[free] + G[np.ix_(free, fixed)].sum(1)
    rest = problem(6, 3)
    alone = replace(rest, factor=instance.factor[:, free], linear=own)
    angles = schedule()
    np.testing.assert_allclose(
        np.abs(make(mixer, instance).state(angles)),
        np.abs(make(mixer, alone).state(angles)),
        atol=1e-12,
    )


@pytest.mark.parametrize("state", [qiskit_state, braket_state])
@pytest.mark.parametrize("mixer", list(SIMULATED))
@by_groups
def test_circuit_is_the_simulated_state(state, mixer, sizes, ones):
    instance, angles = grouped_problem(sizes, ones), schedule()
    ising = Ising.from_bqm(instance.to_bqm())
    circuit = subspace_ansatz(groups_of(instance), ising.edges, 2, mixer)
    psi = state(circuit, parameter_values(ising, angles))
    same_up_to_phase(full_state(make(SIMULATED[mixer], instance), angles), psi)


def test_groups_are_shallower_than_one_dicke_state():
    one, four = (problem(16, 8), grouped_problem((4, 4, 4, 4), (2, 2, 2, 2)))
    deep, flat = (
        subspace_ansatz(groups_of(p), (), 1, "ring").two_qubit_depth() for p in (one, four)
    )
    assert flat == subspace_ansatz(groups_of(problem(4, 2)), (), 1, "ring").two_qubit_depth()
    assert deep > 4 * flat


@each_subspace_sampler
def test_every_shot_keeps_the_groups(solver):
    instance = grouped_problem((4, 4), (2, 2))
    samples = solver.sample_problem(
        instance, seed=1, mixer="ring", depth=2, budget=Budget(reads=500)
    )
    assert instance.is_feasible(samples.record.sample).all()
    if "feasible_shots" in samples.info:
        assert samples.info["feasible_shots"] == 1
    simulator = Simulator(instance, "ring")
    angles = Angles.given(samples.info["gammas"], samples.info["betas"])
    error = samples.record.energy.std() / np.sqrt(500)
    assert abs(samples.record.energy.mean() - simulator.expectation(angles)) < 4.5 * error
    assert samples.first.energy == pytest.approx(simulator.costs.min())


def test_penalty_has_one_term_a_group():
    instance = grouped_problem((3, 3), (1, 2))
    simulator = Simulator(instance, "x", penalty=0.7)
    states = simulator.states(np.arange(64))
    missed = ((instance.ones_of(states) - instance.group_ones) ** 2).sum(1)
    np.testing.assert_allclose(simulator.costs, instance.energy(states) + 0.7 * missed, atol=1e-12)
    solver = BraketPenaltyQAOA("SV1", rehearse=True, max_cost=1e6)
    samples = solver.sample_problem(instance, seed=1, depth=1, budget=Budget(reads=50))
    assert instance.is_feasible(samples.record.sample).all()


def test_too_many_states_are_refused_before_there_are_any():
    groups = np.repeat(np.arange(12), 4)
    instance = replace(problem(48, 24), groups=groups, cardinalities=np.full(12, 2))
    with pytest.raises(
        dimod.exceptions.BinaryQuadraticModelSizeError,
        match=rf"48 variables in 12 groups .* {6**12} amplitudes and {64 * 6**12} bytes",
    ):
        Simulator(instance)
