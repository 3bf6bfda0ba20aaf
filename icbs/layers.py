"""The layers under pruning: trained weights, current masks, and which weights may move."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from icbs import scores
from icbs.capture import Forward, capture, input_norms
from icbs.errors import ModelError
from icbs.gradients import LayerGradients
from icbs.masks import Tabu, fixed_weights, mask_at_density
from icbs.models import layer_weight
from icbs.samples import Samples
from icbs.settings import Settings


class PrunedLayer:
    """One linear layer and its mask.

    Attributes:
        name: where it is in the model.
        weight: the live weight, shape (out, in), a view where the model stores it as (in, out).
        dense: the trained weight, shape (out * in,).
        pruned: True where the weight is 0 now, shape (out * in,).
        fixed: True where no block may go, shape (out * in,).
        tabu: weights of recent blocks.
    """

    def __init__(
        self, name: str, layer: nn.Module, saliency: torch.Tensor, settings: Settings
    ) -> None:
        self.name = name
        self.weight = layer_weight(layer)
        dense = self.weight.clone(memory_format=torch.contiguous_format).reshape(-1)
        if not torch.isfinite(dense).all():
            raise ModelError(f"layer {name!r} has weights that are NaN or infinite")
        self.dense = dense
        kept = mask_at_density(saliency, settings.density, settings.group)
        fixed = fixed_weights(saliency, kept, settings.fixed_kept, settings.fixed_pruned)
        self.pruned = ~kept.reshape(-1)
        self.fixed = fixed.reshape(-1)
        self.count = int(self.pruned.sum())
        capacity = int(settings.tabu * int((~self.fixed).sum()))
        self.tabu = Tabu(len(dense), capacity, dense.device)
        self.write()

    @property
    def size(self) -> int:
        """Number of weights."""
        return len(self.dense)

    def write(self) -> None:
        """Puts the masked weights into the model."""
        with torch.no_grad():
            self.weight.copy_(self.dense.masked_fill(self.pruned, 0).view_as(self.weight))

    def swap(self, revived: torch.Tensor, pruned: torch.Tensor) -> None:
        """Revives some weights to their trained values and prunes as many others.

        Args:
            revived: flat positions that are pruned now, shape (m,).
            pruned: flat positions that are kept now, shape (m,).
        """
        self.pruned[revived] = False
        self.pruned[pruned] = True
        assert int(self.pruned.sum()) == self.count, f"density of {self.name} drifted"
        with torch.no_grad():
            width = self.weight.shape[1]
            self.weight[revived // width, revived % width] = self.dense[revived]
            self.weight[pruned // width, pruned % width] = 0

    def restore(self) -> None:
        """Puts the trained weights back; the mask is kept."""
        with torch.no_grad():
            self.weight.copy_(self.dense.view_as(self.weight))


def prune_layers(
    model: nn.Module, layers: Mapping[str, nn.Module], samples: Samples, settings: Settings
) -> dict[str, PrunedLayer]:
    """Prunes every chosen layer to the density by the first mask's saliency.

    Args:
        model: any model whose samples these are.
        layers: chosen layers by name.
        samples: calibration data.
        settings: density, saliency and what stays fixed.
    """
    saliency = _saliency(model, layers, samples, settings)
    return {
        name: PrunedLayer(name, layer, saliency.pop(name), settings)
        for name, layer in layers.items()
    }


def _saliency(
    model: nn.Module, layers: Mapping[str, nn.Module], samples: Samples, settings: Settings
) -> dict[str, torch.Tensor]:
    weights = {name: layer_weight(layer).float() for name, layer in layers.items()}
    if settings.init == "magnitude":
        return {name: scores.magnitude(w) for name, w in weights.items()}
    if settings.init == "random":
        generator = torch.Generator().manual_seed(settings.seed)
        return {name: scores.random(w, generator) for name, w in weights.items()}
    if settings.init == "wanda":
        norms = input_norms(model, layers, samples)
        return {name: scores.wanda(w, norms[name]) for name, w in weights.items()}
    found: dict[str, torch.Tensor] = {}
    batch = samples[: settings.batch_size]
    capture(
        Forward(model, layers, batch),
        layers,
        lambda name, seen: found.__setitem__(
            name,
            scores.gradient(weights[name], LayerGradients(seen).mean.view_as(weights[name])),
        ),
    )
    return found
