"""Jobs at IBM, each at most once: reserve, send, wait, collect.

The order of events is that of `solvers.cloud.tasks`. (1) The request with its seconds is durable in
the journal, under the cap. (2) It is sent, with a tag that names the call. (3) The job's id is
durable before anyone waits. (4) The shots are durable before anyone sees them. A crash between any
two leaves a row from which the next call with the same key goes on without a new job.

IBM has no client token that would make two requests one job. A row without an id is therefore
looked for by its tag before it is sent again, and a lock beside the journal lets one process at a
time send: a row without an id, seen by who holds the lock, is that of a process that died.
"""

from __future__ import annotations

import base64
import hashlib
import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from qiskit import QuantumCircuit, qpy
from qiskit.providers import BackendV2
from qiskit_ibm_runtime import Batch, Session
from qiskit_ibm_runtime.exceptions import RuntimeJobNotFound
from qiskit_ibm_runtime.executor_sampler import SamplerV2

from solvers.base import Timing
from solvers.cloud.ibm_backends import FAILURES, AccountService, LocalService, said
from solvers.cloud.journal import Entry
from solvers.cloud.quantum_time import DEVICE, SecondsJournal
from solvers.errors import NotTakenError, OfflineError, SolverError, TaskError
from solvers.qaoa.qiskit import measured

Service = AccountService | LocalService
MODES = ("job", "batch", "session")
DEFAULT_POLL_TIMEOUT = 24 * 3600.0
# Seconds between two questions after a job.
POLL, LOCAL_POLL = 2.0, 0.01
FINAL = ("DONE", "ERROR", "CANCELLED")
# Answers of the service with which it says that it took no job: client errors but a timeout.
_UNKNOWN = {408}


@dataclass(frozen=True)
class Order:
    """The job of a call.

    Attributes:
        key: identity of the call, at most 64 characters.
        backend: its name.
        circuit: transpiled for it, measured into a register ``meas``, parameters free.
        values: one number a parameter.
        shots: that are wanted.
        seconds: of quantum time that it may use.
        options: of the sampler, JSON values.
        note: JSON values to be handed back with the shots.
    """

    key: str
    backend: str
    circuit: QuantumCircuit
    values: Sequence[float]
    shots: int
    seconds: int
    options: Mapping[str, Any]
    note: Mapping[str, Any]


@dataclass(frozen=True)
class Collected:
    """A finished call.

    Attributes:
        rows: shape (shots, n), column i is qubit i.
        note: what its sender wrote down.
        info: for a sample set's ``info``.
    """

    rows: NDArray[np.int8]
    note: dict[str, Any]
    info: dict[str, Any]


class QuantumJobs:
    """Jobs of one account, or of this machine, under one cap.

    Args:
        connect: reaches the service; called when it is first needed.
        journal: what was asked for so far.
        max_quantum_time: seconds of quantum time that all jobs in the journal may use together.
        mode: one of `MODES`: each job by itself, or what is sent together in a batch or a session.
        poll_timeout: seconds to wait for a job; the job itself goes on.
        rehearsal: whether a local backend stands in for a processor.
    """

    def __init__(
        self,
        connect: Callable[[], Service],
        journal: SecondsJournal,
        *,
        max_quantum_time: float,
        mode: str = "job",
        poll_timeout: float = DEFAULT_POLL_TIMEOUT,
        rehearsal: bool = False,
    ) -> None:
        self._connect, self.journal = connect, journal
        self._cap, self._mode, self._poll_timeout = max_quantum_time, mode, poll_timeout
        self._rehearsal = rehearsal
        self._service: Service | None = None
        self._backends: dict[str, BackendV2] = {}

    @property
    def service(self) -> Service:
        """The service, reached once."""
        if self._service is None:
            self._service = self._connect()
        return self._service

    def backend(self, name: str) -> BackendV2:
        """A backend, asked for once."""
        if name not in self._backends:
            self._backends[name] = self.service.backend(name)
        return self._backends[name]

    def known(self, key: str) -> bool:
        """Whether the call has a job, or may have one."""
        entry = self.journal.get(key)
        return entry is not None and entry.status != "REFUSED"

    def check(self, seconds: float) -> None:
        """Raises CostError if so many seconds of quantum time are not left."""
        self.journal.check_cap(seconds, self._cap)

    def submit(self, orders: Sequence[Order]) -> None:
        """Makes sure that the jobs of calls exist, without waiting for them.

        What is above the cap is left out, as is what the service refuses; the others are sent.

        Args:
            orders: of calls on one backend.

        Raises:
            NotSentError: the first that was above the cap or refused, or nothing could be sent.
            TaskError: the service's answer to one was lost; ``info`` says that it is pending.
        """
        troubles: list[SolverError] = []
        with self._alone():
            mine: list[Order] = []
            for order in orders:
                try:
                    if not self.known(order.key):
                        self._reserve(order)
                        mine.append(order)
                except SolverError as error:
                    troubles.append(error)
            if mine:
                troubles += self._send({order.key: order.circuit for order in mine})
        if troubles:
            raise troubles[0]

    def _alone(self) -> AbstractContextManager[Any]:
        """One process at a time sends what is in a journal."""
        if self.journal.path == ":memory:":
            return nullcontext()
        return FileLock(f"{self.journal.path}.lock")

    def _reserve(self, order: Order) -> None:
        program = _packed(order.circuit)
        request = {
            "deviceArn": f"{DEVICE}{order.backend}",
            "circuit": program,
            "values": [float(value) for value in order.values],
            "shots": order.shots,
            "seconds": order.seconds,
            "mode": self._mode,
            "options": {
                **order.options,
                "environment": {"job_tags": [_tag(order.key)]},
                "max_execution_time": order.seconds,
            },
        }
        self.journal.reserve(
            order.key, request, circuit=hashlib.sha256(program.encode()).hexdigest(),
            note=order.note, price=order.seconds, cap=self._cap,
        )  # fmt: skip

    def _send(self, circuits: Mapping[str, QuantumCircuit]) -> list[SolverError]:
        """Sends reserved rows, by key, all on one backend; returns what went wrong."""
        troubles: list[SolverError] = []
        entries = [self._entry(key) for key in circuits]
        try:
            backend = self.backend(_name(entries[0]))
            with self._opened(backend, sum(entry.request["seconds"] for entry in entries)) as mode:
                for entry in entries:
                    try:
                        self._sent(entry, circuits[entry.key], mode)
                    except SolverError as error:
                        troubles.append(error)
        except OfflineError as error:
            for entry in entries:
                self.journal.refused(entry.key, str(error))
            troubles.append(error)
        return troubles

    @contextmanager
    def _opened(self, backend: BackendV2, seconds: int) -> Iterator[Any]:
        """What jobs are sent to: the backend, or a batch or session on it.

        Both take no more jobs afterwards and end with the last one. A session ends after as many
        seconds as its jobs may use.
        """
        if self._mode == "job":
            yield backend
            return
        try:
            if self._mode == "batch":
                opened: Session = Batch(backend=backend)
            else:
                opened = Session(backend=backend, max_time=seconds)
        except FAILURES as error:
            raise OfflineError(
                f"no {self._mode} can be opened on {backend.name}, nothing was sent: {said(error)}"
            ) from error
        try:
            yield opened
        finally:
            opened.close()

    def _sent(self, entry: Entry, circuit: QuantumCircuit, mode: Any) -> None:
        request = entry.request
        sampler = SamplerV2(mode=mode, options=request["options"])
        try:
            job = sampler.run([(circuit, request["values"])], shots=request["shots"])
        except (*FAILURES, ValueError) as error:
            if _took_nothing(error):
                self.journal.refused(entry.key, said(error))
                raise NotTakenError(
                    f"{_name(entry)} did not take the job, nothing is charged: {said(error)}",
                    self.info(entry, status="REFUSED"),
                ) from error
            raise TaskError(
                f"whether {_name(entry)} took the job is unknown ({said(error)}); the same call "
                "finds out by the job's tag and does not pay twice",
                self.info(entry, pending=True),
            ) from error
        self.service.keep(job)
        self.journal.created(entry.key, job.job_id())

    def collect(self, key: str, timing: Timing) -> Collected:
        """Waits for the job of a call and returns its shots.

        Args:
            key: identity of the call, known to the journal.
            timing: gets the seconds of ``queue`` and ``execute``.

        Raises:
            TaskError: it failed or was cancelled, could not be sent or read, or is not finished;
                ``info`` says whether the call is pending.
        """
        began = time.perf_counter()
        entry = self._entry(key)
        if entry.status == "RESERVED":
            entry = self._found(entry)
        if entry.status == "CREATED":
            self._wait(entry)
            entry = self._entry(key)
        waited = time.perf_counter() - began
        if entry.rows is None:
            raise TaskError(
                f"job {entry.arn} on {_name(entry)} {entry.status}: "
                f"{entry.reason or 'no reason given'}; take another seed to measure anew",
                self.info(entry),
            )
        whole = max(waited, entry.answer["turnaround_seconds"])
        run = entry.answer["run_seconds"]
        # What runs on this machine waits for nobody.
        run = whole if self._rehearsal else min(run or 0.0, whole)
        timing["execute"] += run
        timing["queue"] += whole - run
        return Collected(
            entry.rows, entry.note, self.info(entry) | {"earlier_seconds": whole - waited}
        )

    def _found(self, entry: Entry) -> Entry:
        """Makes sure that a row has its job, if an earlier process left that open."""
        with self._alone():
            entry = self._entry(entry.key)
            if entry.status != "RESERVED":
                return entry
            jobs = self._asked(
                entry, lambda: self.service.tagged(_tag(entry.key), self.backend(_name(entry)))
            )
            if jobs:
                self.journal.created(entry.key, jobs[0].job_id())
            elif troubles := self._send({entry.key: _unpacked(entry.request["circuit"])}):
                raise troubles[0]
        return self._entry(entry.key)

    def _wait(self, entry: Entry) -> None:
        """Returns when the job has ended, its end durable."""
        deadline = time.monotonic() + self._poll_timeout
        try:
            job = self._asked(entry, lambda: self.service.job(str(entry.arn)))
        except RuntimeJobNotFound:
            # A local job ended with its process, and cost nothing.
            with self._alone():
                if troubles := self._send({entry.key: _unpacked(entry.request["circuit"])}):
                    raise troubles[0] from None
            entry = self._entry(entry.key)
            job = self.service.job(str(entry.arn))
        status = str(entry.status)
        while (status := self._polled(entry, job, status)) not in FINAL:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TaskError(
                    f"job {entry.arn} on {_name(entry)} is still {status} after poll_timeout = "
                    f"{self._poll_timeout:g} s; it goes on by itself, and the same call "
                    "(--resume) collects it",
                    self.info(entry, pending=True, status=status),
                )
            time.sleep(min(left, LOCAL_POLL if self.service.local else POLL))
        metrics = self._asked(entry, job.metrics)
        seconds = self._charged(entry, metrics)
        if status != "DONE":
            reason = self._reason(entry, job)
            with self.journal.transaction():
                self.journal.failed(entry.key, {"ERROR": "FAILED"}.get(status, status), reason)
                self.journal.charge(entry.key, seconds)
            return
        rows = self._read(entry, job)
        self.journal.completed(
            entry.key, rows, {**_times(metrics, self.service.local), "seconds": seconds},
            entry.price if seconds is None else seconds,
        )  # fmt: skip

    def _polled(self, entry: Entry, job: Any, last: str) -> str:
        """The job's status; trouble that may pass leaves it as it was."""
        try:
            status = job.status()
        except FAILURES as error:
            if _took_nothing(error):
                raise TaskError(
                    f"job {entry.arn} on {_name(entry)} cannot be asked for: {said(error)}",
                    self.info(entry, pending=True),
                ) from error
            return last
        # A local job says it as a member of an enumeration.
        return str(getattr(status, "name", status))

    def _read(self, entry: Entry, job: Any) -> NDArray[np.int8]:
        """The shots of a job that is done; of twirled ones there may be a few more than wanted.

        Raises:
            TaskError: there are none to be read, or too few.
        """
        result = self._asked(entry, job.result)
        rows = np.empty((0, 0), np.int8) if result is None else measured(result[0].data.meas)
        shots = entry.request["shots"]
        if len(rows) < shots:
            raise TaskError(
                f"job {entry.arn} on {_name(entry)} is DONE but has {len(rows)} shots to be read "
                f"instead of {shots}; the same call (--resume) asks again",
                self.info(entry, pending=True),
            )
        return rows[:shots]

    def _reason(self, entry: Entry, job: Any) -> str:
        """Why a job has no shots, in one line."""
        if not self.service.local:
            return " ".join((self._asked(entry, job.error_message) or "").split())
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
        if self.service.local:
            return 0.0
        usage = metrics.get("usage") or {}
        if usage.get("status") == "pending" or entry.request["mode"] == "session":
            return None
        seconds = usage.get("qpu_charge_time_seconds", usage.get("quantum_seconds"))
        return None if seconds is None else float(seconds)

    def _asked(self, entry: Entry, question: Callable[[], Any]) -> Any:
        """An answer of the service, whose failure is one of the job.

        Raises:
            TaskError: the service cannot be asked.
            RuntimeJobNotFound: a local job of another process.
        """
        try:
            return question()
        except (*FAILURES, OfflineError) as error:
            if isinstance(error, RuntimeJobNotFound) and self.service.local:
                raise
            raise TaskError(
                f"IBM cannot be asked about job {entry.arn or '(no id yet)'} of "
                f"{entry.reserved:%F %T} on {_name(entry)}: {said(error)}; nothing new was sent, "
                "and the same call asks again",
                self.info(entry, pending=True),
            ) from error

    def _entry(self, key: str) -> Entry:
        entry = self.journal.get(key)
        assert entry is not None
        return entry

    def info(self, entry: Entry, *, pending: bool = False, status: str = "") -> dict[str, Any]:
        """For a sample set's ``info``: the seconds of a call and the state of its job."""
        seconds = entry.answer.get("seconds")
        if status == "REFUSED":
            seconds = 0.0
        return {
            "device": _name(entry),
            "task": entry.arn,
            "task_status": status or entry.status,
            "mode": entry.request["mode"],
            "service_seconds_quote": entry.request["seconds"],
            "service_seconds": seconds,
            "service_seconds_used": self.journal.spent(),
            "rehearsal": self._rehearsal,
            "pending": pending,
        }


def _name(entry: Entry) -> str:
    return entry.device.removeprefix(DEVICE)


def _tag(key: str) -> str:
    return f"icbs-{key}"


def _took_nothing(error: Exception) -> bool:
    """Whether an error says that the service has no job now, or that it was never asked."""
    if isinstance(error, ValueError):
        return True
    # The client raises an error of its own in the place of that with the service's status.
    status = next(
        (one.status_code for one in (error, error.__cause__, error.__context__)
         if hasattr(one, "status_code")), -1,
    )  # fmt: skip
    return 400 <= status < 500 and status not in _UNKNOWN


def _times(metrics: Mapping[str, Any], local: bool) -> dict[str, float | None]:
    """Seconds on the service: from its creation to its end, and those it ran (None: not known)."""
    stamps = metrics.get("timestamps") or {}
    found = {
        name: np.datetime64(str(stamps[name]).rstrip("Z"))
        for name in ("created", "running", "finished")
        if stamps.get(name)
    }

    def between(first: str, last: str) -> float | None:
        if local or first not in found or last not in found:
            return None
        return max(0.0, float((found[last] - found[first]) / np.timedelta64(1, "s")))

    return {
        "turnaround_seconds": between("created", "finished") or 0.0,
        "run_seconds": between("running", "finished"),
    }


def _packed(circuit: QuantumCircuit) -> str:
    file = io.BytesIO()
    qpy.dump(circuit, file)
    return base64.b64encode(file.getvalue()).decode()


def _unpacked(program: str) -> QuantumCircuit:
    return qpy.load(io.BytesIO(base64.b64decode(program)))[0]
