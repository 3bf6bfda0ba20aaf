"""Problems as files of several types: what `icbs export` and `icbs instances copy` share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.cli.app import words

if TYPE_CHECKING:
    from solvers.io.formats import Format
    from solvers.problem import CardinalityProblem

Penalty = Annotated[
    float | None,
    typer.Option(
        help="Add PENALTY * (sum x - k)^2 to the energy where a file type has no constraints."
    ),
]


def file_types(listed: str) -> list[Format]:
    """The formats that ``--format`` lists, separated by commas.

    Raises:
        BadParameter: an unknown one.
    """
    from solvers.io.formats import exports

    known = exports()
    for word in words(listed):
        if word not in known:
            names = ",".join(known)
            raise typer.BadParameter(f"--format {word!r} is unknown; choose from {names}")
    return [known[word] for word in words(listed)]


def write(
    named: Iterable[tuple[str, CardinalityProblem]],
    title: str,
    total: int,
    out: Path,
    types: Sequence[Format],
    penalty: float | None,
) -> None:
    """Writes each problem in each format, and prints the paths.

    Args:
        named: names of the files without suffix, with their problems.
        title: what the progress says.
        total: how many problems there are.
        out: a folder that exists.
        types: of files.
        penalty: for formats without constraints.
    """
    from icbs.progress import stage
    from solvers import export

    with stage(title, total) as update:
        for number, (name, problem) in enumerate(named):
            for kind in types:
                weight = None if kind.constrained else penalty
                print(export(problem, out / f"{name}{kind.suffix}", penalty=weight))
            update(number + 1)
