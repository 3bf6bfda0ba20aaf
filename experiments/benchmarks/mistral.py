"""What a step of the loop would take on Mistral-7B: measured on SmolLM2, scaled by weights.

    python -m experiments.benchmarks.mistral [--out results/scaling]

A step of the loop on the last 2 (which also warms up), 8 and all 30 decoder layers of SmolLM2 (both
have Llama's layout; float32, the default settings, 16 x 128 tokens, as many held out), seconds by
stage and bytes of memory. Every stage grows with the weights it handles at a fixed number of
tokens: capture and the gate's measurement with the weights that a token passes, the others with the
weights of the chosen layers (a block is 2 % of its layer). The measured seconds a weight of the
largest run, times Mistral's 6.98 G prunable weights, are the model; the smaller runs show how far
the seconds a weight are constant.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from icbs import Pruner, load_model
from icbs.data.loading import load_samples
from icbs.loop.records import STAGES

# Decoder layers and the shapes of the linear layers in one, from the model's published config.
LAYERS = 32
SHAPES = {"q_proj": (4096, 4096), "k_proj": (1024, 4096), "v_proj": (1024, 4096),
          "o_proj": (4096, 4096), "gate_proj": (14336, 4096), "up_proj": (14336, 4096),
          "down_proj": (4096, 14336)}  # fmt: skip
WEIGHTS = LAYERS * sum(outputs * inputs for outputs, inputs in SHAPES.values())
# Weights of embedding and head, kept dense.
OTHERS = 2 * 32_000 * 4096
CHOSEN = {2: "*.2[89].*", 8: "*.2[2-9].*", 30: "*"}


def memory() -> int:
    """Bytes of this process that are in memory now."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * 4096


def measured() -> pd.DataFrame:
    """Seconds of a step by stage, and bytes a weight, by number of decoder layers."""
    rows = []
    for count, layers in CHOSEN.items():
        loaded = load_model("smollm2")
        samples = load_samples(loaded, count=32, length=128)
        before = memory()
        pruner = Pruner(loaded, samples[:16], heldout=samples[16:], layers=layers, progress=False)
        pruner.run(1)
        weights = sum(layer.size for layer in pruner.layers.values())
        rows.append({"layers": count, "weights": weights, **pruner.steps[-1].seconds,
                     "bytes_per_weight": (memory() - before) / weights})  # fmt: skip
    return pd.DataFrame(rows)


def predicted(found: pd.DataFrame) -> pd.DataFrame:
    """Mistral's step by stage, with the seconds a weight it is made from and the smaller runs'."""
    per_weight = found[list(STAGES)].div(found["weights"], axis=0)
    largest = per_weight.iloc[-1]
    return pd.DataFrame(
        {
            "stage": STAGES,
            "ns_per_weight": [1e9 * largest[stage] for stage in STAGES],
            "ns_per_weight_of_8_layers": [1e9 * per_weight.iloc[-2][stage] for stage in STAGES],
            "mistral_seconds": [WEIGHTS * largest[stage] for stage in STAGES],
            "share": [largest[stage] / largest.sum() for stage in STAGES],
        }
    )


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("results/scaling"))
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    found = measured()
    found.to_csv(out / "blocks.csv", index=False, float_format="%.4g")
    print(found.to_string())
    step = predicted(found)
    step.to_csv(out / "mistral.csv", index=False, float_format="%.4g")
    print(step.to_string())
    bytes_ = found["bytes_per_weight"].iloc[-1] * WEIGHTS + 4 * (WEIGHTS + OTHERS)
    hours = step["mistral_seconds"].sum() / 3600
    print(f"{WEIGHTS / 1e9:.2f} G weights: {hours:.2f} hours a step, {bytes_ / 1e9:.0f} GB")


if __name__ == "__main__":
    main()
