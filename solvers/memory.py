"""Whether what is about to be allocated fits into the memory that is free."""

from __future__ import annotations

from pathlib import Path

import dimod

# Less than this is not worth the question.
SMALL = 2**28
_GROUP = Path("/sys/fs/cgroup")


def available() -> int | None:
    """Bytes that this process could still get (Linux, control groups too); None if unknown."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                free = 1024 * int(line.split()[1])
                break
        else:
            return None
    except (OSError, ValueError, IndexError):
        return None
    try:
        most, used = (
            int((_GROUP / name).read_text(encoding="ascii"))
            for name in ("memory.max", "memory.current")
        )
        parts = dict(map(str.split, (_GROUP / "memory.stat").read_text("ascii").splitlines()))
        cached = int(parts["inactive_file"])
    except (OSError, ValueError, KeyError):  # no group, or one without a limit ("max")
        return free
    # Cached files count as used, and give way.
    return min(free, max(0, most - used + cached))


def check_room(size: int, what: str, remedy: str) -> None:
    """Refuses what would not fit.

    Args:
        size: bytes.
        what: needs them; starts the sentence.
        remedy: ends it.

    Raises:
        BinaryQuadraticModelSizeError: more than is available.
    """
    if size < SMALL:
        return
    free = available()
    if free is not None and size > free:
        raise dimod.exceptions.BinaryQuadraticModelSizeError(
            f"{what} needs {size / 1e9:.3g} GB, {free / 1e9:.3g} GB are available: {remedy}"
        )
