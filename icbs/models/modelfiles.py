"""What a model's files declare, held against what they are, before and while transformers reads.

Read: regular files only, weights of the folder itself only, no hub kernels, no layer counts that
nothing could hold. Built: no more values and tensors than the weight files could fill.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch.nn.modules import module as torch_module

from icbs.errors import ModelError

# A model of a few values may declare buffers of a usual size, such as positions.
_VALUES_AT_LEAST, _TENSORS_AT_LEAST = 1 << 22, 512
# Weights are registered when they are built, when they are read and where they are tied.
_TIMES = 16
_JSON_BYTES = 1 << 26
_COUNT = 1 << 16
# Files of weights, in whatever format.
WEIGHT_SUFFIXES = (
    ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".gguf", ".npz",
    ".ot",
)  # fmt: skip
# How safetensors names the types of plain weights, and those of quantised ones.
_PLAIN = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
}  # fmt: skip
_QUANTISED = ("I8", "U8", "F8", "F6", "F4")


class StoredTensor(NamedTuple):
    """A tensor of a file, as its header declares it."""

    dtype: torch.dtype
    shape: tuple[int, ...]


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that transformers loads from a folder, in order."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if index.is_file():
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return [folder / name for name in sorted(set(names))]
    return sorted(folder.glob("*.safetensors"))


def stored_tensors(path: Path) -> dict[str, StoredTensor]:
    """Type and shape of every tensor of a safetensors file; bool stands for any other type."""
    found = {}
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - it is no dictionary
            entry = file.get_slice(name)
            dtype = _PLAIN.get(entry.get_dtype(), torch.bool)
            found[name] = StoredTensor(dtype, tuple(entry.get_shape()))
    return found


def check_types(files: list[Path], name: str) -> None:
    """Refuses weights of eight bits or fewer.

    Raises:
        ModelError: naming one.
    """
    for path in files:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 - it is no dictionary
                entry = file.get_slice(key)
                kind = str(entry.get_dtype())
                if kind.startswith(_QUANTISED) and len(entry.get_shape()) > 1:
                    raise ModelError(
                        f"model {name!r} is quantised: {key} is stored as {kind}. Pruning needs "
                        "plain weights (float32, float16 or bfloat16): dequantise it first"
                    )


_COUNTED = ("layer", "label", "block", "depth", "expert", "head", "stage")


def check_folder(folder: Path, name: str) -> None:
    """Refuses a folder that no honest writer leaves.

    Raises:
        ModelError: a pipe or a device, weights outside the folder, or as `check_config`.
    """
    for path in folder.rglob("*"):
        if not (path.is_file() or path.is_dir()):
            raise ModelError(
                f"model {name!r} has {path.name!r}, which is no regular file: remove it"
            )
    for path in folder.glob("*.index.json"):
        shards = _json(path, name).get("weight_map")
        for shard in shards.values() if isinstance(shards, dict) else [shards]:
            if not isinstance(shard, str) or shard != Path(shard).name or shard in ("", "..", "."):
                raise ModelError(
                    f"model {name!r} names weights {str(shard)[:80]!r} in {path.name}, expected "
                    "files of its own folder"
                )
    check_config(folder / "config.json", name)


def check_config(path: Path, name: str) -> None:
    """Refuses a configuration of a quantised model, of fetched code or of endless counts.

    Raises:
        ModelError: it is no JSON object, quantised, names a kernel of the hub, or declares more
            than 65,536 layers, labels, heads or experts.
    """
    for key, value in _entries(_json(path, name)):
        if key == "quantization_config" and value:
            method = value.get("quant_method") if isinstance(value, dict) else None
            raise ModelError(
                f"model {name!r} is quantised ({method or 'quantization_config'} in config.json): "
                "pruning needs plain weights (float32, float16 or bfloat16), so dequantise it first"
            )
        if "attn_implementation" in key and isinstance(value, str) and "/" in value:
            raise ModelError(
                f"model {name!r} asks for {key} {value[:80]!r}, code of the hub that is never run: "
                "remove it from config.json"
            )
        whole = isinstance(value, int) and any(word in key for word in _COUNTED)
        if whole and value > _COUNT and not key.endswith("_id"):
            raise ModelError(
                f"model {name!r} declares {key} {value}, expected at most {_COUNT}: config.json "
                "is damaged"
            )


def _json(path: Path, name: str) -> dict[str, Any]:
    try:
        if path.stat().st_size > _JSON_BYTES:
            raise ModelError(f"model {name!r} has a {path.name} of more than {_JSON_BYTES} bytes")
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"model {name!r}: {path.name} cannot be read ({error})") from error
    if not isinstance(value, dict):
        raise ModelError(f"model {name!r}: {path.name} is no JSON object")
    return value


def _entries(tree: Any) -> Iterator[tuple[str, Any]]:
    inside = tree.items() if isinstance(tree, dict) else [("", value) for value in tree]
    for key, value in inside:
        if isinstance(value, dict | list):
            yield from _entries(value)
        yield key, value


@contextmanager
def bounded(files: list[Path], name: str) -> Iterator[None]:
    """Ends the building of a model that declares more than sixteen times what its files hold.

    Args:
        files: its weights; each value takes a byte there at least.
        name: of the model.

    Raises:
        ModelError: as said, beyond a floor of 4 million values and 512 tensors.
    """
    values = _VALUES_AT_LEAST + _TIMES * sum(path.stat().st_size for path in files)
    tensors = _TENSORS_AT_LEAST + _TIMES * sum(map(_tensors, files))

    def count(_module: Any, _key: str, tensor: torch.Tensor | None) -> None:
        nonlocal values, tensors
        if tensor is not None:
            values, tensors = values - tensor.numel(), tensors - 1
        if values < 0 or tensors < 0:
            raise ModelError(
                f"model {name!r} declares far more weights in config.json than its files hold: "
                "one of them is damaged or of another model"
            )

    hooks = [
        torch_module.register_module_parameter_registration_hook(count),
        torch_module.register_module_buffer_registration_hook(count),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _tensors(path: Path) -> int:
    """At most so many tensors: each takes 40 bytes of a safetensors header at least."""
    with path.open("rb") as file:
        start = file.read(8)
    size = path.stat().st_size
    return min(size, struct.unpack("<Q", start)[0] if len(start) == 8 else 0) // 40
