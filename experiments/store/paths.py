"""Stores that were named; imports nothing that takes time."""

from __future__ import annotations

from pathlib import Path

from experiments.errors import StoreError


def store_path(path: str | Path) -> Path:
    """A store to be read.

    Raises:
        StoreError: no such file, an empty one, or no file.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise StoreError(f"store {path} is no file; name a file, new or of a study")
    if not path.exists() or path.stat().st_size == 0:
        raise StoreError(f"store {path} does not exist or is empty; run a study into it")
    return path
