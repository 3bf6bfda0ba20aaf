"""Seconds of quantum time as the price of a job: the journal, and what is reserved for a job.

IBM charges the seconds for which a processor is locked for a job, not a price for a task. The
journal is that of `solvers.cloud.journal`, with seconds in the column of prices: one cap, in one
unit, in one file.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import platformdirs
from qiskit import QuantumCircuit
from qiskit.exceptions import QiskitError

from solvers.cloud.journal import ROUND_OFF, Journal
from solvers.errors import CostError

DEVICE = "ibm:"
"""How the name of a backend begins in the journal's column of devices."""

# Seconds that a job is reserved for beside its shots, and at least in all.
OVERHEAD, LEAST = 5.0, 10
# What a shot may take longer than reckoned.
SAFETY = 2.0
# Seconds between two shots, and of a circuit, where the backend does not say.
REPETITION_DELAY, CIRCUIT_DURATION = 250e-6, 100e-6
# Shots of one random draw of a twirled circuit, at least; and the most draws. IBM's defaults.
TWIRLED_SHOTS, TWIRLED_DRAWS = 64, 32


def default_path() -> Path:
    """The journal of this user's jobs at IBM on this machine."""
    return platformdirs.user_data_path("icbs-bench") / "ibm-journal.sqlite"


class SecondsJournal(Journal):
    """A journal whose prices are seconds of quantum time.

    Args:
        path: SQLite file, made if missing; ``":memory:"`` for one that is forgotten.

    Raises:
        FormatError: the file counts in USD, is no journal or cannot be written.
    """

    # The letters IBMs.
    unit: ClassVar[int] = 0x49424D73

    def check_cap(self, price: float, cap: float) -> None:
        """Raises CostError if so many seconds more would lift the total above the cap."""
        spent = self.spent()
        if spent + price > cap + ROUND_OFF:
            raise CostError(
                f"{price:g} s of quantum time more after {spent:g} s in journal {self.path} would "
                f"exceed max_quantum_time = {cap:g} s: nothing was sent; raise max_quantum_time, "
                "lower the reads, or start another journal"
            )

    def charge(self, key: str, seconds: float | None) -> None:
        """Puts what IBM charged for a job in the place of what was reserved; None leaves it."""
        if seconds is not None:
            self._update("price = ?", seconds, key)


def executions(shots: int, *, twirling: bool) -> int:
    """Shots that are run for as many that are wanted.

    A twirled circuit is drawn anew for every 64 shots, or every 32nd part of them if that is more;
    the last draw has as many shots as the others.
    """
    if not twirling:
        return shots
    each = max(TWIRLED_SHOTS, math.ceil(shots / TWIRLED_DRAWS))
    return each * math.ceil(shots / each)


def duration(circuit: QuantumCircuit, backend: Any) -> float:
    """Seconds from the first gate of a transpiled circuit to the end of its measurements."""
    try:
        seconds = float(circuit.estimate_duration(backend.target))
    except (QiskitError, AttributeError):
        # The target has no durations, as that of a simulator.
        return CIRCUIT_DURATION
    return seconds if math.isfinite(seconds) else CIRCUIT_DURATION


def reserved(circuit: QuantumCircuit, backend: Any, shots: int) -> int:
    """Seconds of quantum time that a job may use: its reservation, and its limit at the service.

    ``max(10, ceil(5 + 2 shots (repetition delay + duration of the circuit)))``, with the delay and
    the durations of the backend. The 5 s are for what the service does around the shots. It is an
    estimate that is meant to be high; a job that would use more is stopped by the service.

    Args:
        circuit: transpiled for the backend.
        backend: with a target.
        shots: that are run, see `executions`.
    """
    delay = getattr(backend, "default_rep_delay", None) or REPETITION_DELAY
    return max(LEAST, math.ceil(OVERHEAD + SAFETY * shots * (delay + duration(circuit, backend))))
