"""Studies: instance x solver x budget x seed -> records -> figures.

The public names are loaded on first use, so that ``import experiments`` stays cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import icbs  # noqa: F401  refuses to go on where somebody's module hides one of ours
from solvers.lazy import exports

if TYPE_CHECKING:
    from experiments.errors import ExperimentError
    from experiments.metrics.references import load as load_runs
    from experiments.running.runner import run
    from experiments.store.database import Store
    from experiments.study.spec import SolverSpec
    from experiments.study.study import Study

__all__ = ["ExperimentError", "SolverSpec", "Store", "Study", "load_runs", "run"]

__getattr__, __dir__ = exports(
    __name__,
    {
        "ExperimentError": "experiments.errors:ExperimentError",
        "SolverSpec": "experiments.study.spec:SolverSpec",
        "Store": "experiments.store.database:Store",
        "Study": "experiments.study.study:Study",
        "load_runs": "experiments.metrics.references:load",
        "run": "experiments.running.runner:run",
    },
)
