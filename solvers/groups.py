"""Disjoint groups of variables, each with its own number of ones.

N:M patterns and the rows of a layer are such groups. A problem has one label a variable, so that
groups cannot overlap; files list the members of each group, which `labels_of` turns into labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from solvers.arrays import frozen, whole_numbers
from solvers.errors import ProblemError

Integers = NDArray[np.int64]


def checked_groups(
    groups: ArrayLike, cardinalities: ArrayLike, cardinality: int, n: int
) -> tuple[Integers, Integers]:
    """Labels and numbers of ones as read-only arrays, shapes (n,) and (m,).

    Args:
        groups: label of each variable, 0..m-1, every label in use.
        cardinalities: ones of each group.
        cardinality: ones in all.
        n: variables.

    Raises:
        ProblemError: labels of another number or with gaps, more ones than variables in a group,
            numbers of ones that do not add up.
    """
    labels = whole_numbers("groups", groups, np.int64)
    if labels.shape != (n,):
        raise ProblemError(
            f"groups has {len(labels)} labels, expected {n}: give one for each variable"
        )
    ones = whole_numbers("cardinalities", cardinalities, np.int64)
    low, high = int(labels.min(initial=0)), int(labels.max(initial=-1))
    if low < 0 or high >= len(ones):
        raise ProblemError(
            f"groups has the label {low if low < 0 else high}, expected 0..{len(ones) - 1}, one "
            "for each entry of cardinalities"
        )
    sizes = np.bincount(labels, minlength=len(ones))
    for g in np.flatnonzero(sizes == 0):
        raise ProblemError(f"group {g} has no variable: number the groups without gaps")
    for g in np.flatnonzero((ones < 0) | (ones > sizes)):
        raise ProblemError(
            f"cardinalities[{g}] is {ones[g]}, expected a whole number in 0..{sizes[g]}, the "
            f"variables of group {g}"
        )
    if ones.sum() != cardinality:
        raise ProblemError(
            f"cardinality is {cardinality}, but cardinalities add up to {ones.sum()}: pass "
            f"cardinality={ones.sum()}"
        )
    return labels, ones


def least_of_each(costs: NDArray[np.float64], labels: Integers, ones: Integers) -> NDArray[np.intp]:
    """The variables of least cost, of each group as many as it has ones; ascending, shape (k,).

    Args:
        costs: shape (n,).
        labels: of the groups, shape (n,).
        ones: of each group, shape (m,).
    """
    order = np.lexsort((costs, labels))
    sizes = np.bincount(labels, minlength=len(ones))
    place = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(order[place < np.repeat(ones, sizes)])


def labels_of(members: Sequence[ArrayLike], n: int) -> Integers:
    """The label of each variable, from the members of each group.

    Args:
        members: indices of the variables of each group.
        n: variables.

    Returns:
        Labels 0..m-1, shape (n,).

    Raises:
        ProblemError: an index out of range, groups that overlap or leave a variable out.
    """
    labels = np.full(n, -1, np.int64)
    for g, group in enumerate(members):
        places = whole_numbers(f"groups[{g}]", group, np.int64)
        for i in places[(places < 0) | (places >= n)]:
            raise ProblemError(f"groups[{g}] has variable {i}, expected 0..{n - 1}")
        for i in places[labels[places] >= 0]:
            raise ProblemError(
                f"groups overlap: variable {i} is in groups {labels[i]} and {g}; leave it in one"
            )
        if len(np.unique(places)) != len(places):
            raise ProblemError(f"groups[{g}] names a variable twice; leave repeated ones out")
        labels[places] = g
    for i in np.flatnonzero(labels < 0):
        raise ProblemError(f"groups leave out variable {i}: put every variable into one")
    return frozen(labels)
