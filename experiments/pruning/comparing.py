"""Baselines and the loop on one model: same calibration data, same evaluation, one table.

A row of ``baselines.csv`` is a method at a density on one data set; rows that are there are not run
again, so a stopped comparison goes on where it was. ``comparison.json`` beside it says how they
were made: rows made in another way are not mixed with them. Seconds are those of pruning alone.
Before the first row every method prunes the last layer, off the clock, so that nobody pays for what
a process does once: compiled kernels, thread pools, pages of memory.

``touched`` is the share of the weights that an optimisation ever decided on, ``accepted`` the share
of the swaps offered to the gate that it let through, empty where nothing was offered.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from torch import nn

from experiments.figures import palette
from experiments.figures.methods import FIRST_TUNED, LOOP, METHODS, REPAIRED, TUNED
from experiments.pruning.running import Data, Judge
from experiments.store.database import WHOLE_MODELS, Store
from experiments.study.sources import PruningSource
from experiments.warmup import warm_up
from icbs.baselines.oneshot import BASELINES, SHARED, prune_once
from icbs.blocks.probe import usable_layers
from icbs.data.loading import load_samples
from icbs.errors import IcbsError, SettingError
from icbs.loop.checkpoint import differences, fingerprint
from icbs.loop.pruner import Pruner
from icbs.models.coverage import already_sparse, coverage
from icbs.models.loading import LoadedModel, load_model
from icbs.models.prunable import layer_weight
from icbs.progress import say
from icbs.settings import Settings
from solvers import make
from solvers.clock.warmup import tiny_problems

# Methods that optimise every weight's place in the mask at once.
_WHOLE = ("cbs",)
# Methods that spend a time limit, and what part of it on steps of the loop before the tuning.
_STEPPING = {FIRST_TUNED: 0.0, TUNED: 0.4}
# Perplexities beyond this many times the dense model's are left out of the figure.
_READABLE = 10.0
# What decides whether two rows may stand in one table.
_KEYS = ["method", "density", "data"]


@dataclass(frozen=True)
class Plan:
    """How the methods are run.

    Attributes:
        steps: of the loop; it is measured after each of them.
        time_limit: seconds of the loop with its first mask, and of each method with tuning, which
            need one.
        labels: share of the labels in what weights are tuned to.
        options: of `icbs.loop.pruner.Pruner`; one-shot methods follow those of
        `icbs.baselines.oneshot.SHARED`. layers: under pruning, by name.
        progress: show what goes on.
    """

    steps: Sequence[int]
    options: Mapping[str, Any]
    layers: Mapping[str, nn.Module]
    time_limit: float | None = None
    labels: float = 0.0
    progress: bool = True

    def pruner(self, loaded: LoadedModel, data: Data, density: float, **more: Any) -> Pruner:
        """A run of the loop that has not begun."""
        options = {"progress": self.progress, **self.options, "density": density, **more}
        return Pruner(loaded, data.calibration, heldout=data.heldout, **options)


def compare(
    loaded: LoadedModel,
    data: Data,
    out: Path,
    *,
    densities: Sequence[float],
    methods: Sequence[str] = (),
    steps: int = 50,
    time_limit: float = 300.0,
    labels: float = 0.0,
    progress: bool = True,
    **options: Any,
) -> pd.DataFrame:
    """Prunes the model once a method and density and measures what is left.

    Args:
        loaded: the dense model; it is dense again at the end.
        data: calibration, held-out (for the gate) and evaluation samples.
        out: an existing folder for ``baselines.csv`` and the figure.
        densities: fractions of the weights to keep.
        methods: some of `METHODS`; all if empty.
        steps: of the loop, at the most.
        time_limit: seconds that the loop may take, and that each method with tuning takes.
        labels: share of the labels in what weights are tuned to.
        progress: show what goes on.
        **options: of `icbs.loop.pruner.Pruner`.

    Returns:
        One row a method, density and data set, the dense model first. A one-shot method that
        cannot take the model or the options has its reason in the column ``refused``.

    Raises:
        SettingError: an unknown method; rows in `out` that were made in another way.
        IcbsError: see `icbs.loop.pruner.Pruner` and `icbs.baselines.oneshot.prune_once`.
    """
    path = out / "baselines.csv"
    _check_same(loaded, data, out, steps, time_limit, labels, options)
    table = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=[*_KEYS])
    usable = usable_layers(loaded.model, options.get("layers", "*"), data.calibration)
    said = coverage(loaded.model, usable.layers, usable.refused).describe()
    for note in (said, *loaded.warnings, *filter(None, (already_sparse(loaded.model),))):
        say(note, show=progress)
    plan = Plan((steps,), options, usable.layers, time_limit, labels, progress)
    for rows in _measured(loaded, data, table, densities, methods or METHODS, plan):
        table = rows if table.empty else pd.concat([table, rows], ignore_index=True)
        table.to_csv(path, index=False, float_format="%.6g")
    palette.save(figure(table, loaded), out, "baselines")
    return table


def _check_same(
    loaded: LoadedModel, data: Data, out: Path, steps: int, time_limit: float, labels: float,
    options: Mapping[str, Any],
) -> None:  # fmt: skip
    """Writes down how the rows are made; refuses a folder whose rows were made in another way."""
    made = {
        "model": loaded.name,
        "revision": loaded.revision,
        "steps": steps,
        "time_limit": time_limit,
        "labels": labels,
        "options": dict(options),
        "calibration": fingerprint(data.calibration),
        "heldout": fingerprint(data.heldout),
        "evaluation": {name: fingerprint(samples) for name, samples in data.evaluation.items()},
    }
    path = out / "comparison.json"
    # A solver that is an object goes by its class.
    text = json.dumps(made, indent=2, default=lambda value: type(value).__name__)
    if path.exists():
        before, now = json.loads(path.read_text()), json.loads(text)
        other = [f"{name} was {old!r}, is {new!r}" for name, old, new in differences(before, now)]
        if other:
            raise SettingError(
                f"{out} holds rows of another comparison: {'; '.join(other)}. Go on with the same, "
                "or choose another folder"
            )
    path.write_text(f"{text}\n", "utf-8")


def measure(source: PruningSource, store: Store, *, progress: bool = True) -> None:
    """What a study asks for, into the table ``methods`` of its store; what is there stays.

    The table has the columns of ``baselines.csv`` and model, note and layers (their number).
    """
    known = store.table(WHOLE_MODELS)
    table = pd.DataFrame(columns=["model", *_KEYS]) if known is None else known
    own = table[table["model"] == source.model]
    methods = source.methods or [n for n in METHODS if n not in (*_WHOLE, *_STEPPING)]
    wanted = {(name, at) for name in methods for at in source.densities}
    if wanted <= set(zip(own["method"], own["density"], strict=True)):
        return
    loaded = load_model(source.model)
    samples = load_samples(loaded, count=source.count + source.heldout, length=source.length)
    test = load_samples(loaded, part="evaluation", count=source.evaluation, length=source.length)
    data = Data(samples[: source.count], samples[source.count :], {test.source: test})
    layers = usable_layers(loaded.model, source.layers, data.calibration).layers
    options = {"layers": source.layers, **source.settings}
    plan = Plan(source.steps, options, layers, progress=progress)
    for rows in _measured(loaded, data, own, source.densities, methods, plan):
        rows = rows.assign(model=source.model, note=loaded.note, layers=len(layers))
        table = rows if table.empty else pd.concat([table, rows], ignore_index=True)
        store.put_table(WHOLE_MODELS, table)


def _measured(
    loaded: LoadedModel,
    data: Data,
    known: pd.DataFrame,
    densities: Sequence[float],
    methods: Sequence[str],
    plan: Plan,
) -> Iterator[pd.DataFrame]:
    """The rows of one method and density after the other, those that are known left out."""
    for name in methods:
        if name not in METHODS:
            raise SettingError(f"method is {name!r}, expected some of {', '.join(METHODS)}")
        if name in _STEPPING and plan.time_limit is None:
            raise SettingError(f"method {name!r} needs a time limit: give one, or leave it out")
    layers = plan.layers
    dense = {name: layer_weight(layer).clone() for name, layer in layers.items()}

    def restore() -> None:
        for name, layer in layers.items():
            layer_weight(layer).data.copy_(dense[name])

    done = set(zip(known["method"], known["density"], strict=True))
    wanted = [("dense", 1.0), *((name, density) for density in densities for name in methods)]
    missing = [row for row in wanted if row not in done]
    try:
        _warm_up(loaded, data, densities[0], {name for name, _ in missing}, plan, restore)
        for method, density in missing:
            restore()
            judge = Judge(loaded, data.evaluation, plan.progress, layers)
            try:
                _run(method, loaded, data, density, judge, plan)
            except IcbsError as error:
                # The others of the table can still be compared.
                if method not in BASELINES:
                    raise
                say(f"{method} at density {density:g} is left out: {error}", show=plan.progress)
                judge.refuse(method, str(error))
            if method == "dense":
                judge.doubts()
            rows = pd.DataFrame(judge.rows).rename(columns={"state": "method"})
            yield rows.assign(density=density)
    finally:
        restore()


def _warm_up(
    loaded: LoadedModel,
    data: Data,
    density: float,
    methods: set[str],
    plan: Plan,
    restore: Callable[[], None],
) -> None:
    """Every method once on the last layer and one batch, unmeasured; weights are left pruned."""
    last = list(plan.layers)[-1]
    size = plan.options.get("batch_size", Settings().batch_size)
    size = max(size, plan.options.get("tuning_batch_size") or 0)
    few = replace(
        data, calibration=data.calibration[:size], heldout=data.heldout[:size], evaluation={}
    )
    short = replace(
        plan, steps=(1,), time_limit=1.0, options={**plan.options, "layers": last}, progress=False,
        layers={last: plan.layers[last]},
    )  # fmt: skip
    if methods & {LOOP, TUNED}:
        for tiny in tiny_problems(8, 4, dense=False):
            warm_up(make(plan.options.get("solver", "relaxation")), tiny)
    for method in sorted(methods):
        restore()
        # What cannot run says so when it is its turn.
        with suppress(*([IcbsError] if method in BASELINES else [])):
            _run(method, loaded, few, density, Judge(loaded, {}, progress=False), short)


def _run(
    method: str, loaded: LoadedModel, data: Data, density: float, judge: Judge, plan: Plan
) -> None:
    """Prunes by one method and measures each of its states."""
    start = time.perf_counter()
    if method == LOOP:
        _loop(loaded, data, density, judge, plan)
    elif method in _STEPPING:
        _tuned(method, loaded, data, density, judge, plan)
    else:
        if method != "dense":
            shared = {name: plan.options[name] for name in SHARED if name in plan.options}
            prune_once(
                method, loaded.model, plan.layers, data.calibration, density,
                progress=plan.progress, **shared,
            )  # fmt: skip
        seconds = time.perf_counter() - start
        judge.measure(method, seconds, {"touched": float(method in _WHOLE), "accepted": None})


def _loop(loaded: LoadedModel, data: Data, density: float, judge: Judge, plan: Plan) -> None:
    """The loop after some numbers of steps and after repair, and what it says of itself."""
    seconds, start = 0.0, time.perf_counter()
    pruner = plan.pruner(loaded, data, density)
    for total in sorted(plan.steps):
        left = None if plan.time_limit is None else max(0.0, plan.time_limit - seconds)
        pruner.run(total, time_limit=left)
        seconds += time.perf_counter() - start
        judge.measure(LOOP, seconds, _said(pruner))
        start = time.perf_counter()
    repaired = pruner.refit()
    seconds += time.perf_counter() - start
    judge.measure(REPAIRED, seconds, {**_said(pruner), "repair_kept": repaired})


def _tuned(
    method: str, loaded: LoadedModel, data: Data, density: float, judge: Judge, plan: Plan
) -> None:
    """A mask, the loop's steps for a part of the time, and tuning for the rest."""
    start = time.perf_counter()
    assert plan.time_limit is not None
    share = _STEPPING[method]
    pruner = plan.pruner(loaded, data, density, **({} if share else {"init": "wanda"}))
    pruner.run(max(plan.steps) if share else 0, time_limit=share * plan.time_limit)
    left = max(1e-3, plan.time_limit - (time.perf_counter() - start))
    tuned = pruner.tune(time_limit=left, labels=plan.labels)
    seconds = time.perf_counter() - start
    judge.measure(method, seconds, {**_said(pruner), "tuning_steps": len(tuned)})


def _said(pruner: Pruner) -> dict[str, Any]:
    offered = sum(record.offered for record in pruner.steps)
    return {
        "steps": len(pruner.steps),
        "touched": pruner.touched,
        "accepted": sum(record.swaps for record in pruner.steps) / offered if offered else None,
    }


def figure(table: pd.DataFrame, loaded: LoadedModel) -> Figure:
    """Perplexity or accuracy against density, a panel a data set, a line a method."""
    images = table["perplexity"].isna().all()
    column = "accuracy" if images else "perplexity"
    # What was refused has no value.
    table = table[table[column].notna()]
    sets = list(dict.fromkeys(table["data"]))
    beyond: set[str] = set()
    with palette.look():
        drawing = palette.new_figure(palette.COLUMN * max(1.2, len(sets)), 3.0)
        axes = drawing.subplots(1, len(sets), squeeze=False)[0]
        for axis, name in zip(axes, sets, strict=True):
            here = table[table["data"] == name]
            level = float(here[here["method"] == "dense"][column].iloc[0])
            axis.axhline(level, color="#333333", lw=0.8, ls=":", label="dense")
            for method, part in here[here["method"] != "dense"].groupby("method", sort=False):
                look = palette.METHOD_LOOKS[str(method)]
                ordered = part.sort_values("density")
                axis.plot(
                    ordered["density"], ordered[column], color=look.colour, marker=look.marker,
                    label=str(method),
                )  # fmt: skip
            axis.set(title=name, xlabel="density (share of weights kept)", ylabel=column)
            axis.set_xticks(sorted(set(here["density"]) - {1.0}))
            if not images:
                top = min(here[column].max(), _READABLE * level)
                beyond |= set(here[here[column] > top]["method"])
                axis.set_yscale("log")
                axis.set_ylim(0.9 * here[column].min(), 1.1 * top)
                palette.log_ticks(axis.yaxis, here[column].min(), top)
        handles, labels = axes[0].get_legend_handles_labels()
        drawing.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False)
        said = [f"{loaded.name} ({loaded.note}); all methods on the same data"]
        loop = table[table["method"].isin([LOOP, REPAIRED, TUNED])]
        for column, what in (
            ("touched", "of the weights were ever in a block of the loop"),
            ("accepted", "of the swaps it offered were accepted"),
        ):
            shares = loop[column].dropna()
            if len(shares):
                ends = dict.fromkeys(f"{share:.0%}" for share in (shares.min(), shares.max()))
                said.append(f"{' to '.join(ends)} {what}")
        if beyond:
            said.append(
                f"above {_READABLE:g} times the dense model's perplexity somewhere, and not shown "
                f"there: {', '.join(sorted(beyond))}"
            )
        palette.caption(drawing, "; ".join(said))
    return drawing
