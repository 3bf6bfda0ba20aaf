"""The masks of a pruning run as a file, a bit a weight."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from icbs.errors import CheckpointError
from icbs.loop.checkpoint import (
    UNREADABLE,
    json_object,
    opened,
    pack_mask,
    unpack_mask,
    weight_shape,
    write_tensors,
)

_KIND = "icbs-masks"


def save_masks(path: Path, masks: Mapping[str, torch.Tensor], source: Mapping[str, str]) -> None:
    """Writes masks as a safetensors file, eight weights to a byte.

    Args:
        path: the file, replaced in one atomic step.
        masks: True where a weight is kept, shape (out, in), by layer.
        source: the model's name and revision, or whatever else says what the masks are of.

    Raises:
        OutputError: the disk is full or the folder cannot be written.
    """
    shapes = {name: list(mask.shape) for name, mask in masks.items()}
    metadata = {"kind": _KIND, "shapes": json.dumps(shapes), "source": json.dumps(dict(source))}
    write_tensors(path, {name: pack_mask(mask) for name, mask in masks.items()}, metadata)


def load_masks(path: Path) -> dict[str, torch.Tensor]:
    """Reads a file that `save_masks` wrote.

    Returns:
        True where a weight is kept, shape (out, in), by layer.

    Raises:
        CheckpointError: it is damaged or something else.
    """
    try:
        with opened(path) as file:
            metadata = file.metadata() or {}
            if metadata.get("kind") != _KIND:
                raise CheckpointError(f"{path} holds no masks; give the masks.safetensors of a run")
            masks = {}
            for name, declared in json_object(metadata["shapes"]).items():
                out, into = weight_shape(name, declared)
                masks[name] = unpack_mask(file.get_tensor(name), out * into).view(out, into)
            return masks
    except UNREADABLE as error:
        raise CheckpointError(f"{path} cannot be read as masks ({error}): it is damaged") from error
