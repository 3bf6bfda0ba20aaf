"""What pruning runs leave: checkpoints and masks."""

import torch

from icbs.errors import IcbsError
from icbs.loop.checkpoint import Checkpoint, LayerState
from icbs.loop.pruned import load_masks, save_masks
from icbs.loop.records import LayerStep, StepRecord
from tests.fuzz.mutate import pick
from tests.fuzz.safefile import inner_json, rewritten
from tests.fuzz.targets import Target, written


def _checkpoint(steps, tabu):
    generator = torch.Generator().manual_seed(steps)
    shapes = {"a.up": [3, 5], "a.down": [4, 4]}
    layers = {
        name: LayerState(
            torch.rand(out * into, generator=generator) < 0.5,
            torch.rand(out * into, generator=generator) < 0.5,
            (torch.tensor([1, 3]), torch.tensor([0])) if tabu else (),
        )
        for name, (out, into) in shapes.items()
    }
    record = {"seconds": {"solve": 0.1}, "loss_before": 2.0, "loss_after": 1.9, "share": 1.0,
              "heldout_before": None, "heldout_after": None, "ridge": 1.0, "density": 0.5,
              "touched": 0.1}  # fmt: skip
    return Checkpoint(
        identity={"layers": shapes, "model": "toy", "settings": {"density": 0.5}},
        steps=tuple(
            StepRecord(step=i + 1, layers=(LayerStep("a.up", 8, 4, -0.1, 2, 3),), **record)
            for i in range(steps)
        ),
        ridge=1.0,
        heldout_loss=None if steps else 2.5,
        layers=layers,
        means={"a.up": (torch.ones(15, dtype=torch.bfloat16), 2)} if tabu else {},
    )


def _checkpoints():
    cases = [(0, False), (1, True), (2, True)]
    return [{"run": written("run", lambda p, c=case: _checkpoint(*c).save(p))} for case in cases]


def _load_checkpoint(path, out):
    state = Checkpoint.load(path)
    for name, shape in state.identity["layers"].items():
        size = shape[0] * shape[1]
        layer = state.layers[name]
        assert layer.pruned.shape == layer.touched.shape == (size,), "masks of another size"
        for block in layer.tabu:
            assert block.dtype == torch.int64, "positions that are no whole numbers"
            assert ((block >= 0) & (block < size)).all(), "positions outside the layer"
    for name, (mean, count) in state.means.items():
        rows, columns = state.identity["layers"][name]
        assert mean.shape == (rows * columns,), "a gradient of another shape"
        assert mean.dtype.is_floating_point and count >= 0, "a gradient that is none"
    for record in state.steps:
        assert str(record) and record.swaps >= 0, "a record that cannot be told"
    state.save(out / "again")
    again = Checkpoint.load(out / "again")
    assert repr(again.steps) == repr(state.steps), "other steps after a save and a load"


def _masks():
    masks = {"a.up": torch.arange(15).view(3, 5) % 2 == 0, "b": torch.ones(1, 8).bool()}
    source = {"model": "toy", "revision": "main"}
    return [
        {"masks": written("masks", lambda p: save_masks(p, masks, source))},
        {"masks": written("masks", lambda p: save_masks(p, {}, source))},
    ]


def _load_masks(path, out):
    masks = load_masks(path)
    assert all(mask.dtype == torch.bool and mask.ndim == 2 for mask in masks.values()), "no masks"
    save_masks(out / "again", masks, {})
    again = load_masks(out / "again")
    assert all(torch.equal(again[name], mask) for name, mask in masks.items()), "other masks"


def _mutated(keys):
    def mutate(rng, seeds):
        ((name, data),) = pick(rng, seeds).items()
        return {name: rewritten(rng, data, lambda rng, inside: inner_json(rng, inside, keys))}

    return mutate


TARGETS = {
    "checkpoint": Target(
        "checkpoint", _checkpoints, _mutated(("state",)), _load_checkpoint, (IcbsError,)
    ),
    "masks": Target("masks", _masks, _mutated(("shapes", "source")), _load_masks, (IcbsError,)),
}
