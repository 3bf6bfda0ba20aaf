"""Makes the instances that come with the package, and finds what is best known of them.

    python -m experiments.scripts.library make          # cuts them; minutes (or: rows, parts, ...)
    python -m experiments.scripts.library solve         # best known energies and bounds

``solve`` gives every instance the same budgets: each of `SEARCHES` for `SEARCH_SECONDS`, then a
bound. What the table holds already is kept where it is better, so that it may be run again, by
anybody, for longer: ``--solvers portfolio --seconds 60 --bound-seconds 300``. ``adopt --store
runs.sqlite`` takes the better states of any study.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from experiments.instances.cutting import ROW_POOL, cut_rows
from experiments.instances.library.reading import ROWS, Entry, Rows, folder, problem, table
from experiments.instances.subblocks import nested_subblocks
from experiments.record.hardness import column_spread, condition, greedy_and_one_swap
from experiments.store.database import Store
from experiments.study.sources import RowSource
from icbs.blocks.export import export_blocks
from icbs.blocks.gradients import Fisher
from icbs.blocks.layers import prune_layers
from icbs.blocks.moments import input_moments
from icbs.blocks.probe import usable_layers
from icbs.data.loading import load_samples
from icbs.data.samples import Samples
from icbs.models.loading import LoadedModel, load_model
from icbs.patterns import parse_pattern
from icbs.progress import stage
from icbs.settings import Settings
from solvers import Budget, CardinalityProblem, make, save
from solvers.io.formats import CONTAINER
from solvers.problem import Bools

SEARCHES = ("portfolio", "tabu", "annealing", "tempering", "descent")
SEARCH_SECONDS, BOUND_SECONDS = 1.0, 4.0
# From which number of variables on a proof by branch and bound is not tried.
PROOF_MOST = 64
MASKS = {"d0.5": 0.5, "d0.3": 0.3}
# Where the loss block's linear part and the row's quadratic are of one size.
LAMS = (3e-5, 1e-4, 3e-4)
LADDER = (8, 12, 16, 24, 32, 48, 64, 128)


@dataclass(frozen=True)
class Layer:
    """A layer whose whole rows are instances.

    Attributes:
        model: registered name.
        layer: name in the model.
        short: name in the library.
        rows: by number.
        patterns: N:M patterns beside the densities.
        ladder: the row, mask and sizes of nested parts.
    """

    model: str
    layer: str
    short: str
    rows: tuple[int, ...]
    patterns: tuple[str, ...] = ()
    ladder: tuple[int, str, tuple[int, ...]] | None = None


LAYERS = (
    Layer("smollm2", "model.layers.0.self_attn.q_proj", "smollm2-0-q", (100, 489), ("2:4",),
          (489, "d0.5", LADDER)),
    Layer("smollm2", "model.layers.15.mlp.up_proj", "smollm2-15-up", (3, 289), ("2:4", "4:8"),
          (289, "d0.5", LADDER)),
    Layer("smollm2", "model.layers.29.self_attn.o_proj", "smollm2-29-o", (50, 381), ("2:4",),
          (381, "d0.3", LADDER)),
    Layer("smollm2", "model.layers.15.mlp.down_proj", "smollm2-15-down", (200,)),
    Layer("vit-fashion", "deit.layers.1.mlp.fc2", "vit-1-fc2", (5, 40), ("2:4",)),
    Layer("vit-fashion", "deit.layers.3.attention.o_proj", "vit-3-o", (11,)),
    Layer("garment-mlp", "mlp.layers.1", "garment-1", (7,), ("2:4",)),
)  # fmt: skip
MIXED = LAYERS[1]


def main() -> None:
    """Makes or solves the library."""
    makers = {"rows": whole_rows, "parts": parts, "mixes": mixes, "losses": losses}
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "what", choices=("make", *makers, "solve", "adopt"), help="make: all that is made"
    )
    parser.add_argument("--store", type=Path, help="of a study, to adopt states from")
    parser.add_argument("--only", default="*", help="shell pattern of names to solve")
    parser.add_argument("--solvers", default=",".join(SEARCHES), help="searches, by commas")
    parser.add_argument("--seconds", type=float, default=SEARCH_SECONDS)
    parser.add_argument("--bound-seconds", type=float, default=BOUND_SECONDS)
    arguments = parser.parse_args()
    if arguments.what == "adopt":
        if arguments.store is None:
            parser.error("adopt needs --store, the store of a study")
        write_table(adopted(table(), arguments.store))
    elif arguments.what == "solve":
        searches = arguments.solvers.split(",")
        solve(arguments.only, searches, arguments.seconds, arguments.bound_seconds)
    elif arguments.what == "make":
        write_table([entry for maker in makers.values() for entry in maker()])
    else:
        write_table(remade(table(), list(makers[arguments.what]())))


def remade(known: Sequence[Entry], found: Sequence[Entry]) -> list[Entry]:
    """The table with some instances made again: what is known of the same problem stays.

    Mixes and loss blocks that were not made again go, those of the same model.
    """
    again = {(entry.kind, entry.model) for entry in found if entry.kind in ("mix", "loss")}
    kept = {entry.name: entry for entry in known if (entry.kind, entry.model) not in again}
    same = {(entry.name, entry.sha256): entry for entry in known}
    return list((kept | {e.name: same.get((e.name, e.sha256), e) for e in found}).values())


def solve(pattern: str, searches: Sequence[str], seconds: float, bound_seconds: float) -> None:
    """Searches and bounds for the instances whose names fit; the table is kept after each."""
    entries = list(table())
    chosen = [i for i, entry in enumerate(entries) if fnmatchcase(entry.name, pattern)]
    print(f"load {os.getloadavg()[0]:.1f}")
    with stage(f"Solving {len(chosen)} instances", len(chosen)) as update:
        for number, i in enumerate(chosen):
            entries[i] = solved(entries[i], searches, seconds, bound_seconds)
            write_table(entries)
            update(number + 1)


def write_table(entries: Sequence[Entry]) -> None:
    """All of the table at once."""
    path = folder() / "table.csv"
    part = path.with_suffix(".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Entry)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(entry) for entry in entries)
    part.replace(path)
    table.cache_clear()


def whole_rows() -> Iterator[Entry]:
    """The rows of every layer."""
    for layer in LAYERS:
        yield from made(layer)


def made(layer: Layer) -> Iterator[Entry]:
    """The instances of one layer; writes their files."""
    loaded = load_model(layer.model)
    samples = _samples(loaded)
    modules = usable_layers(loaded.model, layer.layer, samples).layers
    name = next(iter(modules))
    modules = {name: modules[name]}
    (moments,) = input_moments(loaded.model, modules, samples).values()
    weights: list[np.ndarray] = []
    masks: dict[str, np.ndarray] = {}
    wanted = {key: Settings(density=d) for key, d in MASKS.items()} | {
        pattern: Settings(density=kept / m, pattern=pattern)
        for pattern in layer.patterns
        for kept, m in [parse_pattern(pattern)]
    }
    for key, settings in wanted.items():
        whole = replace(settings, batch_size=len(samples))
        pruned = prune_layers(loaded.model, modules, samples, whole)[name]
        pruned.restore()
        shape = tuple(pruned.weight.shape)
        masks[key] = pruned.pruned.reshape(shape).numpy()[list(layer.rows)]
        weights = [pruned.dense.reshape(shape).numpy()[list(layer.rows)].astype(np.float32)]
    # R'R = H, also where H is singular.
    values, vectors = np.linalg.eigh(moments.gram)
    R = np.linalg.qr(np.sqrt(np.maximum(values, 0))[:, None] * vectors.T)[1]
    upper = np.triu_indices(len(R))
    triangle = R[upper].astype(np.float32)
    stored = np.zeros_like(R)
    stored[upper] = triangle
    powers = [float(np.sum((stored @ w.astype(np.float64)) ** 2)) for w in weights[0]]
    meta = {
        "model": loaded.name, "layer": name, "data": samples.source, "note": loaded.note,
        "positions": moments.positions, "rows": list(layer.rows), "powers": powers,
    }  # fmt: skip
    file = f"{layer.short}{ROWS}"
    tensors = {"triangle": triangle, "weights": weights[0]} | {
        f"pruned {key}": np.ascontiguousarray(mask) for key, mask in masks.items()
    }
    save_file(tensors, folder() / file, {"rows": json.dumps(meta)})
    rows = Rows.read(folder() / file)
    for row in layer.rows:
        for key in masks:
            kind = "patterns" if ":" in key else "rows"
            title = f"{kind}/{layer.short}-r{row}-{key.replace(':', 'of')}"
            yield _entry(title, kind, file, rows.problem(str(row), key), str(row), key)


def parts() -> Iterator[Entry]:
    """Nested parts of rows, and of patterns, from the files of rows."""
    for layer in LAYERS:
        rows = Rows.read(folder() / f"{layer.short}{ROWS}")
        if layer.ladder is not None:
            row, key, sizes = layer.ladder
            whole = rows.problem(str(row), key)
            for n, part in nested_subblocks(whole, sizes, pool=ROW_POOL).items():
                yield _container(f"ladder/{layer.short}-r{row}-{key}-n{n}", "ladder", part)
    rows = Rows.read(folder() / f"{MIXED.short}{ROWS}")
    row = MIXED.rows[-1]
    for n, part in nested_subblocks(rows.problem(str(row), "2:4"), (8, 16, 24, 32, 64)).items():
        yield _container(f"patterns/{MIXED.short}-r{row}-2of4-n{n}", "patterns", part)


def mixes() -> Iterator[Entry]:
    """A row together with its loss block."""
    row = MIXED.rows[-1]
    source = RowSource(
        model=MIXED.model, layers=MIXED.layer, rows=[row], sizes=[128], lam=LAMS, count=32,
        length=256,
    )  # fmt: skip
    for lam, part in zip(LAMS, cut_rows(source, progress=False), strict=True):
        yield _container(f"mix/{MIXED.short}-r{row}-lam{lam:g}-n128", "mix", part)


def losses() -> Iterator[Entry]:
    """Loss blocks: the easy end."""
    loaded = load_model("smollm2")
    samples = load_samples(loaded, None, count=16, length=128)
    sizes_of: dict[Fisher, tuple[int, ...]] = {"sequence": (64, 256, 1024), "position": (64, 256)}
    for fisher, sizes in sizes_of.items():
        for block in export_blocks(
            loaded, samples, layers="model.layers.15.mlp.up_proj", sizes=sizes, fishers=(fisher,),
            rank=64, progress=False,
        ):  # fmt: skip
            title = f"loss/smollm2-15-up-{fisher}-n{block.n}"
            yield _container(title, "loss", block)


def adopted(entries: Sequence[Entry], path: Path) -> list[Entry]:
    """The entries with the best states of a store, where those are better."""
    with Store(path) as store:
        runs = store.runs()
        runs = runs[runs["energy"].notna()].sort_values(["energy", "time_limit"], kind="stable")
        first = {str(row["instance"]): row for row in reversed(runs.to_dict("records"))}
        found = list(entries)
        for i, entry in enumerate(entries):
            if entry.sha256 not in first:
                continue
            run, whole = first[entry.sha256], problem(entry)
            state = store.state(str(run["key"]))
            if not whole.is_feasible(state):
                continue
            energy = float(whole.energy(state))
            if energy < entry.best - 1e-12 * abs(entry.best):
                found[i] = _better(
                    entry, whole, energy, state, str(run["solver"]), float(run["time_limit"])
                )
    return found


def _better(
    entry: Entry, whole: CardinalityProblem, best: float, state: Bools, by: str, seconds: float
) -> Entry:
    """The entry with another best known state, and what refers to it."""
    greedy, swapped = _above(whole, best)
    return replace(
        entry, best=best, ones=np.packbits(state).tobytes().hex(), best_by=by,
        best_seconds=seconds, greedy=greedy, one_swap=swapped,
        date=datetime.date.today().isoformat(),
    )  # fmt: skip


def solved(entry: Entry, searches: Sequence[str], seconds: float, bound_seconds: float) -> Entry:
    """The entry with the best energy and bound of these searches, or of before."""
    whole = problem(entry)
    blind = whole.blinded()
    best, state, by, spent = entry.best, entry.state, entry.best_by, entry.best_seconds
    for name in searches:
        samples = make(name).sample_problem(blind, budget=Budget(time_limit=seconds), seed=0)
        found = samples.record.sample[int(np.argmin(samples.record.energy))].astype(bool)
        energy = float(whole.energy(found))
        if energy < best:
            best, state, by, spent = energy, found, name, seconds
    bound, bound_by, bound_spent, proved = (
        entry.bound, entry.bound_by, entry.bound_seconds, entry.proved
    )  # fmt: skip
    prover = "exact" if entry.n <= PROOF_MOST or entry.kind == "loss" else "semidefinite"
    samples = make(prover).sample_problem(blind, budget=Budget(time_limit=bound_seconds), seed=0)
    found = samples.record.sample[0].astype(bool)
    energy = float(whole.energy(found))
    if energy < best:
        best, state, by, spent = energy, found, prover, bound_seconds
    if samples.info["lower_bound"] > bound:
        bound, bound_by, bound_spent = samples.info["lower_bound"], prover, bound_seconds
    proved = best - bound <= samples.info["tolerance"]
    greedy, swapped = _above(whole, best)
    return replace(
        entry, condition=condition(whole), spread=column_spread(whole), best=best,
        ones=np.packbits(state).tobytes().hex(), best_by=by, best_seconds=spent,
        bound=bound, bound_by=bound_by, bound_seconds=bound_spent, proved=bool(proved),
        greedy=greedy, one_swap=swapped, date=datetime.date.today().isoformat(),
    )  # fmt: skip


def _above(whole: CardinalityProblem, best: float) -> tuple[float, float]:
    """How far the greedy state, and a descent from it, are above an energy, as shares of it."""
    greedy, swapped = greedy_and_one_swap(whole)
    size = abs(best) or np.inf
    return (greedy - best) / size, (swapped - best) / size


def _samples(loaded: LoadedModel) -> Samples:
    """Enough positions for H of the widest layer to be regular."""
    images = loaded.name != "smollm2"
    return load_samples(loaded, None, count=2000 if images else 32, length=256)


def _container(title: str, kind: str, block: CardinalityProblem) -> Entry:
    file = f"{title.replace('/', '-')}{CONTAINER}"
    # Wall times would make another file each time.
    meta = {key: v for key, v in block.meta.items() if key != "build_seconds"}
    block = replace(block, meta=meta)
    save(block, Path(folder()) / file)
    return _entry(title, kind, file, block)


def _entry(
    title: str, kind: str, file: str, block: CardinalityProblem, row: str = "", mask: str = ""
) -> Entry:
    """What is known before anybody solved it: the current mask."""
    assert block.initial is not None
    meta = block.meta
    return Entry(
        name=title, kind=kind, file=file, row=row, mask=mask, model=str(meta["model"]),
        layer=str(meta["layer"]), curvature=str(meta["fisher"]), n=block.n, k=block.cardinality,
        groups=block.num_groups, density=float(meta["density"]), sha256=block.content_hash,
        condition=condition(block), spread=column_spread(block), greedy=np.nan, one_swap=np.nan,
        best=float(block.energy(block.initial)), best_by="the current mask", best_seconds=0.0,
        bound=-np.inf, bound_by="", bound_seconds=0.0, proved=False,
        date=datetime.date.today().isoformat(),
        ones=np.packbits(block.initial).tobytes().hex(),
    )  # fmt: skip


if __name__ == "__main__":
    main()
