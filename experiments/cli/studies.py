"""Studies and their records: demo, bench, report, store."""

from __future__ import annotations

import hashlib
import sys
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.cli.app import (
    INTERRUPTED,
    UNUSED,
    Group,
    app,
    command,
    numbers,
    output_folder,
    resumable,
    typed,
    words,
)
from icbs.errors import OutputError

if TYPE_CHECKING:
    import dimod

    from experiments.study.study import Study


@command("icbs demo --fast")
def demo(
    fast: Annotated[
        bool, typer.Option("--fast", help="Fewer sizes and seeds, shorter texts.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder for the blocks, store and report.")] = Path(
        "icbs-demo"
    ),
) -> None:
    """Prune a real language model, solve its blocks with twelve solvers, write a report.

    The first run downloads 98 MB: a model of 135 million parameters and the beginnings of Wikipedia
    articles. The folder gets blocks/ (the instances), runs.sqlite (every record) and report.html
    (open it).
    """
    with resumable("the same command starts anew; nothing is downloaded twice"):
        # Not outside: this imports most of what there is.
        from experiments.cli.demo import run_demo

        print(run_demo(output_folder(out), fast=fast))


@command(
    "icbs bench --instances 'library:rows/*' --solvers tabu,annealing,neal --time-limits 0.1,1",
    "icbs bench --instances 'blocks/*' --solvers annealing,neal --time-limits 0.1,1",
    "icbs bench penalty --smoke --store penalty.sqlite",
)
def bench(
    context: typer.Context,
    study: Annotated[
        str | None,
        typer.Argument(help="A study file (TOML), or the name of a study in the package."),
    ] = None,
    instances: Annotated[
        str,
        typer.Option(
            help="Files or patterns such as 'blocks/*', or 'library:rows/*' of the instances that "
            "come with the package, separated by commas."
        ),
    ] = "",
    solver_names: Annotated[
        str,
        typer.Option(
            "--solvers",
            help="Names from 'icbs solvers', or MODULE:CLASS of your own, separated by commas.",
        ),
    ] = "",
    time_limits: Annotated[str, typer.Option(help="Seconds, separated by commas.")] = "1",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each solver on each instance.")] = 3,
    store: Annotated[Path, typer.Option(help="SQLite file for the records.")] = Path("runs.sqlite"),
    cardinality: Annotated[
        int | None, typer.Option(help="Number of ones, for files that do not say.")
    ] = None,
    give_initial: Annotated[
        bool,
        typer.Option(
            "--give-initial",
            help="Give every solver that can use it the current mask as its start.",
        ),
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes that solve side by side.")] = 1,
    scheduler: Annotated[
        str | None,
        typer.Option(help="A Dask scheduler, such as tcp://HOST:8786, whose workers solve."),
    ] = None,
    isolate: Annotated[
        bool,
        typer.Option(
            "--isolate", help="Solve in a process apart, so that a crash costs one row only."
        ),
    ] = False,
    memory_limit: Annotated[
        float | None, typer.Option(help="GiB that a solver may take for one run (Linux only).")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Add to a store that already has runs.")
    ] = False,
    smoke: Annotated[
        bool,
        typer.Option(
            "--smoke", help="Run the study's small version, the table [smoke] of its file."
        ),
    ] = False,
    rehearse: Annotated[
        bool,
        typer.Option("--rehearse", help="Use the local simulator for solvers that cost money."),
    ] = False,
    emulate: Annotated[
        bool,
        typer.Option(
            "--emulate",
            help="Rehearse on emulators of the devices, with their gates, connections and noise.",
        ),
    ] = False,
    aws_spending_limit: Annotated[
        bool,
        typer.Option(
            "--aws-spending-limit",
            help="Have AWS as well refuse what would exceed max_cost, for the length of the run.",
        ),
    ] = False,
) -> None:
    """Run a study: every solver on every instance, under one clock and one scorer.

    Give either a study file, or --instances and --solvers. A cell is one run: a solver, an
    instance, a time limit and a seed. --resume goes on with a study that was stopped: cells that
    are in the store are not run again, and tasks that were paid for are collected.

    With --isolate, several --workers or a --scheduler, a solver that hangs or crashes costs one
    row; otherwise it stops the study.

    Exit status: 0 if a cell is done, now or before; 1 if none is; 130 after Ctrl-C.
    """
    _check_bench(context)
    from experiments.errors import StudyError
    from experiments.study.paths import study_path
    from solvers.registry import entry

    path = None if study is None else study_path(study)
    for name in words(solver_names):
        if ":" not in name:
            entry(name)
    # Not before mistakes are told: this takes a second, and what runs a study several.
    from experiments.study.study import Study

    if path is not None:
        plan = Study.from_toml(path, smoke=smoke)
    else:
        plan = Study(
            name=store.stem,
            instances=words(instances),
            solvers=[_made(name) if ":" in name else name for name in words(solver_names)],
            budgets=numbers(time_limits, float, "--time-limits"),
            seeds=range(seeds),
            give_initial=give_initial,
            cardinality=cardinality,
        )
    for spec in plan.specs:
        if spec.sampler is None:
            entry(spec.name)
    from experiments import run

    if rehearse or emulate:
        plan = plan.rehearsed(emulator=emulate)
    output_folder(store.parent, "the folder of --store")
    if not resume:
        _check_unused(store)
    with (
        _spending_limits(plan, store, aws_spending_limit),
        resumable("the same command goes on, with --resume if the store has runs"),
    ):
        outcome = run(
            plan, store, workers=workers, scheduler=scheduler, isolate=isolate, memory=memory_limit,
            command=["icbs", *sys.argv[1:]] if sys.argv[1:2] == ["bench"] else [],
        )  # fmt: skip
    print(outcome.summary)
    print(store)
    if outcome.failure:
        print(f"first error: {outcome.failure}", file=sys.stderr)
    if outcome.interrupted:
        raise typer.Exit(INTERRUPTED)
    ended = outcome.counts.keys() | outcome.earlier.keys()
    if ended and "done" not in ended:
        raise StudyError(f"no cell is done; the reasons: icbs report {store} --out FOLDER")


def _spending_limits(plan: Study, store: Path, wanted: bool) -> AbstractContextManager[None]:
    if not wanted:
        return nullcontext()
    from experiments.running.spending import spending_limits

    run = hashlib.sha256(str(store.resolve()).encode()).hexdigest()[:32]
    return spending_limits(plan, run, lambda line: print(f"icbs: {line}", file=sys.stderr))


def _check_bench(context: typer.Context) -> None:
    """Refuses options of `bench` that do not go together."""
    given = context.params
    of_the_study = ("instances", "solver_names", "time_limits", "seeds", "cardinality",
                    "give_initial")  # fmt: skip
    if given["study"] is not None:
        context.meta[UNUSED] = of_the_study
        if own := typed(context, *of_the_study):
            raise typer.BadParameter(
                f"{own[0]} is the study's to say: write it into the STUDY file"
            )
    elif not (given["instances"] and given["solver_names"]):
        raise typer.BadParameter("give either a STUDY file or both --instances and --solvers")
    elif given["smoke"]:
        raise typer.BadParameter("--smoke is the small size of a STUDY file: leave it out")
    if given["memory_limit"] is not None and given["memory_limit"] <= 0:
        raise typer.BadParameter(
            f"--memory-limit is {given['memory_limit']:g}, expected GiB above 0"
        )
    if given["scheduler"] is not None and (twice := typed(context, "workers", "isolate")):
        raise typer.BadParameter(f"--scheduler brings its own workers: leave {twice[0]} out")


def _check_unused(store: Path) -> None:
    """Refuses a store that has runs."""
    from experiments import Store

    if store.is_file() and store.stat().st_size:
        with Store(store) as before:
            used = before.has_runs
        if used:
            raise OutputError(
                f"--store {store} has runs: pass --resume to add to them, or another file"
            )


def _made(target: str) -> dimod.Sampler:
    """A sampler of ``MODULE:CLASS``, where the module may lie in this folder.

    Raises:
        StudyError: it cannot be imported or made, or is no dimod sampler.
    """
    import dimod

    from experiments.errors import StudyError

    module, _, name = target.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # last, so that it hides nothing
    remedy = "give MODULE:CLASS of a dimod sampler that is made without arguments"
    try:
        sampler = getattr(import_module(module), name)()
    except Exception as error:  # whatever their module raises
        reason = f"{type(error).__name__}: {error}"
        raise StudyError(f"--solvers has {target!r}, which fails: {reason}; {remedy}") from error
    if not isinstance(sampler, dimod.Sampler):
        raise StudyError(f"--solvers has {target!r}, which is no dimod sampler; {remedy}")
    return sampler


@command("icbs report runs.sqlite --out page")
def report(
    store: Annotated[Path, typer.Argument(help="The SQLite file of a study.")],
    out: Annotated[Path, typer.Option(help="Folder for the page and the figures.")],
    style: Annotated[
        str,
        typer.Option(help="'screen', or 'paper' for figures that fit LaTeX, with their captions."),
    ] = "screen",
) -> None:
    """Turn a store into one self-contained HTML page and its figures (PDF, SVG, PNG)."""
    from experiments.store.paths import store_path

    store_path(store)
    # Not before mistakes are told: these import most of what there is.
    from experiments.figures.palette import STYLES
    from experiments.report.page import write

    if style not in STYLES:
        raise typer.BadParameter(f"--style is {style!r}, expected one of {', '.join(STYLES)}")
    print(write(store, output_folder(out), style=style))


stores = typer.Typer(
    cls=Group,
    help="Check, export and merge the stores of studies.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(stores, name="store")


@command("icbs store check runs.sqlite --sample 100", name="check", into=stores)
def store_check(
    store: Annotated[Path, typer.Argument(help="The SQLite file of a study.")],
    sample: Annotated[
        int | None,
        typer.Option(help="Score only so many cells again, drawn at random (default all)."),
    ] = None,
) -> None:
    """Look for damage in a store: its file, references, hashes, keys and energies.

    Every energy is computed again from the state that is stored beside it. Nothing is changed.
    """
    from experiments.errors import StoreError
    from experiments.store.paths import store_path

    store_path(store)
    from experiments.store.check import check

    found = check(store, sample=sample)
    print(f"{found.runs} cells, {found.instances} instances, {found.rescored} cells scored again")
    for fault in found.faults:
        print(fault)
    if not found.sound:
        raise StoreError(f"store {store} is damaged; go back to a copy of it or run it anew")


@command("icbs store export runs.sqlite --out runs.csv", name="export", into=stores)
def store_export(
    store: Annotated[Path, typer.Argument(help="The SQLite file of a study.")],
    out: Annotated[Path, typer.Option(help="A file whose name ends in .csv or .parquet.")],
) -> None:
    """Write a store's runs, with instances, references and gaps, as CSV or Parquet."""
    from experiments.store.paths import store_path

    store_path(store)
    from experiments.metrics.export import export as export_runs

    print(export_runs(store, out))


@command(
    "icbs store qoblib runs.sqlite --out mine --submitter 'J. Doe' --affiliation X --reference URL",
    name="qoblib",
    into=stores,
)
def store_qoblib(
    store: Annotated[Path, typer.Argument(help="The SQLite file of a study.")],
    out: Annotated[Path, typer.Option(help="Folder for the submissions.")],
    submitter: Annotated[str, typer.Option(help="Who submits; several by commas.")],
    affiliation: Annotated[str, typer.Option(help="As many, in that order.")],
    reference: Annotated[str, typer.Option(help="A link to what was run: paper or code.")],
) -> None:
    """Write a store's results as QOBLIB, the quantum optimisation library, takes submissions.

    For each solver, budget and instance: a summary of 30 columns, the best state, and how every run
    came to its best energy over time. Fields that a store does not know are N/A.
    """
    from experiments.store.paths import store_path

    store_path(store)
    from experiments.metrics.qoblib import Submitter, submit

    who = Submitter(submitter, affiliation, reference)
    for folder in submit(store, output_folder(out), who):
        print(folder)


@command("icbs store merge a.sqlite b.sqlite --out both.sqlite", name="merge", into=stores)
def store_merge(
    sources: Annotated[list[Path], typer.Argument(help="Stores to read; they are not changed.")],
    out: Annotated[Path, typer.Option(help="The store to add to, made if it is missing.")],
) -> None:
    """Copy the cells of several stores into one; what is there already stays."""
    from experiments.store.paths import store_path

    for source in sources:
        store_path(source)
    from experiments.store.merge import merge, summary

    print(summary(merge(sources, out)))
