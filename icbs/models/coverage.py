"""How much of a model is under pruning: what is left dense and why, and the densities reached."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from icbs.errors import DensityError, LayerError
from icbs.models.experts import parameter_of, stacks_of
from icbs.models.prunable import layer_weight, prunable_layers

# A larger share of the matrix weights left dense is said aloud before anything starts.
LARGE_SHARE = 0.05
# Below this a model counts as sparse already.
_DENSE = 0.99

IDLE = "slices of stacks that belong to no expert"
NO_MATRIX = ("embedding", "head", IDLE)
"""Reasons of weights that are not counted among those of matrices."""


@dataclass(frozen=True)
class Left:
    """Weights that are left dense for one reason.

    Attributes:
        reason: why.
        weights: how many.
        example: the largest of the parameters.
        parameters: how many parameters.
    """

    reason: str
    weights: int
    example: str
    parameters: int


@dataclass(frozen=True)
class Coverage:
    """What part of a model is under pruning.

    Attributes:
        weights: all parameters, shared ones once.
        matrices: weights of all matrices, stacks and kernels (parameters of two dimensions or
            more), embeddings and heads left out.
        chosen: those of the layers under pruning.
        left: the rest of the parameters of two dimensions or more by reason, most weights first.
    """

    weights: int
    matrices: int
    chosen: int
    left: tuple[Left, ...]

    @property
    def share(self) -> float:
        """Share of the matrix weights that is under pruning."""
        return self.chosen / self.matrices

    def describe(self) -> str:
        """One sentence."""
        text = (
            f"{self.share:.1%} of the matrix weights are pruned, {self.chosen / self.weights:.1%} "
            "of all weights"
        )
        parts = [
            f"{part.weights / self.weights:.1%} {part.reason} ({part.example}"
            + (f" and {part.parameters - 1} more)" if part.parameters > 1 else ")")
            for part in self.left
        ]
        if parts:
            text += f"; left dense, of all weights: {', '.join(parts)}"
        if 1 - self.share > LARGE_SHARE:
            text = f"note: {1 - self.share:.1%} of the matrix weights stay dense. {text}"
        return text

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "left": [asdict(part) for part in self.left], "share": self.share}


def coverage(
    model: nn.Module, layers: Mapping[str, nn.Module], refused: Mapping[str, str] | None = None
) -> Coverage:
    """What part of a model some of its layers are.

    Args:
        model: the model.
        layers: those under pruning, by name.
        refused: why other layers are left dense, by name.
    """
    chosen: Counter[str] = Counter()
    for name, layer in layers.items():
        chosen[parameter_of(name, layer)] += layer_weight(layer).numel()
    total, matrices = 0, 0
    found: dict[str, list[tuple[str, int]]] = {}
    reasons = _Reasons(model, refused or {})
    for name, parameter in model.named_parameters():
        total += parameter.numel()
        # Biases of experts are stacked too.
        if parameter.ndim < 2 or name.endswith("bias"):
            continue
        reason = reasons.of(name, parameter)
        idle = reasons.idle(name, parameter)
        if idle:
            found.setdefault(IDLE, []).append((name, idle))
        if reason not in NO_MATRIX:
            matrices += parameter.numel() - idle
        if chosen[name] < parameter.numel() - idle:
            found.setdefault(reason, []).append((name, parameter.numel() - idle - chosen[name]))
    left = [
        Left(reason, sum(s for _, s in parts), max(parts, key=lambda part: part[1])[0], len(parts))
        for reason, parts in found.items()
    ]
    left.sort(key=lambda part: -part.weights)
    return Coverage(total, matrices, sum(chosen.values()), tuple(left))


class _Reasons:
    """Why a parameter is left dense."""

    def __init__(self, model: nn.Module, refused: Mapping[str, str]) -> None:
        self._refused = refused
        self._prunable = {parameter_of(*named) for named in prunable_layers(model).items()}
        self._modules = dict(model.named_modules())
        self._inside = set(getattr(model, "base_model", model).modules())
        self._head = getattr(model, "get_output_embeddings", lambda: None)()
        self._uses = Counter(
            id(p) for m in self._modules.values() for p in m.parameters(recurse=False)
        )

    def of(self, name: str, parameter: torch.Tensor) -> str:
        owner, _, last = name.rpartition(".")
        module = self._modules[owner]
        if isinstance(module, nn.Embedding) or (
            not isinstance(module, (nn.Linear, nn.modules.conv._ConvNd))
            and any(word in last for word in ("embed", "token", "position"))
        ):
            return "embedding"
        if module is self._head or module not in self._inside or owner.endswith("lm_head"):
            return "head"
        if owner in self._refused:
            return self._refused[owner]
        if name in self._prunable:
            return "not chosen by the layers' globs"
        if isinstance(module, nn.modules.conv._ConvNd):
            return "convolution"
        if self._uses[id(parameter)] > 1:
            return "shared by several modules"
        if parameter.ndim == 3:
            return "stacks of matrices in a layout of their own"
        if any(word in owner.rpartition(".")[2] for word in ("gate", "router")):
            return "router of experts"
        return "parameter that no linear layer holds"

    def idle(self, name: str, parameter: torch.Tensor) -> int:
        """Weights of a stack that no input can come to."""
        owner, _, last = name.rpartition(".")
        for stack in stacks_of(self._modules[owner]):
            if stack.name == last:
                return parameter.numel() // stack.slices * (stack.slices - stack.experts)
        return 0


@dataclass(frozen=True)
class Densities:
    """Shares of weights that are not zero, counted in the model as it is.

    Attributes:
        layers: of the weights of the layers under pruning; None if there is none.
        model: of all weights, embeddings and head included.
    """

    layers: float | None
    model: float

    def to_json(self) -> dict[str, float | None]:
        """JSON values: densities and sparsities."""
        return {
            "density": self.layers,
            "sparsity": None if self.layers is None else 1 - self.layers,
            "model_density": self.model,
            "model_sparsity": 1 - self.model,
        }

    def __str__(self) -> str:
        whole = f"{self.model:.3f} ({1 - self.model:.3f}) in the whole model"
        if self.layers is None:
            return f"no linear layer; density (sparsity) {whole}"
        return (
            f"density {self.layers:.3f} (sparsity {1 - self.layers:.3f}) in the linear layers, "
            f"{whole}"
        )


def densities(model: nn.Module, layers: Mapping[str, nn.Module] | None = None) -> Densities:
    """Counts the zeros.

    Args:
        model: the model.
        layers: those under pruning; all prunable ones if None.
    """
    if layers is None:
        try:
            layers = prunable_layers(model)
        except LayerError:
            layers = {}
    weights = [layer_weight(layer) for layer in layers.values()]
    return Densities(_density(weights) if weights else None, _density(list(model.parameters())))


def _density(weights: list[torch.Tensor]) -> float:
    kept = sum(int(torch.count_nonzero(weight)) for weight in weights)
    return kept / sum(weight.numel() for weight in weights)


def already_sparse(model: nn.Module) -> str | None:
    """A warning if many prunable weights are 0 before anything is pruned; None if not."""
    found = densities(model)
    if found.layers is None or found.layers >= _DENSE:
        return None
    return (
        f"the model is sparse already: {1 - found.layers:.1%} of its prunable weights are 0; what "
        "is called dense here is that model"
    )


def check_reachable(layers: Mapping[str, nn.Module], density: float) -> None:
    """Refuses a density that the layers have already.

    Raises:
        DensityError: it is not below theirs.
    """
    found = _density([layer_weight(layer) for layer in layers.values()])
    if density >= found:
        raise DensityError(
            f"density is {density:g} (sparsity {1 - density:g}) and only {found:.4g} of the chosen "
            "layers' weights are not 0 before pruning; choose a lower density"
        )
