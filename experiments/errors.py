"""Errors of studies and stores.

::

    IcbsError
    └── ExperimentError
        ├── StudyError    a study that cannot be run as written
        ├── StoreError    a file that is no store, of another schema, empty or not writable
        ├── ReportError   figures or a page that cannot be made from a store
        └── FigureError   two figures of one name

Each message names the key, its value and the remedy. A solver that fails is not an error of the
study: it is a row of the store with status ``error``.
"""

from icbs.errors import IcbsError


class ExperimentError(IcbsError):
    """Root of every error that `experiments` raises on purpose."""


class StudyError(ExperimentError, ValueError):
    """A study that cannot be run as written."""


class StoreError(ExperimentError):
    """A store that cannot be opened, read or written."""


class ReportError(ExperimentError):
    """A report that cannot be made."""


class FigureError(ExperimentError, ValueError):
    """A figure whose name another one has."""
