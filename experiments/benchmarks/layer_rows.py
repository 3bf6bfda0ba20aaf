"""All rows of a model at once: swaps, seconds and share of the memory's bandwidth.

Every layer of SmolLM2 with H of calibration windows in the trained model, from Wanda's masks at
density 0.5, layer after layer. Forward passes are timed apart. The traffic of a swap is what it
must move at the least: two rows of H that the fields change by, one that the partners are chosen
by, and the fields read and written; it is set against a copy of a large array, on as many threads.

    python -m experiments.benchmarks.layer_rows --out results/solvers/layer-rows.csv
"""

from __future__ import annotations

import argparse
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.progress import cell_progress
from icbs.blocks.layers import prune_layers
from icbs.blocks.moments import input_moments
from icbs.data.loading import load_samples
from icbs.models.loading import load_model
from icbs.models.prunable import prunable_layers
from icbs.settings import Settings
from solvers.search.rows import row_errors, search_rows

WINDOWS, LENGTH = 64, 256
# Rows of d numbers that a swap reads or writes.
TRAFFIC = 5


def bandwidth(threads: int) -> float:
    """Bytes a second, read and written, of copies of 256 MB on so many threads; the best of 5."""
    parts = [(np.ones(2**25 // threads), np.empty(2**25 // threads)) for _ in range(threads)]
    seconds = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(5):
            start = time.perf_counter()
            list(pool.map(lambda pair: np.copyto(pair[1], pair[0]), parts))
            seconds.append(time.perf_counter() - start)
    return 2 * 8 * 2**25 / min(seconds)


def main() -> None:
    """A line a layer, and all together."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--layers", default="*", help="globs (default all)")
    parser.add_argument("--method", choices=("one-swap", "tabu"), default="one-swap")
    parser.add_argument("--iterations", type=int, default=1, help="of tabu, in units of d a row")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    loaded = load_model(given.model)
    chosen = prunable_layers(loaded.model, given.layers)
    samples = load_samples(loaded, count=WINDOWS, length=LENGTH)
    start = time.perf_counter()
    moments = input_moments(loaded.model, chosen, samples)
    print(f"H of {len(chosen)} layers: {time.perf_counter() - start:.1f} s")
    settings = Settings(batch_size=len(samples))
    masks = prune_layers(loaded.model, chosen, samples, settings)
    lines = []
    with cell_progress("Layers", len(masks)) as advance:
        for name, own in masks.items():
            shape = own.weight.shape
            H = moments[name].gram.astype(np.float32)
            W = own.dense.view(shape).float().numpy()
            wanda = own.pruned.view(shape).numpy()
            found = search_rows(
                H, W, wanda, method=given.method, iterations=given.iterations,
                num_threads=given.threads,
            )  # fmt: skip
            before = row_errors(H, W, wanda).sum()
            lines.append(
                {
                    "layer": name, "rows": shape[0], "d": shape[1], "method": given.method,
                    "iterations": given.iterations if given.method == "tabu" else 0,
                    "swaps": found.swaps, "seconds": found.seconds,
                    "error_of_wandas": found.errors.sum() / before, "threads": given.threads,
                    "load": os.getloadavg()[0],
                }
            )  # fmt: skip
            advance()
    table = pd.DataFrame(lines)
    seconds, swaps = table["seconds"].sum(), int(table["swaps"].sum())
    moved = float((table["swaps"] * table["d"]).sum()) * TRAFFIC * 4 / seconds
    share = moved / bandwidth(given.threads)
    print(
        f"{given.method}: {table['rows'].sum():,} rows, {swaps:,} swaps, {seconds:.1f} s, "
        f"{swaps / seconds / 1e6:.2f} M swaps/s, {moved / 1e9:.1f} GB/s, {100 * share:.0f} % of a "
        f"copy's bandwidth; mean error {table['error_of_wandas'].mean():.3f} of Wanda's; load "
        f"{table['load'].median():.1f}"
    )
    if given.out:
        table.to_csv(given.out, index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
