"""What a figure is: a function of a study's records, its title, and words for who cannot see it.

A new figure is one function in any module of this package; pages and studies find it by themselves:

    @figure("feasible", "Feasible reads", "Share of reads with exactly k ones, a bar a solver.")
    def feasible(runs: pd.DataFrame) -> Figure:
        ...

A study asks for it by its name (``figures = ["feasible"]``). What the function gets is what its
parameters are called: attributes of `Records`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, TypeVar

import pandas as pd
from matplotlib.figure import Figure

from experiments.errors import FigureError
from experiments.metrics.ranking import Headline, headline
from experiments.metrics.references import SCORED, annotate
from experiments.store.database import APPLIED, TRAJECTORIES, WHOLE_MODELS, Store

F = TypeVar("F", bound=Callable[..., Figure])


@dataclass(frozen=True)
class Records:
    """What figures are drawn from.

    Attributes:
        runs: of a store, with references and gaps (`experiments.metrics.references.annotate`).
        instances: one row an instance.
        incumbents: improvements over time.
        steps: applied masks, predicted and measured loss; None without any.
        loop: trajectories of the closed loop; None without any.
        models: whole models by method and density; None without any.
        complete: whether every planned run is there.
    """

    runs: pd.DataFrame
    instances: pd.DataFrame
    incumbents: pd.DataFrame
    steps: pd.DataFrame | None = None
    loop: pd.DataFrame | None = None
    models: pd.DataFrame | None = None
    complete: bool = True

    @classmethod
    def of(cls, store: Store) -> Records:
        """Those of a store that is open."""
        models = store.table(WHOLE_MODELS)
        return cls(
            runs=annotate(store.runs()),
            instances=store.instances(),
            incumbents=store.incumbents(),
            steps=store.table(APPLIED),
            loop=store.table(TRAJECTORIES),
            # A method that was refused has no quality.
            models=None if models is None else models[models["loss"].notna()],
        )

    @cached_property
    def headline(self) -> Headline:
        """Who won."""
        return headline(self.runs, self.incumbents, complete=self.complete)

    @property
    def ranked(self) -> bool:
        """Whether any run has a gap."""
        return bool((self.runs["status"].isin(SCORED) & self.runs["gap"].notna()).any())


@dataclass(frozen=True)
class Entry:
    """A figure by its name.

    Attributes:
        name: of its files, and in studies.
        title: above it.
        alt: what it shows, in words: a text, or a function of records that gives one.
        draw: of records.
        always: its place among the figures of every page; None if a study has to ask for it.
        when: whether there is anything to draw.
    """

    name: str
    title: str
    alt: str | Callable[..., str]
    draw: Callable[..., Figure]
    always: int | None
    when: Callable[..., bool] | None

    def applies(self, records: Records) -> bool:
        """Whether the records have what it is drawn from."""
        wanted = _arguments(self.draw, records)
        if any(value is None or len(value) == 0 for value in wanted.values()):
            return False
        if "runs" in wanted and not records.ranked and self.when is None:
            return False
        return self.when is None or bool(_call(self.when, records))

    def drawn(self, records: Records) -> Figure:
        """The figure."""
        return _call(self.draw, records)

    def words(self, records: Records) -> str:
        """The text for who cannot see it."""
        return self.alt if isinstance(self.alt, str) else _call(self.alt, records)


_ENTRIES: dict[str, Entry] = {}


def figure(
    name: str,
    title: str,
    alt: str | Callable[..., str],
    *,
    always: int | None = None,
    when: Callable[..., bool] | None = None,
) -> Callable[[F], F]:
    """Makes a function a figure of pages and studies, see `Entry`.

    Args:
        name: unlike that of any other figure.
        title: shown above it.
        alt: a text, or a function whose parameters are attributes of `Records`.
        always: on every page, at this place; only where a study asks for it if None.
        when: whether there is anything to draw, a function whose parameters are attributes of
            `Records`. If None: there are rows, and of runs some with a gap.
    """

    def register(draw: F) -> F:
        known = _ENTRIES.get(name)
        if known is not None and known.draw.__qualname__ != draw.__qualname__:
            raise FigureError(f"figure {name!r} is there twice; give one of them another name")
        _ENTRIES[name] = Entry(name, title, alt, draw, always, when)
        return draw

    return register


def entries() -> dict[str, Entry]:
    """Every figure of the modules of this package, by name."""
    for module in iter_modules([str(Path(__file__).parent)]):
        import_module(f"experiments.figures.{module.name}")
    return _ENTRIES


def asked() -> list[str]:
    """Names of the figures that studies can ask for."""
    return sorted(name for name, entry in entries().items() if entry.always is None)


def planned(records: Records, wanted: Collection[str]) -> list[Entry]:
    """What a page draws: the figures of every page in their order, then those that were asked for.

    Args:
        records: of the page's store.
        wanted: names, in the order in which they come; unknown ones are left out, since a store may
            be of a program with other figures.
    """
    known = entries()
    own = [entry for entry in known.values() if entry.always is not None]
    own.sort(key=lambda entry: entry.always or 0)
    extra = [known[name] for name in dict.fromkeys(wanted) if name in known]
    return [e for e in [*own, *(e for e in extra if e.always is None)] if e.applies(records)]


def _arguments(function: Callable[..., Any], records: Records) -> dict[str, Any]:
    return {name: getattr(records, name) for name in inspect.signature(function).parameters}


def _call(function: Callable[..., Any], records: Records) -> Any:
    return function(**_arguments(function, records))
