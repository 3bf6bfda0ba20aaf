"""Reader of QPLIB files whose variables are binary.

Source of the format: Furini et al. 2019, QPLIB: a library of quadratic programming instances
(Mathematical Programming Computation 11, 237), and https://qplib.zib.de/doc.html. A file is a
sequence of values, each first on its line; what follows them is commentary. The objective is
``1/2 x'Qx + b.x + q``, of Q the lower triangle.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from solvers.errors import FormatError
from solvers.textfile import check_size, read_text

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Objective:
    """What a file says.

    Attributes:
        Q: upper triangle of ``sum Q_ij x_i x_j`` with the linear part on the diagonal, (n, n), to
            be minimised.
        offset: added to it.
        ones: k, if the one constraint is ``sum x = k``; None without constraints.
    """

    Q: Floats
    offset: float
    ones: int | None


class _Lines:
    """The file's lines without comments, read one after the other."""

    def __init__(self, path: Path) -> None:
        self._name = path.name
        lines = (line.split("#")[0].split("!")[0].split() for line in read_text(path).splitlines())
        held = [words for words in lines if words]
        self.count = len(held)
        self._lines: Iterator[list[str]] = iter(held)

    def words(self, count: int) -> list[str]:
        words = next(self._lines, [])
        if len(words) < count:
            raise FormatError(f"{self._name} ends early, or a line has too few values")
        return words[:count]

    def whole(self) -> int:
        count = int(self.words(1)[0])
        if count < 0:
            raise FormatError(f"{self._name} declares {count} where a count belongs")
        return count

    def number(self) -> float:
        return float(self.words(1)[0])

    def entries(self, indices: int) -> list[tuple[list[int], float]]:
        """A count, then that many lines of 1-based indices and a value; 0-based here."""
        count = self.whole()
        found = []
        for _ in range(count):
            *places, value = self.words(indices + 1)
            found.append(([int(word) - 1 for word in places], float(value)))
        return found

    def vector(self, size: int) -> Floats:
        """A default, then what differs from it."""
        values = np.full(size, self.number())
        for (place,), value in self.entries(1):
            values[_inside(place, size, self._name)] = value
        return values


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
    if len(kind) != 3 or kind[1] != "B" or kind[2] not in "NBL":
        raise FormatError(
            f"{path.name} is a QPLIB problem of type {kind}: only binary variables without "
            "constraints, or with sum x = k alone, can be read (QBN, QBL, LBL)"
        )
    n = lines.whole()
    check_size(path.name, n, lines.count)
    constraints = lines.whole() if kind[2] == "L" else 0
    if constraints > 1:
        raise FormatError(
            f"{path.name} has {constraints} constraints that are not the one sum x = k"
        )
    Q = np.zeros((n, n))
    for (i, j), value in [] if kind[0] == "L" else lines.entries(2):
        # Each pair stands once, for both halves of the symmetric matrix.
        low, high = sorted((_inside(i, n, path.name), _inside(j, n, path.name)))
        Q[low, high] += value if low != high else 0.5 * value
    Q[np.diag_indices(n)] += lines.vector(n)
    offset = lines.number()
    ones = _cardinality(lines, n, constraints, path) if kind[2] == "L" else None
    sign = -1.0 if sense.startswith("max") else 1.0
    return Objective(sign * Q, sign * offset, ones)


def _cardinality(lines: _Lines, n: int, constraints: int, path: Path) -> int | None:
    weights = np.zeros((constraints, n))
    for (row, place), value in lines.entries(2):
        weights[_inside(row, constraints, path.name), _inside(place, n, path.name)] = value
    lines.number()  # what counts as infinity
    lower, upper = lines.vector(constraints), lines.vector(constraints)
    if constraints == 0:
        return None
    if not (weights == 1).all() or lower[0] != upper[0]:
        raise FormatError(f"{path.name} has a constraint that is not the one sum x = k")
    return round(float(lower[0]))


def _inside(place: int, size: int, name: str) -> int:
    if not 0 <= place < size:
        raise FormatError(f"{name}: index {place + 1} is outside 1..{size}")
    return place
