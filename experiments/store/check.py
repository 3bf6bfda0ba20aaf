"""Whether a store is whole: file, references, instances, energies, identities of its cells."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.errors import StoreError
from experiments.record.hardness import magnitude
from experiments.record.scoring import TOLERANCE
from experiments.store.database import Store
from experiments.store.schema import TERMS
from solvers.errors import SolverError
from solvers.registry import SOLVERS

# Findings of one kind that are spelled out; the rest is counted.
SHOWN = 20


@dataclass
class Findings:
    """What `check` found.

    Attributes:
        runs: cells in the store.
        instances: problems in it.
        rescored: cells whose state was scored again.
        faults: one line each, at most `SHOWN` and a count of the others.
    """

    runs: int = 0
    instances: int = 0
    rescored: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults


def check(path: str | Path, *, sample: int | None = None, seed: int = 0) -> Findings:
    """Looks for damage, without changing anything.

    The file by SQLite's own integrity check; references between tables; every instance against its
    content hash; energies against the stored states; curves of incumbents, which must fall and end
    at the energy, up to round-off; each cell's key and seed against what they are hashes of.

    Args:
        path: the store.
        sample: cells to score again, drawn at random; None scores all.
        seed: of the draw.

    Raises:
        StoreError: a file that is no store.
    """
    with Store(path) as store:
        out = Findings()
        faults = list(_file(store))
        if faults:  # nothing further can be trusted to end
            return _limited(out, faults)
        try:
            runs, instances = store.runs(), store.instances()
            out.runs, out.instances = len(runs), len(instances)
            faults += _curves(store, runs)
            faults += _keys(store)
            faults += _energies(store, out, sample, seed)
        except StoreError as error:
            faults.append(str(error))
    return _limited(out, faults)


def _limited(out: Findings, faults: list[str]) -> Findings:
    out.faults = faults[:SHOWN]
    if len(faults) > SHOWN:
        out.faults.append(f"and {len(faults) - SHOWN} more")
    return out


def _file(store: Store) -> Iterator[str]:
    with closing(sqlite3.connect(f"{store.path.absolute().as_uri()}?mode=ro", uri=True)) as db:
        try:
            found = db.execute(f"PRAGMA integrity_check({SHOWN})").fetchmany(SHOWN)
            yield from (f"file: {line}" for (line,) in found if line != "ok")
            for table, row, parent, _ in db.execute("PRAGMA foreign_key_check").fetchmany(SHOWN):
                yield f"{table} row {row} refers to a row of {parent} that is not there"
        except sqlite3.DatabaseError as error:
            yield f"file: {error}"


def _curves(store: Store, runs: pd.DataFrame) -> Iterator[str]:
    curves = store.incumbents()
    falls = curves["energy"].diff() < 0
    first = curves["run"] != curves["run"].shift()
    for run in curves.loc[~(falls | first), "run"].unique():
        yield f"cell {run}: its incumbents do not improve"
    said = runs.set_index("key")[["energy", "magnitude"]].dropna(subset="energy")
    ends = said.join(curves.groupby("run")["energy"].last().rename("end"), how="inner")
    # States are scored in batches of another size than samples are, and may round otherwise.
    room = TOLERANCE * (ends["magnitude"].fillna(0.0) + ends["energy"].abs())
    for run, end, energy in ends.loc[
        ~((ends["end"] - ends["energy"]).abs() <= room), ["end", "energy"]
    ].itertuples():
        yield f"cell {run}: its incumbents end at {end:.10g}, its energy is {energy:.10g}"


def _keys(store: Store) -> Iterator[str]:
    seeds = {
        entry["id"]: json.dumps(entry["seed"])
        for entry in store.invocations()
        if entry.get("seed") is not None
    }
    rows = store._rows(
        "SELECT key, invocation, instance, solver, solver_name, options, budget, seed_index, "
        "give_initial, seed FROM runs"
    )
    identities: dict[tuple[str, str, str], str] = {}
    # Few of the parts differ from row to row. Typed, because True is written otherwise than 1.
    written = lru_cache(4096, typed=True)(json.dumps)
    for key, invocation, instance, label, name, options, budget, index, given, seed in rows:
        study_seed = seeds.get(invocation)
        if study_seed is None:
            continue
        what = (name, label, options)
        if what not in identities:
            identities[what] = _identity(*what)
        parts = map(written, (instance, identities[what], budget, index, bool(given)))
        own = (study_seed, json.dumps(key))
        if key != _digest((*parts, study_seed)) or seed != int(_digest(own), 16) % 2**31:
            yield f"cell {key}: its key or seed is not that of what the row says"


def _identity(name: str, label: str, options: str) -> str:
    try:
        table = json.loads(options)
        given = table["options"]
        if name in SOLVERS and SOLVERS[name].paid:
            given = {key: value for key, value in given.items() if key not in TERMS}
        parts = [name, label, given, table["parameters"]]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return ""
    return json.dumps(parts, sort_keys=True)


def _digest(parts: Iterable[str]) -> str:
    """As `experiments.study.cells` makes keys; written again, so that an error there shows here."""
    return hashlib.sha256(f"[{', '.join(parts)}]".encode()).hexdigest()[:32]


def _energies(store: Store, out: Findings, sample: int | None, seed: int) -> Iterator[str]:
    rows = store._rows(
        "SELECT key, instance, energy, state, status FROM runs "
        "WHERE energy IS NOT NULL OR state IS NOT NULL"
    )
    if sample is not None and sample < len(rows):
        drawn = np.random.default_rng(seed).choice(len(rows), sample, replace=False)
        rows = [rows[i] for i in drawn]
    cells = defaultdict(list)
    for row in rows:
        cells[row[1]].append(row)
    for instance in store.sizes():
        try:
            problem = store.problem(instance)
        except (StoreError, SolverError) as error:
            yield f"instance {instance[:12]}: {error}"
            continue
        tolerance = TOLERANCE * magnitude(problem)
        wanted = -(-problem.n // 8)
        group = cells[instance]
        good = [row for row in group if isinstance(row[3], bytes) and len(row[3]) == wanted]
        if len(good) < len(group):
            yield f"{len(group) - len(good)} cells of {instance[:12]} have an energy and no state"
        for start in range(0, len(good), 1024):
            part = good[start : start + 1024]
            bits = np.frombuffer(b"".join(row[3] for row in part), np.uint8).reshape(-1, wanted)
            states = np.unpackbits(bits, axis=1, count=problem.n)
            energies, feasible = problem.energy(states), problem.is_feasible(states)
            out.rescored += len(part)
            for (key, _, said, *_), energy, ok in zip(part, energies, feasible, strict=True):
                if not ok:
                    yield f"cell {key}: its state is not feasible"
                elif said is None or not abs(energy - said) <= tolerance + TOLERANCE * abs(energy):
                    yield f"cell {key}: its energy is {said}, its state scores {energy:.10g}"
