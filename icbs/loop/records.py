"""What a pruning run writes down: one record a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from icbs.checked import one_line

if TYPE_CHECKING:
    from icbs.loop.moves import Move

Number = Annotated[float, Field(strict=True)]
Whole = Annotated[int, Field(strict=True, ge=0)]
# A file is of this version of the record or of none.
_NO_MORE = ConfigDict(extra="forbid")

# Stages of a step, in order; their seconds add up to the step's wall time.
STAGES = ("capture", "select", "build", "solve", "apply", "measure")


def number(name: str, value: Any) -> float:
    """A value of a file that must be a number.

    Raises:
        TypeError: it is none.
        OverflowError: it is too large for a float.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is {str(value)[:80]!r}, expected a number")
    return float(value)


def whole(name: str, value: Any) -> int:
    """A value of a file that must be a whole number from 0.

    Raises:
        TypeError: it is no whole number.
        ValueError: it is below 0.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is {str(value)[:80]!r}, expected a whole number")
    if value < 0:
        raise ValueError(f"{name} is {value}, expected a whole number from 0")
    return value


@dataclass(frozen=True)
class LayerStep:
    """What one step did in one layer.

    Attributes:
        layer: its name.
        n: variables of the block; 0 for an expert that no sample of the batch reached.
        k: of them pruned.
        predicted: change of the loss that the block's model predicts for the swaps taken.
        swaps: weights revived (as many were pruned).
        offered: swaps of the solver's answer, of which the gate may take a part.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _NO_MORE

    layer: str
    n: Whole
    k: Whole
    predicted: Number
    swaps: Whole
    offered: Whole

    @classmethod
    def of(cls, layer: str, move: Move | None, share: float) -> LayerStep:
        """What a share of a move does; None for a layer that the batch did not reach."""
        if move is None:
            return cls(layer, 0, 0, 0.0, 0, 0)
        return cls(layer, move.n, move.k, move.predicted(share), move.swaps(share), move.swaps(1.0))


@dataclass(frozen=True)
class StepRecord:
    """What one step did.

    Attributes:
        step: 1 for the first.
        layers: one entry for each chosen layer.
        seconds: wall time by stage, keys `STAGES`.
        loss_before: loss on the step's calibration batch before, nats per target.
        loss_after: the same after; None when it was not measured.
        heldout_before: loss on the held-out samples before; None without any.
        heldout_after: the same after.
        share: part of the solvers' swaps that the gate let through; 0 if the step was undone.
        ridge: factor on the settings' ridges that was used.
        density: kept fraction of all chosen layers after the step.
        touched: share of the weights that were ever in a block.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _NO_MORE

    step: Whole
    layers: tuple[LayerStep, ...]
    seconds: Mapping[str, Number]
    loss_before: Number
    loss_after: Number | None
    heldout_before: Number | None
    heldout_after: Number | None
    share: Number
    ridge: Number
    density: Number
    touched: Number

    @property
    def predicted(self) -> float:
        """Sum of the predicted loss changes over the layers."""
        return sum(layer.predicted for layer in self.layers)

    @property
    def measured(self) -> float | None:
        """Change of the loss on the held-out samples; on the step's own batch without any."""
        if self.heldout_before is not None and self.heldout_after is not None:
            return self.heldout_after - self.heldout_before
        return None if self.loss_after is None else self.loss_after - self.loss_before

    @property
    def swaps(self) -> int:
        """Weights revived in all layers."""
        return sum(layer.swaps for layer in self.layers)

    @property
    def offered(self) -> int:
        """Swaps of the solvers' answers in all layers."""
        return sum(layer.offered for layer in self.layers)

    @property
    def accepted(self) -> bool:
        """Whether any of the swaps passed the gate."""
        return self.share > 0

    def to_json(self) -> dict[str, Any]:
        """JSON values; `from_json` gives the same record back, bit for bit."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> StepRecord:
        """The record that `to_json` was called on.

        Raises:
            ValueError: a value of another kind or a count below 0, or keys of another record.
        """
        try:
            return _records().validate_python(values)
        except ValidationError as refused:
            raise ValueError(one_line(refused)) from None

    def __str__(self) -> str:
        loss = self.loss_before if self.heldout_after is None else self.heldout_after
        change = "" if self.measured is None else f" ({self.measured:+.4f})"
        word = "held-out loss" if self.heldout_after is not None else "loss"
        undone = "" if self.accepted else ", undone by the gate"
        return (
            f"step {self.step}: {word} {loss:.4f}{change}, {self.swaps:,} swaps{undone}, "
            f"ridge x {self.ridge:.3g}, {sum(self.seconds.values()):.1f} s"
        )


@cache
def _records() -> TypeAdapter[StepRecord]:
    return TypeAdapter(StepRecord)
