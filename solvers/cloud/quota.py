"""Seconds of D-Wave's service: the cap on them, and the connection that uses them up.

D-Wave sells seconds of service, not tasks, so the cap is `max_service_time`: QPU access time, or a
hybrid solver's run time, that all calls of one solver object may use together. It does not outlive
the object: a study that is resumed starts a new one.

Credentials come from the SDK's own chain (`dwave config create`, or the variable DWAVE_API_TOKEN).
"""

from __future__ import annotations

import math
from typing import Any

from solvers.errors import CostError, OfflineError, ParameterError

SETUP = "run 'dwave config create' or set DWAVE_API_TOKEN; rehearse=True works without"


class Cap:
    """Seconds of service that may be used in all.

    Args:
        seconds: the cap; None lets nothing through.
        name: of the solver.

    Attributes:
        used: seconds charged, and reserved for what is out.
    """

    def __init__(self, seconds: float | None, name: str) -> None:
        if seconds is not None and not 0 < seconds < math.inf:
            raise ParameterError(f"max_service_time is {seconds!r}, expected seconds above 0")
        self.seconds, self.name = seconds, name
        self.used = 0.0

    def check(self) -> None:
        """Raises CostError without a cap."""
        if self.seconds is None:
            raise CostError(
                f"{self.name} has no max_service_time: pass the seconds of service that it may use "
                "in all"
            )

    def reserve(self, seconds: float) -> None:
        """Takes what a call may use; CostError if that is more than is left."""
        self.check()
        assert self.seconds is not None
        if self.used + seconds > self.seconds:
            raise CostError(
                f"{self.name} would use {seconds:.4g} s of service, with {self.used:.4g} s of "
                f"max_service_time={self.seconds:g} already used; raise it or make fewer reads"
            )
        self.used += seconds

    def settle(self, reserved: float, charged: float) -> None:
        """Puts what was charged in the place of what was reserved."""
        self.used += charged - reserved


def connected(service: type, name: str, **config: Any) -> Any:
    """A client of the SDK, made.

    Args:
        service: its class.
        name: of our solver, for the message.
        **config: keywords of the class.

    Raises:
        OfflineError: no credentials, no network, or no such solver.
    """
    try:
        return service(**config)
    except Exception as error:  # the SDK has no common root: ValueError, SAPI and network errors
        raise OfflineError(f"solver {name!r}: no connection to D-Wave ({error}); {SETUP}") from (
            error
        )
