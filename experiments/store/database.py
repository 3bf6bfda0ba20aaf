"""One SQLite file per study: instances, runs, incumbents and named blobs.

A cell is written in one transaction, so a driver that dies loses at most the cell it was running.
Only the driver writes, one at a time (`experiments.store.driverlock`); workers read. A store may
come from anybody: what it holds is checked as it is read, and nothing in it is executed.

>>> from experiments import load_runs
>>> load_runs("demo.sqlite").groupby("solver")["gap"].median()
"""

from __future__ import annotations

import json
import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pandas as pd

from experiments.errors import StoreError
from experiments.record.instance import instance_row
from experiments.store.driverlock import DriverLock
from experiments.store.paths import store_path
from experiments.store.schema import APPLICATION_ID, SCHEMA, TABLES, UPGRADES
from experiments.store.shape import added_since, check_shape, check_types, former_names, layout
from solvers.errors import SolverError
from solvers.io import formats
from solvers.problem import Bools, CardinalityProblem

APPLIED = "steps"
"""Table of applied masks: predicted and measured change of the loss, one row a step."""
TRAJECTORIES = "trajectories"
"""Table of the closed loop, see `experiments.running.closedloop`."""
WHOLE_MODELS = "methods"
"""Table of whole models, see `experiments.pruning.comparing.measure`."""
PERPLEXITY = "perplexity"
"""Table of a model's quality by state of pruning."""
_TABLE = "application/json; table"
# Columns of text keep their type where every value is missing.
_FLAGS = ("give_initial", "received_start", "proved_optimal")


class Store:
    """A study's records.

    Args:
        path: the SQLite file.
        create: make the file if it is not there, and open it for writing.

    Raises:
        StoreError: no such file, no store, another schema version, a folder that is not writable,
            another driver at work on it.
    """

    def __init__(self, path: str | Path, *, create: bool = False) -> None:
        self.path = Path(path)
        self._writes = create
        self._withdrawn = False
        if not create:
            store_path(self.path)
        elif self.path.exists() and not self.path.is_file():
            raise StoreError(f"store {self.path} is no file; name a file, new or of a study")
        self._fresh = fresh = not self.path.exists() or self.path.stat().st_size == 0
        self._lock = DriverLock(self.path) if create else None
        try:
            self._open(fresh)
        except BaseException:
            if self._lock is not None:
                self._lock.release()
            raise

    def _open(self, fresh: bool) -> None:
        create = self._writes
        with self._clear_errors():
            mode = "mode=rwc" if create else "mode=ro"
            if not create and self._sealed():
                mode += "&immutable=1"
            uri = f"{self.path.absolute().as_uri()}?{mode}"
            self._db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=30.0)
        try:
            with self._clear_errors():
                # No function that a file's own definitions name may have side effects.
                self._db.execute("PRAGMA trusted_schema = OFF")
                if fresh:
                    self._create()
                self._check()
                if create:
                    # WAL: readers never wait for the driver. NORMAL survives a killed process; a
                    # power cut may cost the last cells, which the next run repeats.
                    self._db.execute("PRAGMA journal_mode = WAL")
                    self._db.execute("PRAGMA synchronous = NORMAL")
                    self._db.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            self._db.close()
            raise

    def _sealed(self) -> bool:
        """Whether nobody can be writing: SQLite needs a writable folder to read a WAL file."""
        wal = self.path.with_name(f"{self.path.name}-wal")
        return not wal.exists() and not os.access(self.path.parent, os.W_OK)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; after a driver nothing lies beside it, unless someone is reading."""
        if self._writes:
            with suppress(sqlite3.Error):
                self._db.execute("PRAGMA journal_mode = DELETE")
        self._db.close()
        if self._withdrawn:
            self.path.unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def withdraw(self) -> None:
        """Leaves no file behind, when this is closed, if this made it."""
        self._withdrawn = self._writes and self._fresh

    @property
    def has_runs(self) -> bool:
        """Whether a cell was ever written."""
        return bool(self._rows("SELECT 1 FROM runs LIMIT 1"))

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise StoreError(
                f"store {self.path}: {error}; check that the folder exists, is writable and has "
                "space, and that no other driver holds the file"
            ) from error
        # Text in a damaged file need not be UTF-8.
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            raise StoreError(f"{self.path} is not a store, or is damaged: {error}") from error
        except OSError as error:
            raise StoreError(f"store {self.path}: {error.strerror}") from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._clear_errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                # After a full disk SQLite has rolled back by itself.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _create(self) -> None:
        with self._transaction() as db:
            for statement in TABLES.split(";\n"):
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID:d}")
            db.execute(f"PRAGMA user_version = {SCHEMA:d}")

    def _check(self) -> None:
        (kind,) = self._db.execute("PRAGMA application_id").fetchone()
        if kind != APPLICATION_ID:
            raise StoreError(f"{self.path} is a database but not a store of studies")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version != SCHEMA and version not in UPGRADES:
            raise StoreError(
                f"store {self.path} has schema version {version}, this program reads {SCHEMA}; "
                "use the version of icbs-bench that wrote it"
            )
        check_shape(self._db, version, self.path)
        if self._writes and version in UPGRADES:
            with self._transaction() as db:
                for older in range(version, SCHEMA):
                    for statement in UPGRADES[older]:
                        db.execute(statement)
                db.execute(f"PRAGMA user_version = {SCHEMA:d}")
            version = SCHEMA
        self._former = former_names(version)

    def columns(self, table: str) -> dict[str, str]:
        """Columns of a table as the file has them, and what each is called now."""
        here = [row[1] for row in self._rows(f"PRAGMA table_info({table})")]
        return {name: self._former.get(name, name) for name in here}

    def add_invocation(
        self, study: str, settings: Mapping[str, Any], host: Mapping[str, Any]
    ) -> int:
        """Notes that a driver starts; returns the number its runs refer to."""
        with self._transaction() as db:
            cursor = db.execute(
                "INSERT INTO invocations (started, study, settings, host) VALUES (?, ?, ?, ?)",
                (
                    datetime.now(UTC).isoformat(timespec="seconds"),
                    study,
                    json.dumps(dict(settings), default=repr),
                    json.dumps(dict(host)),
                ),
            )
            return int(cursor.lastrowid or 0)

    def add_instance(self, problem: CardinalityProblem, name: str) -> str:
        """Keeps the problem, its container and its hardness; returns its content hash."""
        identity = problem.content_hash
        known = self._rows("SELECT 1 FROM instances WHERE id = ?", (identity,))
        if known:
            return identity
        row = instance_row(problem, name)
        with self._transaction() as db:
            _insert(db, "instances", row)
        return identity

    def sizes(self) -> dict[str, int]:
        """Content hash -> number of variables.

        Raises:
            StoreError: a row without one of them.
        """
        found = self._rows("SELECT id, n FROM instances")
        if not all(isinstance(name, str) and isinstance(n, int) for name, n in found):
            raise StoreError(f"store {self.path}: an instance has no hash or no size: damaged")
        return dict(found)

    def build_of(self, instance: str) -> float:
        """Seconds the block took to build; 0: unknown."""
        return float(self._rows("SELECT build FROM instances WHERE id = ?", (instance,))[0][0])

    def problem(self, instance: str) -> CardinalityProblem:
        """The problem with that content hash.

        Raises:
            StoreError: the store does not have it, or it is damaged.
        """
        try:
            problem = problem_of(self.container(instance))
        except SolverError as error:
            raise StoreError(
                f"store {self.path}: instance {instance[:12]} is damaged: {error}"
            ) from error
        if problem.content_hash != instance:
            raise StoreError(f"store {self.path}: instance {instance[:12]} holds another problem")
        return problem

    def container(self, instance: str) -> bytes:
        """The container file of the problem with that content hash.

        Raises:
            StoreError: the store does not have it.
        """
        rows = self._rows("SELECT container FROM instances WHERE id = ?", (instance,))
        if not rows:
            raise StoreError(f"store {self.path} has no instance {instance[:12]}")
        if not isinstance(rows[0][0], bytes):
            raise StoreError(
                f"store {self.path}: instance {instance[:12]} is damaged: no container"
            )
        return rows[0][0]

    def finished_of(self, keys: Sequence[str]) -> dict[str, str]:
        """Status of those of some thousand keys whose cells are in the store and not pending."""
        marks = ", ".join("?" * len(keys))
        query = f"SELECT key, status FROM runs WHERE key IN ({marks}) AND pending IS NOT 1"  # noqa: S608
        return dict(self._rows(query, tuple(keys)))

    def add_run(
        self, row: Mapping[str, Any], incumbents: Iterable[tuple[float, float]] = ()
    ) -> None:
        """Writes one cell in one transaction; one that is there stays, unless it was pending."""
        with self._transaction() as db:
            db.execute("DELETE FROM runs WHERE key = ? AND pending = 1", (row["key"],))
            if _insert(db, "runs", row):
                db.executemany(
                    "INSERT OR REPLACE INTO incumbents (run, seconds, energy) VALUES (?, ?, ?)",
                    [(row["key"], seconds, energy) for seconds, energy in incumbents],
                )

    def put_blob(self, name: str, data: bytes, kind: str = "application/octet-stream") -> None:
        """Keeps bytes under a name, replacing what was there."""
        with self._transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO blobs (name, kind, data) VALUES (?, ?, ?)",
                (name, kind, data),
            )

    def blob(self, name: str) -> bytes | None:
        """The bytes under that name, None if there are none."""
        rows = self._rows("SELECT data FROM blobs WHERE name = ?", (name,))
        return rows[0][0] if rows else None

    def put_table(self, name: str, frame: pd.DataFrame) -> None:
        """Keeps a data frame under a name (`report` knows ``steps`` and ``perplexity``)."""
        rows = frame.astype(object).where(frame.notna(), None).to_numpy().tolist()
        text = json.dumps({"columns": [str(c) for c in frame.columns], "data": rows})
        self.put_blob(name, text.encode(), _TABLE)

    def table(self, name: str) -> pd.DataFrame | None:
        """The data frame under that name, None if there is none."""
        data = self.blob(name)
        if data is None:
            return None
        table = self._json(data, f"table {name!r}")
        try:
            return pd.DataFrame(table["data"], columns=table["columns"])
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise StoreError(f"store {self.path}: table {name!r} is damaged: {error}") from error

    def invocations(self) -> list[dict[str, Any]]:
        """Every driver that wrote here, oldest first, with its settings and host."""
        rows = self._rows("SELECT id, started, study, settings, host FROM invocations ORDER BY id")
        return [
            {"id": i, "started": str(when), "study": str(study),
             **self._json(settings, "settings"), "host": self._json(host, "host")}
            for i, when, study, settings, host in rows
        ]  # fmt: skip

    def instances(self) -> pd.DataFrame:
        """One row an instance, without its container; `data` is what its block was made from."""
        frame = self._frame("instances", "n, name", without="container")
        made = [self._json(text, "metadata").get("data") for text in frame["meta"]]
        frame["data"] = pd.Series([None if one is None else str(one) for one in made], dtype=object)
        return frame

    def incumbents(self) -> pd.DataFrame:
        """Improvements over time: run, seconds, energy."""
        return self._frame("incumbents", "run, seconds")

    def state(self, key: str) -> Bools:
        """The best feasible state of the run with that key, shape (n,).

        Raises:
            StoreError: no such run, or its state is damaged.
        """
        rows = self._rows(
            "SELECT r.state, i.n FROM runs r JOIN instances i ON i.id = r.instance WHERE r.key = ?",
            (key,),
        )
        if not rows or not isinstance(rows[0][0], bytes) or len(rows[0][0]) != -(-rows[0][1] // 8):
            raise StoreError(f"store {self.path}: run {key} has no state, or it is damaged")
        return np.unpackbits(np.frombuffer(rows[0][0], np.uint8), count=rows[0][1]).astype(np.bool_)

    def runs(self) -> pd.DataFrame:
        """One row a run with its instance's columns, as measured.

        `experiments.metrics.references.annotate` adds references and gaps.
        """
        frame = self._frame("runs", "rowid", without="state")
        for budget in frame["budget"].unique():
            self._json(budget, "a budget")
        for flag in _FLAGS:
            if not frame[flag].dropna().isin((0, 1)).all():
                raise StoreError(f"store {self.path}: {flag} is neither 0 nor 1: it is damaged")
            frame[flag] = frame[flag].astype("boolean")
        instances = self.instances().drop(columns=["build", "meta"])
        return frame.merge(
            instances.rename(columns={"id": "instance", "name": "instance_name"}), on="instance"
        )

    def _json(self, text: Any, what: str) -> dict[str, Any]:
        try:
            value = json.loads(text)
        except (ValueError, TypeError, RecursionError) as error:
            raise StoreError(f"store {self.path}: {what} is damaged: {error}") from error
        if not isinstance(value, dict):
            raise StoreError(f"store {self.path}: {what} is damaged: no JSON object")
        return value

    def _rows(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with self._clear_errors():
            return self._fetch(self._db.execute(query, values))

    def _fetch(self, cursor: sqlite3.Cursor) -> list[tuple[Any, ...]]:
        """Every row; a damaged tree of pages may claim more of them than fit into the file."""
        (pages,) = self._db.execute("PRAGMA page_count").fetchone()
        (size,) = self._db.execute("PRAGMA page_size").fetchone()
        rows: list[tuple[Any, ...]] = []
        while part := cursor.fetchmany(10_000):
            rows += part
            if len(rows) > pages * size // 4:  # a row takes at least four bytes
                raise StoreError(f"{self.path} is damaged: more rows than fit into the file")
        return rows

    def _frame(self, table: str, order: str, without: str = "") -> pd.DataFrame:
        here = {old: new for old, new in self.columns(table).items() if new != without}
        names = list(here.values())
        with self._clear_errors():
            columns = ", ".join(f'"{name}"' for name in here)
            # Table, columns and order are of this package, see `check_shape`.
            query = f"SELECT {columns} FROM {table} ORDER BY {order}"  # noqa: S608
            frame = pd.DataFrame(self._fetch(self._db.execute(query)), columns=names)
        check_types(frame, layout()[table], f"store {self.path}: {table}")
        # What a store of an earlier version has not.
        late = [name for of, name in added_since(1) if of == table and name not in here.values()]
        for name in sorted(late, key=list(layout()[table]).index):
            frame[name] = None
        for name in frame.columns:
            if frame[name].isna().all():
                text = layout()[table][name].kind == "TEXT"
                frame[name] = frame[name].astype("object" if text else "float64")
        return frame


def problem_of(container: bytes) -> CardinalityProblem:
    """The problem in the bytes of a container file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"problem{formats.CONTAINER}"
        path.write_bytes(container)
        return formats.load(path)


def _insert(db: sqlite3.Connection, table: str, row: Mapping[str, Any]) -> bool:
    """Inserts unless the key is there; column names come from this package, never from input."""
    names = ", ".join(f'"{name}"' for name in row)
    marks = ", ".join("?" * len(row))
    # Not OR IGNORE, which would also swallow a broken NOT NULL or CHECK.
    query = f'INSERT INTO "{table}" ({names}) VALUES ({marks}) ON CONFLICT DO NOTHING'  # noqa: S608
    return db.execute(query, tuple(row.values())).rowcount > 0
