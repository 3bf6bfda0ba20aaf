"""The true Hessian of the loss at a block of weights, by Hessian-vector products.

``H e_i`` is the derivative of the gradient's i-th entry (Pearlmutter 1994), so a block of n weights
costs n backward passes through the graph of one gradient: for small models and small blocks, and as
the reference that the Fisher curvatures are judged by. Unlike them it may be indefinite.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from icbs.blocks.capture import Forward, frozen
from icbs.errors import ModelError, memory_remedy
from icbs.evaluation.losses import differentiable_losses
from icbs.models.prunable import stored_positions

# Rows of the Hessian in one batched backward pass.
_CHUNK = 32


def block_hessian(forward: Forward, layer: nn.Module, indices: torch.Tensor) -> torch.Tensor:
    """Hessian of the batch's mean loss with respect to some weights of one layer.

    Args:
        forward: the batch.
        layer: a prunable layer of its model.
        indices: flat positions in the layer's weight of shape (out, in), shape (n,).

    Returns:
        Symmetric, shape (n, n), float32.

    Raises:
        ModelError: the layer has no influence on the loss, or a second derivative is not finite.
        MemoryLimitError: the graph does not fit.
    """
    weight = layer.get_parameter("weight")
    places = stored_positions(layer, indices)
    # The fused attention kernels have no second derivative.
    with frozen(forward.model), memory_remedy(*forward.batch.memory), sdpa_kernel(SDPBackend.MATH):
        weight.requires_grad_(True)
        try:
            loss = differentiable_losses(forward.logits(), forward.batch.targets).mean()
            (gradient,) = torch.autograd.grad(loss, weight, create_graph=True)
            if not gradient.requires_grad:
                raise ModelError("the loss is linear in the layer's weight: no Hessian to compute")
            chosen = gradient.reshape(-1)[places]
            rows = []
            for part in torch.eye(len(places), device=chosen.device).split(_CHUNK):
                (second,) = torch.autograd.grad(
                    chosen, weight, part, retain_graph=True, is_grads_batched=True
                )
                rows.append(second.flatten(1)[:, places])
        finally:
            weight.requires_grad_(False)
    H = torch.cat(rows).float()
    if not torch.isfinite(H).all():
        raise ModelError("the Hessian holds NaN or infinity: check the model's weights")
    return (H + H.T) / 2
