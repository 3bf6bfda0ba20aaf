"""One forward and backward pass: activations and output gradients of the chosen linear layers.

With the loss of sample s, ``l_s = mean over its targets``, a layer ``y = W a`` has the gradient
``dl_s/dW[o, i] = sum_t d[s,t,o] a[s,t,i]``. Keeping ``a`` and ``d`` therefore gives every
per-sample gradient without differentiating with respect to any weight.

The graph starts at the output of the first chosen layer: weights do not require gradients, so what
runs before is never differentiated. If the chosen layers start at block b of a stack, the hidden
states that enter b are kept and blocks 0..b-1 do not run again while their weights stay the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from icbs.blocks.positions import by_sample, real_rows
from icbs.data.samples import Samples
from icbs.errors import ModelError, memory_remedy
from icbs.evaluation.losses import sample_losses
from icbs.models.experts import ExpertLinear


@dataclass(frozen=True)
class LayerCapture:
    """What one layer saw in one pass over B samples of T positions.

    Positions are tokens, the patches of a vision transformer, or one for a layer that runs once a
    sample. ``d`` is 0 where nothing reaches the loss, so padding adds nothing to any gradient.

    Attributes:
        activations: ``a``, inputs of the layer, shape (B, T, in), float32.
        gradients: ``d``, gradient of each sample's own mean loss with respect to the layer's
            output, shape (B, T, out), float32.
        lengths: targets of each sample's loss, shape (B,); 1 for a classifier.
    """

    activations: torch.Tensor
    gradients: torch.Tensor
    lengths: torch.Tensor


OnLayer = Callable[[str, LayerCapture], None]


class Forward:
    """The forward pass of one batch, with the part before the chosen layers kept.

    Attributes:
        model: any model whose output has logits.
        batch: what it is fed, on its device.
        mixed_precision: matrices are multiplied in bfloat16.

    Raises:
        DataError: samples that the model cannot take.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Mapping[str, nn.Module],
        batch: Samples,
        *,
        mixed_precision: bool = False,
    ) -> None:
        batch.check(model)
        self.model = model
        self.batch = batch.to(next(model.parameters()).device)
        self.mixed_precision = mixed_precision
        self._before, self._entry = _split_blocks(model, layers)
        after = set() if self._entry is None else {id(p) for p in self._later_parameters(model)}
        self._watched = [p for p in model.parameters() if id(p) not in after]
        self._hidden: torch.Tensor | None = None
        self._versions: list[tuple[int, int]] = []
        self._tuples: list[int] = []

    def _later_parameters(self, model: nn.Module) -> Iterator[nn.Parameter]:
        blocks, first = _blocks_of(model, self._entry)
        for block in blocks[first:]:
            yield from block.parameters()

    def logits(self) -> torch.Tensor:
        """Logits of the batch, shape (B, T, vocabulary) or (B, classes)."""
        with ExitStack() as hooks:
            if self._entry is not None:
                versions = [(p.data_ptr(), p._version) for p in self._watched]
                if self._hidden is not None and versions == self._versions:
                    self._skip(hooks)
                else:
                    self._hidden, self._versions = None, versions
                    self._record(hooks)
            hooks.enter_context(multiplying(self.model, self.mixed_precision))
            return self.model(**self.batch.arguments(self.model)).logits

    def losses(self) -> torch.Tensor:
        """Each sample's mean loss, shape (B,), without gradients."""
        with torch.no_grad(), frozen(self.model), memory_remedy(*self.batch.memory):
            return sample_losses(self.logits(), self.batch.targets)[0]

    def _record(self, hooks: ExitStack) -> None:
        def keep(module: nn.Module, args: tuple[Any, ...]) -> None:
            # A stack that passes its hidden states by name runs whole every time.
            self._hidden = args[0].detach() if args else None

        def shape(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            self._tuples.append(len(output) if isinstance(output, tuple) else 0)

        assert self._entry is not None
        self._tuples = []
        _hook(hooks, self._entry.register_forward_pre_hook(keep))
        for block in self._before:
            _hook(hooks, block.register_forward_hook(shape))

    def _skip(self, hooks: ExitStack) -> None:
        def passes(size: int) -> Callable[..., Any]:
            # Same kind of value as the block itself returns: a tensor or a tuple.
            def forward(hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
                return hidden if not size else (hidden, *[None] * (size - 1))

            return forward

        def substitute(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return (self._hidden, *args[1:])

        assert self._entry is not None
        for block, size in zip(self._before, self._tuples, strict=True):
            block.forward = passes(size)
            hooks.callback(block.__dict__.pop, "forward")
        _hook(hooks, self._entry.register_forward_pre_hook(substitute))


def capture(
    forward: Forward, layers: Mapping[str, nn.Module], on_layer: OnLayer | None = None
) -> tuple[torch.Tensor, dict[str, LayerCapture]]:
    """Activations and output gradients of every chosen layer from one backward pass.

    Args:
        forward: the batch.
        layers: chosen layers by name.
        on_layer: takes each layer as soon as its gradient is there, last layer first, so that
            nothing piles up; without it all layers are returned.

    Returns:
        ``(losses, captures)``: each sample's loss, shape (B,), and the layers (empty with
        `on_layer`). Experts that no position was routed to are not among them, nor is what has no
        influence on the loss.

    Raises:
        ModelError: the loss is not finite, or a layer did not run.
        MemoryLimitError: the batch does not fit.
    """
    kept: dict[str, LayerCapture] = {}
    take = kept.__setitem__ if on_layer is None else on_layer
    inputs: dict[str, tuple[Any, ...]] = {}
    lengths = torch.empty(0)
    batch = forward.batch

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
            if name in inputs:
                raise ModelError(
                    f"layer {name!r} runs more than once in a pass, so that one weight has many "
                    "inputs: leave it out of the chosen layers"
                )
            inputs[name] = (args[0].detach(), *args[1:])
            leaf = not output.requires_grad
            output.requires_grad_()
            output.register_hook(lambda d: receive(name, d))
            # What the model writes to in place, as Longformer to its queries, must be no leaf.
            return output.clone() if leaf else output

        return hook

    def receive(name: str, d: torch.Tensor) -> None:
        layer, args = layers[name], inputs.pop(name)
        a, d = (by_sample(layer, args, v, batch, name).float() for v in (args[0], d.detach()))
        take(name, LayerCapture(a, d, lengths))

    with (
        ExitStack() as hooks,
        frozen(forward.model),
        torch.enable_grad(),
        memory_remedy(*batch.memory),
    ):
        for name, layer in layers.items():
            _hook(hooks, layer.register_forward_hook(watch(name)))
        losses, lengths = sample_losses(forward.logits(), batch.targets)
        if not torch.isfinite(losses).all():
            bad = int((~torch.isfinite(losses)).nonzero()[0])
            raise ModelError(f"the loss of sample {bad} is {losses[bad].item()}: check the weights")
        check_ran(layers, inputs)
        # Not if no layer has an influence on the loss: none is captured then.
        if losses.requires_grad:
            losses.sum().backward()
    return losses.detach(), kept


def each_input(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    batch: Samples,
    take: Callable[[str, torch.Tensor], None],
) -> None:
    """Hands over the real inputs of each layer in one pass, shape (N, in), if it has any."""
    batch.check(model)

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            rows = real_rows(module, args, batch, name)
            if len(rows):
                take(name, rows)

        return hook

    with ExitStack() as hooks, frozen(model), torch.no_grad(), memory_remedy(*batch.memory):
        for name, layer in layers.items():
            _hook(hooks, layer.register_forward_pre_hook(watch(name)))
        # The head is the dearest part and no layer comes after it.
        getattr(model, "base_model", model)(**batch.arguments(model))


def input_norms(
    model: nn.Module, layers: Mapping[str, nn.Module], samples: Samples, batch_size: int = 16
) -> dict[str, torch.Tensor]:
    """Euclidean norm of each input over all real positions, ``||a_i||_2``, shape (in,) per layer.

    Experts that no real position is routed to have none.

    Args:
        model: any model whose samples these are.
        layers: chosen layers by name.
        samples: calibration samples; padding never counts.
        batch_size: samples in one forward pass.

    Raises:
        DataError: samples that the model cannot take.
        MemoryLimitError: a batch does not fit.
    """
    squares: dict[str, torch.Tensor] = {}

    def add(name: str, rows: torch.Tensor) -> None:
        total = rows.square().sum(0)
        squares[name] = squares[name] + total if name in squares else total

    for batch in samples.split(batch_size):
        each_input(model, layers, batch, add)
    check_ran(layers, squares)
    return {name: total.sqrt() for name, total in squares.items()}


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients for weights; both put back afterwards."""
    trained = [p for p in model.parameters() if p.requires_grad]
    training = model.training
    model.eval()
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        model.train(training)


def multiplying(model: nn.Module, mixed_precision: bool) -> torch.autocast:
    """A context in which the model multiplies in bfloat16, if asked for; its weights stay."""
    device = next(model.parameters()).device.type
    return torch.autocast(device, torch.bfloat16, enabled=mixed_precision)


def check_ran(layers: Mapping[str, nn.Module], ran: Collection[str]) -> None:
    """Refuses layers that did not run; experts may have nothing to do.

    Raises:
        ModelError: naming one.
    """
    missing = [n for n, m in layers.items() if n not in ran and not isinstance(m, ExpertLinear)]
    if missing:
        raise ModelError(f"layer {min(missing)!r} did not run: leave it out of the chosen layers")


def _hook(stack: ExitStack, handle: Any) -> None:
    stack.callback(handle.remove)


def _split_blocks(
    model: nn.Module, layers: Mapping[str, nn.Module]
) -> tuple[list[nn.Module], nn.Module | None]:
    """Blocks of the stack before the first one with a chosen layer, and that one.

    ``([], None)`` if a chosen layer lies outside the stack or in its first block.
    """
    chosen = {
        id(layer.home if isinstance(layer, ExpertLinear) else layer) for layer in layers.values()
    }
    for module in model.modules():
        if not isinstance(module, nn.ModuleList):
            continue
        inside = [{id(m) for m in block.modules()} & chosen for block in module]
        if any(inside):
            first = next(b for b, found in enumerate(inside) if found)
            if first and set().union(*inside) == chosen:
                return list(module[:first]), module[first]
            break
    return [], None


def _blocks_of(model: nn.Module, entry: nn.Module | None) -> tuple[list[nn.Module], int]:
    for module in model.modules():
        if isinstance(module, nn.ModuleList):
            for b, block in enumerate(module):
                if block is entry:
                    return list(module), b
    return [], 0
