"""The gate over whole runs of real models: accepted states never raise the held-out loss."""

from itertools import pairwise

import pytest

from icbs.data.loading import load_samples
from icbs.loop.pruner import Pruner
from icbs.models.loading import load_model

CASES = {
    "garment-mlp": {"density": 0.1, "batch_size": 256, "block_size": 512},
    "vit-fashion": {"density": 0.3, "batch_size": 256, "block_size": 512},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_heldout_loss_never_rises_over_a_full_run(name):
    loaded = load_model(name)
    samples = load_samples(loaded, count=2048 + 512)
    run = Pruner(
        loaded, samples[:2048], heldout=samples[2048:], fisher="position", progress=False,
        **CASES[name],
    )  # fmt: skip
    records = run.run(12)
    losses = [records[0].heldout_before, *(record.heldout_after for record in records)]
    assert all(after <= before for before, after in pairwise(losses))
    assert losses[-1] < 0.95 * losses[0]
    # and what the records say is what the model is now
    assert run.gate.measure() == losses[-1]
    undone = [record for record in records if not record.accepted]
    assert all(record.heldout_after == record.heldout_before for record in undone)
