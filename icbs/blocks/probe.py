"""A look at two short samples before any long work: which layers the methods can take.

A layer is one matrix with one set of inputs a pass, whose rows belong to one sample each. Layers
that run several times (ALBERT), whose weight is used without them (Mamba's time step), or that mix
samples in their rows are left out, with the reason. Layers that are given positions before samples
(XLNet's, Longformer's) are marked as such.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from icbs.blocks.capture import Forward, capture, frozen
from icbs.blocks.positions import by_sample, positions_first
from icbs.data.samples import IGNORED, Samples
from icbs.errors import IcbsError, LayerError, ModelError
from icbs.models.coverage import NO_MATRIX, coverage
from icbs.models.experts import ExpertLinear
from icbs.models.prunable import layer_weight, prunable_layers

# Tokens of a sample: odd, so that two samples cannot be mistaken for positions.
_TOKENS = 15
# Largest deviation, relative, of what a layer sees of a sample alone and beside another.
_SAME = 0.1
# Smallest share of the weights that is worth being called pruned.
_LEAST = 0.5
_MIXED = "mixes samples in its rows"
_UNTOLD = "sees rows that cannot be told apart by sample"
# What may come of positions that stand before samples.
_NOT_APART = (_MIXED, _UNTOLD)

Seen = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Usable:
    """Layers of a model that can be pruned, and those that cannot.

    Attributes:
        layers: by name, in the model's order.
        refused: why others of the chosen ones are left dense, by name.
    """

    layers: dict[str, nn.Module]
    refused: dict[str, str]


def usable_layers(model: nn.Module, glob: str, samples: Samples) -> Usable:
    """The layers that a glob chooses, less those that no method here can take.

    Args:
        model: the model.
        glob: see `icbs.models.prunable.prunable_layers`.
        samples: calibration data; two short ones of it are run forwards and backwards.

    Raises:
        LayerError: nothing matches, or less than half of what matches can be pruned; with the glob
            ``*``, less than half of the model's matrix weights.
        DataError: samples that the model cannot take.
        ModelError: weights that are not finite, or a model that does not run on such samples or
            cannot be differentiated.
    """
    layers = prunable_layers(model, glob)
    for name, layer in layers.items():
        if not torch.isfinite(layer_weight(layer)).all():
            raise ModelError(f"layer {name!r} has weights that are NaN or infinite")
    samples.check(model)
    few = _few(model, samples)
    with frozen(model):
        runs, refused = _mixing(model, layers, few)
        turned = {name: layers[name] for name, why in refused.items() if why in _NOT_APART}
        positions_first.update(turned.values())
        _, still = _mixing(model, turned, few)
    for name, layer in turned.items():
        if name in still:
            positions_first.discard(layer)
        else:
            del refused[name]
    for name, layer in layers.items():
        count = runs.get(name, 0)
        if count > 1:
            refused[name] = f"runs {count} times in a pass"
        elif count == 0 and not isinstance(layer, ExpertLinear):
            refused[name] = "never runs, or its weight is used without it"
    usable = {name: layer for name, layer in layers.items() if name not in refused}
    _check_most(layers, usable, refused)
    reached: set[str] = set()
    with _running(model):
        capture(Forward(model, usable, few), usable, lambda name, seen: reached.add(name))
    for name in list(usable):
        if name not in reached and not isinstance(usable[name], ExpertLinear):
            refused[name] = "has no influence on the loss"
            del usable[name]
    _check_most(layers, usable, refused)
    if glob.strip() == "*":
        _check_whole(model, usable, refused)
    return Usable(usable, {name: refused[name] for name in layers if name in refused})


def _mixing(
    model: nn.Module, layers: Mapping[str, nn.Module], few: Samples
) -> tuple[dict[str, int], dict[str, str]]:
    """How often each layer ran, and which do not see of a sample alone what they see beside one."""
    if not layers:
        return {}, {}
    together, runs, refused = _seen(model, layers, few)
    for s in range(len(few) if len(few) > 1 else 0):
        alone, _, more = _seen(model, layers, few[s : s + 1])
        for name in [name for name in together if name not in refused]:
            if name not in alone or not _close(together[name][s], alone[name][0]):
                refused[name] = more.get(name, _MIXED)
    return runs, refused


def _check_most(
    layers: Mapping[str, nn.Module],
    usable: Mapping[str, nn.Module],
    refused: Mapping[str, str],
) -> None:
    """Refuses to prune in name only."""
    whole, part = (
        sum(layer_weight(layer).numel() for layer in some.values()) for some in (layers, usable)
    )
    if part >= _LEAST * whole and usable:
        return
    name, reason = next(iter(refused.items()))
    if not usable:
        raise LayerError(
            f"none of the {len(layers)} chosen layers can be pruned: {name!r} {reason}; choose "
            "other layers or another model"
        )
    raise LayerError(
        f"only {part / whole:.1%} of the weights of the {len(layers)} chosen layers can be pruned: "
        f"{name!r} {reason}, and {len(refused) - 1} more cannot either; to prune the others alone, "
        f"choose them by name, such as {next(iter(usable))!r}"
    )


def _check_whole(
    model: nn.Module, usable: Mapping[str, nn.Module], refused: Mapping[str, str]
) -> None:
    """Refuses a model most of which is no linear layer, unless layers were chosen by name."""
    found = coverage(model, usable, refused)
    if found.share >= _LEAST:
        return
    most = next(part for part in found.left if part.reason not in NO_MATRIX)
    raise LayerError(
        f"only {found.share:.1%} of the matrix weights of a {type(model).__name__} are in layers "
        f"that can be pruned, most of the rest is {most.reason} ({most.example}): to prune those "
        f"layers alone, choose them by name, such as {next(iter(usable))!r}"
    )


def _few(model: nn.Module, samples: Samples) -> Samples:
    """Two samples, short ones if the model takes such."""
    few = samples[:2]
    if few.is_images or few.positions <= _TOKENS:
        return few
    mask = None if few.mask is None else few.mask[:, :_TOKENS]
    targets = few.targets if few.targets.ndim == 1 else few.targets[:, :_TOKENS]
    short = Samples(few.inputs[:, :_TOKENS], targets, mask)
    try:
        _seen(model, {}, short)
    except ModelError:
        # Some models take one length only.
        return few
    # Hidden tokens may all come later.
    return few if (targets == IGNORED).all() else short


def _seen(
    model: nn.Module, layers: Mapping[str, nn.Module], batch: Samples
) -> tuple[Seen, dict[str, int], dict[str, str]]:
    """Sums of each layer's inputs by sample, how often it ran, and which could not be told."""
    sums: Seen = {}
    runs: dict[str, int] = {}
    refused: dict[str, str] = {}

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            runs[name] = runs.get(name, 0) + 1
            if isinstance(module, ExpertLinear):
                return
            if not args or not isinstance(output, torch.Tensor):
                refused[name] = "is more than a matrix"
                return
            try:
                rows = by_sample(module, args, args[0].detach(), batch, name)
                sums[name] = rows.float().sum(1)
            except ModelError:
                refused[name] = _UNTOLD

        return hook

    with ExitStack() as hooks, torch.no_grad(), _running(model):
        for name, layer in layers.items():
            hooks.callback(layer.register_forward_hook(watch(name)).remove)
        model(**batch.arguments(model))
    return sums, runs, refused


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.shape != other.shape:
        return False
    return bool((one - other).norm() <= _SAME * max(float(one.norm()), float(other.norm()), 1e-6))


@contextmanager
def _running(model: nn.Module) -> Iterator[None]:
    """One sentence for whatever a model's own code raises."""
    try:
        yield
    except IcbsError:
        raise
    # transformers and torch raise whatever they run into.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [repr(error)])[0]
        raise ModelError(
            f"a {type(model).__name__} cannot be run on such samples ({type(error).__name__}: "
            f"{reason}): choose other data or another model"
        ) from error
