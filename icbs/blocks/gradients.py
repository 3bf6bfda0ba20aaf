"""Per-sample gradients of a layer at chosen weights, and the rows of its Fisher factor.

Two curvatures, both ``H = J'J`` from the same activations ``a[s,t,:]`` and output gradients
``d[s,t,:]`` (see `icbs.blocks.capture`):

* ``sequence``, the paper's: rows ``sum_t d[s,t,o] a[s,t,i] / sqrt(B)``;
* ``position``, the "expand" view of weight sharing (Eschenhagen et al. 2023, arXiv 2311.00636):
  rows ``sqrt(L/B) d[s,t,o] a[s,t,i]``, with L targets in the sample's loss (T or so for a language
  model, 1 for a classifier); rank up to B*T. A signed count-sketch (Charikar et al. 2002) to r rows
  keeps it cheap.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import torch

from icbs.blocks.capture import LayerCapture

Fisher = Literal["sequence", "position"]

# Measured on a 1536 x 576 layer with 16 x 128 tokens: below, gathering the block's entries and
# contracting is faster than one batched product for the whole layer.
CROSSOVER = 2048
# Above this many entries (1 GB of float32) the product of a layer is made sample by sample.
_WHOLE = 1 << 28
# Entries of a temporary of the position Fisher, 16 MB of float32.
_CHUNK = 1 << 22


class LayerGradients:
    """Gradients of one layer for B samples of T positions.

    Args:
        captured: what the layer saw.
    """

    def __init__(self, captured: LayerCapture) -> None:
        self._a, self._d = captured.activations, captured.gradients
        self._lengths = captured.lengths
        self._fits = len(self._a) * self._a.shape[-1] * self._d.shape[-1] <= _WHOLE

    @cached_property
    def per_sample(self) -> torch.Tensor:
        """Every gradient of every sample, ``d' a``, shape (B, out * in)."""
        return torch.bmm(self._d.transpose(1, 2), self._a).flatten(1)

    @cached_property
    def mean(self) -> torch.Tensor:
        """Gradient of the batch's mean loss with respect to the weight, shape (out * in,)."""
        if "per_sample" in self.__dict__:
            return self.per_sample.mean(0)
        product = self._d.flatten(0, 1).T @ self._a.flatten(0, 1)
        return product.reshape(-1) / len(self._a)

    @cached_property
    def curvature(self) -> torch.Tensor:
        """Diagonal of the position Fisher in Kronecker form, shape (out * in,).

        ``(1/B sum_s L_s sum_t d[s,t,o]^2) * mean a[s,t,i]^2``, the mean over positions that reach
        the loss (Martens and Grosse 2015, arXiv 1503.05671, equation 1, diagonal only).
        """
        a, d = self._a.flatten(0, 1), self._d.square()
        weights = self._lengths.to(d) / len(d)
        outputs = (d * weights[:, None, None]).sum((0, 1))
        reached = (d.sum(2) > 0).flatten().to(a)
        inputs = reached @ a.square() / reached.sum().clamp(min=1)
        return torch.outer(outputs, inputs).reshape(-1)

    def at(self, indices: torch.Tensor) -> torch.Tensor:
        """Per-sample gradients ``sum_t d[s,t,o] a[s,t,i]`` at some weights.

        Args:
            indices: flat positions in the weight, shape (n,).

        Returns:
            Shape (B, n), float32.
        """
        if self._d.shape[1] == 1:
            # One position a sample: its gradient has rank one, and no sum is to be made.
            outs, ins = self._split(indices)
            return self._d[:, 0, outs] * self._a[:, 0, ins]
        if "per_sample" in self.__dict__ or (self._fits and len(indices) >= CROSSOVER):
            return self.per_sample[:, indices]
        samples = range(len(self._a))
        if len(indices) >= CROSSOVER:
            rows = [(self._d[s].T @ self._a[s]).reshape(-1)[indices] for s in samples]
        else:
            outs, ins = self._split(indices)
            rows = [(self._d[s][:, outs] * self._a[s][:, ins]).sum(0) for s in samples]
        return torch.stack(rows)

    def rows(
        self,
        indices: torch.Tensor,
        fisher: Fisher = "sequence",
        *,
        rank: int | None = None,
        rng: np.random.Generator | None = None,
    ) -> torch.Tensor:
        """Rows of the factor J.

        Args:
            indices: flat positions in the weight, shape (n,).
            fisher: ``sequence`` or ``position``; L counts the targets in the sample's loss.
            rank: rows of the sketch of the position rows: each gets a random sign and is added to
                one of `rank` sums, dealt out evenly, which leaves the expectation of ``J'J`` as it
                is. None, or at least B*T, keeps every row. The sequence Fisher takes no notice.
            rng: randomness of the sketch; needed when there is one.

        Returns:
            Shape (r, n), float32.

        Raises:
            ValueError: an unknown fisher, a rank below 1, or a sketch without rng.
        """
        if fisher == "sequence":
            return self.at(indices) / math.sqrt(len(self._a))
        if fisher != "position":
            raise ValueError(f"fisher is {fisher!r}; choose one of {', '.join(get_args(Fisher))}")
        if rank is not None and rank < 1:
            raise ValueError(f"rank is {rank}; choose a whole number from 1, or None")
        samples, length = self._d.shape[:2]
        weights = (self._lengths.to(self._d) / samples).sqrt().repeat_interleave(length)
        a, d = self._a.flatten(0, 1), self._d.flatten(0, 1) * weights[:, None]
        count = samples * length
        buckets = np.arange(count)
        if rank is not None and rank < count:
            if rng is None:
                raise ValueError("a sketch needs rng, the source of its signs")
            buckets = rng.permutation(count) % rank
            signs = rng.choice(np.array([-1, 1], dtype=np.float32), count)
            d = d * torch.from_numpy(signs).to(d)[:, None]
            count = rank
        return self._summed(a, d, indices, torch.from_numpy(buckets).to(d.device), count)

    def _summed(
        self,
        a: torch.Tensor,
        d: torch.Tensor,
        indices: torch.Tensor,
        buckets: torch.Tensor,
        count: int,
    ) -> torch.Tensor:
        """Sums of ``d a`` by bucket, shape (count, n), a chunk of positions at a time."""
        outs, ins = self._split(indices)
        rows = d.new_zeros(count, len(indices))
        step = max(1, _CHUNK // max(1, len(indices)))
        for start in range(0, len(d), step):
            p = slice(start, start + step)
            rows.index_add_(0, buckets[p], d[p][:, outs] * a[p][:, ins])
        return rows

    def _split(self, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        width = self._a.shape[-1]
        return torch.div(indices, width, rounding_mode="floor"), indices % width
