"""Tuning of the weights that a mask keeps: Adam towards the dense model's predictions.

Masks stay as they are; only kept weights move. The objective is the divergence of the pruned
model's predictions q from a target t on calibration data,

    KL(t || q) = sum_v t_v (log t_v - log q_v),   t = (1 - labels) p + labels * e_y ,

the mean over targets, then over samples, with p the dense model's prediction and e_y the label
(distillation at temperature 1, Hinton et al. 2015, arXiv 1503.02531). With ``labels = 0`` the
minimum is the dense model. With labels the model is fitted to the calibration's kind of text as
well: measured on SmolLM2 at density 0.5 (Wanda's mask, 20 steps, 32 windows of each text), labels
alone gave a perplexity of 23.5 on the calibration's kind and 37.9 on another (rate 8e-4), the dense
model's predictions alone 28.5 and 31.3 (rate 6e-4). Steps are Adam's
(Kingma and Ba 2015, arXiv 1412.6980) with a short linear warm-up and a linear decay to 0.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from icbs.blocks.capture import frozen, multiplying
from icbs.data.samples import IGNORED, Samples
from icbs.errors import ModelError, SettingError, memory_remedy
from icbs.models.prunable import as_stored, layer_weight
from icbs.progress import stage

# A short memory of squares: a run has some hundred steps, not thousands.
_BETAS = (0.9, 0.99)
_WARM_UP = 3
# Steps between two measurements of the held-out loss; the last step is always measured.
_EVERY = 8


@dataclass(frozen=True)
class TuningStep:
    """One step of the tuning.

    Attributes:
        step: 1 for the first.
        divergence: from the target on the step's batch, before the step, nats per target.
        heldout: loss on the held-out samples after it; None where it was not measured.
        seconds: of the whole step, with the measurement.
    """

    step: int
    divergence: float
    heldout: float | None
    seconds: float


def tune_weights(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    dense: Mapping[str, torch.Tensor],
    kept: Mapping[str, torch.Tensor],
    batches: Sequence[Samples],
    *,
    steps: int | None = None,
    time_limit: float | None = None,
    rate: float = 6e-4,
    labels: float = 0.0,
    mixed_precision: bool = False,
    measure: Callable[[], float | None] = lambda: None,
    before: float | None = None,
    progress: bool = True,
) -> tuple[TuningStep, ...]:
    """Moves the kept weights towards the dense model's predictions, or the labels.

    The best measured state wins, the one at the start included, so the held-out loss cannot rise.

    Args:
        model: a pruned model; weights are changed in place.
        layers: chosen layers by name.
        dense: trained weights by name, shape (out, in) or flat.
        kept: True where a weight is kept, by name, shape (out, in).
        batches: calibration samples, one batch a step, over and over.
        steps: how many; None leaves it to the time.
        time_limit: seconds; no step is begun that would likely end later, and the rate falls with
            whichever of steps and seconds is used up sooner.
        rate: learning rate, the size of one step of a weight.
        labels: share of the labels in the target, from 0 to 1.
        mixed_precision: both models multiply in bfloat16; weights and Adam keep their type.
        measure: loss on held-out samples, or None: then the last state stays.
        before: that loss at the start, where it is known.
        progress: show how far it is.

    Returns:
        One record a step.

    Raises:
        SettingError: a number of steps, a time or a rate out of range.
        DataError: samples that the model cannot take.
        ModelError: a divergence that is not finite.
        MemoryLimitError: a batch does not fit.
    """
    _check(steps, time_limit, rate, labels)
    weights = [layer.get_parameter("weight") for layer in layers.values()]
    stored = [dense[name].view_as(layer_weight(layer)) for name, layer in layers.items()]
    masks = [kept[name].to(stored[0].device) for name in layers]
    optimiser = torch.optim.Adam(weights, lr=rate, betas=_BETAS, eps=1e-10, fused=True)
    records: list[TuningStep] = []
    best = measure() if before is None else before
    state = [weight.detach().clone() for weight in weights]
    length = f"{time_limit:.0f} s" if steps is None else f"{steps} steps"
    with stage(f"Tuning the kept weights, {length}", 1.0, show=progress) as update:
        start, longest, used = time.perf_counter(), 0.0, 0.0 if steps != 0 else 1.0
        while used < 1:
            begun = time.perf_counter()
            number = len(records) + 1
            batch = batches[(number - 1) % len(batches)].to(weights[0].device)
            divergence = _gradients(model, layers, stored, masks, batch, labels, mixed_precision)
            for group in optimiser.param_groups:
                group["lr"] = rate * min(1, number / _WARM_UP) * (1 - used)
            # A pruned weight has never had a gradient, so that Adam leaves it at exactly 0.
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            spent = time.perf_counter() - start
            longest = max(longest, time.perf_counter() - begun)
            used = _used(number, steps, spent, longest, time_limit)
            heldout = measure() if number % _EVERY == 0 or used >= 1 else None
            if heldout is not None and (best is None or heldout <= best):
                best = heldout
                torch._foreach_copy_(state, [weight.detach() for weight in weights])
            seconds = time.perf_counter() - begun
            longest = max(longest, seconds)
            records.append(TuningStep(number, divergence, heldout, seconds))
            update(min(1.0, used))
    if best is not None:
        with torch.no_grad():
            for weight, values in zip(weights, state, strict=True):
                weight.copy_(values)
    return tuple(records)


def _check(steps: int | None, time_limit: float | None, rate: float, labels: float) -> None:
    if steps is None and time_limit is None:
        raise SettingError("steps and time_limit are both None; give one of them")
    if (steps is not None and steps < 0) or (time_limit is not None and not time_limit > 0):
        raise SettingError(
            f"steps={steps} and time_limit={time_limit}; choose a whole number from 0 and seconds "
            "above 0"
        )
    if not 0 < rate < math.inf or not 0 <= labels <= 1:
        raise SettingError(
            f"rate={rate} and labels={labels}; choose a finite rate above 0 and a share from 0 to 1"
        )


def _used(
    number: int, steps: int | None, spent: float, longest: float, time_limit: float | None
) -> float:
    """Share of the run that is over; 1 or more if no further step is to be made."""
    shares = [0.0 if steps is None else number / steps]
    if time_limit is not None:
        shares.append(1.0 if spent + longest > time_limit else spent / time_limit)
    return max(shares)


def _gradients(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    dense: Sequence[torch.Tensor],
    masks: Sequence[torch.Tensor],
    batch: Samples,
    labels: float,
    mixed_precision: bool,
) -> float:
    """Leaves the masked gradient of the divergence in every chosen weight; returns its value."""
    batch.check(model)
    weights = [layer.get_parameter("weight") for layer in layers.values()]
    with frozen(model), memory_remedy(*batch.memory):
        with (
            torch.no_grad(),
            _as_trained(layers, dense),
            multiplying(model, mixed_precision),
        ):
            wanted = model(**batch.arguments(model)).logits
        for weight in weights:
            weight.requires_grad_(True)
        with torch.enable_grad():
            with multiplying(model, mixed_precision):
                logits = model(**batch.arguments(model)).logits
            loss = _Divergence.apply(logits, wanted, batch.targets, labels)
            loss.backward()
        for weight in weights:
            weight.requires_grad_(False)
    divergence = float(loss.detach())
    if not math.isfinite(divergence):
        raise ModelError(
            f"the divergence from the target is {divergence}: check the weights, or lower "
            "the rate of the tuning"
        )
    for layer, weight, mask in zip(layers.values(), weights, masks, strict=True):
        # An expert that the batch does not reach has none.
        if weight.grad is not None:
            weight.grad.mul_(as_stored(layer, mask))
    return divergence


@contextmanager
def _as_trained(layers: Mapping[str, nn.Module], dense: Sequence[torch.Tensor]) -> Iterator[None]:
    """The dense model, for as long as the context lasts; no weight is copied."""
    ours = [layer.get_parameter("weight").data for layer in layers.values()]
    try:
        for layer, values in zip(layers.values(), dense, strict=True):
            layer.get_parameter("weight").data = as_stored(layer, values)
        yield
    finally:
        for layer, own in zip(layers.values(), ours, strict=True):
            layer.get_parameter("weight").data = own


class _Divergence(torch.autograd.Function):
    """KL(target || pruned), sample by sample, so that no third array of logits' size is kept."""

    @staticmethod
    def forward(
        ctx: Any, logits: torch.Tensor, wanted: torch.Tensor, targets: torch.Tensor, labels: float
    ) -> torch.Tensor:
        # One gradient, made at once: it takes the place of the dense logits.
        gradient = wanted
        total = logits.new_zeros((), dtype=torch.float32)
        counted = (targets != IGNORED).reshape(len(targets), -1)
        weights = counted / (counted.sum(1, keepdim=True).clamp(min=1) * len(targets))
        for s in range(len(targets)):
            q = logits[s].float().log_softmax(-1)
            share = weights[s].view(*q.shape[:-1], 1)
            t = wanted[s].float().softmax(-1).mul_(1 - labels)
            at = targets[s].clamp(min=0)[..., None]
            t.scatter_add_(-1, at, torch.full(at.shape, labels, device=t.device))
            total += ((torch.special.xlogy(t, t) - t * q) * share).sum()
            gradient[s] = (q.exp() - t) * share
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream[0], None, None, None
