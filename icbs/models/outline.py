"""Names of a model's layers as its files have them, without PyTorch or transformers.

They serve to refuse a mistake at once: importing the two takes seconds.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from icbs.errors import DensityError
from icbs.patterns import matching, parse_pattern

# Kinds of models whose files call every layer what transformers' class calls it, but for a name
# in front.
AS_STORED = frozenset(
    ("bert", "bloom", "distilbert", "electra", "falcon", "gemma", "gemma2", "gpt2", "gpt_neo",
     "gpt_neox", "gptj", "icbs-mlp", "llama", "mistral", "opt", "phi", "phi3", "qwen2", "qwen3",
     "roberta")
)  # fmt: skip
_HEADS = ("classifier", "lm_head", "score")
_HEADER_BYTES = 1 << 26


def check_layers(folder: Path, glob: str, pattern: str | None = None) -> None:
    """Refuses what surely fits no layer of a model; the rest is for its classes to judge.

    Args:
        folder: of the model.
        glob: shell patterns of names, separated by commas.
        pattern: ``N:M``, or None.

    Raises:
        LayerError: no layer has such a name.
        DensityError: M divides the inputs of no layer that has.
    """
    shapes = layer_shapes(folder)
    # With and without what may be in front of all names, say "transformer.".
    globs = [one.strip() for one in glob.split(",")]
    globs += [one.partition(".")[2] for one in globs]
    chosen = {
        name: shape
        for name, shape in shapes.items()
        if any(
            fnmatchcase(end, one) for end in (name, name.partition(".")[2]) for one in globs if one
        )
    }
    if shapes and not chosen:
        matching(shapes, glob, "layers")
    if pattern is not None and chosen:
        _, m = parse_pattern(pattern)
        # Some kinds store (out, in), others (in, out).
        if all(size % m for shape in chosen.values() for size in shape):
            name, shape = next(iter(chosen.items()))
            raise DensityError(
                f"pattern {pattern} fits no layer, not {name!r} of shape {tuple(shape)} either: "
                "choose an M that divides the inputs"
            )


def layer_shapes(folder: Path) -> dict[str, list[int]]:
    """What may be a layer, by the tensors of a folder's safetensors files; empty if not known."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if config["model_type"] not in AS_STORED:
            return {}
        return dict(one for path in sorted(folder.glob("*.safetensors")) for one in _matrices(path))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error):
        return {}  # damaged: told when it is loaded


def _matrices(path: Path) -> Iterator[tuple[str, list[int]]]:
    """Modules with a weight of two dimensions, no heads or embeddings, in the order of the file."""
    with path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        if size > _HEADER_BYTES:
            raise ValueError(f"{path.name} has a header of {size} bytes")
        tensors = json.loads(file.read(size))
    for name, tensor in tensors.items():
        module, dot, kind = name.rpartition(".")
        no_layer = "embed" in module or module.rpartition(".")[2] in _HEADS
        if dot and kind == "weight" and len(tensor["shape"]) == 2 and not no_layer:
            yield module, tensor["shape"]
