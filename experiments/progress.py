"""A bar on a terminal, one line elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def cell_progress(title: str, total: int, *, show: bool = True) -> Iterator[Callable[[], None]]:
    """Shows how far `total` pieces of work are; the body calls what it gets after each one."""
    console = Console(stderr=True)
    if not show or not total:
        yield lambda: None
        return
    if not console.is_terminal:
        start = time.perf_counter()
        yield lambda: None
        console.print(f"{title}: {time.perf_counter() - start:.1f} s", highlight=False)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TimeRemainingColumn())  # fmt: skip
    # Few redraws: the bar's thread must not compete with the solver that is being timed.
    with Progress(*columns, console=console, refresh_per_second=2) as bar:
        task = bar.add_task(title, total=total)
        yield lambda: bar.advance(task)
