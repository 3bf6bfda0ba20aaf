"""The lowest states against brute force, degenerate problems and public instances."""

import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from solvers import CardinalityProblem, make
from solvers.arithmetic.convex import Value
from solvers.clock.deadline import Deadline
from solvers.errors import ProblemError
from solvers.exact import semidefinite_tree
from solvers.exact.certificate import form
from solvers.exact.lowest import lowest
from tests.solvers.factories import SCALES_APART, correlated, of_kind


def every(problem):
    """Energies of all states, rising, and the size of their terms."""
    n, k = problem.n, problem.cardinality
    states = [np.isin(np.arange(n), s) for s in itertools.combinations(range(n), k)]
    y = np.column_stack([np.ones(len(states)), states]).astype(np.longdouble)
    C = form(problem).C.astype(np.longdouble)
    energies = np.einsum("si,ij,sj->s", y, C, y) + problem.offset
    sizes = np.einsum("si,ij,sj->s", y, np.abs(C), y)
    order = np.argsort(energies)
    return energies[order].astype(float), sizes[order].astype(float) + abs(problem.offset)


@pytest.mark.parametrize("few", [20_000, 20])
@pytest.mark.parametrize("kind", SCALES_APART)
def test_agrees_with_brute_force(kind, few, monkeypatch):
    """With many states looked at one by one at the end of a branch, and with few."""
    monkeypatch.setattr(semidefinite_tree, "FEW_SUBSETS", few)
    for seed, n, count in itertools.product(range(2), (3, 6, 10), (1, 8)):
        problem = of_kind(kind, seed, n)
        energies, sizes = every(problem)
        found = lowest(problem, count)
        m = min(count, len(energies))
        assert found.proved
        assert len(found.states) == len({x.tobytes() for x in found.states}) == m
        assert problem.is_feasible(found.states).all()
        close = 1e-10 * sizes[:m].max() + 1e-14 * abs(problem.offset)
        assert np.abs(np.sort(found.energies) - energies[:m]).max() <= close
        if m < len(energies):
            assert found.lower_bound <= energies[m] + close
        assert make("exact").sample_problem(problem, seed=0).first.energy == pytest.approx(
            energies[0], abs=close
        )


def test_no_and_all_variables():
    for k in (0, 5):
        problem = CardinalityProblem(linear=np.ones(5), cardinality=k, quadratic=np.eye(5))
        found = lowest(problem, 3)
        assert found.proved
        assert found.states.sum() == k
        assert len(found.states) == 1


def test_arguments_are_refused():
    problem = correlated(8, 0)
    with pytest.raises(ProblemError, match="count"):
        lowest(problem, 0)
    with pytest.raises(TypeError, match="time_limit"):
        lowest(problem, 1, time_limit=0.0)


def test_time_limit_leaves_a_valid_bound():
    problem = correlated(160, 0)
    found = lowest(problem, 50, time_limit=0.5)
    assert not found.proved
    assert found.lower_bound < found.energies[-1]


def test_pool_keeps_the_lowest():
    pool = semidefinite_tree.Pool(2, lambda x: SimpleNamespace(energy=float(x @ [1, 2, 4])))
    for bits in itertools.product((True, False), repeat=3):
        pool.offer(np.array(bits))
        pool.offer(np.array(bits))
    assert [value.energy for value, _ in pool.states] == [0, 1]


def test_proves_a_sub_row_of_48():
    samples = make("exact").sample_problem(correlated(48, 2), seed=0)
    assert samples.info["proved_optimal"]


def test_an_expired_tree_keeps_its_bound():
    problem = correlated(40, 3)
    pool = semidefinite_tree.Pool(1, lambda x: SimpleNamespace(energy=0.0))
    tree = semidefinite_tree.SemidefiniteTree(
        form(problem), pool, -7.0, lambda x: x, lambda x: None
    )
    tree.run(Deadline(0.0))
    assert not tree.done
    assert tree.lower_bound == -7.0


def test_groups_against_brute_force():
    """The tree itself, on forms of two groups with their own counts."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        n = 9
        Q = rng.normal(size=(n, n))
        whole = form(
            CardinalityProblem(linear=rng.normal(size=n), cardinality=4, quadratic=Q @ Q.T)
        )
        groups, counts = np.array([0, 1, 0, 1, 1, 0, 1, 0, 1]), np.array([1, 3])
        own = replace(whole, groups=groups, counts=counts)

        def evaluate(x, own=own):
            energy, error = own.energy(x)
            return Value(energy, error, abs(energy))

        states = [np.array(bits, dtype=bool) for bits in itertools.product((0, 1), repeat=n)]
        feasible = [x for x in states if (np.bincount(groups[x], minlength=2) == counts).all()]
        energies = sorted(own.energy(x)[0] for x in feasible)
        pool = semidefinite_tree.Pool(5, evaluate)
        for x in feasible[:5]:
            pool.offer(x)
        tree = semidefinite_tree.SemidefiniteTree(own, pool, -np.inf, lambda x: x, lambda x: None)
        tree.run(Deadline(20))
        assert tree.done
        found = [value.energy for value, _ in pool.states]
        assert found == pytest.approx(energies[:5], abs=1e-9)
