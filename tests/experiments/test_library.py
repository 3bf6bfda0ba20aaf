"""The instances that come with the package, and the checker that shares no code with it."""

import csv
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest

from experiments import run
from experiments.errors import StudyError
from experiments.instances.library import reading
from experiments.instances.library.reading import (
    Rows,
    complaint,
    instance,
    matching,
    problem,
    table,
)
from experiments.scripts.library import adopted, remade
from experiments.study.study import Study

NAMES = [entry.name for entry in table()]
SMALL = "ladder/smollm2-15-up-r289-d0.5-n16"


def checker():
    path = reading.folder() / "check.py"
    spec = importlib.util.spec_from_file_location("check", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_is_small_and_complete():
    sizes = [path.stat().st_size for path in reading.folder().iterdir() if path.is_file()]
    assert sum(sizes) < 12e6
    assert len(NAMES) == len(set(NAMES)) >= 60
    assert {entry.kind for entry in table()} == {"rows", "ladder", "patterns", "mix", "loss"}
    assert {entry.model for entry in table()} == {"smollm2", "vit-fashion", "garment-mlp"}
    assert all(files("experiments.instances.library").joinpath(e.file).is_file() for e in table())


@pytest.mark.parametrize("kind", ["rows", "ladder", "patterns", "mix", "loss"])
def test_best_known_states_have_their_energies_and_the_checker_agrees(kind):
    check = checker()
    with (reading.folder() / "table.csv").open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    for entry in matching(f"{kind}/*"):
        found = problem(entry)
        assert (found.n, found.cardinality, found.num_groups) == (entry.n, entry.k, entry.groups)
        assert found.is_feasible(entry.state)
        energy = float(found.energy(entry.state))
        # Sums of another order on another machine.
        size = abs(entry.best) + 1e-13 * float(np.abs(found.linear).sum())
        assert energy == pytest.approx(entry.best, abs=1e-9 * size)
        assert entry.bound <= entry.best + 1e-9 * size
        own = check.Instance(rows[entry.name])
        other = found.random_state(np.random.default_rng(1))
        for x in (entry.state, other):
            assert own.complaint(x.astype(int)) == ""
            assert own.energy(x) == pytest.approx(float(found.energy(x)), abs=1e-9 * size + 1e-13)
        wrong = entry.state.copy()
        wrong[0] = not wrong[0]
        assert "ones, expected" in own.complaint(wrong.astype(int))


def test_rows_are_the_share_of_the_output_that_is_lost():
    (entry,) = matching("rows/vit-1-fc2-r5-d0.5")
    rows = Rows.read(reading.folder() / entry.file)
    w = rows.weights[rows.meta["rows"].index(5)].astype(float)
    found = problem(entry)
    for x in (found.initial, entry.state):
        lost = np.sum((rows.root @ (w * x)) ** 2) / np.sum((rows.root @ w) ** 2)
        assert float(found.energy(x)) == pytest.approx(lost, rel=1e-12)
    assert float(found.energy(np.ones(found.n))) == pytest.approx(1, rel=1e-12)


def test_patterns_keep_n_of_every_m():
    (entry,) = matching("patterns/smollm2-15-up-r289-4of8")
    found = problem(entry)
    assert found.group_ones.tolist() == [4] * 72
    assert np.array_equal(found.groups, np.arange(576) // 8)


def test_checker_scores_a_file_and_refuses_what_is_wrong(tmp_path):
    (entry,) = matching(SMALL)
    bits = "".join(str(int(v)) for v in entry.state)
    ones = " ".join(map(str, np.flatnonzero(entry.state)))
    path = tmp_path / "solutions.csv"
    path.write_text(f"# mine\n{SMALL},{bits}\nlibrary:{SMALL},{ones}\n")
    script = reading.folder() / "check.py"
    run = subprocess.run([sys.executable, "-I", script, path], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("0.0000 %") == 2
    path.write_text(f"{SMALL},1 2 3\n{SMALL},99\n{SMALL},1 1\nnobody,1\n{SMALL},{bits}\n")
    run = subprocess.run([sys.executable, "-I", script, path], capture_output=True, text=True)
    assert run.returncode == 1
    for words in ("line 1: it has 3 ones", "line 2: variable 99", "line 3: variable 1 stands twice",
                  "line 4: there is no such instance", "0.0000 %"):  # fmt: skip
        assert words in run.stdout


@pytest.fixture
def copied(tmp_path):
    """A library of one's own to edit."""
    where = tmp_path / "library"
    shutil.copytree(reading.folder(), where)
    yield where
    table.cache_clear()


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_edited_files_are_refused(copied):
    (entry,) = matching(SMALL, copied)
    flip(copied / entry.file, -3)
    with pytest.raises(StudyError, match="damaged"):
        problem(entry, copied)
    (row,) = matching("rows/vit-3-o-r11-d0.5", copied)
    file = copied / row.file
    flip(file, file.stat().st_size // 2)
    with pytest.raises(StudyError, match=r"vit-3-o.rows.safetensors of the library was edited"):
        problem(row, copied)
    assert "was edited" in complaint(row, copied)
    file.unlink()
    with pytest.raises(StudyError, match="damaged"):
        problem(row, copied)


def edited(where, column, value):
    """The entry of `SMALL`, one of its columns written by hand."""
    path = where / "table.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        if row["name"] == SMALL:
            row[column] = value
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    table.cache_clear()
    return next(entry for entry in matching("*", where) if entry.name == SMALL)


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("n", "17", "was edited"),
        ("k", "7", "was edited"),
        ("groups", "2", "was edited"),
        ("sha256", "0" * 64, "was edited"),
        ("file", "nothing.block.safetensors", "damaged"),
        ("ones", "00ff", "is not feasible|has the energy"),
        ("ones", "ff", "not the state of 16 variables"),
        ("ones", "many", "not the state of 16 variables"),
        ("best", "0.5", "has the energy"),
        ("best", "nan", "has the energy"),
        ("bound", "9", "its bound, 9.0, is not below"),
        ("bound", "nan", "its bound, nan, is not below"),
    ],
)
def test_an_edited_table_is_told_in_a_sentence(copied, column, value, words):
    assert complaint(matching(SMALL, copied)[0], copied) == ""
    said = complaint(edited(copied, column, value), copied)
    assert re.search(words, said)
    assert "\n" not in said


@pytest.mark.parametrize(
    ("column", "value"), [("n", "many"), ("proved", "perhaps"), ("best", ""), ("bound", "\x00")]
)
def test_a_table_that_cannot_be_read(copied, column, value):
    with pytest.raises(StudyError, match=r"table\.csv of the library cannot be read"):
        edited(copied, column, value)
    (copied / "table.csv").write_bytes(b"name,\xff\xfe\n")
    table.cache_clear()
    with pytest.raises(StudyError, match=r"table\.csv of the library cannot be read"):
        table(copied)


def test_the_checker_refuses_an_edited_library(copied, tmp_path):
    solutions = tmp_path / "solutions.csv"
    row, pattern = "rows/vit-3-o-r11-d0.5", "patterns/smollm2-15-up-r289-2of4-n8"
    solutions.write_text("".join(f"{name},0 2\n" for name in (SMALL, row, pattern)))
    (small,) = matching(SMALL, copied)
    (copied / small.file).write_bytes(b"nothing")
    (whole,) = matching(row, copied)
    flip(copied / whole.file, -40)
    (grouped,) = matching(pattern, copied)
    (copied / grouped.file).unlink()
    run = subprocess.run(
        [sys.executable, "-I", copied / "check.py", solutions], capture_output=True, text=True
    )
    assert (run.returncode, run.stderr) == (1, "")
    lines = run.stdout.splitlines()[1:]
    for line, words in zip(lines, ("damaged", "was edited", "damaged"), strict=True):
        assert words in line


def test_what_is_made_again_keeps_what_is_known_of_the_same_problem():
    known = matching("mix/*") + matching(SMALL)
    first, *others = matching("mix/*")
    again = replace(first, best=np.inf, best_by="the current mask")
    changed = replace(others[0], sha256="another", best=np.inf)
    (small,) = matching(SMALL)
    assert remade(known, [again, changed]) == [small, first, changed]
    assert remade(known, [replace(small, best=np.inf)]) == known


def test_better_states_of_a_study_are_adopted(tmp_path):
    (entry,) = matching(SMALL)
    whole = problem(entry)
    worse = replace(entry, best=float(whole.energy(whole.initial)), best_by="the current mask")
    path = tmp_path / "s.sqlite"
    run(Study("s", [f"library:{SMALL}"], ["tabu"], [0.1], seeds=[0]), path, progress=False)
    (found,) = adopted([worse], path)
    assert found.best < worse.best
    assert (found.best_by, found.best_seconds) == ("tabu", 0.1)
    assert float(whole.energy(found.state)) == found.best
    assert adopted([found], path) == [found]


def test_names_that_cannot_be():
    with pytest.raises(StudyError, match=r"choose from .*rows/\*"):
        matching("row/*")
    with pytest.raises(StudyError, match="name one of them"):
        instance("library:ladder/*")
    assert instance(f"library:{SMALL}").n == 16


def test_studies_take_them(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        f'name = "mine"\ninstances = ["library:{SMALL}"]\nsolvers = ["greedy"]\n'
        "budgets = [0.1]\nseeds = 1\n"
    )
    study = Study.from_toml(path)
    assert list(study.instances) == [f"library:{SMALL}"]


def test_commands(icbs, tmp_path):
    status, out, err = icbs("instances", "list", "ladder/*-n8")
    assert status == 0, err
    assert out.count("-n8 ") == 3
    status, out, _ = icbs("instances", "list", "--csv")
    assert out.splitlines()[0].startswith("name,kind,file")
    assert len(out.splitlines()) == len(NAMES) + 1
    status, out, _ = icbs("instances", "verify", "*-n1?")
    assert status == 0
    assert "instances are as the table says" in out
    status, out, err = icbs(
        "instances", "copy", "*-n12", "--out", tmp_path, "--format", "qs.xz,lp", "--penalty", "1"
    )
    assert status == 0, err
    assert len(list(tmp_path.glob("*.qs.xz"))) == len(list(tmp_path.glob("*.lp"))) == 3
    status, out, err = icbs("solve", f"library:{SMALL}", "--solver", "exact", "--json")
    assert status == 0, err
    answer, found = json.loads(out), instance(f"library:{SMALL}")
    assert answer["squared_output_error"] == answer["energy"] * found.scale
    assert "loss_change" not in answer
    status, out, err = icbs(
        "bench", "--instances", "library:ladder/*-n8", "--solvers", "greedy,descent",
        "--time-limits", "0.1", "--seeds", "1", "--store", tmp_path / "runs.sqlite",
    )  # fmt: skip
    assert status == 0, err
    for words, why in (
        (("instances", "list", "nothing*"), "not in the library"),
        (("solve", "library:ladder/*"), "name one of them"),
        (("instances", "copy", "--out", tmp_path, "--format", "doc"), "'doc' is unknown"),
        (("bench", "--instances", "library:x", "--solvers", "greedy"), "not in the library"),
    ):
        status, _, err = icbs(*words)
        assert status != 0
        assert why in " ".join(err.split())
