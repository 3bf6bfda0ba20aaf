"""The instances of the library, by name.

``table.csv`` has a row for each: what it is, how hard it is, the best known energy, a certified
bound, and who found them when. Small instances are containers. Whole rows of a layer share what
makes them large: ``<layer>.rows.safetensors`` has one upper triangle R for all of them, with
``R'R = X'X / N`` of the layer's inputs, and for each row its weights w and masks. Then, with p the
power of the row's output,

    E(x) = ||R (w*x)||^2 / p

is the share of the output that the mask x loses. R and w are in single precision, and these numbers
are the instance: nothing is lost by rounding that the instance does not have by definition.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.errors import StudyError
from experiments.study.paths import LIBRARY
from solvers.arrays import frozen
from solvers.io.formats import load as load_any
from solvers.problem import Bools, CardinalityProblem

ROWS = ".rows.safetensors"


@dataclass(frozen=True)
class Entry:
    """A row of the table.

    Attributes:
        name: such as ``rows/smollm2-15-up-r289-d0.5``.
        kind: rows, ladder, patterns, mix or loss.
        file: which file holds it.
        row: of a file of rows, else empty.
        mask: of a file of rows, else empty.
        model, layer, curvature: where it comes from.
        n, k, groups: variables, ones, groups.
        density: kept fraction of the layer's weights.
        sha256: content hash of the problem.
        condition: of G with its diagonal scaled to 1; inf where it is singular.
        spread: of the columns' scales, see `experiments.record.hardness.column_spread`.
        greedy, one_swap: how far the greedy state, and a descent from it, are above the best known,
            as a share of it.
        best: least energy known.
        best_by, best_seconds: the solver that found it and its time limit.
        bound: certified lower bound.
        bound_by, bound_seconds: the solver that proved it and its time limit.
        proved: whether the best known energy is proved to be the least.
        date: when.
        ones: the state of that energy, its bits in hexadecimal (`numpy.packbits`).
    """

    name: str
    kind: str
    file: str
    row: str
    mask: str
    model: str
    layer: str
    curvature: str
    n: int
    k: int
    groups: int
    density: float
    sha256: str
    condition: float
    spread: float
    greedy: float
    one_swap: float
    best: float
    best_by: str
    best_seconds: float
    bound: float
    bound_by: str
    bound_seconds: float
    proved: bool
    date: str
    ones: str

    @property
    def state(self) -> Bools:
        """The state of the best known energy, shape (n,).

        Raises:
            ValueError: ``ones`` are not the bits of n variables.
        """
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(self.ones), np.uint8))
        if len(bits) != self.n + -self.n % 8 or bits[self.n :].any():
            raise ValueError(f"{len(bits)} bits")
        return bits[: self.n].astype(np.bool_)

    @property
    def gap(self) -> float:
        """How far the best known energy is above the bound, as a share of it."""
        return (self.best - self.bound) / abs(self.best) if self.best else np.nan


def folder() -> Path:
    """Where the files are."""
    return Path(str(files(__package__)))


@cache
def table(where: Path | None = None) -> tuple[Entry, ...]:
    """Every entry, in the table's order.

    Args:
        where: folder of another library; the package's own when None.

    Raises:
        StudyError: a table that was edited so that it cannot be read.
    """
    path = (where or folder()) / "table.csv"
    kinds = {field.name: str(field.type) for field in fields(Entry)}
    convert: dict[str, Callable[[str], Any]] = {
        "int": int, "float": float, "str": str, "bool": {"True": True, "False": False}.__getitem__
    }  # fmt: skip
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return tuple(
            Entry(**{key: convert[kind](row[key]) for key, kind in kinds.items()}) for row in rows
        )
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise StudyError(
            f"{path.name} of the library cannot be read ({error}): install the package again"
        ) from error


def matching(pattern: str, where: Path | None = None) -> list[Entry]:
    """Entries whose name fits a shell pattern, such as ``rows/*``.

    Raises:
        StudyError: none does.
    """
    entries = table(where)
    found = [entry for entry in entries if fnmatchcase(entry.name, pattern)]
    if not found:
        kinds = ", ".join(sorted({f"{entry.kind}/*" for entry in entries}))
        raise StudyError(
            f"instances: {LIBRARY}{pattern} is not in the library: choose from {kinds}, or see "
            "icbs instances list"
        )
    return found


def problem(entry: Entry, where: Path | None = None) -> CardinalityProblem:
    """The problem of an entry, checked against the table.

    Raises:
        StudyError: its file was edited, is damaged or missing.
    """
    path = (where or folder()) / entry.file
    try:
        found = _built(path, entry)
    except Exception as error:  # whatever a damaged file makes its reader raise
        raise StudyError(f"{entry.file} of the library is damaged: {error}") from error
    shape = found.n, found.cardinality, found.num_groups
    if found.content_hash != entry.sha256 or shape != (entry.n, entry.k, entry.groups):
        raise StudyError(
            f"{entry.file} of the library was edited: {entry.name} is another problem than the "
            "table says; install the package again"
        )
    return found


def complaint(entry: Entry, where: Path | None = None) -> str:
    """What is wrong with an entry, in a sentence; empty if its file and its numbers agree.

    Args:
        entry: of `table`.
        where: folder of another library; the package's own when None.
    """
    try:
        found = problem(entry, where)
    except StudyError as error:
        return str(error)
    try:
        state = entry.state
    except ValueError as error:
        return f"{entry.name}: its ones are not the state of {entry.n} variables ({error})"
    if not found.is_feasible(state):
        return f"{entry.name}: its best known state is not feasible"
    energy = float(found.energy(state))
    if not abs(energy - entry.best) <= 1e-9 * max(abs(entry.best), 1e-300):
        return f"{entry.name}: its best known state has the energy {energy!r}, not {entry.best!r}"
    if not entry.bound <= entry.best:
        return f"{entry.name}: its bound, {entry.bound!r}, is not below its best known energy"
    return ""


def _built(path: Path, entry: Entry) -> CardinalityProblem:
    if not entry.file.endswith(ROWS):
        return load_any(path)
    rows = Rows.read(path)
    return rows.problem(entry.row, entry.mask)


@dataclass(frozen=True)
class Rows:
    """Rows of one layer.

    Attributes:
        triangle: R, row by row from the diagonal on, float32, shape (d (d + 1) / 2,).
        weights: of each row, float32, shape (rows, d).
        masks: True where a weight is pruned, by name, shape (rows, d) each.
        meta: of the layer: model, layer, data, positions; ``rows`` and ``powers`` of each row.
    """

    triangle: NDArray[np.float32]
    weights: NDArray[np.float32]
    masks: dict[str, Bools]
    meta: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> Rows:
        """The content of a file of rows."""
        from safetensors import safe_open

        with safe_open(path, framework="numpy") as file:
            meta = json.loads((file.metadata() or {})["rows"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        masks = {
            name.removeprefix("pruned "): values.astype(np.bool_)
            for name, values in tensors.items()
            if name.startswith("pruned ")
        }
        return cls(tensors["triangle"], tensors["weights"], masks, meta)

    @property
    def root(self) -> NDArray[np.float64]:
        """R, float64, shape (d, d)."""
        d = self.weights.shape[1]
        R = np.zeros((d, d))
        R[np.triu_indices(d)] = self.triangle
        return R

    def problem(self, row: str, mask: str) -> CardinalityProblem:
        """The problem of a row with a mask's number of ones, of its groups if it is a pattern."""
        place = self.meta["rows"].index(int(row))
        w = self.weights[place].astype(np.float64)
        pruned, power = self.masks[mask][place], float(self.meta["powers"][place])
        groups: dict[str, Any] = {}
        if ":" in mask:
            m = int(mask.partition(":")[2])
            groups["groups"] = np.arange(len(w)) // m
            groups["cardinalities"] = pruned.reshape(-1, m).sum(1)
        meta = {key: self.meta[key] for key in ("model", "layer", "data", "note", "positions")}
        pattern = mask if groups else None
        return CardinalityProblem(
            linear=np.zeros(len(w)),
            cardinality=int(pruned.sum()),
            factor=frozen(self.root * (w * np.sqrt(2 / power))),
            scale=power,
            initial=pruned,
            indices=np.arange(len(w)),
            meta=meta
            | {
                "kind": "row",
                "row": int(row),
                "density": 1 - float(pruned.mean()),
                "pattern": pattern,
                "fisher": "reconstruction" + (f", {pattern}" if pattern else ""),
            },
            **groups,
        )


def instance(name: str | Path, cardinality: int | None = None) -> CardinalityProblem:
    """The problem called ``library:NAME``, or that of a file.

    Args:
        name: of one entry behind ``library:``, or a path.
        cardinality: number of ones, for files that do not say.

    Raises:
        StudyError: no such entry, or several.
        FormatError, OSError: see `solvers.io.formats.load`.
    """
    if not str(name).startswith(LIBRARY):
        return load_any(name, cardinality)
    entries = matching(str(name).removeprefix(LIBRARY))
    if len(entries) > 1:
        raise StudyError(
            f"instances: {name} is {len(entries)} instances, such as {LIBRARY}{entries[0].name}: "
            "name one of them"
        )
    return problem(entries[0])
