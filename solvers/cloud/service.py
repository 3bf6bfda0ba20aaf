"""Where paid tasks run: Amazon Braket through its SDK.

`solvers.cloud.rehearsal` speaks the same few calls on the local simulator. A task is created from a
*request*, the arguments of the service's CreateQuantumTask: it can be written down beforehand and
sent twice, and its client token makes the second time harmless. A request has one circuit, or
several as a program set. The SDK's batches, which create new tasks for failed ones, are not used.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from boto3.session import Session
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    PartialCredentialsError,
)
from braket.aws import AwsDevice, AwsQuantumTask, AwsSession
from braket.circuits import Circuit as BraketCircuit
from braket.circuits.serialization import IRType
from braket.device_schema import DeviceActionType
from braket.program_sets import ProgramSet
from braket.tasks.program_set_quantum_task_result import MeasuredEntry, ProgramSetQuantumTaskResult
from braket.tracking import Tracker
from braket.tracking.tracking_events import _TaskCreationEvent
from numpy.typing import NDArray

from solvers.cloud.devices import Device, Limits, live
from solvers.errors import OfflineError, UnavailableError

# The service's clock and ours may differ by this much.
CLOCK_SLACK = timedelta(minutes=5)
REGION_OF_SIMULATORS = "us-east-1"
_NO_CREDENTIALS = (
    "no AWS credentials were found: run 'aws configure', or set AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY; a rehearsal (--rehearse) needs none"
)


class RefusedError(Exception):
    """The service answered that it did not create the task."""


class UnreachableError(OfflineError):
    """The device's region refuses to describe it, or does not answer: not a fault of the call."""


class UnknownOutcomeError(Exception):
    """The create call failed in a way that leaves open whether the task exists."""


@dataclass(frozen=True)
class TaskState:
    """What the service says of a task; times are its own, and None while they are not known."""

    status: str
    reason: str = ""
    created: datetime | None = None
    ended: datetime | None = None


@dataclass(frozen=True)
class Measured:
    """A finished circuit.

    Attributes:
        rows: shape (shots, n), column i is qubit i.
        seconds: run time as the device reports it; None where it does not.
        cost: USD by the SDK's tracker; None without a price list. Of a program set each circuit
            has its share.
    """

    rows: NDArray[np.int8]
    seconds: float | None
    cost: float | None


class Service(ABC):
    """One device."""

    rehearsal: bool

    @abstractmethod
    def check(self) -> None:
        """Asks for the device, without submitting anything.

        Raises:
            UnavailableError: there is no such device.
            UnreachableError: whether there is could not be found out.
        """

    @abstractmethod
    def limits(self) -> Limits:
        """What the device takes now.

        Raises:
            UnavailableError, UnreachableError: see `check`.
        """

    @abstractmethod
    def request(self, circuits: Sequence[BraketCircuit], shots: int, token: str) -> dict[str, Any]:
        """Arguments of the create call, JSON values only.

        Args:
            circuits: one, or those of a program set.
            shots: of each of them; the request has those of the whole task.
            token: under which the same request makes no second task.

        Raises:
            UnreachableError: there is no place for its results.
        """

    def compiled(self, circuit: BraketCircuit) -> dict[str, Any]:
        """What is known of a circuit as the device runs it, for a sample set's ``info``."""
        return {}

    @abstractmethod
    def create(self, request: Mapping[str, Any]) -> str:
        """Creates the task and returns its ARN; the same request again returns the same ARN.

        Raises:
            RefusedError: there is no such task now.
            UnknownOutcomeError: there may be one.
        """

    @abstractmethod
    def find(self, request: Mapping[str, Any], since: datetime) -> str | None:
        """ARN of the task a request made, if it made one after `since`."""

    @abstractmethod
    def state(self, arn: str) -> TaskState:
        """What has become of a task."""

    @abstractmethod
    def results(self, arn: str, shots: int) -> list[Measured | str]:
        """The shots of a task's circuits, in the order of its request, or why one has none.

        Args:
            arn: of a task that has ended.
            shots: of all its circuits together.
        """

    @abstractmethod
    def cancel(self, arn: str) -> None:
        """Asks for a task to be stopped."""


class AwsService(Service):
    """A device of Amazon Braket.

    Args:
        device: by ARN.
        bucket: S3 bucket for the results; the account's default Braket bucket when None.
        folder: key prefix in it.

    Raises:
        OfflineError: no region or no credentials.
    """

    rehearsal = False

    def __init__(self, device: Device, bucket: str | None = None, folder: str = "icbs") -> None:
        self._device = device
        self._folder = folder
        boto = Session()
        region = device.region or boto.region_name
        if region is None:
            raise OfflineError(
                f"no AWS region is set for {device.name}: set AWS_DEFAULT_REGION, for example to "
                f"{REGION_OF_SIMULATORS}, or run 'aws configure'"
            )
        try:
            if boto.get_credentials() is None:
                raise OfflineError(_NO_CREDENTIALS)
            self._session = AwsSession(Session(region_name=region), default_bucket=bucket)
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise OfflineError(_NO_CREDENTIALS) from error
        except (ValueError, BotoCoreError) as error:
            raise OfflineError(f"AWS cannot be used for {device.name}: {error}") from error
        # The SDK tries again by itself and reports the last answer only.
        self._answers: list[int | None] = []
        self._session.braket_client.meta.events.register(
            "needs-retry.braket.CreateQuantumTask", self._noted
        )

    @property
    def client(self) -> Any:
        """The SDK's client of Amazon Braket in the device's region."""
        return self._session.braket_client

    def _noted(self, response: tuple[Any, Any] | None = None, **event: Any) -> None:
        self._answers.append(None if response is None else response[0].status_code)

    def _asked(self) -> AwsDevice:
        """The device as the service describes it now.

        Raises:
            UnavailableError: there is no such device.
            UnreachableError: the region refuses to tell, or does not answer.
        """
        try:
            with warnings.catch_warnings():
                # Capabilities of a newer schema still name, status and limits.
                warnings.simplefilter("ignore")
                return AwsDevice(self._device.arn, self._session)
        except ValueError as error:
            raise UnavailableError(f"device {self._device.arn}: {error}") from error
        except (ClientError, BotoCoreError) as error:
            raise UnreachableError(
                f"device {self._device.arn} cannot be reached in {self._session.region}: {error}; "
                "try again later"
            ) from error

    def check(self) -> None:
        """See `Service`."""
        self._asked()

    def limits(self) -> Limits:
        """See `Service`."""
        aws = self._asked()
        now = self._described(aws)
        status = f"{now.name} is {now.status}" if now.status != "ONLINE" else ""
        if not status and not aws.is_available:
            status = f"{now.name} is outside its availability window"
        sets = aws.properties.action.get(DeviceActionType.OPENQASM_PROGRAM_SET)
        together = (1, None) if sets is None else (
            sets.minimumTotalShots or 1, sets.maximumTotalShots
        )  # fmt: skip
        return Limits(
            executables=now.executables,
            set_shots=together,
            unavailable=status,
            retired=now.status == "RETIRED",
            replacement=now.replacement,
            qubits=now.qubits,
            shots=now.shots,
            poll_seconds=(aws.properties.service.getTaskPollIntervalMillis or 1000) / 1000,
        )

    def described(self) -> Device:
        """The device with the status, size, shots and native gates that the service reports now.

        Raises:
            UnavailableError, UnreachableError: see `check`.
        """
        return self._described(self._asked())

    def _described(self, aws: AwsDevice) -> Device:
        paradigm = getattr(aws.properties, "paradigm", None)
        least, most = aws.properties.service.shotsRange
        gates = getattr(paradigm, "nativeGateSet", None) if self._device.is_qpu else None
        sets = aws.properties.action.get(DeviceActionType.OPENQASM_PROGRAM_SET)
        return replace(
            self._device,
            status=aws.status,
            qubits=getattr(paradigm, "qubitCount", None) or self._device.qubits,
            shots=(max(1, least), most),
            executables=1 if sets is None else max(1, sets.maximumExecutables),
            native_gates=tuple(gates or ()),
        )

    def request(self, circuits: Sequence[BraketCircuit], shots: int, token: str) -> dict[str, Any]:
        """See `Service`; native gates and qubits are left to the service's compiler."""
        try:
            bucket = self._session.default_bucket()
        except (ClientError, BotoCoreError, ValueError) as error:
            raise UnreachableError(
                f"no bucket for results on {self._device.name}: {error}: nothing was submitted; "
                "name one that the account may write to (option bucket)"
            ) from error
        return {
            "clientToken": token,
            "deviceArn": self._device.arn,
            "shots": shots * len(circuits),
            "outputS3Bucket": bucket,
            # A folder of its own, by which the task can be found without its ARN.
            "outputS3KeyPrefix": f"{self._folder}/{token}",
            "action": action(circuits),
        }

    def create(self, request: Mapping[str, Any]) -> str:
        """See `Service`."""
        self._answers.clear()
        try:
            return str(self._session.create_quantum_task(**request))
        except (ClientError, BotoCoreError) as error:
            refused = all(status and 400 <= status < 500 for status in self._answers)
            kind = RefusedError if self._answers and refused else UnknownOutcomeError
            raise kind(f"{error}{_of_the_set(error)}") from error

    def find(self, request: Mapping[str, Any], since: datetime) -> str | None:
        """See `Service`."""
        pages = self._session.braket_client.get_paginator("search_quantum_tasks").paginate(
            filters=[
                {"name": "deviceArn", "operator": "EQUAL", "values": [self._device.arn]},
                {
                    "name": "createdAt",
                    "operator": "GTE",
                    "values": [(since - CLOCK_SLACK).astimezone(UTC).isoformat()],
                },
            ]
        )
        for page in pages:
            for task in page["quantumTasks"]:
                if task["outputS3Directory"].startswith(request["outputS3KeyPrefix"]):
                    return str(task["quantumTaskArn"])
        return None

    def _task(self, arn: str) -> AwsQuantumTask:
        return AwsQuantumTask(arn, self._session, quiet=True)

    def state(self, arn: str) -> TaskState:
        """See `Service`."""
        data = self._task(arn).metadata()
        return TaskState(
            data["status"], data.get("failureReason", ""), data.get("createdAt"),
            data.get("endedAt"),
        )  # fmt: skip

    def results(self, arn: str, shots: int) -> list[Measured | str]:
        """See `Service`."""
        with Tracker() as tracker:
            # A task of an earlier process is new to this tracker.
            tracker.receive_event(
                _TaskCreationEvent(arn=arn, shots=shots, is_job_task=False, device=self._device.arn)
            )
            result = self._task(arn).result()
            cost = _tracked(tracker)
        if isinstance(result, ProgramSetQuantumTaskResult):
            entries = [entry for program in result.entries for entry in program.entries]
            share = None if cost is None else cost / len(entries)
            return [
                Measured(_rows(entry), None, share)
                if isinstance(entry, MeasuredEntry)
                else entry.failureMetadata.failureReason
                for entry in entries
            ]
        metadata = getattr(result.additional_metadata, "simulatorMetadata", None)
        milliseconds = getattr(metadata, "executionDuration", None)
        seconds = None if milliseconds is None else milliseconds / 1000
        return [Measured(_rows(result), seconds, cost)]

    def cancel(self, arn: str) -> None:
        """See `Service`."""
        self._task(arn).cancel()


def action(circuits: Sequence[BraketCircuit]) -> str:
    """What a task runs: one circuit's OpenQASM program, or the program set of several."""
    if len(circuits) == 1:
        return str(circuits[0].to_ir(IRType.OPENQASM).json())
    return str(ProgramSet(list(circuits)).to_ir().json())


def _rows(result: Any) -> NDArray[np.int8]:
    """Shape (shots, n): the columns in the order of the qubits."""
    measured = result.measured_qubits
    columns = [measured.index(i) for i in range(len(measured))]
    return np.asarray(result.measurements, np.int8)[:, columns]


def _of_the_set(error: Exception) -> str:
    """Which circuits of a program set the service found fault with."""
    failures = getattr(error, "response", {}).get("programSetValidationFailures") or []
    return "".join(
        f"; circuit {one['programIndex'] + 1}: {', '.join(one.get('errors') or ['invalid'])}"
        for one in failures
    )


def _tracked(tracker: Tracker) -> float | None:
    # Without this the tracker would wait for minutes for a price list that is not there.
    if not live():
        return None
    try:
        return float(tracker.qpu_tasks_cost() + tracker.simulator_tasks_cost())
    except ValueError:
        # The list does not have this device.
        return None
