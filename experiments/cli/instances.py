"""The instances that come with the package: list, verify, copy, export."""

from __future__ import annotations

import csv
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.app import app, command, output_folder
from experiments.cli.tables import print_table
from experiments.cli.writing import Penalty, file_types, write

library = typer.Typer(
    help="Real instances that come with the package: no model and no download.",
    no_args_is_help=True,
)
app.add_typer(library, name="instances", rich_help_panel=None)

Pattern = Annotated[
    str, typer.Argument(help="Shell pattern of names, such as 'rows/*' or '*-n64'.")
]


@command("icbs instances list 'rows/*'", name="list", into=library)
def listed(
    pattern: Pattern = "*",
    as_csv: Annotated[bool, typer.Option("--csv", help="The whole table as CSV.")] = False,
) -> None:
    """List instances: what they are, how hard, and what is known of them.

    rows: one output of a layer; the energy is the share of the output that is lost. ladder: nested
    parts of a row. patterns: rows that keep N of every M inputs. mix: a row and its loss block.
    loss: the paper's blocks, on which every solver ties.

    "greedy" and "one-swap" say how far a greedy choice, and the one-swap optimum next to it, are
    above the best known energy; "certified" how far that can be above the optimum at most.
    """
    from experiments.instances.library.reading import Entry, matching
    from experiments.metrics.readable import share

    entries = matching(pattern)
    if as_csv:
        writer = csv.DictWriter(sys.stdout, [f.name for f in fields(Entry)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(asdict, entries))
        return
    rows = [
        (
            entry.name, entry.n, entry.k, entry.groups, f"{entry.density:.2g}",
            f"{entry.condition:.1e}", f"{entry.spread:.1e}", share(entry.greedy),
            share(entry.one_swap), f"{entry.best:.6g}",
            "proved" if entry.proved else share(entry.gap), entry.best_by,
        )
        for entry in entries
    ]  # fmt: skip
    columns = (
        "name", "n", "k", "groups", "density", "condition", "spread", "greedy", "one-swap",
        "best known", "certified", "found by",
    )  # fmt: skip
    print_table(f"{len(rows)} instances", columns, rows)


@command("icbs instances verify", into=library)
def verify(pattern: Pattern = "*") -> None:
    """Check that files are as the table says, and that best known states have their energies.

    Exit status: 1 if one is not.
    """
    from experiments.instances.library.reading import complaint, matching
    from icbs.progress import stage

    entries, wrong = matching(pattern), []
    with stage(f"Verifying {len(entries)} instances", len(entries)) as update:
        for number, entry in enumerate(entries):
            if said := complaint(entry):
                wrong.append(said)
            update(number + 1)
    for said in wrong:
        print(said)
    print(f"{len(entries) - len(wrong)} of {len(entries)} instances are as the table says")
    if wrong:
        raise typer.Exit(1)


@command("icbs instances copy 'ladder/*' --out ladder --format qs", into=library)
def copy(
    out: Annotated[Path, typer.Option(help="Folder for the files.")],
    pattern: Pattern = "*",
    formats: Annotated[
        str,
        typer.Option("--format", help="File types, by commas; .block.safetensors if left out."),
    ] = "",
    penalty: Penalty = None,
) -> None:
    """Write instances as files for other programs."""
    from experiments.instances.library.reading import matching, problem
    from solvers.io.formats import CONTAINER, format_of

    types = file_types(formats) or [format_of(CONTAINER)]
    entries = matching(pattern)
    output_folder(out)
    named = ((entry.name.replace("/", "-"), problem(entry)) for entry in entries)
    write(named, f"Writing {len(entries)} instances", len(entries), out, types, penalty)
