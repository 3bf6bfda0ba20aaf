"""What happens to each kind of model of transformers: a table made by pruning a tiny one of each.

``python -m experiments.scripts.families`` builds a tiny random model of every kind below, saves it,
loads it as any model, prunes it by the loop, saves and reloads it, and writes ``docs/families.md``.
A kind is *pruned* if every mask is exact, before and after, and the reloaded model gives the same
logits; else the sentence of the refusal stands in the table. Shares are those of the kind's default
configuration, which is of a real size, built without its weights.
"""

from __future__ import annotations

import gc
import re
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from torch import nn
from transformers import AutoConfig, PreTrainedTokenizerFast

from icbs.data.samples import Samples, masked_token, next_token
from icbs.errors import IcbsError
from icbs.loop.pruner import Pruner
from icbs.models.coverage import NO_MATRIX, coverage
from icbs.models.loading import load_model
from icbs.models.prunable import layer_weight, prunable_layers
from icbs.models.registered import quiet_transformers
from icbs.models.saving import save_model

_AUTO = {
    "causal": "AutoModelForCausalLM",
    "masked": "AutoModelForMaskedLM",
    "image": "AutoModelForImageClassification",
}
# Kinds of which the automatic class cannot tell which of several is meant.
_CLASS = {
    "deit": "DeiTForImageClassification",
    "levit": "LevitForImageClassification",
    "perceiver": "PerceiverForImageClassificationLearned",
}
_VOCABULARY, _LENGTH, _LABELS = 96, 12, 5
_PAGE = Path("docs/families.md")
# Smallest share of the matrix weights that the page speaks of.
_WORTH_SAYING = 0.005


@dataclass(frozen=True)
class Kind:
    """A kind of model.

    Attributes:
        name: its ``model_type``.
        task: causal, masked or image.
        options: what makes it tiny, by the name that configurations have for it; of no effect on
            one that does not know the name.
        more: what this kind needs besides.
    """

    name: str
    task: str
    options: Mapping[str, Any]
    more: Mapping[str, Any]

    @property
    def id(self) -> str:
        """Name and task."""
        return f"{self.name}-{self.task}"


def kinds() -> tuple[Kind, ...]:
    """Every kind of ``families.toml``."""
    text = files("experiments.scripts").joinpath("families.toml").read_text(encoding="utf-8")
    read = tomllib.loads(text)
    found = []
    for task, names in read["names"].items():
        for name in names.split():
            more = read["more"].get(f"{name}-{task}", read["more"].get(name, {}))
            usual = {key: value for key, value in read["tiny"].items() if more.get(key) != "-"}
            own = {key: value for key, value in more.items() if value != "-"}
            found.append(Kind(name, task, usual, own))
    return tuple(found)


# A few of every sort, which every run of the tests looks at.
FAST = (
    "llama-causal", "gpt2-causal", "mpt-causal", "mamba-causal", "xlnet-causal", "mixtral-causal",
    "gpt_oss-causal", "deepseek_v2-causal", "llama4_text-causal", "albert-masked", "roberta-masked",
    "mpnet-masked", "deberta-v2-masked", "swin-image", "resnet-image", "convnext-image",
    "jetmoe-causal", "longcat_flash-causal", "dbrx-causal", "longformer-masked",
    "swiftformer-image", "poolformer-image",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """What happened to one kind.

    Attributes:
        kind: which.
        architecture: its class.
        share: of the matrix weights under pruning, tiny; 0 where it is refused.
        refused: why single layers were left out, by name.
        refusal: the sentence with which the whole model was refused; None if it was pruned.
        stage: how far it came before that.
    """

    kind: Kind
    architecture: str
    share: float = 0.0
    refused: Mapping[str, str] = field(default_factory=dict)
    refusal: str | None = None
    stage: str = "pruned"


def tiny_model(kind: Kind) -> Any:
    """A random model of a kind, its weights large enough to be told apart."""
    config = _config(kind)
    torch.manual_seed(0)
    model = _built(kind, config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(0, 0.1)
    return model.float().eval()


def _built(kind: Kind, config: Any) -> Any:
    if kind.name in _CLASS and kind.task == "image":
        return getattr(transformers, _CLASS[kind.name])(config)
    return getattr(transformers, _AUTO[kind.task]).from_config(config)


def _config(kind: Kind) -> Any:
    usual = AutoConfig.for_model(kind.name)
    known = {*usual.to_dict(), *getattr(usual, "attribute_map", {}), "num_labels"}
    options = {name: value for name, value in kind.options.items() if name in known}
    config = AutoConfig.for_model(kind.name, **{**options, **kind.more})
    if kind.task == "image":
        config.num_labels = _LABELS
    return config


def samples_for(kind: Kind, model: nn.Module, count: int = 6) -> Samples:
    """Random samples that it takes."""
    rng = np.random.default_rng(1)
    if kind.task == "image":
        config = model.config
        size = getattr(getattr(config, "vision_config", config), "image_size", None) or 64
        height, width = size if isinstance(size, (list, tuple)) else (size, size)
        shape = (count, getattr(config, "num_channels", 3), height, width)
        images = torch.from_numpy(rng.normal(size=shape).astype(np.float32))
        return Samples(images, torch.from_numpy(rng.integers(0, _LABELS, count)))
    tokens = torch.from_numpy(rng.integers(5, _VOCABULARY, (count, _LENGTH)))
    return masked_token(tokens, 4, share=0.3) if kind.task == "masked" else next_token(tokens)


def examine(kind: Kind, folder: Path) -> Row:
    """Builds, saves, loads, prunes, saves and reloads one model.

    Raises:
        AssertionError: something was pruned and came out wrong.
    """
    with quiet_transformers():
        model = tiny_model(kind)
        architecture = type(model).__name__
        model.save_pretrained(folder / "old")
        if kind.task != "image":
            words = {f"w{i}": i for i in range(_VOCABULARY)}
            raw = Tokenizer(WordLevel(words, unk_token="w0"))  # noqa: S106 - no password
            raw.pre_tokenizer = pre_tokenizers.Whitespace()
            PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="w0").save_pretrained(  # noqa: S106
                folder / "old"
            )
    stage = "loading"
    try:
        loaded = load_model(str(folder / "old"))
        samples = samples_for(kind, loaded.model)
        stage = "before anything is pruned"
        run = Pruner(
            loaded, samples[:4], solver="greedy", heldout=samples[4:], density=0.5, batch_size=2,
            block_size=16, damping=1.0, progress=False,
        )  # fmt: skip
        share = run.coverage.share
        stage = "pruning"
        run.run(1)
    except IcbsError as error:
        reason = str(error).replace(str(folder / "old"), kind.name)
        return Row(kind, architecture, refusal=reason, stage=stage)
    save_model(loaded, folder / "new")
    again = load_model(str(folder / "new"))
    layers = prunable_layers(again.model)
    for name, mask in run.masks.items():
        kept = layer_weight(layers[name]) != 0
        if not torch.equal(kept, mask) or int(mask.sum()) != round(0.5 * mask.numel()):
            raise AssertionError(f"{kind.id}: the mask of {name} did not come back")
    with torch.no_grad():
        one, other = (m(**samples.arguments(m)).logits for m in (loaded.model, again.model))
    torch.testing.assert_close(one, other)
    return Row(kind, architecture, share, run.refused)


@dataclass(frozen=True)
class Shares:
    """What is under pruning in the default configuration.

    Attributes:
        matrices: share of the matrix weights.
        weights: share of all weights.
        dense: shares of the matrix weights that are in no layer, by what they are.
    """

    matrices: float
    weights: float
    dense: Mapping[str, float]


def full_size(row: Row) -> Shares | None:
    """What is pruned of the kind's default configuration.

    None if the kind is refused, or if its default configuration is none that can be built.
    """
    if row.refusal is not None:
        return None
    try:
        with quiet_transformers(), torch.device("meta"):
            model = _built(
                row.kind, AutoConfig.for_model(row.kind.name, **_switches(row.kind.more))
            )
    # Whatever transformers runs into.
    except Exception:
        return None
    out = {re.sub(r"\d+", "#", name): reason for name, reason in row.refused.items()}
    layers, refused = {}, {}
    for name, layer in prunable_layers(model).items():
        reason = out.get(re.sub(r"\d+", "#", name))
        if reason is None:
            layers[name] = layer
        else:
            refused[name] = reason
    found = coverage(model, layers, refused)
    dense = {
        part.reason: part.weights / found.matrices
        for part in found.left
        if part.reason not in (*NO_MATRIX, *refused.values())
    }
    return Shares(found.share, found.chosen / found.weights, dense)


def _switches(more: Mapping[str, Any]) -> dict[str, Any]:
    """What a kind is switched to, which is part of it; sizes and lists of layers are not."""
    found = {k: v for k, v in more.items() if isinstance(v, (bool, str, float))}
    inside = {k: _switches(v) for k, v in more.items() if isinstance(v, Mapping)}
    return found | {k: v for k, v in inside.items() if v}


def table(rows: list[tuple[Row, Shares | None]]) -> str:
    """The page."""
    pruned = [row for row, _ in rows if row.refusal is None]
    lines = [
        "# Kinds of models",
        "",
        "Made by `python -m experiments.scripts.families`, which builds a tiny random model of "
        "each kind, prunes it by the loop, saves and reloads it. *Pruned* means: every mask "
        "exact before and after, equal logits after reloading. Everything else is refused in "
        "the sentence that is given, before anything slow runs. Shares are those of the kind's "
        "default configuration: of the weights of all matrices and kernels, embeddings and "
        "heads left out, and of all weights; none where transformers builds no model from that "
        "configuration. Left dense are the layers that are named, and what is no linear layer, "
        "with its share of the matrix weights.",
        "",
        f"{len(rows)} kinds with transformers {transformers.__version__}: {len(pruned)} are pruned "
        f"({sum(not row.refused for row in pruned)} of them in every linear layer), "
        f"{len(rows) - len(pruned)} refused.",
        "",
        "| kind | class | what happens | matrix weights | all weights | left dense, or why not |",
        "|---|---|---|---|---|---|",
    ]
    for row, shares in rows:
        said = "pruned" if row.refusal is None else "refused"
        numbers = ("", "")
        if shares is not None:
            numbers = (f"{shares.matrices:.1%}", f"{shares.weights:.1%}")
        why = row.refusal or _said(row.refused, shares)
        lines.append(
            f"| {row.kind.name} | {row.architecture} | {said} | {numbers[0]} | {numbers[1]} | "
            f"{why.replace('|', '/')} |"
        )
    return "\n".join(lines) + "\n"


def _said(refused: Mapping[str, str], shares: Shares | None) -> str:
    """Layers of one reason and one place in the block, once; then what is no layer."""
    places = {re.sub(r"\d+", "#", name): reason for name, reason in refused.items()}
    dense = {} if shares is None else shares.dense
    return "; ".join(
        [f"`{name}` {reason}" for name, reason in places.items()]
        + [f"{share:.1%} {reason}" for reason, share in dense.items() if share >= _WORTH_SAYING]
    )


def main() -> None:
    """Writes the page; one line a kind on stderr. Kinds that come out wrong end it, after all."""
    rows, wrong = [], []
    for kind in kinds():
        with tempfile.TemporaryDirectory() as folder:
            try:
                row = examine(kind, Path(folder))
            except AssertionError as error:
                wrong.append(f"{kind.id}: {error}")
                continue
        shares = full_size(row)
        gc.collect()
        print(f"{kind.id}: {row.refusal or 'pruned'} {shares or ''}", file=sys.stderr)
        rows.append((row, shares))
    _PAGE.write_text(table(rows), encoding="utf-8")
    print(_PAGE)
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
