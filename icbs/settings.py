"""What a pruning run is told: every number that shapes its blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from icbs.errors import DensityError, LayerError, SettingError
from icbs.gradients import Fisher
from icbs.masks import Group, checked_density

Init = Literal["wanda", "magnitude", "gradient", "random"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of `icbs.loop.Pruner`.

    Attributes:
        density: fraction of weights to keep in every chosen layer, above 0 and below 1.
        block_size: variables of a layer's block, ``n``.
        k: pruned weights in a block; None takes ``round((1 - density) * n)``.
        fisher: curvature, ``sequence`` or ``position``.
        rank: rows of the position Fisher's sketch; None keeps every position.
        gamma: multiplier of the first-order part.
        lam: ridge on the size of a step.
        init: saliency of the first mask; also ranks the fixed weights.
        group: within what the weights compete for the first mask: layer, output or input.
        tabu: fraction of the free weights that may be tabu at once.
        fixed_kept: fraction of the kept weights, the most salient, that never move.
        fixed_pruned: fraction of the pruned weights, the least salient, that never move.
        batch_size: calibration windows in one backward pass.
        seed: of everything random.
    """

    density: float = 0.5
    block_size: int = 2048
    k: int | None = None
    fisher: Fisher = "sequence"
    rank: int | None = 256
    gamma: float = 0.75
    lam: float = 0.004
    init: Init = "wanda"
    group: Group = "output"
    tabu: float = 0.4
    fixed_kept: float = 0.84
    fixed_pruned: float = 0.7
    batch_size: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        checked_density(self.density)
        for name, kinds in (("fisher", Fisher), ("init", Init), ("group", Group)):
            value = getattr(self, name)
            if value not in get_args(kinds):
                options = ", ".join(get_args(kinds))
                raise SettingError(f"{name} is {value!r}, expected one of {options}")
        for name in ("tabu", "fixed_kept", "fixed_pruned"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise DensityError(f"{name} is {value}, expected a fraction from 0 to 1")
        for name in ("gamma", "lam"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise SettingError(f"{name} is {value}, expected a number from 0")
        if self.block_size < 1:
            raise LayerError(f"block_size is {self.block_size}, expected a whole number from 1")
        if self.batch_size < 1:
            raise SettingError(f"batch_size is {self.batch_size}, expected a whole number from 1")
        if self.rank is not None and self.rank < 1:
            raise SettingError(f"rank is {self.rank}, expected a whole number from 1 or None")
        if self.k is not None and not 0 <= self.k <= self.block_size:
            raise DensityError(
                f"k is {self.k}, expected the number of pruned weights in a block, "
                f"0..{self.block_size}"
            )

    def pruned_in(self, n: int) -> int:
        """Pruned weights in a block of n variables."""
        if self.k is not None and n == self.block_size:
            return self.k
        return round((1 - self.density) * n)
