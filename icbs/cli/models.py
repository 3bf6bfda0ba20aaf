"""Models: models, export, evaluate."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from icbs.cli.app import (
    AsJson,
    Device,
    Dtype,
    Model,
    app,
    formatted,
    numbers,
    output_folder,
    print_table,
    typed,
    words,
)

if TYPE_CHECKING:
    from icbs.models import LoadedModel
    from icbs.settings import Settings


def load_on(model: str, device: str, dtype: str) -> LoadedModel:
    """The model on a device, or spread over all of them with ``auto``."""
    import torch

    from icbs.models import load_model

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
    from icbs.errors import DataError, SettingError
    from icbs.models import check_device, skeleton

    if dtype not in ("float32", "bfloat16", "float16"):
        raise typer.BadParameter(f"--dtype is {dtype!r}, expected float32, bfloat16 or float16")
    check_device("cpu" if device == "auto" else device)
    for name, amount in amounts.items():
        if amount is not None and amount < 1 and name == "batch_size":
            raise SettingError(f"batch_size is {amount}, expected at least 1")
        if amount is not None and amount < 1:
            raise DataError(f"--{name} is {amount}, expected at least one window or image")
    if length is not None and length < 2:
        raise DataError(f"--length is {length}, expected at least two tokens")
    if solver is not None:
        from solvers import make

        make(solver)
    named = data is not None and not Path(data).expanduser().exists()
    for source in words(data or "") if named else []:
        if source not in ("wikipedia", "pydoc", "hub") and not Path(source).expanduser().exists():
            raise DataError(
                f"--data: {source!r} cannot be read (no such file or folder): give 'wikipedia', "
                "'pydoc' or a path"
            )
    known = skeleton(model)
    if known is None:
        return
    from icbs.layers import check_pattern, densities_of
    from icbs.prunable import prunable_layers
    from icbs.samples import longest_window

    bare, _ = known
    if told:
        chosen = prunable_layers(bare, layers)
        for settings in told:
            check_pattern(chosen, settings)
            densities_of(chosen, settings)
    longest = longest_window(bare)
    if length is not None and longest is not None and length > longest:
        raise DataError(
            f"--length is {length} and the model has {longest} positions: cut shorter windows"
        )


@app.command()
def models(
    as_json: AsJson = False,
) -> None:
    """List the models known by name; any hub id or local folder works as well."""
    from dataclasses import asdict

    from icbs.registered import models as known

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


@app.command()
def export(
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder for the files.")],
    layers: Annotated[
        str, typer.Option(help="Shell globs of layer names, separated by commas.")
    ] = "*.mlp.down_proj",
    sizes: Annotated[str, typer.Option(help="Variables of the blocks.")] = "16,64,1024",
    density: Annotated[float, typer.Option(help="Kept fraction of the weights.")] = 0.5,
    fisher: Annotated[str, typer.Option(help="sequence, position or both.")] = "sequence,position",
    formats: Annotated[
        str,
        typer.Option("--format", help="Besides the container: any of bqm,lp,ubqp,sparse,qubo."),
    ] = "",
    penalty: Annotated[
        float | None,
        typer.Option(help="Add PENALTY * (sum x - k)^2 to all but lp files."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="'wikipedia', 'pydoc' or a UTF-8 file; Fashion-MNIST's folder or 'hub'."),
    ] = None,
    count: Annotated[int, typer.Option(help="Calibration windows or images.")] = 16,
    length: Annotated[
        int | None,
        typer.Option(help="Tokens in a window (default 128, or the model's limit)."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Order of the variables, sketch.")] = 0,
) -> None:
    """Cut one block per layer, size and Fisher out of a model and write it to files.

    The layers are pruned to DENSITY by Wanda first. Each container holds the factor, so n = 4096
    takes 0.6 MB; the other formats are dense.

    Example: icbs export smollm2 --layers '*.28.mlp.*' --sizes 64,1024 --out blocks --format bqm,lp
    """
    from icbs.data import load_samples
    from icbs.export import export_blocks
    from icbs.masks import checked_density
    from icbs.models import load_model
    from icbs.progress import stage
    from icbs.samples import usual_length
    from solvers import export as export_problem
    from solvers import save
    from solvers.formats import EXPORTS, file_name

    checked_density(density)
    wanted = numbers(sizes, int, "--sizes")
    suffixes = [f".{word}" for word in words(formats)]
    for suffix in suffixes:
        if suffix not in EXPORTS:
            names = ",".join(known[1:] for known in EXPORTS)
            raise typer.BadParameter(f"--format {suffix[1:]!r} is unknown; choose from {names}")
    output_folder(out)
    loaded = load_model(model)
    length = usual_length(loaded.model, length, 128)
    samples = load_samples(loaded, data, count=count, length=length)
    problems = export_blocks(
        loaded,
        samples,
        layers=layers,
        sizes=wanted,
        fishers=words(fisher),  # type: ignore[arg-type]  # checked by export_blocks
        density=density,
        batch_size=count,
        seed=seed,
    )
    with stage(f"Writing {len(problems)} blocks", len(problems)) as update:
        for number, problem in enumerate(problems):
            print(save(problem, out / file_name(problem)))
            for suffix in suffixes:
                weight = None if suffix == ".lp" else penalty
                path = out / file_name(problem, suffix)
                print(export_problem(problem, path, penalty=weight))
            update(number + 1)


@app.command()
def evaluate(
    context: typer.Context,
    model: Model,
    data: Annotated[
        str | None,
        typer.Option(
            help="Any of wikipedia, pydoc and UTF-8 files, separated by commas (default: the first "
            "two); Fashion-MNIST's folder or 'hub'."
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
            help="Instead: a task of lm-eval, a YAML file that you trust, as it may name code; "
            "repeat (extra lm-eval)."
        ),
    ] = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: AsJson = False,
) -> None:
    """Measure perplexity or accuracy on data that no calibration sees.

    Causal language models: perplexity on held-out Wikipedia leads and on held-out pages of Python's
    own reference, another kind of text. Masked ones: the same with 15 % of the tokens hidden. Image
    classifiers: accuracy on the test split of Fashion-MNIST, or the first 2,000 images of it, which
    come with the package, where the full set is not found. Padding never counts.

    Example: icbs evaluate garment-mlp

    Example: icbs evaluate smol/model --tasks multiple_choice.yaml
    """
    amounts = {"count": count, "batch_size": batch_size}
    check_before_loading(model, "*", [], None, data, length, device, dtype, **amounts)
    # Not before mistakes are told: these take seconds.
    from icbs.coverage import already_sparse, densities
    from icbs.evaluate import worse_than_guessing
    from icbs.progress import say

    if tasks and (own := typed(context, "data", "count", "length")):
        raise typer.BadParameter(f"{own[0]} has no effect with --tasks: leave one of them out")
    loaded = load_on(model, device, dtype)
    if tasks:
        _print_tasks(loaded, tasks, batch_size or 4, as_json)
        return
    if loaded.task == "image-classification":
        sources: list[str | None] = [data]
        batch_size = 500 if batch_size is None else batch_size
    else:
        sources = list(words("wikipedia,pydoc" if data is None else data))
        if not sources:
            raise typer.BadParameter(f"--data is {data!r}, expected wikipedia, pydoc or a file")
        count = 64 if count is None else count
        batch_size = 4 if batch_size is None else batch_size
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
    from icbs.harness import evaluate_tasks

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
    from icbs.data import load_samples
    from icbs.evaluate import evaluate as measure
    from icbs.samples import usual_length

    length = usual_length(loaded.model, length, 256)
    samples = load_samples(loaded, source, part="evaluation", count=count, length=length)
    start = time.perf_counter()
    title = f"Evaluating on {samples.source}"
    quality = measure(loaded.model, samples, batch_size=batch_size, title=title)
    # Classes have no perplexity, and JSON no infinity.
    shown = loaded.task.endswith("-lm") and math.isfinite(quality.perplexity)
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
