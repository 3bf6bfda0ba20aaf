"""QPLIB files: what is unclear in one is refused."""

import pytest

from solvers import load
from solvers.errors import FormatError
from tests.solvers.reference import every_state

# minimise x1^2 - 1.5 x1 x2 + 0.25 x3 x4 + x1 - 2 x3 + 0.5 with sum x = 2
FILE = """test
QBL # binary, one linear constraint
minimize
4 # variables
1 # constraints
3 # quadratic terms
1 1 2.0
2 1 -1.5
4 3 0.25
0.0 # default of b
2
1 1.0
3 -2.0
0.5 # constant
4
1 1 1
1 2 1
1 3 1
1 4 1
1e30 # infinity
2.0
0
2.0
0
0.0
0
0.0
0
0.0
0
4
1 alpha
2 beta
3 gamma
4 delta
0
"""


def loaded(tmp_path, *changes):
    text = FILE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    (tmp_path / "a.qplib").write_text(text)
    return load(tmp_path / "a.qplib")


@pytest.mark.parametrize(("sense", "sign"), [("minimize", 1), ("maximize", -1)])
def test_objective_names_and_cardinality(tmp_path, sense, sign):
    problem = loaded(tmp_path, ("minimize", sense))
    assert (problem.cardinality, problem.labels) == (2, ("alpha", "beta", "gamma", "delta"))
    assert problem.meta == ({"sense": "max"} if sign < 0 else {})
    for a, b, c, d in every_state(4).tolist():
        value = a * a - 1.5 * a * b + 0.25 * c * d + a - 2 * c + 0.5
        assert problem.energy([a, b, c, d]) == sign * value


def test_names_may_be_left_out_in_part_or_at_all(tmp_path):
    assert loaded(tmp_path, ("4\n1 alpha\n2 beta\n3 gamma\n4 delta\n", "0\n")).labels is None
    short = loaded(tmp_path, ("4\n1 alpha\n2 beta\n3 gamma\n4 delta\n", "1\n3 gamma\n"))
    assert short.labels == ("x1", "x2", "gamma", "x4")


def test_one_factor_for_all_is_still_a_cardinality(tmp_path):
    weights = [(f"1 {i} 1\n", f"1 {i} -0.5\n") for i in (1, 2, 3, 4)]
    problem = loaded(tmp_path, *weights, ("2.0\n0\n2.0\n0\n", "-1.5\n0\n-1.5\n0\n"))
    assert problem.cardinality == 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ([("2.0\n0\n2.0", "1.5\n0\n1.5")], r"sum x = 1\.5 has no solution"),
        ([("2.0\n0\n2.0", "1.0\n0\n2.0")], r"1 <= sum x <= 2 allows several"),
        ([("2.0\n0\n2.0", "-1e30\n0\n2.0")], "allows several numbers of ones"),
        ([("1 4 1\n", "1 4 2\n")], "a constraint other than sum x = k"),
        ([("1 4 1\n", "1 1 1\n")], "appears twice"),
        ([("2 1 -1.5", "1 1 -1.5")], "entry of 1 1 appears twice"),
        ([("4 3 0.25", "1 2 0.25")], "both triangles"),
        ([("3 -2.0", "1 -2.0")], "entry of 1 appears twice"),
        ([("minimize", "min")], "its sense is 'min'"),
        ([("QBL", "XBL")], "of type XBL"),
        ([("2 1 -1.5", "2 1 -1_5")], "'-1_5' is not a number"),
        ([("3 gamma", "9 gamma")], "outside 1..4"),
        ([("3 gamma", "3 beta")], "labels has 3 different"),
        ([("4 delta\n0\n", "")], "ends early"),
        ([("2.0\n0\n2.0\n0\n", "2.0\n0\n")], "sum x"),
    ],
)
def test_what_is_unclear_is_refused(tmp_path, changes, words):
    with pytest.raises(FormatError, match=words):
        loaded(tmp_path, *changes)
