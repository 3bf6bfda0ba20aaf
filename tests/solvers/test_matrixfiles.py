"""Lists of matrix entries: each file is the problem that its family's programs see in it."""

import lzma
from dataclasses import replace

import numpy as np
import pytest

from solvers import CardinalityProblem, export, load
from solvers.errors import FormatError
from tests.solvers.reference import every_state

# MQLib's documentation has this problem as bin/sampleQUBO.txt; the maximum of x'Qx is 6.
MQLIB = """# Sample QUBO problem instance
# Input matrix Q:
# [ 5 -6  0
#  -6  3 -1
#   0 -1  1]
# First line: number of variables and specified terms from the input matrix
3 5
# Terms Q_{ii}x_i^2 encoded as: i i Q_{ii}
1 1 5
2 2 3
3 3 1
# Terms Q_{ij}x_ix_j with i < j encoded as: i j Q_{ij}
1 2 -6
2 3 -1
"""
MATRIX = np.array([[5, -6, 0], [-6, 3, -1], [0, -1, 1]])


def written(path, text):
    path.write_text(text)
    return path


def energies(path):
    """Of every x, whatever its number of ones."""
    problem = load(path, cardinality=None if "cardinality" in path.read_text() else 1)
    return problem.energy(every_state(problem.n))


def values(matrix):
    states = every_state(len(matrix))
    return np.einsum("si,ij,sj->s", states, matrix, states)


def test_ubqp_without_a_mark_is_mqlibs_maximum(tmp_path):
    path = written(tmp_path / "a.ubqp", MQLIB)
    assert energies(path).tolist() == (-values(MATRIX)).tolist()
    assert -energies(path).min() == 6
    assert load(path, cardinality=2).meta == {"sense": "max"}


def test_sparse_without_a_mark_is_biq_macs_minimum(tmp_path):
    path = written(tmp_path / "a.sparse", MQLIB)
    assert energies(path).tolist() == values(MATRIX).tolist()
    assert load(path, cardinality=2).meta == {}


def test_or_library_counts_its_problems_first(tmp_path):
    """Its files have blanks around every line as well."""
    lines = [line for line in MQLIB.splitlines() if line[0] != "#"]
    text = "".join(f" {line} \n" for line in lines)
    path = written(tmp_path / "a.ubqp", f" 1 \n{text}")
    assert energies(path).tolist() == (-values(MATRIX)).tolist()
    written(path, f" 2 \n{text}{text}")
    with pytest.raises(FormatError, match="holds 2 problems: make a file of one"):
        load(path, cardinality=1)


@pytest.mark.parametrize("suffix", [".ubqp", ".sparse"])
@pytest.mark.parametrize(
    ("mark", "sign"),
    [
        ("minimise x'Qx + offset", 1),
        ("maximise x'Qx + offset, which is -E(x)", -1),
        ("Minimize x'Qx", 1),
        ("sense : max", -1),
        ("sense = minimize", 1),
    ],
)
def test_a_mark_wins_over_the_suffix(tmp_path, suffix, mark, sign):
    path = written(tmp_path / f"a{suffix}", f"# {mark}\n{MQLIB}# offset 0.5\n")
    assert energies(path).tolist() == (sign * (values(MATRIX) + 0.5)).tolist()


def test_files_of_earlier_releases_are_still_minimised(tmp_path):
    tail = "# minimise x'Qx + offset\n# cardinality 2\n# offset 0.25\n"
    path = written(tmp_path / "a.ubqp", "2 3\n1 1 1.5\n1 2 -0.5\n2 2 0.125\n" + tail)
    assert energies(path).tolist() == [0.25, 0.375, 1.75, 0.875]
    assert load(path).cardinality == 2
    head = "c minimise sum Q_ii x_i + sum_(i<j) Q_ij x_i x_j + offset\nc cardinality 1\n"
    path = written(tmp_path / "a.qubo", head + "c offset 0.25\np qubo 0 2 1 1\n0 0 1.5\n0 1 -1.0\n")
    assert energies(path).tolist() == [0.25, 0.25, 1.75, 0.75]


@pytest.mark.parametrize(
    ("suffix", "first", "pairs", "sign"),
    [(".ubqp", 1, 2, -1), (".sparse", 1, 2, 1), (".qubo", 0, 1, 1)],
)
@pytest.mark.parametrize("penalty", [None, 1.5])
def test_exports_mean_the_same_to_their_own_programs(tmp_path, suffix, first, pairs, sign, penalty):
    """Read as those do: without comments, in the family's sense, with nothing of ours."""
    rng = np.random.default_rng(0)
    problem = CardinalityProblem(
        linear=rng.normal(size=5),
        factor=rng.normal(size=(2, 5)),
        cardinality=2,
        labels=tuple("abcde"),
    )
    lines = export(problem, tmp_path / f"a{suffix}", penalty=penalty).read_text().splitlines()
    rows = [line.split() for line in lines if line[0] in "0123456789"]
    rows = [row for row in rows if len(row) == 3]
    states = every_state(5)
    total = np.zeros(len(states))
    for i, j, value in rows:
        both = states[:, int(i) - first] * states[:, int(j) - first]
        total += float(value) * both * (1 if i == j else pairs)
    expected = problem.energy(states) + (penalty or 0) * (states.sum(axis=1) - 2) ** 2
    difference = sign * total - expected
    assert np.ptp(difference) <= 1e-13


@pytest.mark.parametrize("suffix", [".ubqp", ".sparse", ".qubo", ".qs", ".qs.xz"])
def test_a_file_keeps_where_its_variables_are_in_the_layer(tmp_path, suffix):
    indices = [170_000, 3, 0]
    problem = CardinalityProblem(
        linear=[1, 2, 3], quadratic=np.zeros((3, 3)), cardinality=1, indices=np.array(indices)
    )
    assert load(export(problem, tmp_path / f"a{suffix}")).indices.tolist() == indices


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["indices : 1 2"], "indices has shape"),
        (["indices : 1 2 3", "indices : 1 2 4"], "two lists of indices"),
    ],
)
def test_indices_that_do_not_fit_are_refused(tmp_path, lines, message):
    head = "".join(f"# {line}\n" for line in ["cardinality : 1", *lines])
    path = written(tmp_path / "a.qs", f"{head}3 1\n1 1 2.0\n")
    with pytest.raises(FormatError, match=message):
        load(path)


OFFSETS = {
    "offset -7.5": -7.5,
    "offset: -7.5": -7.5,
    "offset : -7.5": -7.5,
    "offset=-7.5": -7.5,
    "Offset = -.75e1": -7.5,
    "ObjectiveOffset -7.5": -7.5,
    "Constant term of objective = -7.50": -7.5,
    "constant -7.5": -7.5,
    "QUBO of a model: 12 bits, rule weight 2, offset -7.5": -7.5,
    "the offset is -7.5.": -7.5,
    "constant 3-regular graphs": 0,
    "an offset is not given": 0,
    "3 offsets": 0,
    "information of 3 nodes": 0,
}


@pytest.mark.parametrize("comment", OFFSETS)
@pytest.mark.parametrize("suffix", [".qubo", ".sparse"])
def test_constants_as_other_programs_write_them(tmp_path, comment, suffix):
    if suffix == ".qubo":
        text = f"c {comment}\nc cardinality 1\np qubo 0 2 1 1\n0 0 1.5\n0 1 -1.0\n"
    else:
        text = f"# {comment}\n# cardinality 1\n2 2\n1 1 1.5\n1 2 -0.5\n"
    found = energies(written(tmp_path / f"a{suffix}", text))
    assert found.tolist() == (np.array([0, 0, 1.5, 0.5]) + OFFSETS[comment]).tolist()


def test_scale_multiplies_everything(tmp_path):
    text = "c scale : 2.0\nc offset : 3.0\nc cardinality 1\np qubo 0 2 1 1\n0 0 1.5\n0 1 -1.0\n"
    assert energies(written(tmp_path / "a.qubo", text)).tolist() == [6, 6, 9, 7]


QUBO = "p qubo 0 2 1 1\n0 0 1.5\n0 1 -1.0\n"


@pytest.mark.parametrize(
    ("comments", "words"),
    [
        (["offset 1", "offset : 2"], "give two values for offset"),
        (["cardinality 1", "cardinality = 2"], "give two values for cardinality"),
        (["sense : min", "maximise x'Qx"], "give two values for sense"),
        (["cardinality 1.5"], "its cardinality is 1.5"),
        (["cardinality : two"], "damaged"),
        (["cardinality 3"], "damaged: cardinality is 3"),
        (["cardinality 1", "offset nan"], "offset is nan"),
        (["cardinality 1", "offset : none"], "damaged"),
        (["cardinality 1", "scale : -1"], "its scale is -1.0"),
        (["cardinality 1", "scale : 0"], "its scale is 0.0"),
        (["cardinality 1", 'label 0 "a"'], "labels for 1 of 2"),
        (["cardinality 1", 'label 0 "a"', 'label 0 "b"'], "two labels"),
        (["cardinality 1", 'label 0 "a"', 'label 1 "a"'], "labels has 1 different"),
    ],
)
def test_comments_that_contradict_or_make_no_sense(tmp_path, comments, words):
    text = "".join(f"c {comment}\n" for comment in comments)
    with pytest.raises(FormatError, match=words):
        load(written(tmp_path / "a.qubo", text + QUBO))


def test_the_same_said_twice_is_no_contradiction(tmp_path):
    path = written(tmp_path / "a.qubo", "c offset 1\nc offset : 1.0\nc cardinality 1\n" + QUBO)
    assert load(path).offset == 1


def test_permuted_and_restricted_problems_keep_their_names():
    problem = CardinalityProblem(
        linear=[1, 2, 3, 4], quadratic=np.zeros((4, 4)), cardinality=2, labels=tuple("abcd")
    )
    assert problem.labels == ("a", "b", "c", "d")
    permuted = problem.permuted(np.random.default_rng(1))
    assert dict(zip(permuted.labels, permuted.linear, strict=True)) == {
        "a": 1, "b": 2, "c": 3, "d": 4,
    }  # fmt: skip
    assert problem.restricted([3, 1], at=[1, 1, 0, 0]).labels == ("d", "b")
    assert problem.blinded().labels is None
    assert replace(problem, labels=None).content_hash == problem.content_hash


QOBLIB = """# ObjectiveOffset -7.5
3 4
1 1 30024.0
1 2 -10008.0
1 3 -10008.0
2 3 5004.0
"""


@pytest.mark.parametrize("name", ["a.qs", "a.qs.xz"])
def test_qoblib_counts_a_pair_twice_and_adds_its_offset(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(lzma.compress(QOBLIB.encode()) if name.endswith("xz") else QOBLIB.encode())
    Q = np.array([[30024, -10008, -10008], [-10008, 0, 5004], [-10008, 5004, 0]])
    found = load(path, cardinality=1).energy(every_state(3))
    assert found.tolist() == (values(Q) - 7.5).tolist()
    with pytest.raises(FormatError, match="pass cardinality"):
        load(path)


def test_ours_says_the_offset_as_qoblib_does(tmp_path):
    problem = CardinalityProblem(
        linear=np.array([1.0, 2.0]), cardinality=1, quadratic=np.array([[0, 3.0], [3.0, 0]]),
        offset=0.1,
    )  # fmt: skip
    text = export(problem, tmp_path / "a.qs").read_text()
    assert text.splitlines()[2:] == [
        "# ObjectiveOffset 0.1",
        "2 3",
        "1 1 1.0",
        "1 2 1.5",
        "2 2 2.0",
    ]
    packed = export(problem, tmp_path / "a.qs.xz").read_bytes()
    assert lzma.decompress(packed).decode() == text


def test_compressed_files_that_cannot_be_read(tmp_path, monkeypatch):
    packed = lzma.compress(QOBLIB.encode())
    path = tmp_path / "a.qs.xz"
    for data, message in (
        (packed[:-9], "damaged"),
        (QOBLIB.encode(), "no .xz file"),
        (lzma.compress(b"\xff\xfe\xff"), "UTF-8"),
        (b"", "damaged|first line"),
    ):
        path.write_bytes(data)
        with pytest.raises(FormatError, match=message):
            load(path, cardinality=1)
    path.write_bytes(packed)
    monkeypatch.setattr("solvers.io.textfile.MOST_TEXT", 20)
    with pytest.raises(FormatError, match="more than 20 bytes"):
        load(path, cardinality=1)
