"""Runs on devices that cost money or quota: which device, was it hardware, what was paid."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

import pandas as pd

from experiments.metrics.references import SCORED
from solvers.cloud.devices import find_device
from solvers.errors import SolverError
from solvers.registry import registered

QPU, SIMULATOR, SERVICE = "quantum processor", "cloud simulator", "hybrid cloud service"
# Those that charge seconds, not USD.
_SECONDS = {
    "qpu": (QPU, "D-Wave's annealer"),
    "leap-hybrid-cqm": (SERVICE, "D-Wave's Leap"),
    "leap-hybrid-nl": (SERVICE, "D-Wave's Leap"),
    "qaoa-xy-ibm": (QPU, "IBM's"),
}
_STAND_INS = {
    "qpu": "D-Wave's mock sampler",
    "leap-hybrid-cqm": "simulated annealing",
    "leap-hybrid-nl": "swap descent",
    "qaoa-xy-ibm": "a local backend of qiskit-ibm-runtime",
}


def paid(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of solvers that cost money or quota, with what they say of it.

    Returns:
        Rows of `runs` with columns device, kind (`QPU`, `SIMULATOR`, `SERVICE`), region (of AWS),
        rehearsal, noisy (of a rehearsal: whether it had the device's noise), task (None: nothing
        was submitted), place (of its circuit in the task), charged and reserved (USD, its share of
        the task; NaN: not known), seconds (of quota), shots (of its circuit; NaN: not known) and
        prices (where they come from).
    """
    entries = registered()
    costly = {name for name in set(runs["solver_name"]) if name in entries and entries[name].paid}
    own = runs[runs["solver_name"].isin(costly)]
    said = [
        _said(str(name), _table(info), _table(options))
        for name, info, options in zip(own["solver_name"], own["info"], own["options"], strict=True)
    ]
    names = ["device", "kind", "region", "rehearsal", "noisy", "task", "place", "charged",
             "reserved", "seconds", "prices"]  # fmt: skip
    told = pd.DataFrame(said, columns=names, index=own.index, dtype=object)
    for name in ("charged", "reserved", "seconds"):
        told[name] = told[name].astype("float64")
    asked = [_number(_table(budget).get("reads")) for budget in own["budget"]]
    shots = own["reads"].fillna(pd.Series(asked, own.index, dtype="float64"))
    told = told.astype({"rehearsal": bool, "noisy": bool})
    return pd.concat([own, told], axis=1).assign(shots=shots)


def _said(name: str, info: dict[str, Any], settings: dict[str, Any]) -> list[Any]:
    options, child = settings.get("options"), info.get("child")
    options = options if isinstance(options, dict) else {}
    info = {**child, **info} if isinstance(child, dict) else info
    if name in _SECONDS:
        kind, device = _SECONDS[name]
        region = ""
        chip = next(
            (one for one in (info.get("chip"), info.get("device"), options.get("chip"),
                             options.get("backend")) if isinstance(one, str)), "",
        )  # fmt: skip
        device = f"{device} {chip}".rstrip()
    else:
        kind, device, region = _device(info.get("device") or options.get("device"))
    rehearsal = bool(info.get("rehearsal", options.get("rehearse", False)))
    numbers = [_number(info.get(key)) for key in ("charged", "reserved", "service_seconds")]
    texts = [value if isinstance(value, str) else None
             for value in (info.get("task"), info.get("price_source"))]  # fmt: skip
    if texts[0] and texts[0].startswith("arn:") and texts[0].count(":") > 4:
        region = texts[0].split(":")[3]
    noisy = rehearsal and ("emulator" in info or str(info.get("device")).startswith("fake_"))
    together = info.get("program_set")
    place = together.get("place") if isinstance(together, dict) else 0
    return [device, kind, region, rehearsal, noisy, texts[0], place, *numbers, texts[1]]


def _device(name: Any) -> tuple[str, str, str]:
    """Kind, short name and region of a device of Amazon Braket."""
    try:
        found = find_device(str(name))
    except SolverError:
        return "device", str(name), ""
    return (QPU if found.is_qpu else SIMULATOR), found.name, found.region


def dated(source: str) -> str:
    """Where prices come from, in a few words, with the date that the price list has."""
    date = re.search(r"\d{4}-\d{2}-\d{2}", source)
    if date is None:
        return source or "a price list without a date"
    if source.startswith("committed"):
        return f"this program's price table of {date[0]}"
    return f"the AWS price list of {date[0]}"


@dataclass(frozen=True)
class Use:
    """What one solver did on one device.

    Attributes:
        solver: its label.
        solver_name: its name in the registry.
        device: short name.
        kind: `QPU`, `SIMULATOR` or `SERVICE`.
        region: of AWS; empty where there is none.
        rehearsal: whether something on this machine stood in for it.
        noisy: whether that had the device's noise, as far as it is known.
        runs: all, failed ones included.
        done: those with an answer.
        pending: those whose task is submitted and not collected.
        tasks: submitted, each counted once.
        circuits: in these tasks, several in a program set.
        shots: of each circuit, the different numbers there are.
        quoted: USD at most, as reckoned before.
        charged: USD, of the tasks whose charge is known.
        unknown: tasks whose charge is not.
        at_most: USD that these may have cost.
        seconds: of quota, for services that count those.
        prices: where the prices come from.
    """

    solver: str
    solver_name: str
    device: str
    kind: str
    region: str
    rehearsal: bool
    noisy: bool
    runs: int
    done: int
    pending: int
    tasks: int
    circuits: int
    shots: tuple[int, ...]
    quoted: float
    charged: float
    unknown: int
    at_most: float
    seconds: float
    prices: str

    @property
    def place(self) -> str:
        """Where its circuits really ran, in words."""
        if self.rehearsal:
            stand_in = _STAND_INS.get(self.solver_name, "Braket's local simulator")
            if self.noisy and self.solver_name not in _STAND_INS:
                stand_in = f"Braket's emulator of {self.device}, with noise,"
            return f"{stand_in} on this machine, a rehearsal for the {self.kind} {self.device}"
        hardware = "real hardware" if self.kind == QPU else "no quantum hardware"
        return f"the {self.kind} {self.device}, {hardware}"

    @property
    def cost(self) -> str:
        """What was paid, in words."""
        if self.rehearsal:
            return "nothing"
        if self.solver_name in _SECONDS:
            return f"{self.seconds:.3g} s of quota"
        text = f"{self.charged:.2f} USD"
        if self.unknown:
            text += f", and at most {self.at_most:.2f} USD that only the bill tells"
        return text

    @property
    def sum(self) -> str:
        """How the price comes about: tasks, shots, price of each; empty where that is not known."""
        price = self.quoted if self.rehearsal else self.charged
        known = self.tasks if self.circuits > self.tasks else self.tasks - self.unknown
        if not known or not price or len(self.shots) != 1:
            return ""
        each = price / known
        if self.circuits > self.tasks:
            return (
                f"{self.circuits} circuits of {self.shots[0]} shots in {known} {_tasks(known)} x "
                f"{each:.2f} USD"
            )
        text = f"{known} {_tasks(known)} of {self.shots[0]} shots x {each:.2f} USD"
        try:
            device = find_device(self.device)
            listed = device.source and math.isclose(device.price(self.shots[0]), each)
        except SolverError:
            return text
        if listed and device.is_qpu:
            text += f", each {device.per_task:.2f} + {self.shots[0]} x {device.per_shot:g} USD"
        return text

    @property
    def sentence(self) -> str:
        """Where it ran and what that cost, for the top of a page."""
        answers = f"{self.done} of {self.runs} runs gave an answer"
        if self.rehearsal:
            return (
                f"Rehearsal: {self.solver} ran on {self.place}. No device was used and nothing was "
                f"paid; {answers}."
            )
        waiting = f"; {self.pending} wait for the device" if self.pending else ""
        tasks = f", {self.tasks} {_tasks(self.tasks)}" if self.tasks else ""
        return f"{self.solver} ran on {self.place}{tasks}: {answers}{waiting}. {self._paid}"

    @property
    def _paid(self) -> str:
        if self.solver_name in _SECONDS:
            return f"Used: {self.cost}."
        how = f" = {self.sum}" if self.sum else ""
        source = (
            f"; estimated from {dated(self.prices)}, not read from a bill" if self.prices else ""
        )
        before = f" At most {self.quoted:.2f} USD were expected." if self.quoted > 0 else ""
        return f"Cost: {self.cost}{how}{source}.{before}"

    def decision(self, finding: str) -> str:
        """What a rehearsal is for: whether to pay for the device; empty for anything else.

        Args:
            finding: of `chance.of_use`.
        """
        if not self.rehearsal:
            return ""
        price = "what it costs"
        if self.quoted > 0:
            how = f": {self.sum}" if self.sum else ""
            price = f"at most {self.quoted:.2f} USD (from {dated(self.prices)}{how})"
        text = f"This helps to decide one thing: whether to run it on {self.device} for {price}."
        if "no better than guessing" in finding:
            noise = (
                "the shots" if self.noisy else "a device adds noise, and even without it the shots"
            )
            return f"{text} Nothing here speaks for it: {noise} are no better than guessing."
        if self.noisy:
            return (
                f"{text} The noise is that of published figures and assumptions, not of the device "
                "on the day."
            )
        return f"{text} A device adds noise, so expect worse answers than these."


def _tasks(count: int) -> str:
    return "task" if count == 1 else "tasks"


def uses(runs: pd.DataFrame) -> list[Use]:
    """One entry a solver and device."""
    found = []
    keys = ["solver", "solver_name", "device", "kind", "region", "rehearsal", "noisy"]
    for key, part in paid(runs).groupby(keys, sort=False):
        solver, name, device, kind, region, rehearsal, noisy = key
        # A circuit that several rows collected was paid for once.
        tasks = part[part["task"].notna()].drop_duplicates(["task", "place"])
        unknown = tasks[tasks["charged"].isna()]
        found.append(
            Use(
                str(solver),
                str(name),
                str(device),
                str(kind),
                str(region),
                bool(rehearsal),
                bool(noisy),
                runs=len(part),
                done=int(part["status"].isin(SCORED).sum()),
                pending=int((part["pending"] == 1).sum()),
                tasks=tasks["task"].nunique(),
                circuits=len(tasks),
                shots=tuple(sorted({int(one) for one in tasks["shots"].dropna()})),
                quoted=float(part["quote"].sum()),
                charged=float(tasks["charged"].sum()),
                unknown=len(unknown),
                at_most=float(unknown["reserved"].sum()),
                seconds=float(part["seconds"].sum()),
                prices=", ".join(sorted(set(tasks["prices"].dropna()))),
            )
        )
    return found


def _table(text: Any) -> dict[str, Any]:
    try:
        value = json.loads(text) if isinstance(text, str) else {}
    except ValueError:  # a store may come from anybody
        return {}
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
