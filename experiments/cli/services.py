"""Services that cost money: devices."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.cli.app import AsJson, command
from experiments.cli.tables import print_table
from solvers.errors import OfflineError, UnavailableError

if TYPE_CHECKING:
    from solvers.cloud.devices import Device

COLUMNS = (
    "device", "status", "qubits", "shots a task", "circuits a task", "native gates", "region",
    "price",
)  # fmt: skip


@command("icbs devices", "icbs devices --live")
def devices(
    live: Annotated[
        bool, typer.Option("--live", help="Ask Amazon Braket, which needs an account.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the devices of Amazon Braket: status, qubits, shots, native gates, region, prices.

    The list comes with the package and has a date; retired devices say what to take in their place.
    With --live each device that is not retired is asked what it takes now, at today's prices.
    Nothing is submitted.
    """
    from solvers.cloud.devices import known_devices

    found = list(known_devices().values())
    silent: list[str] = []
    if live:
        found, silent = _asked(found)
    if as_json:
        listed = [asdict(one) | {"region": one.region} for one in found]
        print(json.dumps({"devices": listed, "not_reached": silent}))
    else:
        print_table("Amazon Braket", COLUMNS, [_row(one) for one in found])
        for source in sorted({one.source for one in found if not one.retired}):
            print(f"Prices: {source}")
    for reason in silent:
        print(f"icbs: as in the table: {reason}", file=sys.stderr)


def _asked(table: list[Device]) -> tuple[list[Device], list[str]]:
    """The devices as the service has them now, and why some are as the table has them.

    Raises:
        OfflineError: none could be asked.
    """
    from solvers.cloud.devices import priced
    from solvers.cloud.service import AwsService

    found: list[Device] = []
    silent: list[str] = []
    for device in table:
        if not device.retired:
            try:
                device = priced(AwsService(device).described())
            except UnavailableError as error:
                silent.append(str(error))
        found.append(device)
    if len(silent) == sum(not device.retired for device in table):
        raise OfflineError(silent[0])
    return found, silent


def _row(device: Device) -> tuple[str, ...]:
    least, most = device.shots
    status = device.status
    if device.retired:
        status = f"RETIRED {device.retired}: take {device.replacement}"
    price = f"${device.per_minute:g} a minute"
    if device.is_qpu:
        price = f"${device.per_task:.2f} a task, ${device.per_shot:g} a shot"
    return (
        device.name,
        status,
        str(device.qubits or "-"),
        f"{least:,} or more" if most is None else f"{least:,} to {most:,}",
        str(device.executables),
        " ".join(device.native_gates) or "any" * (not device.is_qpu) or "-",
        device.region or "the account's",
        price,
    )
