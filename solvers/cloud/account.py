"""The calls of a journal: their rows, their tasks, what they cost and what became of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from solvers.cloud.devices import Device
from solvers.cloud.journal import Entry, Journal


class Account:
    """What the journal says of calls on one device.

    Args:
        journal: with a row for each part of a call, and one for each program set.
        device: with its prices.
        task_seconds: of a task on a simulator, at most.
        rehearsal: whether nothing is charged.
    """

    def __init__(
        self, journal: Journal, device: Device, task_seconds: float, *, rehearsal: bool
    ) -> None:
        self.journal = journal
        self._device = device
        self._task_seconds = task_seconds
        self._rehearsal = rehearsal

    def price(self, shots: int, executables: int = 1) -> float:
        """USD at most of a circuit's shots; of a program set each circuit pays its share."""
        return self._device.price(shots * executables, self._task_seconds) / executables

    def entry(self, key: str) -> Entry:
        """The row of a key that the journal has."""
        entry = self.journal.get(key)
        assert entry is not None
        return entry

    def entries(self, call: str) -> list[Entry]:
        """The rows of a call, in order; none if it was never reserved."""
        first = self.journal.get(call)
        if first is None:
            return []
        return [first, *map(self.entry, part_keys(call, first.note.get("parts", 1))[1:])]

    def known(self, call: str) -> bool:
        """Whether the call has a task, or may have one."""
        return any(entry.status != "REFUSED" for entry in self.entries(call))

    def task_of(self, entry: Entry) -> Entry:
        """The row whose task a row is run by: its own, or that of its program set."""
        return entry if entry.task is None else self.entry(entry.task)

    def run_by(self, task: Entry) -> list[Entry]:
        """The rows that a task runs, in the order of its programs."""
        return [self.entry(key) for key in task.note["calls"]] if is_set(task) else [task]

    def info(self, entry: Entry, *, pending: bool = False, status: str = "") -> dict[str, Any]:
        """For a sample set's ``info``: the money of a call and the state of its tasks.

        Args:
            entry: one of the call's rows.
            pending: whether the same call goes on later.
            status: of a task that the journal does not have yet.

        Returns:
            USD of the whole call: ``quote``, ``cost``, ``charged`` and ``reserved``, None where it
            is not known; of several tasks also ``parts``, each with its own; of a call in a program
            set ``program_set``, with its number of circuits and the call's place, from 0.
        """
        entries = self.entries(entry.note.get("call", entry.key))
        first = entries[0]
        said: dict[str, Any] = {
            # A device's price may be unknown by the time its task is collected.
            "quote": sum(map(self._quote, entries)) if self._device.source else None,
            "cost": _total(entry.answer.get("cost") for entry in entries),
            # Whether a task that ended without its shots is charged, only the bill tells.
            "charged": _total(map(self._charged, entries)),
            "reserved": sum(map(_reserved, entries)),
            "price_source": self._device.source,
            "task": first.arn,
            "task_status": status or ", ".join(sorted({entry.status for entry in entries})),
            "device": self._device.arn,
            "rehearsal": self._rehearsal,
            "pending": pending,
        }
        if "executables" in first.note:
            said["program_set"] = {key: first.note[key] for key in ("executables", "place")}
        if len(entries) > 1:
            said["parts"] = [
                {
                    "task": entry.arn,
                    "shots": entry.request["shots"],
                    "task_status": entry.status,
                    "reason": entry.reason,
                    "charged": self._charged(entry),
                    "reserved": _reserved(entry),
                }
                for entry in entries
            ]
        return said

    def _quote(self, entry: Entry) -> float:
        return self.price(entry.request["shots"], entry.note.get("executables", 1))

    def _charged(self, entry: Entry) -> float | None:
        if entry.status == "REFUSED" or self._rehearsal:
            return 0.0
        return entry.price if entry.rows is not None else None


def is_set(task: Entry) -> bool:
    """Whether the row is a program set's, which runs the rows of several calls."""
    return "calls" in task.note


def part_keys(call: str, count: int) -> list[str]:
    """The keys of a call's parts; the first is the call's."""
    return [call, *(call_key(call, place) for place in range(1, count))]


def call_key(*parts: Any) -> str:
    """SHA-256 (hex, 64 characters: the most a client token may have) of what makes up a call."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=repr).encode()).hexdigest()


def _reserved(entry: Entry) -> float:
    return 0.0 if entry.status == "REFUSED" else entry.price


def _total(amounts: Iterable[float | None]) -> float | None:
    """The sum, None if a summand is not known."""
    known = list(amounts)
    found = [amount for amount in known if amount is not None]
    return sum(found) if len(found) == len(known) else None
