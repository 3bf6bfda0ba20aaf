"""Errors of the pruning loop.

::

    IcbsError
    ├── ModelError        a model that cannot be found, read or pruned
    ├── DataError         text or images that cannot be found, read or fed to the model
    ├── DownloadError     offline, hash mismatch, disk full
    ├── LayerError        a layer glob that matches nothing, a block larger than its layer
    ├── DensityError      a density or mask that cannot be
    ├── SettingError      (ValueError) any other setting that is unknown or out of range
    ├── MemoryLimitError  (MemoryError) a batch that does not fit into memory
    └── OutputError       a folder or file that cannot be written

Each message names the argument, its value and the remedy.
"""


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
    """A density or a mask that cannot be."""


class SettingError(IcbsError, ValueError):
    """A setting that is unknown or out of range."""


class MemoryLimitError(IcbsError, MemoryError):
    """A batch that does not fit into memory."""


class OutputError(IcbsError):
    """A folder or a file that cannot be written."""
