"""The table of instance formats, and `load`, `save` and `export`, which follow it.

To add a format: write one module with its reader and writer, and one row of `FORMATS`. The suffix
of a file decides, in either case. What a format means in detail, and how files without our comments
are read, is said in its module: what two programs would read as two problems is refused. Texts
carry all 17 digits; what a text has no field for (cardinality, groups, offset, names) stands
in comments that its usual readers skip.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any

import dimod
import numpy as np

from solvers.errors import FormatError, ProblemError
from solvers.groups import labels_of
from solvers.io.container import CONTAINER, container_bytes, read_container
from solvers.io.dimodfiles import bqm_bytes, read_bqm
from solvers.io.lpfile import lp_text, read_lp
from solvers.io.matrixfiles import compressed, matrix_text, read_matrix
from solvers.io.qplib import read_qplib
from solvers.io.textfile import Objective, check_size
from solvers.problem import CardinalityProblem

__all__ = [
    "CONTAINER",
    "FORMATS",
    "Format",
    "export",
    "exports",
    "file_name",
    "format_of",
    "load",
    "readable",
    "save",
]


@dataclass(frozen=True)
class Format:
    """One kind of file.

    Attributes:
        suffix: that names end in, lower case, dot included.
        summary: what it holds and who reads it, one line for people.
        read: takes a path; None for a format that is only written.
        write: takes a problem, and a penalty unless the format is constrained, and gives the
            content, bytes or text; None for a format that is only read.
        constrained: whether its readers see ``sum x = k`` itself; then a penalty is refused.
        lossless: whether everything survives, the factor and the start included; other formats hold
            a dense matrix, which limits their size.
    """

    suffix: str
    summary: str
    read: Callable[[Path], Objective | CardinalityProblem] | None = None
    write: Callable[..., bytes | str] | None = None
    constrained: bool = False
    lossless: bool = False


FORMATS = [
    Format(
        CONTAINER,
        "everything, factor included; small, and checked against edits",
        read_container,
        container_bytes,
        constrained=True,
        lossless=True,
    ),
    Format(".bqm", "dimod's binary quadratic model, names included", read_bqm, bqm_bytes),
    Format(
        ".lp",
        "objective, one constraint a group, and names, for any MIP solver",
        read_lp,
        lp_text,
        constrained=True,
    ),
    Format(
        ".ubqp",
        "maximise x'Qx, 1-based: MQLib, OR-Library",
        partial(read_matrix, suffix=".ubqp"),
        partial(matrix_text, suffix=".ubqp"),
    ),
    Format(
        ".sparse",
        "minimise x'Qx, 1-based: Biq Mac Library",
        partial(read_matrix, suffix=".sparse"),
        partial(matrix_text, suffix=".sparse"),
    ),
    Format(
        ".qs",
        "minimise x'Qx, 1-based: QOBLIB",
        partial(read_matrix, suffix=".qs"),
        partial(matrix_text, suffix=".qs"),
    ),
    Format(
        ".qs.xz",
        "the same, compressed",
        partial(read_matrix, suffix=".qs.xz"),
        compressed,
    ),
    Format(
        ".qubo",
        "minimise, 0-based: D-Wave's qbsolv and its descendants",
        partial(read_matrix, suffix=".qubo"),
        partial(matrix_text, suffix=".qubo"),
    ),
    Format(".qplib", "QPLIB, either sense; read only", read_qplib, constrained=True),
]
"""Every format, in the order in which lists name them."""


def readable() -> list[str]:
    """Suffixes of the formats that can be read."""
    return [row.suffix for row in FORMATS if row.read is not None]


def exports() -> dict[str, Format]:
    """What can be written for other programs, by name as on the command line (``lp``)."""
    return {row.suffix[1:]: row for row in FORMATS if row.write is not None and not row.lossless}


def format_of(path: str | Path, *, written: bool = False) -> Format:
    """The row of `FORMATS` that a file's name asks for.

    Args:
        path: only its name counts.
        written: whether the file is to be written, not read.

    Raises:
        FormatError: no such suffix; the message lists those there are.
    """
    name = Path(path).name
    known = [row for row in FORMATS if (row.write if written else row.read) is not None]
    matches = [row for row in known if name.lower().endswith(row.suffix)]
    if not matches:
        suffixes = ", ".join(row.suffix for row in known)
        raise FormatError(f"{name}: unknown suffix; expected one of {suffixes}")
    return max(matches, key=lambda row: len(row.suffix))


def save(problem: CardinalityProblem, path: str | Path) -> Path:
    """Write the container file; a reader never sees half of it.

    Args:
        problem: anything.
        path: must end in ``.block.safetensors``.

    Raises:
        FormatError: another suffix.
        OSError: the folder cannot be written.
    """
    path = Path(path)
    if not path.name.lower().endswith(CONTAINER):
        raise FormatError(f"{path.name}: a container's name ends in {CONTAINER}")
    return export(problem, path)


def load(path: str | Path, cardinality: int | None = None) -> CardinalityProblem:
    """Read a problem from a file of any format that can be read, see `FORMATS`.

    An energy of the problem is the objective that the file has for the same x, or the negated one
    where the file maximises: ``meta["sense"]`` is then ``"max"``. Variables that a file fixes are
    put into the objective and left out; ``meta["fixed"]`` has their values by name.

    Args:
        path: a file with one of the known suffixes.
        cardinality: number of ones, for a file that does not say; fixed variables that are 1 count.

    Raises:
        FormatError: truncated, edited, of another schema or kind, without a cardinality, or with
            another one than the argument.
        OSError: no such file, or it cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    read = format_of(path).read
    assert read is not None
    try:
        found = read(path)
        if isinstance(found, Objective):
            return _problem(path.name, found, cardinality)
    except (
        ProblemError,
        ValueError,
        KeyError,
        TypeError,
        OverflowError,
        RecursionError,
    ) as error:
        if isinstance(error, FormatError | dimod.exceptions.BinaryQuadraticModelSizeError):
            raise
        raise FormatError(f"{path.name} is damaged: {error}") from error
    _check_ones(path.name, cardinality, found.cardinality, found.n)
    return found


def _problem(name: str, found: Objective, cardinality: int | None) -> CardinalityProblem:
    n = len(found.Q)
    check_size(name, n)
    _check_ones(name, cardinality, found.ones, n + found.forced, found.forced)
    ones = found.ones if cardinality is None else cardinality
    groups: dict[str, Any] = {}
    if found.groups:
        counts = [count for _, count in found.groups]
        groups["groups"] = labels_of([members for members, _ in found.groups], n)
        groups["cardinalities"] = np.array(counts)
        if found.ones not in (None, sum(counts) + found.forced):
            raise FormatError(
                f"{name} says {found.ones} ones, but its groups have {sum(counts)}: make them agree"
            )
        ones = sum(counts) + found.forced
    if ones is None:
        raise FormatError(f"{name} does not say how many variables are 1: pass cardinality")
    couplings = np.triu(found.Q, 1)
    meta: dict[str, Any] = {"sense": "max"} if found.maximised else {}
    return CardinalityProblem(
        linear=found.Q.diagonal(),
        quadratic=couplings + couplings.T,
        cardinality=int(ones) - found.forced,
        offset=found.offset,
        meta=meta | ({"fixed": dict(found.fixed)} if found.fixed else {}),
        labels=found.labels,
        indices=None if found.indices is None else np.array(found.indices, np.int64),
        **groups,
    )


def _check_ones(name: str, asked: int | None, found: int | None, most: int, least: int = 0) -> None:
    """Refuses a number of ones that contradicts the file or is impossible."""
    if asked is None:
        return
    if found is not None and asked != found:
        raise FormatError(
            f"{name} says {found} ones and cardinality is {asked}: leave cardinality out, it is "
            "for files that do not say"
        )
    if isinstance(asked, bool) or not isinstance(asked, Integral) or not least <= asked <= most:
        raise FormatError(
            f"cardinality is {asked!r}, expected a whole number in {least}..{most} for {name}"
        )


def export(problem: CardinalityProblem, path: str | Path, penalty: float | None = None) -> Path:
    """Write the problem for other programs; the suffix picks the format, see `FORMATS`.

    Args:
        problem: of at most 20,000 variables unless the format is lossless: the others are dense.
        path: ends in the suffix of a format that can be written.
        penalty: adds ``penalty * (sum x - k)^2`` for readers without constraints; not for formats
            that have them.

    Raises:
        FormatError: unknown suffix, too many variables, a penalty for a constrained format.
        ProblemError: a penalty so large that the objective is lost in its rounding.
    """
    path = Path(path)
    row = format_of(path, written=True)
    assert row.write is not None
    if row.constrained and penalty is not None:
        raise FormatError(
            f"penalty is {penalty!r}, but {path.name} holds the constraint itself: leave penalty "
            "out"
        )
    if not row.lossless:
        check_size(path.name, problem.n)
    content = row.write(problem) if row.constrained else row.write(problem, penalty=penalty)
    _write(path, content.encode() if isinstance(content, str) else content)
    return path


def file_name(problem: CardinalityProblem, suffix: str = CONTAINER) -> str:
    """What to call a block cut from a model: layer, row and density, size, curvature, step."""
    meta = problem.meta
    step = f"-step{meta['step']}" if meta.get("step") else ""
    rows, row = meta.get("row"), ""
    if rows is not None:
        which = f"r{rows}" if isinstance(rows, int) else f"{len(rows)}rows"
        share = f"-lam{meta['lam']:g}" if meta.get("lam") else ""
        row = f"-{which}-d{meta['density']:g}{share}"
    curvature = re.sub(r"[^\w.]+", "-", str(meta["fisher"]))
    return f"{meta['layer']}{row}-n{problem.n}-{curvature}{step}{suffix}"


def _write(path: Path, data: bytes) -> None:
    """All or nothing: a temporary file beside the target, then a rename."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".part-", delete=False) as part:
        try:
            part.write(data)
            part.flush()
            Path(part.name).chmod(0o644)
            Path(part.name).replace(path)
        except BaseException:
            Path(part.name).unlink(missing_ok=True)
            raise
