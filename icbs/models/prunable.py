"""Which layers of a model can be pruned, and their weights as (out, in) whatever they store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from icbs.blocks.positions import is_pointwise
from icbs.errors import LayerError
from icbs.models.experts import ExpertLinear, expert_layers, stacks_of
from icbs.patterns import matching


def layer_weight(layer: nn.Module) -> torch.Tensor:
    """The live weight of a prunable layer as (out, in), detached; writing to it changes the model.

    transformers' Conv1D and some stacks of experts store (in, out), so that the weight comes as a
    transposed view; that of a convolution over single pixels comes without their size.
    """
    weight = layer.get_parameter("weight").detach()
    return weight.T if _transposed(layer) else weight.flatten(1)


def _transposed(layer: nn.Module) -> bool:
    return isinstance(layer, Conv1D) or (isinstance(layer, ExpertLinear) and layer.transposed)


def as_stored(layer: nn.Module, values: torch.Tensor) -> torch.Tensor:
    """Values of shape (out, in) as a view in the shape that the layer stores."""
    return values.T if _transposed(layer) else values.view(layer.get_parameter("weight").shape)


def stored_positions(layer: nn.Module, indices: torch.Tensor) -> torch.Tensor:
    """Flat positions in (out, in) as flat positions in the array that the layer stores."""
    if not _transposed(layer):
        return indices
    outs, ins = layer_weight(layer).shape
    return indices % ins * outs + torch.div(indices, ins, rounding_mode="floor")


def prunable_layers(model: nn.Module, glob: str = "*") -> dict[str, nn.Module]:
    """The linear layers whose names match, in the order the model lists them.

    Linear layers are torch's Linear, transformers' Conv1D, convolutions over single pixels, and the
    matrices of routed experts, each expert's apart (see `icbs.models.experts`). Heads are never
    prunable: what lies outside a transformers model's base (`base_model`), its output embeddings,
    and any layer named ``lm_head``. Neither is a weight that several modules share, such as one
    tied to an embedding.

    Args:
        model: any torch model.
        glob: one or more shell patterns separated by commas, e.g. ``*.layers.3.mlp.*``.

    Returns:
        Layers by name; `layer_weight` gives the weight of each.

    Raises:
        LayerError: nothing matches.
    """
    layers = dict(_all_layers(model))
    if not layers:
        raise LayerError("the model has no Linear layer that could be pruned")
    chosen = matching(layers, glob, f"{len(layers)} prunable layers")
    return {name: layers[name] for name in chosen}


def _all_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    uses = Counter(id(p) for m in model.modules() for p in m.parameters(recurse=False))
    base = getattr(model, "base_model", model)
    inside = set(base.modules())
    head = getattr(model, "get_output_embeddings", lambda: None)()
    for name, module in model.named_modules():
        if module not in inside or module is head or name.rpartition(".")[2] == "lm_head":
            continue
        linear = isinstance(module, (nn.Linear, Conv1D)) or is_pointwise(module)
        if linear and uses[id(module.weight)] == 1:
            yield name, module
        elif stacks_of(module):
            for inner, layer in expert_layers(base, module):
                yield f"{name}.{inner}", layer
