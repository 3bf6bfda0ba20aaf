"""A model under pruning: masks, the gate, and what may be done to the weights that masks keep."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch

from icbs.blocks.layers import PrunedLayer, check_pattern
from icbs.blocks.probe import usable_layers
from icbs.data.samples import Samples
from icbs.errors import DataError
from icbs.loop.gate import Gate
from icbs.loop.refit import refit_weights
from icbs.loop.tuning import TuningStep, tune_weights
from icbs.models.coverage import Coverage, check_reachable, coverage
from icbs.models.loading import LoadedModel
from icbs.models.prunable import layer_weight
from icbs.settings import Settings

# Positions of the calibration samples that the refit learns from, all in one batch.
_REFIT_POSITIONS = 8192


class PrunedModel:
    """The layers of a model that masks are put on, and the samples that judge them.

    Args:
        loaded: the model; its weights are changed in place.
        calibration: samples to learn from; two of them show which layers can be pruned (see
            `icbs.blocks.probe`).
        settings: of the run.
        layers: shell globs of layer names, separated by commas.
        heldout: samples that nothing learns from; None means no gate.
        gate: undo what raises the held-out loss.
        progress: show what goes on.

    Besides its arguments it has these attributes.

    Attributes:
        modules: the layers under pruning, by name.
        refused: why other chosen layers are left dense, by name.
        layers: their masks, by name; empty before the first one.
        gate: the gate itself (`icbs.loop.gate.Gate`).

    Raises:
        LayerError: no layer matches or can be pruned.
        ModelError: a model that does not run on such samples.
        DensityError: a density that the model has already, or a pattern that does not fit a layer.
        DataError: fewer calibration samples than one batch, or samples the model cannot take.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        calibration: Samples,
        settings: Settings,
        *,
        layers: str,
        heldout: Samples | None,
        gate: bool,
        progress: bool,
    ) -> None:
        self.loaded, self.settings, self.progress = loaded, settings, progress
        self.calibration, self.heldout = calibration, heldout
        usable = usable_layers(loaded.model, layers, calibration)
        self.modules, self.refused = usable.layers, usable.refused
        check_reachable(self.modules, settings.density)
        check_pattern(self.modules, settings)
        self.layers: dict[str, PrunedLayer] = {}
        size, tuning = settings.batch_size, settings.tuning_batch_size
        self._batches = _batches(calibration, "batch_size", size)
        self._tuning_batches = (
            self._batches if tuning is None else _batches(calibration, "tuning_batch_size", tuning)
        )
        self.gate = Gate(loaded.model, self.modules, heldout, size, enforced=gate)

    @property
    def density(self) -> float:
        """Kept fraction of the weights of all chosen layers."""
        kept = sum(layer.size - layer.count for layer in self.layers.values())
        return kept / sum(layer.size for layer in self.layers.values())

    @property
    def touched(self) -> float:
        """Share of the weights of all chosen layers that were ever in a block."""
        total = sum(int(layer.touched.sum()) for layer in self.layers.values())
        return total / sum(layer.size for layer in self.layers.values())

    @property
    def coverage(self) -> Coverage:
        """What part of the model is under pruning, and why the rest is not."""
        return coverage(self.loaded.model, self.modules, self.refused)

    @property
    def unreached(self) -> tuple[str, ...]:
        """Experts that no calibration sample came to: their masks are those of magnitude."""
        return tuple(name for name, layer in self.layers.items() if not layer.reached)

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """The live weights, shape (out, in), by layer."""
        return {name: layer_weight(module) for name, module in self.modules.items()}

    @property
    def dense(self) -> dict[str, torch.Tensor]:
        """The trained weights, shape (out * in,), by layer."""
        return {name: layer.dense for name, layer in self.layers.items()}

    @property
    def masks(self) -> dict[str, torch.Tensor]:
        """True where a weight is kept, shape (out, in), by layer."""
        return {name: ~layer.pruned.view(layer.weight.shape) for name, layer in self.layers.items()}

    def restore(self) -> None:
        """Puts the trained weights back into the model."""
        for layer in self.layers.values():
            layer.restore()

    def refit(self, *, ridge: float = 0.1) -> bool:
        """Fits the kept weights to the outputs of the dense layers (see `icbs.loop.refit`).

        Masks stay as they are. No step may follow: blocks are about trained weights.

        Args:
            ridge: pull towards the trained weights, in units of the mean squared input.

        Returns:
            True if the refitted weights stay; False if the gate put the trained ones back, because
            the loss on the held-out samples rose.
        """
        refit_weights(
            self.loaded.model,
            self.modules,
            self.dense,
            self.masks,
            self.calibration[: max(1, _REFIT_POSITIONS // self.calibration.positions)],
            ridge=ridge,
            progress=self.progress,
        )
        loss = self.gate.measure()
        if not self.gate.passes(loss):
            for layer in self.layers.values():
                layer.write()
            return False
        self.gate.loss = loss
        return True

    def repair(self, *, ridge: float = 0.1) -> bool:
        """`refit` under its old name.

        Warns:
            DeprecationWarning: always.
        """
        warnings.warn("repair is now refit", DeprecationWarning, stacklevel=2)
        return self.refit(ridge=ridge)

    def tune(
        self,
        steps: int | None = None,
        *,
        time_limit: float | None = None,
        rate: float = 6e-4,
        labels: float = 0.0,
    ) -> tuple[TuningStep, ...]:
        """Moves the kept weights towards the dense model's predictions (see `icbs.loop.tuning`).

        Masks stay as they are. No step may follow: blocks are about trained weights. With a gate
        the held-out loss does not rise.

        Args:
            steps: of Adam, a calibration batch each; None leaves it to the time.
            time_limit: seconds; see `icbs.loop.tuning.tune_weights`.
            rate: its learning rate.
            labels: share of the labels in what the weights are tuned to.

        Returns:
            One record a step.
        """
        gate = self.gate
        records = tune_weights(
            self.loaded.model,
            self.modules,
            self.dense,
            self.masks,
            self._tuning_batches,
            steps=steps,
            time_limit=time_limit,
            rate=rate,
            labels=labels,
            mixed_precision=self.settings.mixed_precision,
            measure=gate.measure if gate.enforced else lambda: None,
            before=gate.loss if gate.enforced else None,
            progress=self.progress,
        )
        if gate.enforced:
            # The best state was put back, and its loss is known.
            known = (gate.loss, *(record.heldout for record in records))
            gate.loss = min((loss for loss in known if loss is not None), default=None)
        else:
            gate.loss = gate.measure()
        return records


def _batches(calibration: Samples, name: str, size: int) -> Sequence[Samples]:
    """Whole batches of the size that a setting asks for."""
    if len(calibration) < size:
        raise DataError(
            f"calibration has {len(calibration)} samples, fewer than {name}={size}; ask for more "
            f"samples or lower {name}"
        )
    return calibration[: len(calibration) // size * size].split(size)
