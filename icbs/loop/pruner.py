"""The pruning loop: capture -> select -> build -> solve -> apply, block descent on masks.

One backward pass serves a block in every chosen layer (`icbs.loop.passes`); the gate says how much
of their swaps may stay (`icbs.loop.gate`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dimod

from icbs.blocks.capture import Forward
from icbs.blocks.layers import prune_layers
from icbs.data.samples import Samples
from icbs.errors import SettingError
from icbs.loop.checkpoint import Checkpoint, LayerState, fingerprint
from icbs.loop.model import PrunedModel
from icbs.loop.passes import BlockPass, Clock, Means
from icbs.loop.records import LayerStep, StepRecord
from icbs.loop.schedule import choose_layers
from icbs.models.loading import LoadedModel
from icbs.models.prunable import layer_weight
from icbs.patterns import told
from icbs.progress import say, stage
from icbs.settings import Settings
from solvers import Budget, make
from solvers.problem import CardinalityProblem


class Pruner(PrunedModel):
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

    Besides its arguments and what a `icbs.loop.model.PrunedModel` has, it has this attribute.

    Attributes:
        steps: records so far.

    Raises:
        LayerError: no layer matches or can be pruned, or one is smaller than the block.
        ModelError: a model that does not run on such samples.
        DensityError: a density, k or fraction out of range, or a model that is as sparse already.
        SettingError: any other setting that is unknown or out of range.
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
        super().__init__(
            loaded,
            calibration,
            Settings(**settings),
            layers=layers,
            heldout=heldout,
            gate=gate,
            progress=progress,
        )
        self.solver = make(solver)
        self.budget = budget
        if executor is not None and self.settings.carry:
            raise SettingError(
                "executor solves blocks side by side, and with carry=True each block waits for the "
                "answers before it; set carry=False, or leave executor out"
            )
        self.executor = executor
        self.on_block = on_block
        self.on_step = on_step
        self.steps: list[StepRecord] = []
        self._means: Means = {}

    def initialise(self) -> None:
        """Prunes every chosen layer to the density by the first mask."""
        # Masks and blocks are about trained weights, and a run before may have pruned them.
        self.restore()
        title = (
            f"Pruning {len(self.modules)} layers to {told(self.settings.density)} by "
            f"{self.settings.init}"
        )
        steps = len(self.modules) if self.settings.init == "rows" else None
        with stage(title, steps, show=self.progress) as update:
            self.layers = prune_layers(
                self.loaded.model, self.modules, self.calibration, self.settings, update
            )
            self.gate.loss = self.gate.measure()

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

    def step(self) -> StepRecord:
        """One block in every chosen layer from one backward pass.

        Raises:
            LayerError: a layer has too few free weights for the block.
            ModelError: a loss or weight that is not finite.
        """
        if not self.layers:
            self.initialise()
        clock = Clock()
        chosen = choose_layers(self.layers, self.settings, self.steps)
        blocks = self._pass(chosen, clock)
        title = f"Step {blocks.number}: {len(chosen)} blocks"
        with stage(title, len(chosen), show=self.progress) as blocks.on_solved:
            losses, moves = blocks.run()
            for move in moves:
                move.retire()
            predicted = sum(move.predicted(1.0) for move in moves)
            share, heldout_after = self.gate.admit(moves, clock.lap)
            loss_after = None
            if heldout_after is None:
                loss_after = float(blocks.forward.losses().mean())
                clock.lap("measure")
        done = {move.layer.name: move for move in moves}
        record = StepRecord(
            step=blocks.number,
            # No block in an expert that the batch did not reach.
            layers=tuple(LayerStep.of(name, done.get(name), share) for name in chosen),
            seconds=clock.seconds,
            loss_before=float(losses.mean()),
            loss_after=loss_after,
            heldout_before=self.gate.loss,
            heldout_after=heldout_after,
            share=share,
            ridge=self.gate.ridge,
            density=self.density,
            touched=self.touched,
        )
        self.gate.adapt(record, predicted)
        self.gate.loss = heldout_after
        self.steps.append(record)
        if self.on_step is not None:
            self.on_step(record)
        return record

    def _pass(self, chosen: Sequence[str], clock: Clock) -> BlockPass:
        """The next step's blocks, not yet built."""
        number = len(self.steps) + 1
        modules = {name: self.modules[name] for name in chosen}
        batch = self._batches[(number - 1) % len(self._batches)]
        return BlockPass(
            number=number,
            forward=Forward(
                self.loaded.model,
                modules,
                batch,
                mixed_precision=self.settings.mixed_precision,
            ),
            modules=modules,
            layers=self.layers,
            settings=self.settings,
            solver=self.solver,
            budget=self.budget,
            means=self._means,
            ridge=self.gate.ridge,
            meta={
                "model": self.loaded.name,
                "revision": self.loaded.revision,
                "note": self.loaded.note,
                "data": self.calibration.source,
            },
            clock=clock,
            executor=self.executor,
            on_block=self.on_block,
        )

    def checkpoint(self) -> Checkpoint:
        """All that a run needs to go on."""
        return Checkpoint(
            identity=self._identity(),
            steps=tuple(self.steps),
            ridge=self.gate.ridge,
            heldout_loss=self.gate.loss,
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
        self.gate.ridge, self.gate.loss = state.ridge, state.heldout_loss
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
            "gate": self.gate.enforced,
            "calibration": fingerprint(self.calibration),
            "heldout": None if self.heldout is None else fingerprint(self.heldout),
            "settings": asdict(self.settings),
        }
