"""What a pruning run is told: every number that shapes its blocks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from icbs.errors import DensityError, LayerError, SettingError
from icbs.patterns import Group, checked_density, parse_pattern

Saliency = Literal["wanda", "magnitude", "gradient", "random"]
Curvature = Literal["sequence", "position", "exact"]
Schedule = Literal["uniform", "size", "gain"]

_CHOICES = {
    "fisher": Curvature,
    "init": Saliency,
    "group": Group,
    "select": Saliency,
    "schedule": Schedule,
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of `icbs.loop.pruner.Pruner`.

    Attributes:
        density: fraction of weights to keep in every chosen layer, above 0 and below 1.
        pattern: ``N:M``: of every M consecutive inputs of an output exactly N are kept, after every
            step. The density must be N/M; a block is made of pairs, a kept and a pruned weight of
            one group, that change sides together. None keeps no pattern.
        block_size: variables of a layer's block, ``n``; below 1, as a share of the layer's weights.
            A layer with fewer free weights gets a smaller block.
        k: pruned weights in a block; None takes ``round((1 - density) * n)``.
        fisher: curvature: ``sequence`` or ``position`` (see `icbs.blocks.gradients`), or ``exact``,
            the true Hessian (see `icbs.blocks.hessian`).
        rank: rows of the position Fisher's sketch; None keeps every position.
        gamma: multiplier of the first-order part.
        damping: ridge on each weight's step relative to its own curvature, the diagonal of the
            position Fisher in Kronecker form (Marquardt 1963).
        lam: ridge on the size of a step, the same for every weight.
        momentum: share of the past steps in the mean gradient, from 0 to below 1.
        init: saliency of the first mask; also ranks the fixed weights.
        group: within what the weights compete for the first mask: layer, output or input.
        select: what ranks the weights for a block; ``gradient`` takes those whose change promises
            most.
        schedule: which layers get a block when `layers_per_step` is less than all of them:
            ``uniform`` and ``size`` (weights' logarithm) draw at random, ``gain`` takes those whose
            last block promised most.
        layers_per_step: blocks from one backward pass; None means one in every layer.
        carry: what the blocks solved earlier in the same backward pass changed is part of the
            later ones' problems, so that they do not all claim the same gain.
        tabu: fraction of the free weights that may be tabu at once.
        fixed_kept: fraction of the kept weights, the most salient, that never move.
        fixed_pruned: fraction of the pruned weights, the least salient, that never move.
        batch_size: calibration samples in one backward pass.
        tuning_batch_size: those in one step of the tuning; None takes `batch_size`.
        mixed_precision: the passes that gradients come from multiply in bfloat16 (torch.autocast),
            1.5 to 2 times as fast where the hardware does so; weights, the gate's losses and the
            evaluation keep the model's own type. Not with ``exact``.
        seed: of everything random.
    """

    density: float = 0.5
    pattern: str | None = None
    block_size: float = 0.02
    k: int | None = None
    fisher: Curvature = "sequence"
    rank: int | None = 256
    gamma: float = 1.0
    damping: float = 1000.0
    lam: float = 0.0
    momentum: float = 0.7
    init: Saliency = "wanda"
    group: Group = "output"
    select: Saliency = "gradient"
    schedule: Schedule = "uniform"
    layers_per_step: int | None = None
    carry: bool = True
    tabu: float = 0.0
    fixed_kept: float = 0.0
    fixed_pruned: float = 0.0
    batch_size: int = 16
    tuning_batch_size: int | None = None
    mixed_precision: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        checked_density(self.density)
        for name, kinds in _CHOICES.items():
            value = getattr(self, name)
            if value not in get_args(kinds):
                options = ", ".join(get_args(kinds))
                raise SettingError(f"{name} is {value!r}, expected one of {options}")
        for name in ("tabu", "fixed_kept", "fixed_pruned"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise DensityError(f"{name} is {value}, expected a fraction from 0 to 1")
        for name in ("gamma", "lam", "damping"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise SettingError(f"{name} is {value}, expected a number from 0")
        if not 0 <= self.momentum < 1:
            raise SettingError(f"momentum is {self.momentum}, expected a number from 0 to below 1")
        size = self.block_size
        if not (0 < size < 1 or (size >= 1 and size == int(size))):
            raise LayerError(
                f"block_size is {size}, expected a whole number from 1 or a share of the layer "
                "above 0 and below 1"
            )
        for name in ("batch_size", "tuning_batch_size", "rank", "layers_per_step"):
            value = getattr(self, name)
            if value is None and name != "batch_size":
                continue
            if value < 1:
                raise SettingError(f"{name} is {value}, expected a whole number from 1")
        if self.seed < 0:
            raise SettingError(f"seed is {self.seed}, expected a whole number from 0")
        if self.k is not None and (size < 1 or not 0 <= self.k <= size):
            raise DensityError(
                f"k is {self.k}, expected the number of pruned weights in a block of a fixed size, "
                f"0..{size if size >= 1 else 'block_size'}"
            )
        if self.mixed_precision and self.fisher == "exact":
            raise SettingError(
                "mixed_precision is True and fisher 'exact': a true Hessian has no use for rounded "
                "gradients; leave one of them out"
            )
        if self.pattern is not None:
            self._check_pattern(self.pattern)

    def _check_pattern(self, pattern: str) -> None:
        n, m = parse_pattern(pattern)
        # Densities are written with a few digits, and a third has no exact one.
        if abs(self.density - n / m) > 1e-3:
            raise DensityError(
                f"density is {self.density}, pattern {pattern} keeps {n / m:.4g}: set that density"
            )
        object.__setattr__(self, "density", n / m)
        for name, needed in (("k", None), ("group", "output")):
            if getattr(self, name) != needed:
                raise SettingError(
                    f"{name} is {getattr(self, name)!r}, which pattern {pattern} leaves no choice "
                    "of: every group keeps as many, and a block takes one kept and one pruned "
                    "weight of a group; leave it out"
                )
        if self.block_size >= 1 and self.block_size % 2:
            raise LayerError(
                f"block_size is {self.block_size}, expected an even number with pattern {pattern}: "
                "a block is made of pairs"
            )

    def block_variables(self, weights: int) -> int:
        """Variables of a block in a layer of so many weights, if all of them are free."""
        return (
            max(1, round(self.block_size * weights))
            if self.block_size < 1
            else int(self.block_size)
        )

    def pruned_in(self, n: int, density: float) -> int:
        """Pruned weights in a block of n variables of a layer of that density."""
        if self.k is not None and n == self.block_size:
            return self.k
        return round((1 - density) * n)


def parse_settings(words: Sequence[str]) -> dict[str, Any]:
    """Settings given as ``name=value``; values are words, or JSON: 0.5, 3, true, null.

    Raises:
        SettingError: no such setting, no ``=``, a value of another type, or a name given twice.
    """
    kinds = {field.name: str(field.type) for field in fields(Settings)}
    found: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or name not in kinds:
            raise SettingError(
                f"setting {word!r}, expected NAME=VALUE with one of {', '.join(kinds)}"
            )
        if name in found:
            raise SettingError(f"setting {name} is given twice, as {word!r} at last: give it once")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        if not _fits(value, kinds[name]):
            raise SettingError(f"setting {name} is {text!r}, expected {kinds[name]}")
        found[name] = value
    return found


def _fits(value: Any, kind: str) -> bool:
    if value is None:
        return kind.endswith("None")
    if isinstance(value, bool) or kind == "bool":
        return isinstance(value, bool) and kind == "bool"
    if isinstance(value, int):
        return kind.startswith(("int", "float"))
    if isinstance(value, float):
        return kind.startswith("float")
    return isinstance(value, str) and not kind.startswith(("int", "float"))
