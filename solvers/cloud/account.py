"""What a call of paid tasks costs and became, as a sample set's ``info`` tells it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from solvers.cloud.devices import Device
from solvers.cloud.journal import Entry


def account(
    entries: Sequence[Entry],
    device: Device,
    task_seconds: float,
    *,
    rehearsal: bool,
    pending: bool = False,
    status: str = "",
) -> dict[str, Any]:
    """The money of a call and the state of its tasks.

    Args:
        entries: the call's rows in the journal, one a task, at least one.
        device: with its prices.
        task_seconds: of a task on a simulator, at most.
        rehearsal: whether nothing is charged.
        pending: whether the same call goes on later.
        status: of a task that the journal does not have yet.

    Returns:
        USD of the whole call: ``quote``, ``cost``, ``charged`` and ``reserved``, None where it is
        not known; of several tasks also ``parts``, each with its own.
    """
    said: dict[str, Any] = {
        # A device's price may be unknown by the time its task is collected.
        "quote": sum(device.price(entry.request["shots"], task_seconds) for entry in entries)
        if device.source
        else None,
        "cost": _total(entry.answer.get("cost") for entry in entries),
        # Whether a task that ended without its shots is charged, only the bill tells.
        "charged": _total(_charged(entry, rehearsal) for entry in entries),
        "reserved": sum(map(_reserved, entries)),
        "price_source": device.source,
        "task": entries[0].arn,
        "task_status": status or ", ".join(sorted({entry.status for entry in entries})),
        "device": device.arn,
        "rehearsal": rehearsal,
        "pending": pending,
    }
    if len(entries) > 1:
        said["parts"] = [
            {
                "task": entry.arn,
                "shots": entry.request["shots"],
                "task_status": entry.status,
                "reason": entry.reason,
                "charged": _charged(entry, rehearsal),
                "reserved": _reserved(entry),
            }
            for entry in entries
        ]
    return said


def _charged(entry: Entry, rehearsal: bool) -> float | None:
    if entry.status == "REFUSED" or rehearsal:
        return 0.0
    return entry.price if entry.rows is not None else None


def _reserved(entry: Entry) -> float:
    return 0.0 if entry.status == "REFUSED" else entry.price


def _total(amounts: Iterable[float | None]) -> float | None:
    """The sum, None if a summand is not known."""
    known = list(amounts)
    found = [amount for amount in known if amount is not None]
    return sum(found) if len(found) == len(known) else None
