"""Scores solutions of the library's instances; needs NumPy and nothing else.

    python check.py solutions.csv

A line of the file is ``instance,ones``: the name in ``table.csv`` and the variables that are 1,
counted from 0 and separated by spaces; or ``instance,bits`` with as many digits 0 and 1 as there
are variables. Lines that begin with # are comments. For each the energy is computed from the
instance's file in float64 and compared with the best known one. The status is 1 if a line is not a
feasible solution.

It shares no code with the package, so that it checks the package as well.
"""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent
TYPES = {"F32": "<f4", "F64": "<f8", "I64": "<i8", "BOOL": "?"}


def tensors(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Arrays and metadata of a safetensors file."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    meta = header.pop("__metadata__", {})
    arrays = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        raw = data[8 + length + begin : 8 + length + end]
        arrays[name] = np.frombuffer(raw, TYPES[entry["dtype"]]).reshape(entry["shape"])
    return arrays, meta


class Instance:
    """An energy ``||A x||^2 / 2 + x'Q x / 2 + c.x + offset`` and the ones that each group has."""

    def __init__(self, entry: dict[str, str]) -> None:
        self.n, self.best = int(entry["n"]), float(entry["best"])
        self.A = self.Q = None
        self.offset = 0.0
        arrays, meta = tensors(FOLDER / entry["file"])
        if entry["file"].endswith(".rows.safetensors"):
            self._row(arrays, json.loads(meta["rows"]), entry["row"], entry["mask"])
        else:
            header = json.loads(meta["icbs"])
            self.c, self.offset = arrays["linear"], header["offset"]
            self.A, self.Q = arrays.get("factor"), arrays.get("quadratic")
            self.groups = arrays.get("groups", np.zeros(self.n, int))
            self.ones = arrays.get("cardinalities", np.array([header["cardinality"]]))

    def _row(self, arrays: Any, meta: Any, row: str, mask: str) -> None:
        place = meta["rows"].index(int(row))
        w = arrays["weights"][place].astype(float)
        R = np.zeros((self.n, self.n))
        R[np.triu_indices(self.n)] = arrays["triangle"]
        self.A, self.c = R * (w * np.sqrt(2 / meta["powers"][place])), np.zeros(self.n)
        pruned = arrays[f"pruned {mask}"][place]
        m = int(mask.split(":")[1]) if ":" in mask else self.n
        self.groups = np.arange(self.n) // m
        self.ones = np.bincount(self.groups, pruned)

    def energy(self, x: Any) -> float:
        """Of a vector of zeros and ones."""
        x = x.astype(float)
        total = self.c @ x + self.offset
        if self.A is not None:
            total += 0.5 * np.sum((self.A @ x) ** 2)
        if self.Q is not None:
            total += 0.5 * x @ self.Q @ x
        return float(total)

    def complaint(self, x: Any) -> str:
        """Why a vector is not feasible; empty if it is."""
        found = np.bincount(self.groups, x, minlength=len(self.ones))
        for group in np.flatnonzero(found != self.ones):
            where = f"group {group} has" if len(self.ones) > 1 else "it has"
            return f"{where} {found[group]:.0f} ones, expected {self.ones[group]:.0f}"
        return ""


def checked(entry: dict[str, str]) -> Instance:
    """The instance of a row of the table, whose best known state must have its energy.

    Raises:
        ValueError: its file or its row was edited, is damaged or missing.
    """
    try:
        instance = Instance(entry)
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(entry["ones"]), np.uint8))
        x = bits[: instance.n].astype(int)
        off = abs(instance.energy(x) - instance.best)
    except Exception as error:
        raise ValueError(f"{entry['file']} or its row in table.csv is damaged: {error}") from error
    size = abs(instance.best) + 1e-13 * np.abs(instance.c).sum()
    if instance.complaint(x) or not off <= 1e-9 * size:
        raise ValueError(
            f"{entry['file']} or its row in table.csv was edited: its best known state has not "
            "the energy that the table says"
        )
    return instance


def solution(text: str, n: int) -> Any:
    """The vector that a line gives.

    Raises:
        ValueError: neither bits nor places.
    """
    text = text.strip()
    if len(text) == n and set(text) <= {"0", "1"}:
        return np.array(list(text), dtype=int)
    places = [int(word) for word in text.split()]
    x = np.zeros(n, dtype=int)
    for place in places:
        if not 0 <= place < n:
            raise ValueError(f"variable {place} is out of range, expected 0..{n - 1}")
        if x[place]:
            raise ValueError(f"variable {place} stands twice")
        x[place] = 1
    return x


def main(path: str) -> int:
    """Prints a line for each solution; returns how many are not feasible."""
    with (FOLDER / "table.csv").open(newline="", encoding="utf-8") as file:
        entries = {row["name"]: row for row in csv.DictReader(file)}
    refused = 0
    print(f"{'instance':40} {'energy':>22} {'above best known':>18}")
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, text = line.partition(",")
        name = name.strip().removeprefix("library:")
        complaint = "there is no such instance in table.csv"
        if name in entries:
            try:
                instance = checked(entries[name])
                x = solution(text, instance.n)
                complaint = instance.complaint(x)
            except ValueError as error:
                complaint = str(error)
        if complaint:
            refused += 1
            print(f"{name:40} line {number}: {complaint}")
            continue
        energy = instance.energy(x)
        share = (energy - instance.best) / abs(instance.best) if instance.best else 0.0
        print(f"{name:40} {energy:22.15g} {100 * share:16.4f} %")
    return refused


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(1 if main(sys.argv[1]) else 0)
