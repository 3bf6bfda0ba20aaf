"""Models by registered name, hub id or local folder, loaded.

Nothing a model brings is ever executed: weights come as safetensors only and remote code stays off.
What a local folder declares is held against what is there (`icbs.models.modelfiles`).
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from icbs.errors import (
    ModelError,
    SettingError,
    memory_remedy,
)
from icbs.models.finding import fetch_others, find_model, hub_folder, load_errors
from icbs.models.modelfiles import (
    bounded,
    check_types,
    stored_tensors,
    weight_files,
)
from icbs.models.registered import REGISTRY, quiet_transformers
from icbs.models.tasks import TASKS, task_of


@dataclass(frozen=True)
class LoadedModel:
    """A model ready for use, and where it comes from.

    Attributes:
        model: the transformers model, in evaluation mode.
        tokenizer: its tokenizer; None for images.
        name: the name it was asked for by.
        revision: hash or commit that pins the weights.
        note: what a reader of results must know; may be empty.
        task: what it predicts, a name of `icbs.models.tasks.TASKS`.
        warnings: what is odd about its files, a sentence each.
        folder: where its files are; None for a model that was never saved.
        dtype: type that most of its weights are stored in.
    """

    model: Any
    tokenizer: Any
    name: str
    revision: str
    note: str = ""
    task: str = "causal-lm"
    warnings: tuple[str, ...] = ()
    folder: Path | None = None
    dtype: torch.dtype | None = None


def load_model(
    name: str,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    device_map: str | Mapping[str, int | str] | None = None,
) -> LoadedModel:
    """Loads a model and, unless it reads images, its tokenizer.

    What it predicts follows from the end of the architecture's name in config.json (see
    `icbs.models.tasks.TASKS`).

    Args:
        name: a registered name (see `models`), a local folder or that of a pruning run, or a hub
            id ``owner/name``.
        device: where torch puts it; no matter with a device map.
        dtype: type of its weights, float32, bfloat16 or float16.
        device_map: how accelerate spreads the model over devices: ``auto``, a device, or a device
            for each module (see transformers' ``from_pretrained``).

    Returns:
        The model in evaluation mode.

    Raises:
        ModelError: no such model, a folder that holds none, weights that are NaN or infinite, or a
            model too large for the devices of the map.
        DownloadError: offline, hash mismatch, disk full.
        SettingError: a device that torch does not know or that is not there.
        MemoryLimitError: the model does not fit.
    """
    check_device(device)
    source, note = find_model(name)
    hub = isinstance(source, str)
    folder = hub_folder(name) if hub else source
    assert isinstance(folder, Path)
    if not hub:
        _check_files(folder, name)
    commit = folder.name if hub else "main"
    model, tokenizer, task, lost = _load(source, name, dtype, device_map, commit)
    if hub:
        _check_files(folder, name)
    if device_map is None:
        with memory_remedy(f"the model {name!r}", "choose a smaller model or load it in bfloat16"):
            model.to(device)
    _check_weights(model, name)
    return LoadedModel(
        model=model.eval(),
        tokenizer=tokenizer,
        name=name,
        revision=_revision(source, name, commit),
        note=note,
        task=task,
        warnings=(*_unexpected(lost, model), *(fetch_others(name, commit) if hub else ())),
        folder=folder,
        dtype=stored_dtype(folder),
    )


def skeleton(name: str) -> tuple[nn.Module, str] | None:
    """The model without its weights, to ask for layers and limits before anything is read.

    Args:
        name: as for `load_model`.

    Returns:
        The model on torch's device ``meta`` and what it predicts; None for a registered model that
        is not on this machine yet.

    Raises:
        ModelError: no such model, or one that is refused by its configuration.
        DownloadError: offline.
    """
    if name in REGISTRY and not REGISTRY[name].folder.is_dir():
        return None
    source, _ = find_model(name)
    folder = hub_folder(name) if isinstance(source, str) else source
    if isinstance(source, Path):
        _check_files(folder, name)
    # Not before a wrong name is told: these take seconds.
    import transformers

    import icbs.models.mlp  # noqa: F401  makes transformers know the perceptron

    limits: AbstractContextManager[None] = nullcontext()
    if isinstance(source, Path):
        limits = bounded(sorted(folder.glob("*.safetensors")), name)
    with quiet_transformers(), load_errors(source, name), limits, torch.device("meta"):
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
        task = _task(config, name)
        # By name, because an automatic class may not know which of several is meant.
        kind = getattr(transformers, config.architectures[0], None)
        if kind is None or config.architectures[0].endswith("ForPreTraining"):
            kind = getattr(transformers, TASKS[task].auto_class)
            return kind.from_config(config), task
        return kind(config), task


def stored_dtype(folder: Path) -> torch.dtype | None:
    """Type of most of the weights in a folder; None if it holds none."""
    counts: Counter[torch.dtype] = Counter()
    for path in weight_files(folder):
        for tensor in stored_tensors(path).values():
            if tensor.dtype.is_floating_point:
                counts[tensor.dtype] += math.prod(tensor.shape)
    return counts.most_common(1)[0][0] if counts else None


def _check_files(folder: Path, name: str) -> None:
    with load_errors(folder, name):
        check_types(weight_files(folder), name)


def _unexpected(lost: Sequence[str], model: nn.Module) -> tuple[str, ...]:
    if not lost:
        return ()
    return (
        f"{len(lost)} tensors of its files are no part of a {type(model).__name__}, {lost[0]} "
        "among them: nothing here uses them, and what is saved has them as they are",
    )


def check_device(device: str) -> None:
    """Refuses a device that torch does not know or that is not there.

    Raises:
        SettingError: as said.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise SettingError(
            f"device is {device!r}, which cannot be used here ({reason}): take 'cpu', or 'cuda' "
            "where torch sees a GPU"
        ) from error


def _revision(source: Path | str, name: str, commit: str) -> str:
    wheel = REGISTRY[name].wheel if name in REGISTRY else None
    if wheel is not None:
        return f"{wheel.requirement} sha256:{wheel.sha256}"
    if isinstance(source, Path):
        return f"sha256:{_fingerprint(source)}"
    return commit


def _load(
    source: Path | str,
    name: str,
    dtype: torch.dtype,
    device_map: str | Mapping[str, int | str] | None,
    commit: str,
) -> tuple[Any, Any, str, list[str]]:
    import transformers

    import icbs.models.mlp  # noqa: F401  makes transformers know the perceptron

    limits: AbstractContextManager[None] = nullcontext()
    if isinstance(source, Path):
        limits = bounded(sorted(source.glob("*.safetensors")), name)
    safely: dict[str, Any] = {"revision": commit, "trust_remote_code": False}
    with quiet_transformers(), load_errors(source, name), limits:
        task = _task(transformers.AutoConfig.from_pretrained(source, **safely), name)
        loader = getattr(transformers, TASKS[task].auto_class)
        tokenizer = None
        if TASKS[task].tokenizer:
            tokenizer = transformers.AutoTokenizer.from_pretrained(source, **safely)
        model, report = loader.from_pretrained(
            source,
            **safely,
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            device_map=device_map,
        )
    # transformers fills what a file lacks with random numbers and goes on.
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(
            f"model {name!r} lacks {len(missing)} weights, {missing[0]} among them: the files are "
            "incomplete or of another architecture than config.json says"
        )
    return model, tokenizer, task, sorted(report["unexpected_keys"])


def _task(config: Any, name: str) -> str:
    architecture = str((getattr(config, "architectures", None) or ["nothing"])[0])
    task = task_of(architecture)
    if task is not None:
        return task
    endings = ", ".join(ending for task in TASKS.values() for ending in task.endings)
    raise ModelError(
        f"model {name!r} is a {architecture} by its config.json; choose an architecture that ends "
        f"in one of {endings}"
    )


def _check_weights(model: nn.Module, name: str) -> None:
    for key, parameter in model.named_parameters():
        if parameter.is_meta:
            raise ModelError(
                f"model {name!r} does not fit the devices of device_map: {key} was left on disk, "
                "where it cannot be pruned; give it more devices, or choose a smaller model or "
                "bfloat16"
            )
        if not torch.isfinite(parameter).all():
            raise ModelError(
                f"model {name!r} has weights that are NaN or infinite, in {key}: fetch or train it "
                "again"
            )


def _fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in [folder / "config.json", *sorted(folder.glob("*.safetensors"))]:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
