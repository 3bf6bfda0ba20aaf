"""A contestant of a study, and what it may spend."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import dimod
from pydantic import Field

from experiments.errors import StudyError
from experiments.store.schema import TERMS
from experiments.study.tables import table
from solvers.base import Budget
from solvers.errors import SolverError
from solvers.registry import SOLVERS


@dataclass(frozen=True)
class SolverSpec:
    """One contestant.

    Attributes:
        name: registry name; with `sampler` given, any name.
        options: keyword arguments of `solvers.make`.
        label: what rows and figures call it; the name when empty.
        parameters: keyword arguments of `sample_problem`.
        max_variables: the study's own size limit on top of the solver's.
        seeds_by_size: overrides the study's for this solver.
        resource: what a cluster's worker must have to run it ("GPU"); empty: the registry says.
        sampler: any dimod sampler that is not in the registry; `options` are then those of
            `PenaltyComposite`. With more than one worker it must survive pickling.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    max_variables: int | None = None
    seeds_by_size: Mapping[int, int] | None = None
    sampler: dimod.Sampler | None = None
    resource: str = ""

    def __post_init__(self) -> None:
        if not self.label:
            object.__setattr__(self, "label", self.name)

    @property
    def identity(self) -> str:
        """Everything that decides what the solver does, as canonical JSON."""
        options = {key: value for key, value in self.options.items()
                   if not (self.paid and key in TERMS)}  # fmt: skip
        return json.dumps(
            [self.name, self.label, options, dict(self.parameters)],
            sort_keys=True,
            default=repr,
        )

    @property
    def paid(self) -> bool:
        """Whether it costs money."""
        return self.sampler is None and self.name in SOLVERS and SOLVERS[self.name].paid


def spec_of(solver: SolverSpec | str | dimod.Sampler) -> SolverSpec:
    """A contestant that is given by a name, a sampler or as it is."""
    if isinstance(solver, SolverSpec):
        return solver
    if isinstance(solver, str):
        return SolverSpec(solver)
    return SolverSpec(getattr(solver, "name", type(solver).__name__), sampler=solver)


@table("budgets")
class _Limits:
    """A budget as a table."""

    time_limit: Annotated[float | None, Field(title="a number of seconds")] = None
    reads: Annotated[int | None, Field(title="a whole number from 1")] = None
    sweeps: Annotated[int | None, Field(title="a whole number from 1")] = None


def budget_of(value: Any) -> Budget:
    """A budget, of seconds or a table of limits.

    Raises:
        StudyError: it is neither, or a limit that cannot be.
    """
    if isinstance(value, Budget):
        return value
    seconds = isinstance(value, int | float) and not isinstance(value, bool)
    if not seconds and not isinstance(value, dict):
        raise StudyError(
            f"budgets is {value!r}; it should be seconds or a table such as {{reads = 100}}"
        )
    limits = _Limits(time_limit=value) if seconds else _Limits(**value)
    try:
        return Budget(limits.time_limit, limits.reads, limits.sweeps)
    except SolverError as error:
        raise StudyError(f"budgets: {error}") from error


def budget_json(budget: Budget) -> str:
    """A budget as canonical JSON; limits that are not set are left out."""
    limits = {"time_limit": budget.time_limit, "reads": budget.reads, "sweeps": budget.sweeps}
    return json.dumps({k: v for k, v in limits.items() if v is not None}, sort_keys=True)
