"""The command line: what it prints, how it ends, and that bad input loses nothing."""

import json
import sqlite3
import subprocess
import sys

import numpy as np
import pytest

from solvers import CardinalityProblem, load, save
from solvers.registry import SOLVERS


def export_arguments(model_folder, out, **changes):
    options = {
        "layers": "*.mlp.*",
        "sizes": "8,64",
        "data": model_folder / "text.txt",
        "count": 4,
        "length": 16,
        "out": out,
    } | changes
    flat = [word for key, value in options.items() for word in (f"--{key}", value)]
    return ["export", model_folder, *flat]


def test_cut_writes_nested_sub_blocks_with_their_optimum(icbs, block, tmp_path):
    status, out, _ = icbs("cut", block, "--sizes", "4,8", "--out", tmp_path / "sub")
    assert status == 0
    small, large = (load(line) for line in out.split())
    assert (small.n, large.n, large.cardinality) == (4, 8, 4)
    least = small.meta["optimum"]
    assert large.meta["optimum"] <= least <= float(small.energy(small.initial))
    status, _, err = icbs("cut", block, "--sizes", "9", "--out", tmp_path / "sub")
    assert status != 0
    assert "even numbers" in err


def test_export_of_rows(icbs, tmp_path):
    status, out, err = icbs(
        "export", "garment-mlp", "--kind", "row", "--layers", "mlp.layers.1", "--rows", "0,8",
        "--pattern", "2:4", "--sizes", "8,512", "--count", "40", "--out", tmp_path,
    )  # fmt: skip
    assert status == 0, err
    problems = [load(line) for line in out.splitlines() if line.endswith(".safetensors")]
    assert [p.n for p in problems] == [8, 512, 8, 512]
    assert [p.meta["row"] for p in problems] == [0, 0, 8, 8]
    assert {p.meta["fisher"] for p in problems} == {"reconstruction, 2:4"}
    part, row = problems[:2]
    assert part.energy(part.initial) == pytest.approx(row.energy(row.initial))
    for words, why in (
        (("--kind", "raw"), "did you mean 'row'"),
        (("--rows", "3"), "--rows is given, which blocks of kind loss do not have"),
        (("--kind", "row", "--lam", "0.2"), "--lam is given"),
        (("--kind", "row", "--layers", "*", "--rows", "900"), "0..511"),
        (("--kind", "row", "--rows=-1"), "--rows is '-1', expected numbers from 0 on"),
        (("--kind", "row", "--draw", "0"), "--draw"),
        (("--kind", "row", "--sizes", "0"), "--sizes is '0', expected numbers above 0"),
        (("--kind", "row", "--layers", "*", "--pattern", "2:3"), "2:3"),
        (("--kind", "row", "--layers", "*", "--shrinkage", "2"), "shrinkage"),
    ):
        status, _, err = icbs("export", "garment-mlp", *words, "--out", tmp_path / "none")
        assert status != 0
        assert why in " ".join(err.split())
    assert not (tmp_path / "none").exists()


def test_no_arguments_prints_help(icbs):
    status, out, err = icbs()
    assert status == 2
    assert "icbs demo --fast" in out + err


def test_lists(icbs):
    status, out, _ = icbs("solvers", "--json")
    records = {record["name"]: record for record in json.loads(out)}
    assert status == 0
    assert set(records) == set(SOLVERS)
    assert records["enumerate"]["exact"] is True
    assert records["neal"]["track"] == "penalised"
    assert "annealing" in icbs("solvers")[1]
    assert json.loads(icbs("models", "--json")[1])[0]["name"] == "smollm2"


SDKS = {"braket", "dwave.optimization", "dwave.samplers", "dwave.system", "highspy", "neal",
        "numba", "pyscipopt", "qiskit", "qiskit_ibm_runtime", "torch", "transformers"}  # fmt: skip


def test_the_list_of_solvers_imports_no_sdk():
    script = (
        "import sys; sys.argv = ['icbs', 'solvers', '--json']\n"
        "from experiments.cli import app\n"
        "app(standalone_mode=False)\n"
        f"print(sorted(set(sys.modules) & {SDKS!r}), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)
    assert done.stderr == "[]\n"


LP = """Maximize
 obj: 3 x3 + 2 x2 + x1 + 0.5 x0
Subject To
 c: x1 + x2 + x3 + x0 = 2
Bounds
 x0 = 1
Binary
 x1 x2 x3 x0
End
"""


def test_answers_have_the_names_of_the_file(icbs, tmp_path):
    path = tmp_path / "a.lp"
    path.write_text(LP)
    answer = json.loads(icbs("solve", path, "--solver", "enumerate", "--json")[1])
    assert (answer["ones"], answer["names"], answer["fixed"]) == ([2], ["x3"], {"x0": 1})
    assert (answer["energy"], answer["objective"]) == (-3.5, 3.5)
    out = icbs("solve", path, "--solver", "enumerate")[1]
    assert out.splitlines()[-2:] == ['fixed by the file: {"x0": 1.0}', "1 one: x3"]
    status, _, err = icbs("solve", path, "--cardinality", 3)
    assert status == 1
    assert err == (
        "icbs: a.lp says 2 ones and --cardinality is 3: leave --cardinality out, it is for files "
        "that do not say\n"
    )


def test_names_do_not_reach_the_terminal_as_they_are(icbs, tmp_path):
    labels = ["\x1b[31mred", "plain"]
    problem = CardinalityProblem(
        linear=np.zeros(2), cardinality=2, factor=np.ones((1, 2)), labels=labels
    )
    path = save(problem, tmp_path / "a.block.safetensors")
    out = icbs("solve", path, "--solver", "enumerate")[1]
    assert out.splitlines()[-1] == "2 ones: '\\x1b[31mred', plain"
    answer = json.loads(icbs("solve", path, "--solver", "enumerate", "--json")[1])
    assert (answer["names"], answer["fixed"]) == (labels, {})


def test_export_solve_bench_report(icbs, model_folder, tmp_path):
    """The whole path on a small model."""
    blocks = tmp_path / "blocks"
    status, out, err = icbs(*export_arguments(model_folder, blocks, format="bqm,lp,ubqp,qubo"))
    assert status == 0, err
    containers = sorted(blocks.glob("*.block.safetensors"))
    assert len(containers) == 9 * 2 * 2
    assert len(list(blocks.iterdir())) == len(containers) * 5
    assert len(out.splitlines()) == len(containers) * 5
    problem = load(containers[0])
    assert problem.energy(problem.initial) == 0
    lp = load(containers[0].with_name(containers[0].name.replace(".block.safetensors", ".lp")))
    assert lp.cardinality == problem.cardinality

    small = next(path for path in containers if "-n8-" in path.name)
    status, out, _ = icbs("solve", small, "--solver", "enumerate", "--json")
    answer = json.loads(out)
    assert status == 0
    state = np.isin(np.arange(8), answer["ones"])
    assert load(small).energy(state) == pytest.approx(answer["energy"])
    assert answer["proved_optimal"] is True
    assert "swaps from the current mask" in icbs("solve", small, "--give-initial")[1]

    store = tmp_path / "runs.sqlite"
    bench = ("bench", "--instances", f"{blocks}/*-n8-seq*.block*",
             "--solvers", "greedy,enumerate",
             "--time-limits", "0.01", "--seeds", 1, "--store", store)  # fmt: skip
    assert icbs(*bench)[0] == 0
    count = sqlite3.connect(store).execute("SELECT count(*) FROM runs").fetchone()[0]
    assert count == 9 * 2
    status, _, err = icbs(*bench)
    assert status == 1
    assert "--resume" in err
    assert icbs(*bench, "--resume")[0] == 0
    assert sqlite3.connect(store).execute("SELECT count(*) FROM runs").fetchone()[0] == count

    status, out, err = icbs("report", store, "--out", tmp_path / "page")
    assert status == 0, err
    assert (tmp_path / "page" / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"layers": "*.nothing"}, 2, "nothing"),
        ({"density": 0}, 2, "density is 0"),
        ({"density": 1}, 2, "density is 1"),
        ({"density": 1.5}, 2, "density is 1.5"),
        ({"sizes": "100000"}, 2, "does not fit"),
        ({"sizes": "x"}, 2, "--sizes"),
        ({"sizes": "0"}, 2, "--sizes"),
        ({"fisher": "kronecker"}, 2, "kronecker"),
        ({"format": "csv"}, 2, "csv"),
        ({"data": "/no/such/file"}, 1, "/no/such/file"),
        ({"count": 100000}, 1, "tokens"),
    ],
)
def test_export_refuses(icbs, model_folder, tmp_path, change, status, words):
    got, _, err = icbs(*export_arguments(model_folder, tmp_path / "blocks", **change))
    assert got == status
    assert words in err
    assert not (tmp_path / "blocks").exists()


def test_export_of_no_model(icbs, tmp_path, model_folder, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    arguments = export_arguments(model_folder, tmp_path / "blocks")
    arguments[1] = "no-such-model"
    status, _, err = icbs(*arguments)
    assert status == 1
    assert "no-such-model" in err
    assert "smollm2" in err
    assert not (tmp_path / "blocks").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--solver", "anealing"], 2, "not registered"),
        (["--time-limit", "0"], 2, "--time-limit is 0"),
        (["--time-limit", "soon"], 2, "Invalid value for '--time-limit'"),
        (["--solver", "greedy", "--give-initial"], 2, "leave --give-initial out"),
    ],
)
def test_solve_refuses(icbs, block, arguments, status, words):
    got, _, err = icbs("solve", block, *arguments)
    assert got == status
    assert words in err


def test_solve_refuses_bad_files(icbs, block, tmp_path):
    damaged = tmp_path / "b.block.safetensors"
    damaged.write_bytes(block.read_bytes()[:-3])
    assert "truncated" in icbs("solve", damaged)[2]
    damaged.write_bytes(
        block.read_bytes().replace(b'\\"cardinality\\": 4', b'\\"cardinality\\": 5')
    )
    status, _, err = icbs("solve", damaged)
    assert status == 1
    assert "edited" in err or "damaged" in err
    assert "no such file" in icbs("solve", tmp_path / "c.bqm")[2]
    big = CardinalityProblem(linear=np.zeros(30), cardinality=2, factor=np.ones((1, 30)))
    status, _, err = icbs("solve", save(big, tmp_path / "d.block.safetensors"),
                          "--solver", "qaoa-aer")  # fmt: skip
    assert status == 1
    assert "at most 12 variables" in err


def test_bench_refuses(icbs, block, tmp_path):
    store = tmp_path / "runs.sqlite"
    assert icbs("bench")[0] == 2
    assert icbs("bench", "--instances", block, "--solvers", "nobody", "--store", store)[0] in (1, 2)
    status, _, err = icbs("bench", "--instances", tmp_path / "*.none", "--solvers", "greedy",
                          "--store", tmp_path / "other.sqlite")  # fmt: skip
    assert status == 1
    assert "matches no file" in err


def test_unwritable_output(icbs, model_folder, tmp_path):
    file = tmp_path / "file"
    file.write_text("in the way")
    status, _, err = icbs(*export_arguments(model_folder, file / "blocks"))
    assert status == 1
    assert "cannot write" in err
    assert file.read_text() == "in the way"


def test_report_of_nothing(icbs, tmp_path):
    status, _, err = icbs("report", tmp_path / "none.sqlite", "--out", tmp_path / "page")
    assert status == 1
    assert "none.sqlite" in err
    assert not (tmp_path / "page").exists()
    (tmp_path / "text.sqlite").write_text("not a database, but long enough to look like one" * 9)
    status, _, err = icbs("report", tmp_path / "text.sqlite", "--out", tmp_path / "page")
    assert status == 1
    assert "not a store" in err
    assert not (tmp_path / "page").exists()


def test_report_of_an_empty_store(icbs, tmp_path):
    from experiments.store.database import Store

    Store(tmp_path / "empty.sqlite", create=True).close()
    status, _, err = icbs("report", tmp_path / "empty.sqlite", "--out", tmp_path / "page")
    assert status == 1
    assert "empty" in err
    assert not (tmp_path / "page").exists()


@pytest.mark.parametrize("seed", ["-1", "-9999999999999999999"])
def test_seeds_below_0_are_refused(icbs, block, seed):
    for solver in ("annealing", "neal", "qaoa-aer"):
        status, _, err = icbs("solve", block, "--solver", solver, "--seed", seed)
        assert status == 2
        assert f"seed is {seed}, expected a whole number from 0" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["by-size", "--instances", "a"], "--instances is the study's to say"),
        (["by-size", "--solvers", "greedy"], "--solvers is the study's to say"),
        (["by-size", "--time-limits", "1"], "--time-limits is the study's to say"),
        (["by-size", "--seeds", "3"], "--seeds is the study's to say"),
        (["by-size", "--cardinality", "3"], "--cardinality is the study's to say"),
        (["by-size", "--give-initial"], "--give-initial is the study's to say"),
        (["--instances", "a", "--solvers", "greedy", "--smoke"], "--smoke is the small size"),
    ],
)
def test_options_that_a_study_would_overrule_are_refused(icbs, tmp_path, words, message):
    status, _, err = icbs("bench", *words, "--store", tmp_path / "s.sqlite")
    assert status == 2
    assert message in " ".join(err.replace("\u2502", " ").split())
    assert not (tmp_path / "s.sqlite").exists()


def test_data_has_no_effect_on_tasks(icbs, tmp_path):
    status, _, err = icbs("evaluate", "garment-mlp", "--tasks", tmp_path / "t", "--count", "3")
    assert status == 2
    assert "--count has no effect with --tasks" in err
