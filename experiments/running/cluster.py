"""Cells on the workers of a Dask cluster; needs the extra ``dask``. See docs/cluster.md.

The driver stays the only one who writes the store. A problem's container is a task of the cluster's
own, one a content hash: it travels to a worker once, when a cell there first needs it, and is
made again if the workers that had it are lost. Only a few cells a worker are out at a time.

Whoever can reach the scheduler can run code on the workers: a cluster belongs on a private network,
or behind Dask's TLS.
"""

from __future__ import annotations

import asyncio
import faulthandler
import itertools
import math
import os
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Collection
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import distributed
from distributed.utils import sync

from experiments.errors import StudyError
from experiments.running.limits import CALL, guard_with
from experiments.running.pool import WorkerDied
from experiments.running.worker import Record, Source, Task
from experiments.store.database import Store

# Problems that the scheduler keeps at a time.
_PROBLEMS_KEPT = 64
# Seconds to wait for the scheduler.
_PATIENCE = 20
# Seconds for which the number of workers is believed.
_SLOTS_HOLD = 2.0
# The scheduler's topic for what `_watch_and_tell` says.
_CLOCKS = "icbs-clocks"


class Cluster:
    """The workers of a Dask scheduler, as long as the ``with`` body runs.

    Args:
        address: of the scheduler, such as ``tcp://10.0.0.1:8786``.
        store: where the problems are.

    Raises:
        StudyError: nobody answers there.
    """

    def __init__(self, address: str, store: Store) -> None:
        try:
            self._client = distributed.Client(address, timeout=_PATIENCE, set_as_default=False)
        except (OSError, ValueError) as error:
            raise StudyError(f"scheduler {address} cannot be reached: {error}") from error
        self._address, self._store = address, store
        self._problems: OrderedDict[str, distributed.Future] = OrderedDict()
        self._numbers = itertools.count()
        self._slots, self._asked = 1, -math.inf
        self._allowed = self._client.run_on_scheduler(_allow_failures, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            # A scheduler that is gone needs nothing put back.
            with suppress(OSError, CancelledError):
                self._client.run_on_scheduler(_allow_failures, self._allowed)
        finally:
            # Cells that are out and not wanted any more are cancelled with their futures.
            self._client.close()

    def check(self, resources: Collection[str]) -> None:
        """Refuses a cluster without workers, with shared ones, or without what a solver needs.

        Raises:
            StudyError: saying what to start.
        """
        try:
            self._client.wait_for_workers(1, timeout=_PATIENCE)
        except TimeoutError as error:
            raise StudyError(f"scheduler {self._address} has no workers: start some") from error
        workers = self._client.run_on_scheduler(_workers)
        for name, (threads, _) in workers.items():
            if threads != 1:
                raise StudyError(
                    f"worker {name} has {threads} threads: start workers with --nthreads 1, "
                    "since cells in one process disturb each other's clocks"
                )
        for resource in resources:
            if not any(resource in there for _, there in workers.values()):
                raise StudyError(
                    f"no worker has the resource {resource!r} that a solver needs: start one with "
                    f"--resources {resource}=1 where it is there"
                )

    def slots(self) -> int:
        """Workers now, at least 1: they may come and go, so it is asked again after a while."""
        if time.monotonic() - self._asked > _SLOTS_HOLD:
            self._slots = max(1, len(self._client.run_on_scheduler(_workers)))
            self._asked = time.monotonic()
        return self._slots

    def submit(
        self, fn: Callable[[Task, Source], Record], task: Task, resource: str
    ) -> Future[Record]:
        """Hands a cell out; its worker's death is a `WorkerDied` of the future."""
        answer: Future[Record] = Future()
        answer.set_running_or_notify_cancel()
        sent = self._client.submit(
            _guarded,
            fn,
            task,
            self._problem(task.cell.instance),
            key=f"icbs-cell-{task.cell.key}-{os.getpid()}-{next(self._numbers)}",
            resources={resource: 1} if resource else None,
            pure=False,
        )
        # In the client's own loop: a thread's turn a cell less than with add_done_callback.
        self._client.loop.add_callback(self._hand_over, sent, answer)
        return answer

    async def _hand_over(self, sent: distributed.Future, answer: Future[Record]) -> None:
        try:
            answer.set_result(await sent)
        except distributed.KilledWorker as error:
            stage = None
            with suppress(OSError, CancelledError):
                stage = await self._client.run_on_scheduler(_ended_itself, sent.key)
            died = WorkerDied("the worker process died", late=bool(stage), stage=stage or CALL)
            died.__cause__ = error
            answer.set_exception(died)
        except (CancelledError, asyncio.CancelledError) as error:
            gone = StudyError("the scheduler is gone; run the same study again to resume")
            gone.__cause__ = error
            answer.set_exception(gone)
        except BaseException as error:  # whoever waits for the cell must hear of it
            answer.set_exception(error)

    def _problem(self, instance: str) -> distributed.Future:
        known = self._problems.get(instance)
        # A worker may have died while the problem was on its way to it.
        if known is None or known.status in ("error", "lost", "cancelled"):
            with warnings.catch_warnings():
                # Dask advises against large arguments; this one is sent once.
                warnings.simplefilter("ignore", UserWarning)
                self._problems[instance] = self._client.submit(
                    bytes,
                    self._store.container(instance),
                    key=f"icbs-problem-{instance}-{next(self._numbers)}",
                    pure=False,
                )
            if len(self._problems) > _PROBLEMS_KEPT:
                # Cells that are out keep theirs.
                self._problems.popitem(last=False)
        self._problems.move_to_end(instance)
        return self._problems[instance]


def _allow_failures(allowed: int, dask_scheduler: Any = None) -> int:
    """Runs in the scheduler: how often a cell may outlive its worker before we are told."""
    before: int = dask_scheduler.allowed_failures
    dask_scheduler.allowed_failures = allowed
    return before


def _ended_itself(key: str, dask_scheduler: Any = None) -> str | None:
    """Runs in the scheduler: the stage whose clock ran out before the task's worker was lost."""
    told = [(at, *msg[1:]) for at, msg in dask_scheduler.get_events(_CLOCKS) if msg[0] == key]
    lost = [entry[-1] for entry in dask_scheduler.story(key) if entry[2] == "erred"]
    late = told and lost and lost[-1] - told[-1][0] >= told[-1][1]
    return told[-1][2] if late else None


def _workers(dask_scheduler: Any = None) -> dict[str, tuple[int, list[str]]]:
    """Runs in the scheduler: address -> threads and resources of every worker."""
    return {
        address: (worker.nthreads, list(worker.resources))
        for address, worker in dask_scheduler.workers.items()
    }


def _guarded(fn: Callable[[Task, Source], Record], task: Task, container: bytes) -> Record:
    """Runs in a worker: a cell under a watchdog that needs neither the driver nor the GIL."""
    _stop_sampling()
    # Whether a worker died of its own clock is asked of a second death only: telling when the clock
    # starts, and waiting until that is heard, is no part of every cell.
    guard_with(partial(_watch_and_tell, distributed.get_worker()) if task.again else _watch)
    return fn(task, container)


@cache
def _stop_sampling() -> None:
    """Runs in a worker: Dask's look at the stack every 10 ms would take a part of every cell."""
    worker = distributed.get_worker()
    for name in ("profile", "profile-cycle"):
        sampling = worker.periodic_callbacks.get(name)
        if sampling is not None:
            worker.loop.add_callback(sampling.stop)


def _watch_and_tell(worker: distributed.Worker, seconds: float | None, stage: str) -> None:
    """As `_watch`; the scheduler hears of the clock before it starts."""
    if seconds is not None:
        message = (worker.get_current_task(), seconds, stage)
        sync(worker.loop, worker.scheduler.log_event, topic=_CLOCKS, msg=message)
    _watch(seconds, stage)


_NOWHERE = Path(os.devnull).open("w")  # noqa: SIM115 - as long as the process


def _watch(seconds: float | None, stage: str) -> None:
    """Ends this process, and with it the solver, unless told that the clock has stopped."""
    del stage
    if seconds is None:
        faulthandler.cancel_dump_traceback_later()
    else:
        faulthandler.dump_traceback_later(seconds, exit=True, file=_NOWHERE)
