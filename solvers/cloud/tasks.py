"""Paid tasks, each at most once: reserve, create, wait, collect.

The order of events is what keeps money safe. (1) The request with its price is durable in the
journal, under the cap. (2) It is sent, under a client token that never changes. (3) The ARN is
durable before anyone waits. (4) The shots are durable before anyone sees them. A crash between any
two leaves a row from which the next call with the same key goes on without a new task.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from botocore.exceptions import BotoCoreError, ClientError
from braket.circuits import Circuit as BraketCircuit
from numpy.typing import NDArray

from solvers.base import Timing
from solvers.cloud.devices import DEFAULT_TASK_SECONDS, Device, priced
from solvers.cloud.journal import Entry, Journal
from solvers.cloud.service import (
    Measured,
    RefusedError,
    Service,
    TaskState,
    UnknownOutcomeError,
)
from solvers.errors import NotTakenError, TaskError, UnavailableError

DEFAULT_POLL_TIMEOUT = 24 * 3600.0
# How often a missing or unreadable result of a finished task is asked for again.
RESULT_ATTEMPTS = 3
_TRANSIENT = {"InternalServiceException", "ThrottlingException", "InternalServerException"}


@dataclass(frozen=True)
class Collected:
    """A finished task.

    Attributes:
        rows: shape (shots, n), column i is qubit i.
        note: what its submitter wrote down.
        info: for a sample set's ``info``.
    """

    rows: NDArray[np.int8]
    note: dict[str, Any]
    info: dict[str, Any]


class PaidTasks:
    """Tasks on one device under one cap.

    Args:
        device: where they run; its prices are looked up again where the price list is reachable.
        service: how to reach it.
        journal: what was asked for so far.
        max_cost: USD that all tasks in the journal may cost together.
        task_seconds: run time on a simulator that is reserved for a task, and after which it is
            cancelled; QPUs charge no time.
        poll_timeout: seconds to wait for a task; the task itself goes on.
    """

    def __init__(
        self,
        device: Device,
        service: Service,
        journal: Journal,
        *,
        max_cost: float,
        task_seconds: float = DEFAULT_TASK_SECONDS,
        poll_timeout: float = DEFAULT_POLL_TIMEOUT,
    ) -> None:
        self.device = device if service.rehearsal else priced(device)
        self.service = service
        self.journal = journal
        self.max_cost = max_cost
        self.task_seconds = task_seconds
        self.poll_timeout = poll_timeout

    def check(self, key: str, qubits: int, shots: int) -> None:
        """Raises if a task could not be submitted, before anything is spent on preparing it.

        Raises:
            ParameterError: shots the device does not take.
            UnavailableError: the device is offline or cannot be reached (then an OfflineError),
                retired or too small.
            CostError: no price, or above the cap.
        """
        known = self.journal.get(key)
        if known is not None and known.status != "REFUSED":
            return
        # What cannot be had at any price is said before what it would cost.
        self.service.limits().check(self.device.name, shots, qubits)
        price = self.device.price(shots, self.task_seconds)
        self.journal.check_cap(price, self.max_cost)

    def submit(self, key: str, circuit: BraketCircuit, shots: int, note: Mapping[str, Any]) -> None:
        """Makes sure that the call's task exists, without waiting for it.

        Args:
            key: identity of the call, at most 64 characters.
            circuit: without measurements; every qubit is measured.
            shots: >= 1.
            note: JSON values to be handed back with the shots.

        Raises:
            NotSentError: above the cap, the device is offline, or the service refused the task.
            TaskError: the service's answer was lost; `info` says that it is pending.
        """
        entry = self.journal.get(key)
        if entry is None or entry.status == "REFUSED":
            self.check(key, circuit.qubit_count, shots)
            request = self.service.request(circuit, shots, key)
            entry = self.journal.reserve(
                key,
                request,
                circuit=hashlib.sha256(request["action"].encode()).hexdigest(),
                note=note,
                price=self.device.price(shots, self.task_seconds),
                cap=self.max_cost,
            )
            self._create(entry)

    def known(self, key: str) -> bool:
        """Whether the call has a task, or may have one."""
        entry = self.journal.get(key)
        return entry is not None and entry.status != "REFUSED"

    def _create(self, entry: Entry) -> None:
        try:
            arn = self.service.create(entry.request)
        except RefusedError as error:
            self.journal.refused(entry.key, str(error))
            raise NotTakenError(
                f"{self.device.name} did not take the task, nothing is charged: {error}",
                self._info(entry, status="REFUSED"),
            ) from error
        except UnknownOutcomeError as error:
            raise TaskError(
                f"whether {self.device.name} took the task is unknown ({error}); the same call "
                "finds out and never pays twice",
                self._info(entry, pending=True),
            ) from error
        self.journal.created(entry.key, arn)

    def collect(self, key: str, timing: Timing) -> Collected:
        """Waits for the call's task and returns its shots.

        Args:
            key: identity of the call, known to the journal.
            timing: gets the seconds of ``queue`` and ``execute``.

        Raises:
            TaskError: the task failed, was cancelled or could not be read; `info` says whether it
                is pending.
        """
        began = time.perf_counter()
        entry = self._entry(key)
        if entry.status == "RESERVED":
            # An earlier process died, or lost the answer, somewhere around the create call.
            arn = self._asked(entry, lambda: self.service.find(entry.request, entry.reserved))
            if arn is None:
                self._create(entry)
            else:
                self.journal.created(key, arn)
            entry = self._entry(key)
        if entry.status == "CREATED":
            entry = self._waited(entry)
        waited = time.perf_counter() - began
        if entry.rows is None:
            raise TaskError(
                f"task {entry.arn} on {self.device.name} {entry.status}: "
                f"{entry.reason or 'no reason given'}",
                self._info(entry),
            )
        run = min(entry.answer["run_seconds"] or 0.0, entry.answer["turnaround_seconds"])
        queue = max(waited, entry.answer["turnaround_seconds"]) - run
        timing["execute"] += run
        timing["queue"] += queue
        info = self._info(entry) | {"earlier_seconds": run + queue - waited}
        return Collected(entry.rows, entry.note, info)

    def _entry(self, key: str) -> Entry:
        entry = self.journal.get(key)
        assert entry is not None
        return entry

    def _waited(self, entry: Entry) -> Entry:
        """Polls until the task has ended, and makes its end durable."""
        assert entry.arn is not None
        deadline = time.monotonic() + self.poll_timeout
        pause = self._pause()
        running_since: float | None = None
        state = TaskState("CREATED")
        while True:
            state = self._polled(entry, state)
            if state.status in ("COMPLETED", "FAILED", "CANCELLED"):
                break
            now = time.monotonic()
            if state.status == "RUNNING" and not self.device.is_qpu:
                running_since = running_since or now
                if now - running_since > self.task_seconds:
                    self._asked(entry, lambda: self.service.cancel(str(entry.arn)))
                    running_since = math.inf
            if now > deadline:
                raise TaskError(
                    f"task {entry.arn} is still {state.status} after {self.poll_timeout:g} s; it "
                    "goes on by itself, and the same call (--resume) collects it",
                    self._info(entry, pending=True, status=state.status),
                )
            time.sleep(pause)
        if state.status != "COMPLETED":
            reason = state.reason
            if running_since == math.inf:
                reason = f"it ran longer than task_seconds = {self.task_seconds:g} and was stopped"
            self.journal.failed(entry.key, state.status, reason)
            return self._entry(entry.key)
        measured = self._read(entry, pause)
        turnaround = 0.0
        if state.created is not None and state.ended is not None:
            turnaround = max(0.0, (state.ended - state.created).total_seconds())
        answer = {
            "run_seconds": measured.seconds,
            "turnaround_seconds": turnaround,
            "cost": measured.cost,
        }
        price = entry.price
        if not self.device.is_qpu and measured.seconds is not None:
            # Never more than was reserved for, unless the service ran on after the cancel.
            price = self.device.price(entry.request["shots"], measured.seconds)
        self.journal.completed(entry.key, measured.rows, answer, price)
        return self._entry(entry.key)

    def _pause(self) -> float:
        """Seconds between two polls; a task can be asked for where its device cannot."""
        try:
            limits = self.service.limits()
        except UnavailableError:
            limits = self.device.limits
        return max(limits.poll_seconds, 0.01)

    def _polled(self, entry: Entry, last: TaskState) -> TaskState:
        """The task's state; trouble that may pass leaves it as it was."""
        try:
            return self.service.state(str(entry.arn))
        except ClientError as error:
            if error.response["Error"]["Code"] not in _TRANSIENT:
                raise TaskError(
                    f"task {entry.arn} cannot be asked for: {error}",
                    self._info(entry, pending=True),
                ) from error
        except BotoCoreError:
            pass
        return last

    def _read(self, entry: Entry, pause: float) -> Measured:
        """The result file, asked for again where it is late or cut off."""
        trouble: Exception | None = None
        for _ in range(RESULT_ATTEMPTS):
            try:
                measured = self.service.result(str(entry.arn), entry.request["shots"])
            except (ClientError, BotoCoreError, ValueError, AttributeError) as error:
                trouble = error
                time.sleep(pause)
                continue
            if len(measured.rows) == entry.request["shots"]:
                return measured
            trouble = ValueError(f"{len(measured.rows)} shots instead of {entry.request['shots']}")
        raise TaskError(
            f"task {entry.arn} is COMPLETED but its result cannot be read: {trouble}",
            self._info(entry, pending=True, status="COMPLETED"),
        ) from trouble

    def _asked(self, entry: Entry, call: Any) -> Any:
        try:
            return call()
        except (ClientError, BotoCoreError) as error:
            raise TaskError(
                f"{self.device.name} cannot be asked about the task of {entry.reserved:%F %T}: "
                f"{error}; nothing new was submitted",
                self._info(entry, pending=True),
            ) from error

    def _info(self, entry: Entry, *, pending: bool = False, status: str = "") -> dict[str, Any]:
        status = status or entry.status
        charged = None
        if status == "REFUSED" or self.service.rehearsal:
            charged = 0.0
        elif entry.rows is not None:
            charged = entry.price
        # A device's price may be unknown by the time its task is collected.
        quote = None
        if self.device.source:
            quote = self.device.price(entry.request["shots"], self.task_seconds)
        return {
            "quote": quote,
            "cost": entry.answer.get("cost"),
            # Whether a task that ended without its shots is charged, only the bill tells.
            "charged": charged,
            "reserved": 0.0 if status == "REFUSED" else entry.price,
            "price_source": self.device.source,
            "task": entry.arn,
            "task_status": status,
            "device": self.device.arn,
            "rehearsal": self.service.rehearsal,
            "pending": pending,
        }


def call_key(*parts: Any) -> str:
    """SHA-256 (hex, 64 characters: the most a client token may have) of what makes up a call."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=repr).encode()).hexdigest()
