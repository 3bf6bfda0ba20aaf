"""Hostile files: each hole the fuzzer found, and a small seeded run of it."""

import json
import os
import sqlite3
import struct
from contextlib import closing

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from experiments import Study, run
from experiments.errors import StudyError
from experiments.metrics.export import export as export_runs
from experiments.report.page import write
from experiments.store.merge import merge
from icbs.errors import CheckpointError, ModelError
from icbs.loop.checkpoint import Checkpoint, LayerState
from icbs.loop.pruned import load_masks, save_masks
from icbs.models.loading import load_model
from solvers import CardinalityProblem, export, load
from solvers.errors import FormatError
from tests.fuzz.judge import GOOD, Judge, limited_memory
from tests.fuzz.models import ATTACKS, CODE
from tests.fuzz.targets import target
from tests.fuzz.worker import generator
from tests.study_fixtures import First, block, spec

QUICK = (
    "container", "bqm", "lp", "ubqp", "sparse", "qubo", "qplib", "study", "checkpoint", "masks",
    "idx", "parquet", "gguf",
)  # fmt: skip
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("model", "store")]


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    return Judge(tmp_path_factory.mktemp("fuzz").resolve())


@pytest.mark.parametrize("name", [*QUICK, *SLOW])
def test_mutated_files_load_right_or_are_refused(name, judge):
    chosen = target(name)
    with judge.settled():
        seeds = chosen.seeds()
        for sample in seeds:
            assert judge.load(chosen, sample).outcome == "loaded"
        with limited_memory():
            for number in range(15):
                sample, _ = chosen.sample(generator(name, 1, number), seeds)
                verdict = judge.load(chosen, sample)
                assert verdict.outcome in GOOD, (number, verdict)


def bqm_bytes(tmp_path):
    problem = CardinalityProblem(linear=np.ones(4), cardinality=1, factor=np.ones((2, 4)))
    return export(problem, tmp_path / "a.bqm").read_bytes()


def test_bqm_row_of_a_variable_that_is_not_there(tmp_path):
    data = bytearray(bqm_bytes(tmp_path))
    (length,) = struct.unpack_from("<I", data, 10)
    header = json.loads(data[14 : 14 + length])
    linear = np.dtype([("start", header["ntype"]), ("bias", header["dtype"])])
    at = 14 + length + 8 + 4 * linear.itemsize
    np.frombuffer(data, header["itype"], 1, at)[0] = 2**31 - 1
    (tmp_path / "b.bqm").write_bytes(data)
    with pytest.raises(FormatError, match="a row names"):
        load(tmp_path / "b.bqm", cardinality=1)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.lp", "Minimize\n obj: + 0.7\0 x0\nEnd\n", "NUL"),
        ("a.ubqp", "19999 1\n1 1 1.0\n# cardinality 1\n", "declares 19999 variables in 1 lines"),
        ("a.qubo", "c cardinality 1\np qubo 0 19999 1 0\n0 0 1.0\n", "declares 19999 variables"),
        (
            "a.qplib",
            "x\nQBL\nminimize\n4\n4294967296\n0\n",
            "4294967296 constraints, expected",
        ),
        ("a.qplib", "x\nQBN\nminimize\n19999\n0\n", "declares 19999 variables"),
        ("a.qplib", "x\nQBN\nminimize\n4\n-1\n", "declares -1"),
    ],
)
def test_problem_texts(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(FormatError, match=words):
        load(tmp_path / name)


@pytest.mark.parametrize(
    "state",
    [
        "[]",
        "1",
        "[" * 100_000 + "]" * 100_000,
        json.dumps({"schema": 3, "identity": {"layers": {"a": [-3, -5]}}}),
        json.dumps({"schema": 3, "identity": {"layers": {"a": [2**40, 2**40]}}}),
        json.dumps({"schema": 3, "identity": {"layers": []}}),
    ],
)
def test_checkpoints(tmp_path, state):
    path = tmp_path / "run"
    tensors = {"a/pruned": torch.zeros(2, dtype=torch.uint8)}
    save_file(tensors, path, {"kind": "icbs-pruning-run", "state": state})
    with pytest.raises(CheckpointError, match=r"cannot be read|schema"):
        Checkpoint.load(path)


@pytest.mark.parametrize("shapes", ["[]", '{"a": [2, "x"]}', '{"a": [-3, -5]}', "[" * 100_000])
def test_masks(tmp_path, shapes):
    path = tmp_path / "masks"
    save_file({"a": torch.zeros(2, dtype=torch.uint8)}, path,
              {"kind": "icbs-masks", "shapes": shapes})  # fmt: skip
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_masks(path)


HUGE = "9" * 400


@pytest.mark.parametrize(
    "line",
    [
        "seeds = 1000000000000",
        "seed = " + "9" * 5000,
        f"budgets = [{HUGE}]",
        f"budgets = [{{time_limit = {HUGE}}}]",
        f'[[blocks]]\nmodel = "smollm2"\nsizes = [8]\ndensity = {HUGE}',
    ],
)
def test_studies(tmp_path, line):
    path = tmp_path / "s.toml"
    path.write_text(f'instances = ["a"]\nsolvers = ["neal"]\n{line}\n')
    with pytest.raises(StudyError):
        Study.from_toml(path)


def test_pipes_are_not_waited_for(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    for read, error in (
        (Checkpoint.load, CheckpointError),
        (load_masks, CheckpointError),
        (Study.from_toml, StudyError),
    ):
        with pytest.raises(error):
            read(path)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    for name, data in target("model").seeds()[0].items():
        (path / name).write_bytes(data)
    return path


def configure(folder, **entries):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def test_code_of_a_model_is_not_run(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "modeling_x.py").write_bytes(CODE)
    configure(folder, auto_map=ATTACKS["auto_map"])
    assert load_model(str(folder)).task == "causal-lm"
    configure(folder, model_type="unknown-x")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(str(folder))
    assert not (folder / "executed").exists()


@pytest.mark.parametrize("shard", ["../canary.safetensors", "/etc/passwd", "..", ""])
def test_weights_outside_the_folder(folder, shard):
    (folder / "model.safetensors").rename(folder.parent / "canary.safetensors")
    index = {"metadata": {}, "weight_map": {"lm_head.weight": shard}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="of its own folder"):
        load_model(str(folder))


@pytest.mark.parametrize("key", ["num_hidden_layers", "hidden_size", "vocab_size", "num_labels"])
def test_sizes_that_the_weights_do_not_have(folder, key):
    configure(folder, **{key: ATTACKS[key]})
    with pytest.raises(ModelError, match=r"declares|cannot be loaded"):
        load_model(str(folder))


def test_code_of_the_hub_and_pipes_in_a_model_folder(folder):
    configure(folder, attn_implementation="evil/kernel")
    with pytest.raises(ModelError, match="code of the hub"):
        load_model(str(folder))
    os.mkfifo(folder / "pipe.json")
    with pytest.raises(ModelError, match="no regular file"):
        load_model(str(folder))


OUTSIDE = "../../canary"


def test_names_in_a_store_that_lead_outside(tmp_path):
    """Report, export and merge of a store whose every text is a path write in their folder only."""
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    (inside / OUTSIDE).resolve().write_text("alive")
    path = inside / "s.sqlite"
    blocks = [block(8, layer=OUTSIDE, model=OUTSIDE), block(8, seed=1, layer="/etc/passwd")]
    run(Study(OUTSIDE, blocks, [spec(First)], [0.5]), path, progress=False)
    with closing(sqlite3.connect(path)) as db:
        settings = json.dumps({"figures": [OUTSIDE], "solvers": [OUTSIDE]})
        db.execute("UPDATE invocations SET study = ?, settings = ?", (OUTSIDE, settings))
        db.execute("UPDATE instances SET name = ?, model = ?", (OUTSIDE, OUTSIDE))
        db.commit()
    before = {path.name for path in tmp_path.rglob("*")}
    assert before == {"a", "b", "canary", "s.sqlite"}
    write(path, inside / "page")
    export_runs(path, inside / "runs.csv")
    merge([path], inside / "merged.sqlite")
    assert {path.name for path in tmp_path.iterdir()} == {"a", "canary"}
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"b"}
    written = {path.name for path in inside.iterdir()}
    assert written == {"s.sqlite", "page", "runs.csv", "merged.sqlite"}
    assert (tmp_path / "canary").read_text() == "alive"


def test_names_in_a_pruning_run_that_lead_outside(tmp_path):
    """Layers called by paths: masks and checkpoint are one file each, wherever the names lead."""
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    mask = torch.ones(2, 3, dtype=torch.bool)
    save_masks(inside / "masks.safetensors", {OUTSIDE: mask, "/etc/passwd": mask}, {})
    assert set(load_masks(inside / "masks.safetensors")) == {OUTSIDE, "/etc/passwd"}
    state = LayerState(torch.zeros(6, dtype=torch.bool), torch.zeros(6, dtype=torch.bool), ())
    identity = {"layers": {OUTSIDE: [2, 3]}}
    Checkpoint(identity, (), 1.0, None, {OUTSIDE: state}, {}).save(inside / "c.safetensors")
    assert set(Checkpoint.load(inside / "c.safetensors").layers) == {OUTSIDE}
    written = {path.name for path in tmp_path.rglob("*")}
    assert written == {"a", "b", "masks.safetensors", "c.safetensors"}


def test_a_symlink_in_the_place_of_an_output_is_replaced_not_followed(tmp_path):
    """What is written in one step takes the link's place; the file behind it stays."""
    canary = tmp_path / "canary"
    canary.write_text("alive")
    out = tmp_path / "out"
    out.mkdir()
    (out / "masks.safetensors").symlink_to(canary)
    save_masks(out / "masks.safetensors", {"a": torch.ones(1, 1, dtype=torch.bool)}, {})
    assert canary.read_text() == "alive"
    assert not (out / "masks.safetensors").is_symlink()
