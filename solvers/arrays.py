"""Arrays and names that a problem holds: checked once, then read-only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from solvers.arguments import numbers
from solvers.errors import ProblemError

# Of an energy's terms in all: beyond it float64 has no room for what is made of them.
MOST = 1e290


def frozen(array: NDArray[Any]) -> NDArray[Any]:
    """The array, made read-only down to the one that owns its numbers; no problem copies it then.

    Args:
        array: nobody writes to any more, through whatever else holds its memory.
    """
    part: Any = array
    while isinstance(part, np.ndarray):
        part.flags.writeable = False
        part = part.base
    return array


def distinct_names(labels: Any, n: int) -> tuple[str, ...]:
    """The names of n variables.

    Raises:
        ProblemError: no list of text, another number of names, a name that repeats.
    """
    if isinstance(labels, str) or not isinstance(labels, Sequence):
        raise ProblemError(f"labels is a {type(labels).__name__}, expected a list of names")
    names = tuple(labels)
    if not all(isinstance(name, str) for name in names):
        strange = next(name for name in names if not isinstance(name, str))
        raise ProblemError(f"labels has {strange!r}, expected text: pass str({strange!r})")
    if len(names) != n or len(set(names)) != n:
        raise ProblemError(
            f"labels has {len(set(names))} different names for {n} variables: give each its own"
        )
    return names


def finite_numbers(name: str, values: ArrayLike, ndim: int) -> NDArray[np.float64]:
    """Finite numbers as a read-only array of float64.

    Args:
        name: what messages call it.
        values: anything that `numbers` takes.
        ndim: dimensions it must have.

    Raises:
        ProblemError: no such numbers, or so large that energies overflow.
    """
    array = _owned(numbers(name, values, ndim), np.float64, values)
    largest = float(max(array.max(initial=0.0), -array.min(initial=0.0)))
    if not np.isfinite(largest):
        bad = np.argwhere(~np.isfinite(array))[0].tolist()
        raise ProblemError(f"{name}{bad} is {array[tuple(bad)]}, expected a finite number")
    # Of the terms of an energy: entries of the factor are squared.
    size = len(array) * float(array.shape[-1]) ** 2 * largest
    if name == "factor" and largest > 1:
        size *= largest
    if size > MOST:
        raise ProblemError(
            f"{name} has entries of up to {largest:.3g}, with which energies overflow: divide the "
            "problem by a constant and put that into scale"
        )
    return array


def whole_numbers(name: str, values: ArrayLike, dtype: type[np.signedinteger[Any]]) -> NDArray[Any]:
    """Whole numbers as a read-only array of a type that holds them, shape (n,).

    Raises:
        ProblemError: a fraction, or a number that the type does not hold.
    """
    given = numbers(name, values, ndim=1)
    places = _owned(given, dtype, values)
    if not np.array_equal(places, given):
        bad = given[np.flatnonzero(places != given)[0]]
        raise ProblemError(f"{name} has the entry {bad}, expected 64-bit whole numbers")
    return places


def _owned(array: NDArray[Any], dtype: Any, given: ArrayLike) -> NDArray[Any]:
    """The array in C order and of that type, read-only; a copy if others could write to it."""
    with np.errstate(invalid="ignore"):
        made = np.ascontiguousarray(array, dtype=dtype)
    shared = not isinstance(given, list | tuple) and np.may_share_memory(made, array)
    if not shared:
        return frozen(made)
    return made if _read_only(made) else frozen(made.copy())


def _read_only(array: NDArray[Any]) -> bool:
    part: Any = array
    while isinstance(part, np.ndarray):
        if part.flags.writeable:
            return False
        part = part.base
    return True
