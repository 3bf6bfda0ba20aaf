"""The command itself, and what its subcommands share."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from icbs.errors import DensityError, IcbsError, LayerError, OutputError, SettingError
from solvers.errors import ParameterError, SolverError, UnknownSolverError

app = typer.Typer(
    name="icbs",
    help="Cut QUBO block problems out of real models, and see what any solver is worth on them.",
    epilog="Start with: icbs demo --fast",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Model = Annotated[str, typer.Argument(help="Registered name, local folder or hub id.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, or auto: spread over what there is.")]
Dtype = Annotated[str, typer.Option(help="To compute in: float32, bfloat16, float16.")]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable.")]

# Mistakes in what was typed; every other error means that the work failed.
USAGE_ERRORS = (DensityError, LayerError, ParameterError, SettingError, UnknownSolverError)


def main() -> None:
    """Entry point: every expected error becomes one line on stderr."""
    import dimod

    expected = (IcbsError, SolverError, OSError, dimod.exceptions.BinaryQuadraticModelSizeError)
    try:
        app()
    except BrokenPipeError:
        # The reader (head, less) went away; there is nobody left to tell.
        sys.stderr.close()
        sys.exit(1)
    except expected as error:
        print(f"icbs: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, USAGE_ERRORS) else 1)


def typed(context: typer.Context, *names: str) -> list[str]:
    """Those of a command's parameters that stand on the command line, as they are written there."""
    options = {parameter.name: parameter.opts[0] for parameter in context.command.params}
    sources = {name: context.get_parameter_source(name) for name in names}
    # By name: some versions of typer bring a click, and an enumeration, of their own.
    return [options[n] for n in names if (source := sources[n]) and source.name == "COMMANDLINE"]


def settings_of(context: typer.Context, changes: Sequence[str] | None) -> dict[str, Any]:
    """What ``--set`` says of `icbs.settings.Settings`.

    Raises:
        SettingError: a setting that an option of the command gives as well; see `parse_settings`.
    """
    from icbs.settings import parse_settings

    found = parse_settings(changes or [])
    for name, value in found.items():
        if name in context.params and (twice := typed(context, name)):
            raise SettingError(
                f"{twice[0]} is {context.params[name]} and --set {name} is {value}: give one of "
                "the two"
            )
    return found


def output_folder(path: Path, option: str = "--out") -> Path:
    """The folder, made if need be and proved writable before any long work starts.

    Args:
        path: the folder.
        option: what names it on the command line, for the message.

    Raises:
        OutputError: it cannot be made or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OutputError(
            f"{option} {path}: cannot write there ({error.strerror}); choose another folder"
        ) from error
    return path


def words(text: str) -> list[str]:
    """What an option lists, separated by commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def numbers(text: str, kind: type[int] | type[float], option: str) -> list[Any]:
    """Numbers above 0 that an option lists, separated by commas."""
    try:
        values = [kind(word) for word in words(text)]
    except ValueError as error:
        raise typer.BadParameter(f"{option} is {text!r}, expected numbers like 16,64") from error
    if not values or min(values) <= 0:
        raise typer.BadParameter(f"{option} is {text!r}, expected numbers above 0")
    return values


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints a table; only its widest column is folded where the terminal is narrow."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    for column, width in zip(columns, widths, strict=True):
        table.add_column(column, no_wrap=width < max(widths), overflow="fold")
    for row in cells:
        table.add_row(*row)
    Console().print(table)


def formatted(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], formats: Sequence[str]
) -> list[list[str]]:
    """Cells of some columns as text, "-" where there is no value."""
    return [
        [
            "-" if row[column] is None else form.format(row[column])
            for column, form in zip(columns, formats, strict=True)
        ]
        for row in rows
    ]
