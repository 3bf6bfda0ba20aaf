"""IBM's backends by name: those of an account, and the local ones that stand in for them.

Local are the fake backends of `qiskit_ibm_runtime.fake_provider`, each with the gates, the map of
couplings and the noise of a processor on a certain day, and ``aer_simulator``, which has no noise.
The client runs them in its local testing mode, without an account and without a network.

For an account the credentials come from the client's own chain (a saved account, or the variables
QISKIT_IBM_TOKEN and QISKIT_IBM_INSTANCE); they are not looked at here.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from ibm_cloud_sdk_core import ApiException
from qiskit.providers import BackendV2
from qiskit.providers.exceptions import QiskitBackendNotFoundError
from qiskit_aer import AerSimulator
from qiskit_ibm_runtime import QiskitRuntimeService, fake_provider
from qiskit_ibm_runtime.api.exceptions import RequestsApiError
from qiskit_ibm_runtime.exceptions import IBMError, IBMInputValueError, RuntimeJobNotFound

from solvers.errors import OfflineError, ParameterError

NOISELESS = "aer_simulator"
# Stand-ins of a rehearsal where the processor has none of its own: the smallest that fits is taken.
REHEARSAL = ("fake_manila", "fake_guadalupe", "fake_kolkata")
SETUP = (
    "save an account with QiskitRuntimeService.save_account or set QISKIT_IBM_TOKEN and "
    "QISKIT_IBM_INSTANCE; a rehearsal and fake_ backends work without"
)
FAILURES = (IBMError, ApiException, OSError)
"""What the client raises where a request to the service fails; those of requests are OSErrors."""

# The answer of a service that says nothing of what became of a request.
TIMED_OUT = 408


@cache
def fake_names() -> dict[str, type]:
    """Name -> class of every fake backend; none is made."""
    found = (getattr(fake_provider, name) for name in dir(fake_provider))
    return {
        one.backend_name: one
        for one in found
        if isinstance(getattr(one, "backend_name", None), str)
    }


def is_local(name: str) -> bool:
    """Whether the backend called `name` runs on this machine."""
    return name == NOISELESS or name.startswith("fake_")


@cache
def local_backend(name: str) -> BackendV2:
    """A backend on this machine, one object for the process, so that circuits can be shared.

    Raises:
        ParameterError: there is none of this name.
    """
    if name == NOISELESS:
        return AerSimulator()
    if name not in fake_names():
        raise ParameterError(
            f"backend is {name!r}, which qiskit-ibm-runtime has no fake backend for; choose "
            f"{NOISELESS} or one of {', '.join(sorted(fake_names()))}"
        )
    return fake_names()[name]()


def rehearsal_name(backend: str | None, n: int) -> str:
    """The local backend that stands in for a processor, with n qubits or more.

    A local backend stands for itself, a processor with a fake backend is stood in for by that.

    Raises:
        ParameterError: none has so many.
    """
    if backend is not None and is_local(backend):
        return backend
    own = f"fake_{(backend or '').removeprefix('ibm_')}"
    if own in fake_names():
        return own
    for name in REHEARSAL:
        if local_backend(name).num_qubits >= n:
            return name
    raise ParameterError(
        f"no fake backend that a rehearsal takes by itself has {n} qubits: pass one as backend, "
        "such as backend='fake_sherbrooke'"
    )


class LocalService:
    """The calls of `QiskitRuntimeService` that jobs need, for local backends.

    Jobs live as long as the process.
    """

    local = True

    def __init__(self) -> None:
        self._jobs: dict[str, Any] = {}

    def backend(self, name: str) -> BackendV2:
        """See `local_backend`."""
        return local_backend(name)

    def keep(self, job: Any) -> None:
        """Remembers a job that was sent."""
        self._jobs[job.job_id()] = job

    def job(self, job_id: str) -> Any:
        """A job of this process.

        Raises:
            RuntimeJobNotFound: it was another's.
        """
        if job_id not in self._jobs:
            raise RuntimeJobNotFound(f"job {job_id} ran in another process")
        return self._jobs[job_id]

    def tagged(self, tag: str, backend: BackendV2) -> list[Any]:
        """Jobs of earlier processes with a tag: none, as they ended with their process."""
        return []


class AccountService:
    """An account at IBM, reached when it is first needed.

    Args:
        solver: whom errors name.

    Raises:
        OfflineError: no account, or the service does not answer.
    """

    local = False

    def __init__(self, solver: str) -> None:
        try:
            self._service = QiskitRuntimeService()
        except (*FAILURES, ValueError) as error:
            raise OfflineError(
                f"solver {solver!r}: no connection to IBM ({said(error)}); {SETUP}"
            ) from error

    def backend(self, name: str) -> BackendV2:
        """A backend of the account.

        Raises:
            ParameterError: it has none of this name.
            OfflineError: the service does not answer.
        """
        try:
            return self._service.backend(name)
        except QiskitBackendNotFoundError as error:
            raise ParameterError(
                f"backend is {name!r}, which this account at IBM does not have: choose from "
                "QiskitRuntimeService().backends(), or a fake_ backend to stay on this machine"
            ) from error
        except FAILURES as error:
            raise OfflineError(
                f"backend {name!r} cannot be asked for ({said(error)}); {SETUP}"
            ) from error

    def keep(self, job: Any) -> None:
        """The service remembers its jobs."""

    def job(self, job_id: str) -> Any:
        """A job of the account."""
        return self._service.job(job_id)

    def tagged(self, tag: str, backend: BackendV2) -> list[Any]:
        """Jobs with a tag, the oldest first, in the instance that the backend belongs to."""
        instance = getattr(backend, "_instance", None)
        return self._service.jobs(limit=None, job_tags=[tag], instance=instance, descending=False)


def said(error: BaseException) -> str:
    """The first line of what an error says; those of the client put theirs in quotes."""
    text = str(getattr(error, "message", "") or error).strip()
    return (text.splitlines() or [type(error).__name__])[0]


def took_nothing(error: Exception) -> bool:
    """Whether an error says that the service has no job now, or that it was never asked."""
    if isinstance(error, IBMInputValueError):
        return True
    # The client raises an error of its own in the place of that with the service's status.
    chain = (error, error.__cause__, error.__context__)
    status = next((one.status_code for one in chain if isinstance(one, RequestsApiError)), -1)
    return 400 <= status < 500 and status != TIMED_OUT
