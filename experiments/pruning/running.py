"""A whole pruning run: first mask, steps, repair, tuning, evaluation; every result in one folder.

``OUT`` gets

* ``model/``: the pruned model, as ``from_pretrained`` of transformers loads it;
* ``masks.safetensors``: the masks apart (see `icbs.loop.pruned`);
* ``checkpoint.safetensors``: the state after the last step, for ``--resume``;
* ``run.sqlite``: tables ``steps`` and ``tuning`` (one row a step) and ``quality`` (one row a state
  and data set);
* ``summary.json``, and ``curve.pdf``, ``.svg``, ``.png``: held-out loss against seconds.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import nn

from experiments.figures import palette
from experiments.store.database import APPLIED, Store
from icbs.data.samples import Samples
from icbs.errors import OutputError
from icbs.evaluation.quality import evaluate, worse_than_guessing
from icbs.loop.pruned import save_masks
from icbs.loop.pruner import Pruner
from icbs.loop.records import STAGES, StepRecord
from icbs.loop.tuning import TuningStep
from icbs.models.coverage import already_sparse, densities
from icbs.models.experts import unreached
from icbs.models.loading import LoadedModel
from icbs.models.saving import round_weights, save_model
from icbs.models.tasks import TASKS
from icbs.progress import say, stage


@dataclass(frozen=True)
class Data:
    """What a run learns from and is judged by.

    Attributes:
        calibration: samples that the steps learn from.
        heldout: samples of the gate, disjoint from these.
        evaluation: data sets that no step and no gate ever sees, by name.
    """

    calibration: Samples
    heldout: Samples
    evaluation: Mapping[str, Samples]


def prune(
    loaded: LoadedModel,
    data: Data,
    out: Path,
    *,
    steps: int,
    time_limit: float | None = None,
    resume: bool = False,
    repair: bool = False,
    tune: int = 0,
    labels: float = 0.0,
    on_step: Callable[[StepRecord], None] | None = None,
    progress: bool = True,
    **options: Any,
) -> dict[str, Any]:
    """Prunes the model, whose weights are changed in place, and writes everything to a folder.

    Args:
        loaded: the model.
        data: calibration, held-out and evaluation samples.
        out: an existing folder.
        steps: steps in all, those of a resumed run included.
        time_limit: seconds for the steps of this call; the rest comes after it.
        resume: go on from the checkpoint in the folder.
        repair: fit the kept weights to the dense layers' outputs at the end.
        tune: steps of moving the kept weights towards the dense model's predictions after that; a
            run that is stopped in here does them all again.
        labels: share of the labels in what the weights are tuned to.
        on_step: called with every record.
        progress: show what goes on.
        **options: of `icbs.loop.pruner.Pruner`: layers, solver, density, fisher, ...

    Returns:
        The summary, JSON values.

    Raises:
        OutputError: the folder holds a run and `resume` is False.
        IcbsError: see `icbs.loop.pruner.Pruner`.
    """
    checkpoint = out / "checkpoint.safetensors"
    if checkpoint.exists() and not resume:
        raise OutputError(
            f"{out} holds a pruning run: pass --resume to go on with it, or choose another folder"
        )
    # Before anything slow: it refuses what cannot be pruned.
    pruner = Pruner(loaded, data.calibration, heldout=data.heldout, progress=progress, **options)
    judge = Judge(loaded, data.evaluation, progress, pruner.modules)
    covered = pruner.coverage
    notes = [*loaded.warnings, *filter(None, (already_sparse(loaded.model),))]
    for note in (covered.describe(), *notes):
        say(note, show=progress)
    with Store(out / "run.sqlite", create=True) as store:

        def keep(record: StepRecord) -> None:
            store.put_table(APPLIED, steps_table(pruner.steps))
            if on_step is not None:
                on_step(record)

        pruner.on_step = keep
        judge.measure("dense", 0.0)
        notes += judge.doubts()
        start = time.perf_counter()
        pruner.initialise()
        seconds = {"initialise": time.perf_counter() - start}
        if pruner.unreached:
            notes.append(unreached(pruner.unreached))
            say(notes[-1], show=progress)
        judge.measure(f"first mask ({pruner.settings.init})", seconds["initialise"])
        pruner.run(steps, time_limit=time_limit, checkpoint=checkpoint)
        table = steps_table(pruner.steps)
        store.put_table(APPLIED, table)
        seconds |= {name: float(table[f"seconds_{name}"].sum()) for name in STAGES}
        if len(table):
            judge.measure(f"{len(table)} iCBS steps", sum(seconds.values()))
        if repair:
            start = time.perf_counter()
            repaired = pruner.refit()
            round_weights(loaded, pruner.weights)
            seconds["repair"] = time.perf_counter() - start
            state = "after repair" if repaired else "repair refused by the gate"
            judge.measure(state, sum(seconds.values()))
        tuned: tuple[TuningStep, ...] = ()
        if tune:
            start = time.perf_counter()
            tuned = pruner.tune(tune, labels=labels)
            round_weights(loaded, pruner.weights)
            seconds["tune"] = time.perf_counter() - start
            store.put_table("tuning", pd.DataFrame([asdict(record) for record in tuned]))
            judge.measure(f"after {tune} steps of tuning", sum(seconds.values()))
        store.put_table("quality", pd.DataFrame(judge.rows))
    save_masks(
        out / "masks.safetensors", pruner.masks, {"model": loaded.name, "revision": loaded.revision}
    )
    with stage(f"Writing {out / 'model'}", show=progress):
        needed = save_model(loaded, out / "model")
    notes += [] if needed is None else [needed]
    summary = {
        **_summary(loaded, pruner, judge.rows, seconds, tune, labels),
        "calibration": _amount(data.calibration),
        "heldout": _amount(data.heldout),
        "coverage": covered.to_json(),
        "notes": notes,
    }
    palette.save(curve(pruner.steps, seconds["initialise"], summary, tuned), out, "curve")
    # Last and in one step, so that a summary says that all the rest is there.
    partial = out / "summary.json.partial"
    partial.write_text(json.dumps(summary, indent=2) + "\n")
    partial.replace(out / "summary.json")
    return summary


def _amount(samples: Samples) -> dict[str, int | None]:
    if samples.is_images:
        return {"samples": len(samples), "length": None, "tokens": None}
    tokens = samples.inputs.numel() if samples.mask is None else int(samples.mask.sum())
    return {"samples": len(samples), "length": samples.positions, "tokens": tokens}


class Judge:
    """Measures the model as it is, state by state."""

    def __init__(
        self,
        loaded: LoadedModel,
        evaluation: Mapping[str, Samples],
        progress: bool,
        layers: Mapping[str, nn.Module] | None = None,
    ) -> None:
        self.loaded, self.evaluation, self.progress = loaded, evaluation, progress
        self.layers = layers
        self.rows: list[dict[str, Any]] = []

    def refuse(self, state: str, reason: str) -> None:
        """One row a data set for a state that there is not."""
        for name in self.evaluation:
            self.rows.append(
                {"state": state, "data": name, "loss": None, "perplexity": None, "accuracy": None,
                 "seconds": None, "touched": None, "accepted": None, "refused": reason}
            )  # fmt: skip

    def doubts(self) -> list[str]:
        """Warnings about what was measured so far, each also shown."""
        found = [
            f"{row['state']} on {row['data']}: {doubt}"
            for row in self.rows
            if row["loss"] is not None
            and (doubt := worse_than_guessing(self.loaded.model, row["loss"])) is not None
        ]
        for doubt in found:
            say(doubt, show=self.progress)
        return found

    def measure(self, state: str, seconds: float, more: Mapping[str, Any] | None = None) -> None:
        """One row a data set; `seconds` is what it took to come to this state.

        Args:
            state: what the model is like now.
            seconds: of pruning.
            more: columns of every row.
        """
        task = TASKS[self.loaded.task]
        found_density = densities(self.loaded.model, self.layers) if self.evaluation else None
        for name, samples in self.evaluation.items():
            title = f"Evaluating on {name}: {state}"
            found = evaluate(
                self.loaded.model,
                samples,
                batch_size=task.evaluation_batch,
                progress=self.progress,
                title=title,
            )
            text = task.perplexity and math.isfinite(found.perplexity)
            self.rows.append(
                {
                    "state": state,
                    "data": name,
                    "split": "evaluation",
                    "samples": len(samples),
                    "length": None if samples.is_images else samples.positions,
                    "targets": found.targets,
                    "loss": found.loss,
                    "perplexity": found.perplexity if text else None,
                    "accuracy": found.accuracy,
                    "seconds": seconds,
                    "layer_density": found_density and found_density.layers,
                    "model_density": found_density and found_density.model,
                    **(more or {}),
                }
            )


def steps_table(steps: Sequence[StepRecord]) -> pd.DataFrame:
    """One row a step: loss changes predicted and measured, swaps, what the gate said, seconds."""
    columns = (
        *("step", "loss_before", "loss_after", "heldout_before", "heldout_after", "share"),
        *("ridge", "density", "touched", "predicted", "measured", "swaps", "offered"),
        "accepted",
    )
    rows = [
        {name: getattr(record, name) for name in columns}
        | {f"seconds_{name}": record.seconds[name] for name in STAGES}
        for record in steps
    ]
    return pd.DataFrame(rows, columns=[*columns, *(f"seconds_{name}" for name in STAGES)])


def _summary(
    loaded: LoadedModel,
    pruner: Pruner,
    quality: list[dict[str, Any]],
    seconds: Mapping[str, float],
    tune: int,
    labels: float,
) -> dict[str, Any]:
    steps = pruner.steps
    offered = sum(record.offered for record in steps)
    return {
        "model": loaded.name,
        "revision": loaded.revision,
        "note": loaded.note,
        "data": pruner.calibration.source,
        "layers": len(pruner.layers),
        **densities(loaded.model, pruner.modules).to_json(),
        "steps": len(steps),
        "steps_undone": sum(not record.accepted for record in steps),
        "swaps": sum(record.swaps for record in steps),
        "swaps_accepted_share": sum(record.swaps for record in steps) / offered
        if offered
        else None,
        "touched": pruner.touched,
        "tuning": {"steps": tune, "labels": labels},
        "seconds": dict(seconds),
        "quality": quality,
        "settings": asdict(pruner.settings),
        "solver": getattr(pruner.solver, "name", type(pruner.solver).__name__),
    }


def curve(
    steps: Sequence[StepRecord],
    begun: float,
    summary: Mapping[str, Any],
    tuned: Sequence[TuningStep] = (),
) -> Figure:
    """Held-out calibration loss against seconds of pruning; crosses are steps the gate undid.

    Args:
        steps: records, at least none.
        begun: seconds until the first step.
        summary: names the conditions.
        tuned: records of the tuning that followed.
    """
    with palette.look():
        figure = palette.new_figure(palette.COLUMN, 2.4)
        axis = figure.subplots()
        times = begun + np.cumsum([0.0] + [sum(record.seconds.values()) for record in steps])
        states = [record.heldout_before for record in steps[:1]]
        states += [record.heldout_after for record in steps]
        losses = np.array(states, dtype=float)
        undone = [i + 1 for i, record in enumerate(steps) if not record.accepted]
        axis.plot(times[: len(losses)], losses, "o-", color="#0072B2")
        axis.plot(times[undone], losses[undone], "x", color="#D55E00", zorder=3)
        if tuned:
            start = sum(summary["seconds"].values()) - summary["seconds"]["tune"]
            at = start + np.cumsum([record.seconds for record in tuned])
            seen = [i for i, record in enumerate(tuned) if record.heldout is not None]
            values = [*losses[-1:], *(tuned[i].heldout for i in seen)]
            axis.plot([start, *at[seen]][-len(values) :], values, "s--", color="#009E73")
        share, made = summary["swaps_accepted_share"], summary["data"]
        axis.set(xlabel="seconds of pruning, evaluation not counted", xlim=(0, None))
        axis.set_ylabel("held-out loss, nats per target")
        palette.caption(
            figure,
            f"{summary['model']}, {summary['layers']} layers at density {summary['density']:.3g}, "
            f"{summary['solver']}; crosses: undone by the gate; squares: tuning; "
            f"{summary['touched']:.1%} of the weights were ever in a block"
            + ("" if share is None else f"; {share:.1%} of the swaps offered were accepted")
            + (f"; calibrated on {made}" if made else ""),
        )
    return figure
