"""From a chosen block of weights and captured gradients to a `CardinalityProblem`.

With trained weights ``w0``, current weights ``w0 + dw`` (``dw_i`` is 0 or ``-w0_i``) and
``x_i = 1`` for *prune*, a step is ``delta = -(dw + x * w0)`` and the loss is modelled as

    dL(x) = gamma * g.delta + 1/2 ||J delta||^2 + lam * ||delta||^2

with the mean gradient ``g`` and the Fisher factor ``J``. With ``A = J diag(w0)``, ``u = J dw``:

    E(x) = 1/2 ||A x||^2 + c.x + offset
    c      = -gamma * g*w0 + A'u + lam * (2*dw*w0 + w0^2)
    offset = 1/2 ||u||^2 - gamma * g.dw + lam * ||dw||^2

``lam`` may differ from weight to weight. With the true Hessian ``H`` in place of ``J'J`` the
quadratic is ``G = diag(w0) H diag(w0)`` and ``A'u`` becomes ``w0 * (H dw)``. What earlier blocks of
the same backward pass changed, ``v = J' delta'`` summed over them, adds ``v.(J delta)``, which is
``-A'v`` in ``c``.

Source: iterative Combinatorial Brain Surgeon (arXiv 2411.17796), equation for the block subproblem.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from icbs.blocks.gradients import LayerGradients
from icbs.blocks.layers import PrunedLayer
from icbs.blocks.scores import gradient
from icbs.errors import DensityError, LayerError, ModelError
from icbs.settings import Settings
from solvers.problem import CardinalityProblem, frozen

Floats = NDArray[np.float64]


def block_problem(
    J: Floats | None,
    g: Floats,
    w0: Floats,
    pruned: NDArray[np.bool_],
    *,
    hessian: Floats | None = None,
    gamma: float = 1.0,
    lam: float | Floats = 0.0,
    earlier: Floats | None = None,
    indices: NDArray[np.int64] | None = None,
    meta: Mapping[str, Any] | None = None,
    rng: np.random.Generator | None = None,
) -> CardinalityProblem:
    """The problem of a block, as in the module's docstring.

    Energies are divided by `scale`, the power of four next to the mean of ``|c|``, so that they are
    of order 1 per variable; dividing by it (and the factor by its root) loses no bit.

    Args:
        J: Fisher factor at the block's weights, shape (r, n); None with `hessian`.
        g: mean gradient, shape (n,).
        w0: trained weights, shape (n,).
        pruned: the current mask, True where the weight is 0 now, shape (n,).
        hessian: symmetric curvature in place of ``J'J``, shape (n, n).
        gamma: multiplier of the first-order part.
        lam: ridge, one number or one a weight, shape (n,).
        earlier: change of the factor's rows by other blocks, ``sum J' delta'``, shape (r,).
        indices: flat positions in the layer's weight, shape (n,).
        meta: provenance, JSON values.
        rng: puts the variables in random order; None keeps them as they are.

    Returns:
        A problem with as many ones as are pruned now; the energy of `initial` is exactly 0.

    Raises:
        ModelError: weights or gradients that are not finite.
    """
    curvature = J if hessian is None else hessian
    assert curvature is not None
    for name, values in (("weight", w0), ("gradient", g), ("curvature", curvature)):
        if not np.isfinite(values).all():
            raise ModelError(f"the block's {name} holds NaN or infinity: check the model's weights")
    dw = np.where(pruned, -w0, 0.0)
    c = -gamma * g * w0 + lam * (2 * dw * w0 + w0**2)
    if hessian is None:
        A = curvature * w0
        c += A.T @ (curvature @ dw if earlier is None else curvature @ dw - earlier)
    else:
        c += w0 * (hessian @ dw)
    typical = float(np.abs(c).mean()) if len(c) else 0.0
    root = 2.0 ** round(math.log2(typical) / 2) if typical > 0 else 1.0
    problem = CardinalityProblem(
        linear=c / root**2,
        cardinality=int(pruned.sum()),
        factor=frozen(A / root) if hessian is None else None,
        quadratic=None if hessian is None else frozen(w0[:, None] * hessian * w0 / root**2),
        scale=root**2,
        initial=pruned,
        indices=indices,
        meta=dict(meta or {}),
    )
    if rng is not None:
        problem = problem.permuted(rng)
    # Not the analytic offset, which agrees only to round-off: no move must mean no change, exactly.
    assert problem.initial is not None
    energy = float(problem.energy(problem.initial))
    return replace(problem, offset=-energy)


def select_block(
    change: torch.Tensor,
    pruned: torch.Tensor,
    free: torch.Tensor,
    n: int,
    k: int,
    *,
    layer: str = "",
) -> torch.Tensor:
    """The n weights most worth a decision: k pruned ones and n - k kept ones.

    Args:
        change: predicted change of the loss if a weight alone changed sides, or any other rank of
            how good it would be, smallest first, shape (size,).
        pruned: True where the weight is 0 now, shape (size,).
        free: True where a block may go, shape (size,).
        n: block size.
        k: how many of them are pruned now.
        layer: name for the messages.

    Returns:
        Flat positions, shape (n,): k pruned weights, then n - k kept ones.

    Raises:
        LayerError: n larger than the layer, or too few free weights on a side.
        DensityError: k outside 0..n.
    """
    if not 1 <= n <= change.numel():
        raise LayerError(
            f"block_size is {n} and layer {layer!r} has {change.numel()} weights; choose from 1 to "
            f"{change.numel()}"
        )
    if not 0 <= k <= n:
        raise DensityError(f"k is {k}, the pruned weights of a block; choose from 0 to {n}")
    parts = []
    for side, wanted, word in ((pruned, k, "pruned"), (~pruned, n - k, "kept")):
        members = (side & free).nonzero().reshape(-1)
        if len(members) < wanted:
            raise LayerError(
                f"layer {layer!r} has {len(members)} free {word} weights, a block of {n} with "
                f"k={k} needs {wanted}: lower the block size, the fixed fractions or tabu"
            )
        parts.append(members[change[members].topk(wanted, largest=False).indices])
    return torch.cat(parts)


def select_pairs(
    change: torch.Tensor,
    pruned: torch.Tensor,
    free: torch.Tensor,
    pairs: int,
    m: int,
    *,
    layer: str = "",
) -> torch.Tensor:
    """A pruned and a kept weight, its best of each, from each of the most promising groups of m.

    Args:
        change: predicted change of the loss if a weight alone changed sides, smallest first, shape
            (size,).
        pruned: True where the weight is 0 now, shape (size,).
        free: True where a block may go, shape (size,).
        pairs: how many groups.
        m: consecutive positions that are a group; divides the size.
        layer: name for the messages.

    Returns:
        Flat positions, shape (2 * pairs,): the pruned weights, then the kept ones, group by group.

    Raises:
        LayerError: too few groups with a free weight on either side.
    """
    usable = int(paired(pruned, free, m).sum())
    if not 1 <= pairs <= usable:
        raise LayerError(
            f"layer {layer!r} has {usable} groups of {m} with a free weight on either side, a "
            f"block needs {max(1, pairs)}: lower the block size, the fixed fractions or tabu"
        )
    best, promise = [], torch.zeros(len(change) // m, device=change.device)
    for side in (pruned, ~pruned):
        least = change.masked_fill(~(side & free), torch.inf).view(-1, m).min(dim=1)
        promise = promise + least.values
        best.append(least.indices)
    groups = promise.topk(pairs, largest=False).indices
    return torch.cat([groups * m + at[groups] for at in best])


def paired(pruned: torch.Tensor, free: torch.Tensor, m: int) -> torch.Tensor:
    """Groups of m with a free weight on either side, bool, shape (size / m,)."""
    sides = [(side & free).view(-1, m).any(dim=1) for side in (pruned, ~pruned)]
    return sides[0] & sides[1]


def package_versions() -> dict[str, str]:
    """Versions of the packages that shape a problem."""
    return {name: version(name) for name in ("numpy", "torch", "transformers")}


def cut_block(
    layer: PrunedLayer,
    gradients: LayerGradients,
    settings: Settings,
    rng: np.random.Generator,
    *,
    sketch: np.random.Generator | None = None,
    mean: torch.Tensor | None = None,
    hessian: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ridge: float = 1.0,
    earlier: Mapping[int, Floats] | None = None,
    meta: Mapping[str, Any] | None = None,
    on_stage: Callable[[str], None] = lambda name: None,
) -> CardinalityProblem:
    """Selects a block of the layer and builds its problem.

    Args:
        layer: where to cut.
        gradients: of the layer's current weights.
        settings: block size, curvature and the model's constants.
        rng: randomness of the selection and of the variables' order.
        sketch: randomness of the position Fisher's sketch; None takes `rng`. Blocks whose rows are
            to be compared need the same.
        mean: gradient in place of that of this batch, shape (out * in,).
        hessian: gives the true Hessian at flat positions, for ``fisher="exact"``.
        ridge: multiplies both of the settings' ridges.
        earlier: change of the rows by other blocks, by number of rows.
        meta: provenance to add.
        on_stage: called with ``select`` and ``build`` as each is done.

    Returns:
        The problem, its variables in random order, with `indices` and `initial`; its meta has
        ``build_seconds``, the wall time of selecting and building, without the backward pass.

    Raises:
        LayerError: a layer without free weights on one side.
        ModelError: weights or gradients that are not finite.
    """
    start = time.perf_counter()
    mean = gradients.mean if mean is None else mean
    dense = layer.dense.float()
    lam = torch.full_like(dense, ridge * settings.lam)
    if settings.damping:
        lam += 0.5 * ridge * settings.damping * gradients.curvature
    chosen = _select(layer, _change(layer, dense, mean, lam, settings, rng), settings)
    on_stage("select")
    J = H = None
    if settings.fisher == "exact":
        if hessian is None:
            raise ValueError("fisher='exact' needs hessian, which gives it at flat positions")
        H = hessian(chosen).double().cpu().numpy()
    else:
        rows = gradients.rows(chosen, settings.fisher, rank=settings.rank, rng=sketch or rng)
        J = rows.double().cpu().numpy()
    rank = len(chosen) if J is None else len(J)
    problem = block_problem(
        J,
        mean[chosen].double().cpu().numpy(),
        dense[chosen].double().cpu().numpy(),
        layer.pruned[chosen].cpu().numpy(),
        hessian=H,
        gamma=settings.gamma,
        lam=lam[chosen].double().cpu().numpy(),
        earlier=(earlier or {}).get(rank),
        indices=chosen.cpu().numpy(),
        meta={
            **(meta or {}),
            "layer": layer.name,
            "shape": list(layer.weight.shape),
            "density": layer.density,
            "seed": settings.seed,
            "fisher": settings.fisher,
            "gamma": settings.gamma,
            "lam": ridge * settings.lam,
            "damping": ridge * settings.damping,
            "n": len(chosen),
            "k": int(layer.pruned[chosen].sum()),
            "rank": rank,
            "versions": package_versions(),
        },
        rng=rng,
    )
    on_stage("build")
    seconds = time.perf_counter() - start
    return replace(problem, meta={**problem.meta, "build_seconds": seconds})


def _change(
    layer: PrunedLayer,
    dense: torch.Tensor,
    mean: torch.Tensor,
    lam: torch.Tensor,
    settings: Settings,
    rng: np.random.Generator,
) -> torch.Tensor:
    """How good it would be for each weight to change sides, smallest first."""
    if settings.select == "random":
        return torch.from_numpy(rng.random(layer.size, dtype=np.float32)).to(dense.device)
    if settings.select == "gradient":
        saliency = settings.gamma * gradient(dense, mean)
        return torch.where(layer.pruned, -saliency, saliency) + lam * dense.square()
    saliency = layer.saliency(settings.select)
    return torch.where(layer.pruned, -saliency, saliency)


def _select(layer: PrunedLayer, change: torch.Tensor, settings: Settings) -> torch.Tensor:
    movable = ~layer.fixed
    pruned, kept = int((movable & layer.pruned).sum()), int((movable & ~layer.pruned).sum())
    n = settings.block_variables(layer.size)
    if layer.m is not None:
        return _select_pairs(layer, change, movable, n // 2, layer.m)
    k = settings.pruned_in(n, layer.density)
    if settings.k is None and n <= layer.size:
        k, n = min(k, pruned), min(k, pruned) + min(n - k, kept)
    while True:
        free = movable & ~layer.tabu.active
        enough = (
            int((free & layer.pruned).sum()) >= k and int((free & ~layer.pruned).sum()) >= n - k
        )
        # A side that ran dry takes back what was tabu longest.
        if enough or n > layer.size or not layer.tabu.release():
            return select_block(change, layer.pruned, free, n, k, layer=layer.name)


def _select_pairs(
    layer: PrunedLayer, change: torch.Tensor, movable: torch.Tensor, pairs: int, m: int
) -> torch.Tensor:
    pairs = min(max(1, pairs), int(paired(layer.pruned, movable, m).sum()))
    while True:
        free = movable & ~layer.tabu.active
        enough = int(paired(layer.pruned, free, m).sum()) >= pairs
        if enough or not layer.tabu.release():
            return select_pairs(change, layer.pruned, free, pairs, m, layer=layer.name)
