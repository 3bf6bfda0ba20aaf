"""What bounds a call of a solver: when it is late, when it is killed, how much memory it may take.

Only a process that somebody watches, its guard, can be killed; see `experiments.running.pool`.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from solvers.base import Budget

# Seconds a warm-up may take before a guarded process is killed for it, once in a study: of a
# solver that says it compiles, and of any other.
COMPILE_LIMIT = 180.0
WARM_UP_LIMIT = 30.0
# Seconds that a guarded process gets beyond `overrun_limit`, so that a late answer is still heard.
GRACE = 1.0
# What a guarded process is busy with.
WARM_UP = "warm-up"
CALL = "call"


def _unguarded(_seconds: float | None, _stage: str) -> None:
    """The driver's own process: nobody may kill it, so a solver that hangs there hangs."""


Guard = Callable[[float | None, str], None]
"""What is told when a clock starts (seconds a stage may take, which) and when it ends (None)."""
_GUARD: list[Guard] = [_unguarded]


def guard_with(guard: Guard) -> None:
    """Sets the guard of this process."""
    _GUARD[:] = [guard]


def overrun_limit(time_limit: float) -> float:
    """Seconds after which an answer is late, whatever the solver honours: twice the limit plus 1 s.

    A late run keeps its energies, but it does not rank.
    """
    return 2 * time_limit + 1.0


def kill_limit(budget: Budget) -> float | None:
    """Seconds after which a guarded process is killed; None without a time limit."""
    return None if budget.time_limit is None else overrun_limit(budget.time_limit) + GRACE


@contextmanager
def guarded(seconds: float | None, stage: str) -> Iterator[None]:
    """Lets the guard of this process, if it has one, end it when the body takes longer."""
    if seconds is None:
        yield
        return
    _GUARD[0](seconds, stage)
    try:
        yield
    finally:
        _GUARD[0](None, stage)


@contextmanager
def limited(memory: float | None) -> Iterator[None]:
    """Refuses the body more than `memory` GiB beyond what the process has: a MemoryError there.

    Counted are private writable pages, used or not (Linux, ``RLIMIT_DATA``).
    """
    if memory is None:
        yield
        return
    import resource

    old, hard = resource.getrlimit(resource.RLIMIT_DATA)
    # Sixth field: data and stack, in pages.
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])
    most = pages * resource.getpagesize() + int(memory * 2**30)
    resource.setrlimit(
        resource.RLIMIT_DATA, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard)
    )
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (old, hard))


@contextmanager
def unwalked() -> Iterator[None]:
    """Leaves what is loaded out of the body's garbage collections: a full one walks it for 70 ms.

    What the caller has frozen already stays frozen, and then nothing else is.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
