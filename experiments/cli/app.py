"""The command itself, and what its subcommands share."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

import icbs
from icbs.errors import DensityError, IcbsError, LayerError, OutputError, SettingError
from solvers.errors import ParameterError, SolverError, UnknownSolverError

F = TypeVar("F", bound=Callable[..., Any])

# Mistakes in what was typed; every other error means that the work failed.
USAGE_ERRORS = (DensityError, LayerError, ParameterError, SettingError, UnknownSolverError)
INTERRUPTED = 130
# In a context's `meta`: parameters that cannot be given as things are, so that no message names
# their options.
UNUSED = "icbs.unused"
# Folders that this command made, innermost first.
_made: list[Path] = []
# Of the commands that were run: one in a process, several in a test.
_contexts: list[Any] = []


class Command(TyperCommand):
    """A subcommand: Ctrl-C is one line on stderr, and no empty folder stays behind."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the subcommand."""
        _contexts.append(ctx)
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            # Whoever can go on from there says so in the exception.
            print("; ".join(["icbs: interrupted", *map(str, stop.args)]), file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from stop
        finally:
            _remove_empty()


class Group(TyperGroup):
    """Subcommands, each listed with the whole first sentence of its help."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Writes the list; sentences are folded, not cut."""
        rows = [
            (name, self.commands[name].get_short_help_str(limit=1000))
            for name in self.list_commands(ctx)
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


app = typer.Typer(
    name="icbs",
    cls=Group,
    epilog="Start with: icbs demo --fast",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Model = Annotated[str, typer.Argument(help="Registered name, local folder or hub id.")]
Density = Annotated[float, typer.Option(help="Fraction of weights to keep: 0.3 is sparsity 0.7.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, or auto: spread over what there is.")]
Dtype = Annotated[
    str, typer.Option(help="Number type to compute in: float32, bfloat16 or float16.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def _version(asked: bool) -> None:
    if asked:
        print(f"icbs {icbs.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", is_eager=True, callback=_version
        ),
    ] = False,
) -> None:
    """Cut QUBO block problems out of real models, and see what any solver is worth on them."""


def command(*examples: str, name: str | None = None, into: typer.Typer = app) -> Callable[[F], F]:
    """Registers a subcommand.

    Args:
        *examples: command lines that its help ends with.
        name: what one types; the function's name if left out.
        into: the group it belongs to.
    """
    title = "Example:" if len(examples) == 1 else "Examples:"
    # \b: these lines are not to be folded.
    epilog = "\b\n" + "\n".join([title, *(f"  {line}" for one in examples for line in fold(one))])
    return into.command(name, cls=Command, epilog=epilog)


def fold(line: str, width: int = 76) -> list[str]:
    """A command line as lines of a terminal, each but the last with a backslash at its end."""
    lines = [""]
    for word in re.findall(r"(?:'[^']*'|\S)+", line):
        if len(lines[-1]) + len(word) + 3 > width:
            lines[-1] += " \\"
            lines.append(f"    {word}")
        else:
            lines[-1] += f" {word}" if lines[-1] else word
    return lines


def main() -> None:
    """Entry point: every expected error becomes one line on stderr."""
    try:
        app()
    except Exception as error:
        if not _expected(error):
            raise
        told = as_typed(str(error), _contexts[-1]) if _contexts else str(error)
        print(f"icbs: {told}", file=sys.stderr)
        sys.exit(2 if isinstance(error, USAGE_ERRORS) else 1)


def _expected(error: Exception) -> bool:
    if isinstance(error, IcbsError | SolverError | OSError):
        return True
    dimod = sys.modules.get("dimod")
    return dimod is not None and isinstance(error, dimod.exceptions.BinaryQuadraticModelSizeError)


def as_typed(message: str, context: Any) -> str:
    """A message of the packages below, its arguments named as the command's options.

    Args:
        message: with ``cardinality is 3``, ``batch_size=3``, ``layers 'x'``, ``instances: x``, or a
            remedy such as ``pass cardinality``, ``lower batch_size``, ``leave cardinality out``.
        context: of the command that was run; its `meta` may name options that do not count.
    """
    for parameter in context.command.params:
        option, name = parameter.opts[0], parameter.name
        if option.startswith("--") and name not in context.meta.get(UNUSED, ()):
            where = (
                rf"{name}(?= is |=)|^{name}(?=: | ')|(?<=pass ){name}\b|(?<=lower ){name}\b"
                rf"|(?<=leave ){name}(?= out)"
            )
            # A name of several words is nothing but an argument.
            where = rf"{name}\b" if "_" in name else where
            message = re.sub(rf"(?<![\w.'-])(?<!--set )(?:{where})", option, message)
    return message


@contextmanager
def resumable(remedy: str) -> Iterator[None]:
    """Says after Ctrl-C how to go on, where nobody who knows better has done so."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(*(stop.args or (remedy,))) from stop


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

    What is made here and still empty when the command ends is removed again.

    Args:
        path: the folder.
        option: what names it on the command line, for the message.

    Raises:
        OutputError: it cannot be made or written to.
    """
    _made.extend(folder for folder in (path, *path.parents) if not folder.exists())
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OutputError(
            f"{option} {path}: cannot write there ({error.strerror}); choose another folder"
        ) from error
    return path


def _remove_empty() -> None:
    """Removes what `output_folder` made, the innermost folder first, until one is not empty."""
    while _made:
        try:
            _made.pop(0).rmdir()
        except OSError:
            _made.clear()


def words(text: str) -> list[str]:
    """What an option lists, separated by commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def numbers(
    text: str, kind: type[int] | type[float], option: str, *, zero: bool = False
) -> list[Any]:
    """Numbers above 0, or from 0 on, that an option lists, separated by commas."""
    bound = "from 0 on" if zero else "above 0"
    try:
        values = [kind(word) for word in words(text)]
    except ValueError as error:
        raise typer.BadParameter(f"{option} is {text!r}, expected numbers like 16,64") from error
    if not values or not all(value > 0 or (zero and value == 0) for value in values):
        raise typer.BadParameter(f"{option} is {text!r}, expected numbers {bound}")
    return values


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
