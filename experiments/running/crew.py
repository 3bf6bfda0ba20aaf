"""Who runs a study's cells: this process, workers, an executor of the caller's, a cluster."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import ParamSpec, TypeVar

from experiments.errors import StudyError
from experiments.running.limits import WARM_UP, kill_limit
from experiments.running.pool import WorkerDied, WorkerPool
from experiments.running.worker import Record, Task, blank_row, run_task
from experiments.store.database import Store
from experiments.study.spec import SolverSpec
from experiments.study.study import Study
from solvers.registry import registered

P = ParamSpec("P")
T = TypeVar("T")
# Cells handed out per worker: enough to keep it busy, few enough to stay out of memory.
AHEAD = 2
# Cells handed out to a cluster however small it is: some are on their way.
_ON_THE_WAY = 4


@dataclass
class Stop:
    """Whether no more cells are to be handed out."""

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


@dataclass
class Crew:
    """Who runs the cells.

    Attributes:
        local: the store, for those who can read it.
        workers: how many run at a time, as far as is known before.
        submit: hands a cell out.
        room: how many cells may be out.
    """

    local: Path
    workers: int
    submit: Callable[[Task], Future[Record]]
    room: Callable[[], int]


@contextmanager
def hired(
    study: Study, store: Store, workers: int, executor: Executor | None, scheduler: str | None,
    isolate: bool,
) -> Iterator[Crew]:  # fmt: skip
    """Those who run a study's cells, until the block ends.

    Args:
        study: what its solvers need decides which workers of a cluster may run them.
        store: the study's.
        workers: of this machine.
        executor: of the caller's, instead.
        scheduler: address of a Dask scheduler, instead.
        isolate: a worker process even for one worker.

    Raises:
        StudyError: a cluster that cannot be reached or lacks what a solver needs.
    """
    path = store.path.absolute()
    if scheduler is not None:
        if find_spec("distributed") is None:
            raise StudyError("a scheduler needs Dask: pip install 'icbs-bench[dask]'")
        from experiments.running.cluster import Cluster

        with Cluster(scheduler, store) as cluster:
            cluster.check({resource_of(spec) for spec in study.specs} - {""})
            yield Crew(
                path, cluster.slots(),
                lambda task: cluster.submit(run_task, task, resource_of(task.spec)),
                lambda: max(_ON_THE_WAY, AHEAD * cluster.slots()),
            )  # fmt: skip
    elif executor is not None:
        yield Crew(path, workers, lambda task: executor.submit(run_task, task, path),
                    lambda: AHEAD * workers)  # fmt: skip
    elif isolate or workers > 1:
        with WorkerPool(workers) as pool:
            yield Crew(path, workers, lambda task: pool.submit(run_task, task, path),
                        lambda: AHEAD * workers)  # fmt: skip
    else:
        here = InProcess()
        yield Crew(path, 1, lambda task: here.submit(run_task, task, path), lambda: 1)


def resource_of(spec: SolverSpec) -> str:
    """What a worker must have to run a solver: what the study says, else the registry."""
    if spec.resource or spec.sampler is not None:
        return spec.resource
    return registered()[spec.name].resource


def driven(crew: Crew, tasks: Iterator[Task], stop: Stop) -> Iterator[Record]:
    """Hands out tasks, a bounded number ahead, and yields records as they come.

    A cell whose worker died is run again, once and with nothing beside it: the worker may have died
    of something else. If it dies again, or was killed for being late, that is the cell's row.
    """
    out: dict[Future[Record], Task] = {}
    suspects: deque[Task] = deque()

    def hand_out(task: Task) -> None:
        future = crew.submit(task)
        out[future] = task
        # In the pool's own thread, and so before it hands out the next cell.
        future.add_done_callback(partial(_learn, task))

    while True:
        alone = any(task.again for task in out.values())
        while not alone and not stop.asked:
            if suspects:
                if not out:
                    hand_out(replace(suspects.popleft(), again=True))
                break
            if len(out) >= crew.room() or (fresh := next(tasks, None)) is None:
                break
            hand_out(fresh)
        if not out:
            return
        finished, _ = wait(out, return_when=FIRST_COMPLETED)
        for future in finished:
            task = out.pop(future)
            try:
                yield future.result()
            except WorkerDied as death:
                if death.late and death.stage == WARM_UP:
                    hand_out(task)
                elif task.again or death.late:
                    yield row_of_the_dead(task, death)
                else:
                    suspects.append(task)


def _learn(task: Task, future: Future[Record]) -> None:
    """Notes that a solver's warm-up was killed: no process waits for it again."""
    death = None if future.cancelled() else future.exception()
    if isinstance(death, WorkerDied) and death.late and death.stage == WARM_UP:
        task.unwarmed.add(task.spec.identity)


def row_of_the_dead(task: Task, death: WorkerDied) -> Record:
    """The row of a cell whose worker died."""
    limit = kill_limit(task.cell.budget)
    seconds = death.seconds
    row = blank_row(task.cell, task.spec, task.give_initial) | {"track": task.track}
    if task.spec.paid:
        # Its task may be out there: whoever asks again collects it.
        row["pending"] = 1
    if death.late:
        seconds = limit if seconds is None else seconds
        row |= {"status": "timeout", "wall": seconds}
        row["reason"] = (
            f"no answer after {seconds:.3g} s, killed; the limit is "
            f"{task.cell.budget.time_limit:g} s"
        )
        if task.spec.identity in task.unwarmed:
            row["reason"] += "; called without a warm-up, since that was killed as well"
    else:
        row |= {"status": "error", "wall": seconds, "reason": f"{death}, twice"}
    return Record(row, [])
