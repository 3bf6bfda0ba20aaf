"""What a study costs on services that bill for it, before anything is submitted.

A closed loop is quoted at most: every block of every step is a task, in every layer that the loop
may choose. What those blocks are depends on earlier answers; what a task costs does not.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from experiments.errors import StudyError
from experiments.instances.register import register
from experiments.store.database import Store
from experiments.study.cells import Cell
from experiments.study.sources import LoopSource
from experiments.study.spec import SolverSpec
from experiments.study.study import Study
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
        tasks: that it would send; at most, where it drives a loop.
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
    has one feasible state only. A loop counts at most: the steps of every seed, one to warm up, and
    what the first solver does for others. Nothing is submitted and no account is needed.

    Args:
        study: what would be run into an empty store.
        offline: use the committed price table only.
        progress: show a bar or a line while instances are read.

    Returns:
        One entry a solver that costs money, in the study's order.

    Raises:
        StudyError: no solver costs money, shots or a device that cannot be had, or a loop whose
            blocks are too large for a solver that drives it.
    """
    samplers = {position: _made(spec) for position, spec in enumerate(study.specs) if spec.paid}
    if not samplers:
        names = ", ".join(name for name, known in registered().items() if known.paid)
        raise StudyError(f"solvers: none of them costs money (those that do: {names})")
    blocks = {} if study.loop is None else _of_a_step(study.loop)
    cells = _with_a_choice(study, progress) + list(study.cells(blocks))
    return [
        _quoted(
            study.specs[position],
            sampler,
            [cell for cell in cells if cell.solver == position],
            _of_the_loop(study, position, sampler, blocks),
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
    """The cells whose instance has more than one feasible state; a loop is left out."""
    if not study.instances and not study.sources:
        return []
    study = replace(study, pruning=(), loop=None)
    with (
        tempfile.TemporaryDirectory() as folder,
        Store(Path(folder) / "quote.sqlite", create=True) as store,
    ):
        sizes = register(study, store, progress=progress)
        ones = {instance: store.problem(instance).cardinality for instance in sizes}
    return [cell for cell in study.cells(sizes) if 0 < ones[cell.instance] < cell.n]


def _of_a_step(source: LoopSource) -> dict[str, int]:
    """Layer -> variables of its block, of as many layers as get a block in a step of the loop."""
    # Only a loop needs a model, and with it PyTorch.
    from icbs.models.loading import load_model
    from icbs.models.prunable import layer_weight, prunable_layers
    from icbs.settings import Settings

    settings = Settings(**source.settings)
    layers = prunable_layers(load_model(source.model).model, source.layers)
    sizes = {
        name: settings.block_variables(layer_weight(layer).numel())
        for name, layer in layers.items()
    }
    chosen = sorted(sizes, key=sizes.__getitem__)[: settings.layers_per_step]
    return {name: sizes[name] for name in chosen}


def _of_the_loop(
    study: Study, position: int, sampler: CardinalitySampler, blocks: dict[str, int]
) -> int:
    """Calls that a solver gets in the loop, at most."""
    source, label = study.loop, study.specs[position].label
    if source is None:
        return 0
    contestant = source.steps + 1  # one to warm up
    steps = contestant * source.seeds * (label in (source.contestants or (label,)))
    if position == 0:
        steps += (source.fork_at + contestant * len(source.gaps)) * source.seeds + 1
    largest, most = max(blocks.values()), sampler.max_variables
    if steps and most is not None and largest > most:
        raise StudyError(
            f"loop.settings.block_size makes blocks of {largest} variables: {label} takes at most "
            f"{most}; make them smaller, or leave it out of loop.contestants"
        )
    return steps * len(blocks)


def _quoted(
    spec: SolverSpec, sampler: CardinalitySampler, cells: list[Cell], in_loop: int, offline: bool
) -> SolverQuote:
    limits = (sampler.max_variables, spec.max_variables)
    sent = [cell for cell in cells if all(most is None or cell.n <= most for most in limits)]
    calls = Counter(cell.budget.reads for cell in sent)
    cap = spec.options.get("max_cost")
    if not hasattr(sampler, "quote"):
        # Services that bill seconds by contract.
        return SolverQuote(spec.label, "", "", calls.total() + in_loop, None, None, cap)
    try:
        device = sampler.priced(offline=offline)
        # The loop gives its solvers seconds, not reads, and asks them one by one.
        quotes = [
            sampler.quote(device, calls),
            sampler.quote(device, {None: in_loop} if in_loop else {}, together=False),
        ]
    except SolverError as error:
        raise StudyError(f"solvers: {spec.label}: {error}") from error
    tasks, least, most = (sum(amounts) for amounts in zip(*quotes, strict=True))
    return SolverQuote(spec.label, device.name, device.source, tasks, least, most, cap)
