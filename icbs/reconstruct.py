"""Repair of the weights that a mask keeps: per-row least squares on calibration activations.

For a layer with dense weight W, mask S_o of row o and inputs X (in x N tokens) of the pruned model,

    w_o = argmin ||w X - t_o||^2 / N + lam ||w - W_o||^2   over w that is 0 outside S_o,

with targets ``t = W X_dense`` that the dense model's own inputs give, or ``t = W X``. Rows share
``H = X X' / N`` and differ in the support only. All rows are solved together by conjugate
gradients with the masked H, preconditioned by its diagonal: one product of matrices an iteration,
where exact factors would need one Cholesky factorisation a row (compared in
``experiments/benchmarks/masked_least_squares.py``). Every iteration lowers the objective, which
starts at the masked weights, so stopping early is safe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import nn

from icbs.errors import ModelError, SettingError
from icbs.progress import stage
from icbs.sequential import visit_in_order

Target = Literal["dense", "pruned"]


@dataclass(frozen=True)
class LayerRepair:
    """What the repair did to one layer.

    Attributes:
        layer: its name.
        before: squared error of its outputs against the targets, relative to the targets' square.
        after: the same with the repaired weights; never larger.
    """

    layer: str
    before: float
    after: float


def masked_least_squares(
    gram: torch.Tensor,
    cross: torch.Tensor,
    start: torch.Tensor,
    kept: torch.Tensor,
    *,
    ridge: float,
    iterations: int = 8,
) -> torch.Tensor:
    """Rows ``w`` that minimise ``w H w' - 2 b w' + lam ||w - start||^2`` on their support.

    Args:
        gram: ``H``, shape (in, in), positive semidefinite.
        cross: ``b``, one row for each output, shape (out, in).
        start: weights to start from and to stay near, 0 outside the support, shape (out, in).
        kept: True inside the support, shape (out, in).
        ridge: ``lam`` in units of the mean of H's diagonal, >= 0.
        iterations: of conjugate gradients.

    Returns:
        Shape (out, in), 0 outside the support. No row's objective is above that of `start`.
    """
    support = kept.to(gram.dtype)
    diagonal = gram.diagonal()
    lam = ridge * diagonal.mean()
    # An input that is always 0 has no curvature, and nothing to gain either.
    inverse = torch.where(diagonal + lam > 0, 1 / (diagonal + lam), 0) * support
    r = first = (cross - start @ gram) * support
    d = torch.zeros_like(start)
    z = r * inverse
    p = z
    rz = (r * z).sum(1, keepdim=True)
    # Below this a residual is rounding, and going on would add up noise.
    floor = rz * torch.finfo(rz.dtype).eps
    for _ in range(iterations):
        q = torch.addmm(p, p, gram, beta=float(lam)).mul_(support)
        step = torch.where(rz > floor, _ratio(rz, (p * q).sum(1, keepdim=True)), 0)
        d = d.addcmul(step, p)
        r = r.addcmul(step, q, value=-1)
        z = r * inverse
        last, rz = rz, (r * z).sum(1, keepdim=True)
        p = z.addcmul(_ratio(rz, last), p)
    # Change of the objective from a residual made anew: rounding must not let it rise.
    change = ((torch.addmm(d, d, gram, beta=float(lam)) - 2 * first) * d).sum(1, keepdim=True)
    return torch.where(change < 0, start + d, start)


def _ratio(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.where(b > 0, a / b, 0)


def repair_weights(
    model: nn.Module,
    layers: Mapping[str, nn.Linear],
    dense: Mapping[str, torch.Tensor],
    kept: Mapping[str, torch.Tensor],
    tokens: torch.Tensor,
    *,
    mask: torch.Tensor | None = None,
    target: Target = "dense",
    ridge: float = 0.1,
    iterations: int = 8,
    progress: bool = True,
) -> tuple[LayerRepair, ...]:
    """Fits the kept weights of every layer to the dense model's outputs; masks stay as they are.

    Layers are repaired in the order they run, each on the inputs that the already repaired layers
    before it produce.

    Args:
        model: a causal language model with pruned layers; weights are changed in place.
        layers: chosen layers by name.
        dense: trained weights by name, shape (out, in) or flat.
        kept: True where a weight is kept, by name, shape (out, in) or flat.
        tokens: calibration windows, shape (B, T); all run in one pass.
        mask: True where a token is real, shape (B, T); padding never counts.
        target: outputs to aim for, those of the dense model on its own inputs (``dense``) or of
            the dense weights on the pruned model's inputs (``pruned``, half the forward work).
        ridge: pull towards the trained weights in units of the mean squared input.
        iterations: of conjugate gradients for each layer.
        progress: show how far it is.

    Returns:
        One record a layer, in the order they ran.

    Raises:
        SettingError: a target, ridge or number of iterations that cannot be.
        ModelError: a layer did not run, or its inputs are not finite.
    """
    if target not in get_args(Target):
        raise SettingError(f"target is {target!r}, expected one of {', '.join(get_args(Target))}")
    if not 0 <= ridge < float("inf") or iterations < 0:
        raise SettingError(
            f"ridge={ridge}, iterations={iterations}: expected a finite ridge and a whole number, "
            "both from 0"
        )
    records: list[LayerRepair] = []
    weights = {name: dense[name].view_as(layer.weight) for name, layer in layers.items()}
    grams = _Grams()

    with stage("Repairing the kept weights", len(layers), show=progress) as update:

        def repair(name: str, x: torch.Tensor, x_dense: torch.Tensor | None) -> None:
            layer = layers[name]
            support = kept[name].view_as(layer.weight)
            wanted = weights[name].float()
            H = grams.of(x, name)
            targets = (x if x_dense is None else x_dense) @ wanted.T
            b = targets.T @ x / len(x)
            start = layer.weight.float() * support
            found = masked_least_squares(H, b, start, support, ridge=ridge, iterations=iterations)
            power = float(targets.square().sum()) / len(x)
            before, after = (_error(w, H, b, power) for w in (start, found))
            layer.weight.copy_(found)
            records.append(LayerRepair(name, before, after))
            update(len(records))

        visit_in_order(
            model, layers, tokens, repair, mask=mask, dense=weights if target == "dense" else None
        )
    return tuple(records)


class _Grams:
    """``X'X / N`` of the last input: layers side by side share theirs."""

    def __init__(self) -> None:
        self._x: torch.Tensor | None = None
        self._gram = torch.empty(0)

    def of(self, x: torch.Tensor, name: str) -> torch.Tensor:
        if x is not self._x:
            self._x, self._gram = x, x.T @ x / len(x)
            if not torch.isfinite(self._gram).all():
                raise ModelError(f"the inputs of layer {name!r} are not finite: check the weights")
        return self._gram


def _error(w: torch.Tensor, H: torch.Tensor, b: torch.Tensor, power: float) -> float:
    """``||w X - t||^2 / ||t||^2`` from the normal equations, not below 0."""
    if power == 0:
        return 0.0
    return max(0.0, 1 + float(((w @ H - 2 * b) * w).sum()) / power)
