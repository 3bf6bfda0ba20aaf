"""Files a problem lives in.

===================== ============================================= ===========================
suffix                what it holds                                 read by
===================== ============================================= ===========================
.block.safetensors    everything, factor included; the only format  `load`
                      that is small and checked against edits
.bqm                  the objective, optionally penalised           dimod
.lp                   objective and constraint                      any MIP solver, dimod
.ubqp                 x'Qx, ``n m`` then ``i j q_ij``, 1-based      MQLib, BiqMac, OR-Library
.qubo                 D-Wave qbsolv text, 0-based                   qbsolv's descendants
.qplib                read only: see `solvers.qplib`                QPLIB
===================== ============================================= ===========================

Every text carries all 17 digits. What a text format has no field for (cardinality, offset) stands
in comments that its usual readers skip.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dimod
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as safetensors_bytes

from solvers.bqm import problem_from_bqm
from solvers.dimodfiles import read_bqm, read_lp
from solvers.errors import FormatError, ProblemError
from solvers.problem import CardinalityProblem, Floats, frozen
from solvers.qplib import read_qplib
from solvers.textfile import check_size, read_text

# 1: first version.
SCHEMA = 1
CONTAINER = ".block.safetensors"
EXPORTS = (".bqm", ".lp", ".ubqp", ".qubo")
TENSORS = {
    "factor": ("F64", 2),
    "quadratic": ("F64", 2),
    "linear": ("F64", 1),
    "initial": ("BOOL", 1),
    "indices": ("I64", 1),
}


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
    if not path.name.endswith(CONTAINER):
        raise FormatError(f"{path.name}: a container's name ends in {CONTAINER}")
    tensors = {
        name: np.ascontiguousarray(array)
        for name in TENSORS
        if (array := getattr(problem, name)) is not None
    }
    meta = json.dumps(dict(problem.meta), sort_keys=True)
    header = {
        "schema": SCHEMA,
        "n": problem.n,
        "rank": problem.rank,
        "cardinality": problem.cardinality,
        "offset": problem.offset,
        "scale": problem.scale,
        "content_hash": problem.content_hash,
        "meta_hash": hashlib.sha256(meta.encode()).hexdigest(),
        "written_by": {name: version(name) for name in ("numpy", "safetensors")},
    }
    _write(path, safetensors_bytes(tensors, {"icbs": json.dumps(header), "meta": meta}))
    return path


def load(path: str | Path, cardinality: int | None = None) -> CardinalityProblem:
    """Read a problem from any of the formats above.

    Args:
        path: a file with one of the known suffixes.
        cardinality: number of ones, for a file that does not say.

    Raises:
        FormatError: truncated, edited, of another schema or kind, or without a cardinality.
        OSError: no such file, or it cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    readers = {
        ".bqm": read_bqm, ".lp": read_lp, ".ubqp": _read_ubqp, ".qubo": _read_qubo,
        ".qplib": _read_qplib,
    }  # fmt: skip
    try:
        if path.name.endswith(CONTAINER):
            return _read_container(path)
        if path.suffix not in readers:
            known = ", ".join((CONTAINER, *readers))
            raise FormatError(f"{path.name}: unknown suffix; expected one of {known}")
        bqm, found = readers[path.suffix](path)
        if found is None and cardinality is None:
            raise FormatError(f"{path.name} does not say how many ones: pass cardinality")
        check_size(path.name, bqm.num_variables)
        problem = problem_from_bqm(bqm, cardinality if cardinality is not None else found)
    except (
        ProblemError,
        ValueError,
        KeyError,
        TypeError,
        OverflowError,
        RecursionError,
    ) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{path.name} is damaged: {error}") from error
    return problem


def export(problem: CardinalityProblem, path: str | Path, penalty: float | None = None) -> Path:
    """Write the problem for other programs; the suffix picks the format.

    Args:
        problem: of at most 20,000 variables, since these formats are dense.
        path: ends in one of `EXPORTS` or in the container's suffix.
        penalty: adds ``penalty * (sum x - k)^2`` for readers without constraints; not for LP,
            which has them.

    Raises:
        FormatError: unknown suffix, too many variables, a penalty for LP.
    """
    path = Path(path)
    if path.name.endswith(CONTAINER):
        return save(problem, path)
    writers = {".bqm": _write_bqm, ".lp": _write_lp, ".ubqp": _write_ubqp, ".qubo": _write_qubo}
    if path.suffix not in writers:
        raise FormatError(f"{path.name}: unknown suffix; expected one of {', '.join(EXPORTS)}")
    check_size(path.name, problem.n)
    if penalty is not None and path.suffix == ".lp":
        raise FormatError("an LP file holds the constraint itself: leave penalty out")
    writers[path.suffix](problem, path, penalty)
    return path


def file_name(problem: CardinalityProblem, suffix: str = CONTAINER) -> str:
    """What to call a block cut from a model: layer, size, Fisher, and the loop's step if any."""
    meta = problem.meta
    step = f"-step{meta['step']}" if meta.get("step") else ""
    return f"{meta['layer']}-n{problem.n}-{meta['fisher']}{step}{suffix}"


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


def _read_container(path: Path) -> CardinalityProblem:
    try:
        with safe_open(path, framework="numpy") as file:
            texts = file.metadata() or {}
            header = _header(path, texts)
            tensors: dict[str, NDArray[Any]] = {}
            for name in file.keys():  # noqa: SIM118  (not a mapping)
                _check_tensor(path, name, file.get_slice(name), header)
                tensors[name] = frozen(file.get_tensor(name))
    except SafetensorError as error:
        raise FormatError(f"{path.name} is truncated or no container: {error}") from error
    if "linear" not in tensors:
        raise FormatError(f"{path.name} has no tensor 'linear'")
    meta = json.loads(texts["meta"])
    if not isinstance(meta, dict):
        raise FormatError(f"{path.name}: its metadata is no JSON object")
    problem = CardinalityProblem(
        **tensors,
        cardinality=header["cardinality"],
        offset=header["offset"],
        scale=header["scale"],
        meta=meta,
    )
    if problem.content_hash != header["content_hash"]:
        raise FormatError(f"{path.name} was edited or damaged: its content hash does not match")
    return problem


def _header(path: Path, texts: dict[str, str]) -> dict[str, Any]:
    if "icbs" not in texts or "meta" not in texts:
        raise FormatError(f"{path.name} is a safetensors file but holds no block problem")
    header = json.loads(texts["icbs"])
    if not isinstance(header, dict) or header.get("schema") != SCHEMA:
        found = header.get("schema") if isinstance(header, dict) else None
        raise FormatError(
            f"{path.name} has schema version {found!r}, this release reads {SCHEMA}: "
            "export it again or install the release that wrote it"
        )
    if hashlib.sha256(texts["meta"].encode()).hexdigest() != header["meta_hash"]:
        raise FormatError(f"{path.name} was edited: the hash of its metadata does not match")
    return header


def _check_tensor(path: Path, name: str, view: Any, header: dict[str, Any]) -> None:
    """Before any data is read: known name, dtype and shape."""
    if name not in TENSORS:
        raise FormatError(f"{path.name} has an unknown tensor {name!r}")
    dtype, ndim = TENSORS[name]
    shape = list(view.get_shape())
    if view.get_dtype() != dtype or len(shape) != ndim or shape[-1] != header["n"]:
        raise FormatError(
            f"{path.name}: tensor {name!r} is {view.get_dtype()} {shape}, "
            f"expected {dtype} with {ndim} dimensions and {header['n']} columns"
        )


def _write_bqm(problem: CardinalityProblem, path: Path, penalty: float | None) -> None:
    with problem.to_bqm(penalty).to_file() as file:
        _write(path, file.read())


def _write_lp(problem: CardinalityProblem, path: Path, penalty: float | None) -> None:
    cqm = problem.to_cqm()
    cqm.relabel_variables({i: f"x{i}" for i in range(problem.n)})
    _write(path, dimod.lp.dumps(cqm).encode())


def _upper(problem: CardinalityProblem, penalty: float | None) -> tuple[Floats, float]:
    """Q and offset with ``E(x) = sum Q_ii x_i + sum_(i<j) Q_ij x_i x_j + offset``."""
    weight, k = penalty or 0.0, problem.cardinality
    Q = problem.gram() + 2 * weight
    np.fill_diagonal(Q, problem.linear + 0.5 * problem.diagonal + weight * (1 - 2 * k))
    return np.triu(Q), problem.offset + weight * k * k


def _entries(Q: Floats, first: int) -> str:
    """A line ``i j value`` for each entry that is not 0, row by row, counted from `first`."""
    lines = []
    for i, row in enumerate(Q):
        columns = np.flatnonzero(row)
        pairs = zip((columns + first).tolist(), row[columns].tolist(), strict=True)
        lines.append("".join(f"{i + first} {j} {value!r}\n" for j, value in pairs))
    return "".join(lines)


def _write_ubqp(problem: CardinalityProblem, path: Path, penalty: float | None) -> None:
    Q, offset = _upper(problem, penalty)
    # The format's matrix is symmetric and each pair stands once: an entry is half the coupling.
    Q += np.diag(Q.diagonal())
    Q *= 0.5
    head = f"{problem.n} {np.count_nonzero(Q)}\n"
    tail = f"# minimise x'Qx + offset\n# cardinality {problem.cardinality}\n# offset {offset!r}\n"
    _write(path, (head + _entries(Q, 1) + tail).encode())


def _write_qubo(problem: CardinalityProblem, path: Path, penalty: float | None) -> None:
    Q, offset = _upper(problem, penalty)
    nodes = np.count_nonzero(Q.diagonal())
    head = (
        "c minimise sum Q_ii x_i + sum_(i<j) Q_ij x_i x_j + offset\n"
        f"c cardinality {problem.cardinality}\nc offset {offset!r}\n"
        f"p qubo 0 {problem.n} {nodes} {np.count_nonzero(Q) - nodes}\n"
    )
    _write(path, (head + _entries(Q, 0)).encode())


def _read_ubqp(path: Path) -> tuple[dimod.BinaryQuadraticModel, int | None]:
    lines, notes = _text(path, "#")
    head = lines[0].split() if lines else []
    if len(head) != 2:
        raise FormatError(f"{path.name}: the first line must be 'n m'")
    Q = _matrix(path, lines[1:], int(head[0]), int(head[1]), first=1)
    # Off the diagonal a pair counts twice in x'Qx.
    Q = 2 * Q - np.diag(Q.diagonal())
    return _model(Q, float(notes.get("offset", 0.0))), _ones(notes)


def _read_qubo(path: Path) -> tuple[dimod.BinaryQuadraticModel, int | None]:
    lines, notes = _text(path, "c")
    head = lines[0].split() if lines else []
    if len(head) != 6 or head[:2] != ["p", "qubo"]:
        raise FormatError(f"{path.name}: expected 'p qubo 0 maxNodes nNodes nCouplers'")
    count = int(head[4]) + int(head[5])
    Q = _matrix(path, lines[1:], int(head[3]), count, first=0)
    return _model(Q, float(notes.get("offset", 0.0))), _ones(notes)


def _read_qplib(path: Path) -> tuple[dimod.BinaryQuadraticModel, int | None]:
    found = read_qplib(path)
    return _model(found.Q, found.offset), found.ones


def _text(path: Path, comment: str) -> tuple[list[str], dict[str, str]]:
    """Lines without comments, and the comments of the form ``word value``."""
    lines, notes = [], {}
    for line in read_text(path).splitlines():
        if line.startswith(comment):
            words = line[len(comment) :].split()
            if len(words) == 2:
                notes[words[0]] = words[1]
        elif line.strip():
            lines.append(line)
    return lines, notes


def _matrix(path: Path, lines: list[str], n: int, count: int, first: int) -> Floats:
    """The upper triangle, shape (n, n), of lines ``i j value``."""
    check_size(path.name, n, len(lines))
    if len(lines) != count:
        raise FormatError(f"{path.name} declares {count} entries and has {len(lines)}")
    Q = np.zeros((n, n))
    for line in lines:
        a, b, value = line.split()
        i, j = sorted((int(a) - first, int(b) - first))
        if not 0 <= i <= j < n:
            raise FormatError(f"{path.name}: entry {line!r} is outside 1..{n} (0..{n - 1})")
        if Q[i, j]:
            raise FormatError(f"{path.name}: pair {a} {b} stands twice")
        Q[i, j] = float(value)
    if not np.isfinite(Q).all():
        raise FormatError(f"{path.name} has entries that are not finite")
    return Q


def _model(Q: Floats, offset: float) -> dimod.BinaryQuadraticModel:
    bqm = dimod.BinaryQuadraticModel(dimod.BINARY)
    bqm.add_linear_from_array(Q.diagonal().copy())
    bqm.add_quadratic_from_dense(np.triu(Q, 1))
    bqm.offset = offset
    return bqm


def _ones(notes: dict[str, str]) -> int | None:
    return int(notes["cardinality"]) if "cardinality" in notes else None
