"""Pruning: prune, baselines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from experiments.cli.app import (
    AsJson,
    Density,
    Device,
    Dtype,
    Model,
    command,
    formatted,
    numbers,
    output_folder,
    resumable,
    settings_of,
    words,
)
from experiments.cli.models import check_before_loading, load_on
from experiments.cli.tables import print_table

if TYPE_CHECKING:
    from experiments.pruning.running import Data
    from icbs.models.loading import LoadedModel

Layers = Annotated[str, typer.Option(help="Patterns of layer names, such as '*.mlp.*', by commas.")]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Any setting of icbs.settings.Settings, as NAME=VALUE; may be repeated.",
    ),
]
Calibration = Annotated[
    str | None,
    typer.Option(
        help="Calibration: wikipedia, pydoc, a UTF-8 file, 'self' for text that the model writes, "
        "or several with shares, such as wikipedia:0.5,self:0.5; for images, the folder of "
        "Fashion-MNIST or 'hub'."
    ),
]
Count = Annotated[
    int | None,
    typer.Option(
        help="Calibration windows (default 320) or images (default 8192, or 3200 of those in the "
        "package)."
    ),
]
Length = Annotated[
    int | None,
    typer.Option(help="Tokens in a calibration window (default 128, or the model's limit)."),
]
Heldout = Annotated[
    int | None,
    typer.Option(
        help="Windows (default 16) or images (default 2048, or 800 of those in the package) held "
        "out of the calibration: a step whose loss on them rises is undone."
    ),
]
Evaluation = Annotated[
    int | None,
    typer.Option(help="Test windows of up to 256 tokens (default 16) or images (default all)."),
]
TuneLabels = Annotated[
    float,
    typer.Option(
        help="What the weights are tuned to: 0 is the dense model's predictions, 1 the labels of "
        "the calibration, which fits its kind of text better and others worse."
    ),
]


@command(
    "icbs prune garment-mlp --density 0.1 --steps 20 --out pruned",
    "icbs prune smollm2 --time-limit 200 --steps 50 --tune 20 --out pruned",
)
def prune(
    context: typer.Context,
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder for the model, masks, records, figure.")],
    density: Density = 0.5,
    steps: Annotated[int, typer.Option(help="Steps in all, counting those before --resume.")] = 10,
    time_limit: Annotated[
        float | None,
        typer.Option(
            help="Seconds for all steps: stop before a step expected to exceed this limit."
        ),
    ] = None,
    layers: Layers = "*",
    block_size: Annotated[
        float,
        typer.Option(help="Weights in a layer's block; a number below 1 is a share of the layer."),
    ] = 0.02,
    fisher: Annotated[
        str | None,
        typer.Option(
            help="Curvature of the blocks: sequence (default for text), position (default for "
            "images) or exact (small models only)."
        ),
    ] = None,
    solver: Annotated[str, typer.Option(help="Name from 'icbs solvers'.")] = "relaxation",
    init: Annotated[
        str, typer.Option(help="First mask: wanda, rows (search), magnitude, gradient or random.")
    ] = "wanda",
    repair: Annotated[
        bool,
        typer.Option(
            "--repair", help="At the end, fit the kept weights to the outputs of the dense layers."
        ),
    ] = False,
    tune: Annotated[
        int,
        typer.Option(
            help="At the end, train the kept weights for so many steps towards the dense model's "
            "predictions."
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
            help="Windows (default 16) or images (default 2048, or 800 of those in the package) "
            "in a backward pass."
        ),
    ] = None,
    heldout: Heldout = None,
    evaluation: Evaluation = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in the folder.")
    ] = False,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    seed: Annotated[
        int, typer.Option(help="Of everything random: the same seed gives the same masks.")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Prune a model by block coordinate descent and save it.

    The first mask comes from a one-shot method (--init). Every step then solves a block of each
    layer, and is kept only if the loss on held-out calibration data does not rise. The folder gets
    the model (model/, which transformers loads as it is), masks, records and a figure. If the run
    is stopped, the same command with --resume goes on with it, bit for bit.
    """
    from icbs.errors import OutputError
    from icbs.settings import Settings

    if steps < 0:
        raise typer.BadParameter(f"--steps is {steps}, expected a whole number from 0")
    _check_seconds(time_limit)
    if not resume and (out / "checkpoint.safetensors").exists():
        raise OutputError(
            f"{out} holds a pruning run: pass --resume to go on with it, or choose another folder"
        )
    if tune < 0:
        raise typer.BadParameter(f"--tune is {tune}, expected a whole number from 0")
    _check_share(tune_labels)
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
    from experiments.pruning.running import prune as run_pruning
    from icbs.models.coverage import Densities

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


def _check_seconds(time_limit: float | None) -> None:
    # The negation refuses NaN as well.
    if time_limit is not None and not time_limit > 0:
        raise typer.BadParameter(f"--time-limit is {time_limit:g}, expected seconds above 0")


def _check_share(labels: float) -> None:
    if not 0 <= labels <= 1:
        raise typer.BadParameter(f"--tune-labels is {labels:g}, expected a share from 0 to 1")


@contextmanager
def _resumable(out: Path) -> Iterator[None]:
    """Says after Ctrl-C whether there is something to go on from."""
    try:
        yield
    except KeyboardInterrupt as stop:
        if (out / "checkpoint.safetensors").exists():
            raise KeyboardInterrupt(
                "the same command with --resume goes on after the last whole step"
            ) from stop
        raise KeyboardInterrupt("no step was done, so the same command starts anew") from stop


def _usual(loaded: LoadedModel, source: str | None) -> dict[str, Any]:
    """Settings that suit what the model predicts and its data."""
    from icbs.models.tasks import TASKS

    task = TASKS[loaded.task]
    return {"batch_size": task.usual(source)[2], **task.settings}


def _pruning_data(
    loaded: LoadedModel,
    source: str | None,
    count: int | None,
    length: int | None,
    heldout: int | None,
    evaluation: int | None,
) -> Data:
    """Calibration and held-out samples of one source; test samples of it, or of two texts."""
    from experiments.pruning.running import Data
    from icbs.data.generated import SELF
    from icbs.data.loading import load_samples
    from icbs.data.mixtures import shares
    from icbs.data.samples import usual_length
    from icbs.models.tasks import TASKS

    length = usual_length(loaded.model, length, 128)
    task = TASKS[loaded.task]
    usual = task.usual(source)
    count = usual[0] if count is None else count
    heldout = usual[1] if heldout is None else heldout
    samples = load_samples(loaded, source, count=count + heldout, length=length)
    sources = list(task.data)
    if source is not None and source not in (SELF, *sources) and shares(source) is None:
        sources = [source]
    tests = [
        load_samples(
            loaded,
            name,
            part="evaluation",
            count=task.test if evaluation is None else evaluation,
            length=usual_length(loaded.model, None, 256),
        )
        for name in sources
    ]
    return Data(samples[:count], samples[count:], {test.source: test for test in tests})


@command("icbs baselines garment-mlp --densities 0.2,0.1 --time-limit 30 --out compared")
def baselines(
    context: typer.Context,
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder for baselines.csv and the figure.")],
    densities: Annotated[
        str, typer.Option(help="Fractions of weights to keep, by commas: 0.7 is sparsity 0.3.")
    ] = "0.7,0.6,0.5,0.4",
    methods: Annotated[
        str,
        typer.Option(
            help="Some of magnitude, wanda, gradient, random, rows, sparsegpt, cbs (small models "
            "only), icbs, 'wanda + tuning' and 'icbs + tuning', by commas (default all)."
        ),
    ] = "",
    steps: Annotated[int, typer.Option(help="Most steps of the loop.")] = 50,
    time_limit: Annotated[
        float, typer.Option(help="Seconds for the loop, and for each method with tuning.")
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

    SparseGPT and CBS change the kept weights, the other one-shot methods only choose masks; rows
    starts at Wanda's and swaps weights while that lowers the error of a layer's output. The
    loop, icbs, is measured before and after its kept weights are fitted to the dense layers.
    Methods with tuning get the same seconds, from Wanda's mask or after the loop. If the comparison
    is stopped, the same command goes on with it.
    """
    from experiments.figures.methods import METHODS
    from icbs.errors import SettingError
    from icbs.settings import Settings

    if steps < 0:
        raise typer.BadParameter(f"--steps is {steps}, expected a whole number from 0")
    _check_seconds(time_limit)
    _check_share(tune_labels)
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
    from experiments.pruning.comparing import compare

    loaded = load_on(model, device, dtype)
    samples = _pruning_data(loaded, data, count, length, heldout, evaluation)
    with resumable("what is measured stays; the same command goes on"):
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
