"""Studies and their stores."""

import json
import sqlite3
import tempfile
from contextlib import closing
from itertools import islice
from pathlib import Path

from experiments import Store, Study, load_runs, run
from experiments.errors import ExperimentError
from experiments.store.check import check
from experiments.store.merge import merge
from icbs.errors import IcbsError
from tests.fuzz.mutate import NAMES, VALUES, edited, json_text, pick, reworded
from tests.fuzz.targets import Target, written
from tests.study_fixtures import Drawn, First, block, spec

TEXT = """name = "fuzz"
seed = 1
instances = ["blocks/*.block.safetensors"]
budgets = [0.1, 1.0, {reads = 100}]
seeds = [0, 1]
seeds_by_size = {4096 = 1}
give_initial = false
cardinality = 32
figures = ["anytime"]

[[solvers]]
name = "neal"
label = "neal, weak"
options = {penalty = 0.01}
parameters = {}
max_variables = 1024

[[solvers]]
name = "tabu"

[[blocks]]
model = "smollm2"
layers = "*.28.mlp.up_proj"
sizes = [64, 1024]
density = 0.5

[loop]
model = "garment-mlp"
steps = 20
time_limit = 0.5
gaps = [0.0, 0.1]
settings = {density = 0.1}

[smoke]
seeds = 1
"""


def _studies():
    return [{"a.toml": TEXT.encode()}, {"a.toml": TEXT.split("[[blocks]]")[0].encode()}]


def _load_study(path, out):
    study = Study.from_toml(path)
    sizes = {"a": 10, "b": 5000}
    assert study.count(sizes) >= 0
    for cell in islice(study.cells(sizes), 3):
        assert 0 <= cell.seed < 2**31 and cell.budget in study.limits
    if "smoke" in path.read_text():
        Study.from_toml(path, smoke=True)


def _study(rng, seeds):
    ((name, data),) = pick(rng, seeds).items()
    text = reworded(rng, data.decode())
    for _ in range(int(rng.integers(0, 3))):
        lines = text.split("\n")
        at = int(rng.integers(len(lines)))
        key, equals, _ = lines[at].partition(" = ")
        if equals:
            value = pick(rng, VALUES)
            deep = int(pick(rng, [50, 400, 3000]))
            lines[at] = f"{key} = " + pick(
                rng, [json.dumps(value), "[" * deep + "]" * deep, "{a=" * deep + "1" + "}" * deep,
                      "1979-05-27T07:32:00Z", "9" * 400, "nan", "-inf", "0x7fffffffffffffff",
                      json.dumps(pick(rng, NAMES)), "[1, 'a', {}]"]
            )  # fmt: skip
        text = "\n".join(lines)
    return {name: text.encode("utf-8", "surrogatepass")}


def _stores():
    def write(path, dense):
        blocks = [block(8), block(10, seed=1, dense=dense)]
        study = Study("s", blocks, [spec(First), spec(Drawn)], [0.5], seeds=[0, 1])
        run(study, path, progress=False)
        if dense:
            with Store(path, create=True) as store:
                store.put_table("steps", load_runs(path)[["key", "energy"]])

    return [{"a.sqlite": written("a.sqlite", lambda p, d=dense: write(p, d))}
            for dense in (False, True)]  # fmt: skip


def _load_store(path, out):
    with Store(path) as store:
        store.runs(), store.instances(), store.invocations(), store.incumbents()
        store.table("steps"), store.finished_of(["k"])
        for identity in store.sizes():
            problem = store.problem(identity)
            assert problem.content_hash == identity, "a problem of another hash"
    found = check(path)
    merged = merge([path], out / "merged.sqlite")  # refuses what the check found damaged
    assert found.sound, "merged what is damaged"
    assert merged.added == found.runs and not merged.conflicts, "cells lost on the way"
    assert check(out / "merged.sqlite").sound, "damaged by merging"


def _store(rng, seeds):
    """Values, rows, definitions and pragmas changed through SQL, constraints off."""
    ((name, data),) = pick(rng, seeds).items()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        with closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA ignore_check_constraints = ON")
            db.execute("PRAGMA foreign_keys = OFF")
            for _ in range(int(rng.integers(1, 4))):
                try:
                    _statement(rng, db)
                # What it works on may have been ruined by the one before.
                except (sqlite3.Error, TypeError, ValueError):
                    continue
            db.commit()
        return {name: path.read_bytes()}


def _statement(rng, db):
    tables = ["invocations", "instances", "runs", "incumbents", "blobs"]
    table = pick(rng, tables)
    columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
    column = pick(rng, columns)
    other = pick(rng, columns)
    kind = int(rng.integers(12))
    if kind < 4:
        where = "" if rng.integers(2) else " WHERE rowid = 1"
        if table == "incumbents":
            where = ""
        db.execute(f'UPDATE {table} SET "{column}" = ?{where}', (_value(rng, db, table, column),))
    elif kind == 4:  # what NOT NULL and CHECK forbid
        db.execute("PRAGMA writable_schema = ON")
        row = db.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
        text = row[0].replace(" NOT NULL", "") if rng.integers(2) else reworded(rng, row[0])
        db.execute("UPDATE sqlite_schema SET sql = ? WHERE name = ?", (text, table))
        db.execute("PRAGMA writable_schema = OFF")
    elif kind == 5:
        db.execute(f"DELETE FROM {table} WHERE rowid % 2 = ?", (int(rng.integers(2)),))
    elif kind == 6:
        pragma = pick(rng, ["user_version", "application_id", "journal_mode"])
        value = pick(rng, [0, 1, 2, 3, -1, 2**31 - 1, "WAL", "OFF"])
        db.execute(f"PRAGMA {pragma} = {value}")
    elif kind == 7:
        db.execute(f'UPDATE {table} SET "{column}" = "{other}"')
    elif kind == 8:
        statement = pick(rng, [
            "CREATE VIEW v AS SELECT 1", "DROP TABLE blobs", "ALTER TABLE runs ADD COLUMN x",
            "ALTER TABLE runs RENAME TO \"../runs\"", "CREATE TABLE t (a)",
            "CREATE TRIGGER g AFTER INSERT ON runs BEGIN DELETE FROM runs; END",
            "CREATE INDEX i ON runs (abs(energy))", "ALTER TABLE runs DROP COLUMN info",
            "ALTER TABLE blobs RENAME COLUMN data TO daten",
            "CREATE VIRTUAL TABLE f USING fts5(a)",
            "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c LIMIT 3000) "
            "INSERT INTO blobs SELECT 'b' || i, 'x', zeroblob(10) FROM c",
        ])  # fmt: skip
        db.execute(statement)
    elif kind == 9:  # as JSON inside a column of text
        texts = [("invocations", "settings"), ("invocations", "host"), ("runs", "options")]
        column = pick(rng, [*texts, ("runs", "budget"), ("instances", "meta")])
        (text,) = db.execute(f"SELECT {column[1]} FROM {column[0]}").fetchone()
        new = json_text(rng, edited(rng, json.loads(text)))
        db.execute(f"UPDATE {column[0]} SET {column[1]} = ?", (new,))
    elif kind == 10:
        row = db.execute("SELECT data FROM blobs").fetchone()
        tree = json.loads(row[0]) if row else {"columns": ["a"], "data": [[1]]}
        new = json_text(rng, edited(rng, tree)).encode("utf-8", "surrogatepass")
        db.execute("INSERT OR REPLACE INTO blobs VALUES ('steps', 'application/json; table', ?)",
                   (new,))  # fmt: skip
    else:
        db.execute(f'UPDATE {table} SET "{column}" = (SELECT "{column}" FROM {table} LIMIT 1)')


def _value(rng, db, table, column):
    (old,) = db.execute(f'SELECT "{column}" FROM {table}').fetchone() or (None,)
    if isinstance(old, bytes) and rng.integers(2):
        changed = bytearray(old)
        for _ in range(int(rng.integers(1, 4))):
            if changed:
                changed[int(rng.integers(len(changed)))] ^= int(rng.integers(1, 256))
        return bytes(changed[: int(rng.integers(len(changed) + 1))] if rng.integers(2) else changed)
    return pick(rng, [None, 0, 1, -1, 2**62, -(2**63), 0.5, 1e308, float("inf"), "nan", "", "x",
                      b"", b"\xff\x00", "\0", "[" * 50_000, "{}", "[]", "../../x", "1e999",
                      "x" * 100_000, 3.0, "2", str(old)])  # fmt: skip


TARGETS = {
    "study": Target("study", _studies, _study, _load_study, (ExperimentError,)),
    # SQLite's own files, which it leaves where a store in WAL mode was only read.
    "store": Target("store", _stores, _store, _load_store, (IcbsError,), beside=("-wal", "-shm")),
}
