"""Calls that cannot look at our clock: LAPACK, HiGHS, SCIP, long compiled steps.

Each runs in a thread of its own, so that the caller can answer Ctrl-C and its deadline. What does
not come back in time is left behind, to end when it ends.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController

from solvers.clock.deadline import Deadline

T = TypeVar("T")

# Seconds between two looks at the clock, and for which a call that was told to stop is waited for.
POLL = 0.02
GRACE = 0.2
# Calls that take less are made here and now.
SHORT = 0.1


def one_thread() -> AbstractContextManager[Any]:
    """A context in which BLAS and LAPACK use one thread.

    Their threads wait for each other by spinning: where a core is busy with something else, a
    factorisation takes ten times as long with two threads as with one.
    """
    return _controller().limit(limits=1, user_api="blas")


@cache
def _controller() -> ThreadpoolController:
    import scipy.linalg  # noqa: F401  its BLAS has to be there to be found

    return ThreadpoolController()


class _Worker:
    """A thread that does one job after another.

    A new thread for each job would do but for SCIP: after some 240 threads the linear algebra that
    it brings along crashes.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while True:
            self._jobs.get()()

    def submit(self, work: Callable[[], None]) -> Future[None]:
        """Starts a job; the future is done when the thread is free again."""
        done: Future[None] = Future()

        def job() -> None:
            try:
                work()
            except BaseException as failure:  # handed on to whoever waits
                _IDLE.append(self)
                done.set_exception(failure)
            else:
                _IDLE.append(self)
                done.set_result(None)

        self._jobs.put(job)
        return done


_IDLE: list[_Worker] = []


def run_until(
    work: Callable[[], None], deadline: Deadline, stop: Callable[[], None] = lambda: None
) -> bool:
    """Runs in a thread what does not look at our clock.

    Args:
        work: where it can be stopped, it returns soon after.
        deadline: when it is told to stop.
        stop: tells it; may be called more than once.

    Returns:
        Whether it ended; if not, it is left behind in its thread.
    """
    try:
        worker = _IDLE.pop()
    except IndexError:
        worker = _Worker()
    done = worker.submit(work)
    try:
        while not done.done() and not deadline.over:
            wait([done], min(POLL, max(deadline.left, 0.0)))
        stop_by = Deadline(GRACE)
        while not done.done() and not stop_by.over:
            stop()
            wait([done], POLL)
    except BaseException:
        stop()
        raise
    if not done.done():
        return False
    done.result()
    return True


def fits(seconds: float, deadline: Deadline) -> bool:
    """Whether to begin a call of so many seconds that nothing can interrupt."""
    return seconds <= 0.5 * deadline.left


def computed(work: Callable[[], T], seconds: float, deadline: Deadline) -> T | None:
    """The value of a call that nothing can interrupt; None where the time does not suffice.

    Args:
        work: the call.
        seconds: that it is expected to take; it is not begun if they are more than half of those
            left.
        deadline: when it is left behind.
    """
    if seconds <= SHORT:
        return _interruptible(work)
    if not fits(seconds, deadline):
        return None
    found: list[T] = []

    def alone() -> None:
        with one_thread():
            found.append(work())

    return found[0] if run_until(alone, deadline) else None


def _interruptible(work: Callable[[], T]) -> T:
    """The value of a compiled call; Ctrl-C in the middle of it is what it was.

    Compiled linear algebra looks for pending exceptions, finds the interrupt and goes on, so that
    it comes back with a result and an exception, which Python calls a system error.
    """
    try:
        return work()
    except SystemError as error:
        if isinstance(error.__cause__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise
