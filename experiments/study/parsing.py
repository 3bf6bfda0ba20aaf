"""A study file: its tables, checked, and what they mean for `Study`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from experiments.errors import StudyError
from experiments.study.kinds import kinds
from experiments.study.paths import LIBRARY
from experiments.study.sources import LoopSource, PruningSource
from experiments.study.spec import SolverSpec, budget_of
from experiments.study.tables import inner, table
from icbs.errors import nearest
from solvers.base import Budget
from solvers.registry import SOLVERS

MAX_SEEDS = 1_000_000

Whole = Annotated[int, Field(ge=0, title="a whole number from 0")]
Switch = Annotated[bool, Field(title="true or false")]
BySize = Annotated[
    dict[Annotated[str, Field(pattern="^[0-9]{1,18}$")], Annotated[int, Field(ge=0)]],
    Field(title="a table such as {4096 = 1}, of numbers of variables and of seeds"),
]
# A name alone is a table with nothing else in it.
_NAMED = BeforeValidator(lambda value: {"name": value} if isinstance(value, str) else value)


@table("solvers")
class SolverTable:
    """A contestant."""

    name: Annotated[str, Field(title="text; `icbs solvers` lists the names")]
    label: Annotated[str, Field(title="text")] = ""
    options: Annotated[dict[str, Any], Field(title="a table")] = Field(default_factory=dict)
    parameters: Annotated[dict[str, Any], Field(title="a table")] = Field(default_factory=dict)
    max_variables: Annotated[int | None, Field(ge=0, title="a whole number from 0")] = None
    seeds_by_size: Annotated[
        BySize | None, Field(title="a table such as {4096 = 1}, of numbers of variables and seeds")
    ] = None
    resource: Annotated[str, Field(title="text")] = ""

    @property
    def spec(self) -> SolverSpec:
        """As a study holds it."""
        rules = None if self.seeds_by_size is None else _numbered(self.seeds_by_size)
        return SolverSpec(self.name, self.options, self.label, self.parameters,
                          self.max_variables, rules, resource=self.resource)  # fmt: skip


@table("")
class StudyTable:
    """A whole file, without ``[smoke]`` and its sources."""

    solvers: Annotated[
        list[Annotated[SolverTable, inner(SolverTable), _NAMED]],
        Field(title="a list of names or tables"),
    ]
    name: Annotated[str | None, Field(title="text")] = None
    seed: Whole = 0
    instances: Annotated[list[str], Field(title="a list of paths or globs")] = Field(
        default_factory=list
    )
    budgets: Annotated[
        list[Annotated[Budget, BeforeValidator(budget_of)]],
        Field(title="a list of seconds or tables"),
    ] = Field(default_factory=lambda: [Budget(1.0)])
    seeds: Annotated[
        Annotated[int, Field(ge=0, le=MAX_SEEDS)] | list[Annotated[int, Field(ge=0)]],
        Field(title=f"a whole number from 0 to {MAX_SEEDS}, or a list of whole numbers from 0"),
    ] = 3
    seeds_by_size: BySize = Field(default_factory=dict)
    give_initial: Switch = False
    cardinality: Annotated[int | None, Field(ge=0, title="a whole number from 0")] = None
    loop: Annotated[LoopSource | None, inner(LoopSource), Field(title="a table")] = None
    pruning: Annotated[
        list[Annotated[PruningSource, inner(PruningSource)]], Field(title="a list of tables")
    ] = Field(default_factory=list)
    rehearse: Annotated[Literal["emulator"] | bool, Field(title="true, false or 'emulator'")] = (
        False
    )
    figures: Annotated[list[str], Field(title="a list of names")] = Field(default_factory=list)


def read(path: Path, *, smoke: bool) -> dict[str, Any]:
    """The tables of a file, ``[smoke]`` put in place.

    Raises:
        StudyError: a file that cannot be read, or has no ``[smoke]`` where it is asked for.
    """
    if path.exists() and not path.is_file():
        raise StudyError(f"study {path} cannot be read: it is no file")
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StudyError(f"study {path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # of TOML, of UTF-8, or a number of too many digits
        raise StudyError(f"study {path} is not valid TOML: {error}") from error
    except RecursionError as error:
        raise StudyError(f"study {path} nests tables or arrays too deeply") from error
    small = tables.pop("smoke", {})
    if not isinstance(small, dict):
        raise StudyError(f"study {path}: smoke is {small!r}; it should be a table of keys")
    if smoke and not small:
        raise StudyError(f"study {path} has no table [smoke]; run it in full")
    return tables | small if smoke else tables


def arguments(tables: Mapping[str, Any], folder: Path, default_name: str) -> dict[str, Any]:
    """The arguments of `Study` in the tables of a file.

    Args:
        tables: see `read`.
        folder: where relative paths start.
        default_name: of a study that has none.

    Raises:
        StudyError: an unknown key, a missing one, or a value of another kind.
    """
    sources, others = _sources(tables)
    read = StudyTable(**others)
    if not (read.instances or sources or read.loop or "instances" in tables):
        raise StudyError("instances is missing; add it")
    specs = [one.spec for one in read.solvers]
    return {
        "name": default_name if read.name is None else read.name,
        # Names of the library are no paths.
        "instances": [p if p.startswith(LIBRARY) else folder / p for p in read.instances],
        "sources": sources,
        "solvers": rehearsed(specs, emulator=read.rehearse == "emulator")
        if read.rehearse
        else specs,
        "budgets": read.budgets,
        "seeds": range(read.seeds) if isinstance(read.seeds, int) else read.seeds,
        "seeds_by_size": _numbered(read.seeds_by_size),
        **{key: getattr(read, key) for key in ("give_initial", "seed", "cardinality",
                                               "loop", "pruning", "figures")},
    }  # fmt: skip


def _sources(tables: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """The sources of a file's instances, and its other keys."""
    known, own = kinds(), StudyTable.__dataclass_fields__
    sources = []
    for key, tables_of in tables.items():
        if key in known:
            if not isinstance(tables_of, list) or not all(isinstance(t, dict) for t in tables_of):
                raise StudyError(f"{key} is {tables_of!r}; it should be a list of tables")
            sources += [known[key].table(**one) for one in tables_of]
        elif key not in own:
            raise StudyError(f"unknown key {key!r}; {nearest(key, [*own, *known])}")
    return sources, {key: value for key, value in tables.items() if key not in known}


def rehearsed(specs: Sequence[SolverSpec], *, emulator: bool = False) -> list[SolverSpec]:
    """The contestants with every one that costs money on its local rehearsal.

    Args:
        specs: all of them.
        emulator: those on devices of Amazon Braket on emulators of these, with their noise.

    Raises:
        StudyError: none of them costs money.
    """
    if not any(spec.paid for spec in specs):
        paid = ", ".join(name for name, known in SOLVERS.items() if known.paid)
        raise StudyError(f"solvers: none of them costs money (those that do: {paid})")

    def how(spec: SolverSpec) -> bool | str:
        return "emulator" if emulator and SOLVERS[spec.name].resource == "braket" else True

    return [
        replace(spec, options={**spec.options, "rehearse": how(spec)}) if spec.paid else spec
        for spec in specs
    ]


def _numbered(rules: Mapping[str, int]) -> dict[int, int]:
    return {int(size): count for size, count in rules.items()}
