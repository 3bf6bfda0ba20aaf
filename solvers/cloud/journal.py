"""The journal of paid tasks: what was asked for, before it is asked for.

One SQLite file, written with a full sync. A row is durable before the service hears of its task,
and its key, which is also the client token of the create call, names the call that wants it: the
same call finds its row again after a crash, sends the same request under the same token, and
collects instead of paying. The cap is checked in the transaction that makes the row, so processes
that share the file share the cap.

A program set, one task that runs circuits of several calls, has a row of its own, at no price: the
calls' rows name it in `task`, share its price, and are reserved, created and refused with it.

A row's `status` is RESERVED (the create call may or may not have happened), CREATED, then as
the service says COMPLETED, FAILED or CANCELLED; REFUSED means that the service did not take it.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import platformdirs
from numpy.typing import NDArray

from solvers.errors import CostError, FormatError

SCHEMA = 2
_TABLE = """
CREATE TABLE IF NOT EXISTS tasks (
    key      TEXT PRIMARY KEY,   -- identity of the call, client token of the create request
    device   TEXT NOT NULL,      -- ARN
    circuit  TEXT NOT NULL,      -- SHA-256 of the request's program
    request  TEXT NOT NULL,      -- JSON: everything the create call is made with
    note     TEXT NOT NULL,      -- JSON: angles, circuit size, what preparing it took
    price    REAL NOT NULL,      -- USD at most while unfinished, USD charged once it is known
    reserved TEXT NOT NULL,      -- UTC
    status   TEXT NOT NULL,
    arn      TEXT,
    reason   TEXT NOT NULL DEFAULT '',
    answer   TEXT,               -- JSON: run time, times of the service, the tracker's cost
    rows     BLOB,               -- the shots, numpy.packbits
    shape    TEXT,               -- JSON: shots and qubits of `rows`
    task     TEXT                -- key of the row whose program set runs this one
)
"""
ROUND_OFF = 1e-9


def default_path() -> Path:
    """The journal of this user on this machine, wherever a study is started from."""
    return platformdirs.user_data_path("icbs-bench") / "braket-journal.sqlite"


@dataclass(frozen=True)
class Entry:
    """One row; see the table."""

    key: str
    device: str
    request: dict[str, Any]
    note: dict[str, Any]
    price: float
    reserved: datetime
    status: str
    arn: str | None
    reason: str
    answer: dict[str, Any]
    rows: NDArray[np.int8] | None
    task: str | None = None


class Journal:
    """Paid tasks in a file.

    Args:
        path: SQLite file, made if missing; ``":memory:"`` for one that is forgotten.

    Raises:
        FormatError: a file that is no journal, counts in another unit or cannot be written.
    """

    # SQLite's application id of the file: which unit its prices are in, 0 for USD.
    unit: ClassVar[int] = 0

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        try:
            if self.path != ":memory:":
                Path(path).parent.mkdir(parents=True, exist_ok=True)
            # Writes are autocommitted or in a transaction of their own.
            self._lock = threading.RLock()
            self._db = sqlite3.connect(
                self.path, isolation_level=None, timeout=30.0, check_same_thread=False
            )
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA synchronous = FULL")
            if self._version() != SCHEMA:
                with self.transaction():
                    self._brought_up_to_date()
            (unit,) = self._db.execute("PRAGMA application_id").fetchone()
        except (sqlite3.Error, OSError) as error:
            raise FormatError(
                f"journal {path} cannot be used ({error}): name a writable file"
            ) from error
        if unit != self.unit:
            self.close()
            raise FormatError(
                f"journal {path} counts in another unit than {type(self).__name__}, USD or seconds "
                "of quantum time: name another file"
            )

    def _version(self) -> int:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        return int(version)

    def _brought_up_to_date(self) -> None:
        """A new file, or one of an earlier version; another process may have been faster."""
        version = self._version()
        if version > SCHEMA:
            raise FormatError(f"journal {self.path} has version {version}, this reads {SCHEMA}")
        if version == 1:
            self._db.execute("ALTER TABLE tasks ADD COLUMN task TEXT")
        if version == 0:
            self._db.execute(f"PRAGMA application_id = {self.unit:d}")
        self._db.execute(_TABLE)
        self._db.execute(f"PRAGMA user_version = {SCHEMA:d}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def get(self, key: str) -> Entry | None:
        """The row of a call, None if it has none."""
        with self._lock:
            row = self._db.execute("SELECT * FROM tasks WHERE key = ?", (key,)).fetchone()
        return None if row is None else _entry(row)

    def spent(self) -> float:
        """USD at most that all tasks so far cost, unfinished and failed ones included."""
        query = "SELECT coalesce(sum(price), 0) FROM tasks WHERE status != 'REFUSED'"
        with self._lock:
            return float(self._db.execute(query).fetchone()[0])

    def check_cap(self, price: float, cap: float) -> None:
        """Raises CostError if this price more would lift the total above the cap."""
        spent = self.spent()
        if spent + price > cap + ROUND_OFF:
            raise CostError(
                f"${price:.4f} more after ${spent:.4f} in journal {self.path} would exceed "
                f"max_cost = ${cap:.4f}: nothing was submitted; raise max_cost, lower the shots, "
                "or start another journal"
            )

    def reserve(
        self,
        key: str,
        request: Mapping[str, Any],
        *,
        circuit: str,
        note: Mapping[str, Any],
        price: float,
        cap: float,
        task: str | None = None,
    ) -> Entry:
        """Makes the call's row before its create request, or returns the one it has.

        Raises:
            CostError: the total would exceed the cap; nothing is written.
        """
        with self.transaction():
            known = self.get(key)
            if known is not None and known.status != "REFUSED":
                return known
            self.check_cap(price, cap)
            self._db.execute(
                "INSERT OR REPLACE INTO tasks (key, device, circuit, request, note, price, "
                "reserved, status, task) VALUES (?, ?, ?, ?, ?, ?, ?, 'RESERVED', ?)",
                (
                    key,
                    request["deviceArn"],
                    circuit,
                    json.dumps(dict(request)),
                    json.dumps(dict(note)),
                    price,
                    datetime.now(UTC).isoformat(),
                    task,
                ),
            )
        made = self.get(key)
        assert made is not None
        return made

    def created(self, key: str, arn: str) -> None:
        """The service has the task, and with it all that it runs."""
        self._update("status = 'CREATED', arn = ?", arn, key)

    def refused(self, key: str, reason: str) -> None:
        """The service said that it did not take the task: its price is free again.

        A row that got its task from another process meanwhile keeps it.
        """
        with self.transaction():
            known = self.get(key)
            if known is not None and known.status == "RESERVED":
                self._update("status = 'REFUSED', reason = ?", reason, key)

    def failed(self, key: str, status: str, reason: str) -> None:
        """The task ended without a result; its price stays booked, as it may be charged."""
        self._update("status = ?, reason = ?", status, reason, key)

    def ended(self, key: str, status: str) -> None:
        """A program set has ended, and the rows it ran say how each did."""
        with self._lock:
            self._db.execute("UPDATE tasks SET status = ? WHERE key = ?", (status, key))

    def parted(self, key: str) -> None:
        """The row is no longer that of a program set, which was refused."""
        with self._lock:
            self._db.execute("UPDATE tasks SET task = NULL WHERE key = ?", (key,))

    def completed(
        self, key: str, rows: NDArray[np.int8], answer: Mapping[str, Any], price: float
    ) -> None:
        """The task's shots, shape (shots, qubits) of 0/1, and what it cost."""
        self._update(
            "status = 'COMPLETED', answer = ?, rows = ?, shape = ?, price = ?",
            json.dumps(dict(answer)),
            np.packbits(rows.astype(np.uint8)).tobytes(),
            json.dumps(rows.shape),
            price,
            key,
        )

    def _update(self, columns: str, *values: Any) -> None:
        """Changes the row whose key comes last, and those that its program set runs.

        `columns` is written in this file only.
        """
        query = f"UPDATE tasks SET {columns} WHERE key = ? OR task = ?"  # noqa: S608
        with self._lock:
            self._db.execute(query, (*values, values[-1]))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What is written inside is written together or, after an exception, not at all."""
        with self._lock:
            if self._db.in_transaction:
                yield
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")


def _entry(row: sqlite3.Row) -> Entry:
    rows = None
    if row["rows"] is not None:
        shots, qubits = json.loads(row["shape"])
        bits = np.unpackbits(np.frombuffer(row["rows"], np.uint8), count=shots * qubits)
        rows = bits.reshape(shots, qubits).astype(np.int8)
    return Entry(
        key=row["key"],
        device=row["device"],
        request=json.loads(row["request"]),
        note=json.loads(row["note"]),
        price=row["price"],
        reserved=datetime.fromisoformat(row["reserved"]),
        status=row["status"],
        arn=row["arn"],
        reason=row["reason"],
        answer=json.loads(row["answer"] or "{}"),
        rows=rows,
        task=row["task"],
    )
