"""Quality of a model on samples it was not calibrated on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from icbs.blocks.capture import frozen
from icbs.data.samples import IGNORED, Samples
from icbs.errors import DataError, ModelError, SettingError, memory_remedy
from icbs.evaluation.losses import sample_losses
from icbs.models.tasks import TASKS, task_of
from icbs.progress import stage


@dataclass(frozen=True)
class Quality:
    """What a model is worth on some samples. Padding never counts.

    Attributes:
        loss: mean cross entropy over all targets, in nats.
        accuracy: share of the targets that get the largest logit.
        targets: number of targets: predicted tokens, or images.
    """

    loss: float
    accuracy: float
    targets: int

    @property
    def perplexity(self) -> float:
        """``exp`` of the loss; infinite where that overflows."""
        return math.exp(self.loss) if self.loss < 700 else math.inf


def evaluate(
    model: nn.Module,
    samples: Samples,
    *,
    batch_size: int = 4,
    title: str = "Evaluating",
    progress: bool = True,
) -> Quality:
    """Loss and accuracy over every target.

    Args:
        model: any model whose output has logits.
        samples: evaluation data.
        batch_size: samples in one forward pass, >= 1.
        title: of the progress bar.
        progress: show how far it is.

    Raises:
        SettingError: no such batch size.
        DataError: samples that the model cannot take, or without any target.
        ModelError: a loss that is not finite.
        MemoryLimitError: a batch does not fit.
    """
    if batch_size < 1:
        raise SettingError(f"batch_size is {batch_size}; choose a whole number from 1")
    samples.check(model)
    if not (samples.targets != IGNORED).any():
        raise DataError("the samples have no target to predict: give longer texts or more samples")
    device = next(model.parameters()).device
    total, hits, count, done = 0.0, 0, 0, 0
    with stage(title, len(samples), show=progress) as update, frozen(model), torch.no_grad():
        for batch in samples.split(batch_size):
            with memory_remedy(*batch.memory):
                targets = batch.targets.to(device)
                logits = model(**batch.arguments(model)).logits
                losses, lengths = sample_losses(logits, targets)
                total += float((losses.double() * lengths).sum())
                count += int(lengths.sum())
                # an ignored target is no class, so it never hits
                hits += int((logits.argmax(-1) == targets).sum())
            done += len(batch)
            update(done)
    if not math.isfinite(total):
        raise ModelError(f"the mean loss is {total / count}: check the model's weights for NaN")
    return Quality(total / count, hits / count, count)


def perplexity(
    model: nn.Module, samples: Samples, *, batch_size: int = 4, progress: bool = True
) -> float:
    """Perplexity of a language model, ``exp`` of `evaluate`'s loss; same arguments and errors."""
    return evaluate(model, samples, batch_size=batch_size, progress=progress).perplexity


def worse_than_guessing(model: nn.Module, loss: float) -> str | None:
    """A warning if a loss is above that of equal odds for every token or class; None if not.

    Args:
        model: a transformers model, whose name and configuration say how many there are.
        loss: mean cross entropy, nats per target.
    """
    task = task_of(type(model).__name__)
    config = getattr(model, "config", None)
    choices = getattr(config, TASKS[task].choices, None) if task is not None else None
    if not choices or loss <= math.log(choices):
        return None
    return (
        f"loss {loss:.2f} is worse than guessing (log {choices:,} = {math.log(choices):.2f}): the "
        "model is untrained, or its weights, tokenizer or data belong to another"
    )
