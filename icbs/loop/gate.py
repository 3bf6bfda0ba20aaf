"""The gate: how much of a step may stay, by the loss on samples that no step learns from.

Layers solved from the same backward pass all claim the same gain, so a step can overshoot although
every block improved. The gate takes fewer swaps, or none, where the held-out loss rose; and the
ridge grows or shrinks with the ratio of measured to predicted change (a trust region in Levenberg
and Marquardt's form).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from icbs.blocks.capture import Forward
from icbs.data.samples import Samples
from icbs.loop.moves import Move
from icbs.loop.records import StepRecord

# Shares of a step's swaps that are tried in turn before the step is given up.
_SHARES = (1.0, 0.4, 0.15)
# A step whose measured gain is this part of the predicted one or more may be followed by a longer.
_TRUSTED = 0.4
# Factor on the ridge after a step that was cut, and after one that could be trusted.
_SHORTER, _LONGER = 2.0, 1 / 1.5
# The ridge never falls below this part of what the settings say.
_LOWEST_RIDGE = 1 / 64


class Gate:
    """Measures the held-out loss and, if it is enforced, never lets it rise.

    Args:
        model: the model under pruning.
        layers: its chosen layers by name.
        heldout: samples that no step learns from; None measures and refuses nothing.
        batch_size: of them in one forward pass.
        enforced: undo, or take only a part of, a step that raises the loss.

    Attributes:
        enforced: as said, and there are samples.
        loss: on the held-out samples, of the state that was let through last; None without any.
        ridge: factor on the settings' ridges for the next step.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Mapping[str, nn.Module],
        heldout: Samples | None,
        batch_size: int,
        *,
        enforced: bool,
    ) -> None:
        held = () if heldout is None else heldout.split(batch_size)
        # Kept, because the part before the chosen layers need not run again.
        self._forwards = [Forward(model, layers, batch) for batch in held]
        self.enforced = enforced and heldout is not None
        self.loss: float | None = None
        self.ridge = 1.0

    def measure(self) -> float | None:
        """Loss on the held-out samples now; None without any."""
        if not self._forwards:
            return None
        return float(torch.cat([forward.losses() for forward in self._forwards]).double().mean())

    def passes(self, loss: float | None) -> bool:
        """Whether weights with that held-out loss may stay."""
        if not self.enforced or self.loss is None:
            return True
        # not `not >`: a loss that became NaN is refused too
        return loss is not None and loss <= self.loss

    def admit(
        self, moves: Sequence[Move], lap: Callable[[str], None]
    ) -> tuple[float, float | None]:
        """Applies the largest share of the swaps that passes.

        Args:
            moves: of all blocks of the step.
            lap: called with ``apply`` and ``measure`` as each is done.

        Returns:
            ``(share, loss)``: 0 and the loss before if no share passes.
        """
        for share in _SHARES:
            for move in moves:
                move.apply(share)
            lap("apply")
            loss = self.measure()
            lap("measure")
            if self.passes(loss):
                return share, loss
            for move in moves:
                move.undo()
            lap("apply")
        return 0.0, self.loss

    def adapt(self, record: StepRecord, predicted: float) -> None:
        """Sets the ridge for the next step: a larger one makes shorter steps.

        Args:
            record: of the step.
            predicted: change of the loss that all of its swaps promised.
        """
        if not self.enforced or record.measured is None:
            return
        if record.share < 1:
            self.ridge *= _SHORTER
        elif record.measured <= _TRUSTED * predicted:
            self.ridge = max(self.ridge * _LONGER, _LOWEST_RIDGE)
