"""Progress of long work: a bar on a terminal, one line per stage anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

Update = Callable[[float], None]

# rich allows one live display at a time: a stage inside a stage prints a line instead.
_live = False


@contextmanager
def stage(title: str, total: float | None = None, *, show: bool = True) -> Iterator[Update]:
    """Shows one stage of work on stderr.

    Args:
        title: what is being done.
        total: amount of work in any unit; None shows only that it goes on.
        show: False keeps quiet.

    Yields:
        A function that takes the amount done so far.
    """
    global _live
    # The stderr of now, not of import, and not of whatever a callee redirects to.
    console = Console(file=sys.stderr)
    if not show:
        yield _ignore
    elif _live or not console.is_terminal:
        console.print(title, highlight=False, markup=False, soft_wrap=True)
        yield _ignore
    else:
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
        with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
            task = bar.add_task(title, total=total)
            _live = True
            try:
                yield lambda done: bar.update(task, completed=done)
            finally:
                _live = False


def say(text: str, *, show: bool = True) -> None:
    """One line on stderr that stays."""
    if show:
        # The stderr of now, as in `stage`.
        Console(file=sys.stderr).print(text, highlight=False, markup=False, soft_wrap=True)


def _ignore(done: float) -> None:
    del done
