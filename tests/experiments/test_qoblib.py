"""Results as QOBLIB takes them: what is written is what the store holds."""

import csv
import gzip
import json
import sqlite3
from contextlib import closing

import numpy as np
import pytest

from experiments import SolverSpec, Store, Study, load_runs, run
from experiments.errors import StoreError
from experiments.metrics.qoblib import COLUMNS, THRESHOLD, Submitter, _paradigm, submit
from tests.study_fixtures import First, block, spec

ME = Submitter("J. Doe, R. Roe", "X, Y", "https://example.org/runs")
MADE = [block(8), block(8, seed=1), block(12, dense=True)]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qoblib")
    solvers = ["enumerate", "descent", "neal", spec(First)]
    study = Study("q", MADE, solvers, [0.02], seeds=[0, 1])
    run(study, folder / "s.sqlite", progress=False)
    return folder / "s.sqlite", submit(folder / "s.sqlite", folder / "out", ME)


def summary(folder):
    with (folder / f"{folder.name}_summary.csv").open(newline="") as file:
        reader = csv.DictReader(file)
        (row,) = reader
        return list(reader.fieldnames), row


def test_a_folder_each_with_the_columns_in_order(written):
    _, folders = written
    assert len(folders) == len(set(folders)) == 3 * 4
    for folder in folders:
        names, row = summary(folder)
        assert tuple(names) == COLUMNS
        assert len(names) == 30
        assert row["Problem"] == folder.name
        assert row["Submitter"] == ME.name
        assert row["# Runs"] == "2"
        assert row["Paradigm"] == "Classical"
        for number in ("Total Runtime", "CPU Runtime", "Time to Solution"):
            assert float(row[number]) >= 0


def test_energies_and_bounds_are_those_of_the_store(written):
    path, folders = written
    runs = load_runs(path)
    problems = {problem.content_hash: problem for problem in MADE}
    seen = set()
    for (instance, solver), group in runs.groupby(["instance", "solver"]):
        (folder,) = (
            f for f in folders if f.parent.name.startswith(f"{solver}-")
            and f.name.startswith(group["instance_name"].iloc[0])
        )  # fmt: skip
        seen.add(folder)
        _, row = summary(folder)
        best = group["energy"].min()
        assert float(row["Best Objective Value"]) == best
        bits = (folder / f"{folder.name}_solution.sol").read_text().strip()
        problem = problems[instance]
        state = np.array([bit == "1" for bit in bits])
        assert problem.is_feasible(state)
        assert float(problem.energy(state)) == pytest.approx(best, rel=1e-12)
        if solver == "enumerate":
            assert float(row["Optimality Bound"]) == best
        if solver == "first":
            assert row["Optimality Bound"] == "N/A"
        good = (group["energy"] <= best + THRESHOLD * abs(best)).sum()
        assert int(row["# Successful Runs"]) == good >= 1
        G = problem.gram()
        entries = np.count_nonzero(np.triu(G, 1))
        entries += np.count_nonzero(problem.linear + 0.5 * np.diag(G))
        assert int(row["# Non-Zero Coefficients"]) == entries + problem.n
    assert seen == set(folders)


def test_time_series_fall_and_end_at_the_best(written):
    _, folders = written
    for folder in folders:
        path = folder / f"{folder.name}_objective_time_series.json.gz"
        series = json.loads(gzip.decompress(path.read_bytes()))
        _, row = summary(folder)
        assert len(series) == 2
        ends = []
        for steps in series:
            times = [step["Time"] for step in steps]
            values = [step["Incumbent"] for step in steps]
            assert times == sorted(times)
            assert values == sorted(values, reverse=True)
            ends.append(values[-1])
        assert min(ends) == float(row["Best Objective Value"])


def test_instances_of_one_name_have_folders_of_their_own(tmp_path):
    study = Study("q", [block(8), block(8, curvature=2)], ["greedy"], [0.02], seeds=[0])
    run(study, tmp_path / "s.sqlite", progress=False)
    folders = submit(tmp_path / "s.sqlite", tmp_path / "out", ME)
    assert len({folder.name for folder in folders}) == 2


def test_solvers_whose_folders_would_be_one_are_refused(tmp_path):
    solvers = [SolverSpec("greedy", label="a b"), SolverSpec("descent", label="a:b")]
    run(Study("q", [block(8)], solvers, [0.02], seeds=[0]), tmp_path / "s.sqlite", progress=False)
    with pytest.raises(StoreError, match="two solvers or budgets"):
        submit(tmp_path / "s.sqlite", tmp_path / "out", ME)


def test_a_rehearsal_is_no_hardware():
    device = "arn:aws:braket:us-east-1::device/qpu/x/y"
    for solver, info, word in (
        ("tabu", {}, "Classical"),
        ("qaoa-subspace", {}, "Quantum Simulator"),
        ("qaoa-braket", {"device": device}, "Quantum Hardware"),
        ("qaoa-braket", {"device": device, "rehearsal": True}, "Quantum Simulator"),
        ("qaoa-braket", {"device": "device/quantum-simulator/a"}, "Quantum Simulator"),
        ("qpu", {}, "Quantum Hardware"),
        ("qaoa-xy-ibm", {"device": "ibm_torino", "rehearsal": False}, "Quantum Hardware"),
        ("qaoa-xy-ibm", {"device": "fake_torino", "rehearsal": True}, "Quantum Simulator"),
        ("qpu", {"rehearsal": True}, "Quantum Simulator"),
    ):
        assert _paradigm({"solver_name": solver, "info": json.dumps(info)}) == word
    assert _paradigm({"solver_name": "tabu", "info": None}) == "Classical"
    with pytest.raises(StoreError, match="what a solver said in the store is damaged"):
        _paradigm({"solver_name": "qaoa-braket", "info": "[]"})


def test_a_store_without_feasible_runs_is_refused(tmp_path):
    with Store(tmp_path / "s.sqlite", create=True):
        pass
    with pytest.raises(StoreError, match="no feasible run yet"):
        submit(tmp_path / "s.sqlite", tmp_path / "out", ME)


@pytest.mark.parametrize(
    ("column", "value", "why"),
    [
        ("options", "{", "options in the store is damaged"),
        ("state", b"", "has no state, or it is damaged"),
    ],
)
def test_a_damaged_store_is_told_in_one_sentence(tmp_path, column, value, why):
    path = tmp_path / "s.sqlite"
    run(Study("q", [block(8)], ["greedy"], [0.02], seeds=[0]), path, progress=False)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(f"UPDATE runs SET {column} = ?", (value,))
    with pytest.raises(StoreError, match=why):
        submit(path, tmp_path / "out", ME)


def test_command(icbs, tmp_path, written):
    path, _ = written
    status, out, err = icbs(
        "store", "qoblib", path, "--out", tmp_path / "o", "--submitter", "A", "--affiliation", "B",
        "--reference", "https://example.org",
    )  # fmt: skip
    assert status == 0, err
    assert len(out.split()) == 12
