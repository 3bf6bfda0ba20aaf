"""Fork and replay: the loop is stopped after some steps and every contestant goes on from there.

Open loop: the blocks of the first step after the fork are instances of the study, the same for
every solver. Closed loop: each contestant drives the loop on, and so meets blocks of its own
making. Contestants are the study's solvers, and the first of them made worse on purpose: `Leaving`
gives up a chosen share of each block's gain, so that the cost of a gap is measured and not guessed.

Table ``trajectories`` of the store: contestant, gap (of artificial contestants), seed, step,
seconds, heldout, loss, accuracy, data (that of the test); step 0 is the fork.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from experiments.errors import StudyError
from experiments.store.database import TRAJECTORIES, Store
from experiments.study.sources import LoopSource
from experiments.study.study import Study
from icbs.data.loading import load_samples
from icbs.data.samples import Samples
from icbs.evaluation.quality import evaluate
from icbs.loop.checkpoint import Checkpoint
from icbs.loop.pruner import Pruner
from icbs.models.loading import load_model
from icbs.models.tasks import TASKS
from icbs.progress import stage
from solvers.base import Budget, CardinalitySampler, Request, Solution
from solvers.io.formats import CONTAINER, file_name
from solvers.problem import CardinalityProblem
from solvers.registry import make


class Leaving(CardinalitySampler):
    """The answer of another solver, less a share of its gain over the current mask.

    Swaps of the answer are undone in random order until at least `gap` of the gain is lost.

    Args:
        child: the solver.
        gap: share of the gain to leave, 0 to 1.
    """

    takes_initial: ClassVar[bool] = True
    honours: ClassVar[tuple[str, ...]] = ("time_limit", "reads", "sweeps")

    def __init__(self, child: CardinalitySampler, gap: float) -> None:
        self._child, self.gap = child, gap
        self.name = f"{child.name} leaving {gap:g}"

    def _solve(self, problem: CardinalityProblem, request: Request, **parameters: Any) -> Solution:
        assert request.initial is not None
        seed = int(request.rng.integers(2**31))
        samples = self._child.sample_problem(problem.blinded(), budget=request.budget, seed=seed)
        states = samples.record.sample.astype(np.bool_)
        states = states[problem.is_feasible(states)]
        best = states[int(np.argmin(problem.energy(states)))] if len(states) else request.initial
        return Solution(worsened(problem, best, request.initial, self.gap, request.rng)[None])


def worsened(
    problem: CardinalityProblem,
    best: np.ndarray,
    current: np.ndarray,
    gap: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """The first state on a random path from `best` back to `current` that lost enough.

    Args:
        problem: the block.
        best: feasible state, shape (n,) of bool.
        current: feasible state, shape (n,) of bool.
        gap: share of ``E(current) - E(best)`` to lose; 0 gives `best`, 1 the current mask.
        rng: order in which swaps are undone.
    """
    revived = rng.permutation(np.flatnonzero(current & ~best))
    pruned = rng.permutation(np.flatnonzero(~current & best))
    start, end = float(problem.energy(best)), float(problem.energy(current))
    if gap <= 0 or end <= start:
        return best
    low, high = 0, len(revived)
    target = start + min(gap, 1.0) * (end - start)

    def after(undone: int) -> np.ndarray:
        state = best.copy()
        state[revived[:undone]], state[pruned[:undone]] = True, False
        return state

    # Along the path the energy rises all but monotonically: one where it does is good enough.
    while low < high:
        middle = (low + high) // 2
        if float(problem.energy(after(middle))) >= target:
            high = middle
        else:
            low = middle + 1
    return after(low)


def follow(
    study: Study, source: LoopSource, store: Store, *, progress: bool = True
) -> dict[str, int]:
    """Runs the closed loop of every contestant the store does not have yet.

    Returns:
        The blocks of the fork: content hash -> number of variables.

    Raises:
        StudyError: a contestant that is not among the study's solvers.
    """
    name = f"loop:{sha256(source.identity.encode()).hexdigest()[:16]}"
    table = store.table(TRAJECTORIES)
    rows: list[dict[str, Any]] = [] if table is None else table.to_dict("records")  # type: ignore[assignment]
    known = store.blob(name)
    sizes: dict[str, int] = {} if known is None else json.loads(known)
    plan = list(_contestants(study, source))
    todo = [
        (label, gap, seed)
        for seed in range(source.seeds)
        for label, gap in plan
        if not any(r["contestant"] == label and r["seed"] == seed for r in rows)
    ]
    if not todo and sizes:
        return sizes
    for seed in sorted({seed for *_, seed in todo}) or [0]:
        fork = _Fork(study, source, seed, progress)
        if not sizes:
            for problem in fork.blocks():
                label = file_name(problem).removesuffix(CONTAINER)
                sizes[store.add_instance(problem, label)] = problem.n
            store.put_blob(name, json.dumps(sizes).encode(), "application/json")
        turns = [(label, gap) for label, gap, at in todo if at == seed]
        # In an order of chance, so that a machine that slows down does not hurt the same ones.
        for turn in np.random.default_rng([study.seed, seed]).permutation(len(turns)):
            label, gap = turns[turn]
            with stage(f"Loop of {label}, seed {seed}", show=progress):
                rows += fork.trajectory(label, gap)
            store.put_table(TRAJECTORIES, pd.DataFrame(rows))
    return sizes


def _contestants(study: Study, source: LoopSource) -> Iterator[tuple[str, float | None]]:
    labels = [spec.label for spec in study.specs]
    for label in source.contestants or labels:
        if label not in labels:
            raise StudyError(f"loop.contestants: {label!r} is none of the study's solvers")
        yield label, None
    for gap in source.gaps:
        yield f"{labels[0]} leaving {gap:g}", float(gap)


class _Fork:
    """The loop at the fork, to which it can be put back again and again."""

    def __init__(self, study: Study, source: LoopSource, seed: int, progress: bool) -> None:
        self._study, self._source, self._seed = study, source, seed
        loaded = load_model(source.model)
        self._evaluation_batch = TASKS[loaded.task].evaluation_batch
        count = source.count + source.heldout
        samples = load_samples(loaded, count=count, length=source.length, start=seed * count)
        self._test: Samples = load_samples(
            loaded, part="evaluation", count=source.evaluation, length=source.length
        )
        self._problems: list[CardinalityProblem] | None = None
        self._warm: set[tuple[str, float | None]] = set()
        self._pruner = Pruner(
            loaded,
            samples[: source.count],
            layers=source.layers,
            solver=self._solver(study.specs[0].label, None),
            budget=None if source.time_limit is None else Budget(time_limit=source.time_limit),
            heldout=samples[source.count :] if source.heldout else None,
            on_block=self._keep,
            progress=progress,
            **{**source.settings, "seed": seed},
        )
        self._pruner.initialise()
        for _ in range(source.fork_at):
            self._pruner.step()
        self._state: Checkpoint = self._pruner.checkpoint()

    def _keep(self, problem: CardinalityProblem) -> None:
        if self._problems is not None:
            self._problems.append(problem)

    def _solver(self, label: str, gap: float | None) -> CardinalitySampler:
        specs = {spec.label: spec for spec in self._study.specs}
        spec = specs[label] if gap is None else self._study.specs[0]
        made = make(spec.name if spec.sampler is None else spec.sampler, **spec.options)
        return made if gap is None else Leaving(made, gap)

    def blocks(self) -> list[CardinalityProblem]:
        """Those of the first step after the fork."""
        self._problems = []
        self._pruner.step()
        found, self._problems = self._problems, None
        self._pruner.adopt(self._state)
        return [replace(p, meta={**p.meta, "fork": self._source.fork_at}) for p in found]

    def trajectory(self, label: str, gap: float | None) -> list[dict[str, Any]]:
        """One row a step of one contestant; one step before them warms it up."""
        pruner = self._pruner
        pruner.adopt(self._state)
        pruner.solver = self._solver(label, gap)
        if (label, gap) not in self._warm:
            self._warm.add((label, gap))
            pruner.step()
            pruner.adopt(self._state)
        seconds, rows = 0.0, [self._row(label, gap, 0, 0.0)]
        for step in range(1, self._source.steps + 1):
            record = pruner.step()
            seconds += sum(record.seconds.values())
            rows.append(
                self._row(label, gap, step, seconds)
                | {
                    "solve": record.seconds["solve"],
                    "predicted": record.predicted,
                    "measured": record.measured,
                    "share": record.share,
                }
            )
        return rows

    def _row(self, label: str, gap: float | None, step: int, seconds: float) -> dict[str, Any]:
        batch = self._evaluation_batch
        found = evaluate(self._pruner.loaded.model, self._test, batch_size=batch, progress=False)
        return {
            "model": self._source.model,
            "data": self._test.source,
            "contestant": label,
            "gap": gap,
            "seed": self._seed,
            "step": step,
            "seconds": seconds,
            "loss": found.loss,
            "accuracy": found.accuracy,
            "solve": 0.0,
            "predicted": None,
            "measured": None,
            "share": None,
        }
