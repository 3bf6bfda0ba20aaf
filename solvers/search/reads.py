"""Independent reads over threads.

Kernels free the interpreter lock, so threads run side by side on one copy of the problem. Every
read has random numbers of its own, seeded by its number: a given number of reads gives the same
samples on any number of threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import numpy as np

from solvers.base import ReadPool, Request
from solvers.clock.deadline import Deadline
from solvers.errors import ParameterError
from solvers.problem import Bools

Read = Callable[[int, np.random.Generator], Bools]


def checked_threads(num_threads: int | None) -> int:
    """The number of threads asked for; when None NUMBA_NUM_THREADS, else one a usable CPU.

    Raises:
        ParameterError: not a whole number from 1.
    """
    if num_threads is None:
        # From the environment, not numba.config: Braket's simulator sets the latter to -1.
        told = os.environ.get("NUMBA_NUM_THREADS", "")
        if told.isdecimal() and int(told):
            return int(told)
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1
    if isinstance(num_threads, bool) or int(num_threads) != num_threads or num_threads < 1:
        raise ParameterError(f"num_threads is {num_threads!r}, expected a whole number from 1")
    return int(num_threads)


def make_reads(read: Read, pool: ReadPool, request: Request, reads: int, num_threads: int) -> None:
    """Makes reads until there are enough or the time is over, at least one.

    Args:
        read: number and random numbers -> feasible state; called from several threads.
        pool: takes the states, in this thread only.
        request: deadline and seed.
        reads: how many.
        num_threads: how many at a time.
    """
    seed = int(request.rng.integers(2**63))

    def numbered(number: int) -> Bools | None:
        # One that was waiting when the time ended is not worth its set-up.
        if number and request.deadline.over:
            return None
        return read(number, np.random.default_rng([seed, number]))

    count = min(num_threads, reads)
    if count == 1:
        for number in range(reads):
            state = numbered(number)
            if state is None:
                return
            pool.add(state, number)
        return
    with ThreadPoolExecutor(count) as executor:
        try:
            _feed(executor, numbered, pool, request.deadline, reads, count)
        except BaseException:
            # Interrupted, or a read failed: those still running end at their next look.
            request.deadline.stop()
            raise


def _feed(
    executor: ThreadPoolExecutor,
    numbered: Callable[[int], Bools | None],
    pool: ReadPool,
    deadline: Deadline,
    reads: int,
    count: int,
) -> None:
    """Keeps `count` reads running, as many waiting, and takes each as it ends."""
    running: dict[Future[Bools | None], int] = {}
    started = 0
    while True:
        while started < reads and len(running) < 2 * count:
            running[executor.submit(numbered, started)] = started
            started += 1
        if not running:
            return
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in sorted(done, key=running.__getitem__):
            state, number = future.result(), running.pop(future)
            if state is not None:
                pool.add(state, number)
        if deadline.over:
            reads = started
            for future in [f for f in running if f.cancel()]:
                del running[future]
