"""Runs a study into a store.

The driver plans the cells, hands them out, and alone writes the store; `experiments.worker` runs
them. Cells that are in the store already are left out, so running a study again resumes it.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from experiments import host
from experiments.errors import StudyError
from experiments.instances import register
from experiments.progress import cell_progress
from experiments.store import Store
from experiments.study import Study, budget_json
from experiments.worker import (
    Record,
    Task,
    blank_row,
    clear_bench,
    run_task,
    start_worker,
    submit_task,
)
from solvers.errors import SolverError
from solvers.reads import checked_threads
from solvers.registry import make

P = ParamSpec("P")
T = TypeVar("T")
# Cells handed out per worker: enough to keep it busy, few enough to stay out of memory.
AHEAD = 2


@dataclass(frozen=True)
class Outcome:
    """What a call of `run` did.

    Attributes:
        counts: status -> cells written by this call.
        resumed: cells that were in the store before.
        remaining: cells left out because of an interrupt.
        store: where the records are.
    """

    counts: dict[str, int]
    resumed: int
    remaining: int
    store: Path

    @property
    def interrupted(self) -> bool:
        """Whether cells are left to run."""
        return self.remaining > 0


@dataclass
class _Stop:
    asked: bool = False


class InProcess(Executor):
    """Runs each call at once, in this process: no daemon, no pickling, nothing to warm twice."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Runs `fn` before it returns."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # handed to who asks for it
            future.set_exception(error)
        return future


def run(
    study: Study,
    store: str | Path,
    *,
    workers: int = 1,
    executor: Executor | None = None,
    progress: bool = True,
) -> Outcome:
    """Run what the store does not have yet.

    Ctrl-C once finishes the running cells, writes them and returns; twice stops at once. Either
    way the store is whole and the same call resumes.

    Args:
        study: what to run.
        store: SQLite file, made if missing.
        workers: 1 runs in this process, more in a pool of spawned ones. Timings of cells that run
            side by side disturb each other.
        executor: where to run cells instead; `workers` then only bounds how many are handed out.
        progress: show a bar on a terminal, a line per stage elsewhere.

    Returns:
        How many cells ended how.

    Raises:
        StudyError: an unknown or unavailable solver, impossible options, an unreadable instance.
        StoreError: a store that cannot be opened or written.
    """
    if workers < 1:
        raise StudyError(f"workers is {workers}; give a whole number from 1")
    _check_solvers(study)
    clear_bench()
    with Store(store, create=True) as opened, _interrupt() as stop:
        sizes = register(study, opened, progress=progress)
        done = opened.finished()
        cells = study.cells(sizes)
        pending = [cell for cell in cells if cell.key not in done]
        build, specs = opened.build_seconds(), study.specs
        tasks = [
            Task(opened.path.absolute(), cell, specs[cell.solver], study.give_initial,
                 build[cell.instance])
            for cell in pending
        ]  # fmt: skip
        settings = _settings(study, workers, len(cells))
        if tasks:
            opened_as = opened.add_invocation(study.name, settings, host.describe())
        for task in tasks:
            if stop.asked:
                break
            submit_task(task)
        counts: Counter[str] = Counter()
        with cell_progress(f"Running {len(tasks)} cells", len(tasks), show=progress) as advance:
            for record in _records(tasks, workers, executor, stop):
                opened.add_run({"invocation": opened_as, **record.row}, record.incumbents)
                counts[record.row["status"]] += 1
                advance()
    remaining = len(tasks) - counts.total()
    if remaining and progress:
        print(
            f"Interrupted: {remaining} cells are left; run the same study into {store} again "
            "to resume",
            file=sys.stderr,
        )
    return Outcome(dict(counts), len(cells) - len(pending), remaining, Path(store))


def _check_solvers(study: Study) -> None:
    """Makes every solver once: a name or an option that is wrong stops the study at once."""
    for spec in study.specs:
        try:
            make(spec.name if spec.sampler is None else spec.sampler, **spec.options).check()
        except (SolverError, TypeError, ValueError) as error:
            raise StudyError(f"solvers: {spec.label}: {error}") from error


def _settings(study: Study, workers: int, cells: int) -> dict[str, Any]:
    return {
        "seed": study.seed,
        "seeds": list(study.seeds),
        "budgets": [budget_json(budget) for budget in study.ladder],
        "solvers": [spec.label for spec in study.specs],
        "give_initial": study.give_initial,
        "workers": workers,
        "figures": list(study.figures),
        "cells": cells,
    }


def _records(
    tasks: list[Task], workers: int, executor: Executor | None, stop: _Stop
) -> Iterator[Record]:
    if executor is not None:
        yield from _drive(executor, tasks, AHEAD * workers, stop)
    elif workers == 1:
        yield from _drive(InProcess(), tasks, 1, stop)
    else:
        yield from _pooled(tasks, workers, stop)


def _drive(executor: Executor, tasks: list[Task], ahead: int, stop: _Stop) -> Iterator[Record]:
    """Hands out tasks, a bounded number ahead, and yields records as they come."""
    waiting = iter(tasks)
    running: dict[Future[Record], Task] = {}
    while True:
        while len(running) < ahead and not stop.asked and (task := next(waiting, None)):
            running[executor.submit(run_task, task)] = task
        if not running:
            return
        finished, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in finished:
            task = running.pop(future)
            yield future.result()


def _pooled(tasks: list[Task], workers: int, stop: _Stop) -> Iterator[Record]:
    """A process pool that outlives the death of a worker.

    A dead worker breaks its whole pool and does not say which cell killed it. The cells that may
    have been running are run again one at a time; the one whose worker then dies is the guilty one.
    """
    todo = {task.cell.key: task for task in tasks}
    suspects = 0
    while todo and not stop.asked:
        alone = suspects > 0
        batch = list(todo.values())[: suspects if alone else None]
        try:
            with _pool(1 if alone else workers) as pool:
                for record in _drive(pool, batch, 1 if alone else AHEAD * workers, stop):
                    del todo[record.row["key"]]
                    suspects = max(0, suspects - 1)
                    yield record
        except BrokenProcessPool:
            if alone:
                guilty = todo.pop(next(iter(todo)))
                suspects -= 1
                row = blank_row(guilty.cell, guilty.spec, guilty.give_initial)
                reason = "the worker process died"
                yield Record(row | {"status": "error", "reason": reason}, [])
            else:
                suspects = min(len(todo), AHEAD * workers)


def _pool(workers: int) -> ProcessPoolExecutor:
    # Not fork: the driver has threads (BLAS, progress bar) that a forked child would inherit
    # mid-flight. A fork server imports the solvers' packages once for all workers.
    if "forkserver" in get_all_start_methods():
        context: Any = get_context("forkserver")
        context.set_forkserver_preload(["experiments.worker"])
    else:
        context = get_context("spawn")
    # Solvers that work on all CPUs would otherwise compete with their neighbours for them.
    threads = max(1, checked_threads(None) // workers)
    return ProcessPoolExecutor(
        workers, mp_context=context, initializer=start_worker, initargs=(threads,)
    )


@contextmanager
def _interrupt() -> Iterator[_Stop]:
    """The first Ctrl-C asks to stop after the running cells, the second stops at once."""
    stop = _Stop()
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
