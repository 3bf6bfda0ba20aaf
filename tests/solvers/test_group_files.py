"""Groups in files of other programs: round trips, and files that cannot be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers.errors import FormatError, ProblemError
from solvers.io.formats import export, load
from solvers.testing import grouped_examples
from tests.strategies import grouped


@pytest.mark.parametrize("suffix", [".lp", ".qubo", ".ubqp", ".sparse", ".qs.xz"])
@given(data=st.data())
@settings(max_examples=25)
def test_text_files_keep_groups(tmp_path_factory, suffix, data):
    # In an LP file the value of a group of one variable is a bound, and fixes it.
    problem = data.draw(grouped(least=2 if suffix == ".lp" else 1))
    path = tmp_path_factory.mktemp("files") / f"one{suffix}"
    again = load(export(problem, path))
    assert again.cardinality == problem.cardinality
    if problem.groups is None:
        assert again.groups is None
        return
    parts = {(tuple(p), int(k)) for p, k in zip(problem.members, problem.group_ones, strict=True)}
    found = {(tuple(p), int(k)) for p, k in zip(again.members, again.group_ones, strict=True)}
    assert parts == found
    state = problem.random_state(np.random.default_rng(0))
    assert again.energy(state) == pytest.approx(problem.energy(state), rel=1e-12, abs=1e-12)


LP = "Minimize\n obj: a + b + c + d\nSubject To\n {}\nBinary\n a b c d\nEnd\n"


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        ("one: a + b = 1\n two: b + c + d = 1", "'two' .*groups must be disjoint"),
        ("one: a + b = 1\n two: c = 1", "variable 'd'"),
        ("one: a + b = 1\n two: c + 2 d = 1", "'two' is not of the form"),
        ("one: a + b = 3\n two: c + d = 1", r"cardinalities\[0\] is 3"),
        ("one: a + b >= 1\n two: c + d = 1", "several numbers of ones"),
    ],
)
def test_constraints_that_are_no_groups_are_refused(tmp_path, constraints, message):
    path = tmp_path / "one.lp"
    path.write_text(LP.format(constraints))
    with pytest.raises(FormatError, match=message):
        load(path)


def test_two_halves_of_one_constraint_are_one(tmp_path):
    path = tmp_path / "one.lp"
    path.write_text(LP.format("one: a + b >= 1\n two: a + b <= 1\n three: 2 c + 2 d = 2"))
    problem = load(path)
    assert problem.group_ones.tolist() == [1, 1]
    assert problem.cardinality == 2


@pytest.mark.parametrize(
    ("comments", "message"),
    [
        ("c group with 1 ones : 0 1\nc group with 1 ones : 1 2", "overlap: variable 1"),
        ("c group with 1 ones : 0 1", "leave out variable 2"),
        ("c group with 1 ones : 0 1\nc group with 1 ones : 2 9", "variable 9"),
        ("c cardinality : 3\nc group with 1 ones : 0 1\nc group with 1 ones : 2", "3"),
    ],
)
def test_comments_that_are_no_groups_are_refused(tmp_path, comments, message):
    path = tmp_path / "one.qubo"
    path.write_text(f"{comments}\np qubo 0 3 3 0\n0 0 1.0\n1 1 2.0\n2 2 3.0\n")
    with pytest.raises((FormatError, ProblemError), match=message):
        load(path)


def test_a_bqm_without_penalty_would_lose_groups(tmp_path):
    problem = next(iter(grouped_examples()))
    with pytest.raises(FormatError, match="groups"):
        export(problem, tmp_path / "one.bqm")
    assert export(problem, tmp_path / "one.bqm", penalty=2.0).exists()
