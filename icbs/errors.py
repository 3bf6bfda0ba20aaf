"""Errors of the pruning loop.

::

    IcbsError
    ├── ModelError        a model that cannot be found, read or pruned
    ├── DataError         text or images that cannot be found, read or fed to the model
    ├── DownloadError     offline, hash mismatch, disk full
    ├── LayerError        a layer glob that matches nothing, a block larger than its layer
    ├── DensityError      a density or mask out of range
    ├── SettingError      (ValueError) any other setting that is unknown or out of range
    ├── MemoryLimitError  (MemoryError) a batch that does not fit into memory
    ├── CheckpointError   a checkpoint that is damaged or of another run
    └── OutputError       a folder or file that cannot be written

Each message names the argument, its value and the remedy.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

# How torch's CPU and CUDA allocators begin their complaints; the CPU's has no type of its own.
_NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")


class IcbsError(Exception):
    """Root of every error that `icbs` raises on purpose."""


class ModelError(IcbsError):
    """A model that cannot be found, read or pruned."""


class DataError(IcbsError):
    """Calibration or evaluation data that cannot be found, read or cut."""


class DownloadError(IcbsError):
    """A fetch that failed: offline, hash mismatch, disk full."""


class LayerError(IcbsError):
    """A layer glob that matches nothing, or a block that does not fit its layer."""


class DensityError(IcbsError):
    """A density, a pattern or a mask that is out of range or does not fit."""


class SettingError(IcbsError, ValueError):
    """A setting that is unknown or out of range."""


class MemoryLimitError(IcbsError, MemoryError):
    """A batch that does not fit into memory."""


class CheckpointError(IcbsError):
    """A checkpoint that is damaged, or of another model, run or schema."""


class OutputError(IcbsError):
    """A folder or a file that cannot be written."""


def nearest(word: str, known: Iterable[str]) -> str:
    """``did you mean ...?``, or all that is known where nothing is near."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(known)}"


@contextmanager
def memory_remedy(what: str, remedy: str) -> Iterator[None]:
    """Says what to lower where torch only says that there is no memory left.

    Args:
        what: what does not fit.
        remedy: what to lower.

    Raises:
        MemoryLimitError: in place of torch's own errors.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        told = any(words in str(error) for words in _NO_MEMORY)
        if isinstance(error, IcbsError) or not (told or isinstance(error, MemoryError)):
            raise
        raise MemoryLimitError(f"out of memory with {what}: {remedy}") from error
