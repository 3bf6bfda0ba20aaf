"""One-shot pruning to compare the loop with: saliency masks, SparseGPT, and the surgeon (CBS).

SparseGPT (Frantar and Alistarh 2023, arXiv 2301.00774, algorithm 1): with ``H = X X' / N + damp I``
of a layer's inputs and the upper Cholesky factor U of ``H^-1``, columns are visited in order, in
blocks of 128. In a block the weights of smallest ``w^2 / U_jj^2`` are pruned; the error
``e = (w_j - kept_j) / U_jj`` of each column is spread over the columns to its right,
``w -= e U_j``. Layers are visited in the order they run, each on what the pruned layers before it
let through. CBS is in `icbs.surgeon`; it is for small models only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from icbs import scores
from icbs.errors import ModelError, SettingError
from icbs.layers import prune_layers
from icbs.masks import checked_density, mask_at_density
from icbs.progress import stage
from icbs.prunable import layer_weight
from icbs.samples import Samples
from icbs.sequential import Grams, visit_in_order
from icbs.settings import Saliency, Settings
from icbs.surgeon import prune_by_surgeon

# Columns between two choices of a mask, and the ridge as a share of H's mean diagonal: the paper's.
_BLOCK = 128
_DAMP = 0.01

Masks = dict[str, torch.Tensor]
Method = Callable[[nn.Module, Mapping[str, nn.Module], Samples, float, bool], Masks]


def prune_once(
    name: str,
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    samples: Samples,
    density: float,
    *,
    progress: bool = True,
) -> Masks:
    """Prunes a dense model by a baseline.

    Args:
        name: one of `BASELINES`.
        model: the dense model; weights are changed in place.
        layers: chosen layers by name.
        samples: calibration data.
        density: fraction of the weights to keep in each layer; by ``cbs`` in all together.
        progress: show what goes on.

    Returns:
        True where a weight is kept, shape (out, in), by layer; exactly ``round(density * size)``.

    Raises:
        SettingError: no such baseline.
        DensityError: a density that cannot be.
        LayerError: more weights than ``cbs`` can take.
        ModelError: weights or inputs that are not finite.
    """
    if name not in BASELINES:
        raise SettingError(f"baseline is {name!r}, expected one of {', '.join(BASELINES)}")
    checked_density(density)
    return BASELINES[name](model, layers, samples, density, progress)


def _by_saliency(kind: Saliency, group: str) -> Method:
    def method(
        model: nn.Module,
        layers: Mapping[str, nn.Module],
        samples: Samples,
        density: float,
        progress: bool,
    ) -> Masks:
        settings = Settings(
            density=density,
            init=kind,
            group=group,  # type: ignore[arg-type]  # checked by Settings
            select="random",
            batch_size=len(samples),
        )
        with stage(f"Pruning {len(layers)} layers by {kind}", show=progress):
            pruned = prune_layers(model, layers, samples, settings)
        return {name: ~layer.pruned.view(layer.weight.shape) for name, layer in pruned.items()}

    return method


def _sparsegpt(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    samples: Samples,
    density: float,
    progress: bool,
) -> Masks:
    masks: Masks = {}
    grams = Grams()
    with stage(f"Pruning {len(layers)} layers by SparseGPT", len(layers), show=progress) as update:

        def visit(name: str, x: torch.Tensor) -> None:
            weight = layer_weight(layers[name])
            found, masks[name] = sparsegpt(weight.float(), grams.of(name, x), density)
            if not torch.isfinite(found).all():
                raise ModelError(f"layer {name!r} has weights that are NaN or infinite")
            weight.copy_(found)
            update(len(masks))

        visit_in_order(model, layers, samples, visit)
    for name in set(layers) - set(masks):
        # Experts that no sample reached.
        weight = layer_weight(layers[name])
        masks[name] = mask_at_density(scores.magnitude(weight), density)
        weight.mul_(masks[name])
    return masks


def _cbs(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    samples: Samples,
    density: float,
    progress: bool,
) -> Masks:
    with stage(f"Pruning {len(layers)} layers by CBS", 1.0, show=progress) as update:
        return prune_by_surgeon(model, layers, samples, density, on_share=update)


def sparsegpt(
    weight: torch.Tensor, gram: torch.Tensor, density: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """SparseGPT on one layer.

    Args:
        weight: dense weights, shape (out, in).
        gram: ``X'X / N`` of its inputs, shape (in, in), positive semidefinite.
        density: fraction of the weights to keep.

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
    for start in range(0, width, _BLOCK):
        end = min(start + _BLOCK, width)
        # Rounding up to here, so that the layer's density is exact.
        count = rows * end - round(density * rows * end) - removed
        removed += count
        diagonal = U.diagonal()[start:end]
        score = (w[:, start:end] / diagonal).square().reshape(-1)
        chosen = torch.ones_like(score, dtype=torch.bool)
        chosen[score.argsort(stable=True)[:count]] = False
        kept[:, start:end] = chosen.view(rows, end - start)
        errors = torch.empty(rows, end - start, dtype=w.dtype, device=w.device)
        for column in range(start, end):
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
    "magnitude": _by_saliency("magnitude", "layer"),
    "wanda": _by_saliency("wanda", "output"),
    "gradient": _by_saliency("gradient", "layer"),
    "random": _by_saliency("random", "layer"),
    "sparsegpt": _sparsegpt,
    "cbs": _cbs,
}
