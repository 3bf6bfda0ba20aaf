"""A penalty must leave the objective its digits."""

import numpy as np
import pytest

from solvers import CardinalityProblem, export, make
from solvers.arithmetic.rounding import penalised
from solvers.errors import ProblemError
from tests.solvers.reference import every_state


def some_problem(scale=1.0, n=10):
    rng = np.random.default_rng(0)
    G = scale * rng.normal(size=(n, n))
    return CardinalityProblem(
        linear=scale * rng.normal(size=n), cardinality=5, quadratic=G + G.T, offset=1e6
    )


def lost(problem, penalty):
    """Largest error of a feasible energy of the penalised model, as a share of their spread."""
    Q, linear, offset = penalised(problem, penalty)
    states = every_state(problem.n)
    states = states[states.sum(axis=1) == problem.cardinality]
    energies = problem.energy(states)
    found = 0.5 * np.einsum("si,ij,sj->s", states, Q, states) + states @ linear + offset
    return np.abs(found - energies).max() / np.ptp(energies)


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_what_is_accepted_loses_less_than_a_millionth_and_what_is_refused_is_said(scale):
    problem = some_problem(scale)
    refused = []
    for exponent in range(-2, 17):
        penalty = scale * 10.0**exponent
        try:
            # The offset is no part of the criterion, its own digits are.
            assert lost(problem, penalty) <= 4e-6 + 4e-10 / scale
        except ProblemError:
            refused.append(exponent)
    assert refused == list(range(refused[0], 17))
    assert 8 <= refused[0] <= 12


@pytest.mark.parametrize("suffix", [".bqm", ".ubqp", ".sparse", ".qubo", ".qs", ".qs.xz"])
def test_no_export_takes_a_penalty_that_eats_the_objective(tmp_path, suffix):
    with pytest.raises(ProblemError, match=r"penalty is 1e\+15: in float64 it moves energies"):
        export(some_problem(), tmp_path / f"a{suffix}", penalty=1e15)
    assert not list(tmp_path.iterdir())


def test_nor_do_models_and_the_penalised_track():
    problem = some_problem()
    with pytest.raises(ProblemError, match="or less"):
        problem.to_bqm(1e15)
    with pytest.raises(ProblemError, match="or less"):
        make("neal", penalty=1e15).sample_problem(problem, seed=0)


def test_the_safe_penalty_of_the_message_is_safe():
    problem = some_problem()
    with pytest.raises(ProblemError) as caught:
        problem.to_bqm(1e15)
    safe = float(str(caught.value).split()[-3])
    assert lost(problem, safe) <= 1e-6


@pytest.mark.parametrize("penalty", [np.nan, np.inf, 1e308, -1e308])
def test_penalties_that_overflow(penalty):
    with pytest.raises(ProblemError, match=r"expected a finite number|overflow"):
        some_problem().to_bqm(penalty)


def test_where_all_feasible_energies_are_alike_there_is_nothing_to_lose():
    flat = CardinalityProblem(linear=np.ones(6), cardinality=3, quadratic=np.zeros((6, 6)))
    assert flat.to_bqm(1e12).energy(dict.fromkeys(range(6), 0)) == pytest.approx(9e12)
    for k in (0, 6):
        problem = CardinalityProblem(linear=np.arange(6.0), cardinality=k, factor=np.ones((1, 6)))
        problem.to_bqm(1e15)
