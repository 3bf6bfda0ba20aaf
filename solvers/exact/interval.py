"""A certified interval around the optimum: a bound, a state, and what lies between them open.

Anyone can evaluate the bound of a certificate ``s``. Reduced-cost fixing: forcing a variable
against the selection raises the bound by its distance to the selection's threshold; where that
passes the best known energy the variable is settled. The variables left are the core.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from solvers.arithmetic.convex import UNIT, Convex, Value, convex, plus_offset, value
from solvers.errors import ProblemError
from solvers.exact.newton import Relaxed
from solvers.problem import Bools, CardinalityProblem, Floats


@dataclass(frozen=True)
class Bound:
    """A certified interval around the optimum.

    Attributes:
        lower_bound: no feasible state has less energy; rounded down.
        lower: the same without the problem's offset.
        own: the convex quadratic it comes from; None where the time did not suffice to factor a
            dense matrix.
        dual: the certificate ``s``, shape (r,), see `certified_bound`; None without `own`.
        costs: reduced costs, rounded down, shape (n,).
        relaxed: optimum of the relaxation, shape (n,) in [0, 1].
        state: the best state, shape (n,) of bool.
        best: its energy, without the problem's offset.
        upper_bound: its energy.
        gap: the most that `state` may lie above the optimum.
        core_size: variables not settled by reduced costs.
        iterations: Frank-Wolfe and Newton steps.
        seconds: wall time of all of it.
    """

    lower_bound: float
    lower: float
    own: Convex | None
    dual: Floats | None
    costs: Floats
    relaxed: Floats
    state: Bools
    best: Value
    upper_bound: float
    gap: float
    core_size: int
    iterations: int
    seconds: float

    @property
    def proved_optimal(self) -> bool:
        """Whether `state` is optimal, by bound or because no variable is open.

        Energies closer than a share `solvers.arithmetic.convex.EQUAL` of the terms at the state are
        equal.
        """
        return self.gap <= self.best.tolerance or self.core_size == 0


def certified_bound(problem: CardinalityProblem, s: Floats) -> float:
    """The bound of a certificate, less all that rounding may have added to it.

    Needs nothing but the problem and the certificate.

    Args:
        problem: with a factor of shape (r, n), or dense, where `s` belongs to the factor that
            `solvers.arithmetic.convex.convex` finds.
        s: any vector of shape (r,).

    Returns:
        No feasible state has less energy.

    Raises:
        ProblemError: `s` of another shape or not finite.
    """
    own = convex(problem)
    assert own is not None
    s = np.asarray(s, dtype=np.float64)
    if s.shape != (len(own.A),) or not np.isfinite(s).all():
        raise ProblemError(
            f"certificate has shape {s.shape}, expected ({len(own.A)},) finite numbers"
        )
    return plus_offset(own.lower_bound(s), problem)


def core(costs: Floats, k: int, gap: float) -> Bools:
    """Variables that reduced costs leave open, shape (n,) of bool.

    Args:
        costs: reduced costs, see `solvers.arithmetic.convex.Convex.reduced_costs`, shape (n,).
        k: 0 < k < n.
        gap: best known energy less the bound of these costs.
    """
    order = np.argsort(costs, kind="stable")
    last, following = costs[order[k - 1]], costs[order[k]]
    inside = np.zeros(len(costs), dtype=np.bool_)
    inside[order[:k]] = True
    threshold = np.where(inside, following, last)
    distance = np.where(inside, following - costs, costs - last)
    return distance - 2 * UNIT * (np.abs(threshold) + np.abs(costs)) <= gap


def open_places(problem: CardinalityProblem, costs: Floats, gap: float) -> Bools:
    """`core` of the whole problem; with groups that of each, shape (n,) of bool."""
    if problem.groups is None:
        return core(costs, problem.cardinality, gap)
    found = np.zeros(problem.n, dtype=np.bool_)
    for part, ones in zip(problem.members, problem.group_ones.tolist(), strict=True):
        if 0 < ones < len(part):
            found[part] = core(costs[part], ones, gap)
    return found


def certified(
    problem: CardinalityProblem,
    state: Bools,
    lower: float,
    costs: Floats,
    own: Convex | None,
    found: Relaxed | None,
    start: float,
) -> Bound:
    """The interval that a bound and a state make.

    Args:
        problem: n variables, 0 < k < n.
        state: feasible, shape (n,).
        lower: no state has less energy, the problem's offset left out.
        costs: reduced costs of that bound, shape (n,).
        own: what it is a bound of, see `Bound`.
        found: where it comes from, see `Bound`.
        start: of the work, in seconds of `time.perf_counter`.
    """
    best = value(problem, state)
    gap = float(np.nextafter(max(0.0, best.energy + best.error - lower), np.inf))
    core_size = int(open_places(problem, costs, gap).sum())
    if core_size == 0:
        # Every other state is worse.
        lower = max(lower, best.energy - best.error)
    return Bound(
        lower_bound=plus_offset(lower, problem),
        lower=lower,
        own=own,
        dual=None if found is None else found.dual,
        costs=costs,
        relaxed=_middle(problem) if found is None else np.clip(found.relaxed, 0.0, 1.0),
        state=state,
        best=best,
        upper_bound=float(problem.energy(state)),
        gap=gap,
        core_size=core_size,
        iterations=0 if found is None else found.steps,
        seconds=time.perf_counter() - start,
    )


def without_factor(problem: CardinalityProblem, state: Bools, start: float) -> Bound:
    """The interval of a dense problem by the least coupling of every row alone.

    Of x'Gx / 2 the row of a one holds half its diagonal and k - 1 more entries, each at least half
    the least off the diagonal.
    """
    G, k, n = problem.quadratic, problem.cardinality, problem.n
    assert G is not None
    lowest = np.empty(n)
    for i, row in enumerate(G):
        lowest[i] = min(row[:i].min(initial=np.inf), row[i + 1 :].min(initial=np.inf))
    terms = (problem.linear, 0.5 * problem.diagonal, 0.5 * (k - 1) * lowest)
    costs = sum(terms) - 4 * UNIT * sum(np.abs(term) for term in terms)
    own = Convex(np.zeros((0, n)), np.asarray(costs), k, np.zeros(n), np.zeros(n))
    lower = own.lower_bound(np.zeros(0))
    return certified(problem, state, lower, own.reduced_costs(np.zeros(0)), None, None, start)


def _middle(problem: CardinalityProblem) -> Floats:
    return np.full(problem.n, problem.cardinality / problem.n)
