"""Layers visited in the order they run, each with the input that reaches it at that moment.

One forward pass over all calibration samples at once. A layer is handed over right before it runs,
so a visitor that changes its weights changes what every later layer sees: updates are sequential
without running anything twice, and torch frees each activation as soon as the pass is beyond it.
That holds for any model that torch can run, decoder or not.

For targets of the dense model the batch is doubled: the first half carries the activations of the
dense weights, the second half those of the live ones, and the two never mix.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from icbs.capture import frozen
from icbs.errors import ModelError

Visit = Callable[[str, torch.Tensor, torch.Tensor | None], None]


def visit_in_order(
    model: nn.Module,
    layers: Mapping[str, nn.Linear],
    tokens: torch.Tensor,
    visit: Visit,
    *,
    mask: torch.Tensor | None = None,
    dense: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Runs the model once and hands over each layer right before it runs.

    Args:
        model: a causal language model.
        layers: chosen layers by name.
        tokens: calibration windows, shape (B, T).
        visit: takes ``(name, inputs, dense_inputs)``, inputs of shape (N, in) with one row for each
            real token. Layers that share an input are given the very same tensor, one after the
            other. `dense_inputs` is None without `dense`. It may write to the layer's weight.
        mask: True where a token is real, shape (B, T); padding is not handed over.
        dense: trained weights by name, shape (out, in); with them the dense model runs alongside.

    Raises:
        ModelError: a layer that did not run, or whose input is not one row a token.
    """
    walk = _Walk(visit, len(tokens), mask, dense)
    device = next(model.parameters()).device
    arguments: dict[str, Any] = {"input_ids": tokens, "use_cache": False}
    if mask is not None:
        arguments["attention_mask"] = mask.long()
    copies = 1 if dense is None else 2
    for name, value in arguments.items():
        if isinstance(value, torch.Tensor):
            arguments[name] = torch.cat([value.to(device)] * copies)
    with ExitStack() as hooks, frozen(model), torch.no_grad():
        for name, layer in layers.items():
            walk.follow(name, layer, hooks)
        # The head is the dearest part and no layer comes after it.
        getattr(model, "base_model", model)(**arguments)
    missing = sorted(set(layers) - walk.visited)
    if missing:
        raise ModelError(f"layer {missing[0]!r} did not run: leave it out of the chosen layers")


class _Walk:
    """What the hooks of one pass share."""

    def __init__(
        self,
        visit: Visit,
        samples: int,
        mask: torch.Tensor | None,
        dense: Mapping[str, torch.Tensor] | None,
    ) -> None:
        self.visit, self.samples, self.mask, self.dense = visit, samples, mask, dense
        self.visited: set[str] = set()
        # the last input and its rows: layers that share it are to get the same rows
        self._input: torch.Tensor | None = None
        self._rows: tuple[torch.Tensor, torch.Tensor | None] = (torch.empty(0), None)

    def follow(self, name: str, layer: nn.Linear, hooks: ExitStack) -> None:
        """Hooks one layer up."""

        def before(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            self.visited.add(name)
            if args[0] is not self._input:
                self._input, self._rows = args[0], self._split(name, args[0])
            self.visit(name, *self._rows)
            return None if self.dense is None else (args[0].chunk(2)[1], *args[1:])

        def after(
            module: nn.Module, args: tuple[Any, ...], output: torch.Tensor
        ) -> torch.Tensor | None:
            if self.dense is None:
                return None
            assert self._input is not None
            weight = self.dense[name].to(output)
            beside = functional.linear(self._input.chunk(2)[0], weight, layer.bias)
            return torch.cat([beside, output])

        hooks.callback(layer.register_forward_pre_hook(before).remove)
        hooks.callback(layer.register_forward_hook(after).remove)

    def _split(self, name: str, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        copies = 1 if self.dense is None else 2
        if len(x) % (copies * self.samples):
            raise ModelError(
                f"the input of layer {name!r} has shape {tuple(x.shape)} for {self.samples} "
                "samples: layers that see only some of the tokens cannot be visited in order"
            )
        parts = [self._real(part.flatten(0, -2).float()) for part in x.chunk(copies)]
        return parts[-1], (None if self.dense is None else parts[0])

    def _real(self, rows: torch.Tensor) -> torch.Tensor:
        if self.mask is None or len(rows) != self.mask.numel():
            return rows
        return rows[self.mask.reshape(-1).bool().to(rows.device)]
