"""Interchangeable dimod samplers for QUBOs with a fixed number of ones.

>>> from solvers import Budget, load, make
>>> problem = load("layer.block.safetensors")
>>> make("annealing").sample_problem(problem, budget=Budget(time_limit=0.1), seed=1).first.energy
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from solvers.base import Budget as Budget
    from solvers.base import CardinalitySampler as CardinalitySampler
    from solvers.errors import SolverError as SolverError
    from solvers.formats import export as export
    from solvers.formats import load as load
    from solvers.formats import save as save
    from solvers.problem import CardinalityProblem as CardinalityProblem
    from solvers.registry import available as available
    from solvers.registry import make as make

__all__ = [
    "Budget",
    "CardinalityProblem",
    "CardinalitySampler",
    "SolverError",
    "available",
    "export",
    "load",
    "make",
    "save",
]

_HOME = {
    "Budget": "base",
    "CardinalityProblem": "problem",
    "CardinalitySampler": "base",
    "SolverError": "errors",
    "available": "registry",
    "export": "formats",
    "load": "formats",
    "make": "registry",
    "save": "formats",
}


def __getattr__(name: str) -> Any:
    # numpy, scipy and dimod take most of a second to import: the command's help does without them.
    if name in _HOME:
        return getattr(import_module(f"solvers.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
