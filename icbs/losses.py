"""The loss of a language model, one number a sample."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional


def sample_losses(
    logits: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean next-token loss of each sample.

    Args:
        logits: shape (B, T, vocabulary).
        tokens: shape (B, T).
        mask: True where a token is real, shape (B, T); None means everywhere.

    Returns:
        ``(losses, lengths)``, each of shape (B,): nats per predicted token, and how many tokens
        were predicted. Padding neither predicts nor is predicted.
    """
    target = torch.full_like(tokens, -100)
    target[:, :-1] = tokens[:, 1:]
    if mask is not None:
        real = mask.bool()
        target[:, :-1].masked_fill_(~(real[:, 1:] & real[:, :-1]), -100)
    return _MeanTokenLoss.apply(logits, target), (target != -100).sum(1)


class _MeanTokenLoss(torch.autograd.Function):
    """Cross entropy sample by sample, so that no second array of logits' size is ever kept.

    A vocabulary of 50,000 makes the logits the largest array of the whole pass; torch's own loss on
    slices of them would fill a gradient of that size for every sample.
    """

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(logits, target)
        losses = [
            functional.cross_entropy(row.float(), wanted, reduction="sum")
            for row, wanted in zip(logits, target, strict=True)
        ]
        return torch.stack(losses) / (target != -100).sum(1).clamp(min=1)

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor, None]:
        logits, target = ctx.saved_tensors
        counts = target != -100
        weights = upstream[0][:, None] * counts / counts.sum(1, keepdim=True).clamp(min=1)
        gradient = torch.empty_like(logits)
        for s in range(len(logits)):
            # softmax minus one at the target, times the token's share in the mean
            p = logits[s].float().softmax(-1)
            at = target[s].clamp(min=0)[:, None]
            p.scatter_add_(1, at, p.new_full(at.shape, -1.0))
            gradient[s] = p.mul_(weights[s][:, None])
        return gradient, None
