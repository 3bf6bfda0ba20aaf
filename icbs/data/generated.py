"""Text that the model itself writes: calibration data for who has none."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file

from icbs.blocks.capture import frozen
from icbs.errors import DataError
from icbs.fetch import cache_dir, cached
from icbs.progress import stage

if TYPE_CHECKING:
    from icbs.models.loading import LoadedModel

SELF = "self"
# Windows that are written side by side; a part of them is made again with the same words.
BATCH = 32
_FILE = "windows.safetensors"


def own_windows(loaded: LoadedModel, count: int, length: int) -> torch.Tensor:
    """Windows that the model writes, each from the start of a text, at temperature 1.

    They depend on nothing but the weights, `length` and their number, and are kept in the cache.

    Args:
        loaded: a causal language model, dense: a pruned one writes what it has not forgotten.
        count: windows, >= 1.
        length: tokens of each.

    Returns:
        Token ids, shape (count, length), int64.

    Raises:
        DataError: a model that cannot write, or has no token that texts begin with.
    """
    tokenizer = loaded.tokenizer
    start = next(
        (t for t in (tokenizer.bos_token_id, tokenizer.eos_token_id) if t is not None), None
    )
    if not getattr(loaded.model, "can_generate", lambda: False)() or start is None:
        raise DataError(
            f"model {loaded.name!r} cannot write text of its own, which the source {SELF!r} needs: "
            "give wikipedia, pydoc or a file"
        )
    folder = cache_dir() / "data" / f"self-{_fingerprint(loaded.model)}-{length}"
    batches = range(-(-count // BATCH))
    places = [folder.with_name(f"{folder.name}-{number}") for number in batches]
    missing = sum(not place.exists() for place in places)
    with stage("Writing calibration text", missing, show=missing > 0) as update:
        done = 0
        for number, place in enumerate(places):
            if not place.exists():
                cached(place, partial(_write, loaded, start, number, length))
                done += 1
                update(done)
    windows = torch.cat([load_file(place / _FILE)["windows"] for place in places])
    return windows[:count]


def _write(loaded: LoadedModel, start: int, number: int, length: int, into: Path) -> None:
    model = loaded.model
    device = next(model.parameters()).device
    first = torch.full((BATCH, 1), start, device=device)
    with torch.random.fork_rng(), frozen(model), torch.no_grad():
        torch.manual_seed(number)
        tokens = model.generate(
            first, attention_mask=torch.ones_like(first), do_sample=True, temperature=1.0,
            top_k=0, top_p=1.0, max_new_tokens=length, min_new_tokens=length,
            pad_token_id=start,
        )  # fmt: skip
    save_file({"windows": tokens[:, 1:].cpu().contiguous()}, into / _FILE)


def _fingerprint(model: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
