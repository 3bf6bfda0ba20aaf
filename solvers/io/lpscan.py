r"""The grammar of LP files: sections, sums, relations.

Only what is read alike by HiGHS, SCIP, CPLEX and Gurobi: signs between terms, ``[ ... ] / 2``
around the quadratic ones of an objective, one relation a line, ``End`` at the end, comments after
``\``.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Never

from solvers.errors import FormatError

# Headings of sections, longest first where one begins another.
_HEADINGS = {
    "minimize": r"minimi[sz]e|minimum|min",
    "maximize": r"maximi[sz]e|maximum|max",
    "subject to": r"subject[ \t]+to|such[ \t]+that|s\.t\.|st\.?",
    "bounds": r"bounds?",
    "other": r"semi-continuous|semis?|sec|sos[12]?|lazy[ \t]+constraints|user[ \t]+cuts"
    r"|gen(?:eral)?[ \t]*cons(?:traints|trs)?|pwlobj|scenario",
    "general": r"generals?|gen|integers?|int",
    "binary": r"binary|binaries|bin",
    "end": r"end",
}
_GROUPS = "|".join(rf"(?P<{key.replace(' ', '_')}>{words})" for key, words in _HEADINGS.items())
_HEADING = re.compile(
    rf"^[ \t]*+(?:{_GROUPS})(?=\s|\Z)(?!\s*+[:=<>])", re.IGNORECASE | re.MULTILINE
)
_WORDS = re.compile("|".join(_HEADINGS.values()), re.IGNORECASE)
# Possessive quantifiers: a hostile file cannot make a pattern try every way to split its blanks.
_SIGNS = r"\s*+([-+][-+\s]*+)?+"
_VALUE = r"(?:[0-9]++\.?[0-9]*+|\.[0-9]++)(?:[eE][-+]?[0-9]++)?+"
_FORBIDDEN = r"\s+\-*/^<>=\[\]:\\;\x00-\x1f"
_NAME = rf"[^0-9.{_FORBIDDEN}][^{_FORBIDDEN}]*+"
_TIMES = r"\s*+\*?+\s*+"
_TERM = re.compile(rf"{_SIGNS}({_VALUE})?+(?:{_TIMES}({_NAME}))?+")
_SQUARE = re.compile(
    rf"{_SIGNS}({_VALUE})?+{_TIMES}({_NAME})\s*+(?:\*(?!\*)\s*+({_NAME})|(?:\^|\*\*)\s*+2(?![0-9.]))"
)
_OPEN = re.compile(rf"{_SIGNS}\[")
_CLOSE = re.compile(r"\s*+\](\s*+/\s*+2(?![0-9.]))?")
_LABEL = re.compile(rf"\s*+({_NAME})\s*+:")
_WORD = re.compile(rf"\s*+({_NAME})")
_RELATION = re.compile(r"\s*+(<=|=<|<|>=|=>|>|=)")
_RIGHT = re.compile(rf"{_SIGNS}({_VALUE}|inf(?:inity)?+(?![^{_FORBIDDEN}]))", re.IGNORECASE)
_FREE = re.compile(rf"\s*+free(?![^{_FORBIDDEN}])", re.IGNORECASE)
_BLANK = re.compile(r"\s*+")
_LINE_END = re.compile(r"[ \t\r]*+(?:\n|\Z)")
_INFINITE = ("inf", "infinity")
# As all of them have it: this and more is no bound.
_HUGE = 1e20


def reserved(name: str) -> bool:
    """Whether a variable of that name would be taken for something else."""
    return _WORDS.fullmatch(name) is not None or name.lower() in (*_INFINITE, "free", "nan")


@dataclass
class Sum:
    """``sum of linear + sum of quadratic + constant``; variables by number.

    Attributes:
        label: what stands before the colon.
        linear: variable -> coefficient.
        rows, columns, values: terms ``value * x_row * x_column``; may name a pair several times.
        constant: of the sum; 0 in a relation.
        low, high: what a relation says of the sum; -inf and inf if nothing.
        given: which of the two it says.
    """

    label: str = ""
    linear: dict[int, float] = field(default_factory=dict)
    rows: array[int] = field(default_factory=lambda: array("q"))
    columns: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))
    constant: float = 0.0
    low: float = -math.inf
    high: float = math.inf
    given: tuple[str, ...] = ()


class Scanner:
    """Reads one section after the other.

    Attributes:
        section: key of the one that is being read.
        numbers: name -> number, of all variables in order of appearance.
    """

    def __init__(self, name: str, text: str) -> None:
        self._name = name
        # As many characters, so that places stay those of the file.
        self._text = re.sub(r"\\[^\n]*", lambda found: " " * len(found[0]), text)
        self._at = self._end = 0
        self._in_relation = False
        self.section = ""
        self.numbers: dict[str, int] = {}

    def sections(self) -> Iterator[str]:
        """Keys of the sections; each must be read to its end before the next one is asked for."""
        headings = list(_HEADING.finditer(self._text))
        self._end = headings[0].start() if headings else len(self._text)
        self.finish()
        for number, heading in enumerate(headings):
            key = (heading.lastgroup or "").replace("_", " ")
            self.section, self._at = heading[0].strip(), heading.end()
            self._in_relation = False
            later = headings[number + 1 :]
            self._end = later[0].start() if later else len(self._text)
            if key == "end":
                if later:
                    self.fail("something follows 'End'")
                self.finish()
                return
            yield key
            self.finish()
        self.fail("there is no 'End': is it cut off?")

    @property
    def done(self) -> bool:
        """Whether nothing is left of the section."""
        found = _BLANK.match(self._text, self._at, self._end)
        return found is not None and found.end() == self._end

    def finish(self) -> None:
        """Refuses what is left of the section."""
        if not self.done:
            self.fail("unexpected text")

    def fail(self, what: str) -> Never:
        """Raises with the line where reading stopped."""
        blank = _BLANK.match(self._text, self._at, self._end)
        at = self._at if blank is None else blank.end()
        line = self._text.count("\n", 0, at) + 1
        raise FormatError(
            f"{self._name} is not an LP file that can be read: {what} (line {line}, "
            f"{self._text[at : at + 40].strip().partition(chr(10))[0]!r})"
        )

    def label(self) -> str:
        """A name and a colon, if they come next."""
        found = self._take(_LABEL)
        return found[1] if found else ""

    def name(self) -> int:
        """The number of the variable whose name comes next."""
        found = self._take(_WORD)
        if found is None:
            self.fail("a name is expected")
        return self._number(found[1])

    def sum(self) -> Sum:
        """Terms as long as they are joined by signs."""
        into, first = Sum(), True
        while True:
            if found := self._peek(_OPEN):
                if not (first or found[1]):
                    return into
                self._at = found.end()
                self._squares(into, _sign(found[1]))
            else:
                found = self._peek(_TERM)
                if found is None or not (found[2] or found[3]) or not (first or found[1]):
                    return into
                self._at = found.end()
                self._term(into, found)
            first = False

    def relation(self, *, free: bool = False) -> Sum:
        """A sum with bounds, on a line that ends with it."""
        self._in_relation = True
        label, left = self.label(), self.sum()
        if free and self._take(_FREE):
            left.low, left.high, left.given = -math.inf, math.inf, ("low", "high")
            return self._ended(left, label)
        sign = self._relation()
        if left.linear or left.values:
            found = left
            self._limit(found, sign, self._right())
        else:
            # low <= sum, and perhaps <= high
            found = self.sum()
            if not (found.linear or found.values):
                self.fail("a relation without a variable")
            self._limit(found, _TURNED[sign], left.constant)
            if self._peek(_RELATION):
                if self._relation() != sign or sign == "=":
                    self.fail("the two relations of a range differ")
                self._limit(found, sign, self._right())
        return self._ended(found, label)

    def _ended(self, found: Sum, label: str) -> Sum:
        if not _LINE_END.match(self._text, self._at):
            self.fail("a relation goes on after its right side")
        if found.constant:
            self.fail("programs differ in what a constant beside variables means")
        found.label = label
        return found

    def _limit(self, found: Sum, sign: str, value: float) -> None:
        if abs(value) >= _HUGE:
            value = math.copysign(math.inf, value)
        if sign in ">=":
            found.low, found.given = value, (*found.given, "low")
        if sign in "<=":
            found.high, found.given = value, (*found.given, "high")

    def _relation(self) -> str:
        found = self._take(_RELATION)
        if found is None:
            self.fail("one of <= >= = is expected")
        return found[1].strip("=") or "="

    def _right(self) -> float:
        found = self._take(_RIGHT)
        if found is None:
            self.fail("a number is expected")
        return _sign(found[1]) * float(found[2])

    def _term(self, into: Sum, found: re.Match[str]) -> None:
        value = self._factor(found[1], found[2])
        if found[3] is None:
            into.constant += value
        elif found[3].lower() in _INFINITE:
            into.constant += math.copysign(math.inf, value)
        else:
            number = self._number(found[3])
            into.linear[number] = into.linear.get(number, 0.0) + value

    def _squares(self, into: Sum, sign: float) -> None:
        first = True
        while (found := self._peek(_SQUARE)) and (first or found[1]):
            self._at, first = found.end(), False
            signs, value, row, column = found.groups()
            into.rows.append(self._number(row))
            into.columns.append(self._number(column or row))
            into.values.append(0.5 * sign * self._factor(signs, value))
        close = self._take(_CLOSE)
        if close is None:
            self.fail("a quadratic term or ']' is expected")
        # Constraints with squares are not halved, and not read either.
        if close[1] is None and not self._in_relation:
            self.fail("programs differ in what [ ... ] without '/ 2' means")

    def _factor(self, signs: str | None, value: str | None) -> float:
        factor = _sign(signs) * (float(value) if value else 1.0)
        if not math.isfinite(factor):
            self.fail(f"{value} is beyond double precision")
        return factor

    def _number(self, name: str) -> int:
        number = self.numbers.get(name)
        if number is None:
            if reserved(name):
                self.fail(f"{name!r} is no name of a variable")
            number = self.numbers[name] = len(self.numbers)
        return number

    def _peek(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        return pattern.match(self._text, self._at, self._end)

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = self._peek(pattern)
        if found:
            self._at = found.end()
        return found


_TURNED = {"<": ">", ">": "<", "=": "="}


def _sign(signs: str | None) -> float:
    return -1.0 if signs and signs.count("-") % 2 else 1.0
