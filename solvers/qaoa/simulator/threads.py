"""Threads for kernels that free the interpreter lock."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from solvers.clock.background import one_thread

# Starting two threads costs about what one pass over this many amplitudes does.
LEAST_AMPLITUDES = 1 << 15


class Threads:
    """Runs a kernel on ranges of a vector, or several calls at once.

    Numba's own parallel loops are not used: their default layer aborts the process when two
    Python threads enter it, and a study may run solvers in threads.
    """

    def __init__(self, count: int, pool: ThreadPoolExecutor | None) -> None:
        self._count = count
        self._pool = pool

    def over(self, size: int, kernel: Callable[..., Any], *arguments: Any) -> float:
        """``kernel(*arguments, start, stop)`` over 0..size-1; the sum of what it returns."""
        if self._pool is None:
            return kernel(*arguments, 0, size) or 0.0
        bounds = [size * t // self._count for t in range(self._count + 1)]
        starts, stops = bounds[:-1], bounds[1:]
        futures = [
            self._pool.submit(kernel, *arguments, start, stop)
            for start, stop in zip(starts, stops, strict=True)
        ]
        return sum(future.result() or 0.0 for future in futures)

    @property
    def count(self) -> int:
        """How many calls run at a time."""
        return 1 if self._pool is None else self._count

    def together(
        self, kernel: Callable[..., Any], calls: list[tuple[Any, ...]], scratch: Sequence[Any]
    ) -> None:
        """``kernel(*call, own)`` for every call; they must not share what they write.

        Args:
            kernel: frees the interpreter lock.
            calls: arguments.
            scratch: at least `count` buffers; each thread passes its own as the last argument.
        """

        def run(turn: int) -> None:
            for call in calls[turn :: self.count]:
                kernel(*call, scratch[turn])

        if self._pool is None:
            run(0)
        else:
            list(self._pool.map(run, range(self.count)))


@contextmanager
def threads(count: int, dim: int) -> Iterator[Threads]:
    """Threads for vectors of `dim` entries: none where they would cost more than they save.

    The matrix products in between, thin ones, keep to one thread, see `one_thread`.
    """
    if dim < LEAST_AMPLITUDES:
        yield Threads(1, None)
        return
    with one_thread():
        if count == 1:
            yield Threads(1, None)
            return
        with ThreadPoolExecutor(count) as pool:
            yield Threads(count, pool)
