"""Which layers get a block in a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from icbs.blocks.layers import PrunedLayer
from icbs.loop.records import StepRecord
from icbs.settings import Settings


def choose_layers(
    layers: Mapping[str, PrunedLayer], settings: Settings, steps: Sequence[StepRecord]
) -> list[str]:
    """Names of the layers that get a block, in the model's order.

    ``uniform`` draws without replacement; ``size`` draws in proportion to the logarithm of the
    number of weights; ``gain`` takes the layers whose last block promised most,
    after each had its turn.

    Args:
        layers: all chosen layers.
        settings: schedule, layers in a step, seed.
        steps: records of the steps so far.
    """
    names = list(layers)
    count = settings.layers_per_step or len(names)
    if count >= len(names):
        return names
    if settings.schedule == "gain":
        last = {entry.layer: entry.predicted for record in steps for entry in record.layers}
        # Predicted changes are negative; a layer that had no block yet comes first.
        best = sorted(names, key=lambda name: last.get(name, -np.inf))[:count]
        return [name for name in names if name in best]
    # A stream of its own: blocks draw from [seed, step, layer].
    rng = np.random.default_rng([settings.seed, len(steps) + 1, len(names)])
    weights = np.ones(len(names))
    if settings.schedule == "size":
        weights = np.log([layer.size + 1.0 for layer in layers.values()])
    drawn = rng.choice(len(names), count, replace=False, p=weights / weights.sum())
    return [names[i] for i in sorted(drawn)]
