"""The kinds of blocks, one row each: what `icbs export --kind` offers. Light to import."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from solvers.problem import CardinalityProblem


@dataclass(frozen=True)
class Kind:
    """A kind of block.

    Attributes:
        meaning: what an energy is, for a person who chooses.
        target: ``module:function`` that cuts such blocks.
        options: of `icbs export` that no other kind has, by name.
    """

    meaning: str
    target: str
    options: tuple[str, ...]

    @property
    def export(self) -> Callable[..., list[CardinalityProblem]]:
        """Called as ``export(loaded, samples, layers=..., **settings)``."""
        module, _, name = self.target.partition(":")
        function: Callable[..., list[CardinalityProblem]] = getattr(import_module(module), name)
        return function


_ROW = ("rows", "draw", "pattern", "shrinkage", "sequential", "weighted", "budget")

KINDS = {
    "loss": Kind(
        "how the training loss changes when weights of a layer change sides",
        "icbs.blocks.export:export_blocks",
        ("fisher",),
    ),
    "row": Kind(
        "what share of one output of a layer is lost, exactly, when some of its weights go",
        "icbs.blocks.rowexport:export_rows",
        _ROW,
    ),
    "mix": Kind(
        "the two together, (1 - lam) of a row and lam of its loss block",
        "icbs.blocks.rowexport:export_rows",
        (*_ROW, "lam"),
    ),
}
