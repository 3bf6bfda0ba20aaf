"""What GetDevice says of the endpoint's devices, in Braket's own schemas."""

import json

_SERVICE = {
    "braketSchemaHeader": {
        "name": "braket.device_schema.device_service_properties",
        "version": "1",
    },
    "executionWindows": [
        {"executionDay": "Everyday", "windowStartHour": "00:00", "windowEndHour": "23:59:59"}
    ],
    "getTaskPollIntervalMillis": 20,
}
_ACTION = {
    "braket.ir.openqasm.program": {
        "actionType": "braket.ir.openqasm.program",
        "version": ["1"],
        "supportedOperations": ["h", "x", "rx", "ry", "rz", "cnot", "zz", "xy"],
        "supportedResultTypes": [],
    }
}


def simulator(qubits: int) -> str:
    return json.dumps(
        {
            "braketSchemaHeader": {
                "name": "braket.device_schema.simulators.gate_model_simulator_device_capabilities",
                "version": "1",
            },
            "service": _SERVICE | {"shotsRange": [0, 100000]},
            "action": _ACTION,
            "paradigm": {
                "braketSchemaHeader": {
                    "name": "braket.device_schema.simulators."
                    "gate_model_simulator_paradigm_properties",
                    "version": "1",
                },
                "qubitCount": qubits,
            },
            "deviceParameters": {},
        }
    )


def program_sets(executables: int, shots: int) -> dict:
    """The entry of a device's actions that says it takes program sets."""
    kind = "braket.ir.openqasm.program_set"
    return {
        kind: {
            "actionType": kind,
            "version": ["1"],
            "maximumExecutables": executables,
            "maximumTotalShots": shots,
        }
    }


def qpu(qubits: int, shots: int = 20_000) -> str:
    return json.dumps(
        {
            "braketSchemaHeader": {
                "name": "braket.device_schema.iqm.iqm_device_capabilities",
                "version": "1",
            },
            "service": _SERVICE | {"shotsRange": [1, shots]},
            "action": _ACTION,
            "paradigm": {
                "braketSchemaHeader": {
                    "name": "braket.device_schema.gate_model_qpu_paradigm_properties",
                    "version": "1",
                },
                "connectivity": {"fullyConnected": True, "connectivityGraph": {}},
                "qubitCount": qubits,
                "nativeGateSet": ["prx", "cz"],
            },
            "deviceParameters": {},
        }
    )
