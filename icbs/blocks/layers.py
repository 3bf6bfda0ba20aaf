"""The layers under pruning: trained weights, current masks, and which weights may move."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch import nn

from icbs.blocks import scores
from icbs.blocks.capture import Forward, LayerCapture, capture, input_norms
from icbs.blocks.gradients import LayerGradients
from icbs.blocks.masks import (
    Tabu,
    fixed_weights,
    mask_at_density,
    mask_n_m,
)
from icbs.blocks.rowsearch import row_masks
from icbs.data.samples import Samples
from icbs.errors import DensityError, ModelError
from icbs.models.prunable import layer_weight
from icbs.patterns import parse_pattern
from icbs.settings import Saliency, Settings

# Batches that the norms of Wanda's saliency come from: they settle long before gradients do.
_BATCHES = 2
# Positions that the H of row search comes from.
_ROW_POSITIONS = 16_384
# Positions of the samples that the gradient's saliency takes in one pass: the gradient's mean is
# all that is kept, so that more at once would only cost memory.
_POSITIONS = 2048


class PrunedLayer:
    """One linear layer and its mask.

    Attributes:
        name: where it is in the model.
        weight: the live weight, shape (out, in), a view where the model stores it as (in, out).
        dense: the trained weight, shape (out * in,).
        density: fraction of its weights that are kept.
        pruned: True where the weight is 0 now, shape (out * in,).
        fixed: True where no block may go, shape (out * in,).
        touched: True where a weight was in a block, shape (out * in,).
        tabu: weights of recent blocks.
        m: inputs in a group of the N:M pattern, consecutive flat positions; None without one.
        norms: norm of each input over the calibration data, shape (in,); None unless Wanda's
            saliency is used.
        reached: False where no calibration sample came to the layer, an expert then, so that its
            first mask is that of its magnitudes.
    """

    def __init__(
        self,
        name: str,
        layer: nn.Module,
        saliency: torch.Tensor,
        settings: Settings,
        norms: torch.Tensor | None = None,
        *,
        reached: bool = True,
        kept: torch.Tensor | None = None,
    ) -> None:
        self.name = name
        self.weight = layer_weight(layer)
        dense = self.weight.clone(memory_format=torch.contiguous_format).reshape(-1)
        if not torch.isfinite(dense).all():
            raise ModelError(f"layer {name!r} has weights that are NaN or infinite")
        self.dense = dense
        self.norms = norms
        self.reached = reached
        self.density = settings.density
        self.m: int | None = None
        if settings.pattern is not None:
            n, self.m = parse_pattern(settings.pattern)
            kept = mask_n_m(saliency, n, self.m) if kept is None else kept
        elif kept is None:
            kept = mask_at_density(saliency, self.density, settings.group)
        fixed = fixed_weights(saliency, kept, settings.fixed_kept, settings.fixed_pruned)
        self.pruned = ~kept.reshape(-1)
        self.fixed = fixed.reshape(-1)
        self.touched = torch.zeros_like(self.fixed)
        self.count = int(self.pruned.sum())
        capacity = int(settings.tabu * int((~self.fixed).sum()))
        self.tabu = Tabu(len(dense), capacity, dense.device)
        self.write()

    @property
    def size(self) -> int:
        """Number of weights."""
        return len(self.dense)

    def saliency(self, kind: Saliency) -> torch.Tensor:
        """Magnitude or Wanda's saliency of the trained weights, shape (out * in,)."""
        weight = self.dense.view(self.weight.shape).float()
        if kind == "magnitude":
            return scores.magnitude(weight).reshape(-1)
        assert kind == "wanda"
        if self.norms is None:
            # An expert that nothing is known of.
            return scores.magnitude(weight).reshape(-1)
        return scores.wanda(weight, self.norms).reshape(-1)

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
        if self.m is not None:
            sides = [(side // self.m).sort().values for side in (revived, pruned)]
            assert torch.equal(*sides), f"{self.name} left its pattern"
        with torch.no_grad():
            width = self.weight.shape[1]
            self.weight[revived // width, revived % width] = self.dense[revived]
            self.weight[pruned // width, pruned % width] = 0

    def restore(self) -> None:
        """Puts the trained weights back; the mask is kept."""
        with torch.no_grad():
            self.weight.copy_(self.dense.view_as(self.weight))


def prune_layers(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    samples: Samples,
    settings: Settings,
    on_layer: Callable[[int], None] = lambda count: None,
) -> dict[str, PrunedLayer]:
    """Prunes every chosen layer to the density by the first mask.

    Args:
        model: any model whose samples these are.
        layers: chosen layers by name.
        samples: calibration data.
        settings: density, first mask and what stays fixed.
        on_layer: is told how many layers row search has done.

    Raises:
        ModelError: weights or a loss that are not finite.
        DensityError: the pattern does not fit a layer.
    """
    # Before anything is pruned.
    check_pattern(layers, settings)
    norms: dict[str, torch.Tensor] = {}
    if {"wanda", "rows"} & {settings.init, settings.select}:
        norms = _norms(model, layers, samples, _BATCHES * settings.batch_size)
    saliency, reached = _saliency(model, layers, samples, settings, norms)
    masks: dict[str, torch.Tensor] = {}
    if settings.init == "rows":
        trained = {name: layer_weight(layer).clone() for name, layer in layers.items()}
        enough = samples[: max(1, _ROW_POSITIONS // samples.positions)]
        masks = row_masks(model, layers, enough, settings, on_layer)
        with torch.no_grad():
            for name, layer in layers.items():
                layer_weight(layer).copy_(trained.pop(name))
    return {
        name: PrunedLayer(
            name, layer, saliency(name), settings, norms.get(name), reached=name in reached,
            kept=masks.get(name),
        )
        for name, layer in layers.items()
    }  # fmt: skip


def check_pattern(layers: Mapping[str, nn.Module], settings: Settings) -> None:
    """Refuses a pattern that does not fit.

    Raises:
        DensityError: M does not divide the inputs of a layer.
    """
    if settings.pattern is None:
        return
    _, m = parse_pattern(settings.pattern)
    for name, layer in layers.items():
        width = layer_weight(layer).shape[1]
        if width % m:
            raise DensityError(
                f"pattern {settings.pattern} does not fit layer {name!r} of {width} inputs: "
                "leave the layer out or choose an M that divides its inputs"
            )


def _norms(
    model: nn.Module, layers: Mapping[str, nn.Module], samples: Samples, enough: int
) -> dict[str, torch.Tensor]:
    """Norms over the first samples; over the rest for experts that these do not reach."""
    norms = input_norms(model, layers, samples[:enough])
    idle = {name: layer for name, layer in layers.items() if name not in norms}
    if idle and len(samples) > enough:
        norms |= input_norms(model, idle, samples[enough:])
    return norms


def _saliency(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    samples: Samples,
    settings: Settings,
    norms: Mapping[str, torch.Tensor],
) -> tuple[Callable[[str], torch.Tensor], Collection[str]]:
    """Saliency by layer, and the layers that had what it needs; the others' is their magnitude."""

    def weight(name: str) -> torch.Tensor:
        return layer_weight(layers[name]).float()

    by_wanda = settings.init in ("wanda", "rows")
    if settings.init == "magnitude":
        return lambda name: scores.magnitude(weight(name)), layers
    if settings.init == "random":
        generator = torch.Generator().manual_seed(settings.seed)
        return lambda name: scores.random(weight(name), generator), layers
    found: dict[str, torch.Tensor] = {}
    if settings.init == "gradient":
        samples = samples[: settings.batch_size]
        for batch in samples.split(max(1, _POSITIONS // samples.positions)):
            share = len(batch) / len(samples)

            def keep(name: str, seen: LayerCapture, share: float = share) -> None:
                mean = LayerGradients(seen).mean
                part = share * scores.gradient(weight(name), mean.view_as(weight(name)))
                found[name] = found[name] + part if name in found else part

            capture(Forward(model, layers, batch), layers, keep)

    def saliency(name: str) -> torch.Tensor:
        if name in found:
            return found.pop(name)
        if name in norms and by_wanda:
            return scores.wanda(weight(name), norms[name])
        return scores.magnitude(weight(name))

    return saliency, norms if by_wanda else set(found)
