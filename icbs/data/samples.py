"""What a model is fed: inputs, targets and which positions are real."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from icbs.errors import DataError

# Target of a position that is not predicted; torch's own default.
IGNORED = -100
# How configurations call the number of positions, and models the table of them.
_POSITIONS = ("max_position_embeddings", "max_seq_len")
_TABLES = ("position_embeddings", "embed_positions")


@dataclass(frozen=True)
class Samples:
    """Samples of one kind; slices and `split` give batches.

    The loss of a sample is the mean cross entropy over its targets, so one number a sample serves a
    language model and a classifier alike.

    Attributes:
        inputs: token ids, shape (count, length), int64; or images, shape (count, channels, height,
            width), floating point.
        targets: class of each sample, shape (count,); or token wanted at each position, shape
            (count, length), `IGNORED` where none is. int64.
        mask: True where a token is real, shape (count, length); None means everywhere. Padding
            stands on the right.
        source: what the samples are taken from, as records, tables and figures name it.

    Raises:
        DataError: shapes that do not fit, padding on the left, or a sample that is all padding.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    mask: torch.Tensor | None = None
    source: str = ""

    def __post_init__(self) -> None:
        inputs, targets = tuple(self.inputs.shape), tuple(self.targets.shape)
        if self.inputs.ndim not in (2, 4) or targets not in (inputs[:1], inputs[:2]):
            raise DataError(
                f"inputs have shape {inputs} and targets {targets}: expected tokens (count, "
                "length) or images (count, channels, height, width), and one target a sample or a "
                "token"
            )
        if self.is_images and self.targets.ndim != 1:
            raise DataError(f"targets of images have shape {targets}, expected {inputs[:1]}")
        if self.mask is None:
            return
        if self.is_images or tuple(self.mask.shape) != inputs:
            raise DataError(
                f"mask has shape {tuple(self.mask.shape)} for inputs of shape {inputs}: expected "
                "one value a token"
            )
        real = self.mask.bool()
        if not real[:, :1].all() or (real[:, 1:] & ~real[:, :-1]).any():
            raise DataError(
                "mask has padding before a real token, or a sample of padding only: pad on the "
                "right (tokenizer.padding_side = 'right') and leave empty samples out"
            )

    @property
    def is_images(self) -> bool:
        """Whether the inputs are images rather than tokens."""
        return self.inputs.ndim == 4

    @property
    def positions(self) -> int:
        """Tokens in a sample, padding included; 1 for images."""
        return 1 if self.is_images else int(self.inputs.shape[1])

    @property
    def memory(self) -> tuple[str, str]:
        """What a batch of these is, and what to lower if it does not fit into memory."""
        what = "images" if self.is_images else f"windows of {self.positions} tokens"
        return (
            f"a batch of {len(self)} {what}",
            "lower batch_size, the length of the windows or the number of chosen layers, or load "
            "the model in bfloat16",
        )

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, part: slice) -> Samples:
        mask = None if self.mask is None else self.mask[part]
        return Samples(self.inputs[part], self.targets[part], mask, self.source)

    def split(self, size: int) -> list[Samples]:
        """Consecutive batches of `size`; the last may be shorter."""
        return [self[start : start + size] for start in range(0, len(self), size)]

    def to(self, device: torch.device | str) -> Samples:
        """The same samples on a device."""
        mask = None if self.mask is None else self.mask.to(device)
        return Samples(self.inputs.to(device), self.targets.to(device), mask, self.source)

    def arguments(self, model: nn.Module) -> dict[str, Any]:
        """Keyword arguments for the model's forward pass.

        Args:
            model: a transformers model; images are cast to the type of its weights.
        """
        first = next(model.parameters())
        if self.is_images:
            return {"pixel_values": self.inputs.to(first)}
        arguments: dict[str, Any] = {"input_ids": self.inputs.to(first.device)}
        if self.mask is not None:
            arguments["attention_mask"] = self.mask.to(first.device).long()
        # Only decoders know a cache of keys and values.
        if getattr(getattr(model, "config", None), "use_cache", None) is not None:
            arguments["use_cache"] = False
        return arguments

    def check(self, model: nn.Module) -> None:
        """Refuses samples that the model cannot take.

        Raises:
            DataError: no sample at all, tokens beyond the vocabulary, windows longer than the
                model's positions, images of another shape or that hold NaN or infinity, or classes
                it does not have.
        """
        for complaint in _complaints(self, model):
            raise DataError(complaint)


def longest_window(model: nn.Module) -> int | None:
    """Tokens that a model has positions for; None where nothing limits them.

    Positions of RoBERTa and its kin start after that of the padding, so that it has fewer than its
    configuration says.
    """
    config: Any = getattr(model, "config", None)
    if hasattr(config, "get_text_config"):
        config = config.get_text_config()
    limits = [getattr(config, name, None) for name in _POSITIONS]
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in _TABLES:
            skipped = 0 if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - skipped)
    return min((limit for limit in limits if isinstance(limit, int) and limit > 0), default=None)


def usual_length(model: nn.Module, length: int | None, usual: int) -> int:
    """Tokens in a window: what is asked for, or else the usual number as far as the model goes."""
    if length is not None:
        return length
    return min(usual, longest_window(model) or usual)


def _complaints(samples: Samples, model: nn.Module) -> Iterator[str]:
    config = getattr(model, "config", None)
    vocabulary = getattr(config, "vocab_size", None)
    size = getattr(config, "image_size", None)
    classes = getattr(config, "num_labels", None)
    if not len(samples):
        yield "there are no samples: give one at least"
    if samples.is_images:
        if not torch.isfinite(samples.inputs).all():
            yield "the images hold NaN or infinity: leave those out"
        if vocabulary is not None and size is None:
            yield "the samples are images and the model reads tokens: choose text or another model"
        channels = getattr(config, "num_channels", samples.inputs.shape[1])
        height, width = size if isinstance(size, (list, tuple)) else (size, size)
        wanted, found = (channels, height, width), tuple(samples.inputs.shape[1:])
        if size is not None and wanted != found:
            yield (
                f"images are {' x '.join(map(str, found))} (channels, height, width), the model "
                f"takes {' x '.join(map(str, wanted))}: resize them or choose another model"
            )
    else:
        if size is not None and vocabulary is None:
            yield "the samples are tokens and the model reads images: choose another model or data"
        largest = int(samples.inputs.max()) if len(samples) else 0
        if vocabulary is not None and largest >= vocabulary:
            yield (
                f"token id {largest} is beyond the model's vocabulary of {vocabulary}: the "
                "tokenizer belongs to another model"
            )
        longest = longest_window(model)
        if longest is not None and samples.positions > longest:
            yield (
                f"windows have {samples.positions} tokens and the model has {longest} positions: "
                "cut shorter windows"
            )
    single = samples.targets.ndim == 1
    if single and classes is not None and len(samples) and int(samples.targets.max()) >= classes:
        yield (
            f"class {int(samples.targets.max())} is beyond the model's {classes} classes: the data "
            "belongs to another model"
        )


def next_token(tokens: torch.Tensor, mask: torch.Tensor | None = None) -> Samples:
    """Samples for a causal language model: each token is to be predicted from those before it.

    Args:
        tokens: shape (count, length).
        mask: True where a token is real, shape (count, length). Padding neither predicts nor is
            predicted.
    """
    targets = torch.full_like(tokens, IGNORED)
    targets[:, :-1] = tokens[:, 1:]
    if mask is not None:
        mask = mask.bool()
        targets[:, :-1].masked_fill_(~(mask[:, 1:] & mask[:, :-1]), IGNORED)
    return Samples(tokens, targets, mask)


def masked_token(
    tokens: torch.Tensor,
    mask_id: int,
    *,
    share: float = 0.15,
    seed: int = 0,
    mask: torch.Tensor | None = None,
) -> Samples:
    """Samples for a masked language model: hidden tokens are to be predicted from all others.

    Args:
        tokens: shape (count, length).
        mask_id: the tokenizer's ``mask_token_id``.
        share: of the real tokens of each sample to hide, at least one (Devlin et al. 2019: 0.15).
        seed: of the choice.
        mask: True where a token is real, shape (count, length). Padding is never hidden.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(tokens.shape, generator=generator)
    real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask.bool()
    order = order.masked_fill(~real, 2.0)
    wanted = (share * real.sum(1)).round().clamp(min=1)
    hidden = order.argsort(1).argsort(1) < wanted[:, None]
    inputs = tokens.masked_fill(hidden, mask_id)
    return Samples(inputs, tokens.masked_fill(~hidden, IGNORED), mask)
