"""What dimod reads: its own .bqm files, and LP. Its compiled readers trust what they are given.

A row of a .bqm that names a variable that is not there ends the interpreter, and a NUL in an LP
file is read for ever: both are looked for first.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import dimod
import numpy as np

from solvers.errors import FormatError
from solvers.textfile import check_size, read_text

_MAGIC = b"DIMODBQM"
_BIASES = ("float32", "float64")
_INDICES = ("int32", "int64", "uint32", "uint64")


def read_bqm(path: Path) -> tuple[dimod.BinaryQuadraticModel, int | None]:
    """The model in a file that dimod wrote; such a file does not say how many ones.

    Raises:
        FormatError: damaged, of another kind, or with too many variables.
    """
    data = path.read_bytes()
    try:
        _check_bqm(path.name, data)
        bqm = dimod.BinaryQuadraticModel.from_file(data)
    except FormatError:
        raise
    except Exception as error:  # dimod raises whatever its parser trips over
        raise FormatError(f"{path.name} is not a dimod BQM file: {error}") from error
    return in_order(bqm), None


def _check_bqm(name: str, data: bytes) -> None:
    """Before dimod sees it: the header's sizes are those of the file, every row is in order.

    Layout: magic, two bytes of version, length of the header (32 bits), header in JSON, offset; for
    each variable where its row starts and its bias; the rows, of the neighbours and biases.
    """
    if data[:8] != _MAGIC:
        raise FormatError(f"{name} is not a dimod BQM file: it starts with {data[:8]!r}")
    (length,) = struct.unpack_from("<I", data, 10)
    header = json.loads(data[14 : 14 + length])
    n, couplings = header["shape"]
    if type(n) is not int or type(couplings) is not int or n < 0 or couplings < 0:
        raise FormatError(f"{name} declares the shape {header['shape']!r}")
    check_size(name, n)
    for key, known in (("dtype", _BIASES), ("itype", _INDICES), ("ntype", _INDICES)):
        if header[key] not in known:
            raise FormatError(f"{name}: {key} is {header[key]!r}, expected one of {known}")
    bias = np.dtype(header["dtype"])
    linear = np.dtype([("start", header["ntype"]), ("bias", bias)])
    quadratic = np.dtype([("neighbour", header["itype"]), ("bias", bias)])
    first = 14 + length + bias.itemsize
    second = first + n * linear.itemsize
    if second + 2 * couplings * quadratic.itemsize > len(data):
        raise FormatError(f"{name} is cut off: it declares {n} variables, {couplings} couplings")
    starts = _integers(np.frombuffer(data, linear, n, first)["start"])
    neighbours = _integers(
        np.frombuffer(data, quadratic, 2 * couplings if n else 0, second)["neighbour"]
    )
    rows = np.append(starts, 2 * couplings)
    if n and (rows[0] != 0 or (np.diff(rows) < 0).any()):
        raise FormatError(f"{name} is damaged: its rows do not follow one another")
    of = np.repeat(np.arange(n), np.diff(rows))
    rises = (np.diff(neighbours) > 0) | (np.diff(of) > 0)
    if ((neighbours < 0) | (neighbours >= n) | (neighbours == of)).any() or not rises.all():
        raise FormatError(f"{name} is damaged: a row names a variable twice, itself or none at all")
    if not np.array_equal(np.sort(of * n + neighbours), np.sort(neighbours * n + of)):
        raise FormatError(f"{name} is damaged: a coupling stands in one of its two rows only")


def _integers(values: Any) -> Any:
    """Whole numbers as signed ones; those that are too large come out negative."""
    return values.astype(np.int64)


def in_order(bqm: dimod.BinaryQuadraticModel) -> dimod.BinaryQuadraticModel:
    """Variables 0..n-1 in numeric order, if that is what they are called."""
    labels = list(bqm.variables)
    if sorted(labels, key=str) == sorted(range(len(labels)), key=str):
        ordered = dimod.BinaryQuadraticModel(bqm.vartype)
        ordered.add_linear_from((v, 0.0) for v in range(len(labels)))
        ordered.update(bqm)
        return ordered
    return bqm


def read_lp(path: Path) -> tuple[dimod.BinaryQuadraticModel, int | None]:
    """Objective of an LP file over binary variables, and k if it has the constraint sum x = k.

    Raises:
        FormatError: damaged, variables that are not binary, another constraint.
    """
    text = read_text(path)
    if "\0" in text:
        raise FormatError(f"{path.name} is not an LP file: character {text.index(chr(0))} is NUL")
    try:
        cqm = dimod.lp.loads(text)
    except Exception as error:  # dimod's compiled parser raises several kinds
        raise FormatError(f"{path.name} is not an LP file dimod can read: {error}") from error
    if not cqm.variables:
        raise FormatError(f"{path.name} is not an LP file: it has no variables")
    kinds = {cqm.vartype(v) for v in cqm.variables}
    if kinds - {dimod.BINARY}:
        raise FormatError(f"{path.name} has variables that are not binary")
    ones = None
    for label, constraint in cqm.constraints.items():
        lhs = constraint.lhs
        counts = lhs.is_linear() and all(lhs.linear.get(v, 0) == 1 for v in cqm.variables)
        if ones is not None or not counts or constraint.sense is not dimod.sym.Sense.Eq:
            raise FormatError(f"{path.name}: constraint {label!r} is not the one sum x = k")
        ones = round(float(constraint.rhs - lhs.offset))
    bqm = dimod.BinaryQuadraticModel(dimod.BINARY)
    bqm.add_linear_from((v, 0.0) for v in cqm.variables)
    for v, bias in cqm.objective.linear.items():
        bqm.add_linear(v, bias)
    bqm.add_quadratic_from((u, v, bias) for u, v, bias in cqm.objective.iter_quadratic())
    bqm.offset = float(cqm.objective.offset)
    if all(str(v)[:1] == "x" and str(v)[1:].isdigit() for v in bqm.variables):
        bqm.relabel_variables({v: int(str(v)[1:]) for v in bqm.variables})
    return in_order(bqm), ones
