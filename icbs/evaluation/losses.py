"""The loss of a model, one number a sample."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from icbs.data.samples import IGNORED
from icbs.errors import DataError


def sample_losses(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean cross entropy over the targets of each sample.

    Args:
        logits: shape (B, T, vocabulary), or (B, classes) for one target a sample.
        targets: shape (B, T) or (B,); `icbs.data.samples.IGNORED` where nothing is predicted.

    Returns:
        ``(losses, lengths)``, each of shape (B,): nats per target, and how many targets there are.
        A sample without any has the loss 0.

    Raises:
        DataError: as many logits as targets are not there.
    """
    if logits.shape[:-1] != targets.shape:
        raise DataError(
            f"the model gives logits of shape {tuple(logits.shape)} for targets of shape "
            f"{tuple(targets.shape)}: a classifier takes one target a sample, a language model one "
            "a token"
        )
    if logits.ndim == 2:
        losses = functional.cross_entropy(
            _wide(logits), targets, reduction="none", ignore_index=IGNORED
        )
        return losses, (targets != IGNORED).long()
    return _MeanTokenLoss.apply(logits, targets), (targets != IGNORED).sum(1)


def differentiable_losses(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The losses of `sample_losses`, differentiable more than once and at more memory."""
    if logits.ndim == 2:
        return sample_losses(logits, targets)[0]
    losses = functional.cross_entropy(
        _wide(logits).transpose(1, 2), targets, reduction="none", ignore_index=IGNORED
    )
    return losses.sum(1) / (targets != IGNORED).sum(1).clamp(min=1)


def _wide(logits: torch.Tensor) -> torch.Tensor:
    """At least single precision."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


class _MeanTokenLoss(torch.autograd.Function):
    """Cross entropy sample by sample, so that no second array of logits' size is ever kept.

    A vocabulary of 50,000 makes the logits the largest array of the whole pass; torch's own loss on
    slices of them would fill a gradient of that size for every sample.
    """

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(logits, target)
        losses = [
            functional.cross_entropy(_wide(row), wanted, reduction="sum", ignore_index=IGNORED)
            for row, wanted in zip(logits, target, strict=True)
        ]
        return torch.stack(losses) / (target != IGNORED).sum(1).clamp(min=1)

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor, None]:
        logits, target = ctx.saved_tensors
        counts = target != IGNORED
        weights = upstream[0][:, None] * counts / counts.sum(1, keepdim=True).clamp(min=1)
        gradient = torch.empty_like(logits)
        for s in range(len(logits)):
            # softmax minus one at the target, times the token's share in the mean
            p = _wide(logits[s]).softmax(-1)
            at = target[s].clamp(min=0)[:, None]
            p.scatter_add_(1, at, p.new_full(at.shape, -1.0))
            gradient[s] = p.mul_(weights[s][:, None])
        return gradient, None
