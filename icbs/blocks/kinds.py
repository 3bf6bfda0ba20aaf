"""The kinds of blocks, one row each: what `icbs export --kind` offers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from icbs.blocks.export import export_blocks
from icbs.blocks.rowexport import export_rows
from solvers.problem import CardinalityProblem


@dataclass(frozen=True)
class Kind:
    """A kind of block.

    Attributes:
        meaning: one sentence for a person who chooses.
        export: called as ``export(loaded, samples, layers=..., **settings)``.
        settings: names of the settings that are the kind's own.
    """

    meaning: str
    export: Callable[..., list[CardinalityProblem]]
    settings: tuple[str, ...]


_ROW = ("rows", "pattern", "shrinkage", "sequential", "weighted", "budget")

KINDS = {
    "loss": Kind(
        "how the training loss changes when a block of a layer's weights changes sides; on most of "
        "these every solver ties",
        export_blocks,
        ("sizes", "fishers"),
    ),
    "row": Kind(
        "what share of one output of a layer is lost, exactly, when some of its weights go; here "
        "solvers differ",
        export_rows,
        _ROW,
    ),
    "mix": Kind(
        "the two together: (1 - lam) of a row's lost output and lam of its loss block",
        export_rows,
        (*_ROW, "lam"),
    ),
}
