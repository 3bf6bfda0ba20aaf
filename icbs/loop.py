"""The pruning loop: capture -> select -> build -> solve -> apply, block descent on masks.

One backward pass serves a block in every chosen layer. Layers solved from the same pass all claim
the same gain, so a step can overshoot although every block improved; the gate measures the loss on
held-out calibration data and takes fewer swaps, or none, if it rose.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from icbs.blocks import cut_block
from icbs.capture import Forward, LayerCapture, capture
from icbs.errors import DataError
from icbs.gradients import LayerGradients
from icbs.layers import PrunedLayer, prune_layers
from icbs.models import LoadedModel, prunable_layers
from icbs.moves import Move, best_move
from icbs.progress import stage
from icbs.samples import Samples
from icbs.settings import Settings
from solvers import Budget, make
from solvers.base import CardinalitySampler
from solvers.problem import CardinalityProblem

STAGES = ("capture", "select", "build", "solve", "apply", "measure")
# Shares of a step's swaps that the gate tries in turn before it gives the step up.
_SHARES = (1.0, 0.5, 0.25)


@dataclass(frozen=True)
class LayerStep:
    """What one step did in one layer.

    Attributes:
        layer: its name.
        n: variables of the block.
        k: of them pruned.
        predicted: change of the loss that the block's model predicts for the swaps taken.
        swaps: weights revived (as many were pruned).
    """

    layer: str
    n: int
    k: int
    predicted: float
    swaps: int


@dataclass(frozen=True)
class StepRecord:
    """What one step did.

    Attributes:
        step: 1 for the first.
        layers: one entry for each chosen layer.
        seconds: wall time by stage, keys `STAGES`.
        loss_before: loss on the step's calibration batch before, nats per token.
        loss_after: the same after.
        heldout_before: loss on the held-out batch before; None without one.
        heldout_after: the same after.
        share: part of the solvers' swaps that the gate let through; 0 if the step was undone.
        lam: ridge that was used.
    """

    step: int
    layers: tuple[LayerStep, ...]
    seconds: Mapping[str, float]
    loss_before: float
    loss_after: float
    heldout_before: float | None
    heldout_after: float | None
    share: float
    lam: float

    @property
    def predicted(self) -> float:
        """Sum of the predicted loss changes over the layers."""
        return sum(layer.predicted for layer in self.layers)

    @property
    def swaps(self) -> int:
        """Weights revived in all layers."""
        return sum(layer.swaps for layer in self.layers)


class Pruner:
    """Prunes the linear layers of a model and improves the mask step by step.

    Call `initialise` once, then `step` as often as you like.

    Args:
        loaded: the model; its weights are changed in place.
        calibration: samples that steps learn from, `batch_size` of them in turn.
        layers: shell globs of layer names, separated by commas.
        solver: a registered name or any `CardinalitySampler`.
        budget: what the solver may spend on a block; None leaves it to the solver.
        heldout: samples that no step learns from; None means no gate.
        gate: undo, or take only a part of, a step that raises the held-out loss.
        on_block: called with every problem that is built, before it is solved.
        progress: show what goes on.
        **settings: fields of `icbs.settings.Settings`: density, block_size, fisher, gamma, lam, ...

    Raises:
        LayerError: no layer matches, or one is smaller than the block.
        DensityError: a density, k or fraction that cannot be.
        DataError: fewer calibration samples than one batch, or samples the model cannot take.
        UnknownSolverError: a name that the registry does not have.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        calibration: Samples,
        *,
        layers: str = "*",
        solver: str | CardinalitySampler = "relaxation",
        budget: Budget | None = None,
        heldout: Samples | None = None,
        gate: bool = True,
        on_block: Callable[[CardinalityProblem], None] | None = None,
        progress: bool = True,
        **settings: Any,
    ) -> None:
        self.settings = Settings(**settings)
        self.loaded = loaded
        self.modules = prunable_layers(loaded.model, layers)
        self.solver = make(solver) if isinstance(solver, str) else solver
        self.budget = budget
        self.on_block = on_block
        self.progress = progress
        self.layers: dict[str, PrunedLayer] = {}
        self.steps: list[StepRecord] = []
        self._gate = gate and heldout is not None
        self._lam = self.settings.lam
        size = self.settings.batch_size
        if len(calibration) < size:
            raise DataError(
                f"calibration has {len(calibration)} samples, expected at least "
                f"batch_size={size}: ask for more samples or lower batch_size"
            )
        self.calibration = calibration
        whole = calibration[: len(calibration) // size * size].split(size)
        self._batches = [Forward(loaded.model, self.modules, batch) for batch in whole]
        held = () if heldout is None else heldout.split(size)
        self._heldout = [Forward(loaded.model, self.modules, batch) for batch in held]
        self._heldout_loss: float | None = None

    @property
    def density(self) -> float:
        """Kept fraction of the weights of all chosen layers."""
        kept = sum(layer.size - layer.count for layer in self.layers.values())
        return kept / sum(layer.size for layer in self.layers.values())

    def initialise(self) -> None:
        """Prunes every chosen layer to the density by the first mask's saliency."""
        title = f"Pruning {len(self.modules)} layers by {self.settings.init}"
        with stage(title, show=self.progress):
            self.layers = prune_layers(
                self.loaded.model, self.modules, self.calibration, self.settings
            )
            self._heldout_loss = self._measure_heldout()

    def restore(self) -> None:
        """Puts the trained weights back into the model."""
        for layer in self.layers.values():
            layer.restore()

    def step(self) -> StepRecord:
        """One block in every chosen layer from one backward pass.

        Raises:
            LayerError: a layer has too few free weights for the block.
            ModelError: a loss or weight that is not finite.
        """
        if not self.layers:
            self.initialise()
        number = len(self.steps) + 1
        clock = _Clock()
        batch = self._batches[(number - 1) % len(self._batches)]
        moves: list[Move] = []
        title = f"Step {number}: {len(self.modules)} blocks of {self.settings.block_size}"
        with stage(title, len(self.modules), show=self.progress) as update:

            def solve(name: str, seen: LayerCapture) -> None:
                clock.lap("capture")
                moves.append(self._solve(number, self.layers[name], seen, clock))
                update(len(moves))

            losses, _ = capture(batch, self.modules, solve)
            clock.lap("capture")
            for move in moves:
                move.retire()
            share, heldout_after = self._apply(moves, clock)
            loss_after = float(batch.losses().mean())
            clock.lap("measure")
        record = StepRecord(
            step=number,
            layers=tuple(
                LayerStep(m.layer.name, m.n, m.k, m.predicted(share), m.swaps(share))
                for m in reversed(moves)
            ),
            seconds=clock.seconds,
            loss_before=float(losses.mean()),
            loss_after=loss_after,
            heldout_before=self._heldout_loss,
            heldout_after=heldout_after,
            share=share,
            lam=self._lam,
        )
        self._adapt(share)
        self._heldout_loss = heldout_after
        self.steps.append(record)
        return record

    def _solve(self, number: int, layer: PrunedLayer, seen: LayerCapture, clock: _Clock) -> Move:
        position = list(self.layers).index(layer.name)
        rng = np.random.default_rng([self.settings.seed, number, position])
        meta = {
            "model": self.loaded.name,
            "revision": self.loaded.revision,
            "note": self.loaded.note,
            "step": number,
        }
        problem = cut_block(
            layer,
            LayerGradients(seen),
            self.settings,
            rng,
            lam=self._lam,
            meta=meta,
            on_stage=clock.lap,
        )
        if self.on_block is not None:
            self.on_block(problem)
        move = best_move(problem, layer, self.solver, self.budget, seed=int(rng.integers(2**31)))
        clock.lap("solve")
        return move

    def _apply(self, moves: list[Move], clock: _Clock) -> tuple[float, float | None]:
        """Takes the largest share of the swaps that does not raise the held-out loss."""
        before = self._heldout_loss
        for share in _SHARES:
            for move in moves:
                move.apply(share)
            clock.lap("apply")
            after = self._measure_heldout()
            clock.lap("measure")
            # not >=: a loss that became NaN is refused too
            if not self._gate or before is None or (after is not None and after <= before):
                return share, after
            for move in moves:
                move.undo()
            clock.lap("apply")
        return 0.0, before

    def _adapt(self, share: float) -> None:
        """A larger ridge makes shorter steps: raised after a cut step, lowered after a full one."""
        if share < 1:
            self._lam = max(2 * self._lam, 1e-4)
        else:
            self._lam = max(self._lam / 2, self.settings.lam)

    def _measure_heldout(self) -> float | None:
        if not self._heldout:
            return None
        return float(torch.cat([forward.losses() for forward in self._heldout]).mean())


class _Clock:
    """Seconds by stage; each lap charges the time since the last one."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] += now - self._last
        self._last = now
