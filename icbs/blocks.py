"""From a chosen block of weights and captured gradients to a `CardinalityProblem`.

With trained weights ``w0``, current weights ``w0 + dw`` (``dw_i`` is 0 or ``-w0_i``) and
``x_i = 1`` for *prune*, a step is ``delta = -(dw + x * w0)`` and the loss is modelled as

    dL(x) = gamma * g.delta + 1/2 ||J delta||^2 + lam * ||delta||^2

with the mean gradient ``g`` and the Fisher factor ``J``. With ``A = J diag(w0)``, ``u = J dw``:

    E(x) = 1/2 ||A x||^2 + c.x + offset
    c      = -gamma * g*w0 + A'u + lam * (2*dw*w0 + w0^2)
    offset = 1/2 ||u||^2 - gamma * g.dw + lam * ||dw||^2

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

from icbs.errors import DensityError, LayerError, ModelError
from icbs.gradients import LayerGradients
from icbs.layers import PrunedLayer
from icbs.scores import gradient
from icbs.settings import Settings
from solvers.problem import CardinalityProblem

Floats = NDArray[np.float64]


def block_problem(
    J: Floats,
    g: Floats,
    w0: Floats,
    pruned: NDArray[np.bool_],
    *,
    gamma: float = 1.0,
    lam: float = 0.0,
    indices: NDArray[np.int64] | None = None,
    meta: Mapping[str, Any] | None = None,
    rng: np.random.Generator | None = None,
) -> CardinalityProblem:
    """The problem of a block, as in the module's docstring.

    Energies are divided by `scale`, the power of four next to the mean of ``|c|``, so that they are
    of order 1 per variable; dividing by it (and the factor by its root) loses no bit.

    Args:
        J: Fisher factor at the block's weights, shape (r, n).
        g: mean gradient, shape (n,).
        w0: trained weights, shape (n,).
        pruned: the incumbent, True where the weight is 0 now, shape (n,).
        gamma: multiplier of the first-order part.
        lam: ridge.
        indices: flat positions in the layer's weight, shape (n,).
        meta: provenance, JSON values.
        rng: puts the variables in random order; None keeps them as they are.

    Returns:
        A problem with as many ones as are pruned now; the energy of `initial` is exactly 0.

    Raises:
        ModelError: weights or gradients that are not finite.
    """
    for name, values in (("weight", w0), ("gradient", g), ("Fisher factor", J)):
        if not np.isfinite(values).all():
            raise ModelError(f"the block's {name} holds NaN or infinity: check the model's weights")
    dw = np.where(pruned, -w0, 0.0)
    A = J * w0
    u = J @ dw
    c = -gamma * g * w0 + A.T @ u + lam * (2 * dw * w0 + w0**2)
    typical = float(np.abs(c).mean()) if len(c) else 0.0
    root = 2.0 ** round(math.log2(typical) / 2) if typical > 0 else 1.0
    problem = CardinalityProblem(
        linear=c / root**2,
        cardinality=int(pruned.sum()),
        factor=A / root,
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
    cost: torch.Tensor, pruned: torch.Tensor, free: torch.Tensor, n: int, k: int, layer: str = ""
) -> torch.Tensor:
    """The n weights most worth a decision: k pruned ones and n - k kept ones.

    Args:
        cost: predicted loss change of pruning each weight (`scores.gradient`), shape (size,);
            reviving it is predicted to change the loss by the opposite.
        pruned: True where the weight is 0 now, shape (size,).
        free: True where a block may go, shape (size,).
        n: block size.
        k: how many of them are pruned now.
        layer: name for the messages.

    Returns:
        Flat positions, shape (n,): the k pruned weights of largest cost, whose revival promises
        most, then the n - k kept weights of smallest cost.

    Raises:
        LayerError: n larger than the layer, or too few free weights on a side.
        DensityError: k outside 0..n.
    """
    if not 1 <= n <= cost.numel():
        raise LayerError(
            f"block size {n} does not fit layer {layer!r} with {cost.numel()} weights: choose "
            f"1..{cost.numel()}"
        )
    if not 0 <= k <= n:
        raise DensityError(f"k is {k}, expected the number of pruned weights in a block, 0..{n}")
    parts = []
    for side, wanted, largest, word in (
        (pruned, k, True, "pruned"),
        (~pruned, n - k, False, "kept"),
    ):
        members = (side & free).nonzero().reshape(-1)
        if len(members) < wanted:
            raise LayerError(
                f"layer {layer!r} has {len(members)} free {word} weights, a block of {n} with "
                f"k={k} needs {wanted}: lower the block size, the fixed fractions or tabu"
            )
        parts.append(members[cost[members].topk(wanted, largest=largest).indices])
    return torch.cat(parts)


def package_versions() -> dict[str, str]:
    """Versions of the packages that shape a problem."""
    return {name: version(name) for name in ("numpy", "torch", "transformers")}


def cut_block(
    layer: PrunedLayer,
    gradients: LayerGradients,
    settings: Settings,
    rng: np.random.Generator,
    *,
    lam: float | None = None,
    meta: Mapping[str, Any] | None = None,
    on_stage: Callable[[str], None] = lambda name: None,
) -> CardinalityProblem:
    """Selects a block of the layer and builds its problem.

    Args:
        layer: where to cut.
        gradients: of the layer's current weights.
        settings: block size, curvature and the model's constants.
        rng: randomness of the sketch and of the variables' order.
        lam: ridge in place of the settings' one.
        meta: provenance to add.
        on_stage: called with ``select`` and ``build`` as each is done.

    Returns:
        The problem, its variables in random order, with `indices` and `initial`; its meta has
        ``build_seconds``, the wall time of selecting and building, without the backward pass.
    """
    start = time.perf_counter()
    n, lam = settings.block_size, settings.lam if lam is None else lam
    k = settings.pruned_in(n)
    cost = gradient(layer.dense.float(), gradients.mean)
    chosen = _select(layer, cost, n, k)
    on_stage("select")
    J = gradients.rows(chosen, settings.fisher, rank=settings.rank, rng=rng)
    problem = block_problem(
        J.double().cpu().numpy(),
        gradients.mean[chosen].double().cpu().numpy(),
        layer.dense[chosen].double().cpu().numpy(),
        layer.pruned[chosen].cpu().numpy(),
        gamma=settings.gamma,
        lam=lam,
        indices=chosen.cpu().numpy(),
        meta={
            **(meta or {}),
            "layer": layer.name,
            "shape": list(layer.weight.shape),
            "density": settings.density,
            "seed": settings.seed,
            "fisher": settings.fisher,
            "gamma": settings.gamma,
            "lam": lam,
            "n": n,
            "k": k,
            "rank": len(J),
            "versions": package_versions(),
        },
        rng=rng,
    )
    on_stage("build")
    seconds = time.perf_counter() - start
    return replace(problem, meta={**problem.meta, "build_seconds": seconds})


def _select(layer: PrunedLayer, cost: torch.Tensor, n: int, k: int) -> torch.Tensor:
    movable = ~layer.fixed
    while True:
        free = movable & ~layer.tabu.active
        enough = (
            int((free & layer.pruned).sum()) >= k and int((free & ~layer.pruned).sum()) >= n - k
        )
        # A side that ran dry takes back what was tabu longest.
        if enough or not layer.tabu.release():
            return select_block(cost, layer.pruned, free, n, k, layer.name)
