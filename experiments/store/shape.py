"""What a store's tables must look like before anything is read from them.

SQLite runs what a file defines (views, triggers, generated columns, indexes on expressions) and
puts any type into any column. A store has none of the former, and its columns keep their type.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd

from experiments.errors import StoreError
from experiments.store.schema import TABLES, UPGRADES

# By declared type, what pandas calls a column of such values, missing ones left out.
_KINDS = {
    "TEXT": ("string",),
    "REAL": ("floating", "integer", "mixed-integer-float"),
    "INTEGER": ("integer",),
    "BLOB": ("bytes",),
}


@dataclass(frozen=True)
class Column:
    """A column's declared type, and whether it may be empty."""

    kind: str
    required: bool


@cache
def layout() -> Mapping[str, Mapping[str, Column]]:
    """Table -> column -> what it holds, in the newest schema."""
    db = sqlite3.connect(":memory:")
    try:
        db.executescript(TABLES)
        names = [
            name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type='table'")
        ]
        return {
            name: {
                column: Column(kind, bool(required))
                for _, column, kind, required, *_ in db.execute(f"PRAGMA table_info({name})")
            }
            for name in names
        }
    finally:
        db.close()


def added_since(version: int) -> set[tuple[str, str]]:
    """``(table, column)`` of what a store of that version lacks."""
    return {(words[2], words[5]) for words in _altered(version) if words[3] == "ADD"}


def former_names(version: int = 1) -> dict[str, str]:
    """Columns of a store of that version that have another name now: former name -> new name."""
    return {words[5]: words[7] for words in _altered(version) if words[3] == "RENAME"}


def _altered(version: int) -> list[list[str]]:
    """The words of every statement that brings a store of that version up to date."""
    return [one.split() for older in UPGRADES if older >= version for one in UPGRADES[older]]


def check_shape(db: sqlite3.Connection, version: int, path: Path) -> None:
    """Refuses a file with anything else in it than a store's tables.

    Raises:
        StoreError: naming what is too many, missing or different.
    """
    known, late, former = layout(), added_since(version), former_names(version)
    found = db.execute("SELECT type, name, sql FROM sqlite_schema").fetchmany(100)
    for kind, name, text in found:
        automatic = kind == "index" and text is None
        usual = kind == "index" and f"{text};" in TABLES
        if not (automatic or usual or (kind == "table" and name in known)):
            raise StoreError(f"{path} is not a store: it has a {kind} {str(name)[:40]!r}")
    for table, columns in known.items():
        here = set()
        for _, given, kind, *_, hidden in db.execute(f"PRAGMA table_xinfo({table})"):
            name = former.get(given, given)
            early = given in former.values()
            if hidden or early or name not in columns or kind != columns[name].kind:
                raise StoreError(f"{path} is not a store: column {table}.{given} is not of one")
            here.add(name)
        for name in columns:
            if name not in here and (table, name) not in late:
                raise StoreError(f"{path} is not a store: it has no column {table}.{name}")


def check_types(frame: pd.DataFrame, columns: Mapping[str, Column], what: str) -> None:
    """Refuses values of another type than the column's.

    Raises:
        StoreError: naming the column.
    """
    for name in frame.columns:
        values, column = frame[name], columns[str(name)]
        if column.required and values.isna().any():
            raise StoreError(f"{what}.{name} is empty in a row: the store is damaged")
        kind = pd.api.types.infer_dtype(values, skipna=True)
        # Integers beside missing values come as floats.
        optional = kind == "floating" and not column.required
        if kind != "empty" and kind not in _KINDS[column.kind] and not optional:
            raise StoreError(f"{what}.{name} holds {kind} values: the store is damaged")
