"""Errors of the solvers.

::

    SolverError
    ├── ProblemError       (ValueError)   a problem that is not well formed
    ├── FormatError        (ValueError)   a file that is damaged, edited or of another kind
    ├── ParameterError     (TypeError)    an unknown or impossible solver parameter
    ├── SampleError        (ValueError)   samples of a sampler that do not fit its model
    ├── UnknownSolverError (LookupError)  a name the registry does not have
    ├── UnavailableError   (ImportError)  a solver whose package or credentials are missing
    ├── TaskError                         a task on a device that ended without a result
    └── NotSentError                      a service got nothing: the same call may be made again
        ├── CostError                     a price that is unknown, or a total above the cap
        ├── OfflineError   (UnavailableError)  a device or account that cannot be used now
        └── NotTakenError  (TaskError)    a task that the service refused

A problem with too many variables for a solver raises dimod's own
``BinaryQuadraticModelSizeError``.
"""

from __future__ import annotations

from typing import Any


class SolverError(Exception):
    """Root of every error that `solvers` raises on purpose."""


class ProblemError(SolverError, ValueError):
    """A problem whose arrays or cardinality do not make sense."""


class FormatError(SolverError, ValueError):
    """A file that is truncated, edited, of another schema or not a problem at all."""


class ParameterError(SolverError, TypeError):
    """A solver parameter that is unknown or out of range."""


class SampleError(SolverError, ValueError):
    """Samples that do not fit the model they are for: other variables, values or counts."""


class UnknownSolverError(SolverError, LookupError):
    """A solver name that is not in the registry."""


class UnavailableError(SolverError, ImportError):
    """A solver that needs a package or a configuration that is not there."""


class TaskError(SolverError):
    """A task on a device that was refused, failed, was cancelled or is not finished.

    Attributes:
        info: as a sample set's ``info``: ``quote``, ``cost``, the task's ARN and status, and
            ``pending``, True where the task may still be collected by the same call later.
    """

    def __init__(self, message: str, info: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.info = info or {}


class NotSentError(SolverError):
    """A service was asked for nothing, or took nothing: nothing is charged.

    The same call may be made again later, and a study that is resumed does so.
    """


class CostError(NotSentError):
    """A paid task whose price is unknown or would lift the total above its cap."""


class OfflineError(NotSentError, UnavailableError):
    """A device that takes no tasks now, or a region or account that cannot be reached."""


class NotTakenError(NotSentError, TaskError):
    """A task that the service refused."""
