"""An account at IBM whose network is this module.

The service, its backends, jobs, sessions and batches are the client's. Requests and answers pass
here in the form that they have on the wire, and programs run on Aer without noise.
"""

import json
from pathlib import Path

from qiskit.providers.exceptions import QiskitBackendNotFoundError
from qiskit_aer import AerSimulator
from qiskit_ibm_runtime import QiskitRuntimeService
from qiskit_ibm_runtime.api.exceptions import RequestsApiError
from qiskit_ibm_runtime.fake_provider.executor.run_quantum_program import run_quantum_program
from qiskit_ibm_runtime.quantum_program.params_converters import (
    QUANTUM_PROGRAM_PARAMS_CONVERTERS as CONVERTERS,
)

from solvers.cloud.ibm_backends import fake_names

INSTANCE = "crn:v1:bluemix:public:quantum-computing:us-east:a/1:1::"
SECONDS = 3


class Network:
    """Stands in for the client's connection to IBM, with what it was asked for.

    `status` is what jobs end as; `lost` is raised in place of the answer to the next request for a
    job, which IBM has by then; `refuses` refuses it; `down` answers nothing.
    """

    _instance = INSTANCE

    def __init__(self):
        self.jobs, self.results, self.sessions, self.closed = [], {}, [], []
        self.status, self.reason, self.usage = "Completed", "", "complete"
        self.lost, self.refuses, self.down = None, False, False

    def program_run(self, *, params, backend_name, job_tags, session_id, **others):
        self._answer()
        if self.refuses:
            raise RequestsApiError("400 Client Error: rejected", 400)
        converter = CONVERTERS[params["schema_version"]]
        program, options = converter.decoder(converter.model.model_validate(params))
        name = f"job{len(self.jobs)}"
        self.jobs.append(
            {"id": name, "backend": backend_name, "tags": job_tags, "session_id": session_id,
             "program": {"id": others["program_id"]}, "created": "2026-01-01T00:00:00Z",
             "shots": program.shots, "items": program.items,
             "max_execution_time": others["max_execution_time"]}
        )  # fmt: skip
        options.simulator.seed_simulator = 7
        self.results[name] = run_quantum_program(AerSimulator(), program, options.simulator)
        if self.lost:
            lost, self.lost = self.lost, None
            raise lost
        return {"id": name, "backend": backend_name}

    def job_get(self, job_id, exclude_params=True):
        self._answer()
        found = [job for job in self.jobs if job["id"] == job_id]
        if not found:
            raise RequestsApiError("404 Client Error: no such job", 404)
        return {**found[0], "state": {"status": self.status, "reason": self.reason}}

    def jobs_get(self, *, job_tags, descending, **others):
        self._answer()
        found = [job for job in self.jobs if set(job_tags) <= set(job["tags"])]
        assert not descending
        return {"jobs": found, "count": len(found)}

    def job_results(self, job_id):
        return self.results[job_id] if self.status == "Completed" else ""

    def job_metadata(self, job_id):
        times = {"created": "00:00:00", "running": "00:01:00", "finished": "00:01:04"}
        return {
            "timestamps": {key: f"2026-01-01T{value}Z" for key, value in times.items()},
            "usage": {"qpu_charge_time_seconds": SECONDS, "status": self.usage},
        }

    def create_session(self, backend, instance, max_time, mode):
        self._answer()
        self.sessions.append((backend, max_time, mode))
        return {"id": f"session{len(self.sessions)}"}

    def close_session(self, session_id):
        self.closed.append(session_id)

    def cloud_usage(self):
        return {}

    def backend_status(self, name):
        return {
            "backend_name": name, "backend_version": "1.0.0", "operational": True,
            "pending_jobs": 0, "status_msg": "active",
        }  # fmt: skip

    def backend_configuration(self, backend_name, refresh=False, calibration_id=None):
        return {**_snapshot(backend_name, "conf_filename"), "backend_name": backend_name}

    def backend_properties(self, backend_name, datetime=None, calibration_id=None):
        return _snapshot(backend_name, "props_filename")

    def _answer(self):
        if self.down:
            raise RequestsApiError("no route to host", -1)


def _snapshot(backend, which):
    fake = fake_names()[backend.replace("ibm_", "fake_")]
    return json.loads((Path(fake.dirname) / getattr(fake, which)).read_text())


class Account(QiskitRuntimeService):
    """The client's service, signed in to `network`."""

    network = None

    def __new__(cls):
        return object.__new__(cls)

    def __init__(self):
        self._channel = "ibm_quantum_platform"
        self._active_api_client = self.network
        self._api_clients = {INSTANCE: self.network}
        self._backend_configs = {}
        self._backends_info_per_instance, self._backend_instance_groups = {}, []

    def backend(self, name):
        self.network._answer()
        if name.replace("ibm_", "fake_") not in fake_names():
            raise QiskitBackendNotFoundError("No backend matches the criteria.")
        return self._create_backend_obj(name, INSTANCE, use_fractional_gates=False)
