"""The runner: honest rows for every kind of solver, resume, interrupts, workers."""

import gc
import math
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from experiments import SolverSpec, Store, Study, load_runs, run
from experiments.errors import StudyError
from experiments.record.ledger import STAGES
from experiments.running.worker import Workbench
from solvers import Budget, make, save
from solvers.base import Solution
from solvers.clock.warmup import tiny_problems
from tests.experiments.factories import rows, same
from tests.study_fixtures import (
    FAULTS,
    Deadly,
    Drawn,
    First,
    Overwriting,
    Proud,
    Slow,
    block,
    spec,
)


def quiet(study, path, **options):
    return run(study, path, progress=False, **options)


def test_every_fault_is_one_honest_row(tmp_path):
    study = Study("faults", [block(10)], [spec(c) for c in (First, *FAULTS)], [0.05], seeds=[0])
    outcome = quiet(study, tmp_path / "s.sqlite")
    assert outcome.counts == {"done": 1, "error": len(FAULTS)}
    frame = load_runs(tmp_path / "s.sqlite").set_index("solver")
    for cls, words in FAULTS.items():
        assert frame.loc[cls.name, "status"] == "error"
        assert words in frame.loc[cls.name, "reason"]
        assert np.isnan(frame.loc[cls.name, "gap"])
    assert frame.loc["first", "status"] == "done"
    assert (frame["reference"] <= frame.loc["first", "energy"]).all()


def test_what_a_row_says(tmp_path):
    problem = block(10, build_seconds=0.25)
    quiet(Study("s", [problem], [spec(Drawn)], [0.1], seeds=[4]), tmp_path / "s.sqlite")
    (row,) = load_runs(tmp_path / "s.sqlite").to_dict("records")
    assert row["reads"] == 4
    assert row["feasible"] == row["raw_feasible"] == 1
    assert row["seed_index"] == 4
    assert row["time_limit"] == 0.1
    assert row["build"] == 0.25
    stages = sum(row[stage] for stage in STAGES)
    assert stages == pytest.approx(row["wall"] + row["build"] + row["score"])
    assert row["cpu"] >= 0
    with Store(tmp_path / "s.sqlite") as store:
        (driver,) = store.invocations()
    assert driver["host"]["cpus"] >= 1
    assert driver["host"]["packages"]["dimod"]
    assert driver["cells"] == 1


def test_penalised_rows_keep_raw_and_repaired(tmp_path):
    study = Study("s", [block(12)], ["random"], [{"reads": 20}], seeds=[0])  # type: ignore[list-item]
    quiet(study, tmp_path / "s.sqlite")
    (row,) = load_runs(tmp_path / "s.sqlite").to_dict("records")
    assert row["reads"] == 20
    assert row["feasible"] == 1
    assert row["raw_feasible"] < 1
    assert row["track"] == "penalised"


def test_incumbent_only_when_the_study_says_so(tmp_path):
    for give in (False, True):
        study = Study("s", [block(10)], [spec(Drawn), spec(First)], [0.1], seeds=[0],
                      give_initial=give)  # fmt: skip
        quiet(study, tmp_path / "s.sqlite")
    frame = load_runs(tmp_path / "s.sqlite")
    got = frame[frame["received_start"]]
    assert got["solver"].tolist() == ["drawn"]
    assert got["give_initial"].all()
    assert frame["give_initial"].sum() == 2


def test_solvers_see_neither_incumbent_nor_origin(tmp_path):
    class Curious(First):
        name = "curious"

        def _solve(self, problem, request):
            assert problem.initial is None
            assert problem.indices is None
            assert not problem.meta
            return super()._solve(problem, request)

    outcome = quiet(Study("s", [block(10)], [spec(Curious)], seeds=[0]), tmp_path / "s.sqlite")
    assert outcome.counts == {"done": 1}


def test_late_is_timeout_and_keeps_its_energy(tmp_path):
    quiet(Study("s", [block(10)], [spec(Slow)], [0.05], seeds=[0]), tmp_path / "s.sqlite")
    (row,) = load_runs(tmp_path / "s.sqlite").to_dict("records")
    assert row["status"] == "timeout"
    assert "limit of 0.05 s" in row["reason"]
    assert row["energy"] is not None


def test_wrong_proofs_are_struck_out(tmp_path):
    quiet(
        Study("s", [block(10)], [spec(Proud), "greedy"], [0.05], seeds=[0]), tmp_path / "s.sqlite"
    )
    frame = load_runs(tmp_path / "s.sqlite")
    assert (frame["refuted"] == "bound of proud, proof of proud").all()


def test_callback_arrays_are_copied(tmp_path):
    quiet(Study("s", [block(30)], [spec(Overwriting)], [0.1], seeds=[0]), tmp_path / "s.sqlite")
    with Store(tmp_path / "s.sqlite") as store:
        curve = store.incumbents()
    first = block(30).energy(np.arange(30) < 15)
    assert curve["energy"].iloc[0] == pytest.approx(float(first))
    assert (curve["energy"].diff().dropna() < 0).all()


def test_too_large_is_skipped_with_a_reason(tmp_path):
    study = Study(
        "s", [block(30)], ["enumerate", SolverSpec("greedy", max_variables=20)], [0.1], seeds=[0]
    )
    assert quiet(study, tmp_path / "s.sqlite").counts == {"skipped": 2}
    reasons = set(load_runs(tmp_path / "s.sqlite")["reason"])
    assert reasons == {
        "n = 30: enumerate takes at most 24 variables",
        "n = 30: the study limits greedy to 20 variables",
    }


def test_what_is_loaded_is_left_out_of_garbage_collections_during_a_call_only(tmp_path):
    class Collecting(First):
        name = "collecting"
        frozen: list[int] = []  # noqa: RUF012

        def _solve(self, problem, request):
            self.frozen.append(gc.get_freeze_count())
            if problem.n == 11:
                raise ValueError("no")
            return super()._solve(problem, request)

    study = Study("s", [block(10), block(11)], [spec(Collecting)], seeds=[0])
    assert gc.get_freeze_count() == 0
    quiet(study, tmp_path / "s.sqlite")
    assert gc.get_freeze_count() == 0
    # Four calls of warm-up, then those that count.
    assert Collecting.frozen[:4] == [0] * 4
    assert min(Collecting.frozen[4:]) > 10_000
    gc.freeze()
    try:
        before = gc.get_freeze_count()
        quiet(study, tmp_path / "t.sqlite")
        assert gc.get_freeze_count() >= before - 1000
    finally:
        gc.unfreeze()


def test_warm_up_is_outside_the_clock(tmp_path, monkeypatch):
    # Or so long a call would be made again.
    monkeypatch.setattr("experiments.warmup.LONG", math.inf)

    class Compiling(First):
        name = "compiling"
        sizes: list[int] = []  # noqa: RUF012

        def _solve(self, problem, request):
            if not self.sizes:
                time.sleep(1.0)
            self.sizes.append(problem.n)
            return super()._solve(problem, request)

    study = Study("s", [block(10), block(12)], [spec(Compiling)], seeds=[0, 1])
    quiet(study, tmp_path / "s.sqlite")
    assert Compiling.sizes[0] == 8
    assert sorted(Compiling.sizes) == [8, 8, 8, 8, 10, 10, 12, 12]
    assert load_runs(tmp_path / "s.sqlite")["wall"].max() < 1.0


def test_warm_up_goes_on_until_nothing_is_compiled(monkeypatch):
    """A call that waited for a compiler is made again; a solver that is always slow is let be."""
    clock = SimpleNamespace(now=0.0, perf_counter=lambda: clock.now)

    class Compiling(First):
        name = "compiling"
        slow = 0
        waits: list[float] = []  # noqa: RUF012

        def _solve(self, problem, request):
            self.waits.append(0.6 if len(self.waits) < self.slow else 0.4)
            clock.now += self.waits[-1]
            return super()._solve(problem, request)

    monkeypatch.setattr("experiments.warmup.time", clock)
    for slow, calls in ((0, 4), (1, 5), (100, 2)):
        Compiling.slow, Compiling.waits = slow, []
        Workbench().warm_up(spec(Compiling), block(10))
        assert len(Compiling.waits) == calls


def test_exact_comes_to_its_search_in_the_warm_up():
    """Or its first row of a study would wait for the compiler of what the search calls."""
    nodes = [
        make("exact").sample_problem(tiny, budget=Budget(time_limit=5.0)).info["nodes"]
        for tiny in tiny_problems(8, 4, dense=False)
    ]
    assert max(nodes) > 0


def test_warm_up_by_size():
    class Circuit(First):
        name = "circuit"
        warm_up_by_size = True
        seen: list[tuple[int, int]] = []  # noqa: RUF012

        def _solve(self, problem, request):
            self.seen.append((problem.n, problem.cardinality))
            return super()._solve(problem, request)

    bench, one = Workbench(), spec(Circuit)
    for n, k in ((10, 5), (10, 5), (10, 4), (12, 6)):
        bench.warm_up(one, block(n, k=k))
    assert Circuit.seen == [(10, 5), (10, 4), (12, 6)]


def test_warm_up_by_size_has_the_groups_of_the_problem():
    class Circuit(First):
        name = "circuit"
        warm_up_by_size = True
        takes_groups = True
        seen: list[tuple[list[int], list[int]]] = []  # noqa: RUF012

        def _solve(self, problem, request):
            sizes = [len(part) for part in problem.members]
            self.seen.append((sizes, problem.group_ones.tolist()))
            return Solution(problem.random_state(request.rng)[None])

    def grouped(labels, ones):
        return replace(block(8), initial=None, groups=labels, cardinalities=ones)

    bench, one = Workbench(), spec(Circuit)
    quads, halves = np.repeat([0, 1], 4), np.arange(8) % 2
    for labels, ones in ((quads, [2, 2]), (halves, [2, 2]), (quads, [1, 3]),
                         (np.repeat([0, 1], [2, 6]), [1, 3])):  # fmt: skip
        bench.warm_up(one, grouped(labels, ones))
    assert Circuit.seen == [([4, 4], [2, 2]), ([4, 4], [1, 3]), ([2, 6], [1, 3])]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"solvers": ["nonsense"]}, "'nonsense' is not registered"),
        ({"solvers": [SolverSpec("neal", options={"penalty": -1})]}, "penalty is -1"),
        ({"solvers": [SolverSpec("greedy", options={"speed": 1})]}, "argument"),
        ({"instances": ["no/such.block.safetensors"]}, "no such file"),
        ({"instances": ["no/such/*.block.safetensors"]}, "matches no file"),
    ],
)
def test_broken_set_up_stops_at_once(tmp_path, changes, message):
    given = {"name": "s", "instances": [block()], "solvers": ["greedy"]} | changes
    with pytest.raises(StudyError, match=message):
        quiet(Study(**given), tmp_path / "s.sqlite")


def test_damaged_instance_stops_at_once(tmp_path):
    path = save(block(), tmp_path / "a.block.safetensors")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(StudyError, match=r"a\.block\.safetensors"):
        quiet(Study("s", [path], ["greedy"]), tmp_path / "s.sqlite")


def test_degenerate_instances(tmp_path):
    blocks = [block(6, k=0), block(6, k=6), block(1, k=1), block(9, dense=True)]
    study = Study("s", blocks, ["greedy", "relaxation", "neal"], [0.02], seeds=[0])
    assert quiet(study, tmp_path / "s.sqlite").counts == {"done": 12}
    frame = load_runs(tmp_path / "s.sqlite")
    flat = frame[frame["k"].isin([0, 6]) | (frame["n"] == 1)]
    assert flat["flat"].all()
    assert flat["gap"].isna().all()
    assert (flat["tag"] == "exact").all()


def plan(**changes):
    given = {
        "name": "s", "instances": [block(n, seed=s) for n in (8, 12) for s in (0, 1)],
        "solvers": ["greedy", "relaxation", spec(Drawn)], "budgets": [10.0], "seeds": [0, 1],
    }  # fmt: skip
    return Study(**(given | changes))


def test_same_study_same_rows(tmp_path):
    quiet(plan(), tmp_path / "a.sqlite")
    quiet(plan(), tmp_path / "b.sqlite")
    same(rows(tmp_path / "a.sqlite"), rows(tmp_path / "b.sqlite"))


def test_resume_runs_only_what_is_missing(tmp_path):
    quiet(plan(seeds=[0]), tmp_path / "a.sqlite")
    outcome = quiet(plan(), tmp_path / "a.sqlite")
    assert outcome.resumed == outcome.counts["done"] == 12
    assert quiet(plan(), tmp_path / "a.sqlite").counts == {}
    quiet(plan(), tmp_path / "b.sqlite")
    same(rows(tmp_path / "a.sqlite"), rows(tmp_path / "b.sqlite"))
    with Store(tmp_path / "a.sqlite") as store:
        assert len(store.invocations()) == 2


def test_interrupt_finishes_the_cell_and_resumes(tmp_path, capsys):
    class Interrupting(Drawn):
        name = "drawn"
        calls = 0

        def _solve(self, problem, request):
            type(self).calls += 1
            if self.calls == 4:
                os.kill(os.getpid(), signal.SIGINT)
            return super()._solve(problem, request)

    before = signal.getsignal(signal.SIGINT)
    path = tmp_path / "a.sqlite"
    solvers = ["greedy", "relaxation", SolverSpec("drawn", sampler=Interrupting())]
    outcome = run(plan(solvers=solvers), path)
    assert outcome.interrupted
    assert outcome.remaining + outcome.counts["done"] == 24
    assert "to resume" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is before
    assert quiet(plan(), path).resumed == outcome.counts["done"]
    quiet(plan(), tmp_path / "b.sqlite")
    same(rows(path), rows(tmp_path / "b.sqlite"))


def test_another_executor(tmp_path):
    with ThreadPoolExecutor(1) as pool:
        quiet(plan(), tmp_path / "a.sqlite", executor=pool)
    quiet(plan(), tmp_path / "b.sqlite")
    same(rows(tmp_path / "a.sqlite"), rows(tmp_path / "b.sqlite"))


def test_two_workers_and_one_that_dies(tmp_path):
    solvers = ["greedy", spec(Drawn), spec(Deadly)]
    instances = [block(8), block(12)]
    both = plan(solvers=solvers, instances=instances)
    outcome = quiet(both, tmp_path / "a.sqlite", workers=2)
    assert outcome.counts == {"done": 10, "error": 2}
    frame = load_runs(tmp_path / "a.sqlite")
    dead = frame[frame["status"] == "error"]
    assert set(dead["reason"]) == {"the worker process died (exit status 9), twice"}
    assert set(dead["n"]) == {12}
    quiet(plan(solvers=solvers[:2], instances=instances), tmp_path / "b.sqlite")
    alive = rows(tmp_path / "a.sqlite").query("solver != 'deadly'")
    columns = ["key", "energy", "seed", "status", "gap"]
    same(alive[columns].reset_index(drop=True), rows(tmp_path / "b.sqlite")[columns])


@pytest.mark.slow
def test_kill_9_of_the_driver_then_resume(tmp_path):
    path = tmp_path / "a.sqlite"
    code = (
        "import sys; from experiments import run;"
        "from tests.experiments.test_runner import slow_plan;"
        "run(slow_plan(), sys.argv[1], progress=False)"
    )
    root = Path(__file__).parents[2]
    for wanted in (3, 7):
        driver = subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=root)
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and driver.poll() is None:
            if path.exists() and finished(path) >= wanted:
                break
            time.sleep(0.005)
        driver.kill()
        driver.wait()
    survived = finished(path)
    assert 7 <= survived < 32
    outcome = quiet(slow_plan(), path)
    assert outcome.resumed == survived
    assert outcome.counts["done"] == 32 - survived
    quiet(slow_plan(), tmp_path / "b.sqlite")
    same(rows(path), rows(tmp_path / "b.sqlite"))
    with Store(path) as store:
        assert store._rows("PRAGMA integrity_check") == [("ok",)]


class Pausing(Drawn):
    name = "pausing"

    def _solve(self, problem, request):
        time.sleep(0.03)
        return super()._solve(problem, request)


def slow_plan():
    return plan(solvers=[spec(Pausing)], seeds=range(8))


def finished(path):
    try:
        with Store(path) as store:
            return len(store.runs())
    except Exception:  # the driver is just making it
        return 0


def test_workers_must_be_at_least_one(tmp_path):
    with pytest.raises(StudyError, match="workers is 0"):
        run(plan(), tmp_path / "s.sqlite", workers=0)
