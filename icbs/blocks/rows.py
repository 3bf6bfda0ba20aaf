"""Row blocks: how much of one output of a layer a mask loses.

For one output o of a linear layer with weights w and inputs X (N x d), ``H = X'X / N`` and
``x_i = 1`` for *prune*, the error of the output is

    e(x) = ||X (w*x)||^2 / N = x' D H D x,    D = diag(w)

exact, positive semidefinite, with no linear term. `scale` is the output's power ``p = w'Hw``, so
that ``E(x) = e(x) / p`` is the share of the output that is lost. Variants:

sequential: the model before the layer is pruned and gives Y instead of X, and the output wanted is
    still that of the trained model: ``e(x) = ||Xw - Y(w*(1-x))||^2 / N``.
loss-weighted: position t counts as ``d_to^2``, d the gradient of the loss with respect to the
    output: H is the token Fisher of the row.
shrinkage a: ``H <- (1-a) H + a diag(H)``; at 1 the best mask is Wanda's.
mix lam: ``(1-lam) E_row + lam t E_loss``, with E_loss the row's loss block (`icbs.blocks.build`)
    without its ridge and t the ratio of the traces of the two quadratics (MOONSHOT, arXiv
    2604.13287).

Sources: the objective is that of layer-wise pruning (Optimal Brain Surgeon's layer-wise form,
SparseGPT arXiv 2301.00774, Wanda arXiv 2306.11695).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icbs.blocks.moments import Moments
from icbs.errors import DensityError, LayerError, ModelError
from icbs.patterns import parse_pattern
from solvers.arrays import frozen
from solvers.problem import CardinalityProblem

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def shrunk(H: Floats, shrinkage: float) -> Floats:
    """``(1-a) H + a diag(H)``."""
    result: Floats = (1 - shrinkage) * H
    np.fill_diagonal(result, np.diag(H))
    return result


def row_problem(
    moments: Moments,
    w: Floats,
    pruned: Bools,
    *,
    shrinkage: float = 0.0,
    pattern: str | None = None,
    meta: Mapping[str, Any] | None = None,
) -> CardinalityProblem:
    """The problem of one row, as in the module's docstring.

    Args:
        moments: of the layer's inputs; those with `now` give the sequential variant.
        w: trained weights of the row, shape (d,).
        pruned: the current mask, True where a weight is 0 now, shape (d,).
        shrinkage: a, from 0 to 1; the linear term of the sequential variant keeps to the inputs.
        pattern: N:M; of every M consecutive inputs N are kept. None: one budget.
        meta: provenance, JSON values.

    Returns:
        A problem of d variables in the layer's order, with as many ones as are pruned now; its
        `indices` are the inputs.

    Raises:
        LayerError: an output that is always 0, of which no share can be lost.
        ModelError: weights that are not finite.
        DensityError: a pattern that does not fit, or that the current mask does not have.
    """
    if not np.isfinite(w).all():
        raise ModelError("the row's weights hold NaN or infinity: check the model's weights")
    power = float(w @ moments.gram @ w)
    if not power > 0:
        what = "its weights are all 0" if not w.any() else "its inputs are all 0 where it looks"
        raise LayerError(f"the row's output is always 0, since {what}: choose another row")
    n = len(w)
    gram = moments.gram if moments.now is None else moments.now
    G = 2 / power * (w[:, None] * shrunk(gram, shrinkage) * w)
    linear, offset = np.zeros(n), 0.0
    if moments.now is not None and moments.cross is not None:
        # r = Xw - Yw, what is lost already: Y'r / N and r'r / N.
        missed = (moments.cross - moments.now) @ w
        linear = 2 / power * w * missed
        offset = float(w @ (moments.gram - moments.cross) @ w - w @ missed) / power
    groups, ones = _pattern_groups(pattern, pruned)
    return CardinalityProblem(
        linear=linear,
        cardinality=int(pruned.sum()),
        quadratic=frozen((G + G.T) / 2),
        offset=offset,
        scale=power,
        initial=pruned,
        indices=np.arange(n),
        groups=groups,
        cardinalities=ones,
        meta=dict(meta or {}),
    )


def mixed(row: CardinalityProblem, loss: CardinalityProblem, lam: float) -> CardinalityProblem:
    """``(1-lam) E_row + lam t E_loss`` with t = tr G_row / tr G_loss.

    Args:
        row: a row's problem.
        loss: the loss block of the same variables in the same order.
        lam: from 0, the row's problem, to 1, the loss block in other units.

    Raises:
        LayerError: a loss block without curvature.
    """
    trace = float(loss.diagonal.sum())
    if not trace > 0:
        raise LayerError("the row has no influence on the loss: choose another row or lam=0")
    t = float(row.diagonal.sum()) / trace
    return replace(
        row,
        linear=(1 - lam) * row.linear + lam * t * loss.linear,
        quadratic=frozen((1 - lam) * row.gram() + lam * t * loss.gram()),
        offset=(1 - lam) * row.offset + lam * t * loss.offset,
        meta={**row.meta, "lam": lam, "loss_scale": t / loss.scale},
    )


def joined(rows: Sequence[CardinalityProblem], *, one_budget: bool) -> CardinalityProblem:
    """Several rows of a layer as one block: the share of their power together that is lost.

    Args:
        rows: problems of rows with the same number of variables d.
        one_budget: the rows share their number of ones; else each row, or each group of its
            pattern, is a group of the block.

    Returns:
        A problem of ``len(rows) * d`` variables, row after row; `indices` are flat positions in
        the layer's weight if the rows' meta say which they are.

    Raises:
        DensityError: rows of a pattern with one budget.
    """
    if one_budget and any(row.groups is not None for row in rows):
        raise DensityError(
            "one_budget is True and the rows have a pattern, which fixes the budget of every "
            "group; leave one of them out"
        )
    d, power = rows[0].n, sum(row.scale for row in rows)
    G = np.zeros((d * len(rows), d * len(rows)))
    for r, row in enumerate(rows):
        G[r * d : (r + 1) * d, r * d : (r + 1) * d] = row.gram() * (row.scale / power)
    labels, ones, count = [], [], 0
    for row in rows:
        labels.append(row.group_labels + count)
        ones.append(row.group_ones)
        count += row.num_groups
    initial = [row.initial for row in rows if row.initial is not None]
    positions = [row.indices for row in rows if row.indices is not None]
    places = [int(row.meta.get("row", r)) for r, row in enumerate(rows)]
    return CardinalityProblem(
        linear=np.concatenate([row.linear * (row.scale / power) for row in rows]),
        cardinality=sum(row.cardinality for row in rows),
        quadratic=frozen(G),
        offset=sum(row.offset * row.scale for row in rows) / power,
        scale=power,
        initial=np.concatenate(initial) if len(initial) == len(rows) else None,
        indices=np.concatenate([o * d + i for o, i in zip(places, positions, strict=True)]),
        groups=None if one_budget else np.concatenate(labels),
        cardinalities=None if one_budget else np.concatenate(ones),
        meta={**rows[0].meta, "row": places, "budget": "layer" if one_budget else "row"},
    )


def _pattern_groups(
    pattern: str | None, pruned: Bools
) -> tuple[NDArray[np.int64] | None, NDArray[np.int64] | None]:
    """Groups of M consecutive inputs and the pruned weights of each."""
    if pattern is None:
        return None, None
    keep, m = parse_pattern(pattern)
    if len(pruned) % m:
        raise DensityError(
            f"pattern {pattern} does not fit a row of {len(pruned)} inputs: choose an M that "
            "divides it"
        )
    counts = pruned.reshape(-1, m).sum(1)
    if (counts != m - keep).any():
        g = int(np.flatnonzero(counts != m - keep)[0])
        raise DensityError(
            f"the current mask keeps {m - counts[g]} of inputs {g * m}..{g * m + m - 1}, and "
            f"pattern {pattern} keeps {keep}: start from a mask of that pattern"
        )
    return np.arange(len(pruned)) // m, counts.astype(np.int64)
