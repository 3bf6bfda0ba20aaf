"""Paid tasks rehearsed: the calls of a service, answered by the local simulator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from braket.circuits import Circuit as BraketCircuit
from braket.circuits.serialization import IRType

from solvers.cloud.devices import Device, Limits
from solvers.cloud.service import Measured, Service, TaskState
from solvers.errors import TaskError
from solvers.qaoa.braket import BraketLocalQAOASampler


class RehearsalService(Service):
    """The same calls on Braket's local simulator: no account, no cost, no queue.

    Shots are drawn from the request's token, so a rehearsal can be repeated.

    Args:
        device: whose limits are kept, as the committed table has them.
    """

    rehearsal = True

    def __init__(self, device: Device) -> None:
        self._device = device
        self._circuits: dict[str, BraketCircuit] = {}
        self._done: dict[str, tuple[TaskState, Measured]] = {}

    def check(self) -> None:
        """See `Service`; the simulator is always there."""

    def limits(self) -> Limits:
        """See `Service`."""
        return replace(self._device.limits, poll_seconds=0.0)

    def request(self, circuit: BraketCircuit, shots: int, token: str) -> dict[str, Any]:
        """See `Service`."""
        self._circuits[token] = circuit
        return {"clientToken": token, "deviceArn": self._device.arn, "shots": shots,
                "action": circuit.to_ir(IRType.OPENQASM).json()}  # fmt: skip

    def create(self, request: Mapping[str, Any]) -> str:
        """See `Service`; the task runs at once."""
        token = request["clientToken"]
        arn = f"rehearsal:{self._device.name}/{token}"
        if arn not in self._done:
            began = datetime.now(UTC)
            local = BraketLocalQAOASampler(max_qubits=self._device.qubits or 34)
            circuit = self._circuits.pop(token).probability()
            rows = local._shots(circuit, request["shots"], int(token[:8], 16))
            ended = datetime.now(UTC)
            seconds = (ended - began).total_seconds()
            self._done[arn] = TaskState("COMPLETED", "", began, ended), Measured(rows, seconds, 0.0)
        return arn

    def find(self, request: Mapping[str, Any], since: datetime) -> str | None:
        """See `Service`."""
        arn = f"rehearsal:{self._device.name}/{request['clientToken']}"
        return arn if arn in self._done else None

    def state(self, arn: str) -> TaskState:
        """See `Service`."""
        return self._done[arn][0]

    def result(self, arn: str, shots: int) -> Measured:
        """See `Service`."""
        return self._done[arn][1]

    def cancel(self, arn: str) -> None:
        """See `Service`."""
        raise TaskError(f"rehearsed task {arn} has already run")
