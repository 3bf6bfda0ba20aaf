"""The state of a pruning run in one file, written so that a crash leaves the old or the new one.

A safetensors file: masks as bits, tabu blocks, mean gradients; the rest is JSON in its header. No
pickle anywhere.

Schema history: 1, first; 2, a layer's step says how many swaps its solver offered; 3, settings
have a pattern; 4, they have mixed_precision; 5, they have tuning_batch_size.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from icbs.blocks.layers import PrunedLayer
from icbs.data.samples import Samples
from icbs.errors import CheckpointError, OutputError
from icbs.loop.records import StepRecord, number, whole

SCHEMA = 5
# Settings that checkpoints of earlier versions hold, and what holds in their place now.
REMOVED = {"allocation": "uniform", "select_group": "layer", "spread": 0.1}
_KIND = "icbs-pruning-run"
# What reading a damaged file ends in.
UNREADABLE = (
    SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError, OverflowError,
    RecursionError,
)  # fmt: skip


@dataclass(frozen=True)
class LayerState:
    """Mask, tried weights and tabu blocks of one layer.

    Attributes:
        pruned: True where the weight is 0, shape (out * in,).
        touched: True where a weight was in a block, shape (out * in,).
        tabu: flat positions of each tabu block, the oldest first.
    """

    pruned: torch.Tensor
    touched: torch.Tensor
    tabu: tuple[torch.Tensor, ...]

    @classmethod
    def of(cls, layer: PrunedLayer) -> LayerState:
        """The state of a layer now."""
        # Copies: the layer goes on to change its own tensors.
        pruned, touched = (t.detach().cpu().clone() for t in (layer.pruned, layer.touched))
        return cls(pruned, touched, tuple(layer.tabu.blocks()))

    def put(self, layer: PrunedLayer) -> None:
        """Puts the state into the layer and its mask into the model."""
        device = layer.dense.device
        layer.pruned = self.pruned.to(device, copy=True)
        layer.touched = self.touched.to(device, copy=True)
        layer.count = int(self.pruned.sum())
        for block in self.tabu:
            layer.tabu.add(block.to(device))
        layer.write()


@dataclass(frozen=True)
class Checkpoint:
    """All that a run needs to go on.

    Attributes:
        identity: what the run that goes on must have in common, JSON values.
        steps: records so far.
        ridge: factor on the ridges of the next step.
        heldout_loss: loss on the held-out samples now; None without any.
        layers: by name.
        means: mean gradient and the number of batches in it, by layer.
    """

    identity: Mapping[str, Any]
    steps: tuple[StepRecord, ...]
    ridge: float
    heldout_loss: float | None
    layers: Mapping[str, LayerState]
    means: Mapping[str, tuple[torch.Tensor, int]]

    def save(self, path: Path) -> None:
        """Writes the file; what was there stays until the new one is whole and on the disk.

        Raises:
            OutputError: the disk is full or the folder cannot be written.
        """
        header = {
            "schema": SCHEMA,
            "identity": dict(self.identity),
            "steps": [record.to_json() for record in self.steps],
            "ridge": self.ridge,
            "heldout_loss": self.heldout_loss,
            "batches": {name: count for name, (_, count) in self.means.items()},
        }
        tensors: dict[str, torch.Tensor] = {}
        for name, state in self.layers.items():
            tensors[f"{name}/pruned"] = pack_mask(state.pruned)
            tensors[f"{name}/touched"] = pack_mask(state.touched)
            if state.tabu:
                tensors[f"{name}/tabu"] = torch.cat(state.tabu).cpu()
                tensors[f"{name}/tabu_sizes"] = torch.tensor([len(block) for block in state.tabu])
        for name, (mean, _) in self.means.items():
            tensors[f"{name}/mean"] = mean.cpu().contiguous()
        write_tensors(path, tensors, {"kind": _KIND, "state": json.dumps(header)})

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Reads a file that `save` wrote.

        Raises:
            CheckpointError: it is damaged, something else, or of another schema.
        """
        try:
            with opened(path) as file:
                metadata = file.metadata() or {}
                if metadata.get("kind") != _KIND:
                    raise CheckpointError(
                        f"{path} is no checkpoint of a pruning run; choose another file"
                    )
                header = json_object(metadata["state"])
                if header.get("schema") != SCHEMA:
                    raise CheckpointError(
                        f"{path} has schema {header.get('schema')!r}, this version reads {SCHEMA}: "
                        "go on with the version that wrote it, or start anew in another folder"
                    )
                shapes = {
                    name: weight_shape(name, shape)
                    for name, shape in header["identity"]["layers"].items()
                }
                layers = {name: _state(file, name, shape) for name, shape in shapes.items()}
                means = {
                    name: (_mean(file, name, shapes[name]), whole(f"batches of {name}", count))
                    for name, count in header["batches"].items()
                }
            loss = header["heldout_loss"]
            identity = header["identity"]
            return cls(
                identity={**identity, "settings": dict(identity.get("settings", {}))},
                steps=tuple(StepRecord.from_json(step) for step in header["steps"]),
                ridge=number("ridge", header["ridge"]),
                heldout_loss=None if loss is None else number("heldout_loss", loss),
                layers=layers,
                means=means,
            )
        except UNREADABLE as error:
            raise CheckpointError(
                f"{path} cannot be read as a checkpoint ({error}): it is damaged or was not "
                "written by this program; remove it to start anew"
            ) from error

    def check(self, identity: Mapping[str, Any], path: Path) -> tuple[str, ...]:
        """Refuses a run that this is not the checkpoint of.

        Returns:
            A sentence for each setting of an earlier version that is ignored and made a difference.

        Raises:
            CheckpointError: saying everything that differs.
        """
        here = json.loads(json.dumps(identity))
        settings = {**self.identity["settings"]}
        removed = {name: settings.pop(name) for name in REMOVED if name in settings}
        differing = [
            f"{name} was {old!r}, is {new!r}"
            for name, old, new in differences({**self.identity, "settings": settings}, here)
        ]
        if differing:
            raise CheckpointError(
                f"{path} is of another run: {'; '.join(differing)}. Go on with the same, or start "
                "anew in another folder"
            )
        return tuple(
            f"{path} was written with {name}={value!r}, a setting that is no more: it is ignored, "
            f"and the run goes on as with {REMOVED[name]!r}"
            for name, value in removed.items()
            if value != REMOVED[name]
        )


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A safetensors file, open for reading.

    Raises:
        OSError: no file, but a pipe, a device or nothing.
    """
    if not path.is_file():
        raise FileNotFoundError("no such file")
    with safe_open(path, framework="pt") as file:
        yield file


def json_object(text: str) -> dict[str, Any]:
    """The JSON object that a header holds.

    Raises:
        ValueError: no JSON, or another value.
        RecursionError: it is nested too deeply.
    """
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("its header is no JSON object")  # noqa: TRY004 - it is the text's value
    return value


def weight_shape(name: str, shape: Any) -> tuple[int, int]:
    """Rows and columns that a file declares for a layer.

    Raises:
        ValueError: anything but two whole numbers from 1.
    """
    if not isinstance(shape, list) or len(shape) != 2:
        raise ValueError(f"the shape of {name[:80]!r} is no pair")
    out, into = (whole(f"the shape of {name[:80]!r}", length) for length in shape)
    if out < 1 or into < 1:
        raise ValueError(f"the shape of {name[:80]!r} is {out} x {into}")
    return out, into


def fingerprint(samples: Samples) -> str:
    """Hash of the samples' contents."""
    digest = hashlib.sha256()
    for tensor in (samples.inputs, samples.targets, samples.mask):
        if tensor is not None:
            digest.update(repr((tuple(tensor.shape), str(tensor.dtype))).encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def write_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]
) -> None:
    """Writes a safetensors file in one atomic step.

    Raises:
        OutputError: the disk is full or the folder cannot be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        save_file(dict(tensors), partial, dict(metadata))
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise OutputError(
            f"{path} cannot be written ({error}): make room or choose another folder; "
            "what was there before is as it was"
        ) from error


def pack_mask(mask: torch.Tensor) -> torch.Tensor:
    """A mask as bits, eight to a byte, the first in the highest, shape (ceil(size / 8),)."""
    return torch.from_numpy(np.packbits(mask.cpu().numpy()))


def unpack_mask(bits: torch.Tensor, size: int) -> torch.Tensor:
    """The flat mask of so many weights that `pack_mask` packed.

    Raises:
        ValueError: not that many.
    """
    if bits.dtype != torch.uint8 or bits.shape != ((size + 7) // 8,):
        raise ValueError(f"a mask of {size} weights has the shape {tuple(bits.shape)} of bytes")
    return torch.from_numpy(np.unpackbits(bits.numpy(), count=size).astype(np.bool_))


def _state(file: Any, name: str, shape: tuple[int, int]) -> LayerState:
    size = shape[0] * shape[1]
    tabu: tuple[torch.Tensor, ...] = ()
    if f"{name}/tabu" in set(file.keys()):
        positions, sizes = (file.get_tensor(f"{name}/{key}") for key in ("tabu", "tabu_sizes"))
        for values, most in ((positions, size - 1), (sizes, size)):
            if values.dtype != torch.int64 or values.ndim != 1:
                raise ValueError(f"the tabu list of {name!r} is no list of whole numbers")
            if ((values < 0) | (values > most)).any():
                raise ValueError(f"the tabu list of {name!r} leads outside the layer")
        if int(sizes.sum()) != len(positions):
            raise ValueError(f"the tabu blocks of {name!r} do not add up")
        tabu = tuple(positions.split(sizes.tolist()))
    pruned = unpack_mask(file.get_tensor(f"{name}/pruned"), size)
    touched = unpack_mask(file.get_tensor(f"{name}/touched"), size)
    return LayerState(pruned, touched, tabu)


def _mean(file: Any, name: str, shape: tuple[int, int]) -> torch.Tensor:
    mean: torch.Tensor = file.get_tensor(f"{name}/mean")
    if mean.shape != (shape[0] * shape[1],) or not mean.dtype.is_floating_point:
        raise ValueError(f"the mean gradient of {name!r} is {mean.dtype} {tuple(mean.shape)}")
    return mean


def differences(old: Any, new: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """What differs between two JSON values: its name, the old value and the new one."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        if old != new:
            yield name, old, new
        return
    for key in {**old, **new}:
        inner = key if not name or name == "settings" else f"{name} {key}"
        yield from differences(old.get(key), new.get(key), inner)
