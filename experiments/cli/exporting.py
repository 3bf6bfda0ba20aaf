"""Blocks cut out of a model and written to files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from experiments.cli.app import Density, Model, command, numbers, output_folder, typed, words
from experiments.cli.models import check_before_loading
from experiments.cli.writing import Penalty, file_types, write
from icbs.blocks.kinds import KINDS
from icbs.errors import nearest


@command(
    "icbs export smollm2 --layers '*.28.mlp.*' --sizes 64,1024 --format bqm,lp --out blocks",
    "icbs export smollm2 --kind row --layers '*.15.mlp.up_proj' --rows 3,289 --out rows",
    "icbs export smollm2 --kind row --pattern 2:4 --sizes 32,128 --out patterns",
)
def export(
    context: typer.Context,
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder for the files.")],
    kind: Annotated[
        str,
        typer.Option(
            help="What the energy of a block says. "
            + " ".join(f"{name}: {kind.meaning}." for name, kind in KINDS.items())
        ),
    ] = "loss",
    layers: Annotated[
        str, typer.Option(help="Patterns of layer names, such as '*.mlp.*', by commas.")
    ] = "*.mlp.down_proj",
    sizes: Annotated[
        str | None,
        typer.Option(
            help="Variables of the blocks, by commas (default 16,64,1024; of rows: whole rows). "
            "Smaller parts of a row are nested, the rest as the current mask has it."
        ),
    ] = None,
    density: Density = 0.5,
    fisher: Annotated[
        str,
        typer.Option(help="Curvature of loss blocks: sequence, position or both, by commas."),
    ] = "sequence,position",
    rows: Annotated[
        str | None,
        typer.Option(help="Rows, that is outputs, of each layer by number from 0, by commas."),
    ] = None,
    draw: Annotated[int, typer.Option(min=1, help="Or how many rows of each layer are drawn.")] = 4,
    pattern: Annotated[
        str | None,
        typer.Option(help="N:M such as 2:4: rows that keep N of every M consecutive inputs."),
    ] = None,
    shrinkage: Annotated[
        float,
        typer.Option(help="Of a row's input correlations, 0 to 1; at 1 Wanda's mask is the best."),
    ] = 0.0,
    lam: Annotated[
        float,
        typer.Option(
            help="Share of the loss block in a mix, 0 to 1. Its linear part is large: from 0.001 "
            "on it decides nearly alone."
        ),
    ] = 1e-4,
    sequential: Annotated[
        bool, typer.Option("--sequential", help="Rows see inputs of the model pruned so far.")
    ] = False,
    weighted: Annotated[
        bool, typer.Option("--weighted", help="Positions count by the gradient of the loss there.")
    ] = False,
    budget: Annotated[
        str,
        typer.Option(
            help="row: a block a row; rows: one block, each row a group; layer: one budget for all."
        ),
    ] = "row",
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            help="File types to write besides .block.safetensors, separated by commas, such as "
            "bqm,lp; an unknown one is answered with the list.",
        ),
    ] = "",
    penalty: Penalty = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Calibration: 'wikipedia', 'pydoc' or a UTF-8 file; for images, the folder of "
            "Fashion-MNIST or 'hub'."
        ),
    ] = None,
    count: Annotated[int, typer.Option(help="Calibration windows or images.")] = 16,
    length: Annotated[
        int | None,
        typer.Option(help="Tokens in a window (default 128, or the model's limit)."),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Of everything random: rows, the order of the variables, sketches.")
    ] = 0,
) -> None:
    """Cut blocks out of a model and write them to files.

    Of kind loss there is one block for each layer, size and curvature; on most of them every solver
    ties. Of kind row there is one for each layer, row and size, and solvers differ. The layers are
    pruned to the density first, by Wanda. A .block.safetensors file of kind loss holds a factor of
    the matrix, so that 4096 variables take 0.6 MB; other files hold the whole matrix.
    """
    from icbs.patterns import parse_pattern
    from icbs.settings import RowSettings, Settings
    from solvers.io.formats import CONTAINER, file_name, format_of

    _check_kind(context, kind)
    types = [format_of(CONTAINER), *file_types(formats)]
    for word in words(fisher):
        if word not in ("sequence", "position"):
            raise typer.BadParameter(f"--fisher is {word!r}, expected sequence or position")
    if pattern is not None and not typed(context, "density"):
        keep, m = parse_pattern(pattern)
        density = keep / m
    told: dict[str, Any] = {"density": density, "seed": seed}
    if kind == "loss":
        wanted = numbers(sizes or "16,64,1024", int, "--sizes")
        checked = Settings(**told)
        told |= {"sizes": wanted, "fishers": words(fisher), "batch_size": count}
    else:
        wanted = [] if sizes is None else numbers(sizes, int, "--sizes")
        told |= {
            "rows": draw if rows is None else tuple(numbers(rows, int, "--rows", zero=True)),
            "pattern": pattern, "shrinkage": shrinkage, "sequential": sequential,
            "weighted": weighted, "budget": budget, "lam": lam if kind == "mix" else 0.0,
        }  # fmt: skip
        checked = Settings(density=RowSettings(**told).density, pattern=pattern)
    check_before_loading(
        model, layers, [checked], None, data, length, "cpu", "float32", count=count
    )
    output_folder(out)
    # Not before mistakes are told: these take seconds.
    from experiments.instances.cutting import parts
    from icbs.data.loading import load_samples
    from icbs.data.samples import usual_length
    from icbs.models.loading import load_model

    loaded = load_model(model)
    length = usual_length(loaded.model, length, 128)
    samples = load_samples(loaded, data, count=count, length=length)
    problems = KINDS[kind].export(loaded, samples, layers=layers, **told)
    if kind != "loss" and wanted:
        problems = [part for row in problems for part in parts(row, wanted)]
    named = [(file_name(problem, ""), problem) for problem in problems]
    write(named, f"Writing {len(named)} blocks", len(named), out, types, penalty)


def _check_kind(context: typer.Context, kind: str) -> None:
    """Refuses an unknown kind of block, and options that blocks of this kind do not have."""
    if kind not in KINDS:
        raise typer.BadParameter(f"--kind is {kind!r}; {nearest(kind, KINDS)}")
    every = {option for one in KINDS.values() for option in one.options}
    for option in typed(context, *sorted(every - set(KINDS[kind].options))):
        raise typer.BadParameter(f"{option} is given, which blocks of kind {kind} do not have")
