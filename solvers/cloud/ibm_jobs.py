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
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

from filelock import FileLock
from qiskit import QuantumCircuit, qpy
from qiskit.providers import BackendV2
from qiskit_ibm_runtime import Batch, Session
from qiskit_ibm_runtime.exceptions import RuntimeJobNotFound
from qiskit_ibm_runtime.executor_sampler import SamplerV2

from solvers.base import Timing
from solvers.cloud.ibm_backends import (
    FAILURES,
    AccountService,
    LocalService,
    said,
    took_nothing,
)
from solvers.cloud.ibm_waiting import Waiting, name_of
from solvers.cloud.journal import Entry
from solvers.cloud.quantum_time import DEVICE, SecondsJournal
from solvers.cloud.sent import Collected
from solvers.errors import NotTakenError, OfflineError, SolverError, TaskError

Service = AccountService | LocalService
MODES = ("job", "batch", "session")
DEFAULT_POLL_TIMEOUT = 24 * 3600.0


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
        self._cap, self._mode, self._rehearsal = max_quantum_time, mode, rehearsal
        self._waiting = Waiting(journal, poll_timeout, rehearsal=rehearsal)
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
            backend = self.backend(name_of(entries[0]))
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
            # One that cannot be closed ends by itself, a session after what is reserved for it.
            with suppress(*FAILURES):
                opened.close()

    def _sent(self, entry: Entry, circuit: QuantumCircuit, mode: Any) -> None:
        request = entry.request
        sampler = SamplerV2(mode=mode, options=request["options"])
        try:
            job = sampler.run([(circuit, request["values"])], shots=request["shots"])
        except (*FAILURES, ValueError) as error:  # an answer that is no JSON is a ValueError
            if took_nothing(error):
                self.journal.refused(entry.key, said(error))
                raise NotTakenError(
                    f"{name_of(entry)} did not take the job, nothing is charged: {said(error)}",
                    self._waiting.told(entry, status="REFUSED"),
                ) from error
            raise TaskError(
                f"whether {name_of(entry)} took the job is unknown ({said(error)}); the same call "
                "finds out by the job's tag and does not pay twice",
                self._waiting.told(entry, pending=True),
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
            self._waiting.until_ended(*self._job(entry))
            entry = self._entry(key)
        waited = time.perf_counter() - began
        if entry.rows is None:
            raise TaskError(
                f"job {entry.arn} on {name_of(entry)} {entry.status}: "
                f"{entry.reason or 'no reason given'}; take another seed to measure anew",
                self._waiting.told(entry),
            )
        whole = max(waited, entry.answer["turnaround_seconds"])
        run = entry.answer["run_seconds"]
        # What runs on this machine waits for nobody.
        run = whole if self._rehearsal else min(run or 0.0, whole)
        timing["execute"] += run
        timing["queue"] += whole - run
        return Collected(
            entry.rows, entry.note, self._waiting.told(entry) | {"earlier_seconds": whole - waited}
        )

    def _found(self, entry: Entry) -> Entry:
        """Makes sure that a row has its job, if an earlier process left that open."""
        with self._alone():
            entry = self._entry(entry.key)
            if entry.status != "RESERVED":
                return entry
            jobs = self._waiting.asked(
                entry, lambda: self.service.tagged(_tag(entry.key), self.backend(name_of(entry)))
            )
            if jobs:
                self.journal.created(entry.key, jobs[0].job_id())
            elif troubles := self._send({entry.key: _unpacked(entry.request["circuit"])}):
                raise troubles[0]
        return self._entry(entry.key)

    def _job(self, entry: Entry) -> tuple[Entry, Any]:
        """A job that was sent, and its row."""
        try:
            return entry, self._waiting.asked(entry, lambda: self.service.job(str(entry.arn)))
        except RuntimeJobNotFound:
            # A local job ended with its process, and cost nothing.
            with self._alone():
                if troubles := self._send({entry.key: _unpacked(entry.request["circuit"])}):
                    raise troubles[0] from None
            entry = self._entry(entry.key)
            return entry, self.service.job(str(entry.arn))

    def _entry(self, key: str) -> Entry:
        entry = self.journal.get(key)
        assert entry is not None
        return entry


def _tag(key: str) -> str:
    return f"icbs-{key}"


def _packed(circuit: QuantumCircuit) -> str:
    file = io.BytesIO()
    qpy.dump(circuit, file)
    return base64.b64encode(file.getvalue()).decode()


def _unpacked(program: str) -> QuantumCircuit:
    return qpy.load(io.BytesIO(base64.b64decode(program)))[0]
