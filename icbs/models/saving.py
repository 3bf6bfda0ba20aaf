"""A pruned model as a folder that looks like the one it came from.

What was loaded may differ from what is stored: transformers renames and stacks weights, and we
compute in another type than that of the files. So the new folder takes everything but the weights
from the old one, and the weights in the old one's names, types and files. A value that was not
changed is the stored one, bit for bit, also where the computation rounded it.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from icbs.errors import OutputError
from icbs.models.loading import LoadedModel
from icbs.models.modelfiles import WEIGHT_SUFFIXES, StoredTensor, stored_tensors, weight_files
from icbs.models.registered import quiet_transformers

_README = """This model is a perceptron of iCBS-Bench; transformers loads it after one import:

    import icbs.models.mlp
    from transformers import AutoModelForImageClassification

    model = AutoModelForImageClassification.from_pretrained("this folder")
"""


def save_model(loaded: LoadedModel, folder: Path) -> str | None:
    """Writes the model with all that came with it, to be loaded by ``from_pretrained(folder)``.

    What was there is replaced only after the new folder is whole.

    Args:
        loaded: the model.
        folder: where to.

    Returns:
        What somebody who loads it has to know; None if nothing.

    Raises:
        OutputError: the disk is full or the folder cannot be written.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    note = None
    try:
        shutil.rmtree(partial, ignore_errors=True)
        with quiet_transformers():
            loaded.model.save_pretrained(partial)
            if loaded.tokenizer is not None and loaded.folder is None:
                loaded.tokenizer.save_pretrained(partial)
        if loaded.folder is not None:
            same = _restore_weights(partial, loaded.folder)
            _copy_others(loaded.folder, partial, folder, config=same)
        if type(loaded.model).__module__.partition(".")[0] == "icbs":
            (partial / "README.md").write_text(_README, encoding="utf-8")
            note = f"transformers loads {folder} after 'import icbs.models.mlp' (see its README.md)"
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    except (OSError, SafetensorError) as error:
        raise OutputError(
            f"the pruned model cannot be written to {folder} ({error}): make room or choose "
            "another folder and go on with --resume"
        ) from error
    return note


def round_weights(loaded: LoadedModel, weights: Mapping[str, torch.Tensor]) -> None:
    """Rounds weights in place to the type they are saved in, so that what is measured is saved.

    Args:
        loaded: the model.
        weights: by any name.
    """
    if loaded.dtype is not None:
        for weight in weights.values():
            weight.copy_(weight.to(loaded.dtype))


def _restore_weights(partial: Path, source: Path) -> bool:
    """Rewrites the saved weights in the names, types and files of the source.

    Returns:
        True if the names are those of the source; else the types alone are.
    """
    ours = {name: path for path in weight_files(partial) for name in stored_tensors(path)}
    theirs = {path: stored_tensors(path) for path in weight_files(source)}
    known = {name: entry for entries in theirs.values() for name, entry in entries.items()}
    shapes = {n: e for path in set(ours.values()) for n, e in stored_tensors(path).items()}
    if not all(name in known and known[name].shape == shapes[name].shape for name in ours):
        _change_type(partial, set(ours.values()), known)
        return False
    written: dict[str, Path] = {}
    for path, entries in theirs.items():
        tensors = load_file(path)
        for name in entries.keys() & ours.keys():
            tensors[name] = _stored(tensors[name], _tensor(ours[name], name))
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        written[path.name] = partial / f"{path.name}.new"
        save_file(tensors, written[path.name], metadata or {"format": "pt"})
    for path in (*set(ours.values()), *partial.glob("*.safetensors.index.json")):
        path.unlink()
    for name, path in written.items():
        path.rename(partial / name)
    for path in source.glob("*.safetensors.index.json"):
        shutil.copyfile(path, partial / path.name)
    return True


def _stored(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """A tensor in its old type; its old values where they are what was computed with."""
    return torch.where(old.to(new.dtype) == new, old, new.to(old.dtype))


def _tensor(path: Path, name: str) -> torch.Tensor:
    with safe_open(path, framework="pt") as file:
        return file.get_tensor(name)


def _change_type(partial: Path, files: set[Path], known: Mapping[str, StoredTensor]) -> None:
    """Gives all weights the type that most of the source's have, for want of names in common."""
    dtypes = Counter(entry.dtype for entry in known.values() if entry.dtype.is_floating_point)
    dtype = dtypes.most_common(1)[0][0]
    for path in files:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        tensors = {
            name: tensor.to(dtype) if tensor.is_floating_point() else tensor
            for name, tensor in load_file(path).items()
        }
        save_file(tensors, path, metadata)
    config = json.loads((partial / "config.json").read_text(encoding="utf-8"))
    config["dtype"] = str(dtype).removeprefix("torch.")
    (partial / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _copy_others(source: Path, partial: Path, folder: Path, *, config: bool) -> None:
    """Tokenizer, image processor, templates, licence: everything that is not weights."""
    own: str | None = None
    if folder.resolve().is_relative_to(source.resolve()):
        # A run inside the model's folder is no part of the model.
        own = (*folder.resolve().relative_to(source.resolve()).parts, partial.name)[0]
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        hidden = any(part.startswith(".") for part in relative.parts)
        hidden |= own is not None and relative.parts[0] in (own, partial.name)
        weights = path.suffix in WEIGHT_SUFFIXES or path.name.endswith(".index.json")
        if hidden or weights or not path.is_file():
            continue
        if relative.name == "config.json" and len(relative.parts) == 1 and not config:
            continue
        target = partial / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
