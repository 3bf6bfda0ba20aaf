"""Files a problem lives in.

===================== ============================================= ===========================
suffix                what it holds                                 read by
===================== ============================================= ===========================
.block.safetensors    everything, factor included; the only format  `load`
                      that is small and checked against edits
.bqm                  the objective, optionally penalised, names    dimod
.lp                   objective, constraint, names                  any MIP solver, dimod
.ubqp                 **maximise** x'Qx, ``n m`` then ``i j q_ij``, MQLib; OR-Library's layout
                      1-based
.sparse               the same to be minimised                      Biq Mac
.qubo                 D-Wave qbsolv text, 0-based                   qbsolv's descendants
.qplib                read only: see `solvers.io.qplib`                QPLIB
===================== ============================================= ===========================

Upper case suffixes are the same. Every text carries all 17 digits. What a text format has no field
for (cardinality, offset, names) stands in comments that its usual readers skip. How files without
our comments are read is said in `solvers.io.matrixfiles` and `solvers.io.lpfile`: what two programs
would read as two problems is refused.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from importlib.metadata import version
from numbers import Integral
from pathlib import Path
from typing import Any

import dimod
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as safetensors_bytes

from solvers.errors import FormatError, ProblemError
from solvers.io.dimodfiles import read_bqm
from solvers.io.lpfile import lp_text, read_lp
from solvers.io.matrixfiles import FAMILIES, matrix_text, read_matrix
from solvers.io.qplib import read_qplib
from solvers.io.textfile import Objective, check_size
from solvers.problem import CardinalityProblem, frozen

# 1: first version.
SCHEMA = 1
CONTAINER = ".block.safetensors"
EXPORTS = (".bqm", ".lp", *FAMILIES)
_READERS = {".bqm": read_bqm, ".lp": read_lp, ".qplib": read_qplib} | dict.fromkeys(
    FAMILIES, read_matrix
)
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
    texts = {"meta": meta}
    if problem.labels is not None:
        texts["labels"] = json.dumps(problem.labels)
    header = {
        "schema": SCHEMA,
        "n": problem.n,
        "rank": problem.rank,
        "cardinality": problem.cardinality,
        "offset": problem.offset,
        "scale": problem.scale,
        "content_hash": problem.content_hash,
        **{f"{name}_hash": _sha256(text) for name, text in texts.items()},
        "written_by": {name: version(name) for name in ("numpy", "safetensors")},
    }
    _write(path, safetensors_bytes(tensors, {"icbs": json.dumps(header), **texts}))
    return path


def load(path: str | Path, cardinality: int | None = None) -> CardinalityProblem:
    """Read a problem from any of the formats above.

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
    suffix = path.suffix.lower()
    try:
        if path.name.lower().endswith(CONTAINER):
            problem = _read_container(path)
            _check_ones(path.name, cardinality, problem.cardinality, problem.n)
            return problem
        if suffix not in _READERS:
            known = ", ".join((CONTAINER, *_READERS))
            raise FormatError(f"{path.name}: unknown suffix; expected one of {known}")
        return _problem(path.name, _READERS[suffix](path), cardinality)
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


def _problem(name: str, found: Objective, cardinality: int | None) -> CardinalityProblem:
    n = len(found.Q)
    check_size(name, n)
    _check_ones(name, cardinality, found.ones, n + found.forced, found.forced)
    ones = found.ones if cardinality is None else cardinality
    if ones is None:
        raise FormatError(f"{name} does not say how many ones: pass cardinality")
    couplings = np.triu(found.Q, 1)
    meta: dict[str, Any] = {"sense": "max"} if found.maximised else {}
    return CardinalityProblem(
        linear=found.Q.diagonal(),
        quadratic=couplings + couplings.T,
        cardinality=int(ones) - found.forced,
        offset=found.offset,
        meta=meta | ({"fixed": dict(found.fixed)} if found.fixed else {}),
        labels=found.labels,
    )


def _check_ones(name: str, asked: int | None, found: int | None, most: int, least: int = 0) -> None:
    """The caller's number of ones against the file's, and against what is possible."""
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
    """Write the problem for other programs; the suffix picks the format.

    Args:
        problem: of at most 20,000 variables, since these formats are dense.
        path: ends in one of `EXPORTS` or in the container's suffix.
        penalty: adds ``penalty * (sum x - k)^2`` for readers without constraints; not for LP,
            which has them.

    Raises:
        FormatError: unknown suffix, too many variables, a penalty for LP.
        ProblemError: a penalty so large that the objective is lost in its rounding.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if path.name.endswith(CONTAINER):
        return save(problem, path)
    if suffix not in EXPORTS:
        raise FormatError(f"{path.name}: unknown suffix; expected one of {', '.join(EXPORTS)}")
    check_size(path.name, problem.n)
    if suffix in FAMILIES:
        data = matrix_text(problem, suffix, penalty).encode()
    elif suffix == ".bqm":
        data = _bqm_bytes(problem, penalty)
    elif penalty is None:
        data = lp_text(problem).encode()
    else:
        raise FormatError("an LP file holds the constraint itself: leave penalty out")
    _write(path, data)
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
        labels=json.loads(texts["labels"]) if "labels" in texts else None,
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
    if _sha256(texts["meta"]) != header["meta_hash"]:
        raise FormatError(f"{path.name} was edited: the hash of its metadata does not match")
    # Files without labels, and those of releases that had none, have no hash either.
    labels = texts.get("labels")
    if header.get("labels_hash") != (None if labels is None else _sha256(labels)):
        raise FormatError(f"{path.name} was edited: the hash of its labels does not match")
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


def _bqm_bytes(problem: CardinalityProblem, penalty: float | None) -> bytes:
    bqm = problem.to_bqm(penalty)
    if problem.labels is not None:
        bqm.relabel_variables(dict(enumerate(problem.labels)))
    with bqm.to_file() as file:
        return file.read()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
