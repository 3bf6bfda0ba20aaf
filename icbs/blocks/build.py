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
from icbs.blocks.selection import select
from icbs.errors import ModelError
from icbs.settings import Settings
from solvers.arrays import frozen
from solvers.problem import CardinalityProblem

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
    lam = _ridge(layer, gradients, settings, ridge)
    chosen = select(layer, layer.dense.float(), mean, lam, settings, rng)
    on_stage("select")
    J, H = _curvature(chosen, gradients, settings, sketch or rng, hessian)
    rank = len(chosen) if J is None else len(J)
    problem = block_problem(
        J,
        mean[chosen].double().cpu().numpy(),
        layer.dense[chosen].double().cpu().numpy(),
        layer.pruned[chosen].cpu().numpy(),
        hessian=H,
        gamma=settings.gamma,
        lam=lam[chosen].double().cpu().numpy(),
        earlier=(earlier or {}).get(rank),
        indices=chosen.cpu().numpy(),
        meta={
            **(meta or {}),
            "kind": "loss",
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


def row_loss(
    layer: PrunedLayer,
    gradients: LayerGradients,
    row: int,
    settings: Settings,
    rng: np.random.Generator,
) -> CardinalityProblem:
    """The loss block of one row of a layer, its variables in the order of the inputs.

    Args:
        layer: the layer.
        gradients: of the layer's current weights.
        row: which output.
        settings: curvature and the model's constants.
        rng: randomness of a sketch.

    Raises:
        ModelError: weights or gradients that are not finite.
    """
    width = layer.weight.shape[1]
    chosen = torch.arange(row * width, (row + 1) * width, device=layer.dense.device)
    J, _ = _curvature(chosen, gradients, settings, rng, None)
    return block_problem(
        J,
        gradients.mean[chosen].double().cpu().numpy(),
        layer.dense[chosen].double().cpu().numpy(),
        layer.pruned[chosen].cpu().numpy(),
        gamma=settings.gamma,
        lam=_ridge(layer, gradients, settings)[chosen].double().cpu().numpy(),
    )


def _ridge(
    layer: PrunedLayer, gradients: LayerGradients, settings: Settings, ridge: float = 1.0
) -> torch.Tensor:
    """The ridge on each weight's step, shape (out * in,)."""
    lam = torch.full_like(layer.dense.float(), ridge * settings.lam)
    if settings.damping:
        lam += 0.5 * ridge * settings.damping * gradients.curvature
    return lam


def _curvature(
    chosen: torch.Tensor,
    gradients: LayerGradients,
    settings: Settings,
    rng: np.random.Generator,
    hessian: Callable[[torch.Tensor], torch.Tensor] | None,
) -> tuple[Floats | None, Floats | None]:
    """Factor or true Hessian at the chosen weights, the other is None."""
    if settings.fisher != "exact":
        rows = gradients.rows(chosen, settings.fisher, rank=settings.rank, rng=rng)
        return rows.double().cpu().numpy(), None
    if hessian is None:
        raise ValueError("fisher is 'exact' and hessian is None; give a function of positions")
    return None, hessian(chosen).double().cpu().numpy()
