"""Runs a study into a store.

The driver plans the cells, hands them out, and alone writes the store; `experiments.running.worker`
runs them. Cells that are in the store already are left out, so running a study again resumes it.
"""

from __future__ import annotations

import itertools
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.errors import StudyError
from experiments.instances.register import register
from experiments.progress import cell_progress
from experiments.record import host
from experiments.running.crew import Crew, Stop, driven, hired
from experiments.running.worker import Task, clear_bench, options_json, submit_tasks
from experiments.store.database import Store
from experiments.study.cells import Cell
from experiments.study.spec import budget_json
from experiments.study.study import Study
from solvers.errors import SolverError
from solvers.registry import make

# Keys looked up in the store at a time: what is planned ahead of what runs.
_LOOK_UP = 500


@dataclass(frozen=True)
class Outcome:
    """What a call of `run` did.

    Attributes:
        counts: status -> cells written by this call.
        pending: those of them that the same call later tries again or collects.
        failure: label and reason of the first cell that is an error; empty if none is.
        earlier: status -> cells that were in the store before.
        remaining: cells left out because of an interrupt.
        store: where the records are.
    """

    counts: dict[str, int]
    earlier: dict[str, int]
    remaining: int
    store: Path
    failure: str = ""
    pending: int = 0

    @property
    def resumed(self) -> int:
        """Number of cells that were in the store before."""
        return sum(self.earlier.values())

    @property
    def summary(self) -> str:
        """The cells in numbers, by status."""
        parts = _numbered(self.counts)
        if self.resumed:
            failed = _numbered({s: n for s, n in self.earlier.items() if s != "done"})
            of_them = f" ({', '.join(failed)})" if failed else ""
            parts += [f"{self.resumed} in the store before{of_them}"]
        parts += [f"{self.remaining} left to run"] if self.remaining else []
        total = sum(self.counts.values()) + self.resumed + self.remaining
        waiting = f"; {self.pending} of them go on with --resume" if self.pending else ""
        return f"{total} cells: {', '.join(parts)}{waiting}"

    @property
    def interrupted(self) -> bool:
        """Whether cells are left to run."""
        return self.remaining > 0


def _numbered(counts: dict[str, int]) -> list[str]:
    return [f"{count} {status}" for status, count in sorted(counts.items())]


def run(
    study: Study,
    store: str | Path,
    *,
    workers: int = 1,
    executor: Executor | None = None,
    scheduler: str | None = None,
    isolate: bool = False,
    memory: float | None = None,
    progress: bool = True,
    command: Sequence[str] = (),
) -> Outcome:
    """Run what the store does not have yet.

    Ctrl-C once finishes the running cells, writes them and returns; twice stops at once. Either
    way the store is whole and the same call resumes.

    A solver that hangs or crashes takes its process along. In a worker process, here or on a
    cluster, that costs its own cell; in this process, the default, it costs the run, and a hanging
    solver hangs until it is interrupted. `isolate` is for solvers that are not trusted.

    Args:
        study: what to run.
        store: SQLite file, made if missing.
        workers: 1 runs in this process, more in as many worker processes. Timings of cells that run
            side by side disturb each other.
        executor: where to run cells instead; `workers` then only bounds how many are handed out.
        scheduler: address of a Dask scheduler, whose workers run the cells; see docs/cluster.md.
        isolate: a worker process even if `workers` is 1.
        memory: GiB that a solver may take for a cell, on Linux; a MemoryError beyond.
        progress: show a bar on a terminal, a line per stage elsewhere.
        command: the words of the command line that asks for this, kept in the store: a page of an
            incomplete study shows them. Nothing of the environment is kept.

    Returns:
        How many cells ended how.

    Raises:
        StudyError: an unknown or unavailable solver, impossible options, a parameter that a solver
            does not have, an unreadable instance, a cluster that cannot be reached or lacks what a
            solver needs.
        StoreError: a store that cannot be opened or written.
    """
    if workers < 1:
        raise StudyError(f"workers is {workers}; give a whole number from 1")
    if memory is not None and not 0 < memory < float("inf"):
        raise StudyError(f"memory is {memory}; give GiB above 0")
    if memory is not None and not sys.platform.startswith("linux"):
        raise StudyError("memory can be limited on Linux only; leave it out")
    if scheduler is not None and (executor is not None or isolate or workers > 1):
        raise StudyError("a scheduler brings its own workers: leave executor, workers, isolate out")
    tracks = _check_solvers(study)
    clear_bench()
    with Store(store, create=True) as opened:
        sizes = register(study, opened, progress=progress) | _whole_models(study, opened, progress)
        plan = _Plan(study, opened, sizes, tracks, memory)
        counts: Counter[str] = Counter()
        failure, pending = "", 0
        with (
            hired(study, opened, workers, executor, scheduler, isolate) as crew,
            _interrupt() as stop,
            cell_progress(f"Running {plan.total} cells", plan.total, show=progress) as advance,
        ):
            invocation = 0
            plan.on_resumed = advance
            plan.submit(crew)
            try:
                for record in driven(crew, plan.tasks(), stop):
                    invocation = invocation or opened.add_invocation(
                        study.name,
                        _settings(study, sizes, crew.workers, plan.total)
                        | {"command": list(command)},
                        host.describe(),
                    )
                    opened.add_run({"invocation": invocation, **record.row}, record.incumbents)
                    counts[record.row["status"]] += 1
                    pending += bool(record.row.get("pending"))
                    if record.row["status"] == "error":
                        failure = failure or f"{record.row['solver']}: {record.row['reason']}"
                    advance()
            except KeyboardInterrupt as stopped:
                told = _how_to_resume("stopped at once", store)
                raise KeyboardInterrupt(told) from stopped
        remaining = plan.remaining()
    if remaining and progress:
        left = f"Interrupted: {remaining} cells are left"
        print(_how_to_resume(left, store), file=sys.stderr)
    return Outcome(dict(counts), dict(plan.earlier), remaining, Path(store), failure, pending)


def _whole_models(study: Study, store: Store, progress: bool) -> dict[str, int]:
    """Runs the closed loop and the prunings of a study, which need a model and this process.

    Returns:
        The blocks that the loop met: content hash -> number of variables.
    """
    sizes: dict[str, int] = {}
    if study.loop is not None:
        from experiments.running.closedloop import follow

        sizes = follow(study, study.loop, store, progress=progress)
    if study.pruning:
        from experiments.pruning.comparing import measure

        for models in study.pruning:
            measure(models, store, progress=progress)
    return sizes


def _how_to_resume(what: str, store: str | Path) -> str:
    return f"{what}; run the same study into {store} again to resume (icbs bench: --resume)"


class _Plan:
    """The cells that the store does not have, as a stream: never all of them in memory."""

    def __init__(
        self,
        study: Study,
        store: Store,
        sizes: dict[str, int],
        tracks: Sequence[str],
        memory: float | None,
    ) -> None:
        self.total = study.count(sizes)
        self.earlier: Counter[str] = Counter()
        self.on_resumed: Callable[[], None] = lambda: None
        self._study, self._store, self._sizes, self._memory = study, store, sizes, memory
        self._tracks = tracks
        self._builds: dict[str, float] = {}
        self._unwarmed: set[str] = set()
        self._cells = self._missing()

    def _missing(self) -> Iterator[Cell]:
        cells = self._study.cells(self._sizes)
        while batch := list(itertools.islice(cells, _LOOK_UP)):
            done = self._store.finished_of([cell.key for cell in batch])
            for cell in batch:
                if cell.key in done:
                    self.earlier[done[cell.key]] += 1
                    self.on_resumed()
                else:
                    yield cell

    def _task(self, cell: Cell) -> Task:
        specs, study = self._study.specs, self._study
        if cell.instance not in self._builds:
            self._builds[cell.instance] = self._store.build_of(cell.instance)
        build = self._builds[cell.instance]
        return Task(
            cell,
            specs[cell.solver],
            study.give_initial,
            build,
            self._tracks[cell.solver],
            self._memory,
            unwarmed=self._unwarmed,
        )

    def tasks(self) -> Iterator[Task]:
        """What is to be run."""
        for cell in self._cells:
            yield self._task(cell)

    def submit(self, crew: Crew) -> None:
        """Submits the cells of solvers that cost money, so that their tasks queue together."""
        paid = [spec.paid for spec in self._study.specs]
        if not any(paid):
            return
        cells = list(self._cells)  # few: they cost money
        submit_tasks([self._task(cell) for cell in cells if paid[cell.solver]], crew.local)
        self._cells = iter(cells)

    def remaining(self) -> int:
        """Cells that were not handed out, counted."""
        return sum(1 for _ in self._cells)


def _check_solvers(study: Study) -> list[str]:
    """Makes every solver once: what is wrong with its name, options or parameters stops the study.

    Values of parameters too, as far as a solver can check them without a problem: see
    `solvers.base.CardinalitySampler.check_parameters`.

    Returns:
        Their tracks.
    """
    tracks: list[str] = []
    for spec in study.specs:
        try:
            sampler = make(spec.name if spec.sampler is None else spec.sampler, **spec.options)
            sampler.check_parameters(spec.parameters)
            sampler.check()
            tracks.append(sampler.track)
        except (SolverError, TypeError, ValueError) as error:
            raise StudyError(f"solvers: {spec.label}: {error}") from error
    return tracks


def _settings(study: Study, sizes: Mapping[str, int], workers: int, cells: int) -> dict[str, Any]:
    """What a report needs to tell how much of the plan is there; see `completeness.plans`."""
    return {
        "seed": study.seed,
        "seeds": list(study.seeds),
        "budgets": [budget_json(budget) for budget in study.limits],
        "solvers": [spec.label for spec in study.specs],
        "options": [options_json(spec) for spec in study.specs],
        "instances": sorted(sizes),
        "give_initial": study.give_initial,
        "workers": workers,
        "figures": list(study.figures),
        "cells": cells,
    }


@contextmanager
def _interrupt() -> Iterator[Stop]:
    """The first Ctrl-C asks to stop after the running cells, the second stops at once."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: Any) -> None:
        del number, frame
        stop.asked = True
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
