"""Container and exports: every energy survives, every damage is named."""

import json
import re
import struct
import subprocess
import sys
from base64 import b64decode
from dataclasses import replace
from pathlib import Path

import dimod
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from solvers import CardinalityProblem, export, load, save
from solvers.errors import FormatError
from solvers.io.formats import CONTAINER, FORMATS, exports, format_of
from tests.solvers.reference import every_state, magnitude
from tests.strategies import problems

once_per_example = settings(
    max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@once_per_example
@given(problems())
def test_container_is_lossless(tmp_path, problem):
    back = load(save(problem, tmp_path / "a.block.safetensors"))
    assert back.content_hash == problem.content_hash
    assert back.meta == problem.meta
    assert (back.energy(every_state(problem.n)) == problem.energy(every_state(problem.n))).all()


@once_per_example
@given(
    problems(),
    st.sampled_from([".bqm", ".ubqp", ".sparse", ".qubo", ".qs", ".qs.xz"]),
    st.sampled_from([None, 0.3]),
)
def test_exports_keep_every_energy(tmp_path, problem, suffix, penalty):
    path = export(problem, tmp_path / f"a{suffix}", penalty=penalty)
    back = load(path, cardinality=problem.cardinality)
    states = every_state(problem.n)
    excess = (states.sum(axis=1) - problem.cardinality) ** 2
    expected = problem.energy(states) + (penalty or 0) * excess
    size = magnitude(problem) + (penalty or 0) * problem.n**2
    assert np.abs(back.energy(states) - expected).max() <= 1e-12 * size


@once_per_example
@given(problems())
def test_lp_keeps_energies_and_constraint(tmp_path, problem):
    back = load(export(problem, tmp_path / "a.lp"))
    assert back.cardinality == problem.cardinality
    states = every_state(problem.n)
    difference = back.energy(states) - problem.energy(states)
    assert np.abs(difference).max() <= 1e-12 * magnitude(problem)


def some_problem(n=5):
    rng = np.random.default_rng(3)
    return CardinalityProblem(
        linear=rng.normal(size=n), cardinality=2, factor=rng.normal(size=(2, n)), offset=0.25
    )


def test_text_formats_as_other_programs_read_them(tmp_path):
    problem = some_problem(3)
    Q = 0.5 * problem.gram() + np.diag(problem.linear)
    x = np.array([1, 0, 1])
    # MQLib maximises, Biq Mac minimises; both skip comments.
    for suffix, sign in ((".ubqp", -1), (".sparse", 1)):
        lines = export(problem, tmp_path / f"a{suffix}").read_text().splitlines()
        body = [line for line in lines if line[0] != "#"]
        assert body[0] == "3 6"
        matrix = np.zeros((3, 3))
        for line in body[1:7]:
            i, j, value = line.split()
            matrix[int(i) - 1, int(j) - 1] = matrix[int(j) - 1, int(i) - 1] = float(value)
        value = sign * (x @ matrix @ x) + problem.offset
        assert value == pytest.approx(float(problem.energy(x)), rel=1e-14)
        assert np.allclose(sign * matrix, Q, rtol=1e-14)
    lines = export(problem, tmp_path / "a.qubo").read_text().splitlines()
    body = [line.split() for line in lines if line[0] not in "cp"]
    assert [line for line in lines if line[0] == "p"] == ["p qubo 0 3 3 3"]
    total = sum(float(v) for i, j, v in body if x[int(i)] and x[int(j)])
    assert total + problem.offset == pytest.approx(float(problem.energy(x)), rel=1e-14)


def test_bqm_file_is_dimods_own(tmp_path):
    problem = some_problem()
    with export(problem, tmp_path / "a.bqm").open("rb") as file:
        assert dimod.BinaryQuadraticModel.from_file(file) == problem.to_bqm()


def test_file_without_cardinality_asks_for_it(tmp_path):
    path = export(some_problem(), tmp_path / "a.bqm")
    with pytest.raises(FormatError, match="pass cardinality"):
        load(path)
    assert load(path, cardinality=3).cardinality == 3


@pytest.mark.parametrize(
    "suffix", [".block.safetensors", ".lp", ".ubqp", ".sparse", ".qubo", ".qs", ".qs.xz"]
)
def test_the_callers_cardinality_never_wins_over_the_files(tmp_path, suffix):
    path = export(some_problem(), tmp_path / f"a{suffix}")
    assert load(path, cardinality=2).cardinality == 2
    with pytest.raises(FormatError, match=r"says 2 ones and cardinality is 3: leave"):
        load(path, cardinality=3)


@pytest.mark.parametrize("wrong", [6, -1, 2.5, "3", True])
def test_a_cardinality_that_is_wrong_is_not_the_files_fault(tmp_path, wrong):
    path = export(some_problem(), tmp_path / "a.bqm")
    with pytest.raises(FormatError, match=r"^cardinality is .*whole number in 0\.\.5 for a\.bqm$"):
        load(path, cardinality=wrong)
    assert load(path, cardinality=np.int64(3)).cardinality == 3


NAMES = ("x 1", "é", 'say "no"', "\u2028", "e1")


def named_problem():
    return replace(some_problem(), labels=NAMES)


@pytest.mark.parametrize(
    "suffix", [".block.safetensors", ".bqm", ".lp", ".ubqp", ".sparse", ".qubo", ".qs", ".qs.xz"]
)
def test_labels_survive_in_every_format(tmp_path, suffix):
    path = export(named_problem(), tmp_path / f"a{suffix}")
    back = load(path, cardinality=2)
    assert back.labels == NAMES
    unnamed = load(export(some_problem(), tmp_path / f"b{suffix}"), cardinality=2)
    assert back.content_hash == unnamed.content_hash
    assert unnamed.labels is None


def test_labels_of_dimod_are_kept_in_their_order(tmp_path):
    bqm = dimod.BinaryQuadraticModel({"b": 1.0, "a": -1.0, 3: 0.5}, {"ab": 2.0}, 0.0, "SPIN")
    with bqm.to_file() as file:
        (tmp_path / "a.bqm").write_bytes(file.read())
    problem = load(tmp_path / "a.bqm", cardinality=1)
    assert problem.labels == tuple(map(str, bqm.variables))
    assert problem.energy([1, 0, 0]) == bqm.energy(
        {v: 1 if v == bqm.variables[0] else -1 for v in bqm.variables}
    )


def test_labels_of_a_container_are_hashed(tmp_path):
    path = save(named_problem(), tmp_path / "a.block.safetensors")
    data = path.read_bytes()
    for change in (
        lambda h: h["__metadata__"].update(labels=json.dumps(NAMES[::-1])),
        lambda h: h["__metadata__"].pop("labels"),
        lambda h: change_icbs(labels_hash=None)(h),
    ):
        path.write_bytes(data)
        rewritten(path, change)
        with pytest.raises(FormatError, match="hash of its labels"):
            load(path)
    plain = save(some_problem(), tmp_path / "b.block.safetensors")
    rewritten(plain, lambda h: h["__metadata__"].update(labels=json.dumps(NAMES)))
    with pytest.raises(FormatError, match="hash of its labels"):
        load(plain)


# A container as releases wrote it before there were labels.
EARLIER = (
    b"AAIAAAAAAAB7Il9fbWV0YWRhdGFfXyI6eyJtZXRhIjoie1wibGF5ZXJcIjogXCJhXCJ9IiwiaWNicyI6IntcInNjaG"
    b"VtYVwiOiAxLCBcIm5cIjogMywgXCJyYW5rXCI6IDEsIFwiY2FyZGluYWxpdHlcIjogMSwgXCJvZmZzZXRcIjogMC4y"
    b"NSwgXCJzY2FsZVwiOiAxLjAsIFwiY29udGVudF9oYXNoXCI6IFwiMzA2NmEzZDA2MDRmNTM3ZDBlM2Q2MmNhYWZiMz"
    b"c1MjUwMTk2MGMxZGZjNDEzMzViOTBmMWZiMjY4OWFlZTJlN1wiLCBcIm1ldGFfaGFzaFwiOiBcIjlkZTc2MWM0Y2Zh"
    b"N2U0MDgyODllOGUyYTMyOThjMGY1NzBlYTJjZmVhZDQzZmQ0MzIxMTE1NzM0MDI3YTIwMDdcIiwgXCJ3cml0dGVuX2"
    b"J5XCI6IHtcIm51bXB5XCI6IFwiMi40LjZcIiwgXCJzYWZldGVuc29yc1wiOiBcIjAuOC4wXCJ9fSJ9LCJmYWN0b3Ii"
    b"OnsiZHR5cGUiOiJGNjQiLCJzaGFwZSI6WzEsM10sImRhdGFfb2Zmc2V0cyI6WzAsMjRdfSwibGluZWFyIjp7ImR0eX"
    b"BlIjoiRjY0Iiwic2hhcGUiOlszXSwiZGF0YV9vZmZzZXRzIjpbMjQsNDhdfX0gIAAAAAAAAPA/AAAAAAAAAEAAAAAA"
    b"AAAIQAAAAAAAAPA/AAAAAAAAAMAAAAAAAADgPw=="
)


def test_a_container_of_an_earlier_release_is_the_same_problem(tmp_path):
    path = tmp_path / "a.block.safetensors"
    path.write_bytes(b64decode(EARLIER))
    back = load(path)
    problem = CardinalityProblem(
        linear=[1, -2, 0.5], cardinality=1, factor=[[1, 2, 3]], offset=0.25
    )
    assert back.content_hash == problem.content_hash
    assert back.content_hash.startswith("3066a3d0604f537d")
    assert (back.labels, back.meta) == (None, {"layer": "a"})


def test_a_container_cut_before_the_modules_moved_is_the_same_problem():
    """Cut by the loop of 0.1, whose modules had other names."""
    path = Path(__file__).parents[1] / "data" / "before-0.2" / "block.block.safetensors"
    problem = load(path)
    assert problem.content_hash.startswith("279b5c3502bacc90")
    assert (problem.n, problem.cardinality) == (40, 20)
    assert problem.meta["layer"] == "model.layers.1.mlp.down_proj"
    assert problem.energy(problem.initial) == 0.0


@pytest.mark.parametrize(
    ("suffix", "change"),
    [
        (suffix, change)
        for suffix in (".lp", ".ubqp", ".sparse", ".qubo")
        for change in (
            lambda text: text.replace("\n", "\r\n"),
            lambda text: "\ufeff" + text,
            lambda text: text.replace(" ", "\t"),
            lambda text: text.replace("\n", "\n \n  "),
        )
    ],
)
def test_line_ends_marks_and_blanks_change_nothing(tmp_path, suffix, change):
    path = export(some_problem(), tmp_path / f"a{suffix}")
    other = tmp_path / f"b{suffix.upper()}"
    other.write_bytes(change(path.read_text()).encode())
    assert load(other).content_hash == load(path).content_hash


def test_every_truncation_of_a_container_is_refused(tmp_path):
    data = save(some_problem(), tmp_path / "a.block.safetensors").read_bytes()
    short = tmp_path / "short.block.safetensors"
    for length in range(0, len(data), 7):
        short.write_bytes(data[:length])
        with pytest.raises(FormatError):
            load(short)


def test_every_edited_byte_of_a_container_is_refused(tmp_path):
    data = save(some_problem(), tmp_path / "a.block.safetensors").read_bytes()
    edited = tmp_path / "edited.block.safetensors"
    problem = some_problem()
    for place in range(len(data)):
        change = bytearray(data)
        change[place] ^= 1
        edited.write_bytes(change)
        try:
            back = load(edited)
        except FormatError:
            continue
        # What is not hashed (the writer's versions, white space) cannot change the problem.
        assert back.content_hash == problem.content_hash
        assert back.meta == problem.meta


def rewritten(path, change):
    """The container with its JSON header changed."""
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])


def change_icbs(**values):
    def change(header):
        known = json.loads(header["__metadata__"]["icbs"])
        header["__metadata__"]["icbs"] = json.dumps(known | values)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (change_icbs(schema=2), "schema version 2, this release reads 1"),
        (change_icbs(cardinality=1), "content hash"),
        (change_icbs(cardinality=99), "damaged"),
        (change_icbs(n=6), "expected F64"),
        (change_icbs(scale=-1.0), "damaged"),
        (lambda h: h["__metadata__"].update(meta='{"a": 1}'), "metadata"),
        (lambda h: h.pop("__metadata__"), "holds no block problem"),
        (lambda h: h["__metadata__"].update(icbs="[1]"), "schema version None"),
        (lambda h: h["__metadata__"].update(icbs="{" * 5000), "damaged"),
        (lambda h: h["linear"].update(dtype="I64"), "expected F64"),
        (lambda h: h["factor"].update(shape=[2**40, 5]), "truncated"),
    ],
)
def test_edited_headers_are_refused(tmp_path, change, words):
    path = save(some_problem(), tmp_path / "a.block.safetensors")
    rewritten(path, change)
    with pytest.raises(FormatError, match=words):
        load(path)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.ubqp", "", "first line"),
        ("a.ubqp", "3\n", "first line"),
        ("a.ubqp", "2 2\n1 1 1.0\n# cardinality 1\n", "declares 2 entries and has 1"),
        ("a.ubqp", "2 1\n1 3 1.0\n# cardinality 1\n", "outside"),
        ("a.ubqp", "2 2\n1 2 1.0\n2 1 1.0\n# cardinality 1\n", "twice"),
        ("a.ubqp", "2 1\n1 2 nan\n# cardinality 1\n", "not finite"),
        ("a.ubqp", "2 1\n1 2 x\n# cardinality 1\n", "damaged"),
        ("a.ubqp", "2 1\n1 2 1_0\n# cardinality 1\n", "'1_0' is not a number"),
        ("a.ubqp", "2 1\n1 \u0662 1.0\n# cardinality 1\n", "is not a whole number"),
        ("a.ubqp", "2 1\n1 2 1,5\n# cardinality 1\n", "'1,5'"),
        ("a.ubqp", "2 1\n1 2 1d5\n# cardinality 1\n", "'1d5'"),
        ("a.ubqp", "2 1\n1 2 1.0 2.0\n# cardinality 1\n", "is not an entry 'i j value'"),
        ("a.ubqp", "2 2\n1 2 0\n2 1 1.0\n# cardinality 1\n", "twice"),
        ("a.ubqp", "2 1\n1 2 1.0\n3 4\n# cardinality 1\n", "declares 1 entries and has 2"),
        ("a.ubqp", "2 1\n0 1 1.0\n# cardinality 1\n", "outside 1..2"),
        ("a.qubo", "p qubo 0 2 1 0\n2 2 1.0\nc cardinality 1\n", "outside 0..1"),
        ("a.ubqp", "10\n2 1\n1 2 1.0\n", "holds 10 problems"),
        ("a.lp.gz", "", "unknown suffix"),
        ("a.ubqp", "-2 0\n# cardinality 1\n", "declares -2"),
        ("a.ubqp", "99999999 0\n# cardinality 1\n", "hold at most 20000"),
        ("a.ubqp", "2 1\n1 2 1.0\n# cardinality 3\n", "damaged"),
        ("a.qubo", "p qubo 1\n", "expected 'p qubo"),
        ("a.qubo", "c only a comment\n", "expected 'p qubo"),
        ("a.lp", "not an LP file", "LP file"),
        ("a.bqm", "not a model", "BQM file"),
        ("a.txt", "", "unknown suffix"),
        ("a.block.safetensors", "", "truncated"),
    ],
)
def test_bad_files_are_refused(tmp_path, name, text, words):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(FormatError, match=words):
        load(path)


def test_text_that_is_no_text(tmp_path):
    path = tmp_path / "a.qubo"
    path.write_bytes(b"p qubo \xff")
    with pytest.raises(FormatError, match="byte 7 is not UTF-8"):
        load(path)


def test_missing_file_and_wrong_suffix(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        load(tmp_path / "none.bqm")
    with pytest.raises(FormatError, match="ends in"):
        save(some_problem(), tmp_path / "a.safetensors")
    with pytest.raises(FormatError, match="unknown suffix"):
        export(some_problem(), tmp_path / "a.csv")
    for suffix in (".lp", CONTAINER):
        with pytest.raises(FormatError, match=r"penalty is 1\.0.*leave penalty out"):
            export(some_problem(), tmp_path / f"a{suffix}", penalty=1.0)
        assert not list(tmp_path.iterdir())


def test_the_table_of_formats_decides(tmp_path):
    """Every row that writes is read back, in either case; those that do not are refused."""
    problem = some_problem()
    for row in FORMATS:
        path = tmp_path / f"A{row.suffix.upper()}"
        assert format_of(path) is row
        if row.write is None:
            with pytest.raises(FormatError, match="unknown suffix"):
                export(problem, path)
            continue
        says = row.constrained or row.suffix != ".bqm"
        back = load(export(problem, path), cardinality=None if says else problem.cardinality)
        assert np.allclose(back.energy(every_state(5)), problem.energy(every_state(5)))
        assert (back.content_hash == problem.content_hash) >= row.lossless
    assert set(exports()) == {row.suffix[1:] for row in FORMATS if row.write} - {CONTAINER[1:]}


def test_the_page_on_files_names_formats_that_there_are():
    page = (Path(__file__).parents[2] / "docs" / "files.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\.\S+)`( \(read only\))? \|", page, re.M)
    assert len(rows) >= 7
    known = {row.suffix: row for row in FORMATS}
    for suffix, read_only in rows:
        assert (known[suffix].write is None) == bool(read_only)


COLUMN_FILE = """
import numpy as np

from solvers.io.textfile import Objective, read_text, whole

def read(path):
    ones, *costs = read_text(path).split()
    return Objective(np.diag([float(cost) for cost in costs]), 0.0, whole(ones))

def write(problem, penalty):
    assert not problem.gram().any() and penalty is None
    return "\\n".join([str(problem.cardinality), *map(repr, problem.linear.tolist())])
"""
ONE_MODULE_AND_ONE_ROW = """
import sys
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

import column_file
from solvers.io.formats import FORMATS, Format

FORMATS.append(Format(".column", "linear costs, one a line", column_file.read, column_file.write))

from experiments import Study, load_runs, run
from experiments.cli import app
from solvers import CardinalityProblem, export, load

folder = Path(sys.argv[1])
problem = CardinalityProblem(linear=[3.0, 1.0, 2.0], cardinality=2, factor=np.zeros((1, 3)))
path = export(problem, folder / "a.column")
assert load(path).linear.tolist() == [3.0, 1.0, 2.0]
run(Study("s", [path], ["greedy"]), folder / "s.sqlite", progress=False)
assert set(load_runs(folder / "s.sqlite")["energy"]) == {3.0}
for work in (lambda: load(Path(__file__)), lambda: export(problem, folder / "a.x")):
    try:
        work()
    except ValueError as error:
        assert ".column" in str(error), error
    else:
        raise AssertionError
told = CliRunner().invoke(app, ["export", "garment-mlp", "--format", "nope", "--out", "out"])
assert "column" in told.output, told.output
"""


def test_a_format_is_one_module_and_one_row(tmp_path):
    """It is read, written, benchmarked and listed without another word."""
    (tmp_path / "column_file.py").write_text(COLUMN_FILE)
    (tmp_path / "script.py").write_text(ONE_MODULE_AND_ONE_ROW)
    ended = subprocess.run(
        [sys.executable, str(tmp_path / "script.py"), str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr


def test_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    target = save(some_problem(), tmp_path / "a.block.safetensors")
    before = target.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(OSError, match="No space left"):
        save(some_problem(6), target)
    assert target.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.block.safetensors"]


def test_container_of_4096_variables_is_small(tmp_path):
    rng = np.random.default_rng(0)
    problem = CardinalityProblem(
        linear=rng.normal(size=4096),
        cardinality=2048,
        factor=rng.normal(size=(16, 4096)),
        indices=rng.integers(10**6, size=4096),
        initial=np.arange(4096) % 2 == 0,
    )
    path = save(problem, tmp_path / "a.block.safetensors")
    assert path.stat().st_size <= 1_000_000
