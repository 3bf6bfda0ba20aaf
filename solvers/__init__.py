"""Interchangeable dimod samplers for QUBOs with a fixed number of ones.

>>> from solvers import Budget, load, make
>>> problem = load("layer.block.safetensors")
>>> make("annealing").sample_problem(problem, budget=Budget(time_limit=0.1), seed=1).first.energy
"""

from typing import TYPE_CHECKING

from solvers import moved
from solvers.lazy import exports

if TYPE_CHECKING:
    from solvers.base import Budget, CardinalitySampler
    from solvers.errors import SolverError
    from solvers.io.formats import export, load, save
    from solvers.problem import CardinalityProblem
    from solvers.registry import available, make

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

moved.install()

# numpy, scipy and dimod take most of a second to import: the command's help does without them.
__getattr__, __dir__ = exports(
    __name__,
    {
        "Budget": "solvers.base:Budget",
        "CardinalityProblem": "solvers.problem:CardinalityProblem",
        "CardinalitySampler": "solvers.base:CardinalitySampler",
        "SolverError": "solvers.errors:SolverError",
        "available": "solvers.registry:available",
        "export": "solvers.io.formats:export",
        "load": "solvers.io.formats:load",
        "make": "solvers.registry:make",
        "save": "solvers.io.formats:save",
    },
)
