"""The problem: energies, invariants, conversions."""

import dimod
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers import CardinalityProblem
from solvers.bqm.convert import problem_from_bqm
from solvers.errors import ProblemError
from tests.solvers.reference import every_state, magnitude
from tests.strategies import problems


def direct_energy(problem, x):
    """Term by term, in plain Python."""
    x = [int(v) for v in x]
    total = problem.offset + sum(c * v for c, v in zip(problem.linear, x, strict=True))
    if problem.factor is not None:
        return total + 0.5 * sum(
            sum(a * v for a, v in zip(row, x, strict=True)) ** 2 for row in problem.factor
        )
    G = problem.quadratic
    return total + 0.5 * sum(G[i, j] * x[i] * x[j] for i in range(len(x)) for j in range(len(x)))


@given(problems())
def test_energy_is_the_sum_of_its_terms(problem):
    states = every_state(problem.n)
    direct = [direct_energy(problem, x) for x in states]
    assert np.abs(problem.energy(states) - direct).max() <= 1e-12 * magnitude(problem)
    assert problem.energy(states[-1]) == pytest.approx(direct[-1], abs=1e-12 * magnitude(problem))


@given(problems(), st.sampled_from([None, 0.0, 0.7, 30.0]))
def test_bqm_energy_is_energy_plus_penalty(problem, penalty):
    states = every_state(problem.n)
    bqm = problem.to_bqm(penalty)
    excess = (states.sum(axis=1) - problem.cardinality) ** 2
    expected = problem.energy(states) + (penalty or 0) * excess
    size = magnitude(problem) + (penalty or 0) * problem.n**2
    assert np.abs(bqm.energies((states, range(problem.n))) - expected).max() <= 1e-12 * size
    back = problem_from_bqm(bqm, problem.cardinality)
    assert np.abs(back.energy(states) - expected).max() <= 1e-12 * size


@given(problems())
def test_cqm_has_the_energy_and_the_constraint(problem):
    cqm = problem.to_cqm()
    for x in every_state(problem.n):
        sample = dict(enumerate(x.tolist()))
        assert cqm.objective.energy(sample) == pytest.approx(
            float(problem.energy(x)), abs=1e-12 * magnitude(problem)
        )
        assert cqm.check_feasible(sample) == bool(problem.is_feasible(x))


@given(problems(), st.integers(0, 2**32))
def test_permuting_variables_changes_nothing(problem, seed):
    order = np.random.default_rng(seed).permutation(problem.n)
    permuted = problem.permuted(np.random.default_rng(seed))
    states = every_state(problem.n)
    difference = permuted.energy(states[:, order]) - problem.energy(states)
    assert np.abs(difference).max() <= 1e-12 * magnitude(problem)
    assert (permuted.indices == problem.indices[order]).all()
    assert (permuted.initial == problem.initial[order]).all()
    assert permuted.cardinality == problem.cardinality


@given(problems())
def test_swap_deltas_are_energy_differences(problem):
    state = problem.initial
    ones, zeros, deltas = problem.swap_deltas(state)
    for a, i in enumerate(ones):
        for b, j in enumerate(zeros):
            moved = state.copy()
            moved[[i, j]] = False, True
            expected = problem.energy(moved) - problem.energy(state)
            assert abs(deltas[a, b] - expected) <= 1e-11 * magnitude(problem)


@given(problems(), st.data())
def test_restricted_problem_keeps_the_full_energy(problem, data):
    free = data.draw(st.permutations(range(problem.n)))[: data.draw(st.integers(0, problem.n))]
    part = problem.restricted(free)
    assert part.cardinality == problem.initial[free].sum()
    for y in every_state(len(free)):
        x = problem.initial.copy()
        x[free] = y
        assert abs(part.energy(y) - problem.energy(x)) <= 1e-12 * magnitude(problem)


@given(problems())
def test_blinded_problem_is_the_same_problem_without_hints(problem):
    blind = problem.blinded()
    assert blind.initial is None
    assert blind.indices is None
    assert blind.meta == {}
    states = every_state(problem.n)
    assert (blind.energy(states) == problem.energy(states)).all()


def test_hash_tells_problems_apart():
    base = {"linear": np.arange(3.0), "cardinality": 1, "factor": np.ones((1, 3))}
    one = CardinalityProblem(**base)
    assert one.content_hash == CardinalityProblem(**base, meta={"seed": 1}).content_hash
    changed = [
        {"cardinality": 2},
        {"offset": 1.0},
        {"scale": 2.0},
        {"factor": np.ones((3, 1)).T * 2},
        {"linear": np.arange(3.0) + 1e-15},
        {"initial": np.array([True, False, False])},
    ]
    hashes = {CardinalityProblem(**base | change).content_hash for change in changed}
    assert len(hashes | {one.content_hash}) == len(changed) + 1


def test_problem_cannot_be_changed_under_its_hash():
    problem = CardinalityProblem(linear=np.zeros(3), cardinality=1, factor=np.ones((1, 3)))
    with pytest.raises(ValueError, match="read-only"):
        problem.linear[0] = 1


GOOD = {"linear": np.zeros(3), "cardinality": 1, "factor": np.ones((2, 3))}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"linear": np.array([0, np.nan, 0])}, r"linear\[1\] is nan, expected a finite"),
        ({"linear": np.zeros((1, 3))}, "2 dimensions"),
        ({"factor": np.full((2, 3), np.inf)}, r"factor\[0, 0\] is inf, expected a finite"),
        ({"factor": np.ones((2, 4))}, "4 columns"),
        ({"factor": None}, "exactly one"),
        ({"quadratic": np.eye(3)}, "exactly one"),
        ({"factor": None, "quadratic": np.eye(4)}, r"expected \(3, 3\)"),
        ({"factor": None, "quadratic": np.triu(np.ones((3, 3)))}, "not symmetric"),
        ({"cardinality": 4}, r"in 0\.\.3"),
        ({"cardinality": -1}, r"in 0\.\.3"),
        ({"cardinality": 1.5}, "whole number"),
        ({"scale": 0.0}, "positive"),
        ({"offset": np.nan}, "finite"),
        ({"initial": np.array([True, True, False])}, "2 ones, expected 1"),
        ({"initial": np.array([2, 0, 0])}, "other than 0 and 1"),
        ({"initial": np.array([True])}, r"shape \(1,\)"),
        ({"indices": np.arange(2)}, r"shape \(2,\)"),
    ],
)
def test_bad_problems_are_refused(change, words):
    with pytest.raises(ProblemError, match=words):
        CardinalityProblem(**GOOD | change)


def test_restricted_refuses_bad_indices():
    problem = CardinalityProblem(**GOOD)
    with pytest.raises(ProblemError, match="no initial state: pass at"):
        problem.restricted([0])
    with pytest.raises(ProblemError, match="different variables"):
        problem.restricted([0, 0], at=[1, 0, 0])
    with pytest.raises(ProblemError, match=r"0\.\.2"):
        problem.restricted([3], at=[1, 0, 0])


@settings(max_examples=30)
@given(st.integers(0, 4), st.integers(0, 2**32), st.sampled_from(["SPIN", "BINARY"]))
def test_free_model_becomes_a_problem_with_slack(n, seed, vartype):
    rng = np.random.default_rng(seed)
    bqm = dimod.BinaryQuadraticModel(
        {f"v{i}": float(rng.normal()) for i in range(n)},
        {(f"v{i}", f"v{j}"): float(rng.normal()) for i in range(n) for j in range(i)},
        0.5,
        vartype,
    )
    problem = problem_from_bqm(bqm)
    assert (problem.n, problem.cardinality) == (2 * n, n)
    for x in every_state(n):
        values = x if vartype == "BINARY" else 2 * x - 1
        sample = dict(zip(bqm.variables, values.tolist(), strict=True))
        full = np.concatenate([x, np.zeros(n)])
        assert problem.energy(full) == pytest.approx(bqm.energy(sample), abs=1e-12)
