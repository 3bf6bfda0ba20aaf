"""Masks at an exact density, weights held fixed, and weights that were tried lately.

A mask is True where a weight is kept; ``density`` is the kept fraction.
"""

from __future__ import annotations

from collections import deque
from typing import get_args

import torch

from icbs.errors import DensityError, nearest
from icbs.patterns import Group, checked_density


def mask_at_density(scores: torch.Tensor, density: float, group: Group = "layer") -> torch.Tensor:
    """Keeps the weights with the largest scores.

    Args:
        scores: shape (out, in); larger means keep.
        density: fraction to keep, 0 < density < 1.
        group: weights compete within the whole layer, within each output (row) or within each
            input (column).

    Returns:
        Bool mask, shape (out, in), with exactly ``round(density * out * in)`` True; rows (columns)
        differ by at most one. Ties go to the smaller index.

    Raises:
        DensityError: density out of range, scores that are NaN, or an unknown group.
    """
    checked_density(density)
    if group not in get_args(Group):
        raise DensityError(f"group is {group!r}; {nearest(str(group), get_args(Group))}")
    if torch.isnan(scores).any():
        raise DensityError("the scores hold NaN: check the weights and the calibration data")
    if group == "input":
        return mask_at_density(scores.T, density, "output").T.contiguous()
    rows = scores.reshape(1, -1) if group == "layer" else scores
    total = round(density * scores.numel())
    # Row r gets what makes the first r+1 rows as even as whole numbers allow.
    ends = torch.arange(len(rows) + 1, device=scores.device) * total // len(rows)
    counts = ends.diff()
    # The least score that is kept, by row: a selection costs less than a sort.
    least = rows.amax(dim=1, keepdim=True)
    for count in counts.unique().tolist():
        if count:
            those = counts == count
            place = rows.shape[1] - count + 1
            least[those] = rows[those].kthvalue(place, dim=1, keepdim=True).values
    above, ties = rows > least, rows == least
    missing = counts[:, None] - above.sum(dim=1, keepdim=True)
    return (above | (ties & (ties.cumsum(dim=1) <= missing))).reshape(scores.shape)


def mask_n_m(scores: torch.Tensor, n: int, m: int) -> torch.Tensor:
    """Keeps the n largest scores of every m consecutive inputs of a row, e.g. 2:4.

    Args:
        scores: shape (out, in), in a multiple of m; larger means keep.
        n: weights kept in a group, 0 < n < m.
        m: inputs in a group.

    Returns:
        Bool mask, shape (out, in), exactly n True in each group. Ties go to the smaller index.

    Raises:
        DensityError: not 0 < n < m, a width that m does not divide, or scores that are
            NaN.
    """
    if not 0 < n < m:
        raise DensityError(f"pattern is {n}:{m}; choose N:M with 0 < N < M, such as 2:4")
    if scores.shape[1] % m:
        raise DensityError(
            f"pattern {n}:{m} does not fit a layer of {scores.shape[1]} inputs: leave the layer "
            f"out or choose an m that divides its inputs"
        )
    if torch.isnan(scores).any():
        raise DensityError("the scores hold NaN: check the weights and the calibration data")
    groups = scores.reshape(-1, m)
    ranks = groups.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return (ranks < n).reshape(scores.shape)


def fixed_weights(
    scores: torch.Tensor, kept: torch.Tensor, most: float = 0.0, least: float = 0.0
) -> torch.Tensor:
    """Weights that no block may touch: clearly salient ones stay, clearly useless ones stay out.

    Args:
        scores: saliency, shape (out, in).
        kept: current mask, shape (out, in).
        most: fraction of the kept weights, the most salient of them.
        least: fraction of the pruned weights, the least salient of them.

    Returns:
        Bool, shape (out, in), True where fixed.

    Raises:
        DensityError: fractions outside 0..1.
    """
    fixed = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    for name, fraction, side, descending in (
        ("most", most, kept.reshape(-1), True),
        ("least", least, ~kept.reshape(-1), False),
    ):
        if not 0 <= fraction <= 1:
            raise DensityError(f"{name} is {fraction}; choose a fraction from 0 to 1")
        members = side.nonzero().reshape(-1)
        order = scores.reshape(-1)[members].argsort(descending=descending, stable=True)
        fixed[members[order[: round(fraction * len(members))]]] = True
    return fixed.reshape(scores.shape)


class Tabu:
    """Weights that were in a block lately and are passed over until others had their turn.

    Attributes:
        active: bool, shape (size,), True where tabu.
    """

    def __init__(self, size: int, capacity: int, device: torch.device | str = "cpu") -> None:
        self.capacity = capacity
        self.active = torch.zeros(size, dtype=torch.bool, device=device)
        self._blocks: deque[torch.Tensor] = deque()
        self._count = 0

    def add(self, indices: torch.Tensor) -> None:
        """Makes a block's weights tabu; the oldest blocks are released beyond the capacity."""
        fresh = indices[~self.active[indices]]
        self.active[fresh] = True
        self._blocks.append(fresh)
        self._count += len(fresh)
        while self._count > self.capacity and self.release():
            pass

    def blocks(self) -> tuple[torch.Tensor, ...]:
        """Positions of each tabu block, the oldest first."""
        return tuple(self._blocks)

    def release(self) -> bool:
        """Releases the oldest block; False if there is none."""
        if not self._blocks:
            return False
        oldest = self._blocks.popleft()
        self.active[oldest] = False
        self._count -= len(oldest)
        return True
