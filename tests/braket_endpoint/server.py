"""The endpoint: one HTTP server for Braket's routes, S3, STS and the price list."""

import json
import threading
import uuid
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from braket.default_simulator import StateVectorSimulator
from braket.ir.openqasm import Program, ProgramSet

from tests.braket_endpoint import capabilities

ACCOUNT = "123456789012"
ARNS = {
    "SV1": "arn:aws:braket:::device/quantum-simulator/amazon/sv1",
    "Garnet": "arn:aws:braket:eu-north-1::device/qpu/iqm/Garnet",
    "Ibex-Q1": "arn:aws:braket:eu-north-1::device/qpu/aqt/Ibex-Q1",
}
_CAPABILITIES = {
    "SV1": capabilities.simulator(34),
    "Garnet": capabilities.qpu(20),
    "Ibex-Q1": capabilities.qpu(12, shots=1500),
}
PRICES = """"FormatVersion","v1.0"
"Disclaimer","a test"
"Publication Date","2026-11-01T00:00:00Z"
"Version","1"
"OfferCode","AmazonBraket"
"Product Family","DeviceName","Version","Region Code","operation","Unit","Currency","PricePerUnit"
"Quantum Task","Garnet","","eu-north-1","","Quantum Task","USD","0.3000000000"
"Quantum Task-Shot","Garnet","","eu-north-1","","Quantum Task-Shot","USD","0.0020000000"
"Simulator Task","","SV1","us-east-1","CompleteTask","minutes","USD","0.0750000000"
"""


@dataclass
class Fault:
    """An answer that is not the right one.

    Attributes:
        status: HTTP status.
        kind: ``x-amzn-ErrorType``.
        times: how often; -1 for ever.
        after: do the work first, then lose the answer.
    """

    status: int
    kind: str
    times: int = 1
    after: bool = False


@dataclass
class Endpoint:
    """A Braket of its own, for one test.

    Attributes:
        creates: client token of every create call that was let through, in order.
        calls: route of every call to Braket, in order.
        tasks: ARN -> the task.
        objects: S3, key -> bytes.
        faults: route (``create``, ``get``, ``search``, ``device``, ``s3`` for results, ``bucket``)
            -> what it answers.
        denied: region -> what it answers when asked for a device.
        end: status that new tasks end with; ``QUEUED`` or ``RUNNING`` ones never end.
        reason: of the tasks that fail.
        offline: names of devices that are.
        retired: names of devices that are.
        shots: name of a device -> the most shots of a task it takes now.
        limits: ARN -> a spending limit, as the service describes it.
        executables: circuits that a program set of a QPU may have; 0 if it takes none.
        broken: place of a circuit in a program set -> why it fails.
        invalid: words that no program of a set may contain.
        damage: what to do to a result file before it is stored; None leaves it out.
        prices: the offer file, None if it is down.
        run_milliseconds: what simulator tasks report.
    """

    creates: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    tasks: dict[str, dict] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=lambda: defaultdict(list))
    denied: dict[str, Fault] = field(default_factory=dict)
    end: str = "COMPLETED"
    reason: str = "the lasers are off"
    offline: set[str] = field(default_factory=set)
    retired: set[str] = field(default_factory=set)
    shots: dict[str, int] = field(default_factory=dict)
    limits: dict[str, dict] = field(default_factory=dict)
    executables: int = 100
    broken: dict[int, str] = field(default_factory=dict)
    invalid: str = ""
    damage: object = staticmethod(lambda data: data)
    prices: str | None = PRICES
    run_milliseconds: int = 1200

    def __enter__(self):
        self._lock = threading.RLock()
        self._bodies: dict[str, bytes] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *failure):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self):
        return f"http://127.0.0.1:{self._server.server_port}"

    def environment(self, folder):
        """Variables that send the SDK here; `folder` keeps it away from the user's own set-up."""
        return {
            "BRAKET_ENDPOINT": self.url,
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_ENDPOINT_URL_STS": self.url,
            "BRAKET_PRICE_OFFERS_URL": f"{self.url}/prices.csv",
            "AWS_ACCESS_KEY_ID": "AKIATEST",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": str(folder / "no-config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(folder / "no-credentials"),
            "AWS_MAX_ATTEMPTS": "3",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def fail(self, route, status, kind, times=1, after=False):
        self.faults[route].append(Fault(status, kind, times, after))

    def deny(self, region, status, kind):
        """From now on the region says nothing of its devices."""
        self.denied[region] = Fault(status, kind)

    def forget_tokens(self):
        """From now on an old client token makes a new task."""
        self._bodies.clear()

    @property
    def paid(self):
        """How many different tasks there are to pay for."""
        return len(self.tasks)

    def _fault(self, route):
        for fault in self.faults[route]:
            if fault.times:
                fault.times -= 1
                return fault
        return None

    def create(self, body):
        request = json.loads(body)
        token = request["clientToken"]
        self.creates.append(token)
        if token in self._bodies:
            if self._bodies[token] != body:
                return 400, {"message": "the token was used with other parameters"}
            return 201, {"quantumTaskArn": next(
                arn for arn, task in self.tasks.items() if task["token"] == token)}  # fmt: skip
        device = request["deviceArn"]
        region = device.split(":")[3] or "us-east-1"
        together = "braket.ir.openqasm.program_set" in request["action"][:200]
        if fault := self._unfit(device, request, together):
            return 400, fault
        number = str(uuid.uuid4())
        arn = f"arn:aws:braket:{region}:{ACCOUNT}:quantum-task/{number}"
        self._bodies[token] = body
        self.tasks[arn] = {
            "token": token,
            "quantumTaskArn": arn,
            "status": self.end,
            "deviceArn": device,
            "deviceParameters": "{}",
            "shots": request["shots"],
            "outputS3Bucket": request["outputS3Bucket"],
            "outputS3Directory": f"{request['outputS3KeyPrefix']}/{number}",
            "createdAt": _now(),
            "actionMetadata": {
                "actionType": "braket.ir.openqasm.program" + "_set" * together,
            },
        }
        if self.end == "FAILED":
            self.tasks[arn]["failureReason"] = self.reason
        if self.end == "COMPLETED":
            self.finish(arn, request)
        return 201, {"quantumTaskArn": arn}

    def most(self, device):
        """The most shots of a task that a device takes."""
        name = next(name for name, arn in ARNS.items() if arn == device)
        capabilities = json.loads(_CAPABILITIES[name])
        return self.shots.get(name, capabilities["service"]["shotsRange"][1])

    def finish(self, arn, request=None):
        """Runs the task and stores its result."""
        task = self.tasks[arn]
        request = request or json.loads(self._bodies[task["token"]])
        place = f"{task['outputS3Bucket']}/{task['outputS3Directory']}"
        if task["actionMetadata"]["actionType"].endswith("_set"):
            text = self._run_set(task, place, ProgramSet.parse_raw(request["action"]))
        else:
            program = Program.parse_raw(request["action"])
            result = StateVectorSimulator().run(program, shots=request["shots"])
            text = json.loads(result.json())
        if "simulator" in task["deviceArn"]:
            text["additionalMetadata"]["simulatorMetadata"] = {
                "executionDuration": self.run_milliseconds
            }
        data = self.damage(json.dumps(text).encode())
        if data is not None:
            self.objects[f"{place}/results.json"] = data
        task |= {"status": "COMPLETED", "endedAt": _now()}

    def _unfit(self, device, request, together):
        """What a create call is refused for."""
        shots = request["shots"]
        for limit in self.limits.values():
            if limit["deviceArn"] == device:
                price = 0.30 + 0.002 * shots
                spent = float(limit["totalSpend"]) + float(limit["queuedSpend"])
                if spent + price > float(limit["spendingLimit"]) + 1e-9:
                    return {"message": "the task would exceed the spending limit of the device"}
                limit["queuedSpend"] = str(spent + price)
        if not together:
            if shots <= self.most(device):
                return None
            return {"message": f"{shots} shots are too many for {device}"}
        programs = json.loads(request["action"])["programs"]
        if "/qpu/" not in device or not self.executables:
            return {"message": f"{device} takes no program sets"}
        if len(programs) > self.executables:
            return {"message": f"{len(programs)} programs are too many for {device}"}
        if shots % len(programs) or shots > self.most(device):
            return {"message": f"{shots} shots do not fit {len(programs)} programs on {device}"}
        invalid = [
            {"programIndex": place, "errors": ["as the test wants it"]}
            for place, program in enumerate(programs)
            if self.invalid and self.invalid in program["source"]
        ]
        if invalid:
            return {"message": "invalid programs", "programSetValidationFailures": invalid}
        return None

    def make_limit(self, body):
        """A spending limit; a device has one."""
        asked = json.loads(body)
        device = asked["deviceArn"]
        if "/qpu/" not in device:
            return 400, {"message": "simulators do not support spending limits"}
        if any(limit["deviceArn"] == device for limit in self.limits.values()):
            return 400, {"message": "the device has a spending limit"}
        region = device.split(":")[3]
        arn = f"arn:aws:braket:{region}:{ACCOUNT}:spending-limit/{uuid.uuid4()}"
        self.limits[arn] = {
            "spendingLimitArn": arn, "queuedSpend": "0", "totalSpend": "0",
            "createdAt": _now(), "updatedAt": _now(),
            **{key: asked[key] for key in ("deviceArn", "spendingLimit", "timePeriod")},
            "tags": asked.get("tags", {}),
        }  # fmt: skip
        return 201, {"spendingLimitArn": arn}

    def _run_set(self, task, place, programs):
        """Runs a program set and stores it as the service does: a file a program and executable."""
        result = json.loads(StateVectorSimulator().run(programs, shots=task["shots"]).json())
        for i, program in enumerate(result["programResults"]):
            folder = f"{place}/programs/{i}"
            (measured,) = program["executableResults"]
            if i in self.broken:
                measured = _failure(self.broken[i])
            names = {"source": "program.json", "executableResults": ["executables/0.json"]}
            files = {
                "program.json": program["source"],
                "executables/0.json": measured,
                "results.json": program | names,
            }
            for name, content in files.items():
                self.objects[f"{folder}/{name}"] = json.dumps(content).encode()
        metadata = result["taskMetadata"] | {
            "id": task["quantumTaskArn"], "deviceId": task["deviceArn"],
            "totalFailedExecutables": len(self.broken),
        }  # fmt: skip
        self.objects[f"{place}/metadata.json"] = json.dumps(metadata).encode()
        return result | {
            "programResults": [
                f"programs/{i}/results.json" for i in range(len(result["programResults"]))
            ],
            "taskMetadata": "metadata.json",
            "s3Location": place.split("/", 1),
        }


def _failure(reason):
    """What the service writes in the place of an executable's shots."""
    return {
        "braketSchemaHeader": {
            "name": "braket.task_result.program_set_executable_failure", "version": "1",
        },
        "inputsIndex": 0,
        "failureMetadata": {"failureReason": reason, "retryable": False, "category": "DEVICE"},
    }  # fmt: skip


def _now():
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _device(endpoint, name):
    return {
        "deviceArn": ARNS[name],
        "deviceName": name,
        "providerName": "a test",
        "deviceType": "QPU" if "/qpu/" in ARNS[name] else "SIMULATOR",
        "deviceStatus": _status(endpoint, name),
    }


def _status(endpoint, name):
    if name in endpoint.retired:
        return "RETIRED"
    return "OFFLINE" if name in endpoint.offline else "ONLINE"


def _route(endpoint, method, path, body):
    """``(route, work)``; the work returns a status and what is sent as JSON."""
    parts = path.strip("/").split("/", 1)
    rest = unquote(parts[1]) if len(parts) > 1 else ""
    match (method, parts[0]):
        case ("GET", "device"):
            return "device", lambda: _get_device(endpoint, rest)
        case ("POST", "devices"):
            return "device", lambda: (
                200, {"devices": [_device(endpoint, name) for name in ARNS]})  # fmt: skip
        case ("POST", "quantum-task"):
            return "create", lambda: endpoint.create(body)
        case ("POST", "quantum-tasks"):
            return "search", lambda: (200, {"quantumTasks": list(endpoint.tasks.values())})
        case ("GET", "quantum-task"):
            return "get", lambda: (200, endpoint.tasks[rest])
        case ("POST", "spending-limit"):
            return "limit", lambda: endpoint.make_limit(body)
        case ("POST", "spending-limits"):
            return "limits", lambda: (200, {"spendingLimits": list(endpoint.limits.values())})
        case ("DELETE", "spending-limit"):
            return "unlimit", lambda: _unlimit(endpoint, rest.removesuffix("/delete"))
        case ("PUT", "quantum-task"):
            return "cancel", lambda: _cancel(endpoint, rest.removesuffix("/cancel"))
    raise LookupError(f"{method} {path}")


def _get_device(endpoint, arn):
    for name, known in ARNS.items():
        if known == arn:
            able = json.loads(_CAPABILITIES[name])
            if name in endpoint.shots:
                able["service"]["shotsRange"][1] = endpoint.shots[name]
            if "/qpu/" in arn and endpoint.executables:
                most = endpoint.most(arn)
                able["action"] |= capabilities.program_sets(endpoint.executables, most)
            return 200, _device(endpoint, name) | {"deviceCapabilities": json.dumps(able)}
    return 404, {"message": f"no device {arn}"}


def _region_of(route, path):
    """Region of the device that is asked for; the call's own is in its signature only."""
    return unquote(path).split(":")[3] if route == "device" and ":" in unquote(path) else None


def _cancel(endpoint, arn):
    endpoint.tasks[arn] |= {"status": "CANCELLED", "endedAt": _now()}
    return 200, {"quantumTaskArn": arn, "cancellationStatus": "CANCELLING"}


def _unlimit(endpoint, arn):
    if endpoint.limits.pop(arn, None) is None:
        return 404, {"message": f"no spending limit {arn}"}
    return 200, {}


_ERRORS = {400: "ValidationException", 404: "ResourceNotFoundException"}


def _handler(endpoint):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *words):
            pass

        def answer(self, status, data=b"", kind="application/json", headers=()):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def refuse(self, status, kind, message="as the test wants it", **more):
            data = json.dumps({"message": message, **more}).encode()
            self.answer(status, data, headers=[("x-amzn-ErrorType", kind)])

        def serve(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = urlsplit(self.path).path
            if path == "/prices.csv":
                if endpoint.prices is None:
                    return self.answer(503)
                return self.answer(200, endpoint.prices.encode(), "text/csv")
            if path == "/":
                return self.answer(200, _IDENTITY, "text/xml")
            if path.startswith("/amazon-braket-"):
                return self.s3(unquote(path[1:]))
            route, work = _route(endpoint, self.command, path, body)
            endpoint.calls.append(route)
            with endpoint._lock:
                fault = endpoint._fault(route) or endpoint.denied.get(_region_of(route, path))
                if fault is None or fault.after:
                    status, content = work()
            if fault is not None:
                return self.refuse(fault.status, fault.kind)
            if status >= 400:
                return self.refuse(status, _ERRORS[status], **content)
            return self.answer(status, json.dumps(content).encode())

        def s3(self, key):
            if self.command == "GET":
                with endpoint._lock:
                    fault, data = endpoint._fault("s3"), endpoint.objects.get(key)
                if fault is not None:
                    return self.answer(fault.status, _s3_error(fault.kind), "application/xml")
                if data is None:
                    return self.answer(404, _s3_error("NoSuchKey"), "application/xml")
                return self.answer(200, data)
            with endpoint._lock:
                fault = endpoint._fault("bucket")
            if fault is not None:
                return self.answer(fault.status, _s3_error(fault.kind), "application/xml")
            return self.answer(200)

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = serve  # noqa: N815

    return Handler


def _s3_error(code):
    return f"<Error><Code>{code}</Code><Message>as the test wants it</Message></Error>".encode()


_IDENTITY = f"""<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<GetCallerIdentityResult><Arn>arn:aws:iam::{ACCOUNT}:user/test</Arn><UserId>U</UserId>
<Account>{ACCOUNT}</Account></GetCallerIdentityResult></GetCallerIdentityResponse>""".encode()
