"""Brings a study's instances into its store."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from pathlib import Path

from experiments.errors import StudyError
from experiments.instances.library import reading as library
from experiments.instances.library.reading import Entry
from experiments.progress import cell_progress
from experiments.store.database import Store
from experiments.study.kinds import kind_of
from experiments.study.paths import LIBRARY
from experiments.study.study import Study
from solvers.errors import SolverError
from solvers.io import formats
from solvers.problem import CardinalityProblem


def register(study: Study, store: Store, *, progress: bool = True) -> dict[str, int]:
    """Puts files, and what a study's sources bring, into the store, with their hardness.

    What a study runs to get at its instances, the closed loop, is not here: see
    `experiments.running.runner`.

    One instance is in memory at a time. An instance that comes twice counts once.

    Args:
        study: with instances and blocks.
        store: open for writing.
        progress: show a bar or a line.

    Returns:
        Content hash -> number of variables, of this study's instances.

    Raises:
        StudyError: a glob that matches nothing, a file that is no problem; a store that was made
            for this study is gone again.
    """
    try:
        sizes = _read(study, store, progress)
    except StudyError:
        store.withdraw()
        raise
    for source in study.sources:
        # What brings them is imported here: only blocks need a model, and with it PyTorch.
        sizes |= kind_of(source).register(source, store, progress=progress)
    return sizes


def _read(study: Study, store: Store, progress: bool) -> dict[str, int]:
    """Puts files and problems at hand into the store."""
    sources = list(_sources(study))
    sizes: dict[str, int] = {}
    with cell_progress(f"Reading {len(sources)} instances", len(sources), show=progress) as advance:
        for position, source in enumerate(sources):
            if isinstance(source, CardinalityProblem):
                problem, name = source, _name(source, position)
            elif isinstance(source, Entry):
                problem, name = library.problem(source), source.name
            else:
                problem, name = (
                    _load(source, study.cardinality),
                    source.name.removesuffix(formats.CONTAINER),
                )
            sizes[store.add_instance(problem, name)] = problem.n
            advance()
    return sizes


def _sources(study: Study) -> Iterator[Path | CardinalityProblem | Entry]:
    for entry in study.instances:
        if isinstance(entry, CardinalityProblem):
            yield entry
            continue
        if str(entry).startswith(LIBRARY):
            yield from library.matching(str(entry).removeprefix(LIBRARY))
            continue
        matches = sorted(glob.glob(str(entry), recursive=True))  # noqa: PTH207 - may be absolute
        if not matches and glob.has_magic(str(entry)):
            raise StudyError(f"instances: {str(entry)!r} matches no file")
        yield from map(Path, matches or [str(entry)])


def _load(path: Path, cardinality: int | None) -> CardinalityProblem:
    try:
        return formats.load(path, cardinality)
    except (SolverError, OSError) as error:
        raise StudyError(f"instances: {path}: {error}") from error


def _name(problem: CardinalityProblem, position: int) -> str:
    meta = problem.meta
    row = [f"r{meta['row']}"] if isinstance(meta.get("row"), int) else []
    named = [str(meta[key]) for key in ("layer", "fisher") if meta.get(key) is not None]
    parts = [*named[:1], *row, *named[1:]]
    return "-".join([*(parts or [f"instance{position}"]), f"n{problem.n}"])
