"""Untimed calls, after which a solver has compiled all it has."""

from __future__ import annotations

import math
import time
from typing import Any

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
