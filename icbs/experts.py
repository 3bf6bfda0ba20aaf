"""Routed experts as linear layers, although transformers stores them as stacks.

A mixture-of-experts layer of transformers keeps the matrices of its E experts in one parameter of
three dimensions, ``gate_up_proj`` (E, 2f, d) or ``up_proj`` (E, f, d) and ``down_proj`` (E, d, f),
some models the other way round, (E, in, out). Each slice is shown as a layer of its own,
`ExpertLinear`, whose weight is a view: writing to it changes the stack, which is what is saved.

The model is then run with a forward pass of ours, registered the way transformers provides for
(`transformers.integrations.moe`), that calls these layers one after the other, so that hooks see
the rows of each expert and which positions of the batch they belong to.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

# The name under which transformers knows our forward pass; it is never written to a file.
_NAME = "icbs_layers"
_FIRST, _SECOND = ("gate_up_proj", "up_proj"), "down_proj"


class ExpertLinear(nn.Module):
    """One matrix of one expert, a view on the stack that holds those of all.

    Attributes:
        weight: the view; as stored, (out, in), or (in, out) if `transposed`.
        transposed: whether the stack stores (in, out).
        home: the module that holds the stack.
    """

    def __init__(
        self, home: nn.Module, stack: str, number: int, transposed: bool, biased: bool
    ) -> None:
        super().__init__()
        # Sharing storage and version counter with the stack, so that whoever watches it sees
        # writes. An optimiser's steps go to the view alone.
        whole = home.get_parameter(stack).detach()
        self.weight = nn.Parameter(whole[number], requires_grad=False)
        self.bias = home.get_parameter(f"{stack}_bias").detach()[number] if biased else None
        self.transposed = transposed
        self._home = weakref.ref(home)

    @property
    def home(self) -> nn.Module:
        """The module that holds the stack."""
        found = self._home()
        assert found is not None
        return found

    def forward(self, x: torch.Tensor, tokens: torch.Tensor, total: int) -> torch.Tensor:
        """Outputs of the rows that were routed here.

        Args:
            x: shape (N, in).
            tokens: position of each row in the batch, shape (N,); hooks need it.
            total: positions of the batch, real or not.

        Returns:
            Shape (N, out).
        """
        weight = self.weight.T if self.transposed else self.weight
        return functional.linear(x, weight, self.bias)


class _Expert(NamedTuple):
    first: ExpertLinear
    second: ExpertLinear


class _Views(NamedTuple):
    # Where the stacks lay when the views were made: `model.to(...)` moves them.
    places: tuple[int, ...]
    experts: tuple[_Expert, ...]


_views: weakref.WeakKeyDictionary[nn.Module, _Views] = weakref.WeakKeyDictionary()


def is_experts(module: nn.Module) -> bool:
    """Whether a module holds stacks of experts in one of transformers' common layouts."""
    names = dict(module.named_parameters(recurse=False))
    return (
        all(hasattr(module, name) for name in ("has_gate", "has_bias", "is_transposed"))
        and _SECOND in names
        and names[_SECOND].ndim == 3
        and any(name in names for name in _FIRST)
    )


def expert_layers(module: nn.Module) -> Iterator[tuple[str, ExpertLinear]]:
    """Every matrix of every expert of such a module, named ``<number>.<matrix>``.

    From here on the module runs them one by one; its outputs stay the same but for rounding.
    """
    # The property of transformers' configurations that names the forward pass.
    module.config._experts_implementation = _NAME
    for number, expert in enumerate(_experts_of(module)):
        for layer, stack in zip(expert, (_first_name(module), _SECOND), strict=True):
            yield f"{number}.{stack}", layer


def unreached(names: Sequence[str]) -> str:
    """What is said of matrices of experts that no sample came to."""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return (
        f"no calibration sample reached the expert of {names[0]}{more}: pruned by magnitude "
        "instead; more samples may reach it"
    )


def _first_name(module: nn.Module) -> str:
    return _FIRST[0] if module.has_gate else _FIRST[1]


def _experts_of(module: nn.Module) -> tuple[_Expert, ...]:
    """Views on the stacks, always the same ones while these stay where they are."""
    stacks = [_first_name(module), _SECOND]
    places = tuple(module.get_parameter(stack).data_ptr() for stack in stacks)
    known = _views.get(module)
    if known is None or known.places != places:
        transposed, biased = bool(module.is_transposed), bool(module.has_bias)
        known = _Views(
            places,
            tuple(
                _Expert(*(ExpertLinear(module, s, number, transposed, biased) for s in stacks))
                for number in range(len(module.get_parameter(_SECOND)))
            ),
        )
        _views[module] = known
    return known.experts


def _forward(
    module: nn.Module,
    hidden_states: torch.Tensor,
    top_k_index: torch.Tensor,
    top_k_weights: torch.Tensor,
) -> torch.Tensor:
    """What transformers' own forward passes compute, expert by expert.

    Args:
        module: the experts.
        hidden_states: shape (N, d), or any that ends in d.
        top_k_index: experts of each position, shape (N, k).
        top_k_weights: their weights, shape (N, k).

    Returns:
        The weighted sum, in the shape of `hidden_states`.
    """
    x = hidden_states.reshape(-1, hidden_states.shape[-1])
    routed = top_k_index.reshape(len(x), -1)
    weights = top_k_weights.reshape(len(x), -1)
    total = torch.zeros_like(x)
    experts = _experts_of(module)
    for number in routed.unique().tolist():
        # A number beyond the last expert stands for none.
        if number >= len(experts):
            continue
        expert = experts[number]
        tokens, slots = torch.where(routed == number)
        inner = expert.first(x[tokens], tokens, len(x))
        inner = module._apply_gate(inner) if module.has_gate else module.act_fn(inner)
        y = expert.second(inner, tokens, len(x))
        if module.has_post_expert_norm:
            y = module.post_expert_norm(y)
        y = y * weights[tokens, slots, None]
        total = total.index_add(0, tokens, y.to(total.dtype))
    return total.view(hidden_states.shape)


ALL_EXPERTS_FUNCTIONS.register(_NAME, _forward)
