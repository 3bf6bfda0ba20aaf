"""Reference results: every study of the package in full, small enough for git, and their check.

::

    python -m experiments.scripts.results                     # all studies into results/studies
    python -m experiments.scripts.results penalty ladder      # some of them
    python -m experiments.scripts.results --check             # run anew, compare with what is there

``OUT/NAME`` gets ``runs.parquet``, ``trajectories.parquet`` and ``methods.parquet`` where the study
has such tables, the figures of its report as SVG and PNG, and ``run.json``: command, date, data,
host class, versions, load. A study that was stopped goes on with the same command; one that is
finished is only drawn again. ``density``, ``loop`` and ``loss`` need the full Fashion-MNIST.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.errors import ExperimentError
from experiments.metrics.references import annotate
from experiments.report.page import write
from experiments.running.runner import run
from experiments.scripts.results_check import Finding, compare
from experiments.store.database import TRAJECTORIES, WHOLE_MODELS, Store
from experiments.store.shape import former_names
from experiments.study.paths import STUDIES, study_path
from experiments.study.study import Study
from icbs.errors import IcbsError

RUNS = "runs"
TABLES = (TRAJECTORIES, WHOLE_MODELS)
"""Tables of a store that studies fill besides the runs."""
_SECONDS = "seconds"
_OWN = ["invocation", "seed"]


def finish(study: Study, path: Path, *, progress: bool = True) -> None:
    """Runs what the store lacks, and notes the seconds of a study that ran in one go.

    Raises:
        ExperimentError: it was interrupted; also see `experiments.running.runner.run`.
    """
    fresh, start = not path.exists(), time.perf_counter()
    outcome = run(study, path, progress=progress)
    if outcome.interrupted:
        raise ExperimentError(f"study {study.name}: {outcome.remaining} cells are left; run again")
    if fresh:
        with Store(path, create=True) as store:
            store.put_blob(_SECONDS, json.dumps(time.perf_counter() - start).encode())


def tables(path: Path) -> dict[str, pd.DataFrame]:
    """What is kept of a store: the runs, and the tables of models that the study made."""
    with Store(path) as store:
        kept = {RUNS: annotate(store.runs()).drop(columns=_OWN)}
        found = {name: store.table(name) for name in TABLES}
    return kept | {name: table for name, table in found.items() if table is not None}


def publish(path: Path, folder: Path, *, smoke: bool = False) -> None:
    """Writes a finished store's tables, figures and ``run.json`` into a folder, made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, table in tables(path).items():
        table.to_parquet(folder / f"{name}.parquet", index=False, compression="zstd")
    with tempfile.TemporaryDirectory() as page:
        write(path, page)
        for figure in sorted(Path(page, "figures").iterdir()):
            if figure.suffix in (".svg", ".png"):
                shutil.copy(figure, folder)
    text = json.dumps(_about(path, folder.name, smoke), indent=2)
    (folder / "run.json").write_text(f"{text}\n", "utf-8")


def _about(path: Path, name: str, smoke: bool) -> dict[str, Any]:
    with Store(path) as store:
        calls, runs, seconds = store.invocations(), store.runs(), store.blob(_SECONDS)
    return {
        "command": f"python -m experiments.scripts.results {name}{' --smoke' if smoke else ''}",
        "started": calls[0]["started"],
        "calls": len(calls),
        "seconds": None if seconds is None else round(json.loads(seconds), 1),
        "data": sorted(set(runs["data"].dropna())),
        "cells": runs["status"].value_counts().to_dict(),
        "load": {"median": float(runs["load"].median()), "highest": float(runs["load"].max())},
        "host": calls[-1]["host"],
    }


def committed(folder: Path) -> dict[str, pd.DataFrame]:
    """The tables in a folder of `publish`, of any version, under the columns' present names."""
    files = folder.glob("*.parquet")
    return {one.stem: pd.read_parquet(one).rename(columns=former_names()) for one in files}


def check(study: Study, path: Path, folder: Path, *, progress: bool = True) -> list[Finding]:
    """Runs a study anew and compares it with the committed tables.

    Args:
        study: what to run.
        path: of the new store; removed once it is compared, so that no check is of an old run.
        folder: of the committed tables.
        progress: show what goes on.

    Raises:
        ExperimentError: nothing to compare with, or interrupted.
    """
    if not (folder / f"{RUNS}.parquet").exists():
        raise ExperimentError(f"{folder} holds no reference; run without --check first")
    finish(study, path, progress=progress)
    found = compare(committed(folder), tables(path), study.name)
    path.unlink()
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs or checks studies; the exit status."""
    names = sorted(path.stem for path in STUDIES.glob("*.toml"))
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("studies", nargs="*", default=[], metavar="STUDY", help=", ".join(names))
    parser.add_argument("--check", action="store_true", help="run anew and compare")
    parser.add_argument("--smoke", action="store_true", help="the studies' small size")
    parser.add_argument("--out", type=Path, default=Path("results/studies"))
    parser.add_argument("--stores", type=Path, default=Path("reference-stores"),
                        help="folder of the stores, which are not for git")  # fmt: skip
    given = parser.parse_args(arguments)
    given.stores.mkdir(parents=True, exist_ok=True)
    found: list[Finding] = []
    try:
        for name in given.studies or names:
            study = Study.from_toml(study_path(name), smoke=given.smoke)
            folder = given.out / study.name
            if given.check:
                path = given.stores / f"{study.name}-check.sqlite"
                found += check(study, path, folder)
            else:
                path = given.stores / f"{study.name}.sqlite"
                finish(study, path)
                publish(path, folder, smoke=given.smoke)
                print(folder)
    except (ExperimentError, IcbsError) as error:
        print(f"reference: {error}", file=sys.stderr)
        return 1
    for finding in found:
        print(finding)
    return int(any(finding.breach for finding in found))


if __name__ == "__main__":
    sys.exit(main())
