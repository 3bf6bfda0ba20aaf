"""Reader of QPLIB files whose variables are binary.

Source of the format: Furini et al. 2019, QPLIB: a library of quadratic programming instances
(Mathematical Programming Computation 11, 237), and https://qplib.zib.de/doc.html. A file is a
sequence of values, each first on its line; what follows them is commentary. The objective is
``1/2 x'Qx + b.x + q``, of Q the lower triangle. After the problem come a starting point, in which
nothing of the problem stands, and the names of the variables.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from solvers.errors import FormatError
from solvers.io.textfile import Objective, check_size, count_between, number, read_text, whole

Floats = NDArray[np.float64]


class _EarlyEndError(FormatError):
    """A file goes on no further."""


class _Lines:
    """The file's lines without comments, read one after the other."""

    def __init__(self, path: Path) -> None:
        self._name = path.name
        lines = (re.split("[#!%]", line)[0].split() for line in read_text(path).split("\n"))
        self._lines = [words for words in lines if words]
        self._next = 0
        self.count = len(self._lines)

    def words(self, count: int) -> list[str]:
        words = [] if self.ended else self._lines[self._next]
        self._next += 1
        if len(words) < count:
            raise _EarlyEndError(f"{self._name} ends early, or a line has too few values")
        return words[:count]

    def whole(self) -> int:
        count = whole(self.words(1)[0])
        if count < 0:
            raise FormatError(f"{self._name} declares {count} where a count belongs")
        return count

    def number(self) -> float:
        return number(self.words(1)[0])

    def place(self, word: str, size: int) -> int:
        """A 1-based index as a 0-based one."""
        place = whole(word) - 1
        if not 0 <= place < size:
            raise FormatError(f"{self._name}: index {word} is outside 1..{size}")
        return place

    def entries(self, *sizes: int) -> Iterator[tuple[tuple[int, ...], float]]:
        """A count, then that many lines of indices, each below its size, and a value."""
        seen = set()
        for _ in range(self.whole()):
            *words, value = self.words(len(sizes) + 1)
            places = tuple(self.place(word, size) for word, size in zip(words, sizes, strict=True))
            if places in seen:
                raise FormatError(f"{self._name}: the entry of {' '.join(words)} appears twice")
            seen.add(places)
            yield places, number(value)

    def vector(self, size: int) -> Floats:
        """A default, then what differs from it."""
        values = np.full(size, self.number())
        for (place,), value in self.entries(size):
            values[place] = value
        return values

    def names(self, size: int) -> tuple[str, ...] | None:
        """A count, then that many lines of a 1-based index and a name."""
        count = self.whole()
        names = [f"x{place + 1}" for place in range(size)]
        for _ in range(count):
            word, name = self.words(2)
            names[self.place(word, size)] = name
        return tuple(names) if count else None

    @property
    def ended(self) -> bool:
        """Whether all lines have been read."""
        return self._next >= len(self._lines)


def read_qplib(path: Path) -> Objective:
    """The objective of a file, and its cardinality if it has that constraint.

    Args:
        path: the file.

    Raises:
        FormatError: variables that are not binary, another constraint than ``sum x = k``, a file
            that is cut off.
    """
    lines = _Lines(path)
    lines.words(1)
    kind, sense = lines.words(1)[0].upper(), lines.words(1)[0].lower()
    if len(kind) != 3 or kind[0] not in "LDCQ" or kind[1] != "B" or kind[2] not in "NBL":
        raise FormatError(
            f"{path.name} is a QPLIB problem of type {kind}: only binary variables without "
            "constraints, or with sum x = k alone, can be read (QBN, QBL, LBL)"
        )
    if sense not in ("minimize", "maximize"):
        raise FormatError(f"{path.name}: its sense is {sense!r}, expected minimize or maximize")
    n = lines.whole()
    check_size(path.name, n, lines.count)
    constraints = lines.whole() if kind[2] == "L" else 0
    if constraints > 1:
        raise FormatError(f"{path.name} has {constraints} constraints, expected the one sum x = k")
    lower, diagonal = np.zeros((n, n)), np.arange(n)
    for place, value in [] if kind[0] == "L" else lines.entries(n, n):
        lower[place] = value
    if (np.triu(lower, 1) * lower.T).any():
        raise FormatError(f"{path.name} has the same pair in both triangles of Q")
    # Each pair stands once, for both halves of the symmetric matrix.
    Q = np.triu(lower + lower.T, 1)
    Q[diagonal, diagonal] = 0.5 * lower.diagonal() + lines.vector(n)
    offset = lines.number()
    ones = _cardinality(lines, n, constraints, path.name) if kind[2] == "L" else None
    maximised = sense == "maximize"
    sign = -1.0 if maximised else 1.0
    return Objective(
        Q=sign * Q + 0.0,
        offset=sign * offset + 0.0,
        ones=ones,
        labels=_names(lines, n, constraints, kind),
        maximised=maximised,
    )


def _cardinality(lines: _Lines, n: int, constraints: int, name: str) -> int | None:
    weights = np.zeros((constraints, n))
    for place, value in lines.entries(constraints, n):
        weights[place] = value
    lines.number()  # what counts as infinity
    lower, upper = lines.vector(constraints), lines.vector(constraints)
    if constraints == 0:
        return None
    if n == 0 or not weights[0, 0] or (weights != weights[0, 0]).any():
        raise FormatError(f"{name} has a constraint other than sum x = k")
    return count_between(name, float(lower[0]), float(upper[0]), float(weights[0, 0]))


def _names(lines: _Lines, n: int, constraints: int, kind: str) -> tuple[str, ...] | None:
    """Names after the starting point, in files that have them."""
    try:
        if kind[2] != "L":
            lines.number()  # what counts as infinity
        lines.vector(n)
        if kind[2] == "L":
            lines.vector(constraints)
        lines.vector(n)
    except _EarlyEndError:
        return None
    return None if lines.ended else lines.names(n)
