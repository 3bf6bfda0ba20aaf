"""What each instance's energies are compared with, and how sure that is.

The reference ``E_ref`` is always the energy of a state somebody found: the best re-scored feasible
energy of any run that did not fail, of the rounded relaxation, or of the current mask. Its tag says
what is known about the optimum ``E*``:

* **exact**: ``E_ref = E*``, by a solver's proof or because a certified lower bound meets ``E_ref``
  within round-off. A gap is the true gap.
* **bounded**: a certified lower bound ``L <= E* <= E_ref`` exists and is not met. The gap against
  ``E_ref`` is then a lower limit of the true gap and `metrics.certified_gap`, the same formula
  with ``L`` for ``E_ref``, an upper limit: ``(E - e) / (E0 - e)`` grows as ``e`` falls, wherever
  ``E <= E0``. ``slack = (E_ref - L) / (E0 - L)`` is the most by which ``E_ref`` can fall short.
* **best-known**: no bound at all; a better state may turn up and raise every gap.

A gap is measured from ``E0``, the current mask's energy; for a problem that has none from the mean
energy over the feasible set, and `baseline` says so. Where ``E0 - E_ref`` is nothing but
round-off the instance is *flat*: nothing can be gained on it and gaps are NaN.

A proof or a bound that a feasible state refutes is struck out, and `refuted` names it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from experiments.errors import StoreError
from experiments.metrics import formulas as metrics
from experiments.store.database import Store

# Share of `hardness.magnitude` below which energies are equal and a gain is no gain.
EQUAL = 1e-9
TAGS = ("exact", "bounded", "best-known")
# A late answer is still a feasible state with a known energy.
SCORED = ("done", "timeout")


def references(runs: pd.DataFrame) -> pd.DataFrame:
    """One row an instance.

    Args:
        runs: a store's runs joined with their instances.

    Returns:
        Indexed by instance: reference, tag, bound, slack, baseline_energy, baseline, attainable,
        flat, tolerance, refuted.
    """
    rows = {str(name): _reference(group) for name, group in runs.groupby("instance", sort=False)}
    frame = pd.DataFrame.from_dict(rows, orient="index")
    frame.index.name = "instance"
    return frame


def _reference(group: pd.DataFrame) -> dict[str, object]:
    first = group.iloc[0]
    tolerance = EQUAL * float(np.nan_to_num(first["magnitude"], nan=0.0))
    done = group[group["status"].isin(SCORED)]
    found = [first["instance_upper"], first["initial_energy"], *done["energy"]]
    best = float(np.nanmin(np.array([*found, np.nan], dtype=float))) if _any(found) else np.nan
    refuted = []
    bounds = [first["instance_bound"], *done["lower_bound"]]
    sources = ["relaxation", *done["solver"]]
    sound = []
    for value, source in zip(bounds, sources, strict=True):
        if pd.isna(value):
            continue
        if value > best + tolerance:
            refuted.append(f"bound of {source}")
        else:
            sound.append(float(value))
    proved = done[done["proved_optimal"].fillna(False).astype(bool)]
    wrong = proved[proved["energy"] > best + tolerance]
    refuted += [f"proof of {solver}" for solver in wrong["solver"]]
    lower = max(sound) if sound else np.nan
    if len(proved) > len(wrong) or (sound and best - lower <= tolerance):
        tag, lower = "exact", best
    else:
        tag = "bounded" if sound else "best-known"
    initial = first["initial_energy"]
    start = first["random_energy"] if pd.isna(initial) else initial
    attainable = float(start) - best
    span = float(start) - lower
    return {
        "reference": best,
        "tag": tag,
        "bound": lower,
        "slack": (best - lower) / span if span > tolerance else 0.0,
        "baseline_energy": float(start),
        "baseline": "random mean" if pd.isna(initial) else "incumbent",
        "attainable": attainable,
        "flat": not attainable > tolerance,
        "tolerance": tolerance,
        "refuted": ", ".join(sorted(set(refuted))),
    }


def _any(values: list[float]) -> bool:
    return any(not pd.isna(value) for value in values)


def annotate(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with their reference's columns and the metrics that follow from it.

    Adds to `references`: gap, certified_gap, approximation_ratio, hit (reached the reference) and
    success (share of the run's reads that did).
    """
    if runs.empty:
        return runs
    out = runs.merge(references(runs), left_on="instance", right_index=True, how="left")
    out = out.sort_index()
    energy = out["energy"].where(out["status"].isin(SCORED))
    start = out["baseline_energy"].where(~out["flat"])
    out["hit"] = energy <= out["reference"] + out["tolerance"]
    gap = metrics.gap(energy, out["reference"], start)
    # What round-off cannot tell from the reference is at the reference.
    out["gap"] = gap.mask(out["hit"] & gap.notna(), 0.0)
    certified = metrics.certified_gap(energy, out["bound"], start)
    met = energy <= out["bound"] + out["tolerance"]
    out["certified_gap"] = certified.mask(met & certified.notna(), 0.0)
    out["approximation_ratio"] = metrics.approximation_ratio(
        energy, out["reference"], out["random_energy"]
    )
    out["success"] = (out["best_reads"] / out["reads"]).where(out["hit"], 0.0)
    out.loc[energy.isna(), "success"] = np.nan
    return out


def load(path: str | Path) -> pd.DataFrame:
    """The runs of a store, one row each, with instance columns, reference, tag and gap.

    Raises:
        StoreError: see `Store`; also a store without a single run.
    """
    with Store(path) as store:
        frame = annotate(store.runs())
    if frame.empty:
        raise StoreError(f"store {path} has no runs yet; run a study into it first")
    return frame
