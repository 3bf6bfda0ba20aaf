"""Paid tasks, each at most once: reserve, create, wait, collect.

The order of events is what keeps money safe. (1) The request with its price is durable in the
journal, under the cap. (2) It is sent, under a client token that never changes. (3) The ARN is
durable before anyone waits. (4) The shots are durable before anyone sees them. A crash between any
two leaves a row from which the next call with the same key goes on without a new task.

A call with more shots than a task may have is sent as several, its *parts*, a row each. All of them
are reserved together or none is; the first row has the call's key and the number of parts, so that
a call that goes on later has the parts it began with, whatever the device takes by then.

Several calls that are there together share a *program set* where the device takes it: one task and
one fee for all their circuits.
"""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from braket.circuits import Circuit as BraketCircuit

from solvers.base import Timing
from solvers.cloud.account import Account, call_key, part_keys
from solvers.cloud.devices import DEFAULT_TASK_SECONDS, Device, priced
from solvers.cloud.journal import ROUND_OFF, Entry, Journal
from solvers.cloud.sent import Collected
from solvers.cloud.service import RefusedError, Service, UnknownOutcomeError, action
from solvers.cloud.waiting import Waiting
from solvers.errors import (
    NotSentError,
    NotTakenError,
    ParameterError,
    SolverError,
    TaskError,
    UnavailableError,
)

DEFAULT_POLL_TIMEOUT = 24 * 3600.0


@dataclass(frozen=True)
class Order:
    """The circuit of a call.

    Attributes:
        key: identity of the call, at most 64 characters.
        circuit: without measurements; every qubit is measured.
        shots: >= 1.
        note: JSON values to be handed back with the shots.
    """

    key: str
    circuit: BraketCircuit
    shots: int
    note: Mapping[str, Any]


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
        self._account = Account(journal, self.device, task_seconds, rehearsal=service.rehearsal)
        self._waiting = Waiting(
            service, self._account, self.device, task_seconds=task_seconds,
            poll_timeout=poll_timeout,
        )  # fmt: skip

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

    def known(self, key: str) -> bool:
        """Whether the call has a task, or may have one."""
        return self._account.known(key)

    def declined(self, key: str) -> None:
        """Tells a call once that its program set was refused; then it is as if never made.

        Raises:
            NotTakenError: it was.
        """
        entry = self.journal.get(key)
        if entry is not None and entry.status == "REFUSED" and entry.task is not None:
            self.journal.parted(key)
            raise NotTakenError(
                f"{self.device.name} did not take the program set, nothing is charged: "
                f"{entry.reason}; the same call (--resume) tries again, and with the option "
                "program_sets = false it sends its circuit as a task of its own",
                self._account.info(entry, status="REFUSED"),
            )

    def _planned(self, qubits: int, shots: int) -> list[int]:
        # What cannot be had at any price is said before what it would cost.
        parts = self.service.limits().parts(self.device.name, shots, qubits)
        self.journal.check_cap(sum(map(self._account.price, parts)), self.max_cost)
        return parts

    def submit_together(self, orders: Sequence[Order]) -> None:
        """Sends many calls, in program sets where the device takes them, without waiting.

        What cannot be sent is left out: its call fails the same way when it is made.

        Args:
            orders: of calls; those whose tasks exist are passed over.
        """
        by_shots: dict[int, list[Order]] = defaultdict(list)
        for order in orders:
            if not self.known(order.key):
                by_shots[order.shots].append(order)
        for shots, alike in by_shots.items():
            with suppress(SolverError):
                for size in self.service.limits().sets(len(alike), shots):
                    sent, alike = alike[:size], alike[size:]
                    with suppress(SolverError):
                        if size == 1:
                            self.submit(sent[0])
                        else:
                            self._submit_set(sent)

    def _submit_set(self, orders: list[Order]) -> None:
        """One task for as many of the orders as the cap allows; none if they are not two."""
        shots = orders[0].shots
        qubits = max(order.circuit.qubit_count for order in orders)
        self.service.limits().check(self.device.name, shots, qubits)
        left = self.max_cost - self.journal.spent() + ROUND_OFF
        while len(orders) > 1 and self._account.price(shots, len(orders)) * len(orders) > left:
            orders = orders[:-1]
        if len(orders) < 2:
            return
        circuits, keys = [order.circuit for order in orders], [order.key for order in orders]
        key = call_key("program set", keys)
        request = self.service.request(circuits, shots, key)
        with self.journal.transaction():
            if any(map(self.known, keys)):
                # Another process was faster.
                return
            self._reserve(key, request, {"calls": keys}, 0.0)
            price = self._account.price(shots, len(orders))
            for place, order in enumerate(orders):
                note = {**order.note, "executables": len(orders), "place": place}
                own = {"deviceArn": self.device.arn, "shots": shots,
                       "action": action([order.circuit])}  # fmt: skip
                self._reserve(order.key, own, note, price, task=key)
        self._create(self._account.entry(key))

    def submit(self, order: Order) -> None:
        """Makes sure that the call's tasks exist, without waiting for them.

        Args:
            order: of the call; shots beyond what a task may have are split over several.

        Raises:
            NotSentError: above the cap, the device is offline, or the service refused the task.
            TaskError: the service's answer was lost, or it took some of the tasks only; `info` says
                that the call is pending.
        """
        key = order.key
        if self.known(key):
            return
        parts = self._planned(order.circuit.qubit_count, order.shots)
        keys = part_keys(key, len(parts))
        notes = [{**order.note, "parts": len(parts)}, *[{"call": key}] * (len(parts) - 1)]
        requests = [
            self.service.request([order.circuit], part, name)
            for part, name in zip(parts, keys, strict=True)
        ]
        with self.journal.transaction():
            if self.known(key):
                # Another process was faster: `collect` goes on from its rows.
                return
            for name, request, about in zip(keys, requests, notes, strict=True):
                self._reserve(name, request, about, self._account.price(request["shots"]))
        for place, name in enumerate(keys):
            try:
                self._create(self._account.entry(name))
            except NotTakenError as error:
                for later in keys[place + 1 :]:
                    self.journal.refused(later, "not sent: a part before it was refused")
                raise self._unsent(key, name, error) from error

    def _reserve(
        self,
        key: str,
        request: Mapping[str, Any],
        note: Mapping[str, Any],
        price: float,
        task: str | None = None,
    ) -> None:
        circuit = hashlib.sha256(request["action"].encode()).hexdigest()
        self.journal.reserve(
            key, request, circuit=circuit, note=note, price=price, cap=self.max_cost, task=task
        )

    def _unsent(self, key: str, part: str, error: NotSentError) -> SolverError:
        """What to raise for a part that was not sent: of a call with others it is not the end."""
        info = self._account.info(self._account.entry(part), pending=self.known(key))
        if not info["pending"]:
            if isinstance(error, TaskError):
                error.info = info
            return error
        keys = [entry.key for entry in self._account.entries(key)]
        return TaskError(
            f"part {keys.index(part) + 1} of {len(keys)} was not sent ({error}); the same call "
            "(--resume) sends it and pays for no other part again",
            info,
        )

    def _create(self, task: Entry) -> None:
        first = self._account.run_by(task)[0]
        try:
            arn = self.service.create(task.request)
        except RefusedError as error:
            self.journal.refused(task.key, str(error))
            raise NotTakenError(
                f"{self.device.name} did not take the task, nothing is charged: {error}",
                self._account.info(first, status="REFUSED"),
            ) from error
        except UnknownOutcomeError as error:
            raise TaskError(
                f"whether {self.device.name} took the task is unknown ({error}); the same call "
                "finds out and never pays twice",
                self._account.info(first, pending=True),
            ) from error
        self.journal.created(task.key, arn)

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
        for entry in self._account.entries(key):
            try:
                self._found(entry)
            except NotSentError as error:
                # Said here, and not once more by the next call.
                self.journal.parted(entry.key)
                raise self._unsent(key, entry.key, error) from error
            except (UnavailableError, ParameterError):
                # The device will never take this part: what was paid for is handed out without it.
                continue
        self._waiting.until_ended(self._account.entries(key))
        waited = time.perf_counter() - began
        entries = self._account.entries(key)
        measured = [entry for entry in entries if entry.rows is not None]
        if not measured:
            raise TaskError(
                f"task {entries[0].arn} on {self.device.name} {entries[0].status}: "
                f"{entries[0].reason or 'no reason given'}",
                self._account.info(entries[0]),
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
        info = self._account.info(entries[0]) | {"earlier_seconds": whole - waited}
        rows = np.concatenate([entry.rows for entry in measured if entry.rows is not None])
        return Collected(rows, entries[0].note, info)

    def _found(self, entry: Entry) -> None:
        """Makes sure that the task of a row exists, if an earlier process left that open."""
        task = self._account.task_of(entry)
        if task.status == "RESERVED":
            # It died, or lost the answer, somewhere around the create call.
            arn = self._waiting.asked(task, lambda: self.service.find(task.request, task.reserved))
            if arn is None:
                self._create(task)
            else:
                self.journal.created(task.key, arn)
        elif task.status == "REFUSED":
            # Other parts of its call were taken.
            shots = task.request["shots"]
            self.service.limits().check(self.device.name, shots)
            self._reserve(task.key, task.request, task.note, self._account.price(shots))
            self._create(self._account.entry(task.key))
