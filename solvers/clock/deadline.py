"""When a call must end: at a time, or at once when it is stopped."""

from __future__ import annotations

import time

import numpy as np


class Deadline:
    """A moment that searches look at every few milliseconds.

    Args:
        seconds: from now; None for never.
        parent: ends this one too when it is over.

    Attributes:
        at: `time.perf_counter` value; inf for never.
    """

    def __init__(self, seconds: float | None = None, parent: Deadline | None = None) -> None:
        self.at = np.inf if seconds is None else time.perf_counter() + seconds
        self._parent = parent

    @property
    def over(self) -> bool:
        """Whether the time has come; any thread may ask."""
        if self._parent is not None and self._parent.over:
            return True
        return time.perf_counter() >= self.at

    @property
    def left(self) -> float:
        """Seconds left; negative when over, inf without a limit."""
        own = self.at - time.perf_counter()
        return own if self._parent is None else min(own, self._parent.left)

    @property
    def limited(self) -> bool:
        """Whether it ever comes by itself."""
        return self.left < np.inf

    def share(self, part: float) -> Deadline:
        """A deadline at a part of the time left, 0 < part <= 1; it ends with this one."""
        left = self.left
        return Deadline(None if left == np.inf else part * left, self)

    def stop(self) -> None:
        """Ends it now, for every thread that looks at it."""
        self.at = -np.inf


class _Never(Deadline):
    def stop(self) -> None:
        raise RuntimeError("NEVER is shared by all calls and cannot be stopped: make a Deadline()")


NEVER: Deadline = _Never()
"""No limit, and it cannot be stopped: the default of functions that take a deadline."""
