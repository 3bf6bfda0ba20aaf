"""Studies: instance x solver x budget x seed -> records -> figures.

The public names are loaded on first use, so that ``import experiments`` stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.errors import ExperimentError
    from experiments.runner import run
    from experiments.store import Store
    from experiments.store import load as load_runs
    from experiments.study import SolverSpec, Study

__all__ = ["ExperimentError", "SolverSpec", "Store", "Study", "load_runs", "run"]

_HOMES = {
    "ExperimentError": ("experiments.errors", "ExperimentError"),
    "SolverSpec": ("experiments.study", "SolverSpec"),
    "Store": ("experiments.store", "Store"),
    "Study": ("experiments.study", "Study"),
    "load_runs": ("experiments.store", "load"),
    "run": ("experiments.runner", "run"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'experiments' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
