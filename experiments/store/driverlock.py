"""One driver a store: two on the same file would run the same cells twice.

The lock is a file beside the store, held through the kernel: a driver that is killed frees it at
once, whatever it left behind. Reading needs no lock.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from experiments.errors import StoreError


class DriverLock:
    """The right to write a store.

    Args:
        store: the store's path; the lock is ``<name>.lock`` beside it.

    Raises:
        StoreError: another driver holds it, or the folder is missing or not writable.
    """

    def __init__(self, store: Path) -> None:
        self._path = store.with_name(f"{store.name}.lock")
        if not store.parent.is_dir():
            raise StoreError(f"store {store}: no such folder; make it, writable, first")
        # Not thread_local: whoever closes the store may be another thread than who opened it.
        self._lock = FileLock(self._path, thread_local=False)
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise StoreError(
                f"store {store} has another driver at work on it; wait until that ends (its cells "
                "are then left out), or give this one another file and merge them later with "
                "`icbs store merge`"
            ) from error
        except (OSError, NotImplementedError) as error:
            raise StoreError(
                f"store {store}: no lock file beside it ({error}); check that the folder is "
                "writable, has space and is on a file system with locks"
            ) from error

    def release(self) -> None:
        """Lets the next driver in; nothing is left beside the store."""
        # While it is held: once free, the name may be the next driver's.
        with suppress(OSError):
            self._path.unlink()
        self._lock.release()


def driver_at_work(store: Path) -> bool:
    """Whether a driver holds the store now; one that was killed does not."""
    path = store.with_name(f"{store.name}.lock")
    if not path.exists():
        return False
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        return False
    lock.release()
    return False
