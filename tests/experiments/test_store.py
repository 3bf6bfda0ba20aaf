"""The store: one file, whole after whatever happens, clear about what is wrong with it."""

import sqlite3

import numpy as np
import pandas as pd
import pytest

from experiments import Store, Study, load_runs, run
from experiments.errors import StoreError
from experiments.metrics.export import export
from experiments.store.schema import SCHEMA
from tests.study_fixtures import block


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "s.sqlite"
    study = Study("s", [block(8), block(12)], ["greedy", "enumerate", "neal"], [0.02], seeds=[0, 1])
    run(study, path, progress=False)
    return path


def test_load_joins_instances(filled):
    frame = load_runs(filled)
    assert len(frame) == 2 * 3 * 2
    for column in ("n", "k", "rank", "fisher", "layer", "model", "reference", "tag", "gap"):
        assert frame[column].notna().all(), column
    assert (frame["status"] == "done").all()
    assert (frame["tag"] == "exact").all()
    assert (frame.loc[frame["solver"] == "enumerate", "gap"] == 0).all()
    assert not frame["received_start"].any()
    assert (frame["wall"] > 0).all()


def test_is_one_file(filled):
    load_runs(filled)
    assert [path.name for path in filled.parent.iterdir()] == [filled.name]


def test_is_self_contained(filled):
    with Store(filled) as store:
        for instance in store.sizes():
            problem = store.problem(instance)
            assert problem.content_hash == instance
        rows = store._rows("SELECT instance, state, energy FROM runs")
        for instance, state, energy in rows:
            problem = store.problem(instance)
            bits = np.unpackbits(np.frombuffer(state, np.uint8), count=problem.n)
            assert problem.is_feasible(bits)
            assert float(problem.energy(bits)) == energy


def test_incumbents_improve_and_end_at_the_answer(filled):
    with Store(filled) as store:
        curves, runs = store.incumbents(), store.runs().set_index("key")
    assert set(curves["run"]) == set(runs.index)
    for key, curve in curves.groupby("run"):
        assert (curve["energy"].diff().dropna() < 0).all()
        assert curve["energy"].iloc[-1] == runs.loc[key, "energy"]
        assert (curve["seconds"] <= runs.loc[key, "wall"]).all()


def test_export(filled, tmp_path):
    frame = load_runs(filled)
    csv = pd.read_csv(export(filled, tmp_path / "r.csv"))
    parquet = pd.read_parquet(export(filled, tmp_path / "r.parquet"))
    assert len(csv) == len(parquet) == len(frame)
    np.testing.assert_allclose(csv["energy"], frame["energy"], rtol=1e-15)
    np.testing.assert_array_equal(parquet["energy"], frame["energy"])
    with pytest.raises(StoreError, match=r"\.csv or \.parquet"):
        export(filled, tmp_path / "r.xlsx")
    with pytest.raises(StoreError, match="cannot be written"):
        export(filled, tmp_path / "none" / "r.csv")


def test_tables_and_blobs(tmp_path):
    frame = pd.DataFrame(
        {"layer": ["a/b", "c\n<i>"], "predicted": [0.1 + 0.2, np.nan], "n": [1, 2]}
    )
    with Store(tmp_path / "s.sqlite", create=True) as store:
        store.put_blob("x", b"\0\xff")
        store.put_table("steps", frame)
        store.put_table("steps", frame)
    with Store(tmp_path / "s.sqlite") as store:
        assert store.blob("x") == b"\0\xff"
        assert store.blob("y") is None
        assert store.table("perplexity") is None
        pd.testing.assert_frame_equal(store.table("steps"), frame)


def test_a_cell_is_written_once(filled, tmp_path):
    with Store(tmp_path / "s.sqlite", create=True) as store:
        number = store.add_invocation("s", {}, {})
        instance = store.add_instance(block(), "b")
        assert store.add_instance(block(), "again") == instance
        row = {
            "key": "k", "invocation": number, "instance": instance, "solver": "x'; DROP TABLE runs",
            "solver_name": "x", "options": "{}", "budget": "{}", "seed_index": 0, "seed": 0,
            "give_initial": False, "status": "done", "reason": "", "energy": 1.0,
        }  # fmt: skip
        store.add_run(row, [(0.1, 1.0)])
        store.add_run(row | {"energy": 2.0}, [(0.2, 2.0)])
        assert store.runs()["key"].tolist() == ["k"]
        assert store.runs()["energy"].tolist() == [1.0]
        assert len(store.incumbents()) == 1


def test_a_failed_write_leaves_nothing(tmp_path):
    with Store(tmp_path / "s.sqlite", create=True) as store:
        with pytest.raises(StoreError):
            store.add_run({"key": "k", "status": "no such status"})
        assert store.runs().empty


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b"", "empty"),
        (b"not a database at all" * 100, "not a store"),
        (b"SQLite format 3\0" + b"\7" * 500, "not a store"),
    ],
)
def test_not_a_store(tmp_path, content, message):
    path = tmp_path / "s.sqlite"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StoreError, match=message):
        load_runs(path)


def test_another_database_is_left_alone(tmp_path):
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE runs (x)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="not a store of studies"):
        Store(path, create=True)
    assert path.read_bytes() == before


def test_wrong_schema_version(filled, tmp_path):
    path = tmp_path / "new.sqlite"
    path.write_bytes(filled.read_bytes())
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    db.close()
    with pytest.raises(StoreError, match=f"version {SCHEMA + 1}, this program reads {SCHEMA}"):
        load_runs(path)


def test_no_runs_yet(tmp_path):
    Store(tmp_path / "s.sqlite", create=True).close()
    with pytest.raises(StoreError, match="no runs yet"):
        load_runs(tmp_path / "s.sqlite")


def test_unwritable(tmp_path):
    with pytest.raises(StoreError, match="writable"):
        Store(tmp_path / "no" / "folder" / "s.sqlite", create=True)
    with pytest.raises(StoreError, match="writable"):
        Store(tmp_path, create=True)


def test_reading_waits_for_nobody(filled):
    with Store(filled, create=True) as writer, writer._transaction():
        assert len(load_runs(filled)) == 12


def test_a_store_of_version_1_is_read_and_brought_up_to_date(filled, tmp_path):
    path = tmp_path / "old.sqlite"
    path.write_bytes(filled.read_bytes())
    with sqlite3.connect(path) as db:
        for column in ("training", "quote", "cost", "pending", "info"):
            db.execute(f"ALTER TABLE runs DROP COLUMN {column}")
        for column in ("condition", "column_spread", "greedy_energy", "one_swap_energy"):
            db.execute(f"ALTER TABLE instances DROP COLUMN {column}")
        db.execute("ALTER TABLE runs RENAME COLUMN track TO lane")
        db.execute("ALTER TABLE runs RENAME COLUMN received_start TO received_incumbent")
        db.execute("PRAGMA user_version = 1")
    db.close()
    before = path.read_bytes()
    frame = load_runs(path)
    assert list(frame.columns) and frame["quote"].isna().all()
    assert set(frame.columns) == set(load_runs(filled).columns)
    assert path.read_bytes() == before
    study = Study("s", [block(8)], ["greedy", "descent"], [0.02], seeds=[0, 1])
    outcome = run(study, path, progress=False)
    assert (outcome.resumed, outcome.counts) == (2, {"done": 2})
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA,)
    db.close()


def test_a_pending_row_is_run_again_and_replaced(tmp_path):
    path = tmp_path / "s.sqlite"
    study = Study("s", [block(8)], ["greedy"], [0.02], seeds=[0])
    run(study, path, progress=False)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE runs SET pending = 1, status = 'error', reason = 'queued'")
        db.execute("DELETE FROM incumbents")
    db.close()
    assert run(study, path, progress=False).counts == {"done": 1}
    assert load_runs(path)["status"].tolist() == ["done"]
    assert run(study, path, progress=False).resumed == 1
