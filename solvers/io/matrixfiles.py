"""Texts that list the entries of a matrix, one ``i j value`` a line.

============ ======== ======== ================== ============================================
suffix       counts   pairs    without a mark     convention of
             from     count
============ ======== ======== ================== ============================================
.ubqp        1        twice    **maximise** x'Qx  MQLib (``bin/sampleQUBO.txt``) and OR-Library
                                                  (``bqpinfo.html``)
.sparse      1        twice    minimise x'Qx      Biq Mac Library
.qs          1        twice    minimise x'Qx      QOBLIB; as .qs.xz compressed
.qubo        0        once     minimise           D-Wave's qbsolv
============ ======== ======== ================== ============================================

The first two lay out the same symmetric matrix, each pair written once, with opposite senses, and
nothing in a foreign file tells them apart but its name: Biq Mac's ``bqp50-1.sparse`` is the negated
first problem of OR-Library's ``bqp50``. Our own files say it in a comment, ``maximise x'Qx`` or
``minimise x'Qx``, which wins over the suffix; files of earlier releases say ``minimise``.

What the formats have no field for stands in comments: ``cardinality``, ``group`` (its ones and
places), ``label`` (place and name), ``indices`` (of every variable, its position in the weight of
its layer, counted from 0) and the constant of the objective, which is read as other programs spell
it as well: ``offset -7.5``, ``offset : -7.5``, ``ObjectiveOffset -7.5``,
``Constant term of objective = -7.5``. A ``scale : 2`` (QUBOTools, bqpjson) multiplies everything.
"""

from __future__ import annotations

import json
import lzma
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from solvers.arithmetic.rounding import penalised
from solvers.errors import FormatError
from solvers.io.textfile import Objective, check_size, number, read_text, whole
from solvers.problem import CardinalityProblem, Floats

_NUMBER = r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
_SENSE = re.compile(r"(?:(min|max)imi[sz]e\s+(?:x'Qx|sum Q_)|sense\s*[:=]\s*(min|max)).*", re.I)
_PAIR = re.compile(
    r"(cardinality|scale|offset)\s*[:=]\s*(\S+)|(cardinality|offset)\s+([-+.0-9]\S*|nan|inf\S*)",
    re.I,
)
_PROSE = re.compile(rf"(?:offset|\bconstant)\b[a-z ]*[:=]?\s*({_NUMBER})(?![-\w]|\.[0-9])", re.I)
_GROUP = re.compile(r"group\s+with\s+([0-9]+)\s+ones\s*:((?:\s+[0-9]+)+)")
_INDICES = re.compile(r"indices\s*:((?:\s+[0-9]+)+)")
_LABEL = re.compile(r'label\s+([0-9]+)\s+(".*")')


@dataclass(frozen=True)
class _Family:
    """Where a suffix's conventions differ; see the table above."""

    comment: str
    first: int
    pairs_count_twice: bool
    maximised: bool


FAMILIES = {
    ".ubqp": _Family("#", 1, pairs_count_twice=True, maximised=True),
    ".sparse": _Family("#", 1, pairs_count_twice=True, maximised=False),
    ".qs": _Family("#", 1, pairs_count_twice=True, maximised=False),
    ".qs.xz": _Family("#", 1, pairs_count_twice=True, maximised=False),
    ".qubo": _Family("c", 0, pairs_count_twice=False, maximised=False),
}


def read_matrix(path: Path, suffix: str) -> Objective:
    """The objective in a file, by the convention of a suffix.

    Args:
        path: the file.
        suffix: key of `FAMILIES`.

    Raises:
        FormatError: cut off, several problems, an entry that is out of range or appears twice,
            comments that contradict each other.
        ValueError: a word where a number belongs.
    """
    family = FAMILIES[suffix]
    lines, comments = _split(path, family.comment)
    notes = _Notes(path.name, comments)
    head = _qubo_head if family.comment == "c" else _ubqp_head
    n, count, rest = head(path.name, lines)
    Q = _matrix(path.name, rest, n, count, family.first)
    if family.pairs_count_twice:
        Q = 2 * Q - np.diag(Q.diagonal())
    maximised = family.maximised if notes.maximised is None else notes.maximised
    # Adding 0 makes -0 of a negated matrix plain 0, which has another hash.
    sign = -notes.scale if maximised else notes.scale
    return Objective(
        Q=sign * Q + 0.0,
        offset=sign * notes.offset + 0.0,
        ones=notes.cardinality,
        groups=notes.groups(family.first),
        labels=notes.names(n, family.first),
        indices=notes.indices,
        maximised=maximised,
    )


def matrix_text(problem: CardinalityProblem, penalty: float | None, suffix: str) -> str:
    """The text of a file in the convention of a suffix, all 17 digits.

    Args:
        problem: what to write.
        penalty: adds ``penalty * (sum x - k)^2``.
        suffix: key of `FAMILIES`.

    Raises:
        ProblemError: a penalty so large that the objective is lost in its rounding.
    """
    family = FAMILIES[suffix]
    Q, linear, offset = penalised(problem, penalty or 0.0)
    Q = np.triu(Q)
    if family.pairs_count_twice:
        Q *= 0.5
    np.fill_diagonal(Q, linear)
    if family.maximised:
        Q, offset = -Q, -offset + 0.0
    nodes, entries = np.count_nonzero(Q.diagonal()), np.count_nonzero(Q)
    if family.comment == "c":
        sense = "minimise sum Q_ii x_i + sum_(i<j) Q_ij x_i x_j + offset"
        head = f"p qubo 0 {problem.n} {nodes} {entries - nodes}\n"
    else:
        maximised = "maximise x'Qx + offset, which is -E(x)"
        sense = maximised if family.maximised else "minimise x'Qx + offset"
        head = f"{problem.n} {entries}\n"
    # QOBLIB's readers know one spelling.
    constant = f"ObjectiveOffset {offset!r}" if suffix.startswith(".qs") else f"offset : {offset!r}"
    comments = [sense, f"cardinality : {problem.cardinality}", constant]
    if problem.groups is not None:
        for part, ones in zip(problem.members, problem.group_ones.tolist(), strict=True):
            places = " ".join(map(str, (part + family.first).tolist()))
            comments.append(f"group with {ones} ones : {places}")
    if problem.indices is not None:
        comments.append(f"indices : {' '.join(map(str, problem.indices.tolist()))}")
    for place, label in enumerate(problem.labels or (), family.first):
        comments.append(f"label {place} {json.dumps(label)}")
    marked = "".join(f"{family.comment} {comment}\n" for comment in comments)
    return marked + head + _entries(Q, family.first)


def compressed(problem: CardinalityProblem, penalty: float | None) -> bytes:
    """`matrix_text` of a ``.qs.xz`` file, compressed."""
    return lzma.compress(matrix_text(problem, penalty, ".qs.xz").encode())


def _entries(Q: Floats, first: int) -> str:
    """A line ``i j value`` for each entry that is not 0, row by row, counted from `first`."""
    lines = []
    for i, row in enumerate(Q):
        columns = np.flatnonzero(row)
        pairs = zip((columns + first).tolist(), row[columns].tolist(), strict=True)
        lines.append("".join(f"{i + first} {j} {value!r}\n" for j, value in pairs))
    return "".join(lines)


def _split(path: Path, comment: str) -> tuple[list[str], list[str]]:
    """Lines with data, and the comments without what marks them."""
    lines, comments = [], []
    for line in read_text(path).split("\n"):
        words = line.strip()
        if words.startswith(comment):
            comments.append(words[len(comment) :].strip())
        elif words:
            lines.append(words)
    return lines, comments


class _Notes:
    """What comments say."""

    def __init__(self, name: str, comments: Iterable[str]) -> None:
        self._name = name
        self._values: dict[str, float] = {}
        self._labels: dict[int, str] = {}
        self._groups: list[tuple[list[int], int]] = []
        self.indices: list[int] | None = None
        for comment in comments:
            self._note(comment)
        self.offset = self._values.get("offset", 0.0)
        self.scale = self._values.get("scale", 1.0)
        if self.scale <= 0:
            raise FormatError(f"{name}: its scale is {self.scale}, expected a positive number")
        ones = self._values.get("cardinality")
        if ones is not None and not ones.is_integer():
            raise FormatError(f"{name}: its cardinality is {ones}, expected a whole number")
        self.cardinality = None if ones is None else int(ones)
        sense = self._values.get("sense")
        self.maximised = None if sense is None else sense < 0

    def groups(self, first: int) -> list[tuple[list[int], int]]:
        """Places and ones of each group, counted from 0."""
        return [([place - first for place in part], ones) for part, ones in self._groups]

    def _note(self, comment: str) -> None:
        if found := _GROUP.fullmatch(comment):
            self._groups.append((list(map(whole, found[2].split())), whole(found[1])))
        elif found := _INDICES.fullmatch(comment):
            indices = list(map(whole, found[1].split()))
            if self.indices not in (None, indices):
                raise FormatError(
                    f"{self._name} gives the variables two lists of indices, keep one"
                )
            self.indices = indices
        elif found := _SENSE.fullmatch(comment):
            word = (found[1] or found[2]).lower()
            self._say("sense", -1.0 if word.startswith("max") else 1.0)
        elif found := _PAIR.fullmatch(comment):
            self._say((found[1] or found[3]).lower(), number(found[2] or found[4]))
        elif found := _PROSE.search(comment):
            self._say("offset", float(found[1]))
        elif found := _LABEL.fullmatch(comment):
            place, label = whole(found[1]), json.loads(found[2])
            if self._labels.setdefault(place, label) != label:
                raise FormatError(f"{self._name}: variable {place} has two labels, keep one")

    def _say(self, key: str, value: float) -> None:
        if not math.isfinite(value):
            raise FormatError(f"{self._name}: its {key} is {value}, expected a finite number")
        if self._values.setdefault(key, value) != value:
            raise FormatError(f"{self._name}: its comments give two values for {key}, keep one")

    def names(self, n: int, first: int) -> tuple[str, ...] | None:
        if not self._labels:
            return None
        if sorted(self._labels) != list(range(first, first + n)):
            raise FormatError(
                f"{self._name} has labels for {len(self._labels)} of {n} variables: label all or "
                "none"
            )
        return tuple(self._labels[place] for place in range(first, first + n))


def _ubqp_head(name: str, lines: list[str]) -> tuple[int, int, list[str]]:
    words = lines[0].split() if lines else []
    if len(words) == 1 and len(lines) > 1 and len(lines[1].split()) == 2:
        # OR-Library's files start with the number of problems in them.
        if whole(words[0]) != 1:
            raise FormatError(
                f"{name} holds {words[0]} problems: make a file of one, from its line 'n m' on"
            )
        lines = lines[1:]
        words = lines[0].split()
    if len(words) != 2:
        raise FormatError(f"{name}: the first line must be 'n m'")
    return whole(words[0]), whole(words[1]), lines[1:]


def _qubo_head(name: str, lines: list[str]) -> tuple[int, int, list[str]]:
    words = lines[0].split() if lines else []
    if len(words) != 6 or words[:2] != ["p", "qubo"]:
        raise FormatError(f"{name}: expected 'p qubo 0 maxNodes nNodes nCouplers'")
    return whole(words[3]), whole(words[4]) + whole(words[5]), lines[1:]


def _matrix(name: str, lines: list[str], n: int, count: int, first: int) -> Floats:
    """The upper triangle, shape (n, n), of lines ``i j value``."""
    check_size(name, n, len(lines))
    if len(lines) != count:
        raise FormatError(f"{name} declares {count} entries and has {len(lines)}")
    Q = np.zeros((n, n))
    stands = np.zeros((n, n), dtype=np.bool_)
    for line in lines:
        words = line.split()
        if len(words) != 3:
            raise FormatError(f"{name}: {line!r} is not an entry 'i j value'")
        i, j = sorted((whole(words[0]) - first, whole(words[1]) - first))
        if not 0 <= i <= j < n:
            raise FormatError(f"{name}: entry {line!r} is outside {first}..{n - 1 + first}")
        if stands[i, j]:
            raise FormatError(f"{name}: pair {words[0]} {words[1]} appears twice")
        stands[i, j] = True
        Q[i, j] = number(words[2])
    if not np.isfinite(Q).all():
        raise FormatError(f"{name} has entries that are not finite numbers")
    return Q
