"""Stores over years, machines and full disks: migration, check, merge, one driver at a time."""

import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from experiments import Store, Study, load_runs, run
from experiments.cli import app
from experiments.errors import StoreError
from experiments.store.check import check
from experiments.store.merge import merge
from experiments.store.schema import APPLICATION_ID, SCHEMA
from experiments.store.shape import former_names
from tests.study_fixtures import block

SCHEMAS = Path(__file__).parents[1] / "schemas"
DATA = Path(__file__).parents[1] / "data"


def study(seeds=(0, 1), sizes=(8, 12)):
    blocks = [block(n) for n in sizes]
    return Study("s", blocks, ["greedy", "enumerate", "neal"], [0.02], seeds=list(seeds))


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    path = tmp_path_factory.mktemp("care") / "s.sqlite"
    run(study(), path, progress=False)
    return path


def edited(path, target, *statements):
    shutil.copy(path, target)
    with sqlite3.connect(target) as db:
        for statement in statements:
            db.execute(statement)
    db.close()
    return target


def of_version(version, filled, path):
    """A store as that version of the schema had it, filled with the same cells."""
    db = sqlite3.connect(path)
    db.executescript((SCHEMAS / f"{version}.sql").read_text())
    db.execute("ATTACH ? AS newer", (str(filled),))
    for table in ("invocations", "instances", "runs", "incumbents", "blobs"):
        names = [row[1] for row in db.execute(f"PRAGMA main.table_info({table})")]
        now = ", ".join(former_names(version).get(name, name) for name in names)
        db.execute(f"INSERT INTO {table} ({', '.join(names)}) SELECT {now} FROM newer.{table}")
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {version}")
    db.commit()
    db.close()
    return path


def test_every_version_has_its_definitions_here(filled):
    versions = sorted(int(path.stem) for path in SCHEMAS.glob("*.sql"))
    assert versions == list(range(1, SCHEMA + 1))
    # The newest are the program's: a change without a new number fails here.
    db = sqlite3.connect(":memory:")
    db.executescript((SCHEMAS / f"{SCHEMA}.sql").read_text())
    now = sqlite3.connect(filled)
    query = "SELECT type, name, sql FROM sqlite_schema ORDER BY name"
    assert db.execute(query).fetchall() == now.execute(query).fetchall()
    db.close()
    now.close()


@pytest.mark.parametrize("version", range(1, SCHEMA + 1))
def test_a_store_of_every_version_is_read_checked_resumed_and_merged(version, filled, tmp_path):
    path = of_version(version, filled, tmp_path / "old.sqlite")
    before = path.read_bytes()
    old, new = load_runs(path), load_runs(filled)
    assert set(old.columns) == set(new.columns)
    for column in ("energy", "track", "received_start"):
        assert old[column].tolist() == new[column].tolist()
    assert check(path).sound
    merged = merge([path, filled], tmp_path / "all.sqlite")
    assert (merged.added, merged.same + len(merged.conflicts)) == (12, 12)
    assert path.read_bytes() == before
    outcome = run(study((0, 1, 2)), path, progress=False)
    assert (outcome.resumed, outcome.counts) == (12, {"done": 6})
    assert check(path).sound
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA,)
    db.close()


def test_a_store_from_before_the_modules_moved_is_read_checked_and_resumed(tmp_path):
    """Filled by 0.1, whose modules had other names."""
    path = tmp_path / "old.sqlite"
    shutil.copy(DATA / "before-0.2" / "store.sqlite", path)
    runs = load_runs(path)
    assert sorted(zip(runs["solver"], runs["n"], strict=True)) == [
        ("descent", 8), ("descent", 12), ("greedy", 8), ("greedy", 12),
    ]  # fmt: skip
    assert set(runs["status"]) == {"done"}
    assert set(runs["track"]) == {"native"}
    assert not runs["received_start"].any()
    assert not {"lane", "received_incumbent"} & set(runs)
    assert check(path).sound
    same = Study("before-the-move", [block(8), block(12)], ["greedy", "descent"], [0.02], seeds=[0])
    outcome = run(same, path, progress=False)
    assert (outcome.resumed, outcome.counts) == (4, {})
    pd.testing.assert_frame_equal(load_runs(path), runs)


def test_columns_of_another_version_are_refused(filled, tmp_path):
    rename = "ALTER TABLE runs RENAME COLUMN {} TO {}"
    path = edited(filled, tmp_path / "new.sqlite", rename.format("track", "lane"))
    with pytest.raises(StoreError, match=r"column runs\.lane is not of one"):
        load_runs(path)
    path = of_version(2, filled, tmp_path / "old.sqlite")
    path = edited(path, tmp_path / "mixed.sqlite", rename.format("lane", "track"))
    with pytest.raises(StoreError, match=r"column runs\.track is not of one"):
        load_runs(path)


def test_check_finds_nothing_wrong(filled):
    found = check(filled)
    assert (found.runs, found.instances, found.rescored, found.faults) == (12, 2, 12, [])
    assert check(filled, sample=5).rescored == 5


def test_check_allows_for_round_off(filled, tmp_path):
    """A batch of states may score otherwise than each state alone, in the last digit."""
    path = edited(
        filled, tmp_path / "e.sqlite", "UPDATE incumbents SET energy = energy * (1 - 1e-15)"
    )
    with Store(filled) as before, Store(path) as after:
        assert (before.incumbents()["energy"] != after.incumbents()["energy"]).any()
    assert check(path).sound


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE runs SET energy = energy - 1e-3 WHERE rowid = 3", "scores"),
        ("UPDATE runs SET state = zeroblob(1) WHERE rowid = 3", "feasible|no state"),
        ("UPDATE runs SET state = NULL WHERE rowid = 3", "no state"),
        ("UPDATE runs SET seed = seed + 1 WHERE rowid = 3", "key or seed"),
        ("UPDATE runs SET solver = 'other' WHERE rowid = 3", "key or seed"),
        ("UPDATE runs SET budget = '{\"reads\": 5}' WHERE rowid = 3", "key or seed"),
        ("UPDATE runs SET budget = 'x' WHERE rowid = 3", "budget is damaged"),
        ("UPDATE runs SET energy = 'low' WHERE rowid = 3", "runs.energy holds"),
        ("UPDATE runs SET instance = 'none' WHERE rowid = 3", "refers to a row of instances"),
        ("DELETE FROM invocations", "refers to a row of invocations"),
        ("UPDATE incumbents SET energy = energy + 1", "end at"),
        ("UPDATE instances SET container = zeroblob(100)", "not a container"),
        ("UPDATE instances SET container = 'text'", "no container"),
        ("UPDATE invocations SET settings = '[1]'", "settings is damaged"),
    ],
)
def test_check_finds(filled, tmp_path, statement, words):
    path = edited(filled, tmp_path / "e.sqlite", statement)
    found = check(path)
    assert any(re.search(words, fault) for fault in found.faults), found.faults
    with pytest.raises(StoreError, match="damaged"):
        merge([path], tmp_path / "all.sqlite")
    assert not (tmp_path / "all.sqlite").exists()


def test_an_exchanged_container_is_noticed(filled, tmp_path):
    swap = "UPDATE instances SET container = (SELECT container FROM instances ORDER BY n LIMIT 1)"
    assert any(
        "another problem" in f for f in check(edited(filled, tmp_path / "e.sqlite", swap)).faults
    )


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE VIEW v AS WITH RECURSIVE c(x) AS (VALUES (1) UNION ALL SELECT x FROM c) SELECT 1",
        "CREATE TRIGGER t AFTER INSERT ON runs BEGIN DELETE FROM runs; END",
        "CREATE INDEX i ON runs(zeroblob(999999999))",
        "CREATE TABLE more (x)",
        "ALTER TABLE runs ADD COLUMN big AS (zeroblob(999999999))",
        "ALTER TABLE runs DROP COLUMN energy",
    ],
)
def test_a_file_with_definitions_of_its_own_is_refused(filled, tmp_path, statement):
    path = edited(filled, tmp_path / "e.sqlite", "DELETE FROM runs", statement)
    for create in (False, True):
        with pytest.raises(StoreError, match="not a store"):
            Store(path, create=create)


def test_merge_adds_reports_and_repeats(filled, tmp_path):
    other, out = tmp_path / "b.sqlite", tmp_path / "all.sqlite"
    run(study((2, 3)), other, progress=False)
    assert merge([filled, other], out).added == 24
    assert check(out).sound
    everything = {*load_runs(filled)["key"], *load_runs(other)["key"]}
    assert set(load_runs(out)["key"]) == everything
    again = merge([filled, other], out)
    assert (again.added, again.same, again.conflicts) == (0, 24, [])
    with Store(out) as store, Store(filled) as one, Store(other) as two:
        assert len(store.incumbents()) == len(one.incumbents()) + len(two.incumbents())
        assert len(store.invocations()) == 2
    rerun = tmp_path / "again.sqlite"
    run(study((3,)), rerun, progress=False)
    merged = merge([rerun], out)
    assert (merged.added, len(merged.conflicts)) == (0, 6)
    assert "wall" in merged.conflicts[0]
    with pytest.raises(StoreError, match="into itself"):
        merge([out], out)


def test_merge_replaces_what_was_pending(filled, tmp_path):
    waiting = "UPDATE runs SET pending = 1 WHERE rowid = 1"
    out = edited(filled, tmp_path / "w.sqlite", waiting)
    merged = merge([filled], out)
    assert (merged.added, merged.same) == (1, 11)
    with Store(out) as store:
        keys = store.runs()["key"].tolist()
        assert store.finished_of(keys).keys() == set(keys)
        assert len(keys) == 12


def test_commands(filled, tmp_path):
    runner = CliRunner()
    result = runner.invoke(app, ["store", "check", str(filled)])
    assert (result.exit_code, "12 cells" in result.output) == (0, True)
    out = tmp_path / "r.csv"
    assert runner.invoke(app, ["store", "export", str(filled), "--out", str(out)]).exit_code == 0
    assert len(out.read_text().splitlines()) == 13
    merged = tmp_path / "m.sqlite"
    result = runner.invoke(app, ["store", "merge", str(filled), str(filled), "--out", str(merged)])
    assert "12 cells added, 12 were there, 0 conflicts" in result.output
    bad = edited(filled, tmp_path / "e.sqlite", "UPDATE runs SET energy = energy - 1")
    assert isinstance(runner.invoke(app, ["store", "check", str(bad)]).exception, StoreError)


# A driver of its own process that says when it has the store, and then waits.
HOLD = """
import sys, time
from experiments import Store
store = Store(sys.argv[1], create=True)
store.add_invocation("held", {}, {})
print("open", flush=True)
time.sleep(60)
"""


def test_one_driver_at_a_time_and_a_killed_one_leaves_no_lock(filled, tmp_path):
    path = tmp_path / "s.sqlite"
    shutil.copy(filled, path)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    ) as other:
        try:
            assert other.stdout.readline() == "open\n"
            with pytest.raises(StoreError, match="another driver at work"):
                run(study(), path, progress=False)
            assert len(load_runs(path)) == 12
        finally:
            other.send_signal(signal.SIGKILL)
            other.wait()
    outcome = run(study((0, 1, 2)), path, progress=False)
    assert (outcome.resumed, outcome.counts) == (12, {"done": 6})
    assert check(path).sound
    assert [p.name for p in tmp_path.iterdir()] == ["s.sqlite"]


def test_two_drivers_in_one_process(filled, tmp_path):
    path = tmp_path / "s.sqlite"
    shutil.copy(filled, path)
    with Store(path, create=True), pytest.raises(StoreError, match="another driver"):
        Store(path, create=True)
    Store(path, create=True).close()


FULL = """
import resource, sys
from pathlib import Path
from experiments import Store, Study, run
from experiments.errors import StoreError
from tests.study_fixtures import block
path = Path(sys.argv[1])
study = Study("s", [block(8), block(12)], ["greedy", "neal"], [0.001], seeds=range(400))
run(Study("s", [block(8), block(12)], ["greedy", "neal"], [0.001], seeds=range(2)), path,
    progress=False)
if sys.argv[2] == "rlimit":
    # The write-ahead log meets the limit first.
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    run(study, path, progress=False)
except StoreError as error:
    print("refused:", error)
"""


def until_full(path, how):
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path), how], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert "refused: store" in done.stdout and "space" in done.stdout, done.stdout
    found = check(path)
    assert found.sound and 8 <= found.runs < 1600
    return found.runs


def test_a_full_disk_leaves_the_store_whole(tmp_path):
    path = tmp_path / "s.sqlite"
    runs = until_full(path, "rlimit")
    blocks = [block(8), block(12)]
    small = Study("s", blocks, ["greedy", "neal"], [0.001], seeds=range(2))
    assert run(small, path, progress=False).resumed == 8
    assert check(path).runs == runs


@pytest.fixture
def mounted(tmp_path):
    """A disk of 1 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True
    )
    if done.returncode:
        pytest.skip("nothing can be mounted here")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_disk_that_is_really_full(mounted):
    until_full(mounted / "s.sqlite", "tmpfs")


def test_a_folder_that_cannot_be_written(mounted, filled):
    path = mounted / "s.sqlite"
    shutil.copy(filled, path)
    subprocess.run(["mount", "-o", "remount,ro", mounted], check=True)
    assert len(load_runs(path)) == 12
    assert check(path).sound
    for place in (path, mounted / "new.sqlite"):
        with pytest.raises(StoreError, match="writable"):
            Store(place, create=True)
    assert [p.name for p in mounted.iterdir()] == ["s.sqlite"]
