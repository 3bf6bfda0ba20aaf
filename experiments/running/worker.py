"""Runs one cell: warm-up, clock, call, score. The only place where a solver is called.

The same code runs in the driver and in worker processes, here or on other machines. What crosses
the boundary is the cell and a source of its problem: the path of the store on this machine, the
bytes of its container on others (see `experiments.running.cluster`). Each process keeps the
problems it used lately.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from experiments.record.host import load_average
from experiments.record.ledger import Ledger
from experiments.record.scoring import Incumbents, ScoringError, score
from experiments.running.limits import (
    CALL,
    COMPILE_LIMIT,
    WARM_UP,
    WARM_UP_LIMIT,
    guarded,
    kill_limit,
    limited,
    overrun_limit,
    unwalked,
)
from experiments.store.database import Store, problem_of
from experiments.study.cells import Cell
from experiments.study.spec import SolverSpec, budget_json
from experiments.warmup import warm_up
from solvers.base import Budget, Call, CardinalitySampler
from solvers.clock.warmup import tiny_problems, two_groups
from solvers.errors import NotSentError
from solvers.groups import Integers
from solvers.problem import CardinalityProblem
from solvers.registry import make

PROBLEMS_KEPT = 32


@dataclass(frozen=True)
class Task:
    """A cell with all that a worker needs besides the problem.

    Attributes:
        cell: what to run.
        spec: with what.
        give_initial: whether the solver may have the current mask.
        build: seconds the block took to build, for the ledger.
        track: the solver's, for the row of a cell whose worker died.
        memory: GiB that the solver's call may add to its process; None: no limit.
        again: whether a worker died of it, or of something else, before.
        unwarmed: identities of solvers that are called without a warm-up, because one of theirs
            was killed. Tasks of a driver share it: what it learns counts for cells already queued.
    """

    cell: Cell
    spec: SolverSpec
    give_initial: bool
    build: float
    track: str
    memory: float | None = None
    again: bool = False
    unwarmed: set[str] = field(default_factory=set, compare=False)


Source = Path | bytes
"""The store on this machine, or a problem's container."""


@dataclass(frozen=True)
class Record:
    """One finished cell: a row of `runs` and its incumbents."""

    row: dict[str, Any]
    incumbents: list[tuple[float, float]]


class Workbench:
    """What a process keeps between cells: problems, solver objects, what is warm."""

    def __init__(self) -> None:
        self._problems: OrderedDict[str, CardinalityProblem] = OrderedDict()
        self._samplers: dict[str, CardinalitySampler] = {}
        self._warm: set[tuple[Any, ...]] = set()

    def problem(self, source: Source, instance: str) -> CardinalityProblem:
        """The problem from its source, or from memory if it was used lately."""
        if instance not in self._problems:
            if isinstance(source, bytes):
                self._problems[instance] = problem_of(source)
            else:
                with Store(source) as opened:
                    self._problems[instance] = opened.problem(instance)
            if len(self._problems) > PROBLEMS_KEPT:
                self._problems.popitem(last=False)
        self._problems.move_to_end(instance)
        return self._problems[instance]

    def sampler(self, spec: SolverSpec) -> CardinalitySampler:
        """The solver object; made once, so that what it compiled stays compiled."""
        if isinstance(spec.sampler, CardinalitySampler):
            return spec.sampler
        # All options count: under another cap it is another object.
        made = f"{spec.identity} {json.dumps(dict(spec.options), sort_keys=True, default=repr)}"
        if made not in self._samplers:
            what = spec.name if spec.sampler is None else spec.sampler
            self._samplers[made] = make(what, **spec.options)
        return self._samplers[made]

    def warm_up(self, spec: SolverSpec, problem: CardinalityProblem) -> None:
        """Untimed calls before a solver's first timed one.

        Imports, JIT compilation and thread pools are warm after any call; a solver that compiles
        per problem size (circuits) sets ``warm_up_by_size`` and is called once for every n, k and
        sizes of groups. A solver that costs money is never called for this.
        """
        sampler = self.sampler(spec)
        if sampler.paid:
            return
        by_size = getattr(sampler, "warm_up_by_size", False)
        n, k = (problem.n, problem.cardinality) if by_size else (8, 4)
        dense, groups = problem.factor is None, None
        if problem.groups is not None and problem.cardinalities is not None:
            own = problem.groups, problem.cardinalities
            groups = own if by_size else two_groups(n, k)
        kind = (spec.identity, n, k, dense, None if groups is None else _shape(*groups))
        if kind in self._warm:
            return
        self._warm.add(kind)
        allowance = COMPILE_LIMIT if by_size or sampler.compiles else WARM_UP_LIMIT
        for tiny in tiny_problems(n, k, dense=dense, groups=groups)[: 1 if by_size else None]:
            # A failure here is not lost: the timed call fails the same way and becomes a row.
            with guarded(allowance, WARM_UP), contextlib.suppress(Exception):
                if not warm_up(sampler, tiny, **spec.parameters):
                    break

    def submit(self, tasks: Sequence[Task], source: Source) -> None:
        """Submits cells of paid solvers without waiting, so that they queue together.

        A cell that cannot be submitted fails the same way when it is run, and becomes a row.
        """
        specs = {id(task.spec): task.spec for task in tasks}
        for known, spec in specs.items():
            sampler = self.sampler(spec)
            if hasattr(sampler, "submit_problems"):
                sampler.submit_problems(
                    Call(
                        self.problem(source, task.cell.instance).blinded(),
                        task.cell.budget,
                        task.cell.seed,
                        spec.parameters,
                    )
                    for task in tasks
                    if id(task.spec) == known
                )

    def run(self, task: Task, source: Source) -> Record:
        """One row, whatever the solver does."""
        cell, spec = task.cell, task.spec
        problem = self.problem(source, cell.instance)
        sampler = self.sampler(spec)
        row = blank_row(cell, spec, task.give_initial)
        row |= {"track": sampler.track, "started": _now(), "load": load_average()}
        if reason := _too_large(sampler, spec, problem.n):
            return Record(row | {"status": "skipped", "reason": reason}, [])
        if spec.identity not in task.unwarmed:
            self.warm_up(spec, problem)
        seen = Incumbents()
        initial = problem.initial if task.give_initial and sampler.takes_initial else None
        blind = problem.blinded()
        failure, samples = "", None
        with guarded(kill_limit(cell.budget), CALL), limited(task.memory), unwalked():
            cpu = time.process_time()
            start = time.perf_counter()
            try:
                samples = sampler.sample_problem(
                    blind,
                    budget=cell.budget,
                    seed=cell.seed,
                    initial=initial,
                    on_incumbent=lambda state: seen.add(time.perf_counter() - start, state),
                    **spec.parameters,
                )
                # Sample sets may be lazy; what is not computed yet belongs on the clock.
                if hasattr(samples, "resolve"):
                    samples.resolve()
            except Exception as error:  # a solver that fails is a row
                failure = _one_line(error)
                row |= _of_failure(error)
            wall = time.perf_counter() - start
            cpu = time.process_time() - cpu
        row |= {"wall": wall, "cpu": cpu}
        row["received_start"] = initial is not None
        if failure:
            return Record(row | {"status": "error", "reason": failure}, [])
        return self._scored(row, problem, samples, sampler, seen, task)

    def _scored(
        self,
        row: dict[str, Any],
        problem: CardinalityProblem,
        samples: Any,
        sampler: CardinalitySampler,
        seen: Incumbents,
        task: Task,
    ) -> Record:
        start = time.perf_counter()
        try:
            result = score(problem, samples, sampler.track)
            info = dict(samples.info)
            earlier = _number(info.get("earlier_seconds")) or 0.0
            curve = [(earlier + when, energy) for when, energy in seen.scored(problem)]
            row["wall"] += earlier
        except (ScoringError, ValueError, TypeError, IndexError) as error:
            message = str(error) if isinstance(error, ScoringError) else _one_line(error)
            return Record(row | {"status": "error", "reason": message}, [])
        seconds = time.perf_counter() - start
        timing = info.get("timing")
        ledger = Ledger.split(
            row["wall"],
            timing if isinstance(timing, dict) else {},
            build=task.build,
            score=seconds,
        )
        if result.energy is not None and (not curve or result.energy < curve[-1][1]):
            curve.append((row["wall"], result.energy))
        row |= ledger.as_dict()
        row |= {
            "energy": result.energy,
            "raw_energy": result.raw_energy,
            "reads": result.reads,
            "best_reads": result.best_reads,
            "feasible": result.feasible,
            "raw_feasible": result.raw_feasible,
            "state": result.state,
            "lower_bound": _number(info.get("lower_bound")),
            "proved_optimal": bool(info.get("proved_optimal", False)),
            "quote": _number(info.get("quote")),
            "cost": _number(info.get("cost")),
            "info": _info_json(info),
        }
        status, reason = _verdict(result.complaint, row, sampler, task.cell.budget)
        return Record(row | {"status": status, "reason": reason}, curve)


def _shape(groups: Integers, ones: Integers) -> tuple[tuple[int, int], ...]:
    """Size and number of ones of each group, whatever their order."""
    return tuple(sorted(zip(np.bincount(groups).tolist(), ones.tolist(), strict=True)))


def blank_row(cell: Cell, spec: SolverSpec, give_initial: bool) -> dict[str, Any]:
    """The part of a row that is known before the run."""
    return {
        "key": cell.key,
        "instance": cell.instance,
        "solver": spec.label,
        "solver_name": spec.name,
        "options": options_json(spec),
        "budget": budget_json(cell.budget),
        "time_limit": cell.budget.time_limit,
        "seed_index": cell.seed_index,
        "seed": cell.seed,
        "give_initial": give_initial,
        "started": _now(),
    }


def options_json(spec: SolverSpec) -> str:
    """What a study sets of a solver, as a row keeps it."""
    return json.dumps(
        {"options": dict(spec.options), "parameters": dict(spec.parameters)},
        sort_keys=True,
        default=repr,
    )


def _of_failure(error: BaseException) -> dict[str, Any]:
    """What a failure says of money, and whether the cell is pending.

    It is where a paid task is still out there, to be collected, and where nothing was sent.
    """
    info = getattr(error, "info", None)
    unsent = isinstance(error, NotSentError)
    if not isinstance(info, dict) and not unsent:
        return {}
    info = dict(info or {}) | ({"sent": False, "charged": 0.0, "pending": True} if unsent else {})
    return {
        "quote": _number(info.get("quote")),
        "cost": _number(info.get("cost")),
        "pending": int(bool(info.get("pending"))),
        "info": _info_json(info),
    }


def _info_json(info: dict[str, Any]) -> str:
    """``info`` without what has columns of its own; arrays are left out."""
    own = (
        "timing", "solver", "track", "lane", "received_start", "received_incumbent", "lower_bound",
        "proved_optimal",
    )  # fmt: skip
    kept = {k: v for k, v in info.items() if k not in own and not isinstance(v, np.ndarray)}
    return json.dumps(kept, sort_keys=True, default=repr)


def _verdict(
    complaint: str, row: dict[str, Any], sampler: CardinalitySampler, budget: Budget
) -> tuple[str, str]:
    if complaint:
        return "error", complaint
    limit = budget.time_limit
    if limit is not None and row["wall"] > overrun_limit(limit):
        claim = "says it honours" if "time_limit" in sampler.honours else "does not honour"
        return "timeout", f"took {row['wall']:.3g} s; {claim} the limit of {limit:g} s"
    return "done", "" if row["energy"] is not None else "no feasible sample"


def _too_large(sampler: CardinalitySampler, spec: SolverSpec, n: int) -> str:
    if sampler.max_variables is not None and n > sampler.max_variables:
        return f"n = {n}: {spec.name} takes at most {sampler.max_variables} variables"
    if spec.max_variables is not None and n > spec.max_variables:
        return f"n = {n}: the study limits {spec.label} to {spec.max_variables} variables"
    return ""


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:500]


def _number(value: Any) -> float | None:
    if isinstance(value, int | float | np.floating) and np.isfinite(value):
        return float(value)
    return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


# One bench per process; the driver clears its own when a study starts.
_BENCH: list[Workbench] = []


def clear_bench() -> None:
    """Forgets problems, solvers and what is warm in this process."""
    _BENCH[:] = [Workbench()]


def start_worker(threads: int) -> None:
    """Initialises a worker process: its share of the CPUs, and Ctrl-C is the driver's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["NUMBA_NUM_THREADS"] = str(threads)
    clear_bench()


def submit_tasks(tasks: Sequence[Task], source: Source) -> None:
    """See `Workbench.submit`; for the driver's own process."""
    if not _BENCH:
        _BENCH.append(Workbench())
    _BENCH[0].submit(tasks, source)


def run_task(task: Task, source: Source) -> Record:
    """Entry point of a worker process."""
    if not _BENCH:
        _BENCH.append(Workbench())
    return _BENCH[0].run(task, source)
