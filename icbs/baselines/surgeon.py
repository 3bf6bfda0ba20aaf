"""One-shot Combinatorial Brain Surgeon: one mask for all layers together, then one update.

Yu, Serra, Ramalingam and Zhe 2022 (arXiv 2203.04466). The loss near the trained weights w is

    dL(d) = 1/2 d' H d ,   H = J'J + lam I ,

with the empirical Fisher: the rows of J (r x n) are the gradients of r samples over the root of r,
of all prunable weights of the model side by side. H is never formed. The trained weights are taken
for a minimum, as in the paper: the gradient of few samples in dL makes the search find what those
samples alone would gain.

* Selection (CBS-S) minimises ``E(x) = dL(-w x)`` over masks x with k ones, by swaps that lower it.
* Update (CBS-U) moves the kept weights K: ``argmin dL(d)`` with ``d_i = -w_i`` where x_i is 1.
  With ``u = -J (w x)`` and ``b = J_K' u`` they solve ``(J_K' J_K + lam I) d_K = -b``, which
  by Woodbury's identity is ``d_K = -(b - J_K' (lam I + J_K J_K')^-1 J_K b) / lam``: one system of
  r equations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import nn

from icbs.blocks.capture import Forward, LayerCapture, capture
from icbs.blocks.gradients import LayerGradients
from icbs.data.samples import Samples
from icbs.errors import DataError, LayerError, ModelError, SettingError, memory_remedy
from icbs.evaluation.quality import evaluate
from icbs.models.prunable import layer_weight
from solvers import Budget, make
from solvers.arrays import frozen
from solvers.problem import CardinalityProblem

# Entries of the factor, 1 GB of float32: the more weights, the fewer samples. Too few say nothing.
_ENTRIES, _LEAST_ROWS = 1 << 28, 64
LARGEST = _ENTRIES // _LEAST_ROWS
"""Weights of the largest model."""
# Samples in one backward pass.
_BATCH = 64
# Ones and zeros, those that are cheapest to flip, among which swaps are looked for at a time.
_POOL = 2048
# A round of swaps that lowers the energy by less than this part of all before it is the last.
_LAST = 1e-3
RIDGES = (0.3, 1.0, 3.0)
"""Ridges that are tried, in units of the mean of the Fisher's diagonal. No one of them suits every
model and density, and what lies beyond was best nowhere that it mattered (see
`experiments.benchmarks.surgeon`)."""
# Samples that decide between the ridges, at the most, and the share of all of them.
_DECIDING, _DECIDING_SHARE = 2048, 0.2


def prune_by_surgeon(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    samples: Samples,
    density: float,
    *,
    ridges: Sequence[float] = RIDGES,
    on_share: Callable[[float], None] = lambda share: None,
) -> dict[str, torch.Tensor]:
    """Prunes all layers together; some keep more than others.

    Args:
        model: the dense model; weights are changed in place.
        layers: chosen layers by name.
        samples: calibration data.
        density: fraction of the weights to keep in all layers together.
        ridges: ``lam`` in units of the mean of the Fisher's diagonal, above 0. Of several, that
            of the least loss on some of the samples, which gradients are then not taken from.
        on_share: called with the share of the samples whose gradients are known.

    Returns:
        True where a weight is kept, shape (out, in), by layer; ``round(density * n)`` in all.

    Raises:
        SettingError: a ridge that is not above 0, or none.
        DataError: a single sample for several ridges.
        LayerError: more weights than the factor can be held for.
        ModelError: weights or a loss that are not finite.
    """
    if not ridges or not all(0 < ridge < float("inf") for ridge in ridges):
        raise SettingError(f"ridges are {list(ridges)}; choose one or more numbers above 0")
    weights = {name: layer_weight(layer) for name, layer in layers.items()}
    w = torch.cat([weight.reshape(-1).float() for weight in weights.values()])
    if not torch.isfinite(w).all():
        raise ModelError("the model has weights that are NaN or infinite")
    if len(w) > LARGEST:
        raise LayerError(
            f"{len(w):,} weights are too many for cbs, which holds all gradients of at least "
            f"{_LEAST_ROWS} samples at once: choose fewer layers, of {LARGEST:,} weights at most"
        )
    held = 0 if len(ridges) == 1 else min(_DECIDING, math.ceil(_DECIDING_SHARE * len(samples)))
    if held == len(samples):
        raise DataError(
            f"{len(samples)} sample cannot give gradients and decide between {len(ridges)} ridges: "
            "give more, or one ridge"
        )
    rows = min(len(samples) - held, _ENTRIES // len(w))
    J = fisher_factor(model, layers, samples[:rows], on_share)
    unit = float(J.square().sum() / len(w))
    count = len(w) - round(density * len(w))
    found: list[tuple[float, torch.Tensor, torch.Tensor]] = []
    for ridge in ridges:
        pruned = select(J, w, ridge * unit, count)
        updated = w + surgeon_step(J, w, ridge * unit, pruned)
        _write(weights, updated)
        loss = 0.0
        if held:
            deciding = samples[len(samples) - held :]
            loss = evaluate(model, deciding, batch_size=_BATCH, progress=False).loss
        found.append((loss, pruned, updated))
    _, pruned, updated = min(found, key=lambda one: one[0])
    _write(weights, updated)
    return {name: ~part for name, part in _by_layer(weights, pruned).items()}


def _by_layer(weights: Mapping[str, torch.Tensor], values: torch.Tensor) -> dict[str, torch.Tensor]:
    """Values of all weights side by side, shape (n,), as each layer's (out, in)."""
    parts = values.split([weight.numel() for weight in weights.values()])
    return {n: part.view_as(w) for (n, w), part in zip(weights.items(), parts, strict=True)}


def _write(weights: Mapping[str, torch.Tensor], values: torch.Tensor) -> None:
    for name, part in _by_layer(weights, values).items():
        weights[name].copy_(part)


def fisher_factor(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    samples: Samples,
    on_share: Callable[[float], None] = lambda share: None,
) -> torch.Tensor:
    """Rows of J: each sample's gradient in all layers, in their order, over the root of r.

    Returns:
        Shape (r, n), float32, on the model's device.
    """
    sizes = [layer_weight(layer).numel() for layer in layers.values()]
    starts = dict(zip(layers, np.cumsum([0, *sizes[:-1]]).tolist(), strict=True))
    device = layer_weight(next(iter(layers.values()))).device
    what = f"the gradients of {len(samples)} samples for {sum(sizes):,} weights"
    with memory_remedy(what, "choose fewer layers or give fewer calibration samples"):
        # Zeros, because an expert that a batch does not reach has no gradient.
        J = torch.zeros(len(samples), sum(sizes), device=device)
    done = 0
    for batch in samples.split(_BATCH):
        rows = J[done : done + len(batch)]

        def keep(name: str, seen: LayerCapture, rows: torch.Tensor = rows) -> None:
            found = LayerGradients(seen).per_sample
            rows[:, starts[name] : starts[name] + found.shape[1]] = found

        capture(Forward(model, layers, batch), layers, keep)
        done += len(batch)
        on_share(done / len(samples))
    return J.div_(len(samples) ** 0.5)


def select(J: torch.Tensor, w: torch.Tensor, lam: float, count: int) -> torch.Tensor:
    """The mask of CBS-S: greedy swaps from the `count` weights that alone cost least.

    Swaps are looked for among those variables that are cheapest to flip, which are chosen anew
    when none of their swaps helps any more.

    Args:
        J: factor, shape (r, n).
        w: trained weights, shape (n,).
        lam: ridge of H.
        count: weights to prune, 0 to n.

    Returns:
        True where pruned, shape (n,).
    """
    c = 0.5 * lam * w.square()
    half = 0.5 * w.square() * J.square().sum(0)
    x = torch.zeros_like(w, dtype=torch.bool)
    x[(c + half).argsort(stable=True)[:count]] = True
    descent, gained = make("descent"), 0.0
    while 0 < count < len(w):
        f = c + w * (J.T @ (J @ (w * x)))
        ones, zeros = x.nonzero()[:, 0], (~x).nonzero()[:, 0]
        pool = torch.cat(
            [
                ones[(half - f)[ones].argsort(stable=True)[:_POOL]],
                zeros[(half + f)[zeros].argsort(stable=True)[:_POOL]],
            ]
        )
        A = (J[:, pool] * w[pool]).double().cpu().numpy()
        state = x[pool].cpu().numpy()
        linear = f[pool].double().cpu().numpy() - A.T @ (A @ state)
        problem = CardinalityProblem(linear=linear, cardinality=int(state.sum()), factor=frozen(A))
        answer = descent.sample_problem(problem, budget=Budget(reads=1), initial=state)
        better = np.asarray(answer.record.sample[0], dtype=np.bool_)
        gain = float(problem.energy(state) - problem.energy(better))
        if gain > 0:
            x[pool] = torch.from_numpy(better).to(x.device)
            gained += gain
        if gain <= _LAST * gained:
            break
    return x


def surgeon_step(
    J: torch.Tensor, w: torch.Tensor, lam: float, pruned: torch.Tensor
) -> torch.Tensor:
    """The step of CBS-U, ``-w`` where pruned, shape (n,); arguments as in `select`."""
    kept = ~pruned
    u = -(J @ (w * pruned))
    b = (u @ J) * kept
    # J_K J_K' without a copy of the kept columns.
    system = (J * kept) @ J.T
    system.diagonal().add_(lam)
    solved = torch.linalg.solve(system.double(), (J @ b).double()).to(b)
    return torch.where(kept, -(b - (solved @ J) * kept) / lam, -w)
