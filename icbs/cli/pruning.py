"""Pruning: prune, baselines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from icbs.cli.app import (
    Device,
    Dtype,
    Model,
    app,
    formatted,
    numbers,
    output_folder,
    print_table,
    settings_of,
    words,
)
from icbs.cli.models import check_before_loading, load_on

if TYPE_CHECKING:
    from experiments.pruning import Data
    from icbs.models import LoadedModel

Layers = Annotated[str, typer.Option(help="Globs of layer names, by commas.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any field of icbs.settings.Settings, as NAME=VALUE; repeat."),
]
Calibration = Annotated[
    str | None,
    typer.Option(help="Calibration: wikipedia, pydoc, a file; Fashion-MNIST's folder or 'hub'."),
]
Count = Annotated[
    int | None,
    typer.Option(help="Calibration windows (default 320) or images (8192; 3200 if embedded)."),
]
Length = Annotated[
    int | None,
    typer.Option(help="Tokens in a calibration window (default 128, or the model's limit)."),
]
Heldout = Annotated[
    int | None,
    typer.Option(help="Windows (default 16) or images (2048; 800 if embedded) of the loop's gate."),
]
Evaluation = Annotated[
    int | None,
    typer.Option(help="Test windows of up to 256 tokens (default 16) or images (all)."),
]
TuneLabels = Annotated[
    float,
    typer.Option(
        help="Share of the labels in what the weights are tuned to, 0 to 1: fits the calibration's "
        "kind of text better, others worse."
    ),
]


@app.command()
def prune(
    context: typer.Context,
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder for the model, masks, records, figure.")],
    density: Annotated[float, typer.Option(help="Fraction of weights to keep.")] = 0.5,
    steps: Annotated[int, typer.Option(help="Steps in all, those of a resumed run too.")] = 10,
    time_limit: Annotated[
        float | None, typer.Option(help="Seconds for the steps; no step that would end later.")
    ] = None,
    layers: Layers = "*",
    block_size: Annotated[
        float, typer.Option(help="Weights of a layer's block; below 1, a share of the layer.")
    ] = 0.02,
    fisher: Annotated[
        str | None,
        typer.Option(
            help="Curvature: sequence (default for text), position (for images), or exact (small "
            "models)."
        ),
    ] = None,
    solver: Annotated[str, typer.Option(help="Name from 'icbs solvers'.")] = "relaxation",
    init: Annotated[
        str, typer.Option(help="First mask: wanda, magnitude, gradient, random.")
    ] = "wanda",
    repair: Annotated[
        bool, typer.Option(help="Fit the kept weights to the dense layers' outputs at the end.")
    ] = False,
    tune: Annotated[
        int,
        typer.Option(
            help="Steps of moving the kept weights towards the dense model's predictions at the "
            "end."
        ),
    ] = 0,
    tune_labels: TuneLabels = 0.0,
    settings: Changes = None,
    data: Calibration = None,
    count: Count = None,
    length: Length = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Windows (default 16) or images (2048; 800 if embedded) in a backward pass."
        ),
    ] = None,
    heldout: Heldout = None,
    evaluation: Evaluation = None,
    resume: Annotated[bool, typer.Option(help="Go on with the run in OUT.")] = False,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    seed: Annotated[int, typer.Option(help="Same seed, same masks.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Prune a model by block coordinate descent and save it.

    The first mask comes from INIT; every step solves one block a layer and is kept only if the
    loss on held-out calibration data does not rise. OUT/model loads in transformers as it is.
    A stopped run goes on with the same command and --resume, bit for bit.

    Example: icbs prune garment-mlp --density 0.1 --steps 20 --out pruned

    Example: icbs prune smollm2 --time-limit 200 --steps 50 --tune 20 --out pruned
    """
    from icbs.errors import OutputError
    from icbs.settings import Settings

    if steps < 0 or (time_limit is not None and time_limit <= 0):
        raise typer.BadParameter("--steps must not be negative and --time-limit must be above 0")
    if not resume and (out / "checkpoint.safetensors").exists():
        raise OutputError(
            f"{out} holds a pruning run: pass --resume to go on with it, or choose another folder"
        )
    if tune < 0 or not 0 <= tune_labels <= 1:
        raise typer.BadParameter(
            f"--tune is {tune} and --tune-labels {tune_labels}, expected a whole number from 0 and "
            "a share from 0 to 1"
        )
    chosen: dict[str, Any] = {
        "density": density, "block_size": block_size, "init": init, "seed": seed,
        **({} if fisher is None else {"fisher": fisher}),
        **({} if batch_size is None else {"batch_size": batch_size}),
        **settings_of(context, settings),
    }  # fmt: skip
    amounts = {"count": count, "heldout": heldout, "evaluation": evaluation}
    told = [Settings(**chosen)]
    check_before_loading(model, layers, told, solver, data, length, device, dtype, **amounts)
    output_folder(out)
    # Not before mistakes are told: these import most of what there is.
    from experiments.pruning import prune as run_pruning
    from icbs.coverage import Densities

    loaded = load_on(model, device, dtype)
    chosen = {**_usual(loaded, data), **chosen}
    samples = _pruning_data(loaded, data, count, length, heldout, evaluation)
    with _resumable(out):
        summary = run_pruning(
            loaded,
            samples,
            out,
            steps=steps,
            time_limit=time_limit,
            resume=resume,
            repair=repair,
            tune=tune,
            labels=tune_labels,
            on_step=lambda record: print(record, file=sys.stderr),
            layers=layers,
            solver=solver,
            **chosen,
        )
    if as_json:
        print(json.dumps(summary))
        return
    columns = ("state", "data", "loss", "perplexity", "accuracy", "seconds")
    formats = ("{}", "{}", "{:.4f}", "{:.2f}", "{:.2%}", "{:.1f}")
    reached = Densities(summary["density"], summary["model_density"])
    title = f"{loaded.name}, {reached}: {out}"
    print_table(title, columns, formatted(summary["quality"], columns, formats))
    print(f"{summary['swaps']:,} swaps; {summary['touched']:.1%} of the weights were in a block")


@contextmanager
def _resumable(out: Path) -> Iterator[None]:
    """Says after Ctrl-C whether there is something to go on from."""
    try:
        yield
    except KeyboardInterrupt:
        kept = (out / "checkpoint.safetensors").exists()
        remedy = "the same command with --resume goes on after the last whole step"
        told = remedy if kept else "no step was done, so the same command starts anew"
        print(f"icbs: interrupted; {told}", file=sys.stderr)
        raise


def _usual(loaded: LoadedModel, source: str | None) -> dict[str, Any]:
    """Settings that suit what the model predicts, where they are not the usual ones."""
    if loaded.task != "image-classification":
        return {}
    # One position an image: the two Fishers are one, and position is the one with a sketch.
    return {"batch_size": _usual_counts(loaded, source)[2], "fisher": "position"}


def _pruning_data(
    loaded: LoadedModel,
    source: str | None,
    count: int | None,
    length: int | None,
    heldout: int | None,
    evaluation: int | None,
) -> Data:
    """Calibration and held-out samples of one source; test samples of it, or of two texts."""
    from experiments.pruning import Data
    from icbs.data import load_samples
    from icbs.samples import usual_length

    length = usual_length(loaded.model, length, 128)
    images = loaded.task == "image-classification"
    usual = _usual_counts(loaded, source)
    count = usual[0] if count is None else count
    heldout = usual[1] if heldout is None else heldout
    samples = load_samples(loaded, source, count=count + heldout, length=length)
    sources: list[str | None] = [None] if images else ["wikipedia", "pydoc"]
    if source is not None and source not in sources:
        sources = [source]
    tests = [
        load_samples(
            loaded,
            name,
            part="evaluation",
            count=(None if images else 16) if evaluation is None else evaluation,
            length=usual_length(loaded.model, None, 256),
        )
        for name in sources
    ]
    return Data(samples[:count], samples[count:], {test.source: test for test in tests})


def _usual_counts(loaded: LoadedModel, source: str | None) -> tuple[int, int, int]:
    """Calibration samples, those held out, and those of a batch, where nothing else is said."""
    from icbs.fashion_mnist import EMBEDDED, origin

    if loaded.task != "image-classification":
        return 320, 16, 16
    return (3200, 800, 800) if origin(source) == EMBEDDED else (8192, 2048, 2048)


@app.command()
def baselines(
    context: typer.Context,
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder for baselines.csv and the figure.")],
    densities: Annotated[str, typer.Option(help="Kept fractions, by commas.")] = "0.7,0.6,0.5,0.4",
    methods: Annotated[
        str,
        typer.Option(
            help="Some of magnitude, wanda, gradient, random, sparsegpt, cbs (small models), icbs, "
            "'wanda + tuning', 'icbs + tuning'; all if left out."
        ),
    ] = "",
    steps: Annotated[int, typer.Option(help="Steps of the loop, at the most.")] = 50,
    time_limit: Annotated[
        float, typer.Option(help="Seconds of the loop, and of each method with tuning.")
    ] = 300.0,
    tune_labels: TuneLabels = 0.0,
    layers: Layers = "*",
    settings: Changes = None,
    data: Calibration = None,
    count: Count = None,
    length: Length = None,
    heldout: Heldout = None,
    evaluation: Evaluation = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
) -> None:
    """Compare one-shot pruning with the loop: same calibration, same evaluation, one table.

    SparseGPT and CBS update the kept weights, the others only choose masks; icbs, the loop, is
    measured before and after the repair of its kept weights. What is tuned has the same seconds,
    from Wanda's mask or after the loop. A stopped comparison goes on where it was.

    Example: icbs baselines garment-mlp --densities 0.2,0.1 --time-limit 30 --out compared
    """
    from experiments.methods import METHODS
    from icbs.errors import SettingError
    from icbs.settings import Settings

    if time_limit <= 0 or not 0 <= tune_labels <= 1:
        raise typer.BadParameter("--time-limit must be above 0 and --tune-labels from 0 to 1")
    others = settings_of(context, settings)
    if "density" in others:
        raise typer.BadParameter("--set density has no effect here: give --densities")
    wanted = numbers(densities, float, "--densities")
    for method in words(methods):
        if method not in METHODS:
            raise SettingError(f"method is {method!r}, expected some of {', '.join(METHODS)}")
    told = [Settings(**{**others, "density": density}) for density in wanted]
    amounts = {"count": count, "heldout": heldout, "evaluation": evaluation}
    check_before_loading(model, layers, told, None, data, length, device, dtype, **amounts)
    output_folder(out)
    # Not before mistakes are told: this imports most of what there is.
    from experiments.baselines import compare

    loaded = load_on(model, device, dtype)
    samples = _pruning_data(loaded, data, count, length, heldout, evaluation)
    table = compare(
        loaded,
        samples,
        out,
        densities=wanted,
        methods=words(methods),
        steps=steps,
        time_limit=time_limit,
        labels=tune_labels,
        layers=layers,
        **(_usual(loaded, data) | others),
    )
    columns = ("density", "method", "data", "loss", "perplexity", "accuracy", "seconds", "touched",
               "accepted")  # fmt: skip
    formats = ("{:.2f}", "{}", "{}", "{:.4f}", "{:.2f}", "{:.2%}", "{:.1f}", "{:.1%}", "{:.1%}")
    done = table[table["loss"].notna()]
    if set(done["method"]) <= {"dense"}:
        raise SettingError(f"no method could be run; {out / 'baselines.csv'} says why")
    rows: list[Any] = done.astype(object).where(done.notna(), None).to_dict("records")
    print_table(
        f"{loaded.name}: {out / 'baselines.csv'}", columns, formatted(rows, columns, formats)
    )
