"""Untimed calls, after which a solver has compiled all it has."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np

from solvers import Budget, CardinalityProblem, CardinalitySampler

_BUDGET = Budget(time_limit=0.05, reads=1)
# A call that takes more seconds than this may have waited for a compiler: it is made again.
LONG = 0.5


def warm_up(sampler: CardinalitySampler, tiny: CardinalityProblem, **parameters: Any) -> bool:
    """Calls a solver until nothing is compiled any more: what waits for a compiler gets no further.

    Args:
        sampler: any.
        tiny: solved in far less than a second by what is compiled.
        **parameters: of the solver.

    Returns:
        False where it is slow without a compiler: a call took more than half of the one before it.
    """
    before = math.inf
    while True:
        start = time.perf_counter()
        sampler.sample_problem(
            tiny, budget=_BUDGET, seed=0, on_incumbent=lambda state: None, **parameters
        )
        seconds = time.perf_counter() - start
        if seconds < LONG:
            return True
        if seconds > before / 2:
            return False
        before = seconds


def tiny_problems(n: int, k: int, *, dense: bool) -> list[CardinalityProblem]:
    """Problems that make a solver compile all it has.

    One of low and one of full rank, for which solvers compile a loop each, and the same with little
    or no linear term: they have no easy proof, so that exact solvers come to their search.
    """
    rng = np.random.default_rng(0)
    problems = []
    for rank, linear in ((1, 1.0), (n, 1.0), (4, 0.0), (n, 0.1)):
        c, factor = linear * rng.standard_normal(n), rng.standard_normal((rank, n))
        if dense:
            G = factor.T @ factor
            problems.append(CardinalityProblem(linear=c, cardinality=k, quadratic=(G + G.T) / 2))
        else:
            problems.append(CardinalityProblem(linear=c, cardinality=k, factor=factor))
    return problems
