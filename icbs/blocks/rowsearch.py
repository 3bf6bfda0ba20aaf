"""Row search: masks of least layer error, kept weights as trained.

Of a layer with weights W and inputs X each row is pruned so that ``||X (w*x)||^2`` is small, by
swaps from Wanda's mask until none lowers it (`solvers.search.rows`, on ``H = X'X / N``). What is
best on the calibration data is not on other data: H is shrunk towards its diagonal, by one of
`SHRINKAGES`, chosen layer by layer by the error of some of its rows on positions that gave no H.
At shrinkage 1 that is Wanda's mask itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn

from icbs.blocks import scores
from icbs.blocks.masks import mask_at_density, mask_n_m
from icbs.blocks.rows import shrunk
from icbs.blocks.sequential import visit_in_order
from icbs.data.samples import Samples
from icbs.errors import ModelError
from icbs.models.prunable import layer_weight
from icbs.patterns import parse_pattern
from icbs.settings import Settings
from solvers.problem import Bools, Floats
from solvers.search.rows import row_errors, search_rows

SHRINKAGES = (0.0, 0.1, 0.3, 0.6, 1.0)
# Share of the positions, the last ones, that judge the shrinkage; fewer than so many judge nothing.
HELD, LEAST_HELD = 0.25, 32
# Rows of a layer, evenly spread, that the shrinkage is chosen on.
JUDGES = 96
# Positions whose products are summed in float32, before that sum is added in float64.
CHUNK = 1024


class RowSearch:
    """Masks of layers that are visited in order.

    Args:
        settings: density, pattern, and within what the weights compete for Wanda's mask; each row
            keeps its number of pruned weights from there on.

    Attributes:
        shrinkages: that were chosen, by layer.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._inputs: torch.Tensor | None = None
        self._fit, self._held, self._all = (np.empty((0, 0)) for _ in range(3))
        self.shrinkages: dict[str, float] = {}

    def mask(self, name: str, weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """True where a weight is kept, shape (out, in).

        Args:
            name: of the layer.
            weight: trained weights, shape (out, in).
            x: its inputs, shape (N, in); layers that share them give the very same tensor.

        Raises:
            ModelError: inputs or weights that are not finite.
        """
        if x is not self._inputs:
            self._take(name, x)
        W = weight.float().cpu().numpy()
        if not np.isfinite(W).all():
            raise ModelError(f"layer {name!r} has weights that are NaN or infinite")
        saliency = scores.wanda(weight, x.norm(dim=0))
        m: int | None = None
        if self._settings.pattern is None:
            kept = mask_at_density(saliency, self._settings.density, self._settings.group)
        else:
            n, m = parse_pattern(self._settings.pattern)
            kept = mask_n_m(saliency, n, m)
        wanda = ~kept.view(weight.shape).cpu().numpy()

        def searched(H: Floats, a: float, rows: slice) -> Bools:
            if a == 1.0:
                return wanda[rows]
            H = shrunk(H, a).astype(np.float32)
            return search_rows(H, W[rows], wanda[rows], pattern_m=m).pruned

        chosen = 1.0
        if len(self._held):
            judges = slice(None, None, max(1, len(W) // JUDGES))
            errors = {
                a: row_errors(self._held, W[judges], searched(self._fit, a, judges)).sum()
                for a in SHRINKAGES
            }
            chosen = min(errors, key=lambda a: float(errors[a]))
        self.shrinkages[name] = chosen
        return torch.from_numpy(~searched(self._all, chosen, slice(None))).to(weight.device)

    def _take(self, name: str, x: torch.Tensor) -> None:
        """H of the first positions, of the last ones, and of all."""
        first = len(x) - int(HELD * len(x))
        fit, held = _gram(x[:first]), _gram(x[first:])
        self._all = (fit + held) / len(x)
        if not np.isfinite(self._all).all():
            raise ModelError(f"the inputs of layer {name!r} are not finite: check the weights")
        self._inputs, self._fit = x, fit / first
        self._held = held if len(x) - first >= LEAST_HELD else np.empty((0, 0))


def row_masks(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    samples: Samples,
    settings: Settings,
    on_layer: Callable[[int], None] = lambda count: None,
) -> dict[str, torch.Tensor]:
    """Prunes layer by layer, each by what reaches it through the pruned ones before.

    Args:
        model: the dense model; weights are changed in place.
        layers: chosen layers by name.
        samples: calibration data, all run as one batch.
        settings: see `RowSearch`.
        on_layer: is told how many layers are done.

    Returns:
        True where a weight is kept, shape (out, in), by layer; experts that no position is routed
        to have none.

    Raises:
        ModelError: weights or inputs that are not finite.
    """
    search = RowSearch(settings)
    masks: dict[str, torch.Tensor] = {}

    def visit(name: str, x: torch.Tensor) -> None:
        weight = layer_weight(layers[name])
        masks[name] = search.mask(name, weight, x)
        weight.mul_(masks[name])
        on_layer(len(masks))

    visit_in_order(model, layers, samples, visit)
    return masks


def _gram(x: torch.Tensor) -> Floats:
    """``X'X`` in float64 of inputs of shape (N, in)."""
    total = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
    for part in x.float().split(CHUNK):
        total += part.T @ part
    return np.asarray(total.cpu().numpy())
