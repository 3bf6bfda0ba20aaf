"""A problem as a row of the store's `instances` table."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from experiments.record import hardness
from solvers.io import formats
from solvers.problem import CardinalityProblem


def instance_row(problem: CardinalityProblem, name: str) -> dict[str, Any]:
    """Everything the store keeps of an instance: size, origin, hardness, container."""
    facts = asdict(hardness.describe(problem))
    facts["instance_bound"] = facts.pop("lower_bound")
    facts["instance_upper"] = facts.pop("upper_bound")
    meta = problem.meta
    return facts | {
        "id": problem.content_hash,
        "name": name,
        "n": problem.n,
        "k": problem.cardinality,
        "rank": problem.rank,
        "model": _text(meta.get("model")),
        "layer": _text(meta.get("layer")),
        "fisher": _text(meta.get("fisher")),
        "density": meta.get("density"),
        "step": meta.get("step"),
        "scale": problem.scale,
        "build": float(meta.get("build_seconds") or 0.0),
        "meta": json.dumps(dict(meta), sort_keys=True),
        "container": _container(problem),
    }


def _container(problem: CardinalityProblem) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return formats.save(problem, Path(folder) / f"problem{formats.CONTAINER}").read_bytes()


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
