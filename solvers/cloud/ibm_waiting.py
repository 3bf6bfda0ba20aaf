"""Waiting for jobs at IBM: their states, and their shots and seconds into the journal."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qiskit_ibm_runtime.exceptions import RuntimeJobNotFound

from solvers.cloud.ibm_backends import FAILURES, said, took_nothing
from solvers.cloud.journal import Entry
from solvers.cloud.quantum_time import DEVICE, SecondsJournal
from solvers.errors import OfflineError, TaskError
from solvers.qaoa.qiskit import measured

# Seconds between two questions after a job.
POLL, LOCAL_POLL = 2.0, 0.01
FINAL = ("DONE", "ERROR", "CANCELLED")


class Waiting:
    """Asks for jobs, and makes the end of each durable.

    Args:
        journal: with their rows.
        poll_timeout: seconds to wait for a job; the job itself goes on.
        rehearsal: whether they run on this machine.
    """

    def __init__(self, journal: SecondsJournal, poll_timeout: float, *, rehearsal: bool) -> None:
        self._journal, self._poll_timeout, self._local = journal, poll_timeout, rehearsal

    def told(self, entry: Entry, *, pending: bool = False, status: str = "") -> dict[str, Any]:
        """For a sample set's ``info``: the seconds of a call and the state of its job."""
        seconds = entry.answer.get("seconds")
        if status == "REFUSED":
            seconds = 0.0
        return {
            "device": name_of(entry),
            "task": entry.arn,
            "task_status": status or entry.status,
            "mode": entry.request["mode"],
            "service_seconds_quote": entry.request["seconds"],
            "service_seconds": seconds,
            "service_seconds_used": self._journal.spent(),
            "rehearsal": self._local,
            "pending": pending,
        }

    def asked(self, entry: Entry, question: Callable[[], Any]) -> Any:
        """An answer of the service, whose failure is one of the job.

        Raises:
            TaskError: the service cannot be asked.
            RuntimeJobNotFound: a local job of another process.
        """
        try:
            return question()
        except (*FAILURES, OfflineError) as error:
            if isinstance(error, RuntimeJobNotFound) and self._local:
                raise
            raise TaskError(
                f"IBM cannot be asked about job {entry.arn or '(no id yet)'} of "
                f"{entry.reserved:%F %T} on {name_of(entry)}: {said(error)}; nothing new was sent, "
                "and the same call asks again",
                self.told(entry, pending=True),
            ) from error

    def until_ended(self, entry: Entry, job: Any) -> None:
        """Returns when a job has ended, its end durable.

        Raises:
            TaskError: it cannot be asked for or read, or is not finished in time.
        """
        deadline = time.monotonic() + self._poll_timeout
        status = str(entry.status)
        while (status := self._polled(entry, job, status)) not in FINAL:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TaskError(
                    f"job {entry.arn} on {name_of(entry)} is still {status} after poll_timeout = "
                    f"{self._poll_timeout:g} s; it goes on by itself, and the same call "
                    "(--resume) collects it",
                    self.told(entry, pending=True, status=status),
                )
            time.sleep(min(left, LOCAL_POLL if self._local else POLL))
        metrics = self.asked(entry, job.metrics)
        seconds = self._charged(entry, metrics)
        if status != "DONE":
            reason = self._reason(entry, job)
            with self._journal.transaction():
                self._journal.failed(entry.key, {"ERROR": "FAILED"}.get(status, status), reason)
                self._journal.charge(entry.key, seconds)
            return
        rows = self._read(entry, job)
        self._journal.completed(
            entry.key, rows, {**_times(metrics), "seconds": seconds},
            entry.price if seconds is None else seconds,
        )  # fmt: skip

    def _polled(self, entry: Entry, job: Any, last: str) -> str:
        """The job's status; trouble that may pass leaves it as it was."""
        try:
            status = job.status()
        except FAILURES as error:
            if took_nothing(error):
                raise TaskError(
                    f"job {entry.arn} on {name_of(entry)} cannot be asked for: {said(error)}",
                    self.told(entry, pending=True),
                ) from error
            return last
        # A local job says it as a member of an enumeration.
        return str(getattr(status, "name", status))

    def _read(self, entry: Entry, job: Any) -> NDArray[np.int8]:
        """The shots of a job that is done; of twirled ones there may be a few more than wanted.

        Raises:
            TaskError: there are none to be read, or too few.
        """
        result = self.asked(entry, job.result)
        rows = np.empty((0, 0), np.int8) if result is None else measured(result[0].data.meas)
        shots = entry.request["shots"]
        if len(rows) < shots:
            raise TaskError(
                f"job {entry.arn} on {name_of(entry)} is DONE but has {len(rows)} shots to be read "
                f"instead of {shots}; the same call (--resume) asks again",
                self.told(entry, pending=True),
            )
        return rows[:shots]

    def _reason(self, entry: Entry, job: Any) -> str:
        """Why a job has no shots, in one line."""
        if not self._local:
            return " ".join((self.asked(entry, job.error_message) or "").split())
        try:
            job.result()
        except Exception as error:  # whatever the simulator raises
            return said(error)
        return ""

    def _charged(self, entry: Entry, metrics: Mapping[str, Any]) -> float | None:
        """Seconds of quantum time of a job that has ended; None while IBM does not say.

        A session is charged from its first job to its last, which the usage of a job does not
        tell; its jobs keep what is reserved for them.
        """
        if self._local:
            return 0.0
        usage = metrics.get("usage") or {}
        if usage.get("status") == "pending" or entry.request["mode"] == "session":
            return None
        seconds = usage.get("qpu_charge_time_seconds", usage.get("quantum_seconds"))
        return None if seconds is None else float(seconds)


def name_of(entry: Entry) -> str:
    """The backend of a row."""
    return entry.device.removeprefix(DEVICE)


def _times(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """Seconds from a job's creation to its end, and those it ran (None: not known)."""
    stamps = metrics.get("timestamps") or {}

    def between(first: str, last: str) -> float | None:
        if not (stamps.get(first) and stamps.get(last)):
            return None
        began, ended = (datetime.fromisoformat(str(stamps[name])) for name in (first, last))
        return max(0.0, (ended - began).total_seconds())

    return {
        "turnaround_seconds": between("created", "finished") or 0.0,
        "run_seconds": between("running", "finished"),
    }
