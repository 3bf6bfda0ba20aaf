"""Row blocks of a model's layers, and their mixes with loss blocks."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from icbs.blocks.build import package_versions, row_loss
from icbs.blocks.capture import Forward, LayerCapture, capture
from icbs.blocks.gradients import LayerGradients
from icbs.blocks.layers import PrunedLayer, check_pattern, prune_layers
from icbs.blocks.moments import Moments, input_moments, sequential_moments, weighted_grams
from icbs.blocks.probe import usable_layers
from icbs.blocks.rows import joined, mixed, row_problem
from icbs.data.samples import Samples
from icbs.errors import LayerError
from icbs.models.loading import LoadedModel
from icbs.models.prunable import layer_weight
from icbs.progress import stage
from icbs.settings import RowSettings, Settings
from solvers.problem import CardinalityProblem

Rows = Mapping[str, NDArray[np.int64]]
# Those of the backward pass that the loss block of a mix comes from.
LOSS_SAMPLES = 16


def export_rows(
    loaded: LoadedModel,
    samples: Samples,
    *,
    layers: str,
    progress: bool = True,
    **settings: Any,
) -> list[CardinalityProblem]:
    """Row blocks of the chosen layers; see `icbs.blocks.rows` for what they say.

    The current mask is Wanda's at the density, from the same samples. With ``sequential`` all
    layers before are pruned by it as well.

    Args:
        loaded: the model; as it was on return.
        samples: calibration data; all of it gives H, the first `LOSS_SAMPLES` the loss of a mix.
        layers: shell globs of layer names, separated by commas.
        progress: show what goes on.
        **settings: fields of `icbs.settings.RowSettings`.

    Returns:
        A problem for each layer and row (for each layer if `budget` is not ``row``), in this order,
        its variables in random order. An energy is the share of the output's power that is lost;
        times `scale` it is the mean squared error of the output.

    Raises:
        LayerError: no layer matches, a row out of range, a row or inputs that are all 0, or an
            expert that no sample reaches.
        DensityError: a density or pattern out of range, or a pattern that does not fit a layer.
        SettingError: settings that contradict each other.
        DataError: samples the model cannot take.
        ModelError: weights or inputs that are not finite.
    """
    told = RowSettings(**settings)
    chosen = usable_layers(loaded.model, layers, samples).layers
    mask = Settings(density=told.density, pattern=told.pattern, batch_size=len(samples))
    check_pattern(chosen, mask)
    rows = _rows(chosen, told)
    before = usable_layers(loaded.model, "*", samples).layers if told.sequential else chosen
    # Wanda's norms come from all samples, as H does.
    pruned = prune_layers(loaded.model, before, samples, mask)
    try:
        with stage(f"Row blocks of {len(chosen)} layers", show=progress):
            cut = _Cut(loaded, samples, chosen, rows, pruned, told)
            return cut.problems()
    finally:
        for layer in pruned.values():
            layer.restore()


@dataclass(frozen=True)
class _Cut:
    """What row blocks are cut from."""

    loaded: LoadedModel
    samples: Samples
    layers: Mapping[str, nn.Module]
    rows: Rows
    pruned: Mapping[str, PrunedLayer]
    told: RowSettings

    def problems(self) -> list[CardinalityProblem]:
        """All of them, by layer and row."""
        losses = self._losses() if self.told.lam else {}
        moments = self._moments()
        found = []
        for position, name in enumerate(self.layers):
            if name not in moments:
                raise LayerError(
                    f"no sample reaches layer {name!r}: give more samples or choose other layers"
                )
            start = time.perf_counter()
            blocks = [self._row(name, o, moments[name]) for o in self.rows[name].tolist()]
            if losses:
                blocks = [
                    mixed(block, losses[name, int(o)], self.told.lam)
                    for o, block in zip(self.rows[name], blocks, strict=True)
                ]
            if self.told.budget != "row":
                blocks = [joined(blocks, one_budget=self.told.budget == "layer")]
            seconds = (time.perf_counter() - start) / len(blocks)
            for number, block in enumerate(blocks):
                rng = np.random.default_rng([self.told.seed, position, number])
                own = block.permuted(rng)
                found.append(replace(own, meta={**own.meta, "build_seconds": seconds}))
        return found

    def _row(self, name: str, o: int, by_row: Mapping[int, Moments]) -> CardinalityProblem:
        layer = self.pruned[name]
        width = layer.weight.shape[1]
        own = slice(o * width, (o + 1) * width)
        if o not in by_row:
            raise LayerError(
                f"row {o} of layer {name!r} has no influence on the loss: choose another row"
            )
        pruned = layer.pruned[own].cpu().numpy()
        try:
            return row_problem(
                by_row[o],
                layer.dense[own].double().cpu().numpy(),
                pruned,
                shrinkage=self.told.shrinkage,
                pattern=self.told.pattern,
                meta=self._meta(name, o, int(pruned.sum()), by_row[o].positions),
            )
        except LayerError as error:
            raise LayerError(f"row {o} of layer {name!r}: {error}") from None

    def _meta(self, name: str, row: int, k: int, positions: int) -> dict[str, Any]:
        told = asdict(self.told)
        kept = ("density", "pattern", "sequential", "weighted", "shrinkage", "lam", "seed")
        return {
            "kind": "mix" if self.told.lam else "row",
            "model": self.loaded.name,
            "revision": self.loaded.revision,
            "note": self.loaded.note,
            "data": self.samples.source,
            "step": 0,
            "layer": name,
            "row": row,
            "shape": list(self.pruned[name].weight.shape),
            "fisher": self.told.curvature,
            "positions": positions,
            "k": k,
            "versions": package_versions(),
            **{key: told[key] for key in kept},
        }

    def _moments(self) -> dict[str, dict[int, Moments]]:
        """Moments of each layer and row; rows share those of their layer but in `weighted`."""
        model = self.loaded.model
        if self.told.sequential:
            shared = sequential_moments(model, self.layers, self.samples, self.pruned)
        else:
            for layer in self.pruned.values():
                layer.restore()
            shared = input_moments(model, self.layers, self.samples)
        found = {n: dict.fromkeys(self.rows[n].tolist(), m) for n, m in shared.items()}
        if self.told.weighted:
            grams = weighted_grams(model, self.layers, self.samples, self.rows)
            return {
                name: {o: Moments(gram, shared[name].positions) for o, gram in grams[name].items()}
                for name in found
            }
        return found

    def _losses(self) -> dict[tuple[str, int], CardinalityProblem]:
        """The loss block of each row, at the current mask, without the ridge that limits a step."""
        found = {}
        settings = Settings(
            density=self.told.density,
            pattern=self.told.pattern,
            damping=0.0,
        )

        def take(name: str, seen: LayerCapture) -> None:
            gradients = LayerGradients(seen)
            for o in self.rows[name].tolist():
                rng = np.random.default_rng([self.told.seed, o])
                found[name, o] = row_loss(self.pruned[name], gradients, o, settings, rng)

        batch = self.samples[:LOSS_SAMPLES]
        capture(Forward(self.loaded.model, self.layers, batch), self.layers, take)
        for name, rows in self.rows.items():
            if (name, int(rows[0])) not in found:
                raise LayerError(
                    f"layer {name!r} has no influence on the loss of the first {len(batch)} "
                    "samples: give more samples or choose other layers"
                )
        return found


def _rows(layers: Mapping[str, nn.Module], told: RowSettings) -> dict[str, NDArray[np.int64]]:
    """The rows of each layer; those that are drawn are ascending and never all 0."""
    rows: dict[str, NDArray[np.int64]] = {}
    for position, (name, layer) in enumerate(layers.items()):
        weight = layer_weight(layer)
        outputs = len(weight)
        if isinstance(told.rows, tuple):
            for o in told.rows:
                if not 0 <= o < outputs:
                    raise LayerError(
                        f"rows has {o}, but layer {name!r} has {outputs} outputs: choose from "
                        f"0..{outputs - 1}"
                    )
            rows[name] = np.array(told.rows, np.int64)
            continue
        alive = torch.nonzero(weight.any(dim=1)).reshape(-1).cpu().numpy()
        if told.rows > len(alive):
            raise LayerError(
                f"rows is {told.rows}, but layer {name!r} has {len(alive)} outputs with a weight "
                "that is not 0: choose fewer"
            )
        rng = np.random.default_rng([told.seed, position])
        rows[name] = np.sort(rng.choice(alive, told.rows, replace=False))
    return rows
