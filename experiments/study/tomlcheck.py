"""Checks of the values in a study file."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from experiments.errors import StudyError

T = TypeVar("T")


def expect(value: Any, kind: type[T], key: str, wanted: str) -> T:
    """`value` if it is of that type.

    Raises:
        StudyError: naming the key, the value and what it should be.
    """
    if not isinstance(value, kind):
        raise StudyError(f"{key} is {value!r}; it should be {wanted}")
    return value


def number(value: Any, key: str) -> float:
    """`value` as a float.

    Raises:
        StudyError: it is no number, or a whole one beyond all floats.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise StudyError(f"{key} is {value!r}; it should be a number")
    try:
        return float(value)
    except OverflowError as error:
        raise StudyError(f"{key} is too large; give a number below 1e308") from error


def refuse_unknown(table: Mapping[str, Any], known: Iterable[str], inside: str = "") -> None:
    """Raises `StudyError` for the first key that is not in `known`, with the nearest that is."""
    known = list(known)
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
            where = f"{inside}: " if inside else ""
            raise StudyError(f"{where}unknown key {key!r}; {hint}")
