"""One-shot pruning to compare the loop with: saliency masks, row search, SparseGPT, CBS.

SparseGPT (Frantar and Alistarh 2023, arXiv 2301.00774, algorithm 1): with ``H = X X' / N + damp I``
of a layer's inputs and the upper Cholesky factor U of ``H^-1``, columns are visited in order, in
blocks of 128. In a block the weights of smallest ``w^2 / U_jj^2`` are pruned; the error
``e = (w_j - kept_j) / U_jj`` of each column is spread over the columns to its right,
``w -= e U_j``. Layers are visited in the order they run, each on what the pruned layers before it
let through. So does row search (`icbs.blocks.rowsearch`), which chooses masks alone. CBS, the
surgeon, is in `icbs.baselines.surgeon`; it is for small models only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

import torch
from torch import nn

from icbs.baselines.surgeon import prune_by_surgeon
from icbs.blocks import scores
from icbs.blocks.layers import check_pattern, prune_layers
from icbs.blocks.masks import mask_at_density, mask_n_m
from icbs.blocks.rowsearch import RowSearch
from icbs.blocks.sequential import Grams, visit_in_order
from icbs.data.samples import Samples
from icbs.errors import ModelError, SettingError, nearest
from icbs.models.coverage import check_reachable
from icbs.models.experts import unreached
from icbs.models.prunable import layer_weight
from icbs.patterns import parse_pattern, told
from icbs.progress import say, stage
from icbs.settings import Saliency, Settings

# Columns between two choices of a mask, and the ridge as a share of H's mean diagonal: the paper's.
_BLOCK = 128
_DAMP = 0.01

# Settings that shape a mask, which a baseline follows as the loop does or refuses.
SHARED = ("pattern", "group", "seed")
# Those that a baseline cannot follow, and why.
_REFUSED = {
    "sparsegpt": {"group": "it compares the weights of all outputs and 128 inputs"},
    "cbs": {
        "pattern": "it chooses among all weights of all layers at once",
        "group": "it chooses among all weights of all layers at once",
    },
}

Masks = dict[str, torch.Tensor]
Method = Callable[[nn.Module, Mapping[str, nn.Module], Samples, Settings, bool], Masks]


def prune_once(
    name: str,
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    samples: Samples,
    density: float,
    *,
    progress: bool = True,
    **options: Any,
) -> Masks:
    """Prunes a dense model by a baseline.

    Args:
        name: one of `BASELINES`.
        model: the dense model; weights are changed in place.
        layers: chosen layers by name.
        samples: calibration data.
        density: fraction of the weights to keep in each layer, by ``cbs`` in all together.
        progress: show what goes on.
        **options: fields of `icbs.settings.Settings` named in `SHARED`, where they are not to be
            the baseline's own: ``group`` is the layer, but the output for Wanda and row search.

    Returns:
        True where a weight is kept, shape (out, in), by layer.

    Raises:
        SettingError: no such baseline, or an option that it cannot follow.
        DensityError: a density out of range, or that the layers have already.
        LayerError: more weights than ``cbs`` can take.
        ModelError: weights or inputs that are not finite.
    """
    settings = baseline_settings(name, density, options)
    check_reachable(layers, settings.density)
    check_pattern(layers, settings)
    return BASELINES[name](model, layers, samples, settings, progress)


def baseline_settings(name: str, density: float, options: Mapping[str, Any]) -> Settings:
    """What a baseline is told; of the options only those in `SHARED` count.

    Raises:
        SettingError: no such baseline, or an option that it cannot follow.
        DensityError: a density or pattern out of range.
    """
    if name not in BASELINES:
        raise SettingError(f"baseline is {name!r}; {nearest(name, BASELINES)}")
    given = {key: options[key] for key in SHARED if key in options}
    for key, reason in _REFUSED.get(name, {}).items():
        if key in given and given[key] != getattr(Settings(), key):
            raise SettingError(
                f"{name} cannot follow {key}={given[key]!r}: {reason}; leave one out"
            )
    rows = name in ("wanda", "rows") or given.get("pattern") is not None
    usual = "output" if rows else "layer"
    kind = name if name in get_args(Saliency) else "magnitude"
    return Settings(**{"group": usual, "init": kind, "select": "random", **given,
                       "density": density})  # fmt: skip


def _by_saliency(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    samples: Samples,
    settings: Settings,
    progress: bool,
) -> Masks:
    settings = replace(settings, batch_size=len(samples))
    with stage(_title(layers, settings, settings.init), show=progress):
        pruned = prune_layers(model, layers, samples, settings)
    _tell_idle([name for name, layer in pruned.items() if not layer.reached], progress)
    return {name: ~layer.pruned.view(layer.weight.shape) for name, layer in pruned.items()}


def _title(layers: Mapping[str, nn.Module], settings: Settings, method: str) -> str:
    return f"Pruning {len(layers)} layers to {told(settings.density)} by {method}"


def _tell_idle(names: Sequence[str], progress: bool) -> None:
    if names:
        say(unreached(names), show=progress)


def _sparsegpt(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    samples: Samples,
    settings: Settings,
    progress: bool,
) -> Masks:
    grams = Grams()
    pattern = None if settings.pattern is None else parse_pattern(settings.pattern)

    def prune(name: str, weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        found, kept = sparsegpt(weight.float(), grams.of(name, x), settings.density, pattern)
        if not torch.isfinite(found).all():
            raise ModelError(f"layer {name!r} has weights that are NaN or infinite")
        weight.copy_(found)
        return kept

    return _in_order("SparseGPT", prune, model, layers, samples, settings, progress)


def _rows(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    samples: Samples,
    settings: Settings,
    progress: bool,
) -> Masks:
    search = RowSearch(settings)

    def prune(name: str, weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        kept = search.mask(name, weight, x)
        weight.mul_(kept)
        return kept

    return _in_order("row search", prune, model, layers, samples, settings, progress)


def _in_order(
    method: str,
    prune: Callable[[str, torch.Tensor, torch.Tensor], torch.Tensor],
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    samples: Samples,
    settings: Settings,
    progress: bool,
) -> Masks:
    """Each layer by what reaches it through the pruned ones before; unreached experts by magnitude.

    `prune` takes a layer's name, live weight and inputs; it writes the weight and gives the mask.
    """
    masks: Masks = {}
    pattern = None if settings.pattern is None else parse_pattern(settings.pattern)
    with stage(_title(layers, settings, method), len(layers), show=progress) as update:

        def visit(name: str, x: torch.Tensor) -> None:
            masks[name] = prune(name, layer_weight(layers[name]), x)
            update(len(masks))

        visit_in_order(model, layers, samples, visit)
    idle = [name for name in layers if name not in masks]
    _tell_idle(idle, progress)
    for name in idle:
        weight = layer_weight(layers[name])
        saliency = scores.magnitude(weight)
        masks[name] = (
            mask_at_density(saliency, settings.density)
            if pattern is None
            else mask_n_m(saliency, *pattern)
        )
        weight.mul_(masks[name])
    return {name: masks[name] for name in layers}


def _cbs(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    samples: Samples,
    settings: Settings,
    progress: bool,
) -> Masks:
    with stage(_title(layers, settings, "CBS"), 1.0, show=progress) as update:
        return prune_by_surgeon(model, layers, samples, settings.density, on_share=update)


def sparsegpt(
    weight: torch.Tensor,
    gram: torch.Tensor,
    density: float,
    pattern: tuple[int, int] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """SparseGPT on one layer.

    Args:
        weight: dense weights, shape (out, in).
        gram: ``X'X / N`` of its inputs, shape (in, in), positive semidefinite.
        density: fraction of the weights to keep.
        pattern: N and M: instead, of every M consecutive inputs of an output N are kept, chosen
            when the first of them is reached.

    Returns:
        New weights, 0 where pruned, and the mask, True where kept; both of shape (out, in).
    """
    rows, width = weight.shape
    U = _inverse_factor(gram)
    w = weight.clone()
    # An input that is always 0 says nothing of its weights: they go first.
    w[:, gram.diagonal() == 0] = 0
    kept = torch.ones_like(w, dtype=torch.bool)
    removed = 0
    # Whole groups of a pattern.
    size = _BLOCK if pattern is None else max(1, _BLOCK // pattern[1]) * pattern[1]
    for start in range(0, width, size):
        end = min(start + size, width)
        # Rounding up to here, so that the layer's density is exact.
        count = rows * end - round(density * rows * end) - removed
        removed += count
        diagonal = U.diagonal()
        if pattern is None:
            score = (w[:, start:end] / diagonal[start:end]).square().reshape(-1)
            chosen = torch.ones_like(score, dtype=torch.bool)
            chosen[score.argsort(stable=True)[:count]] = False
            kept[:, start:end] = chosen.view(rows, end - start)
        errors = torch.empty(rows, end - start, dtype=w.dtype, device=w.device)
        for column in range(start, end):
            if pattern is not None and column % pattern[1] == 0:
                group = slice(column, column + pattern[1])
                kept[:, group] = mask_n_m((w[:, group] / diagonal[group]).square(), *pattern)
            wanted = w[:, column].clone()
            w[:, column] *= kept[:, column]
            error = (wanted - w[:, column]) / U[column, column]
            w[:, column + 1 : end] -= torch.outer(error, U[column, column + 1 : end])
            errors[:, column - start] = error
        w[:, end:] -= errors @ U[start:end, end:]
    return w, kept


def _inverse_factor(gram: torch.Tensor) -> torch.Tensor:
    """Upper Cholesky factor of the inverse of the damped Gram matrix, shape (in, in)."""
    diagonal = gram.diagonal()
    ridge = _DAMP * diagonal.mean()
    # Dead inputs get any curvature; with none at all the identity is as good as anything.
    lift = torch.where(diagonal + ridge > 0, ridge, torch.ones_like(diagonal))
    # Double precision: activations of language models span many orders of magnitude.
    H = gram.double() + torch.diag(lift).double()
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(H))
    factor: torch.Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor.to(gram.dtype)


BASELINES: dict[str, Method] = {
    "magnitude": _by_saliency,
    "wanda": _by_saliency,
    "gradient": _by_saliency,
    "random": _by_saliency,
    "rows": _rows,
    "sparsegpt": _sparsegpt,
    "cbs": _cbs,
}
