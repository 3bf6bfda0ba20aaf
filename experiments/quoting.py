"""What a study costs on services that bill for it, before anything is submitted."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from experiments.errors import StudyError
from experiments.instances import register
from experiments.store import Store
from experiments.study import Cell, SolverSpec, Study
from solvers.base import CardinalitySampler
from solvers.errors import SolverError
from solvers.registry import make, registered


@dataclass(frozen=True)
class SolverQuote:
    """What one solver of a study costs.

    Attributes:
        solver: its label.
        device: short name; empty where no price is known.
        source: of the prices.
        tasks: that it would send.
        usd_at_least: of all of them; simulators at 3 s each. None: no price is known.
        usd_at_most: of all of them; simulators at the solver's `task_seconds` each.
        max_cost: USD that the study lets it spend; None if it does not say.
    """

    solver: str
    device: str
    source: str
    tasks: int
    usd_at_least: float | None
    usd_at_most: float | None
    max_cost: float | None


def quote(study: Study, *, offline: bool = False, progress: bool = True) -> list[SolverQuote]:
    """Prices every cell of the solvers that cost money: instances, budgets and seeds.

    Left out are cells that send no task: the instance is too large for the device or the solver, or
    has one feasible state only. Nothing is submitted and no account is needed.

    Args:
        study: what would be run into an empty store.
        offline: use the committed price table only.
        progress: show a bar or a line while instances are read.

    Returns:
        One entry a solver that costs money, in the study's order.

    Raises:
        StudyError: no solver costs money, the blocks come from a loop, or shots or a device that
            cannot be had.
    """
    if study.loop is not None:
        raise StudyError("loop: its blocks depend on the answers to earlier ones; leave it out")
    samplers = {position: _made(spec) for position, spec in enumerate(study.specs) if spec.paid}
    if not samplers:
        names = ", ".join(name for name, known in registered().items() if known.paid)
        raise StudyError(f"solvers: none of them costs money (those that do: {names})")
    cells = _with_a_choice(study, progress)
    return [
        _quoted(
            study.specs[position],
            sampler,
            [cell for cell in cells if cell.solver == position],
            offline,
        )
        for position, sampler in samplers.items()
    ]


def _made(spec: SolverSpec) -> CardinalitySampler:
    try:
        return make(spec.name, **spec.options)
    except (SolverError, TypeError, ValueError) as error:
        raise StudyError(f"solvers: {spec.label}: {error}") from error


def _with_a_choice(study: Study, progress: bool) -> list[Cell]:
    """The cells whose instance has more than one feasible state."""
    study = replace(study, pruning=())
    with (
        tempfile.TemporaryDirectory() as folder,
        Store(Path(folder) / "quote.sqlite", create=True) as store,
    ):
        sizes = register(study, store, progress=progress)
        ones = {instance: store.problem(instance).cardinality for instance in sizes}
    return [cell for cell in study.cells(sizes) if 0 < ones[cell.instance] < cell.n]


def _quoted(
    spec: SolverSpec, sampler: CardinalitySampler, cells: list[Cell], offline: bool
) -> SolverQuote:
    limits = (sampler.max_variables, spec.max_variables)
    sent = [cell for cell in cells if all(most is None or cell.n <= most for most in limits)]
    cap = spec.options.get("max_cost")
    if not hasattr(sampler, "quote"):
        # Services that bill seconds by contract.
        return SolverQuote(spec.label, "", "", len(sent), None, None, cap)
    least = most = 0.0
    try:
        device = sampler.priced(offline=offline)
        for reads, tasks in Counter(cell.budget.reads for cell in sent).items():
            low, high = sampler.quote(device, reads)
            least, most = least + tasks * low, most + tasks * high
    except SolverError as error:
        raise StudyError(f"solvers: {spec.label}: {error}") from error
    return SolverQuote(spec.label, device.name, device.source, len(sent), least, most, cap)
