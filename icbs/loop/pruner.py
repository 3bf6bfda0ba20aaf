"""The pruning loop: capture -> select -> build -> solve -> apply, block descent on masks.

One backward pass serves a block in every chosen layer. Layers solved from the same pass all claim
the same gain, so a step can overshoot although every block improved. Three things hold it: what a
block changes is carried into the blocks after it, the gate measures the loss on held-out
calibration data and takes fewer swaps, or none, if it rose, and the ridge grows or shrinks with the
ratio of measured to predicted change (a trust region in Levenberg and Marquardt's form).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dimod
import numpy as np
import torch

from icbs.blocks.build import cut_block
from icbs.blocks.capture import Forward, LayerCapture, capture
from icbs.blocks.gradients import LayerGradients
from icbs.blocks.hessian import block_hessian
from icbs.blocks.layers import PrunedLayer, check_pattern, prune_layers
from icbs.blocks.probe import usable_layers
from icbs.data.samples import Samples
from icbs.errors import DataError, SettingError
from icbs.loop.checkpoint import Checkpoint, LayerState, fingerprint
from icbs.loop.moves import Move, best_state
from icbs.loop.records import STAGES, LayerStep, StepRecord
from icbs.loop.refit import repair_weights
from icbs.loop.schedule import choose_layers
from icbs.loop.tuning import TuningStep, tune_weights
from icbs.models.coverage import Coverage, check_reachable, coverage
from icbs.models.loading import LoadedModel
from icbs.models.prunable import layer_weight
from icbs.progress import say, stage
from icbs.settings import Settings
from solvers import Budget, make
from solvers.problem import CardinalityProblem

# Shares of a step's swaps that the gate tries in turn before it gives the step up.
_SHARES = (1.0, 0.4, 0.15)
# A step whose measured gain is this part of the predicted one or more may be followed by a longer.
_TRUSTED = 0.4
# Factor on the ridge after a step that was cut, and after one that could be trusted.
_SHORTER, _LONGER = 2.0, 1 / 1.5
# Positions of the calibration samples that the repair learns from, all in one batch.
_REPAIR_POSITIONS = 8192
# The ridge never falls below this part of what the settings say.
_LOWEST_RIDGE = 1 / 64


class Pruner:
    """Prunes the linear layers of a model and improves the mask step by step.

    `run` takes as many steps as it is told; `step` takes one.

    Args:
        loaded: the model; its weights are changed in place.
        calibration: samples that steps learn from, `batch_size` of them in turn.
        layers: shell globs of layer names, separated by commas.
        solver: a registered name or any dimod sampler (see `solvers.make`).
        budget: what the solver may spend on a block; None leaves it to the solver.
        heldout: samples that no step learns from; None means no gate.
        gate: undo, or take only a part of, a step that raises the held-out loss.
        executor: solves a step's blocks side by side, with the same result on any number of
            workers; a process pool, or `distributed.Client.get_executor`. Needs ``carry=False``:
            else each block waits for the answers before it. None: in this process.
        on_block: called with every problem that is built, before it is solved.
        on_step: called with every record.
        progress: show what goes on.
        **settings: fields of `icbs.settings.Settings`: density, block_size, fisher, damping, ...

    Attributes:
        modules: the layers under pruning, by name.
        refused: why other chosen layers are left dense, by name (see `icbs.blocks.probe`).

    Raises:
        LayerError: no layer matches or can be pruned, or one is smaller than the block.
        ModelError: a model that does not run on such samples.
        DensityError: a density, k or fraction that cannot be, or that the model has already.
        SettingError: any other setting that cannot be.
        DataError: fewer calibration samples than one batch, or samples the model cannot take.
        UnknownSolverError: a name that the registry does not have.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        calibration: Samples,
        *,
        layers: str = "*",
        solver: str | dimod.Sampler = "relaxation",
        budget: Budget | None = None,
        heldout: Samples | None = None,
        gate: bool = True,
        executor: Executor | None = None,
        on_block: Callable[[CardinalityProblem], None] | None = None,
        on_step: Callable[[StepRecord], None] | None = None,
        progress: bool = True,
        **settings: Any,
    ) -> None:
        self.settings = Settings(**settings)
        self.loaded = loaded
        usable = usable_layers(loaded.model, layers, calibration)
        self.modules, self.refused = usable.layers, usable.refused
        check_reachable(self.modules, self.settings.density)
        check_pattern(self.modules, self.settings)
        self.solver = make(solver)
        self.budget = budget
        if executor is not None and self.settings.carry:
            raise SettingError(
                "an executor cannot solve blocks side by side that wait for each other's answers: "
                "set carry=False, or leave executor out"
            )
        self.executor = executor
        self.on_block = on_block
        self.on_step = on_step
        self.progress = progress
        self.layers: dict[str, PrunedLayer] = {}
        self.steps: list[StepRecord] = []
        self._gate = gate and heldout is not None
        self._ridge = 1.0
        # mean gradient and how many batches are in it, by layer
        self._means: dict[str, tuple[torch.Tensor, int]] = {}
        self.calibration, self.heldout = calibration, heldout
        size = self.settings.batch_size
        self._batches = _batches(calibration, "batch_size", size)
        tuning = self.settings.tuning_batch_size
        self._tuning_batches = (
            self._batches if tuning is None else _batches(calibration, "tuning_batch_size", tuning)
        )
        held = () if heldout is None else heldout.split(size)
        # Kept, because the part before the chosen layers need not run again.
        self._forwards = [Forward(loaded.model, self.modules, batch) for batch in held]
        self._heldout_loss: float | None = None

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
    def masks(self) -> dict[str, torch.Tensor]:
        """True where a weight is kept, shape (out, in), by layer."""
        return {name: ~layer.pruned.view(layer.weight.shape) for name, layer in self.layers.items()}

    def initialise(self) -> None:
        """Prunes every chosen layer to the density by the first mask's saliency."""
        # Masks and blocks are about trained weights, and a run before may have pruned them.
        self.restore()
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

    def run(
        self,
        steps: int,
        *,
        time_limit: float | None = None,
        checkpoint: Path | None = None,
    ) -> Sequence[StepRecord]:
        """Steps until there are as many as asked for, those of a resumed run included.

        Args:
            steps: number of steps in all.
            time_limit: seconds; no step is begun that would likely end later, judged by the longest
                so far.
            checkpoint: file that holds the state after each step, written so that a crash leaves
                the last or the new one. If it is there, the run goes on from it, bit for bit as if
                it had never stopped.

        Returns:
            All records.

        Raises:
            CheckpointError: the checkpoint is of another model, run or schema.
        """
        start = time.perf_counter()
        if checkpoint is not None and checkpoint.exists():
            self.resume(checkpoint)
        elif not self.layers:
            self.initialise()
        longest = 0.0
        while len(self.steps) < steps:
            begun = time.perf_counter()
            if time_limit is not None and begun - start + longest > time_limit:
                break
            self.step()
            if checkpoint is not None:
                self.checkpoint().save(checkpoint)
            longest = max(longest, time.perf_counter() - begun)
        return tuple(self.steps)

    def repair(self, *, ridge: float = 0.1) -> bool:
        """Fits the kept weights to the outputs of the dense layers (see `icbs.loop.refit`).

        Masks stay as they are. No step may follow: blocks are about trained weights.

        Args:
            ridge: pull towards the trained weights, in units of the mean squared input.

        Returns:
            True if the repaired weights stay; False if the gate put the trained ones back, because
            the loss on the held-out samples rose.
        """
        positions = self.calibration.inputs[0].numel() if self.loaded.tokenizer is not None else 1
        dense = {name: layer.dense for name, layer in self.layers.items()}
        repair_weights(
            self.loaded.model,
            self.modules,
            dense,
            self.masks,
            self.calibration[: max(1, _REPAIR_POSITIONS // positions)],
            ridge=ridge,
            progress=self.progress,
        )
        loss = self._measure_heldout()
        before = self._heldout_loss
        # not >: a loss that became NaN is refused too
        if self._gate and before is not None and not (loss is not None and loss <= before):
            for layer in self.layers.values():
                layer.write()
            return False
        self._heldout_loss = loss
        return True

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
        records = tune_weights(
            self.loaded.model,
            self.modules,
            {name: layer.dense for name, layer in self.layers.items()},
            self.masks,
            self._tuning_batches,
            steps=steps,
            time_limit=time_limit,
            rate=rate,
            labels=labels,
            mixed_precision=self.settings.mixed_precision,
            measure=self._measure_heldout if self._gate else lambda: None,
            before=self._heldout_loss if self._gate else None,
            progress=self.progress,
        )
        if self._gate:
            # The best state was put back, and its loss is known.
            known = (self._heldout_loss, *(record.heldout for record in records))
            self._heldout_loss = min((loss for loss in known if loss is not None), default=None)
        else:
            self._heldout_loss = self._measure_heldout()
        return records

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
        chosen = choose_layers(self.layers, self.settings, self.steps)
        batch = self._batches[(number - 1) % len(self._batches)]
        forward = Forward(
            self.loaded.model,
            {name: self.modules[name] for name in chosen},
            batch,
            mixed_precision=self.settings.mixed_precision,
        )
        title = f"Step {number}: {len(chosen)} blocks"
        with stage(title, len(chosen), show=self.progress) as update:
            losses, moves = self._solve_all(number, forward, chosen, clock, update)
            for move in moves:
                move.retire()
            predicted = sum(move.predicted(1.0) for move in moves)
            share, heldout_after = self._apply(moves, clock)
            loss_after = None
            if heldout_after is None:
                loss_after = float(forward.losses().mean())
                clock.lap("measure")
        done = {
            m.layer.name: (m.n, m.k, m.predicted(share), m.swaps(share), m.swaps(1.0))
            for m in moves
        }
        record = StepRecord(
            step=number,
            # No block in an expert that the batch did not reach.
            layers=tuple(LayerStep(name, *done.get(name, (0, 0, 0.0, 0, 0))) for name in chosen),
            seconds=clock.seconds,
            loss_before=float(losses.mean()),
            loss_after=loss_after,
            heldout_before=self._heldout_loss,
            heldout_after=heldout_after,
            share=share,
            ridge=self._ridge,
            density=self.density,
            touched=self.touched,
        )
        self._adapt(record, predicted)
        self._heldout_loss = heldout_after
        self.steps.append(record)
        if self.on_step is not None:
            self.on_step(record)
        return record

    def _solve_all(
        self,
        number: int,
        forward: Forward,
        chosen: Sequence[str],
        clock: _Clock,
        update: Callable[[float], None],
    ) -> tuple[torch.Tensor, list[Move]]:
        """Blocks of all chosen layers, the last layer first."""
        answers: list[Callable[[], Move]] = []
        earlier: dict[int, Any] = {}
        modules = {name: self.modules[name] for name in chosen}

        def solve(name: str, seen: LayerCapture) -> None:
            clock.lap("capture")
            answers.append(self._solve(number, self.layers[name], seen, forward, earlier, clock))
            update(len(answers))

        if self.settings.fisher != "exact":
            losses, _ = capture(forward, modules, solve)
        else:
            # The Hessian runs the model itself, so it has to wait for the pass to end.
            losses, captures = capture(forward, modules)
            for name in reversed(list(captures)):
                solve(name, captures.pop(name))
        clock.lap("capture")
        moves = [answer() for answer in answers]
        clock.lap("solve")
        return losses, moves

    def _solve(
        self,
        number: int,
        layer: PrunedLayer,
        seen: LayerCapture,
        forward: Forward,
        earlier: dict[int, Any],
        clock: _Clock,
    ) -> Callable[[], Move]:
        """Builds a block and has it solved; what comes back waits for the answer."""
        settings = self.settings
        rng = np.random.default_rng([settings.seed, number, list(self.layers).index(layer.name)])
        gradients = LayerGradients(seen)
        problem = cut_block(
            layer,
            gradients,
            settings,
            rng,
            sketch=np.random.default_rng([settings.seed, number]),
            mean=self._mean(layer.name, gradients),
            hessian=lambda at: block_hessian(forward, self.modules[layer.name], at),
            ridge=self._ridge,
            earlier=earlier if settings.carry else None,
            meta={
                "model": self.loaded.name,
                "revision": self.loaded.revision,
                "note": self.loaded.note,
                "data": self.calibration.source,
                "step": number,
            },
            on_stage=clock.lap,
        )
        if self.on_block is not None:
            self.on_block(problem)
        call = (problem, self.solver, self.budget, int(rng.integers(2**31)), layer.m)
        if self.executor is not None:
            future = self.executor.submit(best_state, *call)
            return lambda: Move(problem, layer, future.result())
        move = Move(problem, layer, best_state(*call))
        if settings.carry and problem.factor is not None:
            earlier[problem.rank] = earlier.get(problem.rank, 0.0) + move.rows()
        clock.lap("solve")
        return lambda: move

    def _mean(self, name: str, gradients: LayerGradients) -> torch.Tensor:
        """The gradient averaged over the steps, older ones weighing less."""
        beta = self.settings.momentum
        if not beta:
            return gradients.mean
        old, visits = self._means.get(name, (gradients.mean, 0))
        weight = (1 - beta) / (1 - beta ** (visits + 1))
        mean = torch.lerp(old.to(gradients.mean), gradients.mean, weight)
        # Half the memory; the rounding is far below the gradient's own noise.
        self._means[name] = mean.to(torch.bfloat16), visits + 1
        return mean

    def checkpoint(self) -> Checkpoint:
        """All that a run needs to go on."""
        return Checkpoint(
            identity=self._identity(),
            steps=tuple(self.steps),
            ridge=self._ridge,
            heldout_loss=self._heldout_loss,
            layers={name: LayerState.of(layer) for name, layer in self.layers.items()},
            means=dict(self._means),
        )

    def resume(self, path: Path) -> None:
        """Goes on from a checkpoint.

        Raises:
            CheckpointError: it cannot be read, or is of another model, run or schema.
        """
        state = Checkpoint.load(path)
        for note in state.check(self._identity(), path):
            say(note, show=self.progress)
        self.adopt(state)

    def adopt(self, state: Checkpoint) -> None:
        """Puts the run, model included, back to a state of its own, such as `checkpoint` gave.

        The solver may be another one since: several can go on from the same state.
        """
        # The first masks give back what the checkpoint leaves out: saliency and fixed weights.
        if not self.layers or self.steps:
            self.initialise()
        for name, layer in self.layers.items():
            state.layers[name].put(layer)
        self.steps = list(state.steps)
        self._ridge, self._heldout_loss = state.ridge, state.heldout_loss
        self._means = dict(state.means)

    def _identity(self) -> dict[str, Any]:
        """What a checkpoint must have in common with the run that goes on from it."""
        solver = self.solver
        return {
            "model": self.loaded.name,
            "revision": self.loaded.revision,
            "layers": {name: list(layer_weight(m).shape) for name, m in self.modules.items()},
            "solver": getattr(solver, "name", type(solver).__name__),
            "budget": None if self.budget is None else asdict(self.budget),
            "gate": self._gate,
            "calibration": fingerprint(self.calibration),
            "heldout": None if self.heldout is None else fingerprint(self.heldout),
            "settings": asdict(self.settings),
        }

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

    def _adapt(self, record: StepRecord, predicted: float) -> None:
        """A larger ridge makes shorter steps."""
        if not self._gate or record.measured is None:
            return
        if record.share < 1:
            self._ridge *= _SHORTER
        elif record.measured <= _TRUSTED * predicted:
            self._ridge = max(self._ridge * _LONGER, _LOWEST_RIDGE)

    def _measure_heldout(self) -> float | None:
        if not self._forwards:
            return None
        return float(torch.cat([forward.losses() for forward in self._forwards]).double().mean())


def _batches(calibration: Samples, name: str, size: int) -> Sequence[Samples]:
    """Whole batches of the size that a setting asks for."""
    if len(calibration) < size:
        raise DataError(
            f"calibration has {len(calibration)} samples, expected at least {name}={size}: ask for "
            f"more samples or lower {name}"
        )
    return calibration[: len(calibration) // size * size].split(size)


class _Clock:
    """Seconds by stage; each lap charges the time since the last one."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] += now - self._last
        self._last = now
