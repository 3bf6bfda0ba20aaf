"""Where a study's blocks come from when they are not files: cut from a model, or met by the loop.

In a study file::

    [[blocks]]                           # blocks of a pruned model
    model = "smollm2"
    layers = "*.28.mlp.up_proj"
    sizes = [64, 1024]
    fisher = ["sequence", "position"]
    nested = false                       # true: smaller blocks are parts of the largest
    within = 1024                        # instead: parts of blocks of this size, chosen for their
                                         # couplings (`icbs cut`)
    density = 0.5
    count = 16                           # calibration windows or images

    [[rows]]                             # row blocks, and their mixes with loss blocks
    model = "smollm2"
    layers = "*.15.mlp.up_proj"
    draw = 4                             # rows of each layer; or rows = [3, 289] by number
    sizes = [128]                        # nested parts; whole rows if left out
    lam = [0.0, 0.5, 1.0]                # share of the loss block, a block for each
    pattern = "2:4"                      # or a density; also shrinkage, sequential, weighted

    [loop]                               # the blocks of one step, and the loop from there on
    model = "garment-mlp"
    fork_at = 5                          # steps before the fork, by the first solver
    steps = 20                           # steps of every contestant after it
    time_limit = 0.5                     # seconds a block, of every contestant
    seeds = 2
    gaps = [0.0, 0.1]                    # contestants that leave so much of each block's gain
    contestants = ["relaxation"]         # labels of solvers that drive the loop; all if left out
    layers = "*"
    count = 4096                         # calibration samples
    heldout = 1024                       # samples of the gate
    evaluation = 2000                    # test samples
    settings = {density = 0.1}           # of `icbs.settings.Settings`

    [[pruning]]                          # whole models, one-shot methods beside the loop
    model = "vit-fashion"
    densities = [0.5, 0.3]
    methods = ["wanda", "icbs"]          # of `icbs baselines`, untimed ones; most if left out
    steps = [3, 10]                      # of the loop; it is measured after each of them
    layers = "*"
    count = 4096                         # and heldout, evaluation, length, settings as above
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import Field

from experiments.study.kinds import source
from experiments.study.tables import table

Text = Annotated[str, Field(title="text")]
Whole = Annotated[int, Field(title="a whole number")]
Number = Annotated[float, Field(allow_inf_nan=False, title="a number")]
Wholes = Annotated[Sequence[int], Field(title="a list of whole numbers")]
Numbers = Annotated[
    Sequence[Annotated[float, Field(allow_inf_nan=False)]], Field(title="a list of numbers")
]
Words = Annotated[Sequence[str], Field(title="a list of words")]
Options = Annotated[Mapping[str, Any], Field(title="a table of settings")]


@source("blocks", "experiments.instances.cutting:cut_once")
class BlockSource:
    """Blocks cut from a model after the first mask; see `icbs.blocks.export.export_blocks`.

    Attributes:
        model: registered name, folder or hub id.
        sizes: variables of each block.
        layers: shell globs of layer names, separated by commas.
        fisher: kinds of curvature.
        nested: cut only the largest size from the model, and the smaller ones as nested parts of
            it, the other variables fixed at the current mask.
        density: kept fraction of the weights.
        within: cut blocks of this size, and of each the nested parts of `sizes` whose couplings
            matter most (`experiments.instances.subblocks`), with their proven optimum.
        count: calibration windows or images.
        length: tokens in a window.
        seed: of the variables' order.
    """

    model: Text
    sizes: Wholes
    layers: Text = "*"
    fisher: Words = ("sequence", "position")
    nested: Annotated[bool, Field(title="true or false")] = False
    density: Number = 0.5
    count: Whole = 16
    length: Whole = 128
    seed: Whole = 0
    within: Annotated[int | None, Field(title="a whole number")] = None

    @property
    def identity(self) -> str:
        """Canonical JSON of everything that decides the blocks."""
        return _canonical(self)


@source("rows", "experiments.instances.cutting:cut_rows_once")
class RowSource:
    """Row blocks of a model; see `icbs.blocks.rowexport.export_rows`.

    Attributes:
        model: registered name, folder or hub id.
        layers: shell globs of layer names, separated by commas.
        rows: outputs of each layer by number; those of `draw` if empty.
        draw: how many are drawn.
        sizes: variables of nested parts; whole rows if empty.
        density: kept fraction of the weights.
        pattern: N:M instead.
        lam: shares of the loss block; each row gives a block for each.
        shrinkage: of H towards its diagonal.
        sequential: inputs of the model as pruned before the layer.
        weighted: positions count by the gradient of the loss.
        count: calibration windows or images.
        length: tokens in a window.
        seed: of the rows and of the variables' order.
    """

    model: Text
    layers: Text = "*"
    rows: Wholes = ()
    draw: Whole = 4
    sizes: Wholes = ()
    density: Number = 0.5
    pattern: Annotated[str | None, Field(title="N:M such as 2:4")] = None
    lam: Numbers = (0.0,)
    shrinkage: Number = 0.0
    sequential: Annotated[bool, Field(title="true or false")] = False
    weighted: Annotated[bool, Field(title="true or false")] = False
    count: Whole = 16
    length: Whole = 128
    seed: Whole = 0

    @property
    def identity(self) -> str:
        """Canonical JSON of everything that decides the blocks."""
        return _canonical(self)


@table("loop")
class LoopSource:
    """The loop on a model, forked after some steps: every contestant goes on from the same state.

    Attributes:
        model: registered name, folder or hub id.
        steps: steps of each contestant after the fork.
        fork_at: steps before it, driven by the study's first solver.
        time_limit: seconds each contestant has for a block; None leaves it to the solver.
        seeds: number of seeds.
        gaps: shares of each block's gain that artificial contestants leave on the table.
        contestants: labels of the study's solvers that drive the loop; all if empty.
        layers: shell globs of layer names, separated by commas.
        count: calibration samples.
        heldout: samples of the gate; 0 for none.
        evaluation: test samples.
        length: tokens in a window.
        settings: of `icbs.settings.Settings`.
    """

    model: Text
    steps: Whole
    fork_at: Whole = 0
    time_limit: Annotated[float | None, Field(allow_inf_nan=False, title="a number of seconds")] = (
        None
    )
    seeds: Whole = 1
    gaps: Numbers = ()
    contestants: Words = ()
    layers: Text = "*"
    count: Whole = 4096
    heldout: Whole = 1024
    evaluation: Whole = 2000
    length: Whole = 128
    settings: Options = Field(default_factory=dict)

    @property
    def identity(self) -> str:
        """Canonical JSON of everything that decides the loop up to the fork."""
        return _canonical(self)


@table("pruning")
class PruningSource:
    """Whole models pruned by one-shot methods and by the loop; see `experiments.pruning.comparing`.

    Attributes:
        model: registered name, folder or hub id.
        densities: kept fractions of the weights.
        methods: some of `experiments.figures.methods.METHODS`; if empty all that need neither a
            time limit nor a small model.
        steps: after how many steps the loop is measured; the largest ends it.
        layers: shell globs of layer names, separated by commas.
        count: calibration samples.
        heldout: samples of the gate.
        evaluation: test samples.
        length: tokens in a window.
        settings: of `icbs.settings.Settings`.
    """

    model: Text
    densities: Numbers
    methods: Words = ()
    steps: Wholes = (10,)
    layers: Text = "*"
    count: Whole = 4096
    heldout: Whole = 1024
    evaluation: Whole = 2000
    length: Whole = 128
    settings: Options = Field(default_factory=dict)


def _canonical(one: BlockSource | LoopSource | RowSource) -> str:
    return json.dumps(asdict(one), sort_keys=True)
