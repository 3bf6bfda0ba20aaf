"""Tables: nothing vanishes, texts fold between words, numbers never; a pipe gets plain lines."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from experiments.cli.tables import layout, print_table

ROOT = Path(__file__).parents[2]
COLUMNS = ("density", "method", "data", "loss", "perplexity", "seconds")
ROWS = [
    ("0.70", "magnitude", "Wikipedia leads, held out", "3.4142", "30.41", "23.0"),
    ("0.50", "the loop and tuning", "Python's reference, another text", "10.2000", "-", "147.3"),
]


def words(lines):
    return [word for line in lines for word in line.split()]


@pytest.mark.parametrize("width", [200, 80, 76, 60, 40, 20, None])
def test_nothing_vanishes_at_any_width(width):
    lines = layout(COLUMNS, ROWS, width)
    expected = [word for row in [COLUMNS, *ROWS] for cell in row for word in cell.split()]
    found = words(lines)
    assert set(expected) <= set(found)
    if width is not None and width >= 40:
        assert max(map(len, lines)) <= width


def test_numbers_stay_whole_and_end_in_one_column():
    lines = layout(("name", "value"), [("a long name of several words", "1,234.5678"),
                                       ("b", "-2.5e-05")], 24)  # fmt: skip
    assert [line for line in lines if "1,234.5678" in line]
    ends = {line.index(number) + len(number) for line in lines
            for number in ("1,234.5678", "-2.5e-05") if number in line}  # fmt: skip
    assert ends == {24}


def test_the_comparison_of_methods_is_a_table_on_80_columns():
    columns = ("density", "method", "data", "loss", "perplexity", "accuracy", "seconds", "touched",
               "accepted")  # fmt: skip
    row = ("0.70", "icbs + tuning", "Wikipedia leads, held out", "3.4142", "7,023.10", "89.30%",
           "148.1", "3.4%", "51.0%")  # fmt: skip
    lines = layout(columns, [row], 80)
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == list(columns)
    assert [word for word in row if " " not in word] == [
        word for word in lines[1].split() if word[0].isdigit()
    ]


def test_a_row_that_cannot_fit_becomes_a_block():
    path = "x" * 50
    assert layout(("file", "n"), [(path, 3), ("y", 4)], 30) == [
        f"file  {path}", "n     3", "", "file  y", "n     4",
    ]  # fmt: skip


def test_without_a_terminal_a_row_is_a_line(capsys):
    print_table("title", ("solver", "what it does"), [("neal", "word " * 60), ("x", "short")])
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 4
    assert [line.index(text) for line, text in zip(out[1:], ("what", "word", "short"), strict=True)]
    assert len({line.index(text) for line, text in
                zip(out[1:], ("what", "word", "short"), strict=True)}) == 1  # fmt: skip


def test_a_cell_is_one_line_that_no_terminal_obeys(capsys):
    print_table("a\x1b[2J", ("name",), [("b\nc\x07",)])
    assert capsys.readouterr().out == "a\\x1b[2J\nname\nb\\nc\\x07\n"


def on_terminal(width, *arguments):
    """What a command prints on a terminal."""
    driver, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        [sys.executable, "-m", "icbs", *arguments], stdout=terminal,
        stderr=subprocess.PIPE, cwd=ROOT, env=environment,
    )  # fmt: skip
    os.close(terminal)
    chunks = []
    while True:
        try:
            chunk = os.read(driver, 65536)
        except OSError:
            break
        if not chunk:
            break
        chunks.append(chunk)
    os.close(driver)
    assert process.wait(60) == 0, process.stderr.read()
    process.stderr.close()
    return b"".join(chunks).decode().replace("\r\n", "\n").splitlines()


def test_the_list_of_solvers_fits_a_terminal_of_80_columns():
    shown = on_terminal(80, "solvers")
    assert max(map(len, shown)) <= 80
    piped = subprocess.run([sys.executable, "-m", "icbs", "solvers"], cwd=ROOT, text=True,
                           capture_output=True, check=True).stdout.splitlines()  # fmt: skip
    assert "\x1b" not in "".join([*shown, *piped])
    assert sorted(words(shown)) == sorted(words(piped))
    from solvers.registry import SOLVERS

    assert [line.split()[0] for line in piped[2:]] == list(SOLVERS)
