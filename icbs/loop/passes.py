"""The blocks of one backward pass: built, solved, and what each changes carried into the next."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from icbs.blocks.build import cut_block
from icbs.blocks.capture import Forward, LayerCapture, capture
from icbs.blocks.gradients import LayerGradients
from icbs.blocks.hessian import block_hessian
from icbs.blocks.layers import PrunedLayer
from icbs.loop.moves import Move, best_state
from icbs.loop.records import STAGES
from icbs.settings import Settings
from solvers.base import Budget, CardinalitySampler
from solvers.problem import CardinalityProblem

# Mean gradient of a layer and how many batches are in it.
Means = dict[str, tuple[torch.Tensor, int]]


class Clock:
    """Seconds by stage; each lap charges the time since the last one."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Charges a stage."""
        now = time.perf_counter()
        self.seconds[name] += now - self._last
        self._last = now


@dataclass
class BlockPass:
    """One block in every chosen layer, the last layer first.

    Attributes:
        number: of the step.
        forward: its batch.
        modules: the layers that get a block, by name.
        layers: all layers under pruning, by name; their order numbers the random streams.
        settings: of the run.
        solver: solves the blocks.
        budget: what it may spend on each.
        means: mean gradients so far, brought up to date.
        ridge: factor on the settings' ridges.
        meta: provenance of the problems.
        clock: of the step.
        executor: solves the blocks side by side; None: in this process.
        on_block: called with every problem before it is solved.
        on_solved: called with the number of blocks that were handed to the solver.
    """

    number: int
    forward: Forward
    modules: Mapping[str, nn.Module]
    layers: Mapping[str, PrunedLayer]
    settings: Settings
    solver: CardinalitySampler
    budget: Budget | None
    means: Means
    ridge: float
    meta: Mapping[str, Any]
    clock: Clock
    executor: Executor | None = None
    on_block: Callable[[CardinalityProblem], None] | None = None
    on_solved: Callable[[float], None] = lambda done: None
    # What the blocks solved so far changed, by number of rows.
    _earlier: dict[int, Any] = field(default_factory=dict)

    def run(self) -> tuple[torch.Tensor, list[Move]]:
        """Each sample's loss before, and the solver's answers.

        Raises:
            LayerError: a layer has too few free weights for the block.
            ModelError: a loss or weight that is not finite.
        """
        answers: list[Callable[[], Move]] = []

        def solve(name: str, seen: LayerCapture) -> None:
            self.clock.lap("capture")
            answers.append(self.solve(self.layers[name], seen))
            self.on_solved(len(answers))

        if self.settings.fisher != "exact":
            losses, _ = capture(self.forward, self.modules, solve)
        else:
            # The Hessian runs the model itself, so it has to wait for the pass to end.
            losses, captures = capture(self.forward, self.modules)
            for name in reversed(list(captures)):
                solve(name, captures.pop(name))
        self.clock.lap("capture")
        moves = [answer() for answer in answers]
        self.clock.lap("solve")
        return losses, moves

    def solve(self, layer: PrunedLayer, seen: LayerCapture) -> Callable[[], Move]:
        """Builds a block and has it solved; what comes back waits for the answer."""
        settings = self.settings
        place = list(self.layers).index(layer.name)
        rng = np.random.default_rng([settings.seed, self.number, place])
        gradients = LayerGradients(seen)
        problem = cut_block(
            layer,
            gradients,
            settings,
            rng,
            sketch=np.random.default_rng([settings.seed, self.number]),
            mean=self._mean(layer.name, gradients),
            hessian=lambda at: block_hessian(self.forward, self.modules[layer.name], at),
            ridge=self.ridge,
            earlier=self._earlier if settings.carry else None,
            meta={**self.meta, "step": self.number},
            on_stage=self.clock.lap,
        )
        if self.on_block is not None:
            self.on_block(problem)
        call = (problem, self.solver, self.budget, int(rng.integers(2**31)), layer.m)
        if self.executor is not None:
            future = self.executor.submit(best_state, *call)
            return lambda: Move(problem, layer, future.result())
        move = Move(problem, layer, best_state(*call))
        if settings.carry and problem.factor is not None:
            self._earlier[problem.rank] = self._earlier.get(problem.rank, 0.0) + move.rows()
        self.clock.lap("solve")
        return lambda: move

    def _mean(self, name: str, gradients: LayerGradients) -> torch.Tensor:
        """The gradient averaged over the steps, older ones weighing less."""
        beta = self.settings.momentum
        if not beta:
            return gradients.mean
        old, visits = self.means.get(name, (gradients.mean, 0))
        weight = (1 - beta) / (1 - beta ** (visits + 1))
        mean = torch.lerp(old.to(gradients.mean), gradients.mean, weight)
        # Half the memory; the rounding is far below the gradient's own noise.
        self.means[name] = mean.to(torch.bfloat16), visits + 1
        return mean
