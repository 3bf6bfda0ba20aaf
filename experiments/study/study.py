"""A study: which solvers run on which instances, with what budgets, under which seeds.

A study file is TOML; paths in it are relative to the file::

    name = "by-size"
    seed = 1
    instances = ["blocks/*.block.safetensors"]   # or "library:rows/*", those of the package
    budgets = [0.1, 1.0]                 # seconds, or tables such as {reads = 100}
    seeds = 3                            # or a list of whole numbers
    seeds_by_size = {4096 = 1}           # from n = 4096 on, only the first seed
    give_initial = false
    cardinality = 32                     # optional; for files that do not say how many ones

    rehearse = false                     # true: solvers that cost money run on this machine;
                                         # "emulator": with the noise of their devices
    figures = ["anytime"]                # optional; besides those of every report

    [[solvers]]
    name = "neal"
    label = "neal, weak penalty"         # optional; the name otherwise
    options = {penalty = 0.01}           # for `solvers.make`
    parameters = {}                      # for `sample_problem`
    max_variables = 1024                 # optional; larger instances are skipped and say so
    resource = "GPU"                     # optional; what a worker must have: docs/cluster.md

    [smoke]                              # optional; what `--smoke` puts in place of the above
    seeds = 1

Instances may also be cut from a model: see `experiments.study.sources`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import dimod

from experiments.errors import StudyError
from experiments.study import cells, parsing
from experiments.study.cells import Cell
from experiments.study.kinds import kind_of
from experiments.study.sources import LoopSource, PruningSource
from experiments.study.spec import SolverSpec, budget_of, spec_of
from solvers.base import Budget
from solvers.problem import CardinalityProblem


@dataclass(frozen=True)
class Study:
    """Instances x solvers x budgets x seeds.

    Attributes:
        name: for titles.
        instances: container files, globs, ``library:`` and a pattern of names, or problems.
        solvers: the contestants, as registry names, dimod samplers or `SolverSpec`; labels must
            differ.
        budgets: `Budget` objects; plain numbers are time limits in seconds.
        seeds: whole numbers from 0.
        give_initial: hand every solver that can use it the current mask, and say so in each record.
        seed: every cell's own seed, and the order of the cells, follow from it.
        seeds_by_size: ``{n: m}``: from n variables on, only the first m seeds are run.
        cardinality: number of ones, for files that do not say.
        sources: where more instances come from, such as a `BlockSource`; see
            `experiments.study.kinds`.
        loop: the loop whose blocks are instances too, and that every solver then drives.
        pruning: whole models to prune by one-shot methods and by the loop.
        figures: drawn by a report besides those of every study; see
            `experiments.figures.figure.asked`.

    Raises:
        StudyError: a value that cannot be run.
    """

    name: str
    instances: Sequence[str | Path | CardinalityProblem]
    solvers: Sequence[SolverSpec | str | dimod.Sampler]
    budgets: Sequence[Budget | float] = (1.0,)
    seeds: Sequence[int] = (0, 1, 2)
    give_initial: bool = False
    seed: int = 0
    seeds_by_size: Mapping[int, int] = field(default_factory=dict)
    cardinality: int | None = None
    sources: Sequence[Any] = ()
    loop: LoopSource | None = None
    pruning: Sequence[PruningSource] = ()
    figures: Sequence[str] = ()

    def __post_init__(self) -> None:
        for key in ("instances", "solvers", "budgets", "seeds"):
            value = getattr(self, key)
            if isinstance(value, str) or not hasattr(value, "__iter__"):
                raise StudyError(f"{key} is {value!r}; give a list")
            object.__setattr__(self, key, tuple(value))
            if not getattr(self, key) and not (key == "instances" and (self.sources or self.loop)):
                raise StudyError(f"{key} is empty; give at least one")
        if self.figures:
            # Matplotlib takes half a second to import.
            from experiments.figures.figure import asked

            known = asked()
            if unknown := [name for name in self.figures if name not in known]:
                raise StudyError(
                    f"figures: {unknown[0]!r} is unknown; choose from {', '.join(known)}"
                )
        for one in self.sources:
            kind_of(one)
        labels = [spec.label for spec in self.specs]
        for label in labels:
            if labels.count(label) > 1:
                raise StudyError(f"solvers: two are called {label!r}; give each its own label")
        for key, values in (("seeds", self.seeds), ("budgets", self.limits)):
            if len(set(values)) != len(values):
                raise StudyError(f"{key} is {list(values)!r}; each may appear only once")

    def __repr__(self) -> str:
        """Counts, since a study may hold whole problems."""
        sources = [f"{len(self.instances)} instances or globs"] if self.instances else []
        sources += [kind_of(one).key for one in self.sources]
        sources += ["a loop"] if self.loop else []
        sources += [f"{len(self.pruning)} prunings"] if self.pruning else []
        solvers = ", ".join(spec.label for spec in self.specs)
        return (
            f"Study({self.name!r}: {', '.join(sources)}; solvers {solvers}; "
            f"{len(self.budgets)} budgets, {len(self.seeds)} seeds)"
        )

    @property
    def specs(self) -> tuple[SolverSpec, ...]:
        """The contestants, names and samplers turned into specs."""
        return tuple(spec_of(solver) for solver in self.solvers)

    @property
    def limits(self) -> tuple[Budget, ...]:
        """The budgets, seconds turned into time limits."""
        return tuple(budget_of(budget) for budget in self.budgets)

    @property
    def ladder(self) -> tuple[Budget, ...]:
        """The former name of `limits`.

        Warns:
            DeprecationWarning: names the new one.
        """
        warnings.warn("Study.ladder is now limits", DeprecationWarning, stacklevel=2)
        return self.limits

    def rehearsed(self, *, emulator: bool = False) -> Study:
        """The same study with every solver that costs money on its local rehearsal.

        Args:
            emulator: on emulators of the devices of Amazon Braket, with their noise.

        Raises:
            StudyError: none of the solvers costs money.
        """
        return replace(self, solvers=parsing.rehearsed(self.specs, emulator=emulator))

    @classmethod
    def from_toml(cls, path: str | Path, *, smoke: bool = False) -> Study:
        """The study in a TOML file.

        Args:
            path: the file.
            smoke: let its table ``[smoke]`` replace keys, for a quick trial.

        Raises:
            StudyError: a file that cannot be read, an unknown key, or a value of the wrong kind.
        """
        path = Path(path)
        tables = parsing.read(path, smoke=smoke)
        try:
            return cls.from_mapping(tables, folder=path.parent, default_name=path.stem)
        except StudyError as error:
            raise StudyError(f"study {path}: {error}") from error

    @classmethod
    def from_mapping(
        cls, table: Mapping[str, Any], *, folder: Path = Path(), default_name: str = "study"
    ) -> Study:
        """The study in a parsed TOML table; relative paths start at `folder`."""
        return cls(**parsing.arguments(table, folder, default_name))

    def cells(self, sizes: Mapping[str, int]) -> Iterator[Cell]:
        """Every cell, in the order to run them, made one at a time.

        Seed by seed, and shuffled within each seed: a machine that slows down during the study
        hurts all solvers alike, and a study that is stopped early has every solver on every
        instance about equally often.

        Args:
            sizes: content hash -> number of variables, of every instance.
        """
        return cells.cells(self, sizes)

    def count(self, sizes: Mapping[str, int]) -> int:
        """Number of `cells`."""
        return cells.count(self, sizes)
