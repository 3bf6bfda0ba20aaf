"""A study: which solvers run on which instances, with what budgets, under which seeds.

A study file is TOML; paths in it are relative to the file::

    name = "by-size"
    seed = 1
    instances = ["blocks/*.block.safetensors"]
    budgets = [0.1, 1.0]                 # seconds, or tables such as {reads = 100}
    seeds = 3                            # or a list of whole numbers
    seeds_by_size = {4096 = 1}           # from n = 4096 on, only the first seed
    give_initial = false
    cardinality = 32                     # optional; for files that do not say how many ones

    rehearse = false                     # true: solvers that cost money run on this machine
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

import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import dimod
import numpy as np
from numpy.typing import NDArray

from experiments.errors import StudyError
from experiments.store.schema import TERMS
from experiments.study.sources import BlockSource, LoopSource, PruningSource, parse_source
from experiments.study.tomlcheck import expect, number, refuse_unknown
from solvers.base import Budget
from solvers.errors import SolverError
from solvers.problem import CardinalityProblem
from solvers.registry import SOLVERS

_KEYS = ("name", "seed", "instances", "solvers", "budgets", "seeds", "seeds_by_size",
         "give_initial", "cardinality", "blocks", "loop", "pruning", "rehearse",
         "figures")  # fmt: skip
MAX_SEEDS = 1_000_000
_SOLVER_KEYS = ("name", "label", "options", "parameters", "max_variables", "seeds_by_size",
                "resource")  # fmt: skip


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


@dataclass(frozen=True)
class Cell:
    """One run to be made: solver x instance x budget x seed.

    Attributes:
        instance: content hash of the problem.
        n: its variables.
        solver: position in `Study.specs`.
        budget: what the solver may spend.
        seed_index: the study's seed, as written in the study.
        key: stable identity; equal keys in two studies mean the same run.
        study_seed: `Study.seed`.
    """

    instance: str
    n: int
    solver: int
    budget: Budget
    seed_index: int
    key: str
    study_seed: int

    @property
    def seed(self) -> int:
        """What the solver gets, 0 <= seed < 2**31 (Ocean's limit)."""
        return int(_digest(json.dumps([self.study_seed, self.key])), 16) % 2**31


@dataclass(frozen=True)
class Study:
    """Instances x solvers x budgets x seeds.

    Attributes:
        name: for titles.
        instances: container files, globs, or problems.
        solvers: the contestants, as registry names, dimod samplers or `SolverSpec`; labels must
            differ.
        budgets: `Budget` objects; plain numbers are time limits in seconds.
        seeds: whole numbers from 0.
        give_initial: hand every solver that can use it the incumbent, and say so in each record.
        seed: every cell's own seed, and the order of the cells, follow from it.
        seeds_by_size: ``{n: m}``: from n variables on, only the first m seeds are run.
        cardinality: number of ones, for files that do not say.
        blocks: where more instances are cut from.
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
    blocks: Sequence[BlockSource] = ()
    loop: LoopSource | None = None
    pruning: Sequence[PruningSource] = ()
    figures: Sequence[str] = ()

    def __post_init__(self) -> None:
        for key in ("instances", "solvers", "budgets", "seeds"):
            value = getattr(self, key)
            if isinstance(value, str) or not hasattr(value, "__iter__"):
                raise StudyError(f"{key} is {value!r}; give a list")
            object.__setattr__(self, key, tuple(value))
            if not getattr(self, key) and not (key == "instances" and (self.blocks or self.loop)):
                raise StudyError(f"{key} is empty; give at least one")
        if self.figures:
            # Matplotlib takes half a second to import.
            from experiments.figures.figure import asked

            known = asked()
            if unknown := [name for name in self.figures if name not in known]:
                raise StudyError(
                    f"figures: {unknown[0]!r} is unknown; choose from {', '.join(known)}"
                )
        labels = [spec.label for spec in self.specs]
        for label in labels:
            if labels.count(label) > 1:
                raise StudyError(f"solvers: two are called {label!r}; give each its own label")
        for key, values in (("seeds", self.seeds), ("budgets", self.ladder)):
            if len(set(values)) != len(values):
                raise StudyError(f"{key} is {list(values)!r}; each may appear only once")

    @property
    def specs(self) -> tuple[SolverSpec, ...]:
        """The contestants, names and samplers turned into specs."""
        return tuple(_spec(solver) for solver in self.solvers)

    def rehearsed(self) -> Study:
        """The same study with every solver that costs money on its local rehearsal.

        Raises:
            StudyError: none of the solvers costs money.
        """
        costly = [spec.paid for spec in self.specs]
        specs = [
            replace(spec, options={**spec.options, "rehearse": True}) if costs else spec
            for spec, costs in zip(self.specs, costly, strict=True)
        ]
        if not any(costly):
            paid = ", ".join(name for name, known in SOLVERS.items() if known.paid)
            raise StudyError(f"solvers: none of them costs money (those that do: {paid})")
        return replace(self, solvers=specs)

    @property
    def ladder(self) -> tuple[Budget, ...]:
        """The budgets, seconds turned into time limits."""
        return tuple(_budget(budget) for budget in self.budgets)

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
        if path.exists() and not path.is_file():
            raise StudyError(f"study {path} cannot be read: it is no file")
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise StudyError(f"study {path} cannot be read: {error.strerror}") from error
        except ValueError as error:  # of TOML, of UTF-8, or a number of too many digits
            raise StudyError(f"study {path} is not valid TOML: {error}") from error
        except RecursionError as error:
            raise StudyError(f"study {path} nests tables or arrays too deeply") from error
        small = table.pop("smoke", {})
        if smoke and not small:
            raise StudyError(f"study {path} has no table [smoke]; run it in full")
        try:
            table |= expect(small, dict, "smoke", "a table of keys") if smoke else {}
            return cls.from_mapping(table, folder=path.parent, default_name=path.stem)
        except StudyError as error:
            raise StudyError(f"study {path}: {error}") from error

    @classmethod
    def from_mapping(
        cls, table: Mapping[str, Any], *, folder: Path = Path(), default_name: str = "study"
    ) -> Study:
        """The study in a parsed TOML table; relative paths start at `folder`."""
        refuse_unknown(table, _KEYS)
        blocks = [parse_source(BlockSource, one, "blocks")
                  for one in expect(table.get("blocks", []), list, "blocks", "tables")]  # fmt: skip
        loop = parse_source(LoopSource, table["loop"], "loop") if "loop" in table else None
        pruning = [parse_source(PruningSource, one, "pruning")
                   for one in expect(table.get("pruning", []), list, "pruning",
                                     "tables")]  # fmt: skip
        for key in ("instances", "solvers"):
            if key not in table and not (key == "instances" and (blocks or loop)):
                raise StudyError(f"{key} is missing; add it")
        paths = expect(table.get("instances", []), list, "instances", "a list")
        instances = [folder / expect(p, str, "instances", "paths or globs") for p in paths]
        solvers = [_solver(s) for s in expect(table["solvers"], list, "solvers", "a list")]
        budgets = [_budget(b) for b in expect(table.get("budgets", [1.0]), list, "budgets",
                                              "a list of seconds")]  # fmt: skip
        seeds = table.get("seeds", 3)
        if isinstance(seeds, list):
            seeds = [_whole(s, "seeds") for s in seeds]
        else:
            if _whole(seeds, "seeds") > MAX_SEEDS:
                raise StudyError(f"seeds is {seeds}; a study has at most {MAX_SEEDS}")
            seeds = range(seeds)
        ones = table.get("cardinality")
        rehearse = expect(table.get("rehearse", False), bool, "rehearse", "a switch")
        study = cls(
            name=expect(table.get("name", default_name), str, "name", "text"),
            instances=instances,
            solvers=solvers,
            budgets=budgets,
            seeds=seeds,
            give_initial=expect(table.get("give_initial", False), bool, "give_initial", "a switch"),
            seed=_whole(table.get("seed", 0), "seed"),
            seeds_by_size=_by_size(table.get("seeds_by_size", {})),
            cardinality=None if ones is None else _whole(ones, "cardinality"),
            blocks=blocks,
            loop=loop,
            pruning=pruning,
            figures=expect(table.get("figures", []), list, "figures", "a list of names"),
        )
        return study.rehearsed() if rehearse else study

    def cells(self, sizes: Mapping[str, int]) -> Iterator[Cell]:
        """Every cell, in the order to run them, made one at a time.

        Seed by seed, and shuffled within each seed: a machine that slows down during the study
        hurts all solvers alike, and a study that is stopped early has every solver on every
        instance about equally often.

        Args:
            sizes: content hash -> number of variables, of every instance.
        """
        rng = np.random.default_rng(self.seed)
        instances, specs, ladder = sorted(sizes.items()), self.specs, self.ladder
        # A key is the hash of the JSON list of these; a cell's own is put together from the parts.
        names = [json.dumps(name) for name, _ in instances]
        identities = [json.dumps(spec.identity) for spec in specs]
        budgets = [json.dumps(budget_json(budget)) for budget in ladder]
        common = f"{json.dumps(self.give_initial)}, {json.dumps(self.seed)}]"
        for position, seed in enumerate(self.seeds):
            pairs = self._pairs(instances, specs, position)
            # Eight bytes a cell of this seed, instead of the cells themselves.
            for at in rng.permutation(len(pairs) * len(ladder)):
                pair, rung = divmod(int(at), len(ladder))
                place, number = divmod(int(pairs[pair]), len(specs))
                instance, n = instances[place]
                key = _digest(
                    f"[{names[place]}, {identities[number]}, {budgets[rung]}, {seed:d}, {common}"
                )
                yield Cell(instance, n, number, ladder[rung], seed, key, self.seed)

    def count(self, sizes: Mapping[str, int]) -> int:
        """Number of `cells`."""
        instances, specs = sorted(sizes.items()), self.specs
        pairs = sum(len(self._pairs(instances, specs, at)) for at in range(len(self.seeds)))
        return pairs * len(self.ladder)

    def _pairs(
        self, instances: Sequence[tuple[str, int]], specs: Sequence[SolverSpec], position: int
    ) -> NDArray[np.int64]:
        """Instance times number of solvers plus solver, of all that run under this seed."""
        sizes = np.array([n for _, n in instances], dtype=np.int64)
        least = {n: [self._seeds_at(n, spec) for spec in specs] for n in set(sizes.tolist())}
        runs = np.array([least[n] for n in sizes.tolist()]).reshape(len(sizes), len(specs))
        return np.flatnonzero(runs > position)

    def _seeds_at(self, n: int, spec: SolverSpec) -> int:
        rules = self.seeds_by_size if spec.seeds_by_size is None else spec.seeds_by_size
        reached = [size for size in rules if size <= n]
        return rules[max(reached)] if reached else len(self.seeds)


def _spec(solver: SolverSpec | str | dimod.Sampler) -> SolverSpec:
    if isinstance(solver, SolverSpec):
        return solver
    if isinstance(solver, str):
        return SolverSpec(solver)
    return SolverSpec(getattr(solver, "name", type(solver).__name__), sampler=solver)


def budget_json(budget: Budget) -> str:
    """A budget as canonical JSON; limits that are not set are left out."""
    limits = {"time_limit": budget.time_limit, "reads": budget.reads, "sweeps": budget.sweeps}
    return json.dumps({k: v for k, v in limits.items() if v is not None}, sort_keys=True)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _budget(value: Any) -> Budget:
    if isinstance(value, Budget):
        return value
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return Budget(time_limit=number(value, "budgets"))
        table = expect(value, dict, "budgets", "seconds or a table such as {reads = 100}")
        refuse_unknown(table, ("time_limit", "reads", "sweeps"), "budgets")
        if "time_limit" in table:
            table = {**table, "time_limit": number(table["time_limit"], "budgets.time_limit")}
        return Budget(**table)
    except (SolverError, TypeError) as error:
        raise StudyError(f"budgets: {error}") from error


def _solver(table: Any) -> SolverSpec:
    if isinstance(table, str):
        return SolverSpec(table)
    expect(table, dict, "solvers", "names or tables")
    refuse_unknown(table, _SOLVER_KEYS, "solvers")
    if "name" not in table:
        raise StudyError("solvers: a table has no name; `icbs solvers` lists the names")
    limit, rules = table.get("max_variables"), table.get("seeds_by_size")
    return SolverSpec(
        name=expect(table["name"], str, "solvers.name", "text"),
        options=expect(table.get("options", {}), dict, "solvers.options", "a table"),
        label=expect(table.get("label", ""), str, "solvers.label", "text"),
        parameters=expect(table.get("parameters", {}), dict, "solvers.parameters", "a table"),
        max_variables=None if limit is None else _whole(limit, "solvers.max_variables"),
        seeds_by_size=None if rules is None else _by_size(rules),
        resource=expect(table.get("resource", ""), str, "solvers.resource", "text"),
    )


def _by_size(table: Any) -> dict[int, int]:
    expect(table, dict, "seeds_by_size", "a table such as {4096 = 1}")
    if not all(size.isascii() and size.isdigit() for size in table):
        raise StudyError(f"seeds_by_size is {table!r}; its keys are numbers of variables")
    return {int(size): _whole(count, "seeds_by_size") for size, count in table.items()}


def _whole(value: Any, key: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise StudyError(f"{key} is {value!r}; give a whole number from 0")
    return value
