"""The cells of a study, each with an identity of its own, in the order to run them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from experiments.study.spec import SolverSpec, budget_json
from solvers.base import Budget

if TYPE_CHECKING:
    from experiments.study.study import Study


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


def cells(study: Study, sizes: Mapping[str, int]) -> Iterator[Cell]:
    """See `Study.cells`."""
    rng = np.random.default_rng(study.seed)
    instances, specs, budgets = sorted(sizes.items()), study.specs, study.limits
    # A key is the hash of the JSON list of these; a cell's own is put together from the parts.
    names = [json.dumps(name) for name, _ in instances]
    identities = [json.dumps(spec.identity) for spec in specs]
    limits = [json.dumps(budget_json(budget)) for budget in budgets]
    common = f"{json.dumps(study.give_initial)}, {json.dumps(study.seed)}]"
    for position, seed in enumerate(study.seeds):
        pairs = _pairs(study, instances, position)
        # Eight bytes a cell of this seed, instead of the cells themselves.
        for at in rng.permutation(len(pairs) * len(budgets)):
            pair, budget = divmod(int(at), len(budgets))
            place, number = divmod(int(pairs[pair]), len(specs))
            instance, n = instances[place]
            key = _digest(
                f"[{names[place]}, {identities[number]}, {limits[budget]}, {seed:d}, {common}"
            )
            yield Cell(instance, n, number, budgets[budget], seed, key, study.seed)


def count(study: Study, sizes: Mapping[str, int]) -> int:
    """Number of `cells`."""
    instances = sorted(sizes.items())
    pairs = sum(len(_pairs(study, instances, at)) for at in range(len(study.seeds)))
    return pairs * len(study.budgets)


def _pairs(study: Study, instances: Sequence[tuple[str, int]], position: int) -> NDArray[np.int64]:
    """Instance times number of solvers plus solver, of all that run under this seed."""
    sizes = np.array([n for _, n in instances], dtype=np.int64)
    specs = study.specs
    least = {n: [_seeds_at(study, n, spec) for spec in specs] for n in set(sizes.tolist())}
    runs = np.array([least[n] for n in sizes.tolist()]).reshape(len(sizes), len(specs))
    return np.flatnonzero(runs > position)


def _seeds_at(study: Study, n: int, spec: SolverSpec) -> int:
    rules = study.seeds_by_size if spec.seeds_by_size is None else spec.seeds_by_size
    reached = [size for size in rules if size <= n]
    return rules[max(reached)] if reached else len(study.seeds)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
