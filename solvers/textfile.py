"""What every reader of a problem checks first: that it is text, and how much is declared in it."""

from __future__ import annotations

from pathlib import Path

from solvers.errors import FormatError

# A dense model of more variables than this would take over 3 GB.
MAX_DENSE_VARIABLES = 20_000
# As many may stand in a file without a line of their own; a dense matrix of them takes 32 MB.
_FREE_VARIABLES = 2_048


def read_text(path: Path) -> str:
    """The file as text.

    Raises:
        FormatError: it is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path.name} is not text: byte {error.start} is not UTF-8") from error


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
            f"{name}: {n} variables; dense formats stop at {MAX_DENSE_VARIABLES}, "
            "use .block.safetensors"
        )
    if lines is not None and n > max(_FREE_VARIABLES, 2 * lines):
        raise FormatError(
            f"{name} declares {n} variables in {lines} lines: most of them would be in none; "
            f"leave out those without an entry, or declare {_FREE_VARIABLES} at most"
        )
