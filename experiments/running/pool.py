"""Worker processes that can be killed one at a time.

Unlike `concurrent.futures.ProcessPoolExecutor` the driver knows which call runs in which process:
a process that dies, or is killed because its call is late, takes no other call along, and is
replaced.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from typing import Any, ParamSpec, TypeVar

from experiments.errors import StudyError
from experiments.running.limits import CALL, guard_with
from experiments.running.worker import start_worker
from solvers.search.reads import checked_threads

P = ParamSpec("P")
T = TypeVar("T")


_SAFE_PATH = "PYTHONSAFEPATH"


class WorkerDied(Exception):  # noqa: N818 - it says what happened
    """The process that ran a call is gone.

    Attributes:
        late: whether it was killed for being late.
        seconds: from the start of its clock to the end; None if that is not known.
        stage: what its clock was for, `CALL` or `WARM_UP`.
    """

    def __init__(
        self, message: str, *, late: bool = False, seconds: float | None = None, stage: str = CALL
    ) -> None:
        super().__init__(message)
        self.late, self.seconds, self.stage = late, seconds, stage


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    ready: bool = False
    future: Future[Any] | None = None
    started: float | None = None
    deadline: float | None = None
    stage: str = CALL


class WorkerPool(Executor):
    """An executor of processes with a watchdog.

    Args:
        workers: processes.
        method: how `multiprocessing` starts them; None: a fork server where there is one, else
            spawn. (Not fork, its own default: the driver has threads, of BLAS and the progress bar,
            that a forked child would inherit mid-flight.)
    """

    def __init__(self, workers: int, method: str | None = None) -> None:
        if method is None:
            known = multiprocessing.get_all_start_methods()
            method = "forkserver" if "forkserver" in known else "spawn"
        self._context: Any = multiprocessing.get_context(method)
        if method == "forkserver":
            from multiprocessing import forkserver  # not on every system

            # Imports the solvers' packages once for all workers.
            self._context.set_forkserver_preload(["experiments.running.worker"])
            with _safe_path():
                forkserver.ensure_running()
        # Solvers that work on all CPUs would otherwise compete with their neighbours for them.
        self._threads = max(1, checked_threads(None) // workers)
        self._todo: deque[tuple[Future[Any], tuple[Any, ...]]] = deque()
        self._lock = threading.Lock()
        self._closing = False
        self._broken: Exception | None = None
        self._woken, self._wake = self._context.Pipe(duplex=False)
        self._workers = [self._start() for _ in range(workers)]
        self._thread = threading.Thread(target=self._manage, name="worker-pool", daemon=True)
        self._thread.start()

    @property
    def processes(self) -> list[int]:
        """Process ids, for those who watch them."""
        return [worker.process.pid for worker in self._workers]

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Runs the call in a process that is free, or the next to be."""
        future: Future[T] = Future()
        with self._lock:
            if self._closing:
                raise RuntimeError("the pool is shut down")
            if self._broken is not None:
                raise self._broken
            self._todo.append((future, (fn, args, kwargs)))
            self._wake.send_bytes(b".")
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Ends the processes after their calls; with `cancel_futures` at once."""
        with self._lock:
            if not self._closing:
                self._closing = True
                self._wake.send_bytes(b".")
            if cancel_futures:
                for future, _ in self._todo:
                    future.cancel()
                self._todo.clear()
                for worker in self._workers:
                    worker.process.kill()
        if wait:
            self._thread.join()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """An error, Ctrl-C among them, does not wait for running calls."""
        self.shutdown(cancel_futures=kind is not None)

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_serve, args=(theirs, self._threads), name="icbs-worker", daemon=True
        )
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def _manage(self) -> None:
        while True:
            with self._lock:
                for worker in self._workers:
                    while worker.future is None and self._todo:
                        self._hand_out(worker, *self._todo.popleft())
                if self._closing and not any(worker.future for worker in self._workers):
                    break
            pipes: dict[Any, _Worker] = {worker.pipe: worker for worker in self._workers}
            deadlines = [w.deadline for w in self._workers if w.deadline is not None]
            rest = max(0.0, min(deadlines) - time.monotonic()) if deadlines else None
            for ready in wait_for([self._woken, *pipes], timeout=rest):
                if ready is self._woken:
                    self._woken.recv_bytes()
                else:
                    self._hear(pipes[ready])
            now = time.monotonic()
            for worker in list(self._workers):
                if worker.deadline is not None and now >= worker.deadline:
                    self._replace(worker, late=True)
        for worker in self._workers:
            # Not by closing the pipe alone: a process started later may hold its end as well.
            with suppress(OSError):
                worker.pipe.send(None)
            worker.pipe.close()
        for worker in self._workers:
            worker.process.join(5.0)
            worker.process.kill()
            worker.process.join()

    def _hand_out(self, worker: _Worker, future: Future[Any], call: tuple[Any, ...]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        worker.future = future
        try:
            worker.pipe.send(call)
        except OSError:
            pass  # it died; its closed pipe is heard of next
        except Exception as error:  # a call that cannot be pickled
            worker.future = None
            future.set_exception(error)

    def _hear(self, worker: _Worker) -> None:
        try:
            kind, value = worker.pipe.recv()
        except (EOFError, OSError):
            self._replace(worker, late=False)
            return
        except Exception as error:  # an answer that cannot be read
            kind, value = "error", error
        now = time.monotonic()
        worker.ready = True
        if kind == "ready":
            return
        if kind == "clock":
            seconds, worker.stage = value
            worker.started = now if seconds is not None else None
            worker.deadline = None if seconds is None else now + seconds
            return
        future, worker.future = worker.future, None
        worker.started = worker.deadline = None
        assert future is not None
        if kind == "error":
            future.set_exception(value)
        else:
            future.set_result(value)

    def _replace(self, worker: _Worker, *, late: bool) -> None:
        seconds = None if worker.started is None else time.monotonic() - worker.started
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()
        code = worker.process.exitcode
        if not worker.ready and code > 0:
            # It failed by itself: so would the next one.
            error: Exception = StudyError(
                f"a worker process ended with status {code} before it took a call; its own message "
                "is above (a script that starts workers needs: if __name__ == '__main__')"
            )
            if worker.future is None:
                self._broken = error
        else:
            how = f"signal {-code}" if code < 0 else f"exit status {code}"
            error = WorkerDied(
                f"the worker process died ({how})", late=late, seconds=seconds, stage=worker.stage
            )
        with self._lock:
            self._workers.remove(worker)
            if self._broken is None and not (self._closing and not self._todo):
                self._workers.append(self._start())
            elif not self._workers:
                for future, _ in self._todo:
                    future.set_exception(error)
                self._todo.clear()
        if worker.future is not None:
            worker.future.set_exception(error)


@contextmanager
def _safe_path() -> Iterator[None]:
    """Starts Python without the working directory on its path.

    A fork server would look there first, and take somebody's solvers.py for our package. (What the
    driver itself has on its path, a script's folder for one, its workers get from it later.)
    """
    before = os.environ.get(_SAFE_PATH)
    os.environ[_SAFE_PATH] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SAFE_PATH]
        else:
            os.environ[_SAFE_PATH] = before


def _serve(pipe: Connection, threads: int) -> None:
    """A worker process: takes calls until the pool or its process is gone."""
    start_worker(threads)
    threading.Thread(
        target=_die_with, args=(multiprocessing.parent_process(),), daemon=True
    ).start()
    guard_with(lambda seconds, stage: pipe.send(("clock", (seconds, stage))))
    try:
        pipe.send(("ready", None))
    except OSError:  # the pool was shut down before its worker was up
        return
    while True:
        try:
            call = pipe.recv()
            if call is None:
                return
            fn, args, kwargs = call
        except (EOFError, OSError):
            return
        except Exception as error:  # what a call refers to cannot be imported here
            pipe.send(("error", error))
            continue
        try:
            answer = ("result", fn(*args, **kwargs))
        except Exception as error:  # handed to who asks for it
            answer = ("error", error)
        try:
            pipe.send(answer)
        except OSError:
            return
        except Exception as error:  # cannot be pickled
            pipe.send(("error", RuntimeError(f"{type(error).__name__}: {error}")))


def _die_with(parent: Any) -> None:
    """A driver that is killed closes no pipe that its other workers inherited."""
    parent.join()
    os._exit(1)
