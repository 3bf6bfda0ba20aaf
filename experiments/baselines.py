"""Baselines and the loop on one model: same calibration data, same evaluation, one table.

A row of ``baselines.csv`` is a method at a density on one data set; rows that are there are not run
again, so a stopped comparison goes on where it was. Seconds are those of pruning alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from experiments import palette
from experiments.figures import METHODS as TABLE
from experiments.palette import LOOP, REPAIRED
from experiments.pruning import Data, Judge
from experiments.sources import PruningSource
from experiments.store import Store
from icbs.baselines import BASELINES, prune_once
from icbs.data import load_samples
from icbs.errors import SettingError
from icbs.loop import Pruner
from icbs.models import LoadedModel, layer_weight, load_model, prunable_layers

METHODS = (*BASELINES, LOOP)
# What decides whether two rows may stand in one table.
_KEYS = ["method", "density", "data"]


def compare(
    loaded: LoadedModel,
    data: Data,
    out: Path,
    *,
    densities: Sequence[float],
    methods: Sequence[str] = METHODS,
    steps: int = 50,
    time_limit: float | None = None,
    progress: bool = True,
    **options: Any,
) -> pd.DataFrame:
    """Prunes the model once a method and density and measures what is left.

    Args:
        loaded: the dense model; it is dense again at the end.
        data: calibration, held-out (for the loop's gate) and evaluation samples.
        out: an existing folder for ``baselines.csv`` and the figure.
        densities: fractions of the weights to keep.
        methods: some of `METHODS`.
        steps: of the loop.
        time_limit: seconds for the loop's steps.
        progress: show what goes on.
        **options: of `icbs.loop.Pruner`.

    Returns:
        One row a method, density and data set, the dense model first.

    Raises:
        SettingError: an unknown method.
        IcbsError: see `icbs.loop.Pruner` and `icbs.baselines.prune_once`.
    """
    path = out / "baselines.csv"
    table = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=[*_KEYS])
    for rows in _measured(
        loaded, data, table, densities=densities, methods=methods, steps=(steps,),
        time_limit=time_limit, progress=progress, **options,
    ):  # fmt: skip
        table = rows if table.empty else pd.concat([table, rows], ignore_index=True)
        table.to_csv(path, index=False, float_format="%.6g")
    palette.save(figure(table, loaded), out, "baselines")
    return table


def measure(source: PruningSource, store: Store, *, progress: bool = True) -> None:
    """What a study asks for, into the table ``methods`` of its store; what is there stays.

    The table has the columns of ``baselines.csv`` and model, note and layers (their number).
    """
    known = store.table(TABLE)
    table = pd.DataFrame(columns=["model", *_KEYS]) if known is None else known
    own = table[table["model"] == source.model]
    wanted = {(name, at) for name in source.methods or METHODS for at in source.densities}
    if wanted <= set(zip(own["method"], own["density"], strict=True)):
        return
    loaded = load_model(source.model)
    samples = load_samples(loaded, count=source.count + source.heldout, length=source.length)
    test = load_samples(loaded, part="evaluation", count=source.evaluation, length=source.length)
    name = "Fashion-MNIST" if loaded.task == "image-classification" else "wikipedia"
    data = Data(samples[: source.count], samples[source.count :], {name: test})
    layers = len(prunable_layers(loaded.model, source.layers))
    for rows in _measured(
        loaded, data, own, densities=source.densities,
        methods=source.methods or METHODS, steps=source.steps, time_limit=None, progress=progress,
        layers=source.layers, **source.settings,
    ):  # fmt: skip
        rows = rows.assign(model=source.model, note=loaded.note, layers=layers)
        table = rows if table.empty else pd.concat([table, rows], ignore_index=True)
        store.put_table(TABLE, table)


def _measured(
    loaded: LoadedModel,
    data: Data,
    known: pd.DataFrame,
    *,
    densities: Sequence[float],
    methods: Sequence[str],
    steps: Sequence[int],
    time_limit: float | None,
    progress: bool,
    **options: Any,
) -> Iterator[pd.DataFrame]:
    """The rows of one method and density after the other, those that are known left out."""
    for name in methods:
        if name not in METHODS:
            raise SettingError(f"method is {name!r}, expected some of {', '.join(METHODS)}")
    layers = prunable_layers(loaded.model, options.get("layers", "*"))
    dense = {name: layer_weight(layer).clone() for name, layer in layers.items()}
    plan = [("dense", 1.0), *((name, density) for density in densities for name in methods)]
    plan = [
        (method, density)
        for method, density in plan
        if not ((known["method"] == method) & (known["density"] == density)).any()
    ]
    if any(method == LOOP for method, _ in plan):
        _warm_up(loaded, data, densities[0], options)
    for method, density in plan:
        judge = Judge(loaded, data.evaluation, progress)
        start = time.perf_counter()
        try:
            if method == LOOP:
                _loop(loaded, data, density, judge, steps, time_limit, progress, options)
            else:
                if method != "dense":
                    prune_once(
                        method, loaded.model, layers, data.calibration, density, progress=progress
                    )
                judge.measure(method, time.perf_counter() - start)
        finally:
            for name, layer in layers.items():
                layer_weight(layer).data.copy_(dense[name])
        rows = pd.DataFrame(judge.rows).rename(columns={"state": "method"})
        yield rows.assign(density=density)


def _warm_up(loaded: LoadedModel, data: Data, density: float, options: Mapping[str, Any]) -> None:
    """One untimed step, so that no later one pays for imports, compilation and thread pools."""
    pruner = Pruner(
        loaded,
        data.calibration,
        heldout=data.heldout,
        density=density,
        progress=False,
        **options,
    )
    pruner.step()
    pruner.restore()


def _loop(
    loaded: LoadedModel,
    data: Data,
    density: float,
    judge: Judge,
    steps: Sequence[int],
    time_limit: float | None,
    progress: bool,
    options: Mapping[str, Any],
) -> None:
    """The loop after some numbers of steps and after repair, and what it says of itself."""
    seconds, start = 0.0, time.perf_counter()
    pruner = Pruner(
        loaded,
        data.calibration,
        heldout=data.heldout,
        density=density,
        progress=progress,
        **options,
    )
    for total in sorted(steps):
        left = None if time_limit is None else max(0.0, time_limit - seconds)
        pruner.run(total, time_limit=left)
        seconds += time.perf_counter() - start
        judge.measure(LOOP, seconds, _said(pruner))
        start = time.perf_counter()
    repaired = pruner.repair()
    seconds += time.perf_counter() - start
    judge.measure(REPAIRED, seconds, {**_said(pruner), "repair_kept": repaired})


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
    sets = list(dict.fromkeys(table["data"]))
    with palette.look():
        drawing = palette.new_figure(palette.COLUMN * max(1.2, len(sets)), 2.6)
        axes = drawing.subplots(1, len(sets), squeeze=False)[0]
        for axis, name in zip(axes, sets, strict=True):
            here = table[table["data"] == name]
            level = here[here["method"] == "dense"][column]
            axis.axhline(float(level.iloc[0]), color="#333333", lw=0.8, ls=":", label="dense")
            for method, part in here[here["method"] != "dense"].groupby("method", sort=False):
                look = palette.METHODS[str(method)]
                ordered = part.sort_values("density")
                axis.plot(
                    ordered["density"], ordered[column], color=look.colour, marker=look.marker,
                    label=str(method),
                )  # fmt: skip
            axis.set(title=name, xlabel="density (share of weights kept)", ylabel=column)
            if not images:
                axis.set_yscale("log")
        axes[0].legend()
        palette.caption(drawing, f"{loaded.name} ({loaded.note}); all methods on the same data")
    return drawing
