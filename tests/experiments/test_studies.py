"""The package's own studies in their small size, blocks from models, fork and replay."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from experiments import Store, Study, load_runs, run
from experiments.errors import StudyError
from experiments.instances.cutting import coupled, cut, distinct, nested
from experiments.report.page import write
from experiments.running.closedloop import Leaving, worsened
from experiments.study.paths import STUDIES, study_path
from icbs.data.fashion_mnist import EMBEDDED
from solvers import make
from tests.experiments.factories import TIMINGS, same
from tests.study_fixtures import block

NAMES = sorted(path.stem for path in STUDIES.glob("*.toml"))


def test_there_are_studies():
    assert {"by-size", "penalty", "ladder", "loop", "fork", "loss"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_study_parses_and_has_a_small_size(name):
    full, small = (Study.from_toml(study_path(name), smoke=smoke) for smoke in (False, True))
    assert full.name == small.name == name
    assert len(small.specs) <= len(full.specs)


# One of each source (files, blocks of a model, a loop, prunings, hardware); the others are slow.
QUICK = ("density", "rehearsal")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in NAMES],
)
def test_every_study_runs_small(name, tmp_path, monkeypatch):
    """On the images that come along, which every record, table, page and figure names."""
    monkeypatch.setenv("ICBS_SYSTEM_DATA", "")
    store = tmp_path / f"{name}.sqlite"
    study = Study.from_toml(study_path(name), smoke=True)
    outcome = run(study, store, progress=False)
    # On a loaded machine an answer may come late; an error it is not.
    assert set(outcome.counts) <= {"done", "skipped", "timeout"}
    page = write(store, tmp_path, style="paper")
    captions = {path.stem: path.read_text() for path in page.with_name("figures").glob("*.txt")}
    assert set(study.figures) <= (figures := set(captions))
    with Store(store) as opened:
        table = opened.table("trajectories")
        tables = [opened.runs(), opened.instances(), table, opened.table("methods")]
    # Instances of the library come from elsewhere.
    if not study.instances:
        assert all(text.endswith(f"Images: {EMBEDDED}.\n") for text in captions.values())
        assert f"<dt>Data</dt><dd>{EMBEDDED}</dd>" in page.read_text()
        assert all(set(one["data"]) == {EMBEDDED} for one in tables if one is not None)
    if study.loop is not None:
        assert set(table["step"]) == set(range(study.loop.steps + 1))
        assert ("loss" in figures) == bool(study.loop.gaps)
    again = run(study, store, progress=False)
    assert again.counts == {}
    assert again.resumed == sum(outcome.counts.values())


def test_a_loop_from_one_state(tmp_path):
    """All contestants start where the fork is, and one that does nothing stays there."""
    source = {
        "model": "garment-mlp", "fork_at": 1, "steps": 2, "count": 128, "heldout": 0,
        "evaluation": 100, "gaps": [1.0], "settings": {"density": 0.1, "block_size": 64,
        "fisher": "position", "batch_size": 128},
    }  # fmt: skip
    study = Study.from_mapping({"solvers": ["relaxation", "greedy"], "seeds": 1, "loop": source})
    run(study, tmp_path / "s.sqlite", progress=False)
    with Store(tmp_path / "s.sqlite") as store:
        table = store.table("trajectories")
    start = table[table["step"] == 0]
    assert len(start) == 3
    assert len(set(start["loss"])) == 1
    idle = table[table["gap"] == 1.0]
    assert len(set(idle["loss"])) == 1
    assert len(set(table.loc[table["contestant"] == "relaxation", "loss"])) > 1
    frame = load_runs(tmp_path / "s.sqlite")
    assert set(frame["instance_name"].str.contains("step2")) == {True}


@pytest.mark.parametrize("gap", [0.0, 0.01, 0.3, 0.9, 1.0])
def test_a_chosen_share_of_the_gain_is_left(gap):
    problem = block(400, curvature=0.2)
    child = make("descent")
    samples = Leaving(child, gap).sample_problem(problem, seed=3, initial=problem.initial)
    best = float(child.sample_problem(problem, seed=0).first.energy)
    left = 1 - float(samples.first.energy) / best
    assert gap - 0.02 <= left <= gap + 0.03
    assert problem.is_feasible(samples.record.sample).all()


def test_worsening_ends_at_the_incumbent():
    problem = block(12)
    best = make("enumerate").sample_problem(problem).record.sample[0].astype(bool)
    rng = np.random.default_rng(0)
    assert (worsened(problem, best, problem.initial, 1.0, rng) == problem.initial).all()
    assert (worsened(problem, best, problem.initial, 0.0, rng) == best).all()
    assert (worsened(problem, problem.initial, problem.initial, 0.5, rng) == problem.initial).all()


def test_nested_parts_lie_inside_each_other():
    parts = nested(block(40, k=17, indices=None), [8, 16, 40])
    whole = {float(c) for c in block(40, k=17).linear}
    assert [part.n for part in parts] == [8, 16, 40]
    assert [part.cardinality for part in parts] == [4, 8, 17]
    for part in parts:
        assert abs(part.energy(part.initial)) <= 1e-12
    assert {float(c) for c in parts[-1].linear} == whole
    best = [float(make("relaxation").sample_problem(part).first.energy) for part in parts]
    assert best == sorted(best, reverse=True)


def test_coupled_parts_are_named_after_their_own_size():
    """What `within` cuts: parts of the block, whose own numbers are not those of the whole."""
    whole = block(40, k=17, curvature=2.0)
    parts = coupled(whole, [8, 12])
    assert [part.n for part in parts] == [8, 12]
    for part in parts:
        assert (part.meta["n"], part.meta["k"]) == (part.n, part.cardinality)
        assert part.meta["layer"] == whole.meta["layer"]
        assert part.content_hash != whole.content_hash


def test_rehearsal_by_the_file():
    options = {"device": "Garnet", "max_cost": 1.0}
    paid = {"name": "qaoa-xy-braket", "options": options}
    table = {"instances": ["a"], "solvers": ["greedy", paid]}
    free, costly = Study.from_mapping(table | {"rehearse": True}).specs
    assert "rehearse" not in free.options
    assert costly.options == {**options, "rehearse": True}
    assert "rehearse" not in Study.from_mapping(table).specs[1].options
    with pytest.raises(StudyError, match="none of them costs money"):
        Study.from_mapping({"instances": ["a"], "solvers": ["greedy"], "rehearse": True})


def test_what_a_file_may_not_say(tmp_path):
    table = {"solvers": ["greedy"]}
    for extra, words in (
        ({"blocks": [{"model": "a", "size": [1]}]}, "unknown key 'size'"),
        ({"blocks": [{"model": "a"}]}, "blocks.sizes is missing"),
        ({"loop": {"model": "a", "steps": "two"}}, "loop.steps is 'two'"),
        ({"instances": ["a"], "pruning": [{"model": "a"}]}, "pruning.densities is missing"),
        ({"instances": ["a"], "pruning": {"model": "a"}}, "pruning is"),
        ({"instances": ["a"], "rehearse": "yes"}, "rehearse is 'yes'"),
        ({"blocks": [{"model": "a", "sizes": [8], "within": "all"}]}, "blocks.within is 'all'"),
        ({"instances": ["a"], "figures": ["pie"]}, "'pie' is unknown"),
    ):
        with pytest.raises(StudyError, match=words):
            Study.from_mapping(table | extra)
    with pytest.raises(StudyError, match=r"no study of this package: .*by-size"):
        study_path("by-sise")
    (tmp_path / "s.toml").write_text('solvers = ["greedy"]\ninstances = ["a"]')
    with pytest.raises(StudyError, match=r"no table \[smoke\]"):
        Study.from_toml(tmp_path / "s.toml", smoke=True)
    loop = {"model": "garment-mlp", "steps": 1, "contestants": ["neal"]}
    with pytest.raises(StudyError, match="'neal' is none of"):
        run(Study.from_mapping(table | {"loop": loop}), tmp_path / "s.sqlite", progress=False)


def rows(path):
    return load_runs(path).drop(columns=TIMINGS).sort_values("key").reset_index(drop=True)


def test_workers_and_interruption_change_nothing_but_timings(tmp_path):
    """Budgets in sweeps and reads: what a time limit allows depends on the machine's load."""
    study = Study(
        "s", [block(12), block(30, fisher="position")],
        ["greedy", "relaxation", "neal", "random"], [{"reads": 5, "sweeps": 20}], seeds=[0, 1],
    )  # fmt: skip
    run(study, tmp_path / "one.sqlite", progress=False)
    run(study, tmp_path / "two.sqlite", workers=2, progress=False)
    same(rows(tmp_path / "one.sqlite"), rows(tmp_path / "two.sqlite"))
    part = Study(**{**vars(study), "seeds": [0]})
    run(part, tmp_path / "part.sqlite", progress=False)
    shutil.copy(tmp_path / "part.sqlite", tmp_path / "resumed.sqlite")
    outcome = run(study, tmp_path / "resumed.sqlite", progress=False)
    assert outcome.resumed == len(load_runs(tmp_path / "part.sqlite"))
    same(rows(tmp_path / "one.sqlite"), rows(tmp_path / "resumed.sqlite"))


def test_blocks_are_cut_once(tmp_path, monkeypatch):
    blocks = {"model": "garment-mlp", "sizes": [8], "fisher": ["position"], "count": 16}
    study = Study.from_mapping({"solvers": ["greedy"], "seeds": 1, "blocks": [blocks]})
    run(study, tmp_path / "s.sqlite", progress=False)
    again = "experiments.instances.cutting.cut"
    monkeypatch.setattr(again, lambda *a, **k: pytest.fail("cut again"))
    assert run(study, tmp_path / "s.sqlite", progress=False).resumed == 2
    assert isinstance(load_runs(tmp_path / "s.sqlite"), pd.DataFrame)


def test_one_curvature_under_two_names_counts_once(tmp_path):
    """A perceptron's layers see one position a sample."""
    study = Study.from_mapping({"solvers": ["greedy"], "seeds": 1, "blocks": [
        {"model": "garment-mlp", "sizes": [8, 16], "count": 8, "layers": "mlp.layers.*"}
    ]})  # fmt: skip
    (source,) = study.sources
    problems = cut(source, progress=False)
    found = sorted((one.meta["layer"], one.n, one.meta["fisher"]) for one in problems)
    assert found == [(f"mlp.layers.{layer}", n, "sequence") for layer in (0, 1) for n in (8, 16)]


def test_blocks_that_differ_in_anything_are_all_kept():
    rng = np.random.default_rng(0)
    one = replace(block(12), indices=rng.permutation(40)[:12])
    linear = one.linear.copy()
    linear[3] += 1e-3
    others = [
        replace(one, linear=linear),
        replace(one, factor=2 * one.factor),
        replace(one, initial=~one.initial),
        replace(one, indices=one.indices[::-1].copy()),
        replace(one, indices=one.indices + 1),
        one.with_cardinality(5),
        replace(one, meta={**one.meta, "layer": "another"}),
    ]
    twins = [one.permuted(np.random.default_rng(seed)) for seed in range(3)]
    twins.append(replace(one, factor=one.factor * (1 + 1e-8)))
    kept = distinct([one, *twins, *others, *twins])
    assert [id(problem) for problem in kept] == [id(problem) for problem in (one, *others)]
