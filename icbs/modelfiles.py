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
from typing import Any

import torch
from torch.nn.modules import module as torch_module

from icbs.errors import ModelError

# A model of a few values may declare buffers of a usual size, such as positions.
_VALUES_AT_LEAST, _TENSORS_AT_LEAST = 1 << 22, 512
# Weights are registered when they are built, when they are read and where they are tied.
_TIMES = 16
_JSON_BYTES = 1 << 26
_COUNT = 1 << 16
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
    """Refuses a configuration that would make transformers fetch code or count without end.

    Raises:
        ModelError: it is no JSON object, names a kernel of the hub, or declares more than 65,536
            layers, labels, heads or experts.
    """
    for key, value in _entries(_json(path, name)):
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
