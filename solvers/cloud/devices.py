"""Devices of Amazon Braket, and what a task on them costs.

Prices and limits come from the committed table ``devices.toml`` (with its source and date), prices,
where it is reachable, from AWS's public price list, which needs no account. A QPU charges per task
and per shot; a simulator per minute of run time, 3 seconds at least.
"""

from __future__ import annotations

import csv
import os
import re
import tomllib
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import cache
from importlib.resources import files
from urllib.error import URLError
from urllib.request import urlopen

from solvers.errors import CostError, OfflineError, ParameterError, UnavailableError

OFFERS = "https://pricing.us-east-1.amazonaws.com/offers/v1.0/aws/AmazonBraket/current/index.csv"
MIN_SECONDS = 3.0
# Older than this the committed table says so.
MAX_TABLE_DAYS = 90
# Angles are trained on this machine, which bounds the size of a problem as the device does.
MAX_VARIABLES = 24
# A density matrix of 10 qubits has a million entries, of 12 sixteen.
MAX_EMULATED = 10
# What a simulator task may run before it is cancelled, unless said otherwise.
DEFAULT_TASK_SECONDS = 60.0
_ARN = re.compile(r"arn:aws:braket:([a-z0-9-]*)::device/(qpu|quantum-simulator)/([\w-]+)/([\w-]+)")


@dataclass(frozen=True)
class Limits:
    """What a device takes: as the committed table has it, or as the service says now.

    Attributes:
        unavailable: why it takes no tasks, empty if it does.
        retired: whether it never will again.
        replacement: what to take in place of a retired one; empty where nothing is known.
        qubits: largest circuit; None if it is not known.
        shots: fewest and most of a task; the most is None if it is not known.
        executables: circuits of a program set, at most; 1 where it takes none.
        set_shots: fewest and most of a whole program set; the most is None if it is not known.
        poll_seconds: how often to ask for a task.
    """

    unavailable: str = ""
    retired: bool = False
    replacement: str = ""
    qubits: int | None = None
    shots: tuple[int, int | None] = (1, None)
    executables: int = 1
    set_shots: tuple[int, int | None] = (1, None)
    poll_seconds: float = 1.0

    def sets(self, calls: int, shots: int) -> list[int]:
        """Circuits of each task that calls of as many shots take: 1, or those of a program set.

        The sets are few, and as equal as can be.

        Args:
            calls: >= 0, with one circuit each.
            shots: of each of them.
        """
        least, most = self.set_shots
        room = self.executables if most is None else min(self.executables, most // max(shots, 1))
        if room < 2 or (self.shots[1] is not None and shots > self.shots[1]):
            return [1] * calls
        count = -(-calls // room)
        sizes = [calls // count + (place < calls % count) for place in range(count)]
        # Of too few shots in all nothing is a set.
        return [one for size in sizes for one in ([size] if size * shots >= least else [1] * size)]

    def parts(self, name: str, shots: int, qubits: int = 0) -> list[int]:
        """Shots of the tasks that a call takes: one, or as few and as equal as fit the most of one.

        Args:
            name: of the device.
            shots: of the call.
            qubits: of its circuit.

        Raises:
            UnavailableError, ParameterError: see `check`.
        """
        most = self.shots[1] or max(shots, 1)
        count = max(1, -(-shots // most))
        parts = [shots // count + (place < shots % count) for place in range(count)]
        self.check(name, parts[-1], qubits)
        return parts

    def check(self, name: str, shots: int, qubits: int = 0) -> None:
        """Raises if a task could not run.

        Args:
            name: of the device.
            shots: of the task.
            qubits: of its circuit.

        Raises:
            OfflineError: the device takes no tasks now.
            UnavailableError: it never will again, or takes none of this size.
            ParameterError: shots it does not take.
        """
        nothing = f"{self.unavailable}: nothing was submitted"
        if self.retired:
            instead = f"take {self.replacement} in its place, or another device"
            if not self.replacement:
                instead = f"take another device: {current_names()}"
            raise UnavailableError(f"{nothing}; {instead}")
        if self.unavailable:
            raise OfflineError(f"{nothing}; try again later")
        if self.qubits is not None and qubits > self.qubits:
            raise UnavailableError(
                f"{name} has {self.qubits} qubits, the circuit needs {qubits}: nothing was "
                "submitted; take a smaller block"
            )
        least, most = self.shots
        if shots < least or (most is not None and shots > most):
            takes = f"{least} or more" if most is None else f"{least} to {most}"
            raise ParameterError(
                f"shots is {shots}, {name} takes {takes} a task: nothing was submitted"
            )


@dataclass(frozen=True)
class Device:
    """One device.

    Attributes:
        name: short name.
        arn: its ARN; simulators have no region in it.
        status: ONLINE, OFFLINE or RETIRED on the day of the table; empty where it does not know it.
        qubits: how many it has; None where the table does not know it.
        shots: fewest and most of a task; the most is None where the table does not know it.
        executables: circuits of a program set, one task for them all, at most; 1 where the table
            knows of none.
        native_gates: that its compiler ends at; empty for simulators and where they are not known.
        retired: month in which it was withdrawn from the service; empty if it is there.
        replacement: short name of what to take in place of a retired one.
        per_task: USD a task.
        per_shot: USD a shot.
        per_minute: USD a minute of run time.
        source: where the prices come from, with a date; empty where there are none.
    """

    name: str
    arn: str
    status: str = ""
    qubits: int | None = None
    shots: tuple[int, int | None] = (1, None)
    executables: int = 1
    native_gates: tuple[str, ...] = ()
    retired: str = ""
    replacement: str = ""
    per_task: float = 0.0
    per_shot: float = 0.0
    per_minute: float = 0.0
    source: str = ""

    @property
    def is_qpu(self) -> bool:
        """Whether it is hardware; a simulator otherwise."""
        return "/qpu/" in self.arn

    @property
    def region(self) -> str:
        """AWS region of a QPU; empty for a simulator."""
        return self.arn.split(":")[3]

    @property
    def max_variables(self) -> int:
        """Largest problem that the solvers send there, unless they are told otherwise."""
        return min(MAX_VARIABLES, self.qubits or MAX_VARIABLES)

    @property
    def limits(self) -> Limits:
        """What the table says that it takes."""
        gone = f"{self.name} was retired in {self.retired}" if self.retired else ""
        takes = (self.qubits, self.shots, self.executables, self.shots)
        return Limits(gone, bool(gone), self.replacement, *takes)

    def price(self, shots: int, seconds: float = MIN_SECONDS) -> float:
        """USD for one task.

        Args:
            shots: >= 1.
            seconds: run time on a simulator, of which at least 3 are billed; QPUs do not charge it.

        Raises:
            ParameterError: fewer than one shot.
            CostError: no price is known.
        """
        if isinstance(shots, bool) or int(shots) != shots or shots < 1:
            raise ParameterError(f"shots is {shots!r} on {self.name}: ask for 1 at least")
        if not self.source:
            raise CostError(
                f"no price is known for {self.arn}: it is not in the committed table and the "
                "price list was not reachable or does not have it"
            )
        minutes = max(seconds, MIN_SECONDS) / 60
        return self.per_task + shots * self.per_shot + minutes * self.per_minute


@cache
def known_devices() -> dict[str, Device]:
    """The committed table, by short name; with retired devices, whose tasks may be uncollected."""
    table = tomllib.loads(files("solvers.cloud").joinpath("devices.toml").read_text("utf-8"))
    age = aged(table["date"], today())
    source = f"committed table of {table['date']}{age}: {table['source']}"
    lists = ("shots", "native_gates")
    return {
        name: Device(
            name,
            source=source,
            **entry | {key: tuple(entry[key]) for key in lists if key in entry},
        )
        for name, entry in table["devices"].items()
    }


def today() -> date:
    """The day, UTC."""
    return datetime.now(UTC).date()


def aged(published: str, day: date) -> str:
    """What to say of a table of an ISO date that may be out of date; empty up to 90 days.

    It is part of a price's source, and so stands wherever the live price list was not reached.
    """
    days = (day - date.fromisoformat(published)).days
    if days <= MAX_TABLE_DAYS:
        return ""
    return f" (warning: {days} days old; prices, limits and status may have changed)"


def current_names() -> str:
    """Short names of the devices that are not retired, for messages."""
    return ", ".join(name for name, device in known_devices().items() if not device.retired)


def find_device(name: str) -> Device:
    """A device by short name (any case) or ARN, with the committed prices if there are any.

    Raises:
        ParameterError: neither a known name nor an ARN of a Braket device.
    """
    for device in known_devices().values():
        if name.lower() in (device.name.lower(), device.arn.lower()):
            return device
    match = _ARN.fullmatch(name)
    if match is None:
        raise ParameterError(
            f"device is {name!r}, expected an ARN of a Braket device or one of {current_names()}"
        )
    return Device(match[4], name)


def priced(device: Device) -> Device:
    """The device with today's price list where it is reachable and has it."""
    rows = _offers(os.environ.get("BRAKET_PRICE_OFFERS_URL", OFFERS))
    found = _from_offers(device, rows or [])
    return device if found is None else found


def live() -> bool:
    """Whether the price list is reachable; asked for once a process and address."""
    return _offers(os.environ.get("BRAKET_PRICE_OFFERS_URL", OFFERS)) is not None


@cache
def _offers(url: str) -> list[dict[str, str]] | None:
    """The rows of AWS's offer file: five lines about the file, the header, one line a product."""
    try:
        with urlopen(url, timeout=5) as reply:  # noqa: S310 - a fixed address or the user's own
            lines = reply.read().decode("utf-8").splitlines()
    except (URLError, OSError, ValueError):
        return None
    about = [line for line in lines[:5] if "Publication Date" in line]
    published = about[0].split(",")[-1].strip('"') if about else "unknown date"
    return [row | {"published": published} for row in csv.DictReader(lines[5:])]


def _from_offers(device: Device, rows: list[dict[str, str]]) -> Device | None:
    """Prices as the SDK's tracker looks them up, or None if the list does not have them all."""

    def usd(family: str, column: str, name: str) -> float | None:
        prices = {
            float(row["PricePerUnit"]) * (60.0 if row.get("Unit") == "seconds" else 1.0)
            for row in rows
            if row.get("Product Family") == family
            and row.get(column, "").lower() == name.lower()
            and row.get("Currency") == "USD"
            and device.region in ("", row.get("Region Code"))
        }
        # Regions may differ; the dearest is the safe one.
        return max(prices) if prices else None

    if device.is_qpu:
        task = usd("Quantum Task", "DeviceName", device.name)
        shot = usd("Quantum Task-Shot", "DeviceName", device.name)
        if task is None or shot is None:
            return None
        found = replace(device, per_task=task, per_shot=shot)
    else:
        minute = usd("Simulator Task", "Version", device.name)
        if minute is None:
            return None
        found = replace(device, per_minute=minute)
    return replace(found, source=f"AWS Price List of {rows[0]['published']}")
