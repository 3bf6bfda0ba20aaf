"""Reference results: made, drawn again, checked; every tolerance of the check broken once."""

import json
from pathlib import Path

import pandas as pd
import pytest

from experiments import Study, load_runs, run
from experiments.scripts.results import committed, main
from experiments.scripts.results_check import BLOCK, ENERGY, GAP, LOSS, compare
from experiments.study.paths import study_path
from icbs.data.fashion_mnist import EMBEDDED
from tests.experiments.factories import rows, same


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The small penalty study: budgets of reads, so that a new run is the same to the bit."""
    folder = tmp_path_factory.mktemp("reference")
    options = ["--smoke", "--out", str(folder / "out"), "--stores", str(folder / "stores")]
    # On the images that come along, whatever else this machine has.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ICBS_SYSTEM_DATA", "")
        assert main(["penalty", *options]) == 0
        yield folder, options


def test_what_is_kept(made):
    folder, options = made
    out = folder / "out" / "penalty"
    runs = pd.read_parquet(out / "runs.parquet")
    assert len(runs) == len(load_runs(folder / "stores" / "penalty.sqlite"))
    assert {"key", "energy", "gap", "tag", "info"} <= set(runs)
    assert "state" not in runs
    about = json.loads((out / "run.json").read_text())
    assert about["command"] == "python -m experiments.scripts.results penalty --smoke"
    assert about["seconds"] > 0
    assert about["cells"] == {"done": len(runs)}
    assert about["data"] == [EMBEDDED, "wikipedia"]  # of the model's blocks, of the library's
    assert {"cpu", "memory_gib", "packages"} <= set(about["host"])
    assert "load" in about
    assert {"penalty.svg", "penalty.png", "hardness.svg"} <= {p.name for p in out.iterdir()}
    assert sum(p.stat().st_size for p in out.glob("*.parquet")) < 1e6
    drawn = (out / "penalty.svg").read_bytes()
    assert main(["penalty", *options]) == 0
    assert (out / "penalty.svg").read_bytes() == drawn
    assert json.loads((out / "run.json").read_text())["seconds"] == about["seconds"]


def test_a_study_that_needs_the_full_set_says_how_to_get_it(made, tmp_path, capsys):
    assert main(["loop", "--out", str(tmp_path), "--stores", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "has 4000 images for calibration, 5120 from number 0 on" in said
    assert "apt-get install dataset-fashion-mnist" in said


def test_check_runs_anew_and_passes(made, capsys):
    folder, options = made
    assert main(["penalty", "--check", *options]) == 0
    assert not (folder / "stores" / "penalty-check.sqlite").exists()
    printed = capsys.readouterr().out
    assert "energy, no time limit" in printed
    assert "BREACH" not in printed


def test_check_fails_on_a_tampered_reference(made, tmp_path, capsys):
    folder, options = made
    kept = folder / "out" / "penalty" / "runs.parquet"
    runs = pd.read_parquet(kept)
    runs.loc[0, "energy"] += 1e-6 * runs.loc[0, "magnitude"]
    (tmp_path / "penalty").mkdir()
    runs.to_parquet(tmp_path / "penalty" / "runs.parquet")
    assert main(["penalty", "--check", *options, "--out", str(tmp_path)]) == 1
    assert "BREACH" in capsys.readouterr().out
    assert main(["ladder", "--check", *options, "--out", str(tmp_path)]) == 1
    assert "holds no reference" in capsys.readouterr().err


def frames():
    """Two solvers on one block, by reads and by time; loops of two contestants; two methods."""
    runs = pd.DataFrame(
        [
            {"key": f"{solver}{limit}{seed}", "solver": solver, "instance": "i", "seed_index": seed,
             "instance_name": "block", "model": "m", "density": 0.5, "step": 1, "options": "{}",
             "track": "native", "give_initial": False, "budget": str(limit), "time_limit": limit,
             "status": "done", "magnitude": 4.0, "random_energy": 1.0, "energy": -2.0,
             "gap": 0.01 * seed, "wall": 0.1}
            for solver in ("a", "b") for limit in (float("nan"), 0.1, 0.5) for seed in range(3)
        ]
    )  # fmt: skip
    loops = pd.DataFrame(
        [{"model": "m", "contestant": who, "step": step, "seed": seed, "loss": 1.0 - 0.1 * step}
         for who in ("a", "b") for step in (0, 1) for seed in (0, 1)]
    )  # fmt: skip
    methods = pd.DataFrame(
        [{"model": "m", "density": 0.5, "method": method, "steps": steps, "loss": 1.0}
         for method, steps in (("wanda", None), ("icbs", 1), ("icbs", 3))]
    )  # fmt: skip
    return {"runs": runs, "trajectories": loops, "methods": methods}


def change(table, rows, column, by):
    def tamper(new):
        place = new[table].query(rows).index
        old = new[table].loc[place, column]
        new[table].loc[place, column] = by if isinstance(by, str) else old + by

    return tamper


def drop(table, rows):
    def tamper(new):
        new[table] = new[table].drop(new[table].query(rows).index).reset_index(drop=True)

    return tamper


def forget(table):
    return lambda new: new.pop(table)


def on_another_machine(then):
    """Blocks of other bits, and then a change."""

    def tamper(new):
        new["runs"]["instance"] = "j"
        then(new)

    return tamper


ALL_BY_READS = "solver == 'b' and time_limit != time_limit"
BY_READS = "solver == 'b' and time_limit != time_limit and seed_index == 1"
BY_TIME = "solver == 'b' and time_limit == 0.5"
FAULTS = [
    (drop("runs", BY_READS), "cells"),
    (on_another_machine(change("runs", ALL_BY_READS, "gap", 1.01 * GAP)), "median gap, other bits"),
    (on_another_machine(change("runs", BY_READS, "status", "timeout")), "status, no time limit"),
    (on_another_machine(change("runs", BY_READS, "magnitude", 4 * 1.01 * BLOCK)), "blocks"),
    (on_another_machine(change("runs", BY_READS, "random_energy", 4 * 1.01 * BLOCK)), "blocks"),
    (on_another_machine(change("runs", BY_READS, "magnitude", float("nan"))), "blocks"),
    (change("runs", BY_READS, "energy", 4 * 1.01 * ENERGY), "energy, no time limit"),
    (change("runs", BY_READS, "energy", float("nan")), "energy, no time limit"),
    (change("runs", BY_READS, "gap", 1.01 * ENERGY), "gap, no time limit"),
    (change("runs", BY_READS, "status", "timeout"), "status, no time limit"),
    (change("runs", f"{BY_TIME} and seed_index == 1", "status", "error"), "skips and errors"),
    (change("runs", BY_TIME, "gap", 1.01 * GAP), "median gap, time limit"),
    (change("runs", BY_TIME, "gap", float("nan")), "median gap, time limit"),
    (change("trajectories", "contestant == 'a' and step == 1", "loss", 1.2 * LOSS),
     "trajectories: loss at the end"),
    (drop("trajectories", "contestant == 'a'"), "trajectories: groups"),
    (forget("trajectories"), "trajectories: tables"),
    (change("methods", "steps == 3", "loss", 1.2 * LOSS), "methods: loss at the end"),
    (drop("methods", "method == 'wanda'"), "methods: groups"),
]  # fmt: skip
HARMLESS = [
    lambda new: None,
    change("runs", BY_READS, "energy", 4 * 0.9 * ENERGY),
    change("runs", BY_TIME, "gap", 0.99 * GAP),
    on_another_machine(change("runs", "wall > 0", "energy", 1e-6)),
    on_another_machine(change("runs", "wall > 0", "random_energy", 4 * 0.9 * BLOCK)),
    on_another_machine(change("runs", ALL_BY_READS, "gap", 0.99 * GAP)),
    change("runs", BY_TIME, "energy", 0.01),
    change("runs", "time_limit == 0.1", "gap", 0.5),
    change("runs", f"{BY_TIME} and seed_index == 1", "status", "timeout"),
    change("runs", "wall > 0", "wall", 5.0),
    change("trajectories", "step == 0", "loss", 1.0),
    change("methods", "steps == 1", "loss", 1.0),
]


@pytest.mark.parametrize(("fault", "what"), FAULTS)
def test_every_breach_is_named(fault, what):
    new = frames()
    fault(new)
    assert what in {finding.what for finding in compare(frames(), new) if finding.breach}
    assert what in {finding.what for finding in compare(new, frames()) if finding.breach}


@pytest.mark.parametrize("change", HARMLESS)
def test_what_the_machine_decides_is_no_breach(change):
    new = frames()
    change(new)
    assert [str(f) for f in compare(frames(), new) if f.breach] == []


def test_a_packaged_study_on_workers_and_after_an_interruption(made, tmp_path):
    """The same rows but for timings, whoever ran them and in however many goes."""
    folder, _ = made
    one = folder / "stores" / "penalty.sqlite"
    study = Study.from_toml(study_path("penalty"), smoke=True)
    run(study, tmp_path / "two.sqlite", workers=2, progress=False)
    same(rows(one), rows(tmp_path / "two.sqlite"))
    part = Study(**{**vars(study), "solvers": study.specs[1:]})
    run(part, tmp_path / "resumed.sqlite", progress=False)
    assert run(study, tmp_path / "resumed.sqlite", progress=False).resumed > 0
    same(rows(one), rows(tmp_path / "resumed.sqlite"))


def test_tables_of_before_are_read_under_the_present_names():
    runs = committed(Path(__file__).parents[2] / "results" / "studies" / "penalty")["runs"]
    assert set(runs["track"]) == {"native", "penalised"}
    assert not {"lane", "received_incumbent"} & set(runs)
    assert not [one for one in compare({"runs": runs}, {"runs": runs}) if one.breach]
