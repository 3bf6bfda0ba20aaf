"""QAOA on the processors of IBM, by a V2 sampler of qiskit-ibm-runtime: seconds under a cap.

The sampler is the client-side one (`qiskit_ibm_runtime.executor_sampler`): dynamical decoupling and
twirling are done by the client, so they are the same on a fake backend as on a processor. It has no
correction of readout errors, which the client offers for expectation values only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar, get_args

import dimod
import qiskit_ibm_runtime
from qiskit import QuantumCircuit
from qiskit.transpiler import generate_preset_pass_manager
from qiskit_ibm_runtime.options_models.dynamical_decoupling import DynamicalDecouplingOptions

from solvers.arguments import whole
from solvers.base import Request, Timing
from solvers.cloud.account import call_key
from solvers.cloud.ibm_backends import (
    AccountService,
    LocalService,
    is_local,
    local_backend,
    rehearsal_name,
)
from solvers.cloud.ibm_jobs import DEFAULT_POLL_TIMEOUT, MODES, Order, QuantumJobs
from solvers.cloud.quantum_time import (
    LEAST,
    SecondsJournal,
    default_path,
    executions,
    reserved,
)
from solvers.cloud.sent import SentQAOA
from solvers.errors import CostError, ParameterError, SolverError
from solvers.problem import CardinalityProblem
from solvers.qaoa.circuit.gates import Circuit
from solvers.qaoa.gate_model import gates
from solvers.qaoa.qiskit import to_qiskit
from solvers.qaoa.sampler import DEFAULT_READS, describe

MAX_VARIABLES = 24
SEQUENCES: tuple[str, ...] = get_args(
    DynamicalDecouplingOptions.model_fields["sequence_type"].annotation
)


@lru_cache(maxsize=64)
def isa_circuit(circuit: Circuit, backend: Any, optimization_level: int) -> QuantumCircuit:
    """Rendered, measured and transpiled, parameters left free: once a shape and backend."""
    rendered = to_qiskit(circuit)
    rendered.measure_all()
    passes = generate_preset_pass_manager(
        optimization_level=optimization_level, backend=backend, seed_transpiler=0
    )
    return passes.run(rendered)


class IBMSubspaceQAOA(SentQAOA):
    """Weight-conserving QAOA on a processor of IBM; angles are trained here before a job is sent.

    The same call (problem, options, parameters, reads, seed) finds its job in the journal again:
    after a crash it goes on where it stopped, and once the shots are there it uses no quantum time.
    To measure anew, take another seed. What a job may use is reckoned by
    `solvers.cloud.quantum_time.reserved`; the service stops it after that.

    Shots are as `solvers.qaoa.gate_model.CircuitQAOA` reports them. ``info`` also has ``device``
    (the backend), ``task`` (the job's id), ``service_seconds_quote`` (of quantum time, at most),
    ``service_seconds`` (charged; 0 on this machine, None while it is not known, and for the jobs of
    a session), ``service_seconds_used`` (of all jobs in the journal), ``isa_two_qubit_gates`` and
    ``isa_depth`` of the transpiled circuit, and ``rehearsal``.

    Args:
        backend: name of a processor such as ``ibm_torino``; or of a local backend (``fake_torino``,
            ``aer_simulator``), which needs no account.
        max_quantum_time: seconds of quantum time that all jobs in the journal may use together;
            nothing is sent without it.
        journal: SQLite file; one per user when None, of local backends none.
        dynamical_decoupling: False, or the pulses in the idle times of qubits: ``XX``, ``XpXm`` or
            ``XY4``.
        twirling: random Pauli gates around two-qubit gates and before measurements, which make
            errors random; shots are then run in draws of 64 or more, see
            `solvers.cloud.quantum_time.executions`.
        readout_mitigation: refused where the client does not offer it for its sampler.
        mode: ``job``, or ``batch`` or ``session`` for all calls that are sent together.
        optimization_level: of the transpiler, 0 to 3.
        rehearse: run on a fake backend instead, with its noise and the same checks and records:
            that of the processor, else the smallest that fits.
        poll_timeout: seconds to wait for a job.
        max_variables: largest problem it takes.

    Raises:
        ParameterError: an unknown local backend or a value out of range.
    """

    name = "qaoa-xy-ibm"
    mixers: ClassVar = {"complete": "complete-trotter", "ring": "ring", "grover": "grover"}

    def __init__(
        self,
        backend: str | None = None,
        *,
        max_quantum_time: float | None = None,
        journal: str | Path | None = None,
        dynamical_decoupling: str | bool = False,
        twirling: bool = False,
        readout_mitigation: bool = False,
        mode: str = "job",
        optimization_level: int = 3,
        rehearse: bool = False,
        poll_timeout: float = DEFAULT_POLL_TIMEOUT,
        max_variables: int = MAX_VARIABLES,
    ) -> None:
        for name, value in {
            "max_quantum_time": max_quantum_time, "poll_timeout": poll_timeout
        }.items():  # fmt: skip
            if value is not None and not 0 < value < math.inf:
                raise ParameterError(f"{name} is {value!r}, expected seconds above 0")
        if backend is not None and is_local(backend):
            local_backend(backend)
        if dynamical_decoupling is not False and dynamical_decoupling not in SEQUENCES:
            raise ParameterError(
                f"dynamical_decoupling is {dynamical_decoupling!r}, expected False or one of "
                f"{', '.join(SEQUENCES)}"
            )
        if readout_mitigation:
            raise ParameterError(
                "readout_mitigation is True, but the sampler of qiskit-ibm-runtime "
                f"{qiskit_ibm_runtime.__version__} does not offer it: leave it out; twirling=True "
                "makes readout errors symmetric"
            )
        if mode not in MODES:
            raise ParameterError(f"mode is {mode!r}, expected one of {', '.join(MODES)}")
        self.backend_name = backend
        self.max_quantum_time = max_quantum_time
        self.mode = mode
        self.rehearse = rehearse
        self.max_variables = whole("max_variables", max_variables, 1)
        self.optimization_level = whole("optimization_level", optimization_level, 0, 3)
        self._journal = journal
        self._poll_timeout = poll_timeout
        self._options: dict[str, Any] = {}
        if dynamical_decoupling:
            self._options["dynamical_decoupling"] = {
                "enable": True, "sequence_type": dynamical_decoupling
            }  # fmt: skip
        if twirling:
            self._options["twirling"] = {"enable_gates": True, "enable_measure": True}

    def check(self) -> None:
        """Raises where no job could ever be sent: no backend, no cap, no account."""
        jobs = self._jobs
        if not self.rehearse:
            jobs.backend(self._backend(1))

    def _backend(self, n: int) -> str:
        """The name of the backend that runs problems of n variables."""
        if self.rehearse:
            return rehearsal_name(self.backend_name, n)
        if self.backend_name is None:
            raise ParameterError(
                f"{self.name} has no backend: pass backend='ibm_torino' or another name, or "
                "backend='fake_torino' to stay on this machine"
            )
        return self.backend_name

    def __getstate__(self) -> dict[str, Any]:
        # The connection to the service and the open journal belong to this process.
        return {key: value for key, value in self.__dict__.items() if key != "_jobs"}

    @cached_property
    def _jobs(self) -> QuantumJobs:
        if self.max_quantum_time is None:
            raise CostError(
                f"{self.name} has no max_quantum_time: pass the seconds of quantum time that its "
                "jobs may use in all; one of 1,000 reads is reserved 10 s or a few more"
            )
        local = self.rehearse or is_local(self._backend(1))
        path = self._journal or (":memory:" if local else default_path())
        return QuantumJobs(
            LocalService if local else lambda: AccountService(self.name),
            SecondsJournal(":memory:" if self.rehearse else path),
            max_quantum_time=self.max_quantum_time,
            mode=self.mode,
            poll_timeout=self._poll_timeout,
            rehearsal=local,
        )

    @property
    def _sender(self) -> QuantumJobs:
        return self._jobs

    def _send(self, order: Order) -> None:
        self._jobs.submit([order])

    def _send_together(self, orders: list[Order]) -> None:
        by_backend: dict[str, list[Order]] = {}
        for order in orders:
            by_backend.setdefault(order.backend, []).append(order)
        for together in by_backend.values():
            with suppress(SolverError):
                self._jobs.submit(together)

    def _key(
        self, problem: CardinalityProblem, request: Request, parameters: Mapping[str, Any]
    ) -> str:
        """Identity of a call, 64 characters."""
        return call_key(
            problem.content_hash, self.name, self._backend(problem.n), self._options,
            self.optimization_level, dict(parameters), request.budget.reads or DEFAULT_READS,
            int(request.rng.integers(2**62)),
        )  # fmt: skip

    def _order(
        self,
        key: str,
        problem: CardinalityProblem,
        request: Request,
        parameters: Mapping[str, Any],
    ) -> Order:
        """The circuit of a call that has no job, its angles trained.

        Raises:
            BinaryQuadraticModelSizeError: the backend has fewer qubits.
            CostError: not even the least that is reserved for a job is left, so that none is
                prepared.
        """
        reads = request.budget.reads or DEFAULT_READS
        name = self._backend(problem.n)
        backend = self._jobs.backend(name)
        if problem.n > backend.num_qubits:
            raise dimod.exceptions.BinaryQuadraticModelSizeError(
                f"backend {name} has {backend.num_qubits} qubits, the problem has {problem.n} "
                "variables, one qubit each: choose a larger backend or a smaller problem"
            )
        self._jobs.check(LEAST)
        before = Timing()
        before.update(request.timing)
        trained = self._trained(problem, request, **parameters)
        with request.timing.stage("preprocess"):
            circuit, values = gates(problem, trained)
            transpiled = isa_circuit(circuit, backend, self.optimization_level)
            shots = executions(reads, twirling="twirling" in self._options)
            seconds = reserved(transpiled, backend, shots)
        options = dict(self._options)
        if is_local(name):
            options["simulator"] = {"seed_simulator": int(key[:7], 16)}
        note = {
            "info": {
                **trained.said,
                **describe(trained.angles, circuit),
                "isa_two_qubit_gates": transpiled.num_nonlocal_gates(),
                "isa_depth": transpiled.depth(),
            },
            "seconds": {
                stage: request.timing[stage] - before[stage] for stage in ("preprocess", "training")
            },
        }
        return Order(key, name, transpiled, values.tolist(), reads, seconds, options, note)
