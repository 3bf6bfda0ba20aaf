"""Saliency of weights: how much is lost if a weight goes. Larger means keep.

Sources: Wanda, Sun et al. 2024 (arXiv 2306.11695); first-order saliency, Molchanov et al. 2017
(arXiv 1611.06440), without the absolute value, because the sign says whether the loss rises.
"""

from __future__ import annotations

import torch


def magnitude(weight: torch.Tensor) -> torch.Tensor:
    """``|w|``, shape (out, in)."""
    return weight.abs()


def wanda(weight: torch.Tensor, norms: torch.Tensor) -> torch.Tensor:
    """``|w[o, i]| * ||a_i||_2``, shape (out, in).

    Args:
        weight: shape (out, in).
        norms: norm of each input over the calibration tokens, shape (in,).
    """
    return weight.abs() * norms


def gradient(weight: torch.Tensor, mean_gradient: torch.Tensor) -> torch.Tensor:
    """``-w g``, the loss change that a first-order model predicts for setting w to 0.

    Args:
        weight: dense weights, shape (out, in).
        mean_gradient: gradient of the mean loss, shape (out, in).
    """
    return -weight * mean_gradient


def random(weight: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Uniform in [0, 1), shape of weight."""
    values = torch.rand(weight.shape, generator=generator, dtype=torch.float32)
    return values.to(weight.device)
