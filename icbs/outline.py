"""Names of a model's layers as its files have them, without PyTorch or transformers.

They serve to refuse a mistake at once: importing the two takes seconds.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from icbs.patterns import matching

# Kinds of models whose files call every layer what transformers' class calls it, but for a name
# in front.
AS_STORED = frozenset(
    ("bert", "bloom", "distilbert", "electra", "falcon", "gemma", "gemma2", "gpt2", "gpt_neo",
     "gpt_neox", "gptj", "icbs-mlp", "llama", "mistral", "opt", "phi", "phi3", "qwen2", "qwen3",
     "roberta")
)  # fmt: skip
_HEADER_BYTES = 1 << 26


def check_layers(folder: Path, glob: str) -> None:
    """Refuses patterns that surely match no layer of a model; others are for its classes to judge.

    Args:
        folder: of the model.
        glob: shell patterns, separated by commas.

    Raises:
        LayerError: none of them matches a layer.
    """
    names = layer_names(folder)
    # With and without what may be in front of all names, say "transformer.".
    patterns = [pattern.strip() for pattern in glob.split(",")]
    patterns += [pattern.partition(".")[2] for pattern in patterns]
    if names and not any(
        fnmatchcase(name, pattern)
        for full in names
        for name in (full, full.partition(".")[2])
        for pattern in patterns
        if pattern
    ):
        matching(names, glob, "layers")


def layer_names(folder: Path) -> list[str]:
    """What may be a layer, by the tensors of a folder's safetensors files; empty if not known."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if config["model_type"] not in AS_STORED:
            return []
        names = [name for path in sorted(folder.glob("*.safetensors")) for name in _matrices(path)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error):
        return []  # damaged: told when it is loaded
    return [name for name in names if "embed" not in name]


def _matrices(path: Path) -> Iterator[str]:
    """Names of modules with a weight of two dimensions, in the order of the file."""
    with path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        if size > _HEADER_BYTES:
            raise ValueError(f"{path.name} has a header of {size} bytes")
        tensors = json.loads(file.read(size))
    for name, tensor in tensors.items():
        module, dot, kind = name.rpartition(".")
        if dot and kind == "weight" and len(tensor["shape"]) == 2:
            yield module
