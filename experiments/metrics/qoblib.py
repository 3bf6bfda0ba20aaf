"""The runs of a store as QOBLIB's submissions: a folder for each solver, budget and instance.

Source of the format: CONTRIBUTING.md of the Quantum Optimization Benchmarking Library
(https://github.com/ZIB-AOPT/QOBLIB). A folder, called like its instance, holds

* ``<instance>_summary.csv``, one row of `COLUMNS`;
* ``<instance>_solution.sol``, the best state as n digits 0 and 1 in the order of the variables;
* ``<instance>_objective_time_series.json.gz``, a list of runs, each a list of improvements
  ``{"Time": seconds, "Incumbent": energy}``; the last entry is the end of the run. A run without
  feasible state has the one entry null.

An objective value is the energy, as `solvers.export` writes it, and is minimised. What was not
measured is N/A.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.errors import StoreError
from experiments.metrics.references import SCORED, annotate
from experiments.store.database import Store
from solvers.arithmetic.rounding import penalised
from solvers.problem import Bools, CardinalityProblem

COLUMNS = (
    "Problem", "Submitter", "Affiliation", "Date", "Reference", "Best Objective Value",
    "Optimality Bound", "Modeling Approach", "# Decision Variables", "# Binary Variables",
    "# Integer Variables", "# Continuous Variables", "# Non-Zero Coefficients",
    "Coefficients Type", "Coefficients Range", "Workflow", "Algorithm Type", "Paradigm", "# Runs",
    "# Feasible Runs", "# Successful Runs", "Success Threshold", "Hardware Specifications",
    "Total Runtime", "Time to Solution", "CPU Runtime", "GPU Runtime", "QPU Runtime",
    "Other HW Runtime", "Remarks",
)  # fmt: skip
NONE = "N/A"
# A run succeeds if it is within this share of the best.
THRESHOLD = 1e-6
# On the same instance these find the same state each time, up to the clock.
DETERMINISTIC = ("greedy", "relaxation", "semidefinite", "exact", "enumerate", "milp", "miqp")

HYBRID = ("leap-hybrid-cqm", "leap-hybrid-nl")
# Devices that say whether they were rehearsed, and do not give an ARN.
DEVICES = ("qpu", *HYBRID, "qaoa-xy-ibm")


@dataclass(frozen=True)
class Submitter:
    """Who submits, which no store knows.

    Attributes:
        name: one or more, by commas.
        affiliation: as many, in that order.
        reference: a link to what was run.
    """

    name: str
    affiliation: str
    reference: str


def submit(path: str | Path, out: str | Path, submitter: Submitter) -> list[Path]:
    """Writes a folder for each solver, budget and instance that has a feasible run.

    Args:
        path: a store.
        out: folder; ``out/<solver>-<budget>/<instance>/`` is written.
        submitter: who submits.

    Returns:
        The folders of instances.

    Raises:
        StoreError: no store, one without a feasible run, a folder that cannot be written.
    """
    with Store(path) as store:
        runs = annotate(store.runs())
        # A cell that was skipped, or is still out at a service, is no run.
        ran = runs[runs["status"].isin((*SCORED, "error"))] if len(runs) else runs
        curves: dict[Any, pd.DataFrame] = dict(tuple(store.incumbents().groupby("run")))
        hosts = {one["id"]: one["host"] for one in store.invocations()}
        names = _names(runs)
        folders: list[Path] = []
        for entry in _entries(store, ran, curves):
            first = entry.runs.iloc[0]
            name = names[first["instance"]]
            label = _slug(f"{first['solver']}-{_budget(first['budget'])}")
            folder = Path(out) / label / name
            if folder in folders:
                raise StoreError(
                    f"store {path}: two solvers or budgets would share the folder "
                    f"{folder.parent.name}: give them labels that differ in letters or digits"
                )
            row = entry.row(name, submitter, hosts.get(entry.runs["invocation"].iloc[-1], {}))
            state = store.state(str(entry.best["key"]))
            folders.append(_write(folder, row, state, entry.series()))
    if not folders:
        raise StoreError(f"store {path} has no feasible run yet; run a study into it first")
    return folders


def _entries(store: Store, ran: pd.DataFrame, curves: dict[Any, pd.DataFrame]) -> Iterator[_Entry]:
    """Every solver and budget with a feasible run, instance by instance."""
    instances: Any = ran.groupby("instance", sort=False) if len(ran) else ()
    for instance, part in instances:
        problem = store.problem(instance)
        coefficients = _coefficients(problem)
        for _, group in part.groupby(["solver", "budget"], sort=False):
            # A solver that failed may have left an energy of what it did not finish.
            if group["energy"].where(group["status"].isin(SCORED)).notna().any():
                yield _Entry(problem, coefficients, group, curves)


class _Entry:
    """The runs of one solver with one budget on one instance."""

    def __init__(
        self,
        problem: CardinalityProblem,
        coefficients: tuple[int, float, float],
        runs: pd.DataFrame,
        curves: dict[Any, pd.DataFrame],
    ) -> None:
        self.problem, self.runs, self.curves = problem, runs, curves
        self.coefficients = coefficients
        self.energy = runs["energy"].where(runs["status"].isin(SCORED))
        self.best: dict[Any, Any] = runs.loc[[self.energy.idxmin()]].iloc[0].to_dict()

    def row(self, name: str, submitter: Submitter, host: dict[str, Any]) -> dict[str, object]:
        """The columns of the summary."""
        first: dict[Any, Any] = self.runs.iloc[0].to_dict()
        best = float(self.best["energy"])
        success = self.energy <= best + THRESHOLD * abs(best)
        nonzero, least, most = self.coefficients
        penalty = first["track"] == "penalised"
        paradigm = _paradigm(self.best)
        options = _said(first["options"], "options")
        queue = self.runs["queue"].fillna(0.0)
        values = (
            name, submitter.name, submitter.affiliation, str(self.runs["started"].max())[:10],
            submitter.reference, repr(best), self._bound(best), _model(self.problem, penalty),
            self.problem.n, self.problem.n, 0, 0, nonzero, "continuous", f"{least!r} to {most!r}",
            f"{first['solver_name']} {json.dumps(options)}, budget {first['budget']}"
            + (", infeasible samples repaired" if penalty else ""),
            "Deterministic" if first["solver_name"] in DETERMINISTIC else "Stochastic", paradigm,
            len(self.runs), int(self.energy.notna().sum()), int(success.sum()), THRESHOLD,
            json.dumps(host), _mean(self.runs["wall"] - queue), _mean(self._times()[success]),
            _mean(self.runs["cpu"]), NONE, self._device(paradigm), NONE,
            f"number of ones {self.problem.cardinality}; seeds "
            f"{' '.join(map(str, self.runs['seed']))}; energies scored again in float64",
        )  # fmt: skip
        return dict(zip(COLUMNS, values, strict=True))

    def _bound(self, best: float) -> str:
        """The best certified bound that no state of the store refutes."""
        reference, tolerance = (float(self.runs[c].iloc[0]) for c in ("reference", "tolerance"))
        proved = self.runs["proved_optimal"].fillna(False).astype(bool)
        if (proved & (self.energy <= reference + tolerance)).any():
            return repr(best)
        bounds = self.runs["lower_bound"].dropna()
        bounds = bounds[bounds <= reference + tolerance]
        return repr(min(float(bounds.max()), best)) if len(bounds) else NONE

    def _device(self, paradigm: str) -> str:
        """Seconds on the device itself; a hybrid service does not tell its own."""
        direct = paradigm == "Quantum Hardware" and self.best["solver_name"] not in HYBRID
        return _mean(self.runs["execute"]) if direct else NONE

    def _times(self) -> pd.Series:
        """Seconds until each run had its own best state."""
        last = {key: float(curve["seconds"].iloc[-1]) for key, curve in self.curves.items()}
        return self.runs["key"].map(last)

    def series(self) -> list[list[dict[str, float | None]]]:
        """The improvements of every run."""
        found = []
        for key, wall, energy in zip(self.runs["key"], self.runs["wall"], self.energy, strict=True):
            curve = self.curves.get(key)
            steps: list[dict[str, float | None]] = []
            if curve is not None and not np.isnan(energy):
                pairs = zip(curve["seconds"].tolist(), curve["energy"].tolist(), strict=True)
                steps = [{"Time": time, "Incumbent": value} for time, value in pairs]
            last = steps[-1]["Incumbent"] if steps else None if np.isnan(energy) else energy
            end = float(max(wall, steps[-1]["Time"] or 0.0)) if steps else float(wall)
            found.append([*steps, {"Time": end, "Incumbent": last}])
        return found


def _model(problem: CardinalityProblem, penalty: bool) -> str:
    if problem.groups is None:
        ones = f"sum x = {problem.cardinality}"
    else:
        ones = f"a number of ones in each of {problem.num_groups} groups"
    how = "as a penalty" if penalty else "kept by construction"
    return f"QUBO with {ones}, {how}"


def _coefficients(problem: CardinalityProblem) -> tuple[int, float, float]:
    """Count of the entries that are not 0, of E in the layout of ``.qs``, and of the constraint."""
    Q, linear, _ = penalised(problem, 0.0)
    entries = 0.5 * Q[np.triu_indices(problem.n, 1)]
    values = np.concatenate([linear, entries])
    values = values[values != 0]
    if not len(values):
        return problem.n, 0.0, 0.0
    return len(values) + problem.n, float(values.min()), float(values.max())


def _paradigm(run: dict[Any, Any]) -> str:
    """QOBLIB's word for what a run ran on; a rehearsal of a device is a simulation."""
    solver, info = str(run["solver_name"]), _said(run["info"], "what a solver said")
    if not solver.startswith("qaoa") and solver not in DEVICES:
        return "Classical"
    device = solver in DEVICES or "/qpu/" in str(info.get("device"))
    return "Quantum Hardware" if device and not info.get("rehearsal") else "Quantum Simulator"


def _names(runs: pd.DataFrame) -> dict[str, str]:
    """What each instance's folder is called; those of one name are told apart by their hash."""
    if runs.empty:
        return {}
    first = runs.drop_duplicates("instance")
    names = dict(zip(first["instance"], first["instance_name"].map(_slug), strict=True))
    count = Counter(names.values())
    return {one: f"{n}-{one[:8]}" if count[n] > 1 else n for one, n in names.items()}


def _said(text: object, what: str) -> dict[str, Any]:
    """An object that a store keeps as JSON; where it keeps none, an empty one."""
    if not isinstance(text, str):
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{what} in the store is damaged: {error}") from error
    if not isinstance(value, dict):
        raise StoreError(f"{what} in the store is damaged: no JSON object")
    return value


def _mean(values: pd.Series) -> str:
    """Of those that were measured."""
    values = values.dropna()
    return f"{float(values.mean()):.6g}" if len(values) else NONE


def _budget(text: str) -> str:
    parts = {key: value for key, value in _said(text, "a budget").items() if value is not None}
    units = {"time_limit": "s"}
    return "-".join(f"{value:g}{units.get(key, key)}" for key, value in parts.items()) or "free"


def _slug(name: str) -> str:
    """A name that is one part of a path on any system."""
    return re.sub(r"[^\w.=]+", "-", name).strip("-.") or "unnamed"


def _write(
    folder: Path, row: dict[str, object], state: Bools, series: list[list[dict[str, float | None]]]
) -> Path:
    name = folder.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{name}_summary.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerow(row)
        bits = "".join("1" if one else "0" for one in state)
        (folder / f"{name}_solution.sol").write_text(f"{bits}\n", encoding="ascii")
        # Without a time stamp, so that the same runs give the same file.
        data = gzip.compress(json.dumps(series).encode(), mtime=0)
        (folder / f"{name}_objective_time_series.json.gz").write_bytes(data)
    except OSError as error:
        raise StoreError(f"folder {folder} cannot be written: {error.strerror}") from error
    return folder
