"""Second moments of what layers are given, in float64 and a batch at a time.

A row block knows its layer through ``H = X'X / N`` alone, which is d x d whatever the number N of
positions is. Where the model is pruned as far as the layer, the inputs are ``Y`` instead, and
``Y'Y / N`` and ``Y'X / N`` say how far its output is from the trained model's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from icbs.blocks.capture import Forward, LayerCapture, capture, check_ran, each_input
from icbs.data.samples import Samples
from icbs.errors import LayerError, ModelError
from icbs.models.experts import ExpertLinear

if TYPE_CHECKING:
    from icbs.blocks.layers import PrunedLayer

Floats = NDArray[np.float64]
# Samples in one pass.
_BATCH = 16


@dataclass(frozen=True)
class Moments:
    """Means over all real positions of products of a layer's inputs.

    Attributes:
        gram: ``X'X / N`` of the trained model's inputs, shape (d, d).
        now: ``Y'Y / N`` of the inputs in the model as it is pruned, shape (d, d); None where the
            trained model's are taken.
        cross: ``Y'X / N``, shape (d, d); None likewise.
        positions: N.
    """

    gram: Floats
    positions: int
    now: Floats | None = None
    cross: Floats | None = None


def input_moments(
    model: nn.Module, layers: Mapping[str, nn.Module], samples: Samples
) -> dict[str, Moments]:
    """Moments of the inputs in the model as it is.

    Args:
        model: any model whose samples these are.
        layers: chosen layers by name.
        samples: calibration samples; padding never counts.

    Returns:
        By layer, those without a position (experts that nothing is routed to) left out.

    Raises:
        DataError: samples that the model cannot take.
        MemoryLimitError: a batch does not fit.
        ModelError: inputs that are not finite.
    """
    sums: dict[str, Floats] = {}
    counts: dict[str, int] = {}

    def add(name: str, rows: torch.Tensor) -> None:
        x = rows.double()
        gram = (x.T @ x).cpu().numpy()
        sums[name] = sums[name] + gram if name in sums else gram
        counts[name] = counts.get(name, 0) + len(x)

    for batch in samples.split(_BATCH):
        each_input(model, layers, batch, add)
    check_ran(layers, sums)
    return {n: Moments(_finite(n, total / counts[n]), counts[n]) for n, total in sums.items()}


def sequential_moments(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    samples: Samples,
    pruned: Mapping[str, PrunedLayer],
) -> dict[str, Moments]:
    """Moments of the inputs in the trained model and in the model with some layers pruned.

    Args:
        model: any model whose samples these are.
        layers: chosen layers by name.
        samples: calibration samples; padding never counts.
        pruned: every layer that is pruned in the second model; written on return.

    Raises:
        DataError: samples that the model cannot take.
        LayerError: an expert, whose positions are others in a pruned model.
        MemoryLimitError: a batch does not fit.
        ModelError: inputs that are not finite.
    """
    for name, layer in layers.items():
        if isinstance(layer, ExpertLinear):
            raise LayerError(
                f"layer {name!r} is an expert, and a pruned model sends it other positions: leave "
                "it out or do without sequential targets"
            )
    sums: dict[str, list[Floats]] = {}
    counts: dict[str, int] = {}
    for batch in samples.split(_BATCH):
        trained: dict[str, torch.Tensor] = {}
        for layer in pruned.values():
            layer.restore()
        each_input(model, layers, batch, trained.__setitem__)

        def add(name: str, rows: torch.Tensor, trained: dict[str, torch.Tensor] = trained) -> None:
            x, y = trained.pop(name).double(), rows.double()
            products = [(a.T @ b).cpu().numpy() for a, b in ((x, x), (y, y), (y, x))]
            old = sums.get(name)
            sums[name] = (
                products if old is None else [a + b for a, b in zip(old, products, strict=True)]
            )
            counts[name] = counts.get(name, 0) + len(x)

        for layer in pruned.values():
            layer.write()
        each_input(model, layers, batch, add)
    check_ran(layers, sums)
    found = {}
    for name, totals in sums.items():
        gram, now, cross = (_finite(name, total / counts[name]) for total in totals)
        found[name] = Moments(gram, counts[name], now, cross)
    return found


def weighted_grams(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    samples: Samples,
    rows: Mapping[str, NDArray[np.int64]],
) -> dict[str, dict[int, Floats]]:
    """``sum_t d_to^2 x_t x_t' / sum_t d_to^2`` of each row o: its token Fisher.

    d is the gradient of a sample's loss with respect to the layer's output.

    Args:
        model: any model whose samples these are.
        layers: chosen layers by name.
        samples: calibration samples.
        rows: rows wanted of each layer.

    Returns:
        By layer and row, shape (d, d) each; rows without influence on the loss are left out.

    Raises:
        DataError: samples that the model cannot take.
        MemoryLimitError: a batch does not fit.
        ModelError: a loss that is not finite.
    """
    sums: dict[tuple[str, int], tuple[Floats, float]] = {}

    def add(name: str, seen: LayerCapture) -> None:
        x = seen.activations.flatten(0, 1).double()
        d = seen.gradients.flatten(0, 1).double()
        for o in rows[name].tolist():
            weights = d[:, o].square()
            gram = (x.T @ (weights[:, None] * x)).cpu().numpy()
            old, total = sums.get((name, o), (0.0, 0.0))
            sums[name, o] = gram + old, total + float(weights.sum())

    for batch in samples.split(_BATCH):
        capture(Forward(model, layers, batch), layers, add)
    found: dict[str, dict[int, Floats]] = {name: {} for name in layers}
    for (name, o), (gram, total) in sums.items():
        if total > 0:
            found[name][o] = _finite(name, gram / total)
    return found


def _finite(name: str, gram: Floats) -> Floats:
    if not np.isfinite(gram).all():
        raise ModelError(f"the inputs of layer {name!r} are not finite: check the weights")
    return gram
