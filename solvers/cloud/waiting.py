"""Waiting for paid tasks: their states, and their shots into the journal."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from solvers.cloud.account import Account, is_set
from solvers.cloud.devices import Device
from solvers.cloud.journal import Entry
from solvers.cloud.service import Measured, Service, TaskState
from solvers.errors import TaskError, UnavailableError

T = TypeVar("T")
# How often a missing or unreadable result of a finished task is asked for again.
RESULT_ATTEMPTS = 3
_TRANSIENT = {"InternalServiceException", "ThrottlingException", "InternalServerException"}


class Waiting:
    """Polls tasks of one device, and makes the end of each durable.

    Args:
        service: that runs them.
        account: of the calls they belong to.
        device: with its prices.
        task_seconds: run time after which a task on a simulator is cancelled.
        poll_timeout: seconds to wait for a task; the task itself goes on.
    """

    def __init__(
        self,
        service: Service,
        account: Account,
        device: Device,
        *,
        task_seconds: float,
        poll_timeout: float,
    ) -> None:
        self._service, self._account, self._device = service, account, device
        self._journal = account.journal
        self._task_seconds, self._poll_timeout = task_seconds, poll_timeout

    def until_ended(self, entries: list[Entry]) -> None:
        """Returns when all tasks that these rows are run by have ended.

        Raises:
            TaskError: one cannot be asked for or read, or is not finished in time.
        """
        deadline = time.monotonic() + self._poll_timeout
        tasks = {task.key: task for task in map(self._account.task_of, entries)}
        states = {key: TaskState("CREATED") for key in tasks if tasks[key].status == "CREATED"}
        pause = self._pause() if states else 0.0
        running_since: dict[str, float] = {}
        while states:
            for task in [tasks[key] for key in states]:
                state = states[task.key] = self._polled(task, states[task.key])
                if state.status in ("COMPLETED", "FAILED", "CANCELLED"):
                    stopped = running_since.get(task.key) == math.inf
                    self._end(task, state, pause, stopped=stopped)
                    del states[task.key]
                elif state.status == "RUNNING" and not self._device.is_qpu:
                    now = time.monotonic()
                    if now - running_since.setdefault(task.key, now) > self._task_seconds:
                        self.asked(task, partial(self._service.cancel, str(task.arn)))
                        running_since[task.key] = math.inf
            if states and time.monotonic() > deadline:
                late = tasks[next(iter(states))]
                status = states[late.key].status
                raise TaskError(
                    f"task {late.arn} is still {status} after {self._poll_timeout:g} s; it "
                    "goes on by itself, and the same call (--resume) collects it",
                    self._told(late, status=status),
                )
            if states:
                time.sleep(pause)

    def asked(self, task: Entry, call: Callable[[], T]) -> T:
        """A call to the service, whose failure is one of the task.

        Raises:
            TaskError: the service cannot be asked.
        """
        try:
            return call()
        except (ClientError, BotoCoreError) as error:
            raise TaskError(
                f"{self._device.name} cannot be asked about the task of {task.reserved:%F %T}: "
                f"{error}; nothing new was submitted",
                self._told(task),
            ) from error

    def _told(self, task: Entry, status: str = "") -> dict[str, object]:
        """The account of the first call that a task runs."""
        return self._account.info(self._account.run_by(task)[0], pending=True, status=status)

    def _end(self, task: Entry, state: TaskState, pause: float, *, stopped: bool) -> None:
        """Makes the end of a task durable, with its shots if it has them."""
        reason = state.reason
        if stopped:
            reason = f"it ran longer than task_seconds = {self._task_seconds:g} and was stopped"
        together = is_set(task)
        # Of a program set that failed some circuits may have run.
        if state.status != "COMPLETED" and not (together and state.status == "FAILED"):
            self._journal.failed(task.key, state.status, reason)
            return
        try:
            measured = self._read(task, pause)
        except TaskError:
            if state.status == "COMPLETED":
                raise
            self._journal.failed(task.key, state.status, reason)
            return
        turnaround = 0.0
        if state.created is not None and state.ended is not None:
            turnaround = max(0.0, (state.ended - state.created).total_seconds())
        with self._journal.transaction():
            for entry, one in zip(self._account.run_by(task), measured, strict=True):
                if isinstance(one, str):
                    self._journal.failed(entry.key, "FAILED", one)
                else:
                    self._complete(entry, one, turnaround)
            if together:
                self._journal.ended(task.key, state.status)

    def _complete(self, entry: Entry, measured: Measured, turnaround: float) -> None:
        price = entry.price
        if not self._device.is_qpu and measured.seconds is not None:
            # Never more than was reserved for, unless the service ran on after the cancel.
            price = self._device.price(entry.request["shots"], measured.seconds)
        answer = {
            "run_seconds": measured.seconds,
            "turnaround_seconds": turnaround,
            "cost": measured.cost,
        }
        self._journal.completed(entry.key, measured.rows, answer, price)

    def _pause(self) -> float:
        """Seconds between two polls; a task can be asked for where its device cannot."""
        try:
            limits = self._service.limits()
        except UnavailableError:
            limits = self._device.limits
        return max(limits.poll_seconds, 0.01)

    def _polled(self, task: Entry, last: TaskState) -> TaskState:
        """The task's state; trouble that may pass leaves it as it was."""
        try:
            return self._service.state(str(task.arn))
        except ClientError as error:
            if error.response["Error"]["Code"] not in _TRANSIENT:
                raise TaskError(
                    f"task {task.arn} cannot be asked for: {error}", self._told(task)
                ) from error
        except BotoCoreError:
            pass
        return last

    def _read(self, task: Entry, pause: float) -> list[Measured | str]:
        """The result files, asked for again where they are late or cut off."""
        trouble: Exception | None = None
        wanted = [entry.request["shots"] for entry in self._account.run_by(task)]
        for _ in range(RESULT_ATTEMPTS):
            try:
                measured = self._service.results(str(task.arn), task.request["shots"])
            except (ClientError, BotoCoreError, ValueError, AttributeError, KeyError) as error:
                trouble = error
                time.sleep(pause)
                continue
            found = [None if isinstance(one, str) else len(one.rows) for one in measured]
            if len(found) == len(wanted) and all(
                one in (None, shots) for one, shots in zip(found, wanted, strict=True)
            ):
                return measured
            trouble = ValueError(f"{found} shots instead of {wanted}")
        raise TaskError(
            f"task {task.arn} is COMPLETED but its result cannot be read: {trouble}",
            self._told(task, status="COMPLETED"),
        ) from trouble
