"""The relaxation by a proximal Newton method on its dual.

The relaxation, with ``u`` the part of ``A x`` that fixed variables make,

    min 1/2 ||u + A x||^2 + c.x,   0 <= x <= 1,   sum x = k

is solved by proximal points ``z`` (Rockafellar 1976): with ``eps / 2 ||x - z||^2`` added, the dual

    D(s) = u.s - 1/2 ||s||^2 + min_x (A's + c).x + eps / 2 ||x - z||^2

is concave and once differentiable in ``s``; its gradient is ``u + A x - s`` at the inner minimum,
and half its square is the duality gap of the proximal problem. The generalised Hessian is
``-(I + B B' / eps)``, ``B`` the columns of the fractional variables less their mean, so a step
solves a system of the order of the fewer of r and fractional variables (semismooth Newton; Qi and
Sun 1993, Li, Sun and Toh 2018). Each step costs two products with A.

Every ``s`` met on the way is a certificate (see `solvers.exact.interval`).
"""

from __future__ import annotations

import time
from functools import partial
from typing import NamedTuple

import numpy as np
from numba import njit

from solvers.clock.background import computed
from solvers.clock.deadline import Deadline
from solvers.problem import Floats
from solvers.search.kernels import work_per_check

# Width of the proximal term from one centre to the next. On real blocks, curvature x1
# to x1000, it takes 3 to 200 Newton steps in all.
SHRINK = 0.1
# A cut step that promises less than this share of the value is lost in rounding: the proximal
# problem is solved.
STALLED = 1e-13
# Steps without a tenth off the gap, after which rounding is all that is left of it.
PATIENCE = 50
# A step makes a few n r multiplications, and up to n r^2 where many variables are fractional.
FRACTIONAL_SHARE = 1 / 8
# Multiplications a second of a step on one core, low on purpose.
NEWTON_RATE = 5e9


class Relaxed(NamedTuple):
    """Where a method for the relaxation stopped.

    Attributes:
        value: the best bound found, without any offset.
        dual: its ``s``, shape (r,).
        relaxed: the best relaxed point, shape (m,).
        steps: steps made.
        solved: False where the steps or the time ran out.
    """

    value: float
    dual: Floats
    relaxed: Floats
    steps: int
    solved: bool


def relax_until(
    F: Floats,
    c: Floats,
    k: int,
    u: Floats,
    s: Floats,
    z: Floats,
    eps: float,
    target: float,
    tolerance: float,
    max_steps: int,
    deadline: Deadline,
) -> Relaxed:
    """`relax`, of the same arguments, in chunks with a look at the clock after each.

    One chunk is solved even where the time is over, unless it would take long; another only if it
    fits in the time left.
    """
    x = z.copy()
    step = F.size * (4 + FRACTIONAL_SHARE * F.shape[1])
    chunk = max(1, int(work_per_check(deadline) / max(step, 1)))
    best, steps = (-np.inf, s.copy()), 0
    while True:
        begun = time.perf_counter()
        allowed = min(chunk, max_steps - steps)
        found = computed(
            partial(relax, F, c, k, u, s, z, x, eps, target, tolerance, allowed),
            allowed * step / NEWTON_RATE,
            deadline,
        )
        if found is None:
            return Relaxed(*best, x.copy(), steps, False)
        value, dual, primal, eps, made = found
        steps += made
        if value > best[0]:
            best = value, dual
        solved = made < allowed or best[0] >= target or primal - best[0] <= tolerance
        if solved or steps >= max_steps or deadline.left < time.perf_counter() - begun:
            return Relaxed(*best, x, steps, bool(solved))


# Sums in any order let the compiler use vector instructions: these passes, a dozen for every step
# tried, would otherwise take as long as the products with A.
@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nnan", "nsz"})
def _clipped(g: Floats, z: Floats, inverse: float, mu: float) -> tuple[float, float]:
    """Sum of ``clip(z - (g - mu) inverse, 0, 1)``, and how many entries lie strictly inside."""
    total, inside = 0.0, 0.0
    for i in range(len(g)):
        value = z[i] - (g[i] - mu) * inverse
        total += min(1.0, max(0.0, value))
        inside += 1.0 if (value > 0.0) & (value < 1.0) else 0.0
    return total, inside


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nnan", "nsz"})
def _bracket(g: Floats, z: Floats, eps: float) -> tuple[float, float]:
    """Thresholds at which every entry is 0, and at which every one is 1."""
    low, high = np.inf, -np.inf
    for i in range(len(g)):
        low = min(low, g[i] - eps * z[i])
        high = max(high, g[i] + eps * (1 - z[i]))
    return low, high


@njit(cache=True, nogil=True)
def proximal_point(g: Floats, z: Floats, eps: float, k: int, mu: float, x: Floats) -> float:
    """Minimises ``g.x + eps / 2 ||x - z||^2`` over ``0 <= x <= 1, sum x = k``.

    ``x = clip(z - (g - mu) / eps, 0, 1)``; the sum is piecewise linear and rises with mu, so Newton
    inside a bracket finds it.

    Args:
        g: shape (m,).
        z: shape (m,), in [0, 1].
        eps: > 0.
        k: 0 <= k <= m.
        mu: first guess.
        x: result, shape (m,).

    Returns:
        mu.
    """
    low, high = _bracket(g, z, eps)
    if not low < mu < high:
        mu = 0.5 * (low + high)
    for _ in range(200):
        total, slope = _clipped(g, z, 1 / eps, mu)
        miss = total - k
        if abs(miss) <= 1e-12 * (1 + k):
            break
        if miss > 0:
            high = mu
        else:
            low = mu
        step = mu - miss * eps / slope if slope else 0.5 * (low + high)
        if not low < step < high:
            step = 0.5 * (low + high)
        if step in (low, high):
            break
        mu = step
    for i in range(len(g)):
        x[i] = min(1.0, max(0.0, z[i] - (g[i] - mu) / eps))
    return mu


@njit(cache=True, nogil=True)
def least_sum(g: Floats, k: int) -> float:
    """Sum of the k smallest entries."""
    if k == 0:
        return 0.0
    if k == len(g):
        return g.sum()
    return np.partition(g, k - 1)[:k].sum()


@njit(cache=True, nogil=True)
def solve_positive(M: Floats, b: Floats) -> Floats:
    """``M^-1 b`` for a symmetric positive definite M, by Cholesky."""
    L = np.linalg.cholesky(M)
    y = b.copy()
    n = len(b)
    for i in range(n):
        y[i] = (y[i] - np.dot(L[i, :i], y[:i])) / L[i, i]
    for i in range(n - 1, -1, -1):
        y[i] /= L[i, i]
        y[:i] -= y[i] * L[i, :i]
    return y


@njit(cache=True, nogil=True)
def newton_direction(F: Floats, x: Floats, eps: float, gradient: Floats) -> Floats:
    """``(I + B B' / eps)^-1 gradient``, B the centred columns of the fractional variables."""
    r = F.shape[1]
    count = 0
    for i in range(len(x)):
        if 0.0 < x[i] < 1.0:
            count += 1
    if count < 2:
        return gradient.copy()
    B = np.empty((count, r))
    at = 0
    for i in range(len(x)):
        if 0.0 < x[i] < 1.0:
            B[at] = F[i]
            at += 1
    mean = np.zeros(r)
    for i in range(count):
        mean += B[i]
    mean /= count
    for i in range(count):
        B[i] -= mean
    if count < r:
        M = np.dot(B, B.T)
        shift = eps + 1e-15 * np.trace(M)
        for i in range(count):
            M[i, i] += shift
        return gradient - np.dot(B.T, solve_positive(M, np.dot(B, gradient)))
    M = np.dot(B.T, B)
    shift = eps + 1e-15 * np.trace(M)
    for i in range(r):
        M[i, i] += shift
    return solve_positive(M, eps * gradient)


@njit(cache=True, nogil=True)
def relax(
    F: Floats,
    c: Floats,
    k: int,
    u: Floats,
    s: Floats,
    z: Floats,
    x: Floats,
    eps: float,
    target: float,
    tolerance: float,
    max_steps: int,
) -> tuple[float, Floats, float, float, int]:
    """Solves the relaxation from a guess; the bound is valid whenever it stops.

    Args:
        F: ``A'``, shape (m, r), Fortran order: a view of A.
        c: shape (m,).
        k: 0 <= k <= m.
        u: part of ``A x`` that is fixed, shape (r,).
        s: first guess of the dual, shape (r,); moved in place.
        z: proximal centre, shape (m,); moved in place. A second call with both carries on.
        x: becomes the best relaxed point, shape (m,).
        eps: first width of the proximal term.
        target: a bound that suffices.
        tolerance: absolute gap at which to stop.
        max_steps: Newton steps at the most.

    Returns:
        The best bound found (without any offset), its ``s``, the value of the relaxed point, the
        last width and the steps made.
    """
    m = len(c)
    trial = np.empty(m)
    best_x, least = x, np.inf
    x = np.empty(m)
    best, best_s = -np.inf, s.copy()
    g = np.dot(F, s) + c
    mu = proximal_point(g, z, eps, k, 0.0, x)
    steps = 0
    stalled = False
    mark, since = np.inf, 0
    while True:
        Ax = u + np.dot(x, F)
        selected = least_sum(g, k)
        own = np.dot(u, s) - 0.5 * np.dot(s, s)
        if own + selected > best:
            best = own + selected
            best_s[:] = s
        # x misses the sum by rounding; mu is what a unit of it costs.
        excess = mu * (x.sum() - k)
        primal = 0.5 * np.dot(Ax, Ax) + np.dot(c, x) - excess
        if primal < least:
            least = primal
            best_x[:] = x
        done = best >= target or least - best <= tolerance or eps * m <= 0.1 * tolerance
        done = done or eps < 1e-290
        if least - best < 0.9 * mark:
            mark, since = least - best, steps
        if done or steps - since > PATIENCE or steps >= max_steps:
            break
        steps += 1
        gradient = Ax - s
        inner = np.dot(g, x) - excess
        if stalled or 0.5 * np.dot(gradient, gradient) <= 0.1 * (inner - selected):
            # What is left of the gap is the proximal term's: its solution is the next centre.
            stalled = False
            z[:] = x
            eps *= SHRINK
            mu = proximal_point(g, z, eps, k, mu, x)
            continue
        d = newton_direction(F, x, eps, gradient)
        value = own + inner + 0.5 * eps * ((x - z) ** 2).sum()
        rate = np.dot(gradient, d)
        t, mu = line_search(F, u, s, g, d, z, eps, k, mu, value, rate, trial)
        stalled = t < 0.5 and t * rate <= STALLED * abs(value)
        s += t * d
        x[:] = trial
    return best, best_s, least, eps, steps


@njit(cache=True, nogil=True)
def line_search(
    F: Floats,
    u: Floats,
    s: Floats,
    g: Floats,
    d: Floats,
    z: Floats,
    eps: float,
    k: int,
    mu: float,
    value: float,
    rate: float,
    x: Floats,
) -> tuple[float, float]:
    """Halves the step along `d` until ``D`` rises by a share of what its slope promises (Armijo).

    Args:
        F: see `relax`; one product with it serves every step tried.
        u: see `relax`.
        s: where the line starts, shape (r,).
        g: ``A's + c``, shape (m,); brought to the end of the step.
        d: direction, shape (r,).
        z: proximal centre, shape (m,).
        eps: its width.
        k: ones.
        mu: threshold at `s`.
        value: ``D(s)``.
        rate: slope of D along `d`.
        x: becomes the inner minimum at the step taken, shape (m,).

    Returns:
        The step and the threshold there.
    """
    along = np.dot(F, d)
    t = 1.0
    for _ in range(40):
        there = s + t * d
        g_there = g + t * along
        mu = proximal_point(g_there, z, eps, k, mu, x)
        found = np.dot(u, there) - 0.5 * np.dot(there, there)
        found += np.dot(g_there, x) - mu * (x.sum() - k)
        found += 0.5 * eps * ((x - z) ** 2).sum()
        if found >= value + 1e-4 * t * rate - 1e-15 * abs(value):
            break
        t *= 0.5
    g += t * along
    return t, mu
