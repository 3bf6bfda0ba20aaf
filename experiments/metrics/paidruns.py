"""Runs on devices that cost money or quota: which device, was it hardware, what was paid."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pandas as pd

from experiments.metrics.references import SCORED
from solvers.cloud.devices import find_device
from solvers.errors import SolverError
from solvers.registry import registered

QPU, SIMULATOR, SERVICE = "quantum processor", "cloud simulator", "hybrid cloud service"
_DWAVE = {"qpu": (QPU, "D-Wave's annealer"), "leap-hybrid-cqm": (SERVICE, "D-Wave's Leap")}
_STAND_INS = {"qpu": "D-Wave's mock sampler", "leap-hybrid-cqm": "simulated annealing"}


def paid(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of solvers that cost money or quota, with what they say of it.

    Returns:
        Rows of `runs` with columns device, kind (`QPU`, `SIMULATOR`, `SERVICE`), rehearsal, task
        (None: nothing was submitted), charged and reserved (USD; NaN: not known), seconds (of
        quota) and prices (where they come from).
    """
    entries = registered()
    costly = {name for name in set(runs["solver_name"]) if name in entries and entries[name].paid}
    own = runs[runs["solver_name"].isin(costly)]
    said = [
        _said(str(name), _table(info), _table(options))
        for name, info, options in zip(own["solver_name"], own["info"], own["options"], strict=True)
    ]
    names = ["device", "kind", "rehearsal", "task", "charged", "reserved", "seconds", "prices"]
    told = pd.DataFrame(said, columns=names, index=own.index, dtype=object)
    for name in ("charged", "reserved", "seconds"):
        told[name] = told[name].astype("float64")
    return pd.concat([own, told.astype({"rehearsal": bool})], axis=1)


def _said(name: str, info: dict[str, Any], settings: dict[str, Any]) -> list[Any]:
    options, child = settings.get("options"), info.get("child")
    options = options if isinstance(options, dict) else {}
    info = {**child, **info} if isinstance(child, dict) else info
    if name in _DWAVE:
        kind, device = _DWAVE[name]
        chip = info.get("chip") or options.get("chip")
        device = f"{device} {chip}" if isinstance(chip, str) else device
    else:
        kind, device = _device(info.get("device") or options.get("device"))
    rehearsal = bool(info.get("rehearsal", options.get("rehearse", False)))
    numbers = [_number(info.get(key)) for key in ("charged", "reserved", "service_seconds")]
    texts = [value if isinstance(value, str) else None
             for value in (info.get("task"), info.get("price_source"))]  # fmt: skip
    return [device, kind, rehearsal, texts[0], *numbers, texts[1]]


def _device(name: Any) -> tuple[str, str]:
    """Kind and short name of a device of Amazon Braket."""
    try:
        found = find_device(str(name))
    except SolverError:
        return "device", str(name)
    return (QPU if found.is_qpu else SIMULATOR), found.name


@dataclass(frozen=True)
class Use:
    """What one solver did on one device.

    Attributes:
        solver: its label.
        solver_name: its name in the registry.
        device: short name.
        kind: `QPU`, `SIMULATOR` or `SERVICE`.
        rehearsal: whether something on this machine stood in for it.
        runs: all, failed ones included.
        done: those with an answer.
        pending: those whose task is submitted and not collected.
        tasks: submitted, each counted once.
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
    rehearsal: bool
    runs: int
    done: int
    pending: int
    tasks: int
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
            return f"{stand_in} on this machine, a rehearsal for the {self.kind} {self.device}"
        hardware = "real hardware" if self.kind == QPU else "no quantum hardware"
        return f"the {self.kind} {self.device}, {hardware}"

    @property
    def cost(self) -> str:
        """What was paid, in words."""
        if self.rehearsal:
            return "nothing"
        if self.solver_name in _DWAVE:
            return f"{self.seconds:.3g} s of quota"
        text = f"{self.charged:.2f} USD"
        if self.unknown:
            text += f", and at most {self.at_most:.2f} USD that only the bill tells"
        return text

    @property
    def sentence(self) -> str:
        """All of it, for the top of a page."""
        answers = f"{self.done} of {self.runs} runs gave an answer"
        if self.rehearsal:
            price = f" On {self.device} the same would cost at most {self.quoted:.2f} USD."
            return (
                f"Rehearsal: {self.solver} ran on {self.place}. No device was used and nothing was "
                f"paid; {answers}.{price if self.quoted > 0 else ''} A real device answers worse "
                "than a simulator without noise."
            )
        waiting = f"; {self.pending} wait for the device" if self.pending else ""
        tasks = f", {self.tasks} {'task' if self.tasks == 1 else 'tasks'}" if self.tasks else ""
        source = f" ({self.prices})" if self.prices else ""
        before = f"; at most {self.quoted:.2f} USD were expected" if self.quoted > 0 else ""
        return (
            f"{self.solver} ran on {self.place}{tasks}: {answers}{waiting}. Paid: "
            f"{self.cost}{source}{before}."
        )


def uses(runs: pd.DataFrame) -> list[Use]:
    """One entry a solver and device."""
    found = []
    keys = ["solver", "solver_name", "device", "kind", "rehearsal"]
    for (solver, name, device, kind, rehearsal), part in paid(runs).groupby(keys, sort=False):
        # A task that several rows collected was paid for once.
        tasks = part[part["task"].notna()].drop_duplicates("task")
        unknown = tasks[tasks["charged"].isna()]
        found.append(
            Use(
                str(solver),
                str(name),
                str(device),
                str(kind),
                bool(rehearsal),
                runs=len(part),
                done=int(part["status"].isin(SCORED).sum()),
                pending=int((part["pending"] == 1).sum()),
                tasks=len(tasks),
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
