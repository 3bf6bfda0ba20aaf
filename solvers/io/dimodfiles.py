"""dimod's own .bqm files. Its compiled reader trusts what it is given.

A row that names a variable that is not there ends the interpreter: it is looked for first.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import dimod
import numpy as np

from solvers.errors import FormatError
from solvers.io.textfile import Objective, check_size
from solvers.problem import CardinalityProblem

_MAGIC = b"DIMODBQM"
_BIASES = ("float32", "float64")
_INDICES = ("int32", "int64", "uint32", "uint64")


def read_bqm(path: Path) -> Objective:
    """The model in a file that dimod wrote; such a file does not say how many ones.

    Spins become binary variables, +1 becomes 1. Variables that are not called 0..n-1 keep their
    order and have their names as labels.

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
    return _objective(bqm)


def bqm_bytes(problem: CardinalityProblem, penalty: float | None) -> bytes:
    """The model as dimod writes it, with the problem's labels.

    Args:
        problem: what to write.
        penalty: adds ``penalty * (sum x - k)^2``.

    Raises:
        FormatError: groups without a penalty, of which the file would say nothing.
        ProblemError: a penalty so large that the objective is lost in its rounding.
    """
    if problem.groups is not None and penalty is None:
        raise FormatError(
            f"the problem has {problem.num_groups} groups, which a .bqm file has no field for: "
            "give a penalty, or write .lp or .qubo"
        )
    bqm = problem.to_bqm(penalty)
    if problem.labels is not None:
        bqm.relabel_variables(dict(enumerate(problem.labels)))
    with bqm.to_file() as file:
        return file.read()


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


def _objective(bqm: dimod.BinaryQuadraticModel) -> Objective:
    """The model over binary variables, those called 0..n-1 by number."""
    binary = bqm.change_vartype(dimod.BINARY, inplace=False)
    variables = list(binary.variables)
    numbered = set(variables) == set(range(len(variables)))
    order = sorted(variables) if numbered else variables
    linear, (rows, columns, values), offset = binary.to_numpy_vectors(variable_order=order)
    Q = np.diag(np.asarray(linear, dtype=np.float64))
    np.add.at(Q, (np.minimum(rows, columns), np.maximum(rows, columns)), values)
    labels = None if numbered else tuple(map(str, variables))
    return Objective(Q, float(offset), None, labels)
