"""Kinds of studies: where instances come from that are no files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, TypeVar, dataclass_transform

from pydantic import Field

from experiments.errors import StudyError
from experiments.study.tables import table

if TYPE_CHECKING:
    from experiments.store.database import Store

T = TypeVar("T")


@dataclass(frozen=True)
class Kind:
    """A kind of source.

    Attributes:
        key: its tables in a study file are ``[[key]]``.
        table: what such a table becomes.
        target: ``module:function`` that brings its instances into a store.
    """

    key: str
    table: type[Any]
    target: str

    def register(self, source: Any, store: Store, *, progress: bool) -> dict[str, int]:
        """Content hash -> number of variables, of the instances of a source."""
        module, _, name = self.target.partition(":")
        sizes: dict[str, int] = getattr(import_module(module), name)(
            source, store, progress=progress
        )
        return sizes


_KINDS: dict[str, Kind] = {}


@dataclass_transform(frozen_default=True, field_specifiers=(Field,))
def source(key: str, target: str) -> Callable[[type[T]], type[T]]:
    """A decorator: a class as a kind of source, checked as `tables.table` does.

    It is found in any module of this package.

    Args:
        key: of the study file.
        target: ``module:function``, called as ``function(source, store, progress=...)`` where a
            study begins or goes on. It puts problems into the store, once, and returns content
            hash -> number of variables.

    Raises:
        StudyError: two kinds of one key.
    """
    if key in _KINDS:
        raise StudyError(f"source {key!r} is there twice; give each kind a key of its own")

    def decorated(cls: type[T]) -> type[T]:
        checked = table(key)(cls)
        _KINDS[key] = Kind(key, checked, target)
        return checked

    return decorated


def kinds() -> Mapping[str, Kind]:
    """Every kind of the modules of this package, by key."""
    for module in iter_modules([str(Path(__file__).parent)]):
        import_module(f"experiments.study.{module.name}")
    return _KINDS


def kind_of(one: object) -> Kind:
    """The kind of a source.

    Raises:
        StudyError: it is none.
    """
    for kind in kinds().values():
        if isinstance(one, kind.table):
            return kind
    raise StudyError(f"sources: {one!r} is none; choose from {', '.join(kinds())}")
