"""What a pruning run is told: every number that shapes its blocks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from icbs.checked import plain_errors
from icbs.errors import DensityError, LayerError, SettingError, nearest
from icbs.patterns import Group, parse_pattern

Saliency = Literal["wanda", "magnitude", "gradient", "random"]
FirstMask = Literal["wanda", "magnitude", "gradient", "random", "rows"]
Curvature = Literal["sequence", "position", "exact"]
Schedule = Literal["uniform", "size", "gain"]

Share = Annotated[float, Field(ge=0, le=1, title="a number from 0 to 1")]
Factor = Annotated[float, Field(ge=0, allow_inf_nan=False, title="a number from 0")]
Count = Annotated[int, Field(ge=1, title="a whole number from 1")]
MaybeCount = Annotated[int | None, Field(ge=1, title="a whole number from 1, or None")]

_ERRORS = {
    "block_size": LayerError,
    **dict.fromkeys(("density", "k", "pattern"), DensityError),
    **dict.fromkeys(("tabu", "fixed_kept", "fixed_pruned"), DensityError),
}


@plain_errors(_ERRORS)
@dataclass(frozen=True, kw_only=True, config=ConfigDict(strict=True, extra="forbid"))
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
        init: what makes the first mask: a saliency, or ``rows``, the search for the least output
            error of each layer (see `icbs.blocks.rowsearch`). The saliency, of ``rows`` Wanda's,
            also ranks the fixed weights.
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

    density: Annotated[float, Field(gt=0, lt=1, title="a value between 0 and 1")] = 0.5
    pattern: Annotated[str | None, Field(title="N:M such as 2:4, or None")] = None
    block_size: Annotated[
        int | float,
        Field(gt=0, allow_inf_nan=False, title="a whole number from 1, or a share below 1"),
    ] = 0.02
    k: Annotated[int | None, Field(ge=0, title="a whole number from 0, or None")] = None
    fisher: Curvature = "sequence"
    rank: MaybeCount = 256
    gamma: Factor = 1.0
    damping: Factor = 1000.0
    lam: Factor = 0.0
    momentum: Annotated[float, Field(ge=0, lt=1, title="a number from 0 to below 1")] = 0.7
    init: FirstMask = "wanda"
    group: Group = "output"
    select: Saliency = "gradient"
    schedule: Schedule = "uniform"
    layers_per_step: MaybeCount = None
    carry: Annotated[bool, Field(title="true or false")] = True
    tabu: Share = 0.0
    fixed_kept: Share = 0.0
    fixed_pruned: Share = 0.0
    batch_size: Count = 16
    tuning_batch_size: MaybeCount = None
    mixed_precision: Annotated[bool, Field(title="true or false")] = False
    seed: Annotated[int, Field(ge=0, title="a whole number from 0")] = 0

    def __post_init__(self) -> None:
        size = self.block_size
        if size > 1 and size % 1:
            raise LayerError(
                f"block_size is {size}; choose a whole number from 1, or a share below 1"
            )
        if self.k is not None and not (size >= 1 and self.k <= size):
            raise DensityError(
                f"k is {self.k}, the pruned weights of a block, and block_size is {size}; choose a "
                "block_size from 1 and a k that is not above it"
            )
        if self.mixed_precision and self.fisher == "exact":
            raise SettingError(
                "mixed_precision is True and fisher is 'exact', which takes no rounded gradients; "
                "leave one of them out"
            )
        if self.pattern is not None:
            self._check_pattern(self.pattern)

    def _check_pattern(self, pattern: str) -> None:
        n, m = parse_pattern(pattern)
        # Densities are written with a few digits, and a third has no exact one.
        if abs(self.density - n / m) > 1e-3:
            raise DensityError(
                f"density is {self.density}, and pattern {pattern} keeps {n / m:.4g}; "
                "choose that density"
            )
        object.__setattr__(self, "density", n / m)
        for name, needed in (("k", None), ("group", "output")):
            if getattr(self, name) != needed:
                raise SettingError(
                    f"{name} is {getattr(self, name)!r}, which pattern {pattern} decides by itself "
                    "(every group keeps as many, and a block is made of pairs); leave it out"
                )
        if self.block_size >= 1 and self.block_size % 2:
            raise LayerError(
                f"block_size is {self.block_size} and a block of pattern {pattern} is made of "
                "pairs; choose an even number"
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


@plain_errors({"density": DensityError, "pattern": DensityError, "rows": LayerError})
@dataclass(frozen=True, kw_only=True, config=ConfigDict(strict=True, extra="forbid"))
class RowSettings:
    """What row blocks are told; see `icbs.blocks.rows`.

    Attributes:
        density: fraction of each row's weights that the current mask, Wanda's, keeps.
        pattern: ``N:M``: of every M consecutive inputs N are kept, and each M are a group of the
            block. The density must be N/M. None: a row has one budget.
        rows: outputs of each layer that blocks are made of, by number; or how many are drawn.
        sequential: inputs of the model as pruned before the layer, outputs wanted as trained.
        weighted: positions count by the loss's gradient at the output.
        shrinkage: of H towards its diagonal; at 1 Wanda's mask is the best.
        lam: share of the loss block in a mix; 0 is the row alone.
        budget: ``row`` gives a block for each row; ``rows`` one block of all rows of a layer, each
            row, or each group of its pattern, a group of the block; ``layer`` one block whose rows
            share their number of pruned weights.
        seed: of the rows that are drawn and of the variables' order.
    """

    density: Annotated[float, Field(gt=0, lt=1, title="a value between 0 and 1")] = 0.5
    pattern: Annotated[str | None, Field(title="N:M such as 2:4, or None")] = None
    rows: Annotated[
        int | tuple[int, ...], Field(title="a number from 1, or a tuple of row numbers")
    ] = 4
    sequential: Annotated[bool, Field(title="true or false")] = False
    weighted: Annotated[bool, Field(title="true or false")] = False
    shrinkage: Share = 0.0
    lam: Share = 0.0
    budget: Literal["row", "rows", "layer"] = "row"
    seed: Annotated[int, Field(ge=0, title="a whole number from 0")] = 0

    def __post_init__(self) -> None:
        rows = self.rows
        if rows == () or (isinstance(rows, int) and rows < 1):
            raise LayerError(f"rows is {rows!r}; choose a number from 1, or name rows")
        if isinstance(rows, tuple) and len(set(rows)) != len(rows):
            raise LayerError(f"rows is {rows}; name each row once")
        if self.sequential and self.weighted:
            raise SettingError(
                "sequential and weighted are True, and the weights belong to the trained model's "
                "inputs; leave one of them out"
            )
        if self.budget != "row" and self.lam:
            raise SettingError(
                f"budget is {self.budget!r} and lam is {self.lam}, but a mix is of one row; leave "
                "one of them out"
            )
        if self.budget == "layer" and self.pattern is not None:
            raise DensityError(
                f"budget is 'layer' and pattern is {self.pattern}, which fixes the budget of every "
                "group; leave one of them out"
            )
        # The same checks of density and pattern as for whole prunings.
        mask = Settings(density=self.density, pattern=self.pattern)
        object.__setattr__(self, "density", mask.density)

    @property
    def curvature(self) -> str:
        """What the blocks' curvature is called: reconstruction, its variants, or a mix."""
        name = "token-weighted reconstruction" if self.weighted else "reconstruction"
        if self.lam:
            name = "mix"
        for on, word in (
            (self.sequential, "sequential"),
            (self.shrinkage, f"shrunk by {self.shrinkage:g}"),
            (self.budget == "layer", "one budget"),
            (self.budget == "rows", "rows as groups"),
            (self.pattern, self.pattern),
        ):
            name += f", {word}" if on else ""
        return name


def parse_settings(words: Sequence[str]) -> dict[str, Any]:
    """Settings given as ``name=value``; values are words, or JSON: 0.5, 3, true, null.

    Values are checked by `Settings`.

    Raises:
        SettingError: no such setting, no ``=``, or a name given twice.
    """
    known = [field.name for field in fields(Settings)]
    found: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if name not in known:
            raise SettingError(
                f"--set {word}: there is no setting {name!r}; {nearest(name, known)}"
            )
        if not equals:
            raise SettingError(f"--set {word}: {name} has no value; write {name}=VALUE")
        if name in found:
            raise SettingError(f"--set {word}: {name} is given twice; give it once")
        try:
            found[name] = json.loads(text)
        except json.JSONDecodeError:
            found[name] = text
    return found
