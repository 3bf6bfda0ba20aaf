"""Interchangeable dimod samplers for QUBOs with a fixed number of ones.

>>> from solvers import Budget, load, make
>>> problem = load("layer.block.safetensors")
>>> make("annealing").sample_problem(problem, budget=Budget(time_limit=0.1), seed=1).first.energy
"""

from solvers.base import Budget, CardinalitySampler
from solvers.errors import SolverError
from solvers.formats import export, load, save
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
