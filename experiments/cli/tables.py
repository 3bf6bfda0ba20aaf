"""Tables: on a terminal as wide as it is, elsewhere one line a row however long."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections.abc import Sequence

# Between columns: what is usual, and where there is little room.
GAPS = ("  ", " ")
# Signs and units around digits; "-" stands for a number that is not there.
_NUMBER = re.compile(
    r"-|[-+$]?[\d,]*\.?\d+(e[-+]?\d+)?( ?(%|[kMG]?B|s))?|-?(nan|inf)", re.IGNORECASE
)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints a table on stdout.

    Args:
        title: a line above it.
        columns: names; none is printed if all are empty.
        rows: cells, as many a row as there are columns.
    """
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    print("\n".join([_printable(title), *layout(columns, rows, width)]))


def layout(
    columns: Sequence[str], rows: Sequence[Sequence[object]], width: int | None
) -> list[str]:
    """The lines of a table.

    Where they are too long, texts are folded between words, never numbers; where that does not do,
    every row becomes a block of its own. Nothing is left out.

    Args:
        columns: names.
        rows: cells.
        width: columns of the terminal; None for any length.
    """
    cells = [[_printable(str(cell)) for cell in row] for row in rows]
    head = [list(columns)] if any(columns) else []
    filled = list(zip(*head, *cells, strict=True)) or [(name,) for name in columns]
    numeric = [
        bool(cells) and all(_NUMBER.fullmatch(text) for text in column[len(head) :] if text)
        for column in filled
    ]
    widths = [max(map(len, column)) for column in filled]
    if width is not None:
        least = [
            max(len(word) for text in column for word in _pieces(text, number) or [""])
            for column, number in zip(filled, numeric, strict=True)
        ]
        gap = next((gap for gap in GAPS if _shrink(widths, least, width, len(gap))), None)
        if gap is None:
            return _blocks(columns, cells, width)
    else:
        gap = GAPS[0]
    return [line for row in [*head, *cells] for line in _folded(row, widths, numeric, gap)]


def _pieces(text: str, number: bool) -> list[str]:
    """What of a cell must stay on one line."""
    return [text] if number and _NUMBER.fullmatch(text) else text.split()


def _shrink(widths: list[int], least: list[int], width: int, gap: int) -> bool:
    """Narrows the widest columns until a line fits; whether that could be done."""
    while sum(widths) + gap * (len(widths) - 1) > width:
        at = max(range(len(widths)), key=lambda i: (widths[i] > least[i], widths[i]))
        if widths[at] <= least[at]:
            return False
        widths[at] -= 1
    return True


def _folded(
    row: Sequence[str], widths: Sequence[int], numeric: Sequence[bool], gap: str
) -> list[str]:
    """A row as lines; numbers end at the right of their column."""
    parts = [
        [text] if len(text) <= wide else _wrap(text, wide)
        for text, wide in zip(row, widths, strict=True)
    ]
    lines = []
    for at in range(max(map(len, parts))):
        cells = [part[at] if at < len(part) else "" for part in parts]
        adjusted = [
            cell.rjust(wide) if number else cell.ljust(wide)
            for cell, wide, number in zip(cells, widths, numeric, strict=True)
        ]
        lines.append(gap.join(adjusted).rstrip())
    return lines


def _blocks(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """A line or more a cell, named by its column; an empty line between rows."""
    margin = max(map(len, columns)) + len(GAPS[0])
    lines: list[str] = []
    for row in rows:
        lines += [""] if lines else []
        for name, text in zip(columns, row, strict=True):
            folded = _wrap(text, max(width - margin, 20))
            lines += [f"{label:{margin}}{part}".rstrip() for label, part in
                      zip([name, *[""] * len(folded)], folded, strict=False)]  # fmt: skip
    return lines


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]


def _printable(text: str) -> str:
    """The text as one line that no terminal takes for a command."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
