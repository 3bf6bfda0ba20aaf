"""Quality of a language model on token windows."""

from __future__ import annotations

import math

import torch
from torch import nn

from icbs.capture import frozen
from icbs.losses import sample_losses
from icbs.progress import stage


def perplexity(
    model: nn.Module,
    tokens: torch.Tensor,
    mask: torch.Tensor | None = None,
    *,
    batch_size: int = 4,
    progress: bool = True,
) -> float:
    """``exp`` of the mean next-token loss over every predicted token.

    Args:
        model: a causal language model.
        tokens: shape (count, length).
        mask: True where a token is real, shape (count, length); padding never counts.
        batch_size: windows in one forward pass.
        progress: show how far it is.
    """
    device = next(model.parameters()).device
    total, predicted = 0.0, 0
    with stage("Evaluating", len(tokens), show=progress) as update, frozen(model), torch.no_grad():
        for start in range(0, len(tokens), batch_size):
            batch = tokens[start : start + batch_size].to(device)
            real = None if mask is None else mask[start : start + batch_size].to(device)
            attention = {} if real is None else {"attention_mask": real.long()}
            logits = model(input_ids=batch, use_cache=False, **attention).logits
            losses, lengths = sample_losses(logits, batch, real)
            total += float((losses.double() * lengths).sum())
            predicted += int(lengths.sum())
            update(start + len(batch))
    return math.exp(total / predicted)
