"""Layers visited in the order they run, each with the input that reaches it at that moment.

One forward pass over all calibration samples at once. A layer is handed over right before it runs,
so a visitor that changes its weights changes what every later layer sees: updates are sequential
without running anything twice, and torch frees each activation as soon as the pass is beyond it.
That holds for any model that torch can run, decoder or not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from icbs.blocks.capture import check_ran, frozen
from icbs.blocks.positions import real_rows
from icbs.data.samples import Samples
from icbs.errors import ModelError, memory_remedy

Visit = Callable[[str, torch.Tensor], None]


def visit_in_order(
    model: nn.Module, layers: Mapping[str, nn.Module], samples: Samples, visit: Visit
) -> set[str]:
    """Runs the model once and hands over each layer right before it runs.

    Args:
        model: any model whose samples these are.
        layers: chosen layers by name.
        samples: calibration samples, all run as one batch.
        visit: takes ``(name, inputs)``, inputs of shape (N, in) in float32 with one row for each
            real position. Layers that share an input are given the very same tensor, one after the
            other. It may write to the layer's weight.

    Returns:
        Names of the layers that were visited: all but experts that no real position is routed to.

    Raises:
        DataError: samples that the model cannot take.
        MemoryLimitError: the samples do not fit in one batch.
        ModelError: a layer that did not run, or whose input is not one row a position.
    """
    samples.check(model)
    visited: set[str] = set()
    shared: list[torch.Tensor] = []

    def before(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            if name in visited:
                raise ModelError(
                    f"layer {name!r} runs more than once in a pass and cannot be visited in "
                    "order: leave it out of the chosen layers"
                )
            if not shared or args[0] is not shared[0]:
                shared[:] = args[0], real_rows(module, args, samples, name)
            if len(shared[1]):
                visited.add(name)
                visit(name, shared[1])

        return hook

    with ExitStack() as hooks, frozen(model), torch.no_grad(), memory_remedy(*samples.memory):
        for name, layer in layers.items():
            hooks.callback(layer.register_forward_pre_hook(before(name)).remove)
        # The head is the dearest part and no layer comes after it.
        getattr(model, "base_model", model)(**samples.arguments(model))
    check_ran(layers, visited)
    return visited


class Grams:
    """``H = X'X / N`` of the last input; layers that share an input share it."""

    def __init__(self) -> None:
        self._x: torch.Tensor | None = None
        self._gram = torch.empty(0)

    def of(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """Shape (in, in) for inputs of shape (N, in).

        Raises:
            ModelError: inputs that are not finite.
        """
        if x is not self._x:
            self._x, self._gram = x, x.T @ x / len(x)
            if not torch.isfinite(self._gram).all():
                raise ModelError(f"the inputs of layer {name!r} are not finite: check the weights")
        return self._gram
