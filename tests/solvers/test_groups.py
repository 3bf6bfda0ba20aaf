"""Groups of variables, each with its own number of ones."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from solvers.errors import ProblemError
from solvers.groups import labels_of
from solvers.io.formats import load, save
from solvers.problem import CardinalityProblem
from solvers.testing import example
from tests.strategies import grouped


def states(n: int) -> np.ndarray:
    return np.array(list(itertools.product((0, 1), repeat=n)))


def feasible(problem: CardinalityProblem) -> np.ndarray:
    """By the definition, one state after the other."""
    rows = []
    for x in states(problem.n):
        counts = [0] * problem.num_groups
        for i, value in enumerate(x):
            counts[problem.group_labels[i]] += value
        if counts == problem.group_ones.tolist():
            rows.append(x)
    return np.array(rows)


@given(grouped())
def test_feasible_states_have_the_ones_of_each_group(problem: CardinalityProblem) -> None:
    everything = states(problem.n)
    found = everything[problem.is_feasible(everything)]
    np.testing.assert_array_equal(found, feasible(problem))
    assert (len(found) == 1) == (problem.only_state is not None)
    if problem.only_state is not None:
        np.testing.assert_array_equal(found[0], problem.only_state)


@given(grouped(), st.floats(-3, 3))
def test_a_model_has_one_penalty_a_group(problem: CardinalityProblem, penalty: float) -> None:
    everything = states(problem.n)
    broken = problem.ones_of(everything) - problem.group_ones
    expected = problem.energy(everything) + penalty * (broken**2).sum(axis=1)
    found = problem.to_bqm(penalty).energies((everything, range(problem.n)))
    np.testing.assert_allclose(found, expected, atol=1e-9)


@given(grouped())
def test_a_constrained_model_has_one_constraint_a_group(problem: CardinalityProblem) -> None:
    cqm = problem.to_cqm()
    assert len(cqm.constraints) == problem.num_groups
    for x in states(problem.n):
        sample = dict(enumerate(x.tolist()))
        assert cqm.check_feasible(sample) == bool(problem.is_feasible(x))


@given(grouped(), st.randoms(use_true_random=False))
def test_parts_and_permutations_keep_groups_and_energies(
    problem: CardinalityProblem, random
) -> None:
    free = random.sample(range(problem.n), random.randint(0, problem.n))
    part = problem.restricted(free)
    rows = feasible(part) if part.n else np.zeros((1, 0), int)
    whole = np.repeat(problem.initial[None].astype(int), len(rows), axis=0)
    whole[:, free] = rows
    assert problem.is_feasible(whole).all()
    np.testing.assert_allclose(part.energy(rows), problem.energy(whole), atol=1e-9)
    assert len(rows) == sum(
        problem.is_feasible(x) and np.array_equal(np.delete(x, free), np.delete(whole[0], free))
        for x in states(problem.n)
    )
    mixed = problem.permuted(np.random.default_rng(random.randint(0, 99)))
    ours, theirs = (np.sort(p.energy(feasible(p))) for p in (problem, mixed))
    np.testing.assert_allclose(ours, theirs, atol=1e-9)


@given(grouped())
def test_random_states_are_feasible_and_reach_all(problem: CardinalityProblem) -> None:
    rng = np.random.default_rng(0)
    count = len(feasible(problem))
    drawn = np.array([problem.random_state(rng) for _ in range(12 * count)])
    assert problem.is_feasible(drawn).all()
    if count <= 6:
        assert len(np.unique(drawn, axis=0)) == count


def test_containers_keep_groups(tmp_path) -> None:
    problem = replace(
        example(6, 3), initial=None, groups=[1, 0, 1, 0, 1, 0], cardinalities=np.array([1, 2])
    )
    again = load(save(problem, tmp_path / "one.block.safetensors"))
    np.testing.assert_array_equal(again.groups, problem.groups)
    np.testing.assert_array_equal(again.cardinalities, problem.cardinalities)
    assert again.content_hash == problem.content_hash
    assert again.content_hash != replace(problem, cardinalities=np.array([2, 1])).content_hash


def test_one_group_is_no_groups() -> None:
    bare = example(6, 3)
    same = replace(bare, groups=np.zeros(6, int), cardinalities=np.array([3]))
    assert same.groups is None
    assert same.content_hash == bare.content_hash
    assert repr(same) == "<CardinalityProblem n=6, k=3, rank=3>"


@pytest.mark.parametrize(
    ("groups", "ones", "message"),
    [
        ([0, 0, 1], [1, 1], "groups has 3 labels, expected 4"),
        ([0, 0, 1, 1], None, "cardinalities is None"),
        (None, [1, 1], "groups is None"),
        ([0, 0, 1, 2], [1, 1], "label 2, expected 0..1"),
        ([0, 0, -1, 1], [1, 1], "label -1, expected 0..1"),
        ([0, 0, 2, 2], [1, 0, 1], "group 1 has no variable"),
        ([0, 0, 1, 1], [3, -1], r"cardinalities\[0\] is 3, expected a whole number in 0..2"),
        ([0, 0, 1, 1], [2, 1], "add up to 3: pass cardinality=3"),
        ([0, 0.5, 1, 1], [1, 1], "groups has the entry 0.5"),
    ],
)
def test_groups_that_cannot_be_are_refused(groups, ones, message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        replace(example(4, 2), initial=None, groups=groups, cardinalities=ones)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([[0, 1], [1, 2, 3]], "overlap: variable 1 is in groups 0 and 1"),
        ([[0, 1], [2]], "leave out variable 3"),
        ([[0, 1], [2, 4]], r"groups\[1\] has variable 4, expected 0..3"),
        ([[0, 1, 1], [2, 3]], r"groups\[0\] names a variable twice"),
    ],
)
def test_member_lists_must_cover_every_variable_once(members, message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        labels_of(members, 4)
    np.testing.assert_array_equal(labels_of([[2, 0], [3, 1]], 4), [0, 1, 0, 1])


def test_a_state_with_its_ones_in_the_wrong_group_is_refused() -> None:
    problem = replace(
        example(4, 2), initial=None, groups=[0, 0, 1, 1], cardinalities=np.array([1, 1])
    )
    with pytest.raises(ProblemError, match="state has 2 ones in group 0, expected 1"):
        problem.checked_state([1, 1, 0, 0])
