"""Which rows that a layer sees belong to which sample of the batch."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import nn

from icbs.data.samples import Samples
from icbs.errors import ModelError
from icbs.models.experts import ExpertLinear

# Layers that are given positions before samples, as those of XLNet: found by `icbs.blocks.probe`.
positions_first: weakref.WeakSet[nn.Module] = weakref.WeakSet()


def is_pointwise(layer: nn.Module) -> bool:
    """Whether a convolution is one matrix, applied to each pixel or step alone."""
    return (
        isinstance(layer, (nn.Conv1d, nn.Conv2d))
        and set(layer.kernel_size) == set(layer.stride) == {1}
        and (layer.padding in ("same", "valid") or not any(layer.padding))
        and layer.groups == 1
    )


def by_sample(
    layer: nn.Module, args: tuple[Any, ...], values: torch.Tensor, batch: Samples, name: str
) -> torch.Tensor:
    """Inputs or output gradients of a layer as (B, T, width).

    Some layers (OPT's feed-forward) see all tokens of a batch in one row of B*T, some (Swin's
    attention) several windows of each image, some (XLNet's) positions before samples, others
    (poolers, perceptrons) one vector a sample, and convolutions have channels before pixels. An
    expert sees the positions that are routed to it; the others are zeros here.

    Args:
        layer: the layer.
        args: what it was called with.
        values: rows in the order of its inputs, the last dimension their width.
        batch: what the model was fed.
        name: of the layer, for the message.

    Raises:
        ModelError: rows that no sample can be told for.
    """
    if is_pointwise(layer):
        values = values.flatten(2).transpose(1, 2)
    count, width = len(batch), values.shape[-1]
    if layer in positions_first and values.ndim > 2 and values.shape[1] == count:
        values = values.transpose(0, 1)
    if isinstance(layer, ExpertLinear):
        _, tokens, total = args
        if total % count == 0:
            frame = values.new_zeros(total, width)
            return frame.index_copy(0, tokens, values).view(count, -1, width)
    elif (values.ndim > 2 and len(values) % count == 0) or (
        values.ndim == 2 and _one_row_each(len(values), batch)
    ):
        return values.reshape(count, -1, width)
    raise ModelError(
        f"layer {name!r} sees values of shape {tuple(values.shape)} for {count} samples of "
        f"{batch.positions} positions, which cannot be told apart by sample: leave it out of the "
        "chosen layers"
    )


def _one_row_each(rows: int, batch: Samples) -> bool:
    """Whether so many rows are one a sample, or one a position."""
    if batch.is_images:
        return rows % len(batch) == 0
    return rows in (len(batch), len(batch) * batch.positions)


def real_rows(layer: nn.Module, args: tuple[Any, ...], batch: Samples, name: str) -> torch.Tensor:
    """A layer's inputs that are no padding, shape (N, in), float32; N may be 0 for an expert.

    Raises:
        ModelError: as `by_sample`.
    """
    x: torch.Tensor = args[0].detach()
    real = None if batch.mask is None else batch.mask.reshape(-1).bool().to(x.device)
    if isinstance(layer, ExpertLinear):
        _, tokens, total = args
        return (x if real is None or total != len(real) else x[real[tokens]]).float()
    rows = by_sample(layer, args, x, batch, name).flatten(0, 1).float()
    return rows if real is None or len(rows) != len(real) else rows[real]
