"""Exact simulators against dense matrix exponentials and finite differences."""

from math import comb

import dimod
import numpy as np
import pytest
from scipy.linalg import expm

from solvers.qaoa.angles import Angles
from solvers.qaoa.circuit.mixers import complete_edges, ring_edges
from solvers.qaoa.simulator import basis
from solvers.qaoa.simulator.subspace import MIXERS, Simulator
from tests.solvers.circuits import X, Y, bits, make, on, problem

SUBSPACE = [mixer for mixer in MIXERS if mixer != "x"]


def angles(p=3, seed=4):
    rng = np.random.default_rng(seed)
    return Angles.given(rng.normal(size=p) * 0.4, rng.normal(size=p))


def exchange_term(n, edge):
    """``-(XX + YY)/2`` on one pair, shape (2^n, 2^n)."""
    return -sum(on(n, **{f"q{q}": P for q in edge}) for P in (X, Y)) / 2


def dense_mixer(mixer, n, k):
    """Generators in order of application, shape (2^n, 2^n) each."""
    if mixer == "x":
        return [-sum(on(n, **{f"q{i}": X}) for i in range(n))]
    if mixer == "grover":
        dicke = (bits(n).sum(1) == k) / np.sqrt(comb(n, k))
        return [-np.outer(dicke, dicke)]
    terms = [
        exchange_term(n, edge) for edge in (ring_edges if mixer == "ring" else complete_edges)(n)
    ]
    return [sum(terms)] if mixer == "complete" else terms


def dense_state(instance, mixer, penalty, schedule):
    """QAOA in 2^n by `expm`, shape (2^n,)."""
    n, k = instance.n, instance.cardinality
    x = bits(n)
    ones = x.sum(1)
    costs = instance.energy(x) + (penalty or 0) * (ones - k) ** 2
    start = np.ones(2**n) if mixer == "x" else ones == k
    psi = start / np.linalg.norm(start) + 0j
    generators = dense_mixer(mixer, n, k)
    for gamma, beta in zip(schedule.gammas, schedule.betas, strict=True):
        psi = np.exp(-1j * gamma * costs) * psi
        for M in generators:
            psi = expm(-1j * beta * M) @ psi
    return psi, costs


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize(("n", "k"), [(6, 2), (6, 3), (5, 4), (3, 1), (2, 1)])
def test_amplitudes_match_matrix_exponentials(mixer, n, k):
    instance = problem(n, k)
    simulator = make(mixer, instance)
    schedule = angles()
    dense, costs = dense_state(instance, mixer, 0.3 if mixer == "x" else None, schedule)
    index = simulator.states(np.arange(simulator.dim)) @ (1 << np.arange(n))
    np.testing.assert_allclose(simulator.state(schedule), dense[index], atol=1e-12)
    np.testing.assert_allclose(simulator.costs, costs[index], rtol=1e-12)
    expected = np.abs(dense) ** 2 @ costs
    assert simulator.expectation(schedule) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("alpha", [1.0, 0.35])
@pytest.mark.parametrize(("n", "k"), [(6, 2), (6, 3), (7, 5)])
def test_gradients_match_finite_differences(mixer, alpha, n, k):
    simulator = make(mixer, problem(n, k))
    schedule = angles()
    value, by_gamma, by_beta = simulator.gradient(schedule, alpha)
    if alpha == 1:
        assert value == pytest.approx(simulator.expectation(schedule), abs=1e-12)
    point = np.concatenate([schedule.gammas, schedule.betas])
    step = 1e-5
    for i, slope in enumerate([*by_gamma, *by_beta]):
        ends = []
        for sign in (1, -1):
            moved = point.copy()
            moved[i] += sign * step
            ends.append(simulator.gradient(Angles.given(*np.split(moved, 2)), alpha)[0])
        assert slope == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-6)


@pytest.mark.parametrize("mixer", SUBSPACE)
def test_deep_layers_keep_the_norm_and_come_back(mixer):
    """n = 15 goes through every stage of the coupling: dense, cached and full sweeps."""
    instance = problem(15, 6)
    simulator = make(mixer, instance)
    schedule = angles(2)
    psi = simulator.state(schedule)
    assert np.linalg.norm(psi) == pytest.approx(1, abs=1e-12)
    lam = psi.copy()
    from solvers.qaoa.simulator.threads import Threads

    alone = Threads(1, None)
    simulator._mixer.apply(psi, 0.7, alone)
    assert abs(np.vdot(psi, lam)) < 0.999
    other = psi.copy()
    assert simulator._mixer.undo(psi, other, 0.7, alone) == pytest.approx(0, abs=1e-10)
    np.testing.assert_allclose(psi, lam, atol=1e-12)


def test_complete_mixer_at_fifteen_is_the_sum_of_exchanges():
    """exp(-i beta M) for small beta against the pair-by-pair product, second order apart."""
    instance = problem(15, 6)
    exact, pairs = (make(mixer, instance) for mixer in ("complete", "complete-trotter"))
    rng = np.random.default_rng(0)
    psi = rng.normal(size=exact.dim) + 1j * rng.normal(size=exact.dim)
    psi /= np.linalg.norm(psi)
    from solvers.qaoa.simulator.threads import Threads

    errors = []
    for beta in (1e-3, 5e-4):
        vectors = [psi.copy(), psi.copy()]
        for vector, simulator in zip(vectors, (exact, pairs), strict=True):
            simulator._mixer.apply(vector, beta, Threads(1, None))
        errors.append(np.linalg.norm(vectors[0] - vectors[1]))
    assert errors[0] < 1e-3
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize("mixer", MIXERS)
def test_threads_agree_with_one_thread(mixer, monkeypatch):
    monkeypatch.setattr("solvers.qaoa.simulator.threads.LEAST_AMPLITUDES", 1)
    instance = problem(9, 4)
    one, two = (make(mixer, instance, num_threads=count) for count in (1, 2))
    schedule = angles(2)
    np.testing.assert_allclose(one.state(schedule), two.state(schedule), atol=1e-13)
    for a, b in zip(one.gradient(schedule), two.gradient(schedule), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-11)
    np.testing.assert_array_equal(two.state(schedule), two.state(schedule))


def test_cvar_is_the_mean_of_the_best_share():
    simulator = make("grover", problem(6, 3))
    schedule = angles(1)
    weights = simulator.probabilities(schedule)
    order = np.argsort(simulator.costs)
    alpha = 0.3
    left, total = alpha, 0.0
    for r in order:
        part = min(left, weights[r])
        total += part * simulator.costs[r]
        left -= part
    assert simulator.gradient(schedule, alpha)[0] == pytest.approx(total / alpha, abs=1e-12)


@pytest.mark.parametrize(("n", "k"), [(5, 0), (5, 5), (1, 1), (6, 3), (9, 2)])
def test_states_are_sorted_by_number(n, k):
    every = bits(n)
    expected = every[every.sum(1) == k]
    np.testing.assert_array_equal(basis.states(np.arange(comb(n, k)), n, k), expected)


@pytest.mark.parametrize("mixer", SUBSPACE)
@pytest.mark.parametrize("k", [0, 4])
def test_one_feasible_state(mixer, k):
    simulator = make(mixer, problem(4, k))
    assert simulator.expectation(angles()) == pytest.approx(simulator.costs[0])
    np.testing.assert_allclose(simulator.gradient(angles())[1:], 0, atol=1e-12)


@pytest.mark.parametrize("n", range(2, 10))
def test_rounds_are_disjoint_and_complete(n):
    edges = complete_edges(n)
    assert {frozenset(edge) for edge in edges} == {
        frozenset((a, b)) for a in range(n) for b in range(a)
    }
    assert len(edges) == n * (n - 1) // 2
    size = n // 2
    for first in range(0, len(edges), size):
        assert len({q for edge in edges[first : first + size] for q in edge}) == 2 * size
    ring = ring_edges(n)
    assert len(ring) == (n if n > 2 else n - 1)
    assert {frozenset(edge) for edge in ring} == {frozenset((i, (i + 1) % n)) for i in range(n)}


def test_what_is_refused():
    with pytest.raises(TypeError, match="mixer is 'xx'"):
        Simulator(problem(), "xx")
    with pytest.raises(TypeError, match="mixer 'x' needs one"):
        Simulator(problem(), "x")
    with pytest.raises(TypeError, match="mixer 'x' needs one"):
        Simulator(problem(), "ring", penalty=1.0)
    with pytest.raises(TypeError, match="alpha is 0"):
        make("ring", problem()).gradient(angles(), 0)
    with pytest.raises(dimod.exceptions.BinaryQuadraticModelSizeError, match=r"6\.9 GiB"):
        Simulator(problem(30, 15), "ring")
    with pytest.raises(dimod.exceptions.BinaryQuadraticModelSizeError, match="64 amplitudes"):
        make("x", problem(), max_bytes=1000)
