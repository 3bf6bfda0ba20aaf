"""What is called proved is: against brute force, on numbers of very different sizes."""

import itertools
from fractions import Fraction

import dimod
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.benchmarks.trust import PROVERS, judged, mixed
from solvers import Budget, CardinalityProblem, make
from solvers.arithmetic.convex import convex, part, row_scales, value
from solvers.errors import ProblemError
from solvers.exact.diagonal_shift import diagonally_shifted
from tests.solvers.reference import exact_energy, feasible_states
from tests.strategies import problems

# Problems of each; a call of a mixed-integer program takes a tenth of a second.
FEW = {"exact": 100, "milp": 20, "miqp": 10}


@pytest.mark.parametrize("name", PROVERS)
def test_no_false_proof(name):
    outcomes = [judged(name, mixed(seed)) for seed in range(FEW.get(name, 200))]
    no_false_claim(outcomes)
    if name in ("exact", "enumerate"):
        assert sum(one["proved"] for one in outcomes) >= 0.9 * len(outcomes)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROVERS)
def test_no_false_proof_of_10000_problems(name):
    no_false_claim([judged(name, mixed(seed)) for seed in range(10_000)])


def no_false_claim(outcomes):
    for claim in ("false_proof", "false_bound", "loose_tolerance"):
        assert not any(one[claim] for one in outcomes)


@pytest.mark.parametrize("name", PROVERS)
def test_a_heavy_column_hides_no_optimum(name):
    rng = np.random.default_rng(1)
    A, c = rng.standard_normal((4, 10)), rng.standard_normal(10)
    A[:, 0] *= 1e7
    problem = CardinalityProblem(linear=c, cardinality=5, factor=A)
    samples = make(name).sample_problem(problem, budget=Budget(time_limit=5), seed=0)
    best = problem.energy(feasible_states(problem)).min()
    assert best == pytest.approx(-1.5916, abs=1e-4)
    if samples.info["proved_optimal"]:
        assert samples.first.energy == pytest.approx(best, abs=1e-9)
    if name in ("exact", "enumerate", "milp", "miqp"):
        assert samples.first.energy == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("name", PROVERS)
def test_a_heavy_coupling_hides_no_optimum(name):
    G = np.triu(np.random.default_rng(3).choice([-1.0, 1.0], (9, 9)), 1)
    G[2, 5] = 1e10
    problem = CardinalityProblem(linear=np.zeros(9), cardinality=5, quadratic=G + G.T)
    samples = make(name).sample_problem(problem, budget=Budget(time_limit=5), seed=0)
    best = problem.energy(feasible_states(problem)).min()
    if samples.info["proved_optimal"] or name in ("exact", "enumerate"):
        assert samples.first.energy == best


@pytest.mark.parametrize("scale", [1.0, 1e2, 1e4])
def test_the_bound_of_a_dense_problem_survives_large_columns(scale):
    """Five columns times `scale`: nobody takes them, and the bound is that of the others."""
    rng = np.random.default_rng(7)
    A = rng.standard_normal((45, 40))
    heavy = rng.choice(40, 5, replace=False)
    A[:, heavy] *= scale
    G = A.T @ A
    problem = CardinalityProblem(linear=np.zeros(40), cardinality=15, quadratic=(G + G.T) / 2)
    samples = make("relaxation").sample_problem(problem)
    plain = np.delete(A, heavy, axis=1)
    without = CardinalityProblem(linear=np.zeros(35), cardinality=15, factor=plain)
    alone = make("relaxation").sample_problem(without).info["lower_bound"]
    assert samples.info["lower_bound"] > 0
    if scale > 1:
        assert samples.info["lower_bound"] == pytest.approx(alone, rel=0.05)


@settings(max_examples=100)
@given(problems(max_n=7, proper=True), st.integers(-6, 6), st.integers(0, 2**32))
def test_values_are_off_by_no_more_than_they_say(problem, power, seed):
    rng = np.random.default_rng(seed)
    d = 10.0 ** rng.uniform(-abs(power), abs(power), problem.n)
    problem = scaled(problem, d)
    for x in feasible_states(problem):
        found = value(problem, x)
        exact = exact_energy(problem, x) - Fraction(problem.offset)
        assert abs(Fraction(found.energy) - exact) <= Fraction(found.error)
        size = float(np.abs(terms_of(problem, x)).sum())
        assert found.error <= 1e-12 * size + 1e-299


def scaled(problem, d):
    if problem.factor is not None:
        changes = {"factor": problem.factor * d}
    else:
        changes = {"quadratic": problem.quadratic * d * d[:, None]}
        changes["quadratic"] = (changes["quadratic"] + changes["quadratic"].T) / 2
    return CardinalityProblem(
        linear=problem.linear, cardinality=problem.cardinality, offset=problem.offset, **changes
    )


def terms_of(problem, x):
    """All products that the energy of x is the sum of."""
    G = np.abs(problem.factor).T @ np.abs(problem.factor) if problem.factor is not None else None
    G = np.abs(problem.quadratic) if G is None else G
    return np.concatenate([(G * x * x[:, None]).ravel(), problem.linear * x])


@settings(max_examples=60)
@given(problems(max_n=7, proper=True), st.integers(0, 6), st.integers(0, 2**32))
def test_reduced_costs_hold_in_rational_arithmetic(problem, power, seed):
    """For the problem, a part of it, and the part with its diagonal shifted."""
    rng = np.random.default_rng(seed)
    problem = scaled(problem, 10.0 ** rng.uniform(-power, power, problem.n))
    states = feasible_states(problem)
    own = convex(problem)
    holds(problem, own, np.arange(problem.n), states[0], states, rng)
    free = np.sort(rng.permutation(problem.n)[: int(rng.integers(1, problem.n + 1))])
    at = states[int(rng.integers(len(states)))]
    sub = part(problem, free, at)
    others = np.setdiff1d(np.arange(problem.n), free)
    agreeing = states[(states[:, others] == at[others]).all(axis=1)]
    if 0 < sub.problem.cardinality < sub.problem.n:
        holds(problem, sub.below(convex(sub.problem)), free, at, agreeing, rng)
        holds(problem, sub.below(diagonally_shifted(sub.problem)), free, at, agreeing, rng)


def holds(problem, below, free, at, states, rng):
    for size in (0.0, 1.0, 1e3):
        s = rng.normal(size=len(below.A)) * size
        costs = below.reduced_costs(s)
        lower = below.lower_bound(s, costs)
        for x in states:
            exact = exact_energy(problem, x) - Fraction(problem.offset)
            assert Fraction(lower) <= exact
            assert Fraction(below.below(s, costs[x[free]])) <= exact


@given(st.integers(1, 8), st.integers(0, 2**32))
def test_row_scales_bring_rows_near_one(n, seed):
    rng = np.random.default_rng(seed)
    d = 10.0 ** rng.uniform(-6, 6, n)
    G = rng.standard_normal((n, n)) * d * d[:, None]
    G = np.abs(G + G.T)
    scales = row_scales(G)
    largest = (G / scales / scales[:, None]).max(axis=1)
    assert ((largest > 0.2) & (largest < 5)).all()
    assert (np.log2(scales) % 1 == 0).all()


def spin_energy(model, values):
    """Of a spin model, in rational numbers."""
    total = Fraction(float(model.offset))
    total += sum(Fraction(float(h)) * values[v] for v, h in model.linear.items())
    return total + sum(
        Fraction(float(J)) * values[u] * values[v] for (u, v), J in model.quadratic.items()
    )


@pytest.mark.parametrize("name", ["exact", "enumerate", "milp", "miqp"])
def test_a_spin_model_is_proved_as_it_stands(name):
    """Turning it into one of zeros and ones rounds: large couplings cancel in its linear terms."""
    J, B, low, high = 2.0**26, 2.0**27, -1 - 0.8e-8, -1 - 1.2e-8
    model = dimod.BinaryQuadraticModel(
        {"a": low, "b": B, "c": B, "d": high}, {("a", "b"): J, ("a", "c"): -J}, 2 * B, "SPIN"
    )
    samples = make(name).sample(model, cardinality=1, seed=1)
    ones = [{v: 1 if v == up else -1 for v in model.variables} for up in model.variables]
    best = min(spin_energy(model, values) for values in ones)
    reached = spin_energy(model, {v: int(s) for v, s in samples.first.sample.items()})
    assert Fraction(samples.info["lower_bound"]) <= best
    if samples.info["proved_optimal"]:
        assert reached - best <= Fraction(samples.info["tolerance"])


@pytest.mark.parametrize("name", ["exact", "enumerate"])
def test_bounds_of_random_spin_models_hold_in_rational_arithmetic(name):
    for seed in range(40):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(2, 7))
        scales = 10.0 ** rng.uniform(-6, 6, (n, n)) if seed % 2 else np.ones((n, n))
        J = np.triu(rng.normal(size=(n, n)) * scales, 1)
        h = rng.normal(size=n) * 10.0 ** rng.uniform(-4, 4)
        model = dimod.BinaryQuadraticModel(dict(enumerate(h)), {}, 0.0, "SPIN")
        model.add_quadratic_from_dense(J)
        k = [None, int(rng.integers(0, n + 1))][seed % 3 == 0]
        samples = make(name).sample(model, seed=0, **({} if k is None else {"cardinality": k}))
        every = [
            spin_energy(model, dict(enumerate(s)))
            for s in itertools.product((-1, 1), repeat=n)
            if k is None or s.count(1) == k
        ]
        assert Fraction(samples.info["lower_bound"]) <= min(every)


@pytest.mark.parametrize(
    "arrays",
    [
        {"factor": np.full((3, 6), 1e155)},
        {"quadratic": np.full((6, 6), 1e308)},
        {"factor": np.zeros((1, 6)), "linear": np.full(6, -1.7e308)},
    ],
)
def test_numbers_whose_energies_overflow_are_refused(arrays):
    with pytest.raises(ProblemError, match=r"energies overflow: divide the problem"):
        CardinalityProblem(**{"linear": np.zeros(6), "cardinality": 3} | arrays)


@pytest.mark.parametrize("name", PROVERS)
@pytest.mark.parametrize("size", [1e-320, 1e-310, 1e-150, 1e25, 1e140])
def test_no_size_of_numbers_breaks_a_solver(name, size):
    """Denormal numbers included; what is too small to be proved is not called proved falsely."""
    A = np.random.default_rng(0).standard_normal((4, 8))
    G = A.T @ A
    problem = CardinalityProblem(linear=np.zeros(8), cardinality=4, quadratic=(G + G.T) / 2 * size)
    samples = make(name).sample_problem(problem, budget=Budget(time_limit=5), seed=0)
    best = min(exact_energy(problem, x) for x in feasible_states(problem))
    assert Fraction(samples.info["lower_bound"]) <= best
    assert np.isfinite(samples.info["lower_bound"])
    if name in ("exact", "enumerate") and size > 1e-200:
        assert samples.info["proved_optimal"] is True


def test_miqp_says_what_scip_cannot_hold():
    problem = CardinalityProblem(
        linear=np.array([1.0, 2.0, 3.0, 1e21]), cardinality=2, factor=np.array([[1.0, -1, 0.5, 0]])
    )
    samples = make("miqp").sample_problem(problem)
    assert "infinite to SCIP" in samples.info["failure"]
    assert samples.first.energy == problem.energy(feasible_states(problem)).min()


def test_what_cannot_be_bounded_in_time_is_searched_in_time():
    """The factor of 1500 dense variables does not fit into 0.3 s: annealing has the time."""
    rng = np.random.default_rng(0)
    G = rng.standard_normal((1500, 1500))
    problem = CardinalityProblem(linear=np.zeros(1500), cardinality=750, quadratic=G + G.T)
    exact = make("exact").sample_problem(problem, budget=Budget(time_limit=0.3), seed=0)
    greedy = make("greedy").sample_problem(problem).first.energy
    assert exact.first.energy <= greedy
