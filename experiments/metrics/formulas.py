"""Formulas of the benchmark. Energies go down, times are in seconds, nothing is read from a store.

Sources:

* time to solution: Roennow et al. 2014, Defining and detecting quantum speedup (Science 345, 420);
  King et al. 2015, Benchmarking a quantum annealing processor with the time-to-target metric;
* expected running time, ECDF over targets: Hansen et al. 2021, COCO (Optimization Methods and
  Software 36, 114);
* performance profiles: Dolan and More 2002 (Mathematical Programming 91, 201);
* approximation ratio over a feasible set: Hadfield et al. 2019, From the QAOA to a quantum
  alternating operator ansatz (Algorithms 12, 34).
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Numbers = TypeVar("Numbers", float, pd.Series)


def gap(energy: Numbers, reference: Numbers, initial: Numbers) -> Numbers:
    """``(E - E_ref) / (E_initial - E_ref)``: 0 at the reference, 1 at the current mask.

    Above 1 is worse than the current mask. The denominator must not be 0; `references` sets
    E_initial of flat instances to NaN.
    """
    return (energy - reference) / (initial - reference)


def certified_gap(energy: Numbers, bound: Numbers, initial: Numbers) -> Numbers:
    """``(E - L) / (E_initial - L)`` with a certified bound ``L <= E*``.

    At least the true gap ``(E - E*) / (E_initial - E*)`` wherever ``E <= E_initial``.
    """
    return (energy - bound) / (initial - bound)


def approximation_ratio(energy: Numbers, reference: Numbers, random: Numbers) -> Numbers:
    """``(E_rand - E) / (E_rand - E_ref)``: 1 at the reference, 0 at a uniformly drawn mask.

    ``E_rand`` is the exact mean over the feasible set (`hardness.random_energy`). Undefined where
    all masks cost the same.

    Of the mean shot it is what metriq calls the effective approximation ratio,
    ``(r - r_rand) / (1 - r_rand)`` with ``r = E / E_ref``, on the feasible set in place of all bit
    strings. It has no need of an energy with a natural zero, which r has.
    """
    return (random - energy) / (random - reference)


def time_to_solution(success: float, seconds: float, confidence: float = 0.99) -> float:
    """``t ln(1 - confidence) / ln(1 - p)``, but at least one read.

    Args:
        success: share p of reads that reached the target, 0..1.
        seconds: time t of one read.
        confidence: wanted probability of at least one success.

    Returns:
        Seconds; ``t`` from ``p >= confidence`` on; inf for p = 0: censored, never solved.
    """
    if not 0 <= success <= 1:
        raise ValueError(f"success is {success}, expected a share in 0..1")
    if success == 0:
        return math.inf
    if success >= confidence:
        return seconds
    return seconds * max(1.0, math.log1p(-confidence) / math.log1p(-success))


def expected_running_time(seconds: ArrayLike, reached: ArrayLike) -> float:
    """ERT: time spent by all runs, the unsuccessful ones included, over the number of successes.

    Args:
        seconds: until the target was reached, or until the run gave up.
        reached: whether it was.

    Returns:
        Seconds; inf if no run reached the target.
    """
    spent = np.asarray(seconds, dtype=np.float64)
    successes = int(np.asarray(reached, dtype=np.bool_).sum())
    return float(spent.sum() / successes) if successes else math.inf


def time_to_target(seconds: ArrayLike, energies: ArrayLike, target: float) -> float:
    """First time at which an anytime curve is at or below `target`; inf if never."""
    below = np.flatnonzero(np.asarray(energies, dtype=np.float64) <= target)
    return float(np.asarray(seconds, dtype=np.float64)[below].min()) if len(below) else math.inf


def anytime(seconds: ArrayLike, energies: ArrayLike, grid: ArrayLike) -> Floats:
    """Best energy known at each time of `grid`; NaN before the first one.

    Args:
        seconds: of the improvements, any order.
        energies: of the improvements.
        grid: times to read the step function at, shape (m,).
    """
    times = np.asarray(seconds, dtype=np.float64)
    order = np.argsort(times, kind="stable")
    best = np.minimum.accumulate(np.asarray(energies, dtype=np.float64)[order])
    at = np.searchsorted(times[order], np.asarray(grid, dtype=np.float64), side="right")
    return np.concatenate([[np.nan], best])[at]


def ecdf(times: ArrayLike, grid: ArrayLike) -> Floats:
    """Share of (run, target) pairs solved within each time of `grid`; inf counts as unsolved."""
    values = np.sort(np.asarray(times, dtype=np.float64))
    if len(values) == 0:
        return np.full(np.shape(grid), np.nan)
    return np.searchsorted(values, np.asarray(grid, dtype=np.float64), side="right") / len(values)


def performance_profile(costs: pd.DataFrame, ratios: ArrayLike) -> pd.DataFrame:
    """Dolan-More: ``rho_s(tau)`` = share of problems with ``t_ps <= tau min_s t_ps``.

    Args:
        costs: one row a problem, one column a solver, > 0; inf or NaN where it failed.
        ratios: the values of tau, >= 1.

    Returns:
        One row a tau, one column a solver. A problem nobody solved counts in the denominator.
    """
    table = costs.fillna(np.inf)
    best = table.min(axis=1)
    solvable = np.isfinite(best)
    relative = table[solvable].div(best[solvable], axis=0)
    taus = np.asarray(ratios, dtype=np.float64)
    shares = {
        name: ecdf(relative[name], taus) * solvable.mean() if solvable.any() else 0.0 * taus
        for name in table.columns
    }
    return pd.DataFrame(shares, index=pd.Index(taus, name="tau"))


def ranks(values: pd.DataFrame, tolerance: float = 1e-9) -> pd.DataFrame:
    """Rank of each column within its row, 1 the smallest; values within `tolerance` tie.

    Ties share the smallest rank ("1224"); NaN has no rank.
    """

    def row(numbers: pd.Series[Any]) -> pd.Series[Any]:
        return numbers.map(lambda own: np.nan if pd.isna(own)
                           else 1 + int((numbers < own - tolerance).sum()))  # fmt: skip

    return values.apply(row, axis=1)
