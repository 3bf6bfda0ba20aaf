"""Errors of the solvers.

::

    SolverError
    ├── ProblemError       (ValueError)   a problem that is not well formed
    ├── FormatError        (ValueError)   a file that is damaged, edited or of another kind
    ├── ParameterError     (TypeError)    an unknown or impossible solver parameter
    ├── UnknownSolverError (LookupError)  a name the registry does not have
    └── UnavailableError   (ImportError)  a solver whose package or credentials are missing

A problem with too many variables for a solver raises dimod's own
``BinaryQuadraticModelSizeError``.
"""


class SolverError(Exception):
    """Root of every error that `solvers` raises on purpose."""


class ProblemError(SolverError, ValueError):
    """A problem whose arrays or cardinality do not make sense."""


class FormatError(SolverError, ValueError):
    """A file that is truncated, edited, of another schema or not a problem at all."""


class ParameterError(SolverError, TypeError):
    """A solver parameter that is unknown or out of range."""


class UnknownSolverError(SolverError, LookupError):
    """A solver name that is not in the registry."""


class UnavailableError(SolverError, ImportError):
    """A solver that needs a package or a configuration that is not there."""
