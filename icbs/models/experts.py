"""Routed experts as linear layers, although transformers stores them as stacks.

A mixture-of-experts layer of transformers keeps the matrices of its E experts in one parameter:
``gate_up_proj`` (E, 2f, d) and ``down_proj`` (E, d, f), the other way round as (E, in, out), a
``weight`` (E, out, in) for each projection, or ``w1``, ``v1`` and ``w2`` (E * f, d). Each slice is
shown as a layer of its own, `ExpertLinear`, whose weight is a view: writing to it changes the
stack, which is what is saved.

The model runs its own code. While it does, each product with a slice of a stack is left to the
slice's layer, so that hooks see the rows of each expert, and which positions of the batch they
belong to: those by which the rows were last gathered, or all of them where every expert is given
every position, zeros where it has nothing to do.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial, update_wrapper
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from icbs.errors import ModelError

_LINEAR = frozenset({functional.linear})
_MATMUL = frozenset({torch.matmul, torch.mm, torch.Tensor.matmul, torch.Tensor.mm})
_MATMUL |= {torch.Tensor.__matmul__}
_BATCHED = frozenset({torch.bmm, torch.Tensor.bmm, *_MATMUL})


class ExpertLinear(nn.Module):
    """One matrix of one expert, a view on the stack that holds those of all.

    Attributes:
        weight: the view; as stored, (out, in), or (in, out) if `transposed`.
        transposed: whether the stack stores (in, out).
        home: the module that holds the stack.
    """

    def __init__(self, home: nn.Module, weight: torch.Tensor, transposed: bool) -> None:
        super().__init__()
        # Sharing storage and version counter with the stack, so that whoever watches it sees
        # writes. An optimiser's steps go to the view alone.
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.transposed = transposed
        self._home = weakref.ref(home)

    @property
    def home(self) -> nn.Module:
        """The module that holds the stack."""
        found = self._home()
        assert found is not None
        return found

    def forward(self, x: torch.Tensor, tokens: torch.Tensor, total: int) -> torch.Tensor:
        """Outputs of the rows that were routed here, without a bias.

        Args:
            x: shape (N, in).
            tokens: position of each row in the batch, shape (N,); hooks need it.
            total: positions of the batch, real or not.

        Returns:
            Shape (N, out).
        """
        return functional.linear(x, self.weight.T if self.transposed else self.weight)


class Stack(NamedTuple):
    """A parameter that holds one matrix of every expert.

    Attributes:
        name: in its module.
        experts: how many; slices beyond these belong to none.
        slices: how many it holds.
        transposed: whether it stores (in, out).
    """

    name: str
    experts: int
    slices: int
    transposed: bool


def stacks_of(module: nn.Module) -> tuple[Stack, ...]:
    """The stacks of a module in one of transformers' layouts; none if it holds none."""
    own = dict(module.named_parameters(recurse=False))
    first = own.get("gate_up_proj", own.get("up_proj"))
    down = own.get("down_proj")
    if first is not None and down is not None and first.ndim == down.ndim == 3:
        transposed = _transposed(module, first, down)
        if transposed is None:
            return ()
        name = "gate_up_proj" if "gate_up_proj" in own else "up_proj"
        experts = min(len(first), len(down))
        return (
            Stack(name, experts, len(first), transposed),
            Stack("down_proj", experts, len(down), transposed),
        )
    if {"w1", "v1", "w2"} <= own.keys() and len({own[n].shape for n in ("w1", "v1", "w2")}) == 1:
        count = getattr(module, "moe_num_experts", 0)
        if own["w1"].ndim == 2 and count and len(own["w1"]) % count == 0:
            return tuple(Stack(n, count, count, n == "w2") for n in ("w1", "v1", "w2"))
    sizes = [getattr(module, n, 0) for n in ("num_experts", "output_size", "input_size")]
    if "weight" in own and list(own["weight"].shape) == sizes:
        return (Stack("weight", sizes[0], sizes[0], transposed=False),)
    return ()


def _transposed(module: nn.Module, first: torch.Tensor, down: torch.Tensor) -> bool | None:
    """Whether a pair of stacks is (in, out); None if neither order fits its shapes."""
    said = getattr(module, "is_transposed", None)
    if said is not None:
        return bool(said)
    # A gate and its partner: 2f outputs of the one are f inputs of the other.
    (_, p, q), (_, r, s) = first.shape, down.shape
    if (p, q) == (2 * s, r):
        return False
    return True if (p, q) == (s, 2 * r) else None


def expert_layers(base: nn.Module, module: nn.Module) -> Iterator[tuple[str, ExpertLinear]]:
    """Every matrix of every expert of a module, named ``<number>.<stack>``.

    From here on the products with them are left to these layers, one by one.

    Args:
        base: the model that runs it.
        module: one that has stacks.
    """
    if hasattr(module, "config"):
        # The property of transformers' configurations that names the forward pass: theirs.
        module.config._experts_implementation = "eager"
    if getattr(base.forward, "func", None) is not _routed:
        base.forward = update_wrapper(partial(_routed, base, base.forward), base.forward)
    views = _views_of(module)
    for number in range(min(len(layers) for layers in views.layers.values())):
        for stack, layers in views.layers.items():
            yield f"{number}.{stack}", layers[number]


def parameter_of(name: str, layer: nn.Module) -> str:
    """Name of the parameter that holds a layer's weight."""
    if not isinstance(layer, ExpertLinear):
        return f"{name}.weight"
    owner, _, stack = name.rpartition(".")
    return f"{owner.rpartition('.')[0]}.{stack}"


def unreached(names: Sequence[str]) -> str:
    """What is said of matrices of experts that no sample came to."""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return (
        f"no calibration sample reached the expert of {names[0]}{more}: pruned by magnitude "
        "instead; more samples may reach it"
    )


class _Slice(NamedTuple):
    layers: tuple[ExpertLinear, ...]
    number: int


class _Views(NamedTuple):
    # Where the stacks lay when the views were made: `model.to(...)` moves them.
    places: tuple[int, ...]
    layers: Mapping[str, tuple[ExpertLinear, ...]]
    # By where each lies, also while a layer computes with another weight.
    slices: Mapping[int, _Slice]


_views: weakref.WeakKeyDictionary[nn.Module, _Views] = weakref.WeakKeyDictionary()


def _views_of(module: nn.Module) -> _Views:
    """Views on the stacks, always the same ones while these stay where they are."""
    stacks = stacks_of(module)
    places = tuple(module.get_parameter(stack.name).data_ptr() for stack in stacks)
    known = _views.get(module)
    if known is None or known.places != places:
        found = {}
        for stack in stacks:
            whole = module.get_parameter(stack.name).detach()
            whole = whole.unflatten(0, (stack.slices, -1)) if whole.ndim == 2 else whole
            found[stack.name] = tuple(
                ExpertLinear(module, whole[number], stack.transposed)
                for number in range(stack.experts)
            )
        slices = {
            layer.weight.data_ptr(): _Slice(layers, number)
            for layers in found.values()
            for number, layer in enumerate(layers)
        }
        known = _views[module] = _Views(places, found, slices)
    return known


def _routed(base: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """A model's own pass, whatever becomes of it, an interrupt too."""
    with _Routing(base, _positions_in(args, kwargs)):
        return forward(*args, **kwargs)


def _positions_in(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Positions of the batch that a model is called with: samples times tokens."""
    given = [kwargs.get("input_ids"), kwargs.get("inputs_embeds"), *args, *kwargs.values()]
    shapes = [value.shape for value in given if isinstance(value, torch.Tensor)]
    return next((shape[0] * shape[1] for shape in shapes if len(shape) > 1), 0)


class _Routing(TorchFunctionMode):
    """Leaves products with slices of stacks to their layers, for one pass of a model."""

    def __init__(self, base: nn.Module, positions: int) -> None:
        super().__init__()
        self._positions = positions
        self._slices: dict[int, _Slice] = {}
        for module in base.modules():
            if module in _views:
                self._slices.update(_views_of(module).slices)
        # Which rows were gathered last, and of how many.
        self._rows: tuple[torch.Tensor, int] | None = None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """See torch's documentation of `TorchFunctionMode`."""
        kwargs = kwargs or {}
        if func in _LINEAR or func in _BATCHED:
            x, weight, *rest = (*args, *kwargs.values())
            found = self._slices.get(weight.data_ptr())
            if found is not None and x.numel():
                y = self._product(found, x, weight, outputs_first=func in _LINEAR)
                return y if not rest or rest[0] is None else y + rest[0]
        result = func(*args, **kwargs)
        if func is torch.Tensor.__getitem__ and _gathers(*args):
            self._rows = args[1], len(args[0])
        return result

    def _product(
        self, found: _Slice, x: torch.Tensor, weight: torch.Tensor, *, outputs_first: bool
    ) -> torch.Tensor:
        layer = found.layers[found.number]
        batched = weight.ndim == 3
        one = weight[0] if batched else weight
        used = one if outputs_first else one.T
        outs, ins = layer.weight.shape[:: -1 if layer.transposed else 1]
        order = (1, outs) if layer.transposed else (ins, 1)
        whole = not batched or len(weight) == len(found.layers)
        known = x.ndim == weight.ndim and used.shape == (outs, ins) and used.stride() == order
        if not known or not whole:
            raise ModelError(
                f"{type(layer.home).__name__} multiplies its stack in a way not known here: "
                "choose layers that are no experts"
            )
        if batched:
            parts = zip(found.layers, x, strict=True)
            return torch.stack([self._all(part, rows) for part, rows in parts])
        return layer(x, *self._tokens(x, layer))

    def _all(self, layer: ExpertLinear, rows: torch.Tensor) -> torch.Tensor:
        """Every position is there, zeros where the expert has nothing to do."""
        busy = (rows != 0).any(-1).nonzero()[:, 0]
        outs = layer.weight.shape[1 if layer.transposed else 0]
        if not len(busy):
            return rows.new_zeros(len(rows), outs)
        y = layer(rows[busy], busy, len(rows))
        return y.new_zeros(len(rows), outs).index_copy(0, busy, y)

    def _tokens(self, x: torch.Tensor, layer: ExpertLinear) -> tuple[torch.Tensor, int]:
        """Positions of some rows, and how many positions there are."""
        if self._rows is not None:
            tokens, total = self._rows
            if len(tokens) != len(x) and len(tokens) == _rows_in_storage(x):
                # Rows sorted by expert, and this one's part of them.
                first = x.storage_offset() // x.stride(0)
                tokens = tokens[first : first + len(x)]
            if len(tokens) == len(x):
                # Several rows a position, one for each of its experts.
                each = total // self._positions if self._positions else 1
                if each > 1 and total % self._positions == 0:
                    return torch.div(tokens, each, rounding_mode="floor"), self._positions
                return tokens, total
        raise ModelError(
            f"the rows that experts of {type(layer.home).__name__} take cannot be told apart by "
            "position: choose layers that are no experts"
        )


def _gathers(source: Any, index: Any) -> bool:
    """Whether rows of a matrix are taken by their numbers."""
    return (
        isinstance(index, torch.Tensor)
        and index.ndim == 1
        and index.dtype == torch.int64
        and source.ndim == 2
        and source.is_floating_point()
    )


def _rows_in_storage(x: torch.Tensor) -> int:
    return x.untyped_storage().nbytes() // (x.element_size() * max(1, x.stride(0)))
