"""Sub-blocks of a size that a device holds, chosen so that their couplings matter.

A device of today holds some twenty variables. Taken at random, so few variables of a block hardly
interact, and the optimum is a sort: no quantum circuit, nor any search, could show anything on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from solvers.errors import ParameterError
from solvers.exact.enumeration import best_subset
from solvers.problem import Bools, CardinalityProblem, Floats

# Variables that are looked at at the most: a removal costs O(m^2) with m of them left.
POOL = 512
Numbers = NDArray[np.int64] | Floats
# Above it no optimum is found by enumeration: 155 million masks.
MAX_SIZE = 30


def coupling_share(problem: CardinalityProblem) -> float:
    """Share of Var E over the feasible set that no linear function explains, 0 to 1.

    On the masks of k ones a quadratic form splits into orthogonal parts of degree 0, 1 and 2 (the
    Johnson scheme, Delsarte 1973). With the off-diagonal couplings Q, their row sums r and T = sum
    r, the part of degree 1 has the biases ``b_i = c_i + (k-1)/(n-2) r_i``, the part of degree 2 the
    couplings R that are left of Q when ``a_i + a_j`` is projected out:

        ||R||^2 = ||Q||^2 - 2/(n-2) sum_i r_i^2 + T^2 / ((n-1)(n-2))
        Var_1 = k(n-k) / (n(n-1)) sum_i (b_i - mean b)^2
        Var_2 = k(k-1)(n-k)(n-k-1) / (n(n-1)(n-2)(n-3)) ||R||^2 / 2

    0 means that sorting b solves the problem. Where there is no part of degree 2 (k < 2 or
    n - k < 2) or E is constant, the share is 0.
    """
    n, k = problem.n, problem.cardinality
    if min(k, n - k) < 2:
        return 0.0
    Q = problem.gram()
    biases = problem.linear + 0.5 * np.diag(Q)
    np.fill_diagonal(Q, 0)
    r = Q.sum(1)
    b = biases + (k - 1) / (n - 2) * r
    sums = [np.sum((b - b.mean()) ** 2), np.sum(Q**2), np.sum(r**2), r.sum()]
    return float(_share(n, np.array(k), *map(np.asarray, sums)))


def _share(
    n: int, k: Numbers, spread: Floats, squares: Floats, rows: Floats, total: Floats
) -> Floats:
    """Var_2 / (Var_1 + Var_2) from sums over b, Q, r; any of them an array."""
    pairs = k * (n - k) / (n * (n - 1))
    fours = pairs * (k - 1) * (n - k - 1) / ((n - 2) * (n - 3))
    left = squares - 2 / (n - 2) * rows + total**2 / ((n - 1) * (n - 2))
    second = fours * np.maximum(left, 0) / 2
    both = pairs * spread + second
    return np.divide(second, both, out=np.zeros_like(both), where=both > 0)


def nested_subblocks(
    problem: CardinalityProblem, sizes: Sequence[int], *, pool: int = POOL
) -> dict[int, CardinalityProblem]:
    """Sub-blocks of a block, each within the next, the other variables fixed at the current mask.

    Backward elimination: of all variables, or of a pool of those whose moves cost least, one
    that the current mask prunes and one that it keeps are left out in turn, so k = n/2; each time
    the one without which the `coupling_share` is largest. The choice sees the current mask, so the
    order of the variables is shuffled afterwards.

    Args:
        problem: a block with a current mask.
        sizes: even numbers from 4; with groups, whole groups are left out, so that each is the
            size of some of them.
        pool: variables that are looked at; fewer are nearer to changing sides, and the less likely
            it is that the current mask is the optimum.

    Returns:
        Size -> sub-block. ``meta`` has ``parent`` (hash of the block), ``coupling_share`` and, up
        to 30 variables, ``optimum``, the least feasible energy, proved by enumeration.

    Raises:
        ParameterError: no sizes, an odd one, one out of range or with no pairs in the current mask.
        ProblemError: a block without current mask.
    """
    if not sizes or any(not 4 <= n <= problem.n or n % 2 for n in sizes):
        raise ParameterError(f"sizes is {list(sizes)}, expected even numbers from 4 to {problem.n}")
    state = problem.restricted(np.arange(problem.n)).initial
    assert state is not None
    if problem.groups is not None:
        return _of_groups(problem, sizes)
    pairs = min(problem.cardinality, problem.n - problem.cardinality)
    if max(sizes) > 2 * pairs:
        raise ParameterError(
            f"sizes has {max(sizes)}, but with {problem.cardinality} ones of {problem.n} the "
            f"block has no more than {pairs} pairs of a pruned and a kept variable"
        )
    rng = np.random.default_rng(int(problem.content_hash[:15], 16))
    free = _pool(problem, state, pairs, max(pool, *sizes))
    family = {}
    for n in sorted(set(sizes), reverse=True):
        free = _eliminated(problem, state, free, n)
        family[n] = _part(problem, rng.permutation(free))
    return dict(sorted(family.items()))


def _part(problem: CardinalityProblem, free: NDArray[np.intp]) -> CardinalityProblem:
    """The sub-block of some variables, with what is known of it."""
    sub = _without_factor(problem.restricted(free))
    meta: dict[str, object] = {"parent": problem.content_hash}
    if sub.groups is None:
        meta["coupling_share"] = coupling_share(sub)
        if sub.n <= MAX_SIZE:
            meta["optimum"] = proved_optimum(sub)
    return replace(sub, meta={**sub.meta, **meta})


def _of_groups(problem: CardinalityProblem, sizes: Sequence[int]) -> dict[int, CardinalityProblem]:
    """Sub-blocks of whole groups: the one coupled least to the others goes, time after time."""
    members, count = problem.members, problem.num_groups
    onto = np.zeros((count, problem.n))
    onto[problem.group_labels, np.arange(problem.n)] = 1
    between = onto @ np.abs(problem.gram()) @ onto.T
    np.fill_diagonal(between, 0)
    left = np.ones(count, dtype=bool)
    rng = np.random.default_rng(int(problem.content_hash[:15], 16))
    family = {}
    for n in sorted(set(sizes), reverse=True):
        while sum(len(members[g]) for g in np.flatnonzero(left)) > n:
            strength = np.where(left, between[:, left].sum(1), np.inf)
            left[int(np.argmin(strength))] = False
        free = np.concatenate([members[g] for g in np.flatnonzero(left)])
        if len(free) != n:
            raise ParameterError(
                f"sizes has {n}, but whole groups give {len(free)} variables: choose sums of "
                "groups' sizes"
            )
        family[n] = _part(problem, rng.permutation(free))
    return dict(sorted(family.items()))


def proved_optimum(problem: CardinalityProblem) -> float:
    """The least E over all masks of k ones, by enumeration; n is 30 at most for a short wait."""
    if problem.cardinality == 0:
        return problem.offset
    G = problem.gram()
    least, _ = best_subset(G, problem.linear + 0.5 * np.diag(G), problem.cardinality)
    return least + problem.offset


def _without_factor(problem: CardinalityProblem) -> CardinalityProblem:
    """The same problem by its couplings, where a factor of higher rank would be larger."""
    if problem.factor is None or problem.rank < problem.n:
        return problem
    return replace(problem, factor=None, quadratic=problem.gram())


def _pool(problem: CardinalityProblem, state: Bools, pairs: int, most: int) -> NDArray[np.intp]:
    """As many ones as zeros, those with the smallest share in the cheapest swaps."""
    moves = np.where(state, -1, 1) * problem.fields(state) + 0.5 * problem.diagonal
    half = min(most // 2, pairs)
    chosen = [side[np.argsort(moves[side], kind="stable")[:half]]
              for side in (np.flatnonzero(state), np.flatnonzero(~state))]  # fmt: skip
    return np.concatenate(chosen)


def _eliminated(
    problem: CardinalityProblem, state: Bools, free: NDArray[np.intp], size: int
) -> NDArray[np.intp]:
    """`size` of the `free` variables."""
    sub = problem.restricted(free, state)
    Q = sub.gram()
    biases = sub.linear + 0.5 * np.diag(Q)
    np.fill_diagonal(Q, 0)
    x = state[free].astype(np.float64)
    while len(free) > size:
        for flag in (0.0, 1.0):
            share = _shares_without(Q, biases, x)
            out = int(np.argmax(np.where(x == flag, share, -1.0)))
            # The variable is fixed where the current mask has it.
            biases += Q[out] * x[out]
            kept = np.delete(np.arange(len(free)), out)
            Q, biases, x, free = Q[np.ix_(kept, kept)], biases[kept], x[kept], free[kept]
    return free


def _shares_without(Q: Floats, biases: Floats, x: Floats) -> Floats:
    """`coupling_share` after fixing each of m variables t at ``x_t``, shape (m,)."""
    m = len(x)
    n, k = m - 1, (x.sum() - x)
    r = Q.sum(1)
    # Column t: row sums and biases of the others without t.
    rows = r[:, None] - Q
    np.fill_diagonal(rows, 0)
    b = biases[:, None] + Q * x + (k - 1) / (n - 2) * rows
    np.fill_diagonal(b, 0)
    spread = np.sum(b**2, 0) - np.sum(b, 0) ** 2 / n
    squares = np.sum(Q**2) - 2 * np.sum(Q**2, 0)
    return _share(n, k, spread, squares, np.sum(rows**2, 0), r.sum() - 2 * r)
