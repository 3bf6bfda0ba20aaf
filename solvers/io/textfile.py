"""What the readers of problem files share: text, numbers, sizes, and what a file says."""

from __future__ import annotations

import io
import lzma
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from solvers.errors import FormatError

# A dense model of more variables than this would take over 3 GB.
MAX_DENSE_VARIABLES = 20_000
# As many may stand in a file without a line of their own; a dense matrix of them takes 32 MB.
_FREE_VARIABLES = 2_048
# Bytes that a compressed file may hold: a small one can unpack to any number.
MOST_TEXT = 2**30


@dataclass(frozen=True)
class Objective:
    """What a file says.

    Attributes:
        Q: upper triangle of ``sum Q_ij x_i x_j`` with the linear part on the diagonal, (n, n), to
            be minimised.
        offset: added to it.
        ones: k, if the file has it; ones among `fixed` count.
        labels: names of the variables; None where their places are their names.
        maximised: whether the file maximises; `Q` and `offset` are then the negated ones.
        fixed: variables that the file fixes, by name; they are no variables of `Q` any more.
        forced: how many binary ones of them are 1.
        groups: variables of each group and how many of them are 1; empty where all are one.
        indices: position of each variable in the weight of its layer, if the file has them.
    """

    Q: NDArray[np.float64]
    offset: float
    ones: int | None
    labels: tuple[str, ...] | None = None
    maximised: bool = False
    fixed: Mapping[str, float] = field(default_factory=dict)
    forced: int = 0
    groups: Sequence[tuple[Sequence[int], int]] = ()
    indices: Sequence[int] | None = None


def read_text(path: Path) -> str:
    """The file as text, with line feeds only; a byte order mark is no part of it.

    Raises:
        FormatError: it is not UTF-8, not the compressed file that its name says, or larger than
            `MOST_TEXT` when it is.
    """
    if path.name.lower().endswith(".xz"):
        return _unpacked(path)
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path.name} is not text: byte {error.start} is not UTF-8") from error


def whole(word: str) -> int:
    """A whole number in decimal digits.

    Raises:
        ValueError: anything else, such as ``1_000``, which Python would take.
    """
    if not word.isascii() or "_" in word:
        raise ValueError(f"{word!r} is not a whole number")
    return int(word)


def number(word: str) -> float:
    """A number as C's ``strtod`` reads it.

    Raises:
        ValueError: anything else, such as ``1_000``, which Python would take, or ``1,5``.
    """
    if not word.isascii() or "_" in word:
        raise ValueError(f"{word!r} is not a number")
    return float(word)


def _unpacked(path: Path) -> str:
    try:
        with lzma.open(path) as file:
            data = file.read(MOST_TEXT + 1)
    except (lzma.LZMAError, EOFError) as error:
        raise FormatError(f"{path.name} is damaged or no .xz file: {error}") from error
    if len(data) > MOST_TEXT:
        raise FormatError(
            f"{path.name} holds more than {MOST_TEXT:,} bytes of text: unpack it and read that"
        )
    try:
        return io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig").read()
    except UnicodeDecodeError as error:
        raise FormatError(f"{path.name} is not text: byte {error.start} is not UTF-8") from error


def count_between(name: str, low: float, high: float, weight: float = 1.0) -> int:
    """The k of a constraint ``low <= weight * sum x <= high`` over binary variables.

    Raises:
        FormatError: no or several whole numbers lie between.
    """
    low, high = low / weight, high / weight
    if weight < 0:
        low, high = high, low
    between = f"{name}: sum x = {low:g}" if low == high else f"{name}: {low:g} <= sum x <= {high:g}"
    least, most = np.ceil(low), np.floor(high)
    if not least <= most:
        raise FormatError(f"{between} has no solution")
    if least < most:
        raise FormatError(f"{between} allows several numbers of ones, expected sum x = k")
    return int(least)


def check_size(name: str, n: int, lines: int | None = None) -> None:
    """Before anything of that size is made.

    Args:
        name: of the file.
        n: variables that are declared or found.
        lines: in the file, each of which can mention two variables; None for a file that holds
            something of every variable.

    Raises:
        FormatError: negative, more than a dense model can have, or far more than are mentioned.
    """
    if n < 0:
        raise FormatError(f"{name} declares {n} variables")
    if n > MAX_DENSE_VARIABLES:
        raise FormatError(
            f"{name}: {n} variables; dense formats hold at most {MAX_DENSE_VARIABLES}, "
            "use .block.safetensors"
        )
    if lines is not None and n > max(_FREE_VARIABLES, 2 * lines):
        raise FormatError(
            f"{name} declares {n} variables in {lines} lines: most of them have no entry; "
            f"leave those out, or declare at most {_FREE_VARIABLES}"
        )
