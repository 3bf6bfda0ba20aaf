"""Trains the package's Fashion-MNIST models and writes their checkpoints.

    python -m experiments.scripts.train_fashion garment-mlp
    python -m experiments.scripts.train_fashion vit-fashion

AdamW with linear warm-up and cosine decay, random horizontal flips. The transformer sees a random
half of its patches in all but the last epochs (PatchDropout, Liu et al. 2022, arXiv 2208.07220),
which halves the cost and regularises. After each epoch the state goes to ``--work``; a run that was
stopped goes on from there and ends with the same weights, because each epoch seeds itself.

The checkpoint is float16; the test accuracy in its config.json is that of the file as written.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import DeiTConfig, DeiTForImageClassification

from icbs.data.fashion_mnist import CLASSES, EMBEDDED, REMEDY
from icbs.data.loading import fashion_samples
from icbs.data.samples import Samples
from icbs.errors import DataError
from icbs.evaluation.quality import evaluate
from icbs.models.loading import load_model
from icbs.models.mlp import MlpConfig, MlpForImageClassification
from icbs.models.registered import CHECKPOINTS, quiet_transformers


@dataclass(frozen=True)
class Recipe:
    """How one model is built and trained.

    Attributes:
        config: its sizes.
        epochs: passes over the 60,000 training images.
        whole_epochs: how many of them, the last ones, show every patch.
        learning_rate: at its peak.
        weight_decay: of matrices only.
        batch_size: images in a step.
    """

    config: MlpConfig | DeiTConfig
    epochs: int
    whole_epochs: int
    learning_rate: float
    weight_decay: float
    batch_size: int


_NAMES = dict(enumerate(CLASSES))
_NUMBERS = {name: number for number, name in _NAMES.items()}

RECIPES = {
    "garment-mlp": Recipe(
        config=MlpConfig(hidden_sizes=(512, 512), dropout=0.2, id2label=_NAMES, label2id=_NUMBERS),
        epochs=12,
        whole_epochs=12,
        learning_rate=1e-3,
        weight_decay=0.01,
        batch_size=128,
    ),
    "vit-fashion": Recipe(
        config=DeiTConfig(
            image_size=28,
            patch_size=4,
            num_channels=1,
            hidden_size=96,
            num_hidden_layers=4,
            num_attention_heads=3,
            intermediate_size=192,
            hidden_act="relu",
            id2label=_NAMES,
            label2id=_NUMBERS,
        ),
        epochs=14,
        whole_epochs=4,
        learning_rate=2e-3,
        weight_decay=0.05,
        batch_size=128,
    ),
}
_WARM_UP = 0.1
_BETAS = (0.9, 0.98)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--data", help="folder of the four IDX files, or hub")
    parser.add_argument("--work", type=Path, default=Path("train-fashion"))
    parser.add_argument("--out", type=Path, help="default: the package's checkpoints folder")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    out = arguments.out or CHECKPOINTS / arguments.name
    train(arguments.name, arguments.data, arguments.work, out, arguments.seed)


def train(name: str, data: str | None, work: Path, out: Path, seed: int) -> float:
    """Trains one model and writes its checkpoint.

    Args:
        name: key of `RECIPES`.
        data: folder of the IDX files, or ``hub``; None takes the system's.
        work: folder for the state after each epoch.
        out: folder for the checkpoint.
        seed: of initial weights, order, flips and dropped patches.

    Returns:
        Test accuracy of the checkpoint as written, 0 to 1.

    Raises:
        DataError: images that cannot be read, or only the part that comes with the package.
    """
    recipe = RECIPES[name]
    images = fashion_samples(data, part="calibration")
    if images.source == EMBEDDED:
        raise DataError(f"{name} is trained on all 60,000 images: {REMEDY}, or --data hub")
    torch.manual_seed(seed)
    kind = DeiTForImageClassification if name == "vit-fashion" else MlpForImageClassification
    model = kind(recipe.config)
    optimizer = torch.optim.AdamW(_groups(model, recipe.weight_decay), betas=_BETAS, fused=True)
    state = work / f"{name}-{seed}.safetensors"
    work.mkdir(parents=True, exist_ok=True)
    done, seconds = _resume(state, model, optimizer)
    for epoch in range(done, recipe.epochs):
        start = time.perf_counter()
        loss = _epoch(model, optimizer, recipe, images, epoch, seed)
        seconds += time.perf_counter() - start
        _save(state, model, optimizer, epoch + 1, seconds)
        print(f"epoch {epoch + 1}/{recipe.epochs}: loss {loss:.4f}, {seconds:.0f} s", flush=True)
    accuracy = _write(model, out, data)
    print(f"{name}: test accuracy {accuracy:.4f}, {seconds:.0f} s of training, {out}")
    return accuracy


def _groups(model: torch.nn.Module, decay: float) -> list[dict[str, Any]]:
    matrices = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim != 2]
    return [
        {"params": matrices, "weight_decay": decay},
        {"params": others, "weight_decay": 0.0},
    ]


def _epoch(
    model: Any,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    images: Samples,
    epoch: int,
    seed: int,
) -> float:
    torch.manual_seed(seed * 1000 + epoch)
    batches = torch.randperm(len(images)).split(recipe.batch_size)
    total = 0.0
    model.train()
    whole = epoch >= recipe.epochs - recipe.whole_epochs
    dropping = None
    if not whole:
        dropping = model.base_model.embeddings.register_forward_hook(_drop_patches)
    for number, batch in enumerate(batches):
        rate = recipe.learning_rate * _schedule((epoch + number / len(batches)) / recipe.epochs)
        for group in optimizer.param_groups:
            group["lr"] = rate
        flipped = torch.rand(len(batch)) < 0.5
        pixels = images.inputs[batch]
        pixels = torch.where(flipped[:, None, None, None], pixels.flip(-1), pixels)
        loss = functional.cross_entropy(model(pixel_values=pixels).logits, images.targets[batch])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        total += loss.item() * len(batch)
    if dropping is not None:
        dropping.remove()
    return total / len(images)


def _schedule(progress: float) -> float:
    if progress < _WARM_UP:
        return progress / _WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (progress - _WARM_UP) / (1 - _WARM_UP)))


def _drop_patches(module: Any, inputs: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Keeps both class tokens and a random half of the patches, another half for each image."""
    count = tokens.shape[1] - 2
    kept = torch.rand(len(tokens), count).argsort(1)[:, : count // 2] + 2
    places = kept[:, :, None].expand(-1, -1, tokens.shape[2])
    return torch.cat([tokens[:, :2], tokens.gather(1, places)], 1)


def _save(
    path: Path,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    epoch: int,
    seconds: float,
) -> None:
    tensors = {f"model/{key}": value for key, value in model.state_dict().items()}
    for number, entry in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{number}/{key}": value for key, value in entry.items()}
    temporary = path.with_suffix(".tmp")
    save_file(tensors, temporary, metadata={"epoch": str(epoch), "seconds": str(seconds)})
    temporary.replace(path)


def _resume(
    path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, float]:
    """Loads a state if there is one; epochs done and seconds spent."""
    if not path.exists():
        return 0, 0.0
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    weights: dict[str, torch.Tensor] = {}
    entries: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        where, _, rest = key.partition("/")
        if where == "model":
            weights[rest] = value
        else:
            number, _, field = rest.partition("/")
            entries.setdefault(int(number), {})[field] = value
    model.load_state_dict(weights)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": entries})
    return int(metadata["epoch"]), float(metadata["seconds"])


def _write(model: Any, out: Path, data: str | None) -> float:
    """Writes the checkpoint in float16, measures it as written, and notes the accuracy in it."""
    with quiet_transformers():
        model.half().save_pretrained(out)
    # safetensors writes for its owner only; a package is read by everybody.
    (out / "model.safetensors").chmod(0o644)
    written = load_model(str(out)).model
    held_out = fashion_samples(data, part="evaluation")
    accuracy = evaluate(written, held_out, batch_size=500, progress=False).accuracy
    model.config.test_accuracy = accuracy
    model.config.save_pretrained(out)
    return accuracy


if __name__ == "__main__":
    main()
