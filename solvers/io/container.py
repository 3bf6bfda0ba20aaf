"""The container file: everything of a problem, factor included, checked against edits.

A safetensors file, so nothing in it is ever run. Its header has the schema, the hash of the arrays
and those of the texts.
"""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as safetensors_bytes

from solvers.arrays import frozen
from solvers.errors import FormatError
from solvers.problem import CardinalityProblem

CONTAINER = ".block.safetensors"
# 1: first version.
SCHEMA = 1
TENSORS = {
    "factor": ("F64", 2),
    "quadratic": ("F64", 2),
    "linear": ("F64", 1),
    "initial": ("BOOL", 1),
    "indices": ("I64", 1),
    "groups": ("I64", 1),
    "cardinalities": ("I64", 1),
}


def container_bytes(problem: CardinalityProblem) -> bytes:
    """The problem as the content of a container."""
    tensors = {
        name: np.ascontiguousarray(array)
        for name in TENSORS
        if (array := getattr(problem, name)) is not None
    }
    texts = {"meta": json.dumps(dict(problem.meta), sort_keys=True)}
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
    return safetensors_bytes(tensors, {"icbs": json.dumps(header), **texts})


def read_container(path: Path) -> CardinalityProblem:
    """The problem in a container, hashes checked.

    Raises:
        FormatError: truncated, edited, of another schema or kind.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            texts = file.metadata() or {}
            header = _header(path, texts)
            tensors: dict[str, NDArray[Any]] = {}
            for name in file.keys():  # noqa: SIM118  (not a mapping)
                _check_tensor(path, name, file.get_slice(name), header)
                tensors[name] = frozen(file.get_tensor(name))
    except SafetensorError as error:
        raise FormatError(f"{path.name} is truncated or not a container: {error}") from error
    if "linear" not in tensors:
        raise FormatError(f"{path.name} has no tensor 'linear'")
    meta = json.loads(texts["meta"])
    if not isinstance(meta, dict):
        raise FormatError(f"{path.name}: its metadata is not a JSON object")
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
    columns = shape[-1] if name == "cardinalities" else header["n"]
    if view.get_dtype() != dtype or len(shape) != ndim or shape[-1] != columns:
        raise FormatError(
            f"{path.name}: tensor {name!r} is {view.get_dtype()} {shape}, "
            f"expected {dtype} with {ndim} dimensions and {header['n']} columns"
        )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
