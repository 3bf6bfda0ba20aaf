"""Cuts a study's blocks out of models, once per store."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from hashlib import sha256

import numpy as np

from experiments.instances.subblocks import nested_subblocks
from experiments.store.database import Store
from experiments.study.sources import BlockSource, RowSource
from icbs.blocks.export import export_blocks
from icbs.blocks.rowexport import export_rows
from icbs.blocks.rows import mixed
from icbs.data.loading import load_samples
from icbs.models.loading import load_model
from icbs.patterns import parse_pattern
from icbs.settings import RowSettings
from solvers.io.formats import CONTAINER, file_name
from solvers.problem import CardinalityProblem

# Variables that nested parts of a row are chosen from: few enough that the current mask is hardly
# ever the optimum.
ROW_POOL = 192
# Of single precision, in which gradients are summed.
ROUND_OFF = 1e-5


def cut_once(source: BlockSource, store: Store, *, progress: bool = True) -> dict[str, int]:
    """Puts the source's blocks into the store; a store that has them is left as it is.

    Returns:
        Content hash -> number of variables.
    """
    return _once(source.identity, store, lambda: cut(source, progress=progress))


def cut_rows_once(source: RowSource, store: Store, *, progress: bool = True) -> dict[str, int]:
    """Puts the source's row blocks into the store; see `cut_once`."""
    return _once(source.identity, store, lambda: cut_rows(source, progress=progress))


def _once(
    identity: str, store: Store, make: Callable[[], list[CardinalityProblem]]
) -> dict[str, int]:
    name = f"blocks:{sha256(identity.encode()).hexdigest()[:16]}"
    known = store.blob(name)
    if known is None:
        sizes = {}
        for problem in make():
            label = file_name(problem).removesuffix(CONTAINER)
            sizes[store.add_instance(problem, label)] = problem.n
        store.put_blob(name, json.dumps(sizes).encode(), "application/json")
        return sizes
    return {str(key): int(n) for key, n in json.loads(known).items()}


def cut_rows(source: RowSource, *, progress: bool = True) -> list[CardinalityProblem]:
    """The row blocks of every lam, straight from the model; the same rows for each.

    The model is run for both ends of the mix alone: what lies between is their sum.
    """
    loaded = load_model(source.model)
    samples = load_samples(loaded, count=source.count, length=source.length)
    density = source.density
    if source.pattern is not None:
        keep, m = parse_pattern(source.pattern)
        density = keep / m

    def told(lam: float) -> RowSettings:
        return RowSettings(
            rows=tuple(source.rows) or source.draw,
            density=density,
            pattern=source.pattern,
            lam=lam,
            shrinkage=source.shrinkage,
            sequential=source.sequential,
            weighted=source.weighted,
            seed=source.seed,
        )

    def exported(lam: float) -> list[CardinalityProblem]:
        return export_rows(
            loaded, samples, layers=source.layers, progress=progress, **asdict(told(lam))
        )

    rows = exported(0.0)
    losses = exported(1.0) if any(source.lam) else []
    found = []
    for lam in source.lam:
        blocks = rows
        if lam:
            name = {"kind": "mix", "fisher": told(lam).curvature}
            blocks = [mixed(row, loss, lam) for row, loss in zip(rows, losses, strict=True)]
            blocks = [replace(block, meta={**block.meta, **name}) for block in blocks]
        found += [part for block in blocks for part in parts(block, source.sizes)]
    return found


def parts(row: CardinalityProblem, sizes: Sequence[int]) -> list[CardinalityProblem]:
    """Nested parts of a row, by size; the size of the row is the row itself, as no sizes are."""
    if not sizes:
        return [row]
    smaller = [n for n in sizes if n != row.n]
    nested = nested_subblocks(row, smaller, pool=ROW_POOL) if smaller else {}
    return [*nested.values(), *([row] if row.n in sizes else [])]


def cut(source: BlockSource, *, progress: bool = True) -> list[CardinalityProblem]:
    """The blocks, straight from the model."""
    loaded = load_model(source.model)
    samples = load_samples(loaded, count=source.count, length=source.length)
    whole = [source.within] if source.within else [max(source.sizes)]
    problems = distinct(
        export_blocks(
            loaded,
            samples,
            layers=source.layers,
            sizes=whole if source.nested or source.within else list(source.sizes),
            fishers=list(source.fisher),  # type: ignore[arg-type]  # checked by export_blocks
            density=source.density,
            batch_size=source.count,
            seed=source.seed,
            progress=progress,
        )
    )
    if source.within:
        return [part for problem in problems for part in coupled(problem, source.sizes)]
    if source.nested:
        problems = [part for problem in problems for part in nested(problem, source.sizes)]
    return problems


def distinct(problems: Sequence[CardinalityProblem]) -> list[CardinalityProblem]:
    """The blocks without those that are an earlier one with its variables in another order.

    Where a layer sees one position a sample, as in a perceptron, its sequence and its token Fisher
    are the same up to round-off, and would count twice.
    """
    found: dict[str, list[CardinalityProblem]] = {}
    for problem in problems:
        there = found.setdefault(f"{problem.meta.get('layer')} {problem.n}", [])
        if not any(_same(problem, other) for other in there):
            there.append(problem)
    kept = {id(problem) for same in found.values() for problem in same}
    return [problem for problem in problems if id(problem) in kept]


def _same(one: CardinalityProblem, other: CardinalityProblem) -> bool:
    """Whether two blocks of n variables differ in the order of these alone.

    Their gradients at 0 are the linear terms; at a random point they tell the curvatures apart.
    """
    assert one.indices is not None
    assert other.indices is not None
    first, second = np.argsort(one.indices), np.argsort(other.indices)
    if not np.array_equal(one.indices[first], other.indices[second]):
        return False
    if (one.cardinality, one.scale) != (other.cardinality, other.scale):
        return False
    if one.initial is None or other.initial is None:
        return False
    if not np.array_equal(one.initial[first], other.initial[second]):
        return False
    for point in (np.zeros(one.n), np.random.default_rng(0).normal(size=one.n)):
        left, right = np.empty(one.n), np.empty(one.n)
        left[first], right[second] = point, point
        a, b = one.fields(left)[first], other.fields(right)[second]
        if np.abs(a - b).max(initial=0.0) > ROUND_OFF * np.abs(a).max(initial=0.0):
            return False
    return True


def coupled(problem: CardinalityProblem, sizes: Sequence[int]) -> list[CardinalityProblem]:
    """The parts that `icbs cut` takes, named after their own size."""
    return [
        replace(part, meta={**part.meta, "n": n, "k": part.cardinality})
        for n, part in nested_subblocks(problem, sizes).items()
    ]


def nested(problem: CardinalityProblem, sizes: Sequence[int]) -> list[CardinalityProblem]:
    """Parts of a block, each inside the next, the rest fixed at the current mask.

    A part of n variables is the first n of one fixed order that alternates between pruned and kept
    variables, in the block's own random order within each side; its variables are shuffled.
    """
    assert problem.initial is not None
    pruned, kept = np.flatnonzero(problem.initial), np.flatnonzero(~problem.initial)
    both = min(len(pruned), len(kept))
    order = np.concatenate(
        [np.stack([pruned[:both], kept[:both]], axis=1).ravel(), pruned[both:], kept[both:]]
    )
    parts = []
    for n in sorted(sizes):
        rng = np.random.default_rng([problem.n, n])
        part = problem.restricted(rng.permutation(order[:n]))
        meta = {**problem.meta, "n": n, "k": part.cardinality, "part_of": problem.content_hash}
        parts.append(replace(part, meta=meta))
    return parts
