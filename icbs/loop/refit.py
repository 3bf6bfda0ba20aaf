"""Refit of the weights that a mask keeps: per-row least squares on calibration activations.

For a layer with dense weight W, mask S_o of row o and inputs X (in x N positions) of the model as
it is pruned and refitted so far,

    w_o = argmin ||(w - W_o) X||^2 / N + lam ||w - W_o||^2   over w that is 0 outside S_o.

Rows share ``H = X X' / N`` and differ in the support only. All rows are solved together by
conjugate gradients with the masked H, preconditioned by its diagonal: one product of matrices an
iteration, where exact factors would need one Cholesky factorisation a row (compared in
``experiments/benchmarks/masked_least_squares.py``). Every iteration lowers the objective, which
starts at the masked weights, so stopping early is safe.

Targets are outputs of the dense weights on the pruned model's inputs. On SmolLM2 at density 0.5
(Wanda's mask, 16 windows of 256 tokens) they gave a held-out perplexity of 31.9, outputs of the
dense model on its own inputs 32.5 to 33.8 for twice the forward work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from icbs.blocks.sequential import Grams, visit_in_order
from icbs.data.samples import Samples
from icbs.errors import SettingError
from icbs.models.prunable import layer_weight
from icbs.progress import stage


@dataclass(frozen=True)
class LayerRefit:
    """What the refit did to one layer.

    Attributes:
        layer: its name.
        before: squared error of its outputs against those of the dense weights, relative to the
            square of those.
        after: the same with the refitted weights; never larger.
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


def refit_weights(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    dense: Mapping[str, torch.Tensor],
    kept: Mapping[str, torch.Tensor],
    samples: Samples,
    *,
    ridge: float = 0.1,
    iterations: int = 8,
    progress: bool = True,
) -> tuple[LayerRefit, ...]:
    """Fits the kept weights of every layer to the dense weights' outputs; masks stay as they are.

    Layers are refitted in the order they run, each on the inputs that the already refitted layers
    before it produce.

    Args:
        model: a pruned model; weights are changed in place.
        layers: chosen layers by name.
        dense: trained weights by name, shape (out, in) or flat.
        kept: True where a weight is kept, by name, shape (out, in) or flat.
        samples: calibration data; all run in one batch, padding never counts.
        ridge: pull towards the trained weights in units of the mean squared input.
        iterations: of conjugate gradients for each layer.
        progress: show how far it is.

    Returns:
        One record a layer, in the order they ran.

    Raises:
        SettingError: a ridge or number of iterations below 0.
        DataError: samples that the model cannot take.
        ModelError: a layer did not run, or its inputs are not finite.
    """
    if not 0 <= ridge < float("inf") or iterations < 0:
        raise SettingError(
            f"ridge={ridge} and iterations={iterations}; choose a finite number and a whole "
            "number, both from 0"
        )
    records: list[LayerRefit] = []
    grams = Grams()
    with stage("Refitting the kept weights", len(layers), show=progress) as update:

        def refit(name: str, x: torch.Tensor) -> None:
            weight = layer_weight(layers[name])
            W, support = dense[name].view_as(weight).float(), kept[name].view_as(weight)
            H, start = grams.of(name, x), W * support
            found = masked_least_squares(
                H, W @ H, start, support, ridge=ridge, iterations=iterations
            )
            weight.copy_(found)
            power = _power(W, H)
            before, after = (_power(w - W, H) / power if power else 0.0 for w in (start, found))
            records.append(LayerRefit(name, before, after))
            update(len(records))

        visit_in_order(model, layers, samples, refit)
    return tuple(records)


def _power(w: torch.Tensor, H: torch.Tensor) -> float:
    """``||w X||^2 / N``."""
    return float(((w @ H) * w).sum())
