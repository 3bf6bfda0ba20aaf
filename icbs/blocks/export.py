"""Cutting block problems out of a model without running the loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from icbs.blocks.build import cut_block
from icbs.blocks.capture import Forward, LayerCapture, capture
from icbs.blocks.gradients import Fisher, LayerGradients
from icbs.blocks.layers import prune_layers
from icbs.blocks.probe import usable_layers
from icbs.data.samples import Samples
from icbs.errors import DataError, LayerError
from icbs.models.loading import LoadedModel
from icbs.models.prunable import layer_weight
from icbs.progress import stage
from icbs.settings import Settings
from solvers.problem import CardinalityProblem


def export_blocks(
    loaded: LoadedModel,
    samples: Samples,
    *,
    layers: str,
    sizes: Sequence[int],
    fishers: Sequence[Fisher] = ("sequence", "position"),
    progress: bool = True,
    **settings: Any,
) -> list[CardinalityProblem]:
    """One block for each layer, size and Fisher, all from one backward pass.

    The chosen layers are pruned by Wanda (or what `settings` says), the blocks are cut, and the
    trained weights are put back.

    Args:
        loaded: the model; as it was on return.
        samples: calibration data; the first `batch_size` are differentiated.
        layers: shell globs of layer names, separated by commas.
        sizes: variables of each block.
        fishers: ``sequence``, ``position`` or both.
        progress: show what goes on.
        **settings: fields of `icbs.settings.Settings` other than block_size, k and fisher.

    Returns:
        Problems in the order of layers, sizes, Fishers, their variables in random order.

    Raises:
        LayerError: no layer matches, a size does not fit one, or no sample reaches an expert.
        DensityError: a density or fraction out of range.
        DataError: fewer samples than one batch, or samples the model cannot take.
    """
    variants = [
        Settings(block_size=n, fisher=fisher, **settings) for n in sizes for fisher in fishers
    ]
    if not variants:
        raise LayerError("sizes or fishers is empty; name at least one of each")
    base = variants[0]
    modules = usable_layers(loaded.model, layers, samples).layers
    _check_sizes(modules, sizes)
    if len(samples) < base.batch_size:
        raise DataError(
            f"there are {len(samples)} samples, fewer than batch_size={base.batch_size}; ask for "
            "more samples or lower batch_size"
        )
    cut: dict[str, list[CardinalityProblem]] = {}
    meta = {
        "model": loaded.name,
        "revision": loaded.revision,
        "note": loaded.note,
        "data": samples.source,
        "step": 0,
    }
    with stage(f"Cutting blocks from {len(modules)} layers", len(modules), show=progress) as update:
        pruned = prune_layers(loaded.model, modules, samples, base)
        try:

            def take(name: str, seen: LayerCapture) -> None:
                gradients = LayerGradients(seen)
                position = list(modules).index(name)
                cut[name] = [
                    cut_block(
                        pruned[name],
                        gradients,
                        variant,
                        np.random.default_rng([base.seed, position, v]),
                        meta=meta,
                    )
                    for v, variant in enumerate(variants)
                ]
                update(len(cut))

            capture(Forward(loaded.model, modules, samples[: base.batch_size]), modules, take)
        finally:
            for layer in pruned.values():
                layer.restore()
    idle = [name for name in modules if name not in cut]
    if idle:
        raise LayerError(
            f"no sample reaches {len(idle)} of the chosen layers, {idle[0]!r} among them: give "
            "more samples or choose other layers"
        )
    return [problem for name in modules for problem in cut[name]]


def _check_sizes(modules: Mapping[str, nn.Module], sizes: Sequence[int]) -> None:
    """Refuses a block that is larger than its layer."""
    for name, module in modules.items():
        weights = layer_weight(module).numel()
        if max(sizes) > weights:
            raise LayerError(
                f"block size {max(sizes)} does not fit layer {name!r} with {weights} weights; "
                "leave one of them out"
            )
