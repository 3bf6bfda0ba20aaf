"""Which weights of a layer make up a block."""

from __future__ import annotations

import numpy as np
import torch

from icbs.blocks.layers import PrunedLayer
from icbs.blocks.scores import gradient
from icbs.errors import DensityError, LayerError
from icbs.settings import Settings


def select(
    layer: PrunedLayer,
    dense: torch.Tensor,
    mean: torch.Tensor,
    lam: torch.Tensor,
    settings: Settings,
    rng: np.random.Generator,
) -> torch.Tensor:
    """The weights of the layer's next block.

    Args:
        layer: where to cut; its tabu list gives way where it leaves too few weights.
        dense: trained weights, shape (out * in,), float32.
        mean: gradient of the mean loss, shape (out * in,).
        lam: ridge of each weight, shape (out * in,).
        settings: block size, and what ranks the weights.
        rng: randomness, where the rank is random.

    Returns:
        Flat positions, pruned weights first, shape (n,).

    Raises:
        LayerError: a layer without free weights on one side.
        DensityError: a k that does not fit.
    """
    return _chosen(layer, _change(layer, dense, mean, lam, settings, rng), settings)


def select_block(
    change: torch.Tensor,
    pruned: torch.Tensor,
    free: torch.Tensor,
    n: int,
    k: int,
    *,
    layer: str = "",
) -> torch.Tensor:
    """The n weights most worth a decision: k pruned ones and n - k kept ones.

    Args:
        change: predicted change of the loss if a weight alone changed sides, or any other rank of
            how good it would be, smallest first, shape (size,).
        pruned: True where the weight is 0 now, shape (size,).
        free: True where a block may go, shape (size,).
        n: block size.
        k: how many of them are pruned now.
        layer: name for the messages.

    Returns:
        Flat positions, shape (n,): k pruned weights, then n - k kept ones.

    Raises:
        LayerError: n larger than the layer, or too few free weights on a side.
        DensityError: k outside 0..n.
    """
    if not 1 <= n <= change.numel():
        raise LayerError(
            f"block_size is {n} and layer {layer!r} has {change.numel()} weights; choose from 1 to "
            f"{change.numel()}"
        )
    if not 0 <= k <= n:
        raise DensityError(f"k is {k}, the pruned weights of a block; choose from 0 to {n}")
    parts = []
    for side, wanted, word in ((pruned, k, "pruned"), (~pruned, n - k, "kept")):
        members = (side & free).nonzero().reshape(-1)
        if len(members) < wanted:
            raise LayerError(
                f"layer {layer!r} has {len(members)} free {word} weights, a block of {n} with "
                f"k={k} needs {wanted}: lower the block size, the fixed fractions or tabu"
            )
        parts.append(members[change[members].topk(wanted, largest=False).indices])
    return torch.cat(parts)


def select_pairs(
    change: torch.Tensor,
    pruned: torch.Tensor,
    free: torch.Tensor,
    pairs: int,
    m: int,
    *,
    layer: str = "",
) -> torch.Tensor:
    """A pruned and a kept weight, its best of each, from each of the most promising groups of m.

    Args:
        change: predicted change of the loss if a weight alone changed sides, smallest first, shape
            (size,).
        pruned: True where the weight is 0 now, shape (size,).
        free: True where a block may go, shape (size,).
        pairs: how many groups.
        m: consecutive positions that are a group; divides the size.
        layer: name for the messages.

    Returns:
        Flat positions, shape (2 * pairs,): the pruned weights, then the kept ones, group by group.

    Raises:
        LayerError: too few groups with a free weight on either side.
    """
    usable = int(paired(pruned, free, m).sum())
    if not 1 <= pairs <= usable:
        raise LayerError(
            f"layer {layer!r} has {usable} groups of {m} with a free weight on either side, a "
            f"block needs {max(1, pairs)}: lower the block size, the fixed fractions or tabu"
        )
    best, promise = [], torch.zeros(len(change) // m, device=change.device)
    for side in (pruned, ~pruned):
        least = change.masked_fill(~(side & free), torch.inf).view(-1, m).min(dim=1)
        promise = promise + least.values
        best.append(least.indices)
    groups = promise.topk(pairs, largest=False).indices
    return torch.cat([groups * m + at[groups] for at in best])


def paired(pruned: torch.Tensor, free: torch.Tensor, m: int) -> torch.Tensor:
    """Groups of m with a free weight on either side, bool, shape (size / m,)."""
    sides = [(side & free).view(-1, m).any(dim=1) for side in (pruned, ~pruned)]
    return sides[0] & sides[1]


def _change(
    layer: PrunedLayer,
    dense: torch.Tensor,
    mean: torch.Tensor,
    lam: torch.Tensor,
    settings: Settings,
    rng: np.random.Generator,
) -> torch.Tensor:
    """How good it would be for each weight to change sides, smallest first."""
    if settings.select == "random":
        return torch.from_numpy(rng.random(layer.size, dtype=np.float32)).to(dense.device)
    if settings.select == "gradient":
        saliency = settings.gamma * gradient(dense, mean)
        return torch.where(layer.pruned, -saliency, saliency) + lam * dense.square()
    saliency = layer.saliency(settings.select)
    return torch.where(layer.pruned, -saliency, saliency)


def _chosen(layer: PrunedLayer, change: torch.Tensor, settings: Settings) -> torch.Tensor:
    movable = ~layer.fixed
    pruned, kept = int((movable & layer.pruned).sum()), int((movable & ~layer.pruned).sum())
    n = settings.block_variables(layer.size)
    if layer.m is not None:
        return _select_pairs(layer, change, movable, n // 2, layer.m)
    k = settings.pruned_in(n, layer.density)
    if settings.k is None and n <= layer.size:
        k, n = min(k, pruned), min(k, pruned) + min(n - k, kept)
    while True:
        free = movable & ~layer.tabu.active
        enough = (
            int((free & layer.pruned).sum()) >= k and int((free & ~layer.pruned).sum()) >= n - k
        )
        # A side that ran dry takes back what was tabu longest.
        if enough or n > layer.size or not layer.tabu.release():
            return select_block(change, layer.pruned, free, n, k, layer=layer.name)


def _select_pairs(
    layer: PrunedLayer, change: torch.Tensor, movable: torch.Tensor, pairs: int, m: int
) -> torch.Tensor:
    pairs = min(max(1, pairs), int(paired(layer.pruned, movable, m).sum()))
    while True:
        free = movable & ~layer.tabu.active
        enough = int(paired(layer.pruned, free, m).sum()) >= pairs
        if enough or not layer.tabu.release():
            return select_pairs(change, layer.pruned, free, pairs, m, layer=layer.name)
