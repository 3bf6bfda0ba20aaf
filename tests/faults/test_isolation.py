"""Whatever a solver does to its process: one honest row, and the other rows as without it."""

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from experiments import Store, Study, load_runs, run
from experiments.errors import StudyError
from experiments.running.pool import WorkerPool
from tests.faults.kills import rows
from tests.faults.solvers import (
    LOG,
    Crashing,
    Exiting,
    Gripping,
    Hanging,
    Lasting,
    Leaking,
    Quitting,
    Telling,
)
from tests.study_fixtures import FAULTS, Drawn, First, block, spec

DEADLY = {
    Hanging: ("timeout", "no answer after {wall:.3g} s, killed; the limit is 0.01 s"),
    Gripping: ("timeout", "no answer after {wall:.3g} s, killed; the limit is 0.01 s"),
    Leaking: ("error", "MemoryError"),
    Crashing: ("error", "the worker process died (signal 11), twice"),
    Exiting: ("error", "the worker process died (exit status 0), twice"),
    Quitting: ("error", "the worker process died (exit status 3), twice"),
}
ROOT = Path(__file__).parents[2]


def check_faults(path, sizes=(10, 12), **where):
    """Runs every misbehaving solver beside two good ones, and compares these with a quiet study."""
    good = [spec(First), spec(Drawn)]
    blocks = [block(n) for n in sizes]
    bad = [spec(cls) for cls in (*DEADLY, *FAULTS)]
    both = Study("faults", blocks, [good[0], *bad, good[1]], [0.01], seeds=[0])
    outcome = run(both, path, progress=False, **where)
    frame = load_runs(path)
    assert len(frame) == len(blocks) * (len(bad) + 2) == sum(outcome.counts.values())
    for cls, (status, words) in DEADLY.items():
        found = frame[frame["solver"] == cls.name]
        assert set(found["status"]) == {status}
        for reason, wall in zip(found["reason"], found["wall"], strict=True):
            assert words.format(wall=wall) in reason
            # Twice the limit, two seconds more, and what the machine takes for a kill.
            assert status != "timeout" or wall >= 2
        assert found["energy"].isna().all()
    for cls, words in FAULTS.items():
        found = frame[frame["solver"] == cls.name]
        assert set(found["status"]) == {"error"}
        # TooShort says how many it returned: 9 of 10, 11 of 12.
        reasons = found["reason"].str.replace("returned 11", "returned 9")
        assert reasons.str.contains(words, regex=False).all(), reasons.tolist()
    quiet = path.with_name("quiet.sqlite")
    run(Study("quiet", blocks, good, [0.01], seeds=[0]), quiet, progress=False)
    beside = rows(path)
    beside = beside[beside["solver"].isin(["first", "drawn"])].reset_index(drop=True)
    columns = ["key", "solver", "seed", "status", "reason", "energy", "reads", "feasible"]
    # Beside rows without reads the column is one of floats.
    alone = rows(quiet).astype({"reads": float})
    assert beside[columns].to_csv() == alone[columns].to_csv()


def test_every_misbehaving_solver_is_one_honest_row(tmp_path):
    check_faults(tmp_path / "s.sqlite", sizes=(10,), workers=2, memory=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_whatever_the_start_method(tmp_path, method):
    code = (
        "import sys; from pathlib import Path; from experiments.running.pool import WorkerPool\n"
        "from tests.faults.test_isolation import check_faults\n"
        "if __name__ == '__main__':\n"
        f"    with WorkerPool(1, {method!r}) as pool:\n"
        "        check_faults(Path(sys.argv[1]), executor=pool, memory=0.5)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, script, tmp_path / "s.sqlite"], env=environment, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_one_worker_of_its_own(tmp_path):
    check_faults(tmp_path / "s.sqlite", isolate=True, memory=0.5)


def test_memory_limit_in_this_process(tmp_path):
    study = Study("s", [block(10)], [spec(Leaking), spec(First)], [0.01], seeds=[0])
    assert run(study, tmp_path / "s.sqlite", memory=0.3, progress=False).counts == {
        "error": 1, "done": 1,
    }  # fmt: skip


def test_clock_that_jumps_back(tmp_path, monkeypatch):
    jumps = iter(range(10**6))

    class Backwards(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2000, 1, 1, tzinfo=UTC)

    monkeypatch.setattr(time, "time", lambda: 1e9 - 3600 * next(jumps))
    monkeypatch.setattr("experiments.running.worker.datetime", Backwards)
    study = Study("s", [block(10)], [spec(Drawn), spec(First)], [0.5], seeds=[0, 1])
    assert run(study, tmp_path / "a.sqlite", progress=False).counts == {"done": 4}
    frame = load_runs(tmp_path / "a.sqlite")
    assert ((frame["wall"] > 0) & (frame["wall"] < 0.5)).all()
    with Store(tmp_path / "a.sqlite") as store:
        assert (store.incumbents()["seconds"] >= 0).all()
    monkeypatch.undo()
    run(study, tmp_path / "b.sqlite", progress=False)
    assert rows(tmp_path / "a.sqlite").to_csv() == rows(tmp_path / "b.sqlite").to_csv()


def test_a_broken_set_up_of_workers_stops_at_once(tmp_path):
    with WorkerPool(1) as pool:
        with pytest.raises(ZeroDivisionError):
            pool.submit(divmod, 1, 0).result()
        with pytest.raises((AttributeError, TypeError), match=r"pickle|local"):
            pool.submit(lambda: 1).result()
        assert pool.submit(divmod, 7, 2).result() == (3, 1)


def test_impossible_combinations(tmp_path):
    study = Study("s", [block(10)], [spec(First)])
    with pytest.raises(StudyError, match="memory is -1"):
        run(study, tmp_path / "s.sqlite", memory=-1)
    with pytest.raises(StudyError, match="brings its own workers"):
        run(study, tmp_path / "s.sqlite", scheduler="tcp://127.0.0.1:1", workers=2)


def interrupted(tmp_path, solver, workers, times):
    """A driver that gets Ctrl-C so many times once its first cell runs."""
    code = (
        "import sys; from experiments import run; from tests.faults import test_isolation as t\n"
        "if __name__ == '__main__':\n"
        f"    run(t.long_study({solver!r}), sys.argv[1], workers={workers})\n"
    )
    script, path, log = tmp_path / "script.py", tmp_path / "s.sqlite", tmp_path / "log"
    script.write_text(code)
    environment = os.environ | {"PYTHONPATH": str(ROOT), LOG: str(log)}
    driver = subprocess.Popen(
        [sys.executable, script, path], env=environment, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 300
    while not (log.exists() and log.read_text().count("S") >= workers):
        assert time.monotonic() < deadline and driver.poll() is None
        time.sleep(0.02)
    for _ in range(times):
        driver.send_signal(signal.SIGINT)
        time.sleep(0.2)
    start = time.monotonic()
    _, said = driver.communicate(timeout=300)
    processes = {int(line.split()[1]) for line in log.read_text().splitlines()}
    return path, said, driver.returncode, time.monotonic() - start, processes


def long_study(name):
    solver = {"telling": Telling, "lasting": Lasting}[name]
    return Study("s", [block(12)], [spec(solver)], [100.0], seeds=range(300))


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_interrupt_once_writes_what_runs_and_says_how_to_resume(tmp_path, workers):
    path, said, status, _, _ = interrupted(tmp_path, "telling", workers, 1)
    assert status == 0
    with Store(path) as store:
        written = len(store.runs())
    assert 0 < written < 300
    assert f"Interrupted: {300 - written} cells are left" in said
    assert "--resume" in said
    started = [line for line in (tmp_path / "log").read_text().splitlines() if line[0] == "S"]
    assert len(started) == written


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_interrupt_twice_stops_at_once(tmp_path, workers):
    path, said, status, seconds, processes = interrupted(tmp_path, "lasting", workers, 2)
    assert status != 0
    assert seconds < 10
    assert "Stopped at once" in said
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)
    with Store(path, create=True) as store:
        assert store._rows("PRAGMA integrity_check") == [("ok",)]


@pytest.mark.slow
def test_workers_die_with_a_killed_driver(tmp_path):
    code = (
        "import sys; from experiments import run; from tests.faults import test_isolation as t\n"
        "if __name__ == '__main__':\n"
        "    run(t.long_study('lasting'), sys.argv[1], workers=2, progress=False)\n"
    )
    script, log = tmp_path / "script.py", tmp_path / "log"
    script.write_text(code)
    environment = os.environ | {"PYTHONPATH": str(ROOT), LOG: str(log)}
    driver = subprocess.Popen([sys.executable, script, tmp_path / "s.sqlite"], env=environment)
    deadline = time.monotonic() + 300
    while not (log.exists() and log.read_text().count("S") == 2):
        assert time.monotonic() < deadline and driver.poll() is None
        time.sleep(0.02)
    driver.kill()
    driver.wait()
    workers = [int(line.split()[1]) for line in log.read_text().splitlines()]
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.02)
