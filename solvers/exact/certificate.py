"""Certificates of lower bounds that need nothing but numpy to be checked.

With y = (1, x), C the (n + 1)-matrix of ``E(x) = y'Cy``, feasible x have ``v_g'y = 0`` for the
vectors ``v_g = (k_g, -1 on the group g)``. Then for every matrix B, vectors a_g and matrices
``P, W >= 0`` of zero diagonal

    E(x) = y'My + ||By||^2 + sum_ij P_ij x_i (1 - x_j) + sum_ij W_ij (1 - x_i)(1 - x_j) >= y'My,
    M = C - B'B + sum_g (v_g a_g' + a_g v_g') - (P and W in the terms of y)

whatever was done to find them. y'My is bounded row by row (Gilmore 1962, Lawler 1963): every one i
pays ``M_ii + 2 M_0i`` and M_ij for the other ones j, of which each group g holds k_g, or k_g - 1 if
it is i's own. So it pays at least r_i, the same with the smallest such entries in place of the
ones'; and the ones of a group g pay at least the k_g smallest r_i of the group.

A variable that cannot be 1, or 0, in any state better than a known one, because r with it forced
exceeds that state's energy, is settled; the next stage of a certificate is about what is left.

In floating point every entry of M is taken too small by all that rounding may have added, so that
the bound holds for the numbers of the problem as they stand. A sum of m products is off by at most
``m u / (1 - m u)`` times the sum of their sizes (Higham 2002, section 3.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from solvers.problem import CardinalityProblem

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Integers = NDArray[np.int64]

UNIT = 2.0**-52
# What sums may lose to underflow; nothing smaller is ever proved.
UNDERFLOW = 1e-300


@dataclass(frozen=True)
class Stage:
    """What bounds the energy over m variables, see the module.

    Attributes:
        squares: B, shape (p, m + 1).
        shifts: a_g, a row for every group that is left, shape (groups, m + 1).
        mixed: P, shape (m, m); or None for 0.
        neither: W, symmetric, shape (m, m); or None for 0.
        settles: variables that it settles, shape (m,) of bool; or None for none.
    """

    squares: Floats
    shifts: Floats | None = None
    mixed: Floats | None = None
    neither: Floats | None = None
    settles: Bools | None = None


@dataclass(frozen=True)
class Certificate:
    """Stages one after the other, each about the variables that those before did not settle.

    Attributes:
        stages: at least one.
        state: the state against which variables are settled, shape (n,).
    """

    stages: tuple[Stage, ...]
    state: Bools

    def __repr__(self) -> str:
        return f"Certificate({len(self.stages)} stages, {len(self.state)} variables)"


@dataclass(frozen=True)
class Form:
    """The energy over m free variables as ``y'Cy``, the others settled.

    Attributes:
        C: symmetric, shape (m + 1, m + 1).
        error: how far its entries may be off, same shape.
        groups: of each variable, whole numbers from 0, shape (m,).
        counts: ones of each group, shape (groups,).
        free: place of each variable in the whole problem, shape (m,).
        settled: the others' values, False for the free ones, shape (n,).
    """

    C: Floats
    error: Floats
    groups: Integers
    counts: Integers
    free: Integers
    settled: Bools

    @property
    def decided(self) -> bool:
        """Whether one state is left."""
        sizes = np.bincount(self.groups, minlength=len(self.counts))
        return bool(((self.counts == 0) | (self.counts == sizes)).all())

    def state(self) -> Bools:
        """The state that is left where `decided`."""
        x = self.settled.copy()
        x[self.free] = self.counts[self.groups] > 0
        return x

    def rounded(self, y: Any) -> Bools:
        """The state whose ones are the largest entries of y, shape (m,), in each group."""
        x = self.settled.copy()
        for group, count in enumerate(self.counts):
            members = np.flatnonzero(self.groups == group)
            x[self.free[members[np.argsort(-y[members], kind="stable")[:count]]]] = True
        return x

    def energy(self, x: Any) -> tuple[float, float]:
        """E of a state of the whole problem that agrees with what is settled; how far it is off."""
        y = np.concatenate([[1.0], np.asarray(x, dtype=np.float64)[self.free]])
        value = float(y @ self.C @ y)
        off = float(y @ self.error @ y) + UNIT * (2 * len(y) + 8) * float(y @ np.abs(self.C) @ y)
        return value, off + UNDERFLOW

    def constraints(self) -> Floats:
        """``v_g`` of the groups, a row each, shape (groups, m + 1)."""
        member = self.groups == np.arange(len(self.counts))[:, None]
        return np.column_stack([self.counts.astype(np.float64), -member.astype(np.float64)])

    def restricted(self, settled: Bools, values: Bools) -> Form:
        """The form over what is left when some of the m variables are settled.

        Args:
            settled: which, shape (m,).
            values: their values, shape (m,); others do not count.
        """
        ones = 1 + np.flatnonzero(settled & values)
        keep = 1 + np.flatnonzero(~settled)
        rows = np.concatenate([[0], ones])
        parts = []
        for matrix in (self.C, self.error, np.abs(self.C)):
            part = np.empty((len(keep) + 1, len(keep) + 1))
            part[1:, 1:] = matrix[np.ix_(keep, keep)]
            part[0, 1:] = part[1:, 0] = matrix[np.ix_(rows, keep)].sum(axis=0)
            part[0, 0] = matrix[np.ix_(rows, rows)].sum()
            parts.append(part)
        C, error, size = parts
        error[0] += UNIT * (len(rows) + 4) * size[0]
        error[1:, 0] = error[0, 1:]
        error[0, 0] += UNIT * len(rows) ** 2 * size[0, 0]
        counts = self.counts - np.bincount(
            self.groups[settled & values], minlength=len(self.counts)
        )
        inside = self.settled.copy()
        inside[self.free[settled & values]] = True
        left, groups = np.unique(self.groups[~settled], return_inverse=True)
        return Form(
            C, error * (1 + 8 * UNIT), groups.astype(np.int64), counts[left], self.free[~settled],
            inside,
        )  # fmt: skip


def form(problem: CardinalityProblem) -> Form:
    """The whole problem's energy, its offset left out.

    Args:
        problem: n variables.
    """
    n = problem.n
    C, error = np.zeros((n + 1, n + 1)), np.zeros((n + 1, n + 1))
    if problem.quadratic is not None:
        C[1:, 1:] = 0.5 * problem.quadratic
    else:
        assert problem.factor is not None
        A = problem.factor
        product = A.T @ A
        C[1:, 1:] = 0.25 * (product + product.T)
        norms = np.sqrt(np.einsum("ri,ri->i", A, A))
        error[1:, 1:] = UNIT * (len(A) + 8) * np.outer(norms, norms) + UNDERFLOW
    C[0, 1:] = C[1:, 0] = 0.5 * problem.linear
    groups, counts = problem.group_labels, problem.group_ones
    return Form(C, error, groups, counts, np.arange(n), np.zeros(n, dtype=np.bool_))


@dataclass(frozen=True)
class RowBound:
    """The row by row bound of a stage.

    Attributes:
        lower: no state has less energy.
        rows: r_i, rounded down, shape (m,).
        out_of_line: how much the bound rises when a variable is forced against the bound's own
            choice, rounded down; at most 0 where it cannot be, shape (m,).
        chosen: that choice, shape (m,).
    """

    lower: float
    rows: Floats
    out_of_line: Floats
    chosen: Bools


def matrix(own: Form, stage: Stage) -> Floats:
    """M of a stage, every entry rounded down, shape (m + 1, m + 1)."""
    B = stage.squares
    product = B.T @ B
    M = own.C - 0.5 * (product + product.T)
    norms = np.sqrt(np.einsum("pi,pi->i", B, B))
    off = own.error + UNIT * (len(B) + 8) * np.outer(norms, norms)
    off += 4 * UNIT * np.abs(own.C)
    if stage.shifts is not None:
        v = own.constraints()
        product = v.T @ stage.shifts
        M += product + product.T
        size = np.abs(v).T @ np.abs(stage.shifts)
        off += UNIT * (2 * len(v) + 8) * (size + size.T)
    if stage.mixed is not None:
        P = np.where(np.eye(len(M) - 1, dtype=np.bool_), 0.0, np.maximum(stage.mixed, 0.0))
        rows = P.sum(axis=1)
        # sum P_ij x_i - sum P_ij x_i x_j
        M[1:, 1:] += 0.5 * (P + P.T)
        M[0, 1:] -= 0.5 * rows
        M[1:, 0] -= 0.5 * rows
        off[1:, 1:] += 4 * UNIT * (P + P.T)
        off[0, 1:] += UNIT * (len(P) + 8) * rows
        off[1:, 0] = off[0, 1:]
    if stage.neither is not None:
        W = np.maximum(0.5 * (stage.neither + stage.neither.T), 0.0)
        np.fill_diagonal(W, 0.0)
        rows = W.sum(axis=1)
        # sum over ordered pairs of W_ij (1 - x_i)(1 - x_j)
        M[1:, 1:] -= W
        M[0, 1:] += rows
        M[1:, 0] += rows
        M[0, 0] -= rows.sum()
        off[1:, 1:] += 4 * UNIT * W
        off[0, 1:] += UNIT * (len(W) + 8) * rows
        off[1:, 0] = off[0, 1:]
        off[0, 0] += UNIT * (2 * len(W) + 8) * float(rows.sum())
    # Sums of several matrices: each partial sum is rounded.
    return np.asarray(M - off * 2 - 16 * UNIT * np.abs(M) - UNDERFLOW)


def row_bound(own: Form, stage: Stage) -> RowBound:
    """The bound of a stage on a form of at least one variable."""
    M = matrix(own, stage)
    m = len(M) - 1
    inner = M[1:, 1:]
    rows = inner.diagonal() + 2 * M[0, 1:]
    size = np.abs(inner.diagonal()) + 2 * np.abs(M[0, 1:])
    others = np.where(np.eye(m, dtype=np.bool_), np.inf, inner)
    places = [np.flatnonzero(own.groups == g) for g in range(len(own.counts))]
    for members, count in zip(places, own.counts, strict=True):
        for whose, many in ((own.groups != own.groups[members[0]], count), (members, count - 1)):
            some = others[whose][:, members]
            if many > 0 and some.size:
                least = np.partition(some, many - 1, axis=1)[:, :many]
                rows[whose] += least.sum(axis=1)
                size[whose] += np.abs(least).sum(axis=1)
    rows = rows - UNIT * (int(own.counts.sum()) + len(places) + 8) * size
    total, terms = float(M[0, 0]), abs(float(M[0, 0]))
    chosen, rises = np.zeros(m, dtype=np.bool_), np.empty(m)
    for members, count in zip(places, own.counts, strict=True):
        order = members[np.argsort(rows[members], kind="stable")]
        chosen[order[:count]] = True
        total += float(rows[order[:count]].sum())
        terms += float(np.abs(rows[order[:count]]).sum())
        last = rows[order[count - 1]] if count else np.inf
        following = rows[order[count]] if count < len(order) else np.inf
        rises[order[:count]] = following - rows[order[:count]]
        rises[order[count:]] = rows[order[count:]] - last if count else np.inf
    lost = UNIT * (2 * m + 16) * terms + UNDERFLOW
    return RowBound(float(np.nextafter(total - lost, -np.inf)), rows, rises, chosen)


def settled(found: RowBound, limit: float) -> Bools:
    """Variables whose value in every state of less energy than `limit` is the bound's choice."""
    rise = np.where(np.isfinite(found.out_of_line), found.out_of_line, 0.0)
    lost = 8 * UNIT * (abs(found.lower) + np.abs(rise) + np.abs(found.rows))
    forced = found.lower + rise - lost
    return np.asarray(np.where(np.isfinite(found.out_of_line), forced > limit, True))


def verify(problem: CardinalityProblem, certificate: Certificate) -> float:
    """The lower bound that a certificate proves, rounded down.

    Args:
        problem: n variables.
        certificate: of this problem.

    Returns:
        No feasible state has less energy.

    Raises:
        ValueError: arrays that do not fit the problem or are not finite, a state that is not
            feasible, a variable that is not settled by what is said to settle it.
    """
    own, lower = form(problem), -np.inf
    x = np.asarray(certificate.state)
    if x.shape != (problem.n,) or not problem.is_feasible(x):
        raise ValueError("state of the certificate is no feasible state of this problem")
    energy, error = own.energy(x)
    for number, stage in enumerate(certificate.stages):
        _check(own, stage, number)
        found = row_bound(own, stage)
        lower = max(lower, found.lower)
        if stage.settles is None:
            break
        if (stage.settles & ~settled(found, energy + error)).any():
            raise ValueError(f"stage {number} settles variables that its bound leaves open")
        own = own.restricted(stage.settles, found.chosen)
        if own.decided:
            last, off = own.energy(own.state())
            lower = max(lower, last - off)
            break
    # What is settled, is settled for states better than this one.
    lower = min(lower, energy - error) + problem.offset
    return float(np.nextafter(lower, -np.inf))


def _check(own: Form, stage: Stage, number: int) -> None:
    m, groups = len(own.free), len(own.counts)
    wanted = {
        "squares": (len(stage.squares), m + 1),
        "shifts": (groups, m + 1),
        "mixed": (m, m),
        "neither": (m, m),
        "settles": (m,),
    }
    for name, shape in wanted.items():
        array = getattr(stage, name)
        if array is not None and (array.shape != shape or not np.isfinite(array).all()):
            raise ValueError(
                f"{name} of stage {number} has shape {array.shape}, expected {shape} finite numbers"
            )
