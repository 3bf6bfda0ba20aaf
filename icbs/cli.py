"""The `icbs` command.

Exit status: 0 done, 1 the work failed (a message on stderr, no traceback), 2 wrong usage.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from icbs.errors import DensityError, IcbsError, LayerError, OutputError, SettingError
from solvers.errors import (
    FormatError,
    ParameterError,
    SolverError,
    UnavailableError,
    UnknownSolverError,
)

if TYPE_CHECKING:
    from experiments.pruning import Data
    from icbs.models import LoadedModel

app = typer.Typer(
    name="icbs",
    help="Cut QUBO block problems out of real models, and see what any solver is worth on them.",
    epilog="Start with: icbs demo --fast",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

# Mistakes in what was typed; every other error means that the work failed.
USAGE_ERRORS = (DensityError, LayerError, ParameterError, SettingError, UnknownSolverError)


def main() -> None:
    """Entry point: every expected error becomes one line on stderr."""
    import dimod

    expected = (IcbsError, SolverError, OSError, dimod.exceptions.BinaryQuadraticModelSizeError)
    try:
        app()
    except BrokenPipeError:
        # The reader (head, less) went away; there is nobody left to tell.
        sys.stderr.close()
        sys.exit(1)
    except expected as error:
        print(f"icbs: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, USAGE_ERRORS) else 1)


def output_folder(path: Path) -> Path:
    """The folder, made if need be and proved writable before any long work starts.

    Raises:
        OutputError: it cannot be made or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OutputError(
            f"--out {path}: cannot write there ({error.strerror}); choose another folder"
        ) from error
    return path


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _numbers(text: str, kind: type[int] | type[float], option: str) -> list[Any]:
    try:
        values = [kind(word) for word in _words(text)]
    except ValueError as error:
        raise typer.BadParameter(f"{option} is {text!r}, expected numbers like 16,64") from error
    if not values or min(values) <= 0:
        raise typer.BadParameter(f"{option} is {text!r}, expected numbers above 0")
    return values


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(column, no_wrap=number < len(columns) - 1, overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    Console().print(table)


def _formatted(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], formats: Sequence[str]
) -> list[list[str]]:
    return [
        [
            "-" if row[column] is None else form.format(row[column])
            for column, form in zip(columns, formats, strict=True)
        ]
        for row in rows
    ]


def _load(model: str, device: str, dtype: str) -> LoadedModel:
    """The model on a device, or spread over all of them with ``auto``."""
    import torch

    from icbs.models import load_model

    if dtype not in ("float32", "bfloat16"):
        raise typer.BadParameter(f"--dtype is {dtype!r}, expected float32 or bfloat16")
    return load_model(
        model,
        device="cpu" if device == "auto" else device,
        dtype=getattr(torch, dtype),
        device_map="auto" if device == "auto" else None,
    )


@app.command()
def demo(
    fast: Annotated[bool, typer.Option(help="Fewer sizes, seeds and layers.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for the blocks, store and report.")] = Path(
        "icbs-demo"
    ),
) -> None:
    """Prune a real language model, solve its blocks with every solver, write a report.

    The first run downloads 98 MB (a 135M-parameter model and Wikipedia leads). Everything ends in
    OUT: blocks/ (the instances), runs.sqlite (every record), report.html (open it).
    """
    from experiments.demo import run_demo

    page = run_demo(output_folder(out), fast=fast)
    print(page)


@app.command()
def models(
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """List the models known by name; any hub id or local folder works as well."""
    from dataclasses import asdict

    from icbs.models import models as known

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
    _table("Models", ("name", "state", "download", "on disk", "what it is"), rows)


@app.command()
def cut(
    block: Annotated[Path, typer.Argument(help="A .block.safetensors file with an incumbent.")],
    out: Annotated[Path, typer.Option(help="Folder for the files.")],
    sizes: Annotated[str, typer.Option(help="Even numbers from 4 to 30.")] = "8,12,16,20,24",
) -> None:
    """Cut nested sub-blocks for a quantum device, chosen so that their couplings matter.

    Each file holds the proven optimum and the share of the variance of E that no sort explains.

    Example: icbs cut blocks/model.layers.28.mlp.up_proj-n1024-position.block.safetensors --out sub
    """
    from solvers import load, save
    from solvers.formats import CONTAINER
    from solvers.subblocks import nested_subblocks

    family = nested_subblocks(load(block), _numbers(sizes, int, "--sizes"))
    output_folder(out)
    for n, problem in family.items():
        print(save(problem, out / f"{block.name.removesuffix(CONTAINER)}-sub{n}{CONTAINER}"))


@app.command()
def solvers(
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """List the solvers: lane, exactness, size limit, budget, and why one is unavailable.

    Native solvers keep sum(x) = k by construction. Penalised ones get the constraint as a penalty
    and their samples are repaired; raw and repaired results are both kept.
    """
    from solvers import available, make
    from solvers.registry import registered

    records = []
    for name, reason in available().items():
        known = registered()[name]
        record: dict[str, Any] = {"name": name, "lane": known.lane, "summary": known.summary}
        if reason is None:
            try:
                record |= make(name).properties
            except UnavailableError as error:
                reason = str(error)
        records.append(record | {"needs": list(known.needs), "unavailable": reason})
    if as_json:
        print(json.dumps(records, indent=2))
        return
    rows = [
        (
            record["name"],
            (record["lane"] or "") + (", exact" if record.get("exact") else ""),
            record.get("max_variables") or "",
            ", ".join(word.removesuffix("_limit") for word in record.get("honours", ())),
            f"not here: {record['unavailable']}" if record["unavailable"] else record["summary"],
        )
        for record in records
    ]
    columns = ("solver", "lane", "max n", "heeds", "what it does")
    _table("Solvers", columns, rows)


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="Registered name, local folder or hub id.")],
    out: Annotated[Path, typer.Option(help="Folder for the files.")],
    layers: Annotated[
        str, typer.Option(help="Shell globs of layer names, separated by commas.")
    ] = "*.mlp.down_proj",
    sizes: Annotated[str, typer.Option(help="Variables of the blocks.")] = "16,64,1024",
    density: Annotated[float, typer.Option(help="Kept fraction of the weights.")] = 0.5,
    fisher: Annotated[str, typer.Option(help="sequence, position or both.")] = "sequence,position",
    formats: Annotated[
        str,
        typer.Option("--format", help="Besides the container: any of bqm,lp,ubqp,qubo."),
    ] = "",
    penalty: Annotated[
        float | None,
        typer.Option(help="Add PENALTY * (sum x - k)^2 to bqm, ubqp and qubo files."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="'wikipedia', 'pydoc' or a UTF-8 file; Fashion-MNIST's folder."),
    ] = None,
    count: Annotated[int, typer.Option(help="Calibration windows or images.")] = 16,
    length: Annotated[int, typer.Option(help="Tokens in a window.")] = 128,
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
    from solvers import export as export_problem
    from solvers import save
    from solvers.formats import EXPORTS, file_name

    checked_density(density)
    wanted = _numbers(sizes, int, "--sizes")
    suffixes = [f".{word}" for word in _words(formats)]
    for suffix in suffixes:
        if suffix not in EXPORTS:
            names = ",".join(known[1:] for known in EXPORTS)
            raise typer.BadParameter(f"--format {suffix[1:]!r} is unknown; choose from {names}")
    output_folder(out)
    loaded = load_model(model)
    samples = load_samples(loaded, data, count=count, length=length)
    problems = export_blocks(
        loaded,
        samples,
        layers=layers,
        sizes=wanted,
        fishers=_words(fisher),  # type: ignore[arg-type]  # checked by export_blocks
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
def prune(
    model: Annotated[str, typer.Argument(help="Registered name, local folder or hub id.")],
    out: Annotated[Path, typer.Option(help="Folder for the model, masks, records, figure.")],
    density: Annotated[float, typer.Option(help="Fraction of weights to keep.")] = 0.5,
    steps: Annotated[int, typer.Option(help="Steps in all, those of a resumed run too.")] = 10,
    time_limit: Annotated[
        float | None, typer.Option(help="Seconds for the steps; no step that would end later.")
    ] = None,
    layers: Annotated[str, typer.Option(help="Globs of layer names, by commas.")] = "*",
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
    tune_labels: Annotated[
        float,
        typer.Option(
            help="Share of the labels in what the weights are tuned to, 0 to 1: fits the "
            "calibration's kind of text better, others worse."
        ),
    ] = 0.0,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any field of icbs.settings.Settings, as NAME=VALUE; repeat."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Calibration: wikipedia, pydoc, a file; image folder.")
    ] = None,
    count: Annotated[
        int | None, typer.Option(help="Calibration windows (default 320) or images (8192).")
    ] = None,
    length: Annotated[int, typer.Option(help="Tokens in a calibration window.")] = 128,
    batch_size: Annotated[
        int | None, typer.Option(help="Windows (default 16) or images (2048) in a backward pass.")
    ] = None,
    heldout: Annotated[
        int | None, typer.Option(help="Windows (default 16) or images (2048) of the gate.")
    ] = None,
    evaluation: Annotated[
        int | None,
        typer.Option(help="Test windows of up to 256 tokens (default 16) or images (all)."),
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the run in OUT.")] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
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
    from experiments.pruning import prune as run_pruning
    from icbs.settings import parse_settings

    if steps < 0 or (time_limit is not None and time_limit <= 0):
        raise typer.BadParameter("--steps must not be negative and --time-limit must be above 0")
    if tune < 0 or not 0 <= tune_labels <= 1:
        raise typer.BadParameter(
            f"--tune is {tune} and --tune-labels {tune_labels}, expected a whole number from 0 and "
            "a share from 0 to 1"
        )
    others = parse_settings(settings or [])
    loaded = _load(model, device, dtype)
    images = loaded.task == "image-classification"
    batch_size = batch_size or (2048 if images else 16)
    # One position an image: the two Fishers are one, and position is the one with a sketch.
    fisher = fisher or ("position" if images else "sequence")
    chosen = {
        "density": density, "block_size": block_size, "fisher": fisher, "init": init,
        "batch_size": batch_size, "seed": seed, **others,
    }  # fmt: skip
    output_folder(out)
    samples = _pruning_data(loaded, data, count, length, heldout, evaluation)
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
    title = f"{loaded.name} at density {summary['density']:.3f}: {out}"
    _table(title, columns, _formatted(summary["quality"], columns, formats))
    print(f"{summary['swaps']:,} swaps; {summary['touched']:.1%} of the weights were in a block")


def _pruning_data(
    loaded: LoadedModel,
    source: str | None,
    count: int | None,
    length: int,
    heldout: int | None,
    evaluation: int | None,
) -> Data:
    """Calibration and held-out samples of one source; test samples of it, or of two texts."""
    from experiments.pruning import Data
    from icbs.data import load_samples

    images = loaded.task == "image-classification"
    count, heldout = count or (8192 if images else 320), heldout or (2048 if images else 16)
    samples = load_samples(loaded, source, count=count + heldout, length=length)
    sources: list[str | None] = [None] if images else ["wikipedia", "pydoc"]
    if source is not None and source not in sources:
        sources = [source]
    tests = {
        name or "Fashion-MNIST": load_samples(
            loaded,
            name,
            part="evaluation",
            count=evaluation or (None if images else 16),
            length=min(256, getattr(loaded.model.config, "max_position_embeddings", 256)),
        )
        for name in sources
    }
    return Data(samples[:count], samples[count:], tests)


@app.command()
def baselines(
    model: Annotated[str, typer.Argument(help="Registered name, local folder or hub id.")],
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
    tune_labels: Annotated[
        float, typer.Option(help="Share of the labels in what the weights are tuned to, 0 to 1.")
    ] = 0.0,
    layers: Annotated[str, typer.Option(help="Globs of layer names, by commas.")] = "*",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any field of icbs.settings.Settings, as NAME=VALUE; repeat."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Calibration: wikipedia, pydoc, a file; image folder.")
    ] = None,
    count: Annotated[
        int | None, typer.Option(help="Calibration windows (default 320) or images (8192).")
    ] = None,
    length: Annotated[int, typer.Option(help="Tokens in a calibration window.")] = 128,
    heldout: Annotated[
        int | None, typer.Option(help="Windows (default 16) or images (2048) of the loop's gate.")
    ] = None,
    evaluation: Annotated[
        int | None,
        typer.Option(help="Test windows of up to 256 tokens (default 16) or images (all)."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
) -> None:
    """Compare one-shot pruning with the loop: same calibration, same evaluation, one table.

    SparseGPT and CBS update the kept weights, the others only choose masks; icbs, the loop, is
    measured before and after the repair of its kept weights. What is tuned has the same seconds,
    from Wanda's mask or after the loop. A stopped comparison goes on where it was.

    Example: icbs baselines garment-mlp --densities 0.2,0.1 --time-limit 30 --out compared
    """
    from experiments.baselines import compare
    from icbs.settings import parse_settings

    if time_limit <= 0 or not 0 <= tune_labels <= 1:
        raise typer.BadParameter("--time-limit must be above 0 and --tune-labels from 0 to 1")
    others = parse_settings(settings or [])
    wanted = _numbers(densities, float, "--densities")
    loaded = _load(model, device, dtype)
    images = loaded.task == "image-classification"
    usual: dict[str, Any] = {"batch_size": 2048, "fisher": "position"} if images else {}
    output_folder(out)
    samples = _pruning_data(loaded, data, count, length, heldout, evaluation)
    table = compare(
        loaded,
        samples,
        out,
        densities=wanted,
        methods=_words(methods),
        steps=steps,
        time_limit=time_limit,
        labels=tune_labels,
        layers=layers,
        **(usual | others),
    )
    columns = ("density", "method", "data", "loss", "perplexity", "accuracy", "seconds", "touched",
               "accepted")  # fmt: skip
    formats = ("{:.2f}", "{}", "{}", "{:.4f}", "{:.2f}", "{:.2%}", "{:.1f}", "{:.1%}", "{:.1%}")
    rows: list[Any] = table.astype(object).where(table.notna(), None).to_dict("records")
    _table(f"{loaded.name}: {out / 'baselines.csv'}", columns, _formatted(rows, columns, formats))


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="Registered name, local folder or hub id.")],
    data: Annotated[
        str | None,
        typer.Option(
            help="Any of wikipedia, pydoc and UTF-8 files, separated by commas (default: the first "
            "two); Fashion-MNIST's folder."
        ),
    ] = None,
    count: Annotated[
        int | None, typer.Option(help="Windows (default 64) or images (default all).")
    ] = None,
    length: Annotated[int, typer.Option(help="Tokens in a window.")] = 256,
    batch_size: Annotated[
        int | None, typer.Option(help="Windows (default 4) or images (default 500) at a time.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="cpu, cuda, or auto: spread over what there is.")
    ] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Measure perplexity or accuracy on data that no calibration sees.

    Causal language models: perplexity on held-out Wikipedia leads and on held-out pages of Python's
    own reference, another kind of text. Masked ones: the same with 15 % of the tokens hidden. Image
    classifiers: accuracy on the test split of Fashion-MNIST. Padding never counts.

    Example: icbs evaluate garment-mlp
    """
    from icbs.evaluate import density

    loaded = _load(model, device, dtype)
    if loaded.task == "image-classification":
        sources: list[str | None] = [data]
        batch_size = 500 if batch_size is None else batch_size
    else:
        sources = list(_words("wikipedia,pydoc" if data is None else data))
        if not sources:
            raise typer.BadParameter(f"--data is {data!r}, expected wikipedia, pydoc or a file")
        count = 64 if count is None else count
        batch_size = 4 if batch_size is None else batch_size
    results = [_measured(loaded, source, count, length, batch_size) for source in sources]
    answer = {
        "model": loaded.name,
        "revision": loaded.revision,
        "note": loaded.note,
        "task": loaded.task,
        "density": density(loaded.model),
        "results": results,
    }
    if as_json:
        print(json.dumps(answer))
        return
    title = f"{loaded.name} ({loaded.note}), density {answer['density']:.3f}"
    columns = ("data", "samples", "targets", "loss", "perplexity", "accuracy", "seconds")
    formats = ("{}", "{}", "{}", "{:.4f}", "{:.2f}", "{:.2%}", "{:.1f}")
    _table(title, columns, _formatted(results, columns, formats))


def _measured(
    loaded: LoadedModel, source: str | None, count: int | None, length: int, batch_size: int
) -> dict[str, Any]:
    """One row of `icbs evaluate`."""
    from icbs.data import load_samples
    from icbs.evaluate import evaluate as measure

    samples = load_samples(loaded, source, part="evaluation", count=count, length=length)
    place = source or "Fashion-MNIST"
    start = time.perf_counter()
    quality = measure(loaded.model, samples, batch_size=batch_size, title=f"Evaluating on {place}")
    # Classes have no perplexity, and JSON no infinity.
    shown = loaded.task.endswith("-lm") and math.isfinite(quality.perplexity)
    return {
        "data": place,
        "samples": len(samples),
        "targets": quality.targets,
        "loss": quality.loss,
        "perplexity": quality.perplexity if shown else None,
        "accuracy": quality.accuracy,
        "seconds": time.perf_counter() - start,
    }


@app.command()
def solve(
    instance: Annotated[
        Path, typer.Argument(help=".block.safetensors, .bqm, .lp, .ubqp, .qubo, .qplib")
    ],
    solver: Annotated[str, typer.Option(help="Name from 'icbs solvers'.")] = "annealing",
    time_limit: Annotated[float | None, typer.Option(help="Seconds.")] = None,
    reads: Annotated[int | None, typer.Option(help="Independent restarts or shots.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same answer.")] = 0,
    cardinality: Annotated[
        int | None, typer.Option(help="Number of ones, for files that do not say.")
    ] = None,
    give_initial: Annotated[
        bool, typer.Option(help="Start from the incumbent in the file, if the solver can.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Solve one instance and print the best feasible state found.

    Example: icbs solve blocks/a.block.safetensors --solver relaxation --json
    """
    from solvers import Budget, load, make

    sampler = make(solver)
    problem = load(instance, cardinality=cardinality)
    if give_initial and problem.initial is None:
        raise FormatError(f"{instance.name} holds no incumbent: leave --give-initial out")
    samples = sampler.sample_problem(
        problem.blinded(),
        budget=Budget(time_limit=time_limit, reads=reads),
        seed=seed,
        initial=problem.initial if give_initial else None,
    )
    states = samples.record.sample
    # The solver does not grade itself.
    energies = problem.energy(states)
    best = int(energies.argmin())
    answer = {
        "solver": solver,
        "lane": sampler.lane,
        "n": problem.n,
        "cardinality": problem.cardinality,
        "energy": float(energies[best]),
        "loss_change": float(energies[best]) * problem.scale,
        "lower_bound": samples.info.get("lower_bound"),
        "proved_optimal": bool(samples.info.get("proved_optimal", False)),
        "reads": len(samples),
        "received_incumbent": samples.info["received_incumbent"],
        "seconds": samples.info["timing"],
        "ones": states[best].nonzero()[0].tolist(),
    }
    if as_json:
        print(json.dumps(answer))
        return
    ones = answer.pop("ones")
    seconds = answer.pop("seconds")
    rows = [(key, "-" if value is None else value) for key, value in answer.items()]
    rows += [(f"seconds, {stage}", f"{value:.4f}") for stage, value in seconds.items() if value]
    if problem.initial is not None:
        swaps = int((states[best].astype(bool) & ~problem.initial).sum())
        rows.append(("swaps from the incumbent", swaps))
    _table(instance.name, ("", ""), rows)
    print(f"{len(ones)} ones; their places: --json")


@app.command()
def bench(
    study: Annotated[
        str | None, typer.Argument(help="A study file (TOML), or the name of one that comes along.")
    ] = None,
    instances: Annotated[str, typer.Option(help="Files or globs, separated by commas.")] = "",
    solver_names: Annotated[
        str, typer.Option("--solvers", help="Names from 'icbs solvers', separated by commas.")
    ] = "",
    time_limits: Annotated[str, typer.Option(help="Seconds, separated by commas.")] = "1",
    seeds: Annotated[int, typer.Option(help="Seeds per instance, solver and budget.")] = 3,
    store: Annotated[Path, typer.Option(help="SQLite file for the records.")] = Path("runs.sqlite"),
    cardinality: Annotated[
        int | None, typer.Option(help="Number of ones, for files that do not say.")
    ] = None,
    give_initial: Annotated[
        bool, typer.Option(help="Hand every solver that can use it the incumbent.")
    ] = False,
    workers: Annotated[int, typer.Option(help="Processes.")] = 1,
    scheduler: Annotated[
        str | None, typer.Option(help="Dask scheduler, such as tcp://HOST:8786: its workers run.")
    ] = None,
    isolate: Annotated[
        bool, typer.Option(help="A process of its own for the solvers even with one worker.")
    ] = False,
    memory_limit: Annotated[
        float | None, typer.Option(help="GiB that a solver may take for one cell (Linux).")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Add to a store that already has runs.")] = False,
    smoke: Annotated[
        bool, typer.Option(help="The study's small size, [smoke] in its file.")
    ] = False,
    rehearse: Annotated[
        bool, typer.Option(help="Run solvers that cost money on the local simulator instead.")
    ] = False,
) -> None:
    """Run a study: every solver on every instance, under one clock and one scorer.

    Either a study file, or --instances and --solvers. A stopped study goes on with --resume: cells
    that are in the store are not run again, tasks that were paid for are collected.

    A solver that hangs or crashes costs one row with --isolate, several --workers or a --scheduler;
    in this process it would stop the study.

    Example: icbs bench --instances 'blocks/*' --solvers annealing,neal --time-limits 0.1,1

    Example: icbs bench penalty --smoke --store penalty.sqlite
    """
    from experiments import Study, run
    from experiments.study import study_path

    if (study is None) == (not (instances and solver_names)):
        raise typer.BadParameter("give either a STUDY file or both --instances and --solvers")
    if study is not None:
        plan = Study.from_toml(study_path(study), smoke=smoke)
    else:
        plan = Study(
            name=store.stem,
            instances=_words(instances),
            solvers=_words(solver_names),
            budgets=_numbers(time_limits, float, "--time-limits"),
            seeds=range(seeds),
            give_initial=give_initial,
            cardinality=cardinality,
        )
    if rehearse:
        plan = plan.rehearsed()
    output_folder(store.parent)
    if store.exists() and not resume:
        raise OutputError(f"--store {store} exists: pass --resume to add to it, or another file")
    run(plan, store, workers=workers, scheduler=scheduler, isolate=isolate, memory=memory_limit)
    print(store)


@app.command()
def quote(
    instances: Annotated[list[Path], typer.Argument(help="Instance files.")],
    device: Annotated[str, typer.Option(help="ARN or short name, such as SV1 or Garnet.")],
    shots: Annotated[int, typer.Option(help="Shots of one task.")],
    tasks: Annotated[int, typer.Option(help="Tasks per instance: seeds x depths x mixers.")] = 1,
    task_seconds: Annotated[
        float, typer.Option(help="Run time reserved on a simulator, as the solver's option.")
    ] = 60.0,
    offline: Annotated[bool, typer.Option(help="Use the committed price table only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Price one task per instance on a device of Amazon Braket, before anything is submitted.

    Needs no account. Simulators bill run time, 3 seconds at least: their quote is a range.

    Example: icbs quote blocks/*.block.safetensors --device Garnet --shots 1000
    """
    from solvers import load
    from solvers.qaoa.devices import find_device, priced

    if tasks < 1:
        raise typer.BadParameter(f"--tasks is {tasks}, expected a whole number from 1")
    found = find_device(device)
    found = found if offline else priced(found)
    least, most = found.price(shots), found.price(shots, task_seconds)
    rows = []
    for path in instances:
        n = load(path).n
        fits = found.qubits is None or n <= found.qubits
        rows.append((path.name, n, "yes" if fits else f"no, {found.qubits} qubits"))
    count = tasks * len(instances)
    answer = {
        "device": found.arn,
        "source": found.source,
        "shots": shots,
        "tasks": count,
        "usd_per_task": most,
        "usd_at_least": count * least,
        "usd_at_most": count * most,
    }
    if as_json:
        fitting = [{"name": name, "n": n, "fits": fits == "yes"} for name, n, fits in rows]
        print(json.dumps(answer | {"instances": fitting}))
        return
    _table(found.name, ("instance", "qubits", "fits"), rows)
    print(f"{count} tasks of {shots} shots: ${count * most:.4f} at most", end="")
    print("" if found.is_qpu else f", ${count * least:.4f} at 3 s each")
    print(f"Prices: {found.source}")


@app.command()
def report(
    store: Annotated[Path, typer.Argument(help="The SQLite file of a study.")],
    out: Annotated[Path, typer.Option(help="Folder for the page and the figures.")],
    style: Annotated[
        str, typer.Option(help="'screen', or 'paper': figures for LaTeX, their captions beside.")
    ] = "screen",
) -> None:
    """Turn a store into one self-contained HTML page and its figures (PDF, SVG, PNG)."""
    from experiments.palette import STYLES
    from experiments.report import write

    if style not in STYLES:
        raise typer.BadParameter(f"--style is {style!r}, expected one of {', '.join(STYLES)}")
    print(write(store, output_folder(out), style=style))


stores = typer.Typer(help="Check, export and merge the stores of studies.", no_args_is_help=True)
app.add_typer(stores, name="store")


@stores.command("check")
def store_check(
    store: Annotated[Path, typer.Argument(help="The SQLite file of a study.")],
    sample: Annotated[
        int | None,
        typer.Option(help="Score so many cells again, drawn at random; all if left out."),
    ] = None,
) -> None:
    """Look for damage: the file, its references, hashes, energies, keys. Nothing is changed."""
    from experiments.errors import StoreError
    from experiments.storecheck import check

    found = check(store, sample=sample)
    print(f"{found.runs} cells, {found.instances} instances, {found.rescored} cells scored again")
    for fault in found.faults:
        print(fault)
    if not found.sound:
        raise StoreError(f"store {store} is damaged; go back to a copy of it or run it anew")


@stores.command("export")
def store_export(
    store: Annotated[Path, typer.Argument(help="The SQLite file of a study.")],
    out: Annotated[Path, typer.Option(help="A file whose name ends in .csv or .parquet.")],
) -> None:
    """Write the runs, with instances, references and gaps, for other programs."""
    from experiments.export import export as export_runs

    print(export_runs(store, out))


@stores.command("merge")
def store_merge(
    sources: Annotated[list[Path], typer.Argument(help="Stores; they are not changed.")],
    out: Annotated[Path, typer.Option(help="The store to add to; made if missing.")],
) -> None:
    """Put the cells of several stores into one, by cell key; what is there stays."""
    from experiments.storemerge import merge, summary

    print(summary(merge(sources, out)))


if __name__ == "__main__":
    main()
