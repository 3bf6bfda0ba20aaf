"""Models: models, evaluate, and what is checked of one before it is loaded."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from experiments.cli.app import (
    AsJson,
    Device,
    Dtype,
    Model,
    command,
    formatted,
    typed,
    words,
)
from experiments.cli.tables import print_table

if TYPE_CHECKING:
    from icbs.models.loading import LoadedModel
    from icbs.settings import Settings


# PyTorch's own; packages with others say so among the entry points "torch.backends".
_DEVICES = ("auto", "cpu", "cuda", "hpu", "maia", "mps", "mtia", "privateuseone", "xla", "xpu")


def load_on(model: str, device: str, dtype: str) -> LoadedModel:
    """The model on a device, or spread over all of them with ``auto``."""
    import torch

    from icbs.models.loading import load_model

    return load_model(
        model,
        device="cpu" if device == "auto" else device,
        dtype=getattr(torch, dtype),
        device_map="auto" if device == "auto" else None,
    )


def check_before_loading(
    model: str,
    layers: str,
    told: Sequence[Settings],
    solver: str | None,
    data: str | None,
    length: int | None,
    device: str,
    dtype: str,
    **amounts: int | None,
) -> None:
    """Refuses what needs no weights to be refused: settings are checked already.

    Raises:
        IcbsError: a model, layers, a pattern, a window or a file that cannot be.
        SolverError: no such solver.
    """
    from icbs.data.mixtures import shares
    from icbs.errors import DataError, SettingError
    from icbs.models.outline import check_layers
    from icbs.models.registered import REGISTRY, local_folder

    if dtype not in ("float32", "bfloat16", "float16"):
        raise typer.BadParameter(f"--dtype is {dtype!r}, expected float32, bfloat16 or float16")
    _check_device_name(device)
    for name, amount in amounts.items():
        if amount is not None and amount < 1 and name == "batch_size":
            raise SettingError(f"batch_size is {amount}; choose a whole number from 1")
        if amount is not None and amount < 1:
            raise DataError(f"--{name} is {amount}, expected at least one window or image")
    if length is not None and length < 2:
        raise DataError(f"--length is {length}, expected at least two tokens")
    named = data is not None and not Path(data).expanduser().exists()
    for source in (shares(data or "") or words(data or "")) if named else []:
        texts = ("wikipedia", "pydoc", "hub", "self")
        if source not in texts and not Path(source).expanduser().exists():
            raise DataError(
                f"--data: {source!r} cannot be read (no such file or folder): give 'wikipedia', "
                "'pydoc', 'self' or a path"
            )
    folder = REGISTRY[model].folder if model in REGISTRY else local_folder(model)
    if folder is not None:
        for settings in told:
            check_layers(folder, layers, settings.pattern)
    if solver is not None:
        from solvers.registry import entry

        entry(solver)
    # From here on it takes seconds: PyTorch, solvers, then transformers are imported.
    from icbs.models.loading import check_device, skeleton

    check_device("cpu" if device == "auto" else device)
    if solver is not None:
        from solvers import make

        make(solver)
    known = skeleton(model)
    if known is None:
        return
    from icbs.blocks.layers import check_pattern
    from icbs.data.samples import longest_window
    from icbs.models.prunable import prunable_layers

    bare, _ = known
    if told:
        chosen = prunable_layers(bare, layers)
        for settings in told:
            check_pattern(chosen, settings)
    longest = longest_window(bare)
    if length is not None and longest is not None and length > longest:
        raise DataError(
            f"--length is {length} and the model has {longest} positions: cut shorter windows"
        )


def _check_device_name(device: str) -> None:
    """Refuses what is no name of a device; whether it is there only PyTorch can say."""
    from importlib.metadata import entry_points

    from icbs.errors import SettingError

    kind, _, number = device.partition(":")
    if (kind in _DEVICES and (not number or number.isdecimal())) or entry_points(
        group="torch.backends"
    ):
        return
    raise SettingError(f"device is {device!r}, expected cpu, cuda, cuda:1 and so on, or auto")


@command("icbs models")
def models(
    as_json: AsJson = False,
) -> None:
    """List the models known by name; any hub id or local folder works as well."""
    from dataclasses import asdict

    from icbs.models.registered import models as known

    entries = known()
    if as_json:
        print(json.dumps([asdict(entry) for entry in entries], indent=2))
        return
    rows = [
        (
            entry.name,
            entry.unavailable or ("on this machine" if entry.cached else "fetched on first use"),
            f"{entry.download / 1e6:.0f} MB",
            f"{entry.disk / 1e6:.1f} MB",
            entry.description,
        )
        for entry in entries
    ]
    print_table("Models", ("name", "state", "download", "on disk", "what it is"), rows)


@command("icbs evaluate garment-mlp", "icbs evaluate smol/model --tasks multiple_choice.yaml")
def evaluate(
    context: typer.Context,
    model: Model,
    data: Annotated[
        str | None,
        typer.Option(
            help="Any of wikipedia, pydoc and UTF-8 files, by commas (default: the first two); for "
            "images, the folder of Fashion-MNIST or 'hub'."
        ),
    ] = None,
    count: Annotated[
        int | None, typer.Option(help="Windows (default 64) or images (default all).")
    ] = None,
    length: Annotated[
        int | None,
        typer.Option(help="Tokens in a window (default 256, or the model's limit)."),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Windows (default 4) or images (default 500) at a time."),
    ] = None,
    tasks: Annotated[
        list[Path] | None,
        typer.Option(
            help="A task of lm-eval to run instead: a YAML file that you trust, as it may run "
            "code. May be repeated. Needs the extra lm-eval."
        ),
    ] = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: AsJson = False,
) -> None:
    """Measure perplexity or accuracy on data that no calibration sees.

    Causal language models: perplexity on the beginnings of Wikipedia articles and on pages of
    Python's own reference, another kind of text. Masked language models: the same, with 15 % of the
    tokens hidden. Image classifiers: accuracy on the test images of Fashion-MNIST, or on the first
    2,000 of them, which are in the package, if the full set is not found. Padding never counts.
    """
    if tasks and (own := typed(context, "data", "count", "length")):
        raise typer.BadParameter(f"{own[0]} has no effect with --tasks: leave one of them out")
    amounts = {"count": count, "batch_size": batch_size}
    check_before_loading(model, "*", [], None, data, length, device, dtype, **amounts)
    # Not before mistakes are told: these take seconds.
    from icbs.evaluation.quality import worse_than_guessing
    from icbs.models.coverage import already_sparse, densities
    from icbs.models.tasks import TASKS
    from icbs.progress import say

    loaded = load_on(model, device, dtype)
    if tasks:
        _print_tasks(loaded, tasks, batch_size or 4, as_json)
        return
    task = TASKS[loaded.task]
    sources = list(task.data) if data is None else list(words(data))
    if not sources:
        raise typer.BadParameter(f"--data is {data!r}; choose a source of data or leave it out")
    count = task.evaluation if count is None else count
    batch_size = task.evaluation_batch if batch_size is None else batch_size
    warnings = [*loaded.warnings, *filter(None, (already_sparse(loaded.model),))]
    results = [_measured(loaded, source, count, length, batch_size) for source in sources]
    for result in results:
        doubt = worse_than_guessing(loaded.model, result["loss"])
        warnings += [] if doubt is None else [f"{result['data']}: {doubt}"]
    found = densities(loaded.model)
    answer = {
        "model": loaded.name,
        "revision": loaded.revision,
        "note": loaded.note,
        "task": loaded.task,
        **found.to_json(),
        "warnings": warnings,
        "results": results,
    }
    for warning in warnings:
        say(f"warning: {warning}")
    if as_json:
        print(json.dumps(answer))
        return
    title = f"{loaded.name} ({loaded.note}), {found}"
    columns = (
        "data",
        "samples",
        "length",
        "targets",
        "loss",
        "perplexity",
        "accuracy",
        "seconds",
    )
    formats = ("{}", "{}", "{}", "{}", "{:.4f}", "{:.2f}", "{:.2%}", "{:.1f}")
    print_table(title, columns, formatted(results, columns, formats))


def _print_tasks(
    loaded: LoadedModel, tasks: Sequence[Path], batch_size: int, as_json: bool
) -> None:
    from icbs.evaluation.harness import evaluate_tasks

    found = evaluate_tasks(loaded, tasks, batch_size=batch_size)
    if as_json:
        print(json.dumps({"model": loaded.name, "revision": loaded.revision, "tasks": found}))
        return
    rows = [
        (task, metric, f"{value:.4f}")
        for task, metrics in found.items()
        for metric, value in metrics.items()
    ]
    print_table(f"{loaded.name} ({loaded.note})", ("task", "metric", "value"), rows)


def _measured(
    loaded: LoadedModel, source: str | None, count: int | None, length: int | None, batch_size: int
) -> dict[str, Any]:
    """One row of `icbs evaluate`."""
    from icbs.data.loading import load_samples
    from icbs.data.samples import usual_length
    from icbs.evaluation.quality import evaluate as measure
    from icbs.models.tasks import TASKS

    length = usual_length(loaded.model, length, 256)
    samples = load_samples(loaded, source, part="evaluation", count=count, length=length)
    start = time.perf_counter()
    title = f"Evaluating on {samples.source}"
    quality = measure(loaded.model, samples, batch_size=batch_size, title=title)
    # Classes have no perplexity, and JSON no infinity.
    shown = TASKS[loaded.task].perplexity and math.isfinite(quality.perplexity)
    return {
        "data": samples.source,
        "split": "evaluation",
        "samples": len(samples),
        "length": None if samples.is_images else samples.positions,
        "targets": quality.targets,
        "loss": quality.loss,
        "perplexity": quality.perplexity if shown else None,
        "accuracy": quality.accuracy,
        "seconds": time.perf_counter() - start,
    }
