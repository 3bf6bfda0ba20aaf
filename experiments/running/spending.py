"""Spending limits of Amazon Braket for the length of a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from experiments.errors import StudyError
from experiments.study.spec import SolverSpec
from experiments.study.study import Study
from solvers.errors import SolverError
from solvers.registry import make

if TYPE_CHECKING:
    from solvers.cloud.devices import Device

# Seconds that a limit holds beyond the longest wait for a task, should nobody remove it.
SLACK = 3600.0


@contextmanager
def spending_limits(study: Study, run: str, say: Callable[[str], None]) -> Iterator[None]:
    """Limits, for what its caps leave, on the QPUs that a study's solvers send tasks to.

    A device that has a limit of somebody else keeps that one. Those made here are removed in the
    end; one that is left of the same run, which was killed, is made anew.

    Args:
        study: its paid solvers need `max_cost`.
        run: what tells this run from others, the same when it is resumed.
        say: told about each limit.

    Raises:
        StudyError: no solver sends tasks to a QPU, or a cap is missing.
        OfflineError: a limit cannot be looked up or made: nothing was submitted.
    """
    left = _left(study)
    if not left:
        raise StudyError(
            "solvers: none of them sends tasks to a QPU of Amazon Braket, so there is nothing to "
            "limit: leave out --aws-spending-limit"
        )
    with ExitStack() as stack:
        for device, (usd, seconds) in left.items():
            stack.enter_context(_limited(device, usd, seconds, run, say))
        yield


@contextmanager
def _limited(
    device: Device, usd: float, seconds: float, run: str, say: Callable[[str], None]
) -> Iterator[None]:
    from solvers.cloud.spending import SpendingLimits

    limits = SpendingLimits(device)
    others = []
    for limit in limits.existing():
        if limit.run == run:
            limits.remove(limit)
        else:
            others.append(limit)
    for limit in others:
        say(f"AWS spending limit, not of this run: {limit}")
    if others:
        say(f"{device.name} keeps the limit that it has; max_cost holds as well")
        yield
        return
    made = limits.create(usd, seconds + SLACK, run)
    say(f"AWS spending limit made for this run: {made}")
    try:
        yield
    finally:
        try:
            limits.remove(made)
            say(f"AWS spending limit of this run removed from {device.name}")
        except SolverError as error:
            say(f"{error}; {made.arn} is left until {made.until:%F %H:%M} UTC")


def _left(study: Study) -> dict[Device, tuple[float, float]]:
    """QPU -> USD that the caps on it leave, and the longest wait for a task in seconds."""
    caps: dict[tuple[Device, str], list[Any]] = defaultdict(list)
    for spec in study.specs:
        sampler = _made(spec) if spec.paid else None
        device = getattr(sampler, "device", None)
        if sampler is not None and device is not None and device.is_qpu and not sampler.rehearse:
            caps[device, sampler.journal_path].append(sampler)
    found: dict[Device, tuple[float, float]] = {}
    for (device, _), samplers in caps.items():
        # Solvers that share a journal share its total.
        usd = max(sampler.left_to_spend() for sampler in samplers)
        seconds = max(sampler.poll_timeout for sampler in samplers)
        before = found.get(device, (0.0, 0.0))
        found[device] = (before[0] + usd, max(before[1], seconds))
    return {device: amounts for device, amounts in found.items() if amounts[0] > 0}


def _made(spec: SolverSpec) -> Any:
    try:
        return make(spec.name, **spec.options)
    except (SolverError, TypeError, ValueError) as error:
        raise StudyError(f"solvers: {spec.label}: {error}") from error
