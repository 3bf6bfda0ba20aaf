"""Several stores of one study, say of several machines, into one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from experiments.errors import StoreError
from experiments.store.check import SHOWN, check
from experiments.store.database import Store
from experiments.store.shape import layout


@dataclass
class Merged:
    """What `merge` did.

    Attributes:
        added: cells that were new.
        same: cells that were there with the same content.
        conflicts: one line a cell or blob that was there with another content; the one that was
            there first was kept.
    """

    added: int = 0
    same: int = 0
    conflicts: list[str] = field(default_factory=list)


def merge(sources: Sequence[str | Path], out: str | Path) -> Merged:
    """Adds the cells of stores to another, by cell key; each source as a whole or not at all.

    A cell that is there stays as it is, unless it is pending and the source's is not.

    Args:
        sources: stores, of any schema that can be read; they are not changed.
        out: the store to add to; made if missing.

    Raises:
        StoreError: a source that is damaged or is `out` itself; an `out` that cannot be written.
    """
    paths = [Path(source) for source in sources]
    for path in paths:
        if Path(out).exists() and path.exists() and path.samefile(out):
            raise StoreError(f"store {path} is to be merged into itself; name it once, as --out")
        found = check(path)
        if not found.sound:
            raise StoreError(
                f"store {path} is damaged, nothing of it was merged: {found.faults[0]}"
            )
    result = Merged()
    with Store(out, create=True) as target:
        for path in paths:
            with Store(path) as source:
                _add(target, source, result)
    return result


def _add(target: Store, source: Store, result: Merged) -> None:
    columns = {name: source.columns(name) for name in layout()}
    with target._transaction() as db:
        for row in _stream(source, "instances", columns["instances"]):
            _insert(db, "instances", list(columns["instances"].values()), row)
        numbers = _invocations(db, source)
        added = set()
        names = list(columns["runs"].values())
        keep = [i for i, name in enumerate(names) if name != "invocation"]
        for row in _stream(source, "runs", columns["runs"]):
            cell = dict(zip(names, row, strict=True))
            there = db.execute(
                f"SELECT {_quoted(names)} FROM runs WHERE key = ?",  # noqa: S608 - own columns
                (cell["key"],),
            ).fetchone()
            if there is not None and _pending(names, there) and not cell.get("pending"):
                db.execute("DELETE FROM incumbents WHERE run = ?", (cell["key"],))
                db.execute("DELETE FROM runs WHERE key = ?", (cell["key"],))
                there = None
            if there is None:
                cell["invocation"] = numbers[cell["invocation"]]
                _insert(db, "runs", names, tuple(cell.values()))
                added.add(cell["key"])
                result.added += 1
            elif all(row[i] == there[i] for i in keep):
                result.same += 1
            else:
                differing = [names[i] for i in keep if row[i] != there[i]]
                result.conflicts.append(
                    f"cell {cell['key']} ({cell['solver']}, seed {cell['seed_index']}) of "
                    f"{source.path}: other {', '.join(differing[:4])}"
                )
        for row in _stream(source, "incumbents", columns["incumbents"]):
            if row[0] in added:
                _insert(db, "incumbents", list(columns["incumbents"].values()), row)
        for name, kind, data in source._rows("SELECT name, kind, data FROM blobs"):
            there = db.execute("SELECT data FROM blobs WHERE name = ?", (name,)).fetchone()
            if there is None:
                _insert(db, "blobs", ["name", "kind", "data"], (name, kind, data))
            elif there[0] != data:
                result.conflicts.append(f"{name!r} of {source.path} differs")


def _invocations(db: sqlite3.Connection, source: Store) -> dict[int, int]:
    """Number in the source -> number in the target; drivers that are there keep theirs."""
    numbers = {}
    names = ["started", "study", "settings", "host"]
    for number, *rest in source._rows(f"SELECT id, {_quoted(names)} FROM invocations"):  # noqa: S608
        where = " AND ".join(f"{name} = ?" for name in names)
        there = db.execute(f"SELECT id FROM invocations WHERE {where}", rest).fetchone()  # noqa: S608
        if there is None:
            _insert(db, "invocations", names, tuple(rest))
            there = db.execute("SELECT last_insert_rowid()").fetchone()
        numbers[number] = there[0]
    return numbers


def _pending(names: list[str], row: tuple[object, ...]) -> bool:
    return "pending" in names and row[names.index("pending")] == 1


def _stream(store: Store, table: str, names: Iterable[str]) -> sqlite3.Cursor:
    # Column and table names are this package's, see `storeshape.check_shape`.
    return store._db.execute(f"SELECT {_quoted(names)} FROM {table}")  # noqa: S608


def _quoted(names: Iterable[str]) -> str:
    """Columns that `storeshape.check_shape` has seen to be this package's."""
    return ", ".join(f'"{name}"' for name in names)


def _insert(db: sqlite3.Connection, table: str, names: list[str], row: tuple[object, ...]) -> None:
    marks = ", ".join("?" * len(names))
    query = f"INSERT INTO {table} ({_quoted(names)}) VALUES ({marks}) ON CONFLICT DO NOTHING"  # noqa: S608
    db.execute(query, row)


def summary(result: Merged) -> str:
    """What was done, for people."""
    lines = [f"{result.added} cells added, {result.same} were there, "
             f"{len(result.conflicts)} conflicts (what was there was kept)"]  # fmt: skip
    lines += [f"  {line}" for line in result.conflicts[:SHOWN]]
    if len(result.conflicts) > SHOWN:
        lines.append(f"  and {len(result.conflicts) - SHOWN} more")
    return "\n".join(lines)
