"""Paid tasks rehearsed: the calls of a service, answered by the local simulator."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from braket.circuits import Circuit as BraketCircuit
from numpy.typing import NDArray

from solvers.cloud.devices import Device, Limits
from solvers.cloud.service import Measured, Service, TaskState, action
from solvers.errors import TaskError
from solvers.qaoa.braket import BraketLocalQAOASampler, drawn


class RehearsalService(Service):
    """The same calls on Braket's local simulator: no account, no cost, no queue.

    Shots are drawn from the request's token, so a rehearsal can be repeated.

    Args:
        device: whose limits are kept, as the committed table has them.
    """

    rehearsal = True

    def __init__(self, device: Device) -> None:
        self._device = device
        self._circuits: dict[str, Sequence[BraketCircuit]] = {}
        self._done: dict[str, tuple[TaskState, list[Measured | str]]] = {}

    def check(self) -> None:
        """See `Service`; the simulator is always there."""

    def limits(self) -> Limits:
        """See `Service`."""
        return replace(self._device.limits, poll_seconds=0.0)

    def request(self, circuits: Sequence[BraketCircuit], shots: int, token: str) -> dict[str, Any]:
        """See `Service`."""
        self._circuits[token] = circuits
        return {"clientToken": token, "deviceArn": self._device.arn,
                "shots": shots * len(circuits), "action": action(circuits)}  # fmt: skip

    def create(self, request: Mapping[str, Any]) -> str:
        """See `Service`; the task runs at once."""
        token = request["clientToken"]
        arn = f"rehearsal:{self._device.name}/{token}"
        if arn not in self._done:
            circuits = self._circuits.pop(token)
            began = datetime.now(UTC)
            shots = request["shots"] // len(circuits)
            measured: list[Measured | str] = [
                self._measured(circuit, shots, int(token[:8], 16) + place)
                for place, circuit in enumerate(circuits)
            ]
            self._done[arn] = TaskState("COMPLETED", "", began, datetime.now(UTC)), measured
        return arn

    def _measured(self, circuit: BraketCircuit, shots: int, seed: int) -> Measured:
        began = time.perf_counter()
        weights = self._probabilities(circuit)
        rows = drawn(weights, circuit.qubit_count, shots, seed)
        return Measured(rows, time.perf_counter() - began, 0.0)

    def _probabilities(self, circuit: BraketCircuit) -> NDArray[np.float64]:
        """Of each bit string, shape (2^n,); qubit 0 is the most significant bit of the index."""
        local = BraketLocalQAOASampler(max_qubits=self._device.qubits or 34)
        return local.probabilities(circuit.probability())

    def find(self, request: Mapping[str, Any], since: datetime) -> str | None:
        """See `Service`."""
        arn = f"rehearsal:{self._device.name}/{request['clientToken']}"
        return arn if arn in self._done else None

    def state(self, arn: str) -> TaskState:
        """See `Service`."""
        return self._done[arn][0]

    def results(self, arn: str, shots: int) -> list[Measured | str]:
        """See `Service`."""
        return self._done[arn][1]

    def cancel(self, arn: str) -> None:
        """See `Service`."""
        raise TaskError(f"rehearsed task {arn} has already run")
