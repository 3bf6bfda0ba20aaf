"""`icbs demo`: blocks of a real language model, every solver on them, one page of results."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from experiments.report.page import write
from experiments.running.runner import run
from experiments.store.database import APPLIED, PERPLEXITY, Store
from experiments.study.study import Study
from icbs.blocks.capture import Forward
from icbs.blocks.export import export_blocks
from icbs.blocks.layers import prune_layers
from icbs.data.loading import load_samples
from icbs.data.samples import Samples
from icbs.evaluation.quality import perplexity
from icbs.loop.moves import Move
from icbs.loop.pruner import Pruner
from icbs.models.loading import LoadedModel, load_model
from icbs.models.prunable import prunable_layers
from icbs.progress import stage
from icbs.settings import Settings
from solvers import Budget, CardinalityProblem, make, save
from solvers.io.formats import file_name

MODEL = "smollm2"
DENSITY = 0.5
# The last blocks of the model: what lies in front of them is computed once.
LOOP_LAYERS = "*.27.*,*.28.*,*.29.*"
STUDY_LAYERS = (
    "model.layers.27.self_attn.q_proj,model.layers.28.mlp.up_proj,model.layers.29.mlp.down_proj"
)
STEPS = 5
CONTESTANTS = (
    "greedy", "descent", "annealing", "relaxation", "enumerate",
    "neal", "ocean-tabu", "steepest-descent", "path-integral", "random",
    "qaoa-aer", "qaoa-braket-local",
)  # fmt: skip
# Whole rows of the same model's layers, from the library: on these solvers differ.
ROWS = "library:rows/smollm2-*[qpo]-r*-d0.5"
ROW_CONTESTANTS = (
    "greedy", "descent", "annealing", "tabu", "tempering", "relaxation",
    "neal", "ocean-tabu", "steepest-descent",
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """How much the demo does.

    Attributes:
        time_limits: seconds for each size of block, which are also the sizes.
        seeds: seeds below n = 4096; there it is one.
        length: tokens in each of the 16 calibration windows.
        evaluation: held-out windows of 128 tokens for the perplexity.
        row_limit: seconds for each whole row.
    """

    time_limits: dict[int, float]
    seeds: int
    length: int
    evaluation: int
    row_limit: float


FULL = Plan({8: 0.03, 12: 0.03, 64: 0.03, 256: 0.1, 1024: 0.15, 4096: 0.8}, 3, 128, 12, 0.3)
FAST = Plan({8: 0.03, 12: 0.03, 64: 0.03, 1024: 0.2}, 1, 64, 8, 0.2)


def run_demo(out: Path, *, fast: bool = False) -> Path:
    """Runs everything and writes the report.

    Args:
        out: an existing folder; gets ``blocks/``, ``runs.sqlite``, ``report.html`` and figures.
        fast: fewer sizes and seeds.

    Returns:
        The page.

    Raises:
        KeyboardInterrupt: after Ctrl-C; where solvers were at work, the cells they did are kept.
    """
    plan = FAST if fast else FULL
    loaded = load_model(MODEL)
    calibration = load_samples(loaded, count=16, length=plan.length)

    started = time.perf_counter()
    problems = export_blocks(
        loaded,
        calibration,
        layers=STUDY_LAYERS,
        sizes=list(plan.time_limits),
        density=DENSITY,
    )
    seconds = time.perf_counter() - started
    blocks = out / "blocks"
    blocks.mkdir(exist_ok=True)
    instances = [save(problem, blocks / file_name(problem)) for problem in problems]
    print(f"{len(problems)} blocks from one backward pass in {seconds:.1f} s")

    store_path = fresh_store(out / "runs.sqlite")
    moves = measured_moves(loaded, calibration, problems)
    steps, quality = pruning(loaded, calibration, blocks, plan)
    studies = [
        Study(
            name=f"n = {n}",
            instances=[p for p, q in zip(instances, problems, strict=True) if q.n == n],
            solvers=CONTESTANTS,
            budgets=(Budget(time_limit=limit),),
            seeds=tuple(range(1 if n >= 4096 else plan.seeds)),
        )
        for n, limit in plan.time_limits.items()
    ]
    rows = Study(
        name="whole rows",
        instances=[ROWS],
        solvers=ROW_CONTESTANTS,
        budgets=(Budget(time_limit=plan.row_limit),),
        seeds=tuple(range(plan.seeds)),
    )
    for study in [*studies, rows]:
        if run(study, store_path).interrupted:
            raise KeyboardInterrupt(
                f"what was solved stays: icbs report {store_path} --out FOLDER; icbs demo starts "
                "anew, and downloads nothing twice"
            )
    with Store(store_path, create=True) as store:
        store.put_table(APPLIED, pd.concat([moves, steps], ignore_index=True))
        store.put_table(PERPLEXITY, quality)
    return write(store_path, out)


def fresh_store(path: Path) -> Path:
    """The path, an earlier demo's store there removed."""
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        path.with_name(name).unlink(missing_ok=True)
    return path


def measured_moves(
    loaded: LoadedModel, samples: Samples, problems: list[CardinalityProblem]
) -> pd.DataFrame:
    """Predicted and measured loss change of each large block's mask, applied on its own.

    The mask is the relaxation's; the loss is that of the calibration batch the block was built
    from, so the figure shows the error of the quadratic model and nothing else. That model damps
    the first-order part (gamma) and adds a ridge (lam), so it promises less than it keeps.
    """
    solver = make("relaxation")
    modules = prunable_layers(loaded.model, STUDY_LAYERS)
    layers = prune_layers(loaded.model, modules, samples, Settings(density=DENSITY))
    forward = Forward(loaded.model, modules, samples)
    rows = []
    large = [problem for problem in problems if problem.n >= 1024]
    try:
        before = float(forward.losses().mean())
        with stage("Measuring the loss of single blocks", len(large)) as update:
            for done, problem in enumerate(large):
                state = solver.sample_problem(problem.blinded()).record.sample[0].astype(bool)
                move = Move(problem, layers[problem.meta["layer"]], state)
                move.apply(1.0)
                measured = float(forward.losses().mean()) - before
                move.undo()
                rows.append(
                    {
                        "step": 0,
                        "layer": problem.meta["layer"],
                        "fisher": problem.meta["fisher"],
                        "n": problem.n,
                        "predicted": move.predicted(1.0),
                        "measured": measured,
                        "batch": "calibration",
                    }
                )
                update(done + 1)
    finally:
        for layer in layers.values():
            layer.restore()
    return pd.DataFrame(rows)


def pruning(
    loaded: LoadedModel, calibration: Samples, blocks: Path, plan: Plan
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Wanda, then the loop, on the last layers of the model.

    Returns:
        The steps (predicted against measured loss), and the held-out perplexity by state.
    """
    held = load_samples(loaded, part="evaluation", count=plan.evaluation, length=128)
    gate = load_samples(loaded, count=8, length=plan.length, start=len(calibration))
    exported = set(STUDY_LAYERS.split(","))

    def keep(problem: CardinalityProblem) -> None:
        if problem.meta["layer"] in exported:
            save(problem, blocks / file_name(problem))

    quality = [{"state": "dense", "perplexity": perplexity(loaded.model, held)}]
    pruner = Pruner(
        loaded,
        calibration,
        layers=LOOP_LAYERS,
        density=DENSITY,
        block_size=2048,
        heldout=gate,
        on_block=keep,
    )
    pruner.initialise()
    what = f"{len(pruner.modules)} layers at density {DENSITY}"
    quality.append({"state": f"Wanda, {what}", "perplexity": perplexity(loaded.model, held)})
    rows = []
    for _ in range(STEPS):
        record = pruner.step()
        rows.append(
            {
                "step": record.step,
                "layer": f"{len(record.layers)} layers at once",
                "fisher": pruner.settings.fisher,
                "n": pruner.settings.block_size,
                "predicted": record.predicted,
                "measured": record.measured,
                "batch": "held out",
            }
        )
    state = f"Wanda + {STEPS} iCBS steps, {what}"
    quality.append({"state": state, "perplexity": perplexity(loaded.model, held)})
    return pd.DataFrame(rows), pd.DataFrame(quality)
