"""Paid tasks, each at most once: reserve, create, wait, collect.

The order of events is what keeps money safe. (1) The request with its price is durable in the
journal, under the cap. (2) It is sent, under a client token that never changes. (3) The ARN is
durable before anyone waits. (4) The shots are durable before anyone sees them. A crash between any
two leaves a row from which the next call with the same key goes on without a new task.

A call with more shots than a task may have is sent as several, its *parts*, a row each. All of them
are reserved together or none is; the first row has the call's key and the number of parts, so that
a call that goes on later has the parts it began with, whatever the device takes by then.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from botocore.exceptions import BotoCoreError, ClientError
from braket.circuits import Circuit as BraketCircuit
from numpy.typing import NDArray

from solvers.base import Timing
from solvers.cloud.account import account
from solvers.cloud.devices import DEFAULT_TASK_SECONDS, Device, priced
from solvers.cloud.journal import Entry, Journal
from solvers.cloud.service import (
    Measured,
    RefusedError,
    Service,
    TaskState,
    UnknownOutcomeError,
)
from solvers.errors import (
    NotSentError,
    NotTakenError,
    ParameterError,
    SolverError,
    TaskError,
    UnavailableError,
)

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
        """Raises if a call could not be submitted, before anything is spent on preparing it.

        Raises:
            ParameterError: shots the device does not take.
            UnavailableError: the device is offline or cannot be reached (then an OfflineError),
                retired or too small.
            CostError: no price, or above the cap.
        """
        if not self.known(key):
            self._planned(qubits, shots)

    def _planned(self, qubits: int, shots: int) -> list[int]:
        # What cannot be had at any price is said before what it would cost.
        parts = self.service.limits().parts(self.device.name, shots, qubits)
        self.journal.check_cap(sum(map(self._price, parts)), self.max_cost)
        return parts

    def _price(self, shots: int) -> float:
        return self.device.price(shots, self.task_seconds)

    def submit(self, key: str, circuit: BraketCircuit, shots: int, note: Mapping[str, Any]) -> None:
        """Makes sure that the call's tasks exist, without waiting for them.

        Args:
            key: identity of the call, at most 64 characters.
            circuit: without measurements; every qubit is measured.
            shots: >= 1; beyond what a task may have they are split over several.
            note: JSON values to be handed back with the shots.

        Raises:
            NotSentError: above the cap, the device is offline, or the service refused the task.
            TaskError: the service's answer was lost, or it took some of the tasks only; `info` says
                that the call is pending.
        """
        if self.known(key):
            return
        parts = self._planned(circuit.qubit_count, shots)
        keys = _keys(key, len(parts))
        notes = [{**note, "parts": len(parts)}, *[{"call": key}] * (len(parts) - 1)]
        requests = [
            self.service.request(circuit, part, name)
            for part, name in zip(parts, keys, strict=True)
        ]
        with self.journal.transaction():
            if self.known(key):
                # Another process was faster: `collect` goes on from its rows.
                return
            for name, request, about in zip(keys, requests, notes, strict=True):
                self._reserve(name, request, about)
        for place, name in enumerate(keys):
            try:
                self._create(self._entry(name))
            except NotTakenError as error:
                for later in keys[place + 1 :]:
                    self.journal.refused(later, "not sent: a part before it was refused")
                raise self._unsent(key, name, error) from error

    def _reserve(self, key: str, request: Mapping[str, Any], note: Mapping[str, Any]) -> None:
        circuit = hashlib.sha256(request["action"].encode()).hexdigest()
        price = self._price(request["shots"])
        self.journal.reserve(
            key, request, circuit=circuit, note=note, price=price, cap=self.max_cost
        )

    def known(self, key: str) -> bool:
        """Whether the call has a task, or may have one."""
        return any(entry.status != "REFUSED" for entry in self._entries(key))

    def _entries(self, key: str) -> list[Entry]:
        """The rows of a call, in order; none if it was never reserved."""
        first = self.journal.get(key)
        if first is None:
            return []
        return [first, *map(self._entry, _keys(key, first.note.get("parts", 1))[1:])]

    def _unsent(self, key: str, part: str, error: NotSentError) -> SolverError:
        """What to raise for a part that was not sent: of a call with others it is not the end."""
        info = self._info(self._entry(part), pending=self.known(key))
        if not info["pending"]:
            if isinstance(error, TaskError):
                error.info = info
            return error
        keys = [entry.key for entry in self._entries(key)]
        return TaskError(
            f"part {keys.index(part) + 1} of {len(keys)} was not sent ({error}); the same call "
            "(--resume) sends it and pays for no other part again",
            info,
        )

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
        """Waits for the call's tasks and returns their shots.

        Of a call of several tasks, those that failed, or that a device which was retired or takes
        fewer shots by now never got, are missing; `info` has all of them.

        Args:
            key: identity of the call, known to the journal.
            timing: gets the seconds of ``queue`` and ``execute``.

        Raises:
            TaskError: every task failed or was cancelled, one could not be sent or read, or is not
                finished; `info` says whether the call is pending.
        """
        began = time.perf_counter()
        for entry in self._entries(key):
            try:
                self._found(entry)
            except NotSentError as error:
                raise self._unsent(key, entry.key, error) from error
            except (UnavailableError, ParameterError):
                # The device will never take this part: what was paid for is handed out without it.
                continue
        self._waited(self._entries(key))
        waited = time.perf_counter() - began
        entries = self._entries(key)
        measured = [entry for entry in entries if entry.rows is not None]
        if not measured:
            raise TaskError(
                f"task {entries[0].arn} on {self.device.name} {entries[0].status}: "
                f"{entries[0].reason or 'no reason given'}",
                self._info(entries[0]),
            )
        turnarounds = [entry.answer["turnaround_seconds"] for entry in measured]
        run = sum(
            min(entry.answer["run_seconds"] or 0.0, turnaround)
            for entry, turnaround in zip(measured, turnarounds, strict=True)
        )
        # Parts wait in the queue together.
        whole = max(waited, run, *turnarounds)
        timing["execute"] += run
        timing["queue"] += whole - run
        info = self._info(entries[0]) | {"earlier_seconds": whole - waited}
        rows = np.concatenate([entry.rows for entry in measured if entry.rows is not None])
        return Collected(rows, entries[0].note, info)

    def _found(self, entry: Entry) -> None:
        """Makes sure that the task of a row exists, if an earlier process left that open."""
        if entry.status == "RESERVED":
            # It died, or lost the answer, somewhere around the create call.
            arn = self._asked(entry, lambda: self.service.find(entry.request, entry.reserved))
            if arn is None:
                self._create(entry)
            else:
                self.journal.created(entry.key, arn)
        elif entry.status == "REFUSED":
            # Other parts of its call were taken.
            self.service.limits().check(self.device.name, entry.request["shots"])
            self._reserve(entry.key, entry.request, entry.note)
            self._create(self._entry(entry.key))

    def _entry(self, key: str) -> Entry:
        entry = self.journal.get(key)
        assert entry is not None
        return entry

    def _waited(self, entries: list[Entry]) -> None:
        """Polls until all tasks have ended, and makes the end of each durable."""
        deadline = time.monotonic() + self.poll_timeout
        states = {entry.key: TaskState("CREATED") for entry in entries if entry.status == "CREATED"}
        pause = self._pause() if states else 0.0
        running_since: dict[str, float] = {}
        while states:
            for entry in [entry for entry in entries if entry.key in states]:
                state = states[entry.key] = self._polled(entry, states[entry.key])
                if state.status in ("COMPLETED", "FAILED", "CANCELLED"):
                    stopped = running_since.get(entry.key) == math.inf
                    self._end(entry, state, pause, stopped=stopped)
                    del states[entry.key]
                elif state.status == "RUNNING" and not self.device.is_qpu:
                    now = time.monotonic()
                    if now - running_since.setdefault(entry.key, now) > self.task_seconds:
                        self._asked(entry, partial(self.service.cancel, str(entry.arn)))
                        running_since[entry.key] = math.inf
            if states and time.monotonic() > deadline:
                late = next(entry for entry in entries if entry.key in states)
                status = states[late.key].status
                raise TaskError(
                    f"task {late.arn} is still {status} after {self.poll_timeout:g} s; it "
                    "goes on by itself, and the same call (--resume) collects it",
                    self._info(late, pending=True, status=status),
                )
            if states:
                time.sleep(pause)

    def _end(self, entry: Entry, state: TaskState, pause: float, *, stopped: bool) -> None:
        """Makes the end of a task durable, with its shots if it has them."""
        if state.status != "COMPLETED":
            reason = state.reason
            if stopped:
                reason = f"it ran longer than task_seconds = {self.task_seconds:g} and was stopped"
            self.journal.failed(entry.key, state.status, reason)
            return
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
        """The account of the call that a row belongs to."""
        entries = self._entries(entry.note.get("call", entry.key))
        return account(
            entries,
            self.device,
            self.task_seconds,
            rehearsal=self.service.rehearsal,
            pending=pending,
            status=status,
        )


def _keys(key: str, count: int) -> list[str]:
    """The keys of a call's parts; the first is the call's."""
    return [key, *(call_key(key, place) for place in range(1, count))]


def call_key(*parts: Any) -> str:
    """SHA-256 (hex, 64 characters: the most a client token may have) of what makes up a call."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=repr).encode()).hexdigest()
