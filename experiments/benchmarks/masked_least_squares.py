"""Least squares on each row's own support: masked conjugate gradients or one Cholesky a row.

Random layers of the shapes of SmolLM2 at a density, inputs with a decaying spectrum as activations
have. Rounds are interleaved, so that a busy machine slows both alike; medians are compared, and
the error left is given relative to that of the masked weights.

    python -m experiments.benchmarks.masked_least_squares --shapes 1536x576,576x1536
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

import torch

from icbs.blocks.masks import mask_at_density
from icbs.loop.refit import masked_least_squares

# Entries of one batch of gathered matrices, 128 MB of float32.
_CHUNK = 1 << 25


def by_cholesky(
    gram: torch.Tensor, cross: torch.Tensor, start: torch.Tensor, kept: torch.Tensor, ridge: float
) -> torch.Tensor:
    """The exact answer: rows of equal support size factorised together."""
    lam = ridge * gram.diagonal().mean()
    found = torch.zeros_like(start)
    sizes = kept.sum(1)
    for size in sizes.unique().tolist():
        for rows in (sizes == size).nonzero().reshape(-1).split(max(1, _CHUNK // size**2)):
            support = kept[rows].nonzero()[:, 1].view(len(rows), size)
            H = gram[support[:, :, None], support[:, None, :]]
            H.diagonal(dim1=1, dim2=2).add_(lam)
            b = (cross[rows] + lam * start[rows]).gather(1, support)[..., None]
            w = torch.cholesky_solve(b, torch.linalg.cholesky(H))[..., 0]
            found[rows[:, None], support] = w
    return found


def main() -> None:
    """Prints seconds and error left for each shape and number of iterations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", default="1536x576,576x1536")
    parser.add_argument("--density", type=float, default=0.5)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--ridge", type=float, default=0.1)
    parser.add_argument("--iterations", default="4,8,16,32")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    for shape in given.shapes.split(","):
        outs, ins = map(int, shape.split("x"))
        generator = torch.Generator().manual_seed(0)
        spread = torch.linalg.qr(torch.randn(ins, ins, generator=generator))[0]
        scales = torch.logspace(0, -2, ins)
        X = torch.randn(given.tokens, ins, generator=generator) * scales @ spread
        W = torch.randn(outs, ins, generator=generator)
        kept = mask_at_density(W.abs() * X.norm(dim=0), given.density, "output")
        H, start = X.T @ X / len(X), W * kept
        counts = [int(count) for count in given.iterations.split(",")]
        seconds: dict[int, list[float]] = {count: [] for count in [0, *counts]}
        found = {}
        for _ in range(given.rounds):
            for count, times in seconds.items():
                begin = time.perf_counter()
                if count:
                    found[count] = masked_least_squares(
                        H, W @ H, start, kept, ridge=given.ridge, iterations=count
                    )
                else:
                    found[count] = by_cholesky(H, W @ H, start, kept, given.ridge)
                times.append(time.perf_counter() - begin)

        def error(w: torch.Tensor, W: torch.Tensor = W, H: torch.Tensor = H) -> float:
            return float(((w - W) @ H * (w - W)).sum())

        print(f"{shape}, density {given.density}, {torch.get_num_threads()} threads, "
              f"load {os.getloadavg()[0]:.1f}")  # fmt: skip
        exact = statistics.median(seconds[0])
        for count, times in seconds.items():
            label = f"{count} iterations" if count else "Cholesky"
            taken = statistics.median(times)
            print(
                f"  {label:14} {taken:8.3f} s  {exact / taken:6.1f} x"
                f"  error left {error(found[count]) / error(start):.5f}"
            )


if __name__ == "__main__":
    main()
