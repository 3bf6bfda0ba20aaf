"""QAOA on the cloud simulators and QPUs of Amazon Braket: the solvers that cost money."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from solvers.base import Request, Timing
from solvers.cloud.account import call_key
from solvers.cloud.devices import (
    DEFAULT_TASK_SECONDS,
    MAX_EMULATED,
    MAX_VARIABLES,
    Device,
    find_device,
    priced,
)
from solvers.cloud.journal import Journal, default_path
from solvers.cloud.rehearsal import RehearsalService
from solvers.cloud.sent import SentQAOA
from solvers.cloud.service import AwsService, UnreachableError
from solvers.cloud.tasks import DEFAULT_POLL_TIMEOUT, Order, PaidTasks
from solvers.errors import CostError, ParameterError, SolverError
from solvers.problem import CardinalityProblem
from solvers.qaoa.braket import to_braket
from solvers.qaoa.gate_model import gates
from solvers.qaoa.sampler import DEFAULT_READS, describe


class PaidQAOA(SentQAOA):
    """Tasks sent at most once, under a cap; angles are trained here before anything is sent.

    The cells of a study, or the calls of `submit_problems`, are sent together: where the device
    takes program sets, circuits of as many shots each are one task, with one fee, of which each
    call pays its share. ``info["program_set"]`` has the number of circuits and the call's place.

    More shots than a task may have are split over as few tasks as take them, each with its price
    and its row in the journal. All of them are within the cap or none is sent. Those that fail are
    missing in the answer, and ``info["parts"]`` says so.

    The same call (problem, options, parameters, reads, seed) finds its task in the journal again:
    after a crash it goes on where it stopped, and once the shots are there it costs nothing. To
    measure anew, take another seed.

    Shots are as `solvers.qaoa.gate_model.CircuitQAOA` reports them. ``info`` also has ``quote`` and
    ``cost`` (USD: at most, before; by the SDK's tracker, after; None without a price list),
    ``charged`` (0 for a refused task and in a rehearsal; None while it is not known, as of a task
    that failed), ``reserved`` (what counts against `max_cost`), ``price_source``, the ``task``'s
    ARN and ``rehearsal``. The time on the service is split into ``execute`` (as far as the device
    reports it) and ``queue``.

    Args:
        device: ARN or short name, see `solvers.cloud.devices`.
        max_cost: USD that all tasks in the journal may cost together; nothing is sent without it.
        journal: SQLite file; one per user when None.
        bucket: S3 bucket for the results; the account's default Braket bucket when None.
        rehearse: run on Braket's local simulator instead, with the same checks and records;
            ``"emulator"``: on an emulator of the device, with its gates, connections and noise (see
            `solvers.cloud.emulation`). ``info["emulator"]`` then has the circuit's native gates.
        task_seconds: run time reserved for a task on a simulator; it is cancelled after that.
        poll_timeout: seconds to wait for a task.
        max_variables: largest problem it takes; `solvers.cloud.devices.Device.max_variables` when
            None.
        program_sets: send what is sent together as program sets; a task for each circuit otherwise.

    Raises:
        ParameterError: an unknown device, a cap or time that is not positive.
    """

    def __init__(
        self,
        device: str | None = None,
        *,
        max_cost: float | None = None,
        journal: str | Path | None = None,
        bucket: str | None = None,
        rehearse: bool | Literal["emulator"] = False,
        task_seconds: float = DEFAULT_TASK_SECONDS,
        poll_timeout: float = DEFAULT_POLL_TIMEOUT,
        max_variables: int | None = None,
        program_sets: bool = True,
    ) -> None:
        self.device = None if device is None else find_device(device)
        given = {"max_cost": max_cost, "task_seconds": task_seconds, "poll_timeout": poll_timeout}
        for name, value in given.items():
            if value is not None and not 0 < value < math.inf:
                raise ParameterError(f"{name} is {value!r}, expected a finite number above 0")
        self.max_cost = max_cost
        if rehearse not in (False, True, "emulator"):
            raise ParameterError(
                f"rehearse is {rehearse!r}, expected false, true (a simulator without noise) or "
                "'emulator' (with the device's noise)"
            )
        self.rehearse = rehearse
        self.program_sets = program_sets
        if max_variables is None:
            max_variables = MAX_VARIABLES if self.device is None else self.device.max_variables
            if rehearse == "emulator":
                max_variables = min(max_variables, MAX_EMULATED)
        self.max_variables = max_variables
        self._journal = journal
        self._bucket = bucket
        self._limits = {"task_seconds": task_seconds, "poll_timeout": poll_timeout}

    def check(self) -> None:
        """Raises where no task could ever be sent: no device, no cap, no account.

        A region that refuses or does not answer is a fault of each call, not of the set-up: what
        was paid for there is still collected, and other solvers of a study run.
        """
        with suppress(UnreachableError):
            self._tasks.service.check()

    def priced(self, *, offline: bool = False) -> Device:
        """The device with today's prices, or with those of the committed table.

        Raises:
            ParameterError: there is no device.
        """
        if self.device is None:
            raise ParameterError(f"{self.name} has no device: pass device='SV1' or another name")
        return self.device if offline else priced(self.device)

    def quote(
        self, device: Device, calls: Mapping[int | None, int], *, together: bool = True
    ) -> tuple[int, float, float]:
        """Tasks of calls, and USD at least and at most, before anything is submitted.

        It needs no account.

        Args:
            device: see `priced`.
            calls: reads of a call's budget -> how many such calls.
            together: whether they are sent together, as the cells of a study are; the blocks of a
                loop are not.

        Raises:
            ParameterError: shots the device does not take.
            UnavailableError: it is retired.
            CostError: no price is known.
        """
        seconds = self._limits["task_seconds"]
        tasks: list[int] = []
        for reads, count in calls.items():
            shots = reads or DEFAULT_READS
            parts = device.limits.parts(device.name, shots)
            sets = [1] * count
            if together and self.program_sets:
                sets = device.limits.sets(count, shots)
            tasks += parts * sets.count(1) + [size * shots for size in sets if size > 1]
        return (
            len(tasks),
            sum(map(device.price, tasks)),
            sum(device.price(shots, seconds) for shots in tasks),
        )

    def __getstate__(self) -> dict[str, Any]:
        # The connection to the service and the open journal belong to this process.
        return {key: value for key, value in self.__dict__.items() if key != "_tasks"}

    @property
    def journal_path(self) -> str:
        """The file of its journal."""
        return str(self._journal or default_path())

    @property
    def poll_timeout(self) -> float:
        """Seconds to wait for a task."""
        return self._limits["poll_timeout"]

    def left_to_spend(self) -> float:
        """USD that `max_cost` leaves after what the journal has.

        Raises:
            CostError: there is no `max_cost`.
        """
        with Journal(self.journal_path) as journal:
            return self._cap() - journal.spent()

    def _cap(self) -> float:
        if self.max_cost is None:
            where = "the device" if self.device is None else self.device.name
            raise CostError(
                f"{self.name} has no max_cost: pass the USD it may spend in all; "
                f"'icbs quote' tells the price of a task on {where}"
            )
        return self.max_cost

    @cached_property
    def _tasks(self) -> PaidTasks:
        device = self.priced(offline=True)
        cap = self._cap()
        if self.rehearse:
            service: Any = self._rehearsal(device)
            journal = Journal(":memory:")
        else:
            service = AwsService(device, self._bucket)
            journal = Journal(self.journal_path)
        return PaidTasks(device, service, journal, max_cost=cap, **self._limits)

    def _rehearsal(self, device: Device) -> RehearsalService:
        if self.rehearse != "emulator":
            return RehearsalService(device)
        from solvers.cloud.emulation import EmulatorService

        return EmulatorService(device)

    @property
    def _sender(self) -> PaidTasks:
        return self._tasks

    def _declined(self, key: str) -> None:
        self._tasks.declined(key)

    def _send(self, order: Order) -> None:
        self._tasks.submit(order)

    def _send_together(self, orders: list[Order]) -> None:
        if self.program_sets:
            self._tasks.submit_together(orders)
            return
        for order in orders:
            with suppress(SolverError):
                self._tasks.submit(order)

    def _key(
        self, problem: CardinalityProblem, request: Request, parameters: Mapping[str, Any]
    ) -> str:
        """Identity of a call."""
        reads = request.budget.reads or DEFAULT_READS
        return call_key(
            problem.content_hash, self.name, self._tasks.device.arn, self.penalty,
            dict(parameters), reads, int(request.rng.integers(2**62)),
        )  # fmt: skip

    def _order(
        self,
        key: str,
        problem: CardinalityProblem,
        request: Request,
        parameters: Mapping[str, Any],
    ) -> Order:
        """The circuit of a call that has no task, its angles trained."""
        reads = request.budget.reads or DEFAULT_READS
        tasks = self._tasks
        tasks.check(key, problem.n, reads)
        before = Timing()
        before.update(request.timing)
        trained = self._trained(problem, request, **parameters)
        with request.timing.stage("preprocess"):
            circuit, values = gates(problem, trained)
            rendered = to_braket(circuit, values)
        note = {
            "info": {
                **trained.said,
                **describe(trained.angles, circuit),
                **tasks.service.compiled(rendered),
            },
            "seconds": {
                stage: request.timing[stage] - before[stage] for stage in ("preprocess", "training")
            },
        }
        return Order(key, rendered, reads, note)


class BraketSubspaceQAOA(PaidQAOA):
    """Weight-conserving QAOA on a device of Amazon Braket; parameters as `PaidQAOA`."""

    name = "qaoa-xy-braket"
    mixers: ClassVar = {"complete": "complete-trotter", "ring": "ring", "grover": "grover"}


class BraketPenaltyQAOA(PaidQAOA):
    """X-mixer QAOA on the penalised problem on a device of Amazon Braket.

    Args:
        device: see `PaidQAOA`.
        penalty: P in units of the mean |linear bias|, > 0.
        **options: see `PaidQAOA`.
    """

    name = "qaoa-braket"
    track = "penalised"
    mixers: ClassVar = {"x": "x"}

    def __init__(self, device: str | None = None, *, penalty: float = 1.0, **options: Any) -> None:
        super().__init__(device, **options)
        if not 0 < penalty < math.inf:
            raise ParameterError(f"penalty is {penalty}, expected a number above 0")
        self.penalty = penalty
