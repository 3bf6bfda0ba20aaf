"""Studies and their records: demo, bench, report, store."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from icbs.cli.app import app, numbers, output_folder, typed, words
from icbs.errors import OutputError


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
def bench(
    context: typer.Context,
    study: Annotated[
        str | None, typer.Argument(help="A study file (TOML), or the name of one that comes along.")
    ] = None,
    instances: Annotated[str, typer.Option(help="Files or globs, separated by commas.")] = "",
    solver_names: Annotated[
        str, typer.Option("--solvers", help="Names from 'icbs solvers', separated by commas.")
    ] = "",
    time_limits: Annotated[str, typer.Option(help="Seconds, separated by commas.")] = "1",
    seeds: Annotated[int, typer.Option(min=1, help="Seeds per instance, solver and budget.")] = 3,
    store: Annotated[Path, typer.Option(help="SQLite file for the records.")] = Path("runs.sqlite"),
    cardinality: Annotated[
        int | None, typer.Option(help="Number of ones, for files that do not say.")
    ] = None,
    give_initial: Annotated[
        bool, typer.Option(help="Hand every solver that can use it the incumbent.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
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

    Exit status: 0 if a cell was done or all were there before, 1 if none was, 130 after Ctrl-C.

    Example: icbs bench --instances 'blocks/*' --solvers annealing,neal --time-limits 0.1,1

    Example: icbs bench penalty --smoke --store penalty.sqlite
    """
    from experiments import Store, Study, run
    from experiments.errors import StudyError
    from experiments.study import study_path

    own = typed(context, "instances", "solver_names", "time_limits", "seeds", "cardinality",
                "give_initial")  # fmt: skip
    if (study is None) == (not (instances and solver_names)):
        raise typer.BadParameter("give either a STUDY file or both --instances and --solvers")
    if study is not None and own:
        raise typer.BadParameter(f"{own[0]} is the study's to say: write it into the STUDY file")
    if memory_limit is not None and memory_limit <= 0:
        raise typer.BadParameter(f"--memory-limit is {memory_limit:g}, expected GiB above 0")
    if scheduler is not None and (twice := typed(context, "workers", "isolate")):
        raise typer.BadParameter(f"--scheduler brings its own workers: leave {twice[0]} out")
    if study is None and smoke:
        raise typer.BadParameter("--smoke is the small size of a STUDY file: leave it out")
    if study is not None:
        plan = Study.from_toml(study_path(study), smoke=smoke)
    else:
        plan = Study(
            name=store.stem,
            instances=words(instances),
            solvers=words(solver_names),
            budgets=numbers(time_limits, float, "--time-limits"),
            seeds=range(seeds),
            give_initial=give_initial,
            cardinality=cardinality,
        )
    if rehearse:
        plan = plan.rehearsed()
    output_folder(store.parent, "the folder of --store")
    if not resume and store.is_file() and store.stat().st_size:
        with Store(store) as before:
            used = before.has_runs
        if used:
            raise OutputError(
                f"--store {store} has runs: pass --resume to add to them, or another file"
            )
    outcome = run(
        plan, store, workers=workers, scheduler=scheduler, isolate=isolate, memory=memory_limit
    )
    print(outcome.summary)
    print(store)
    if outcome.failure:
        print(f"first error: {outcome.failure}", file=sys.stderr)
    if outcome.interrupted:
        raise typer.Exit(130)
    if outcome.counts and "done" not in outcome.counts:
        raise StudyError(f"no cell was done; the reasons: icbs report {store} --out FOLDER")


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
