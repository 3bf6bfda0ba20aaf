"""What callers pass, checked: a refusal is one sentence of the argument, its value, the remedy."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.errors import ParameterError, ProblemError, SolverError

Error = type[SolverError]


def whole(
    name: str, value: Any, least: int, most: int | None = None, error: Error = ParameterError
) -> int:
    """A whole number as an int; 2.0 and numpy's numbers are whole, "2" and True are not.

    Raises:
        SolverError: of the kind `error`: another type, a fraction, out of range.
    """
    number = _scalar(value)
    if (
        number is None
        or not math.isfinite(number)
        or number % 1
        or number < least
        or (most is not None and number > most)
    ):
        span = f"from {least}" if most is None else f"in {least}..{most}"
        raise error(f"{name} is {_shown(value)}, expected a whole number {span}")
    return int(number)


def finite(name: str, value: Any, error: Error = ParameterError) -> float:
    """A finite number as a float.

    Raises:
        SolverError: of the kind `error`: another type, NaN, infinite.
    """
    number = _scalar(value)
    try:
        if number is not None and math.isfinite(number):
            return float(number)
    except OverflowError:
        pass
    raise error(f"{name} is {_shown(value)}, expected a finite number")


def positive(
    name: str, value: Any, error: Error = ParameterError, what: str = "a number above 0"
) -> float:
    """A finite number above 0 as a float; `what` calls it so in the message.

    Raises:
        SolverError: of the kind `error`.
    """
    number = _scalar(value)
    try:
        if number is not None and 0 < number < math.inf:
            return float(number)
    except OverflowError:
        pass
    raise error(f"{name} is {_shown(value)}, expected {what}")


def seeded(seed: int | None) -> np.random.Generator:
    """The generator of a caller's seed; of the system's entropy without one.

    Raises:
        ParameterError: no whole number from 0.
    """
    return np.random.default_rng(None if seed is None else whole("seed", seed, 0))


def plain(value: Any) -> Any:
    """A number of numpy's as Python's; everything else as it is."""
    return value.item() if isinstance(value, np.generic | np.ndarray) and value.ndim == 0 else value


def numbers(name: str, values: Any, ndim: int) -> NDArray[Any]:
    """Real numbers as an array, without a copy where they are one.

    Raises:
        ProblemError: text, objects, complex, masked or sparse numbers, rows of different lengths,
            another number of dimensions.
    """
    expected = f"expected an array of real numbers with {ndim} dimension{'s' * (ndim > 1)}"
    if hasattr(values, "tocsr"):
        raise ProblemError(f"{name} is a sparse {_kind(values)}, {expected}: pass its .toarray()")
    if isinstance(values, np.ma.MaskedArray):
        raise ProblemError(f"{name} is a masked array, {expected}: pass its .filled(value)")
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ProblemError(f"{name} is a {_kind(values)}, {expected} ({error})") from error
    if array.dtype.kind == "O" and array.ndim and all(isinstance(v, Real) for v in array.flat):
        array = _converted(name, array)
    if array.dtype.kind not in "fiub":
        found = f" of {array.dtype.name}s" if array.ndim else ""
        raise ProblemError(f"{name} is a {_kind(values)}{found}, {expected}")
    if array.ndim != ndim:
        raise ProblemError(f"{name} has {array.ndim} dimensions, expected {ndim}")
    return array


def _converted(name: str, array: NDArray[Any]) -> NDArray[np.float64]:
    try:
        return array.astype(np.float64)
    except OverflowError as error:
        raise ProblemError(
            f"{name} has an entry too large for a 64-bit float: divide by a constant"
        ) from error


def _scalar(value: Any) -> int | float | None:
    """The Python number that a value is; None for everything else, truth values included."""
    value = plain(value)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _kind(value: Any) -> str:
    return type(value).__name__
