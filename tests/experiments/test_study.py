"""Studies: what is read from a file, which cells follow, in what order."""

import os
import re
import subprocess
import sys
from collections import Counter

import pytest

from experiments import SolverSpec, Study
from experiments.errors import ExperimentError, StudyError
from experiments.study.sources import BlockSource, LoopSource, PruningSource
from icbs.errors import IcbsError
from solvers import Budget, save
from tests.study_fixtures import block

SIZES = {"a" * 64: 16, "b" * 64: 64, "c" * 64: 4096}


def study(**changes):
    given = {
        "name": "s",
        "instances": [block()],
        "solvers": ["greedy", "descent"],
        "budgets": [0.1],
    }
    return Study(**(given | changes))


def test_import_is_cheap():
    code = (
        "import sys, experiments; assert dir(experiments);"
        "heavy = {'numpy', 'pandas', 'matplotlib', 'torch', 'dimod'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_file(tmp_path):
    save(block(), tmp_path / "one.block.safetensors")
    path = tmp_path / "by-size.toml"
    path.write_text(
        """
        seed = 7
        instances = ["*.block.safetensors"]
        budgets = [0.1, 1, {reads = 10}]
        seeds = 2
        seeds_by_size = {4096 = 1}
        solvers = ["greedy", {name = "neal", label = "weak", options = {penalty = 0.01}}]
        """
    )
    read = Study.from_toml(path)
    assert read.name == "by-size"
    assert read.limits == (Budget(0.1), Budget(1.0), Budget(reads=10))
    assert read.seeds == (0, 1)
    assert [spec.label for spec in read.specs] == ["greedy", "weak"]
    assert read.specs[1].options == {"penalty": 0.01}
    assert read.instances == (tmp_path / "*.block.safetensors",)
    assert not read.give_initial


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("instances = []", ["solvers", "missing"]),
        ("instances = ['a']\nsolvers = []", ["solvers", "empty"]),
        ("instances = ['a']\nsolver = ['x']", ["'solver'", "did you mean 'solvers'"]),
        ("instances = 'a'\nsolvers = ['x']", ["instances", "'a'", "list"]),
        ("instances = ['a']\nsolvers = [{label = 'x'}]", ["solvers", "name"]),
        ("instances = ['a']\nsolvers = ['x', 'x']", ["'x'", "label"]),
        ("instances = ['a']\nsolvers = [1]", ["solvers", "1"]),
        ("instances = ['a']\nsolvers = ['x']\nbudgets = [0]", ["budgets", "time_limit"]),
        ("instances = ['a']\nsolvers = ['x']\nbudgets = ['1 s']", ["budgets", "1 s"]),
        ("instances = ['a']\nsolvers = ['x']\nbudgets = [{shots = 1}]", ["budgets", "shots"]),
        ("instances = ['a']\nsolvers = ['x']\nbudgets = [nan]", ["budgets", "nan"]),
        ("instances = ['a']\nsolvers = ['x']\nbudgets = [true]", ["budgets", "True"]),
        ("instances = ['a']\nsolvers = ['x']\nbudgets = [1, 1.0]", ["budgets", "once"]),
        ("instances = ['a']\nsolvers = ['x']\nseeds = -1", ["seeds", "-1"]),
        ("instances = ['a']\nsolvers = ['x']\nseeds = [1, 1]", ["seeds", "once"]),
        ("instances = ['a']\nsolvers = ['x']\nseeds = 0", ["seeds", "empty"]),
        ("instances = ['a']\nsolvers = ['x']\nseed = 1.5", ["seed", "1.5"]),
        ("instances = ['a']\nsolvers = ['x']\nseeds_by_size = {big = 1}", ["seeds_by_size", "big"]),
        ("instances = ['a']\nsolvers = ['x']\ngive_initial = 1", ["give_initial", "1"]),
        ("instances = [", ["TOML"]),
        ("x = " + "[" * 5000, ["deep"]),
    ],
)
def test_refused(tmp_path, text, words):
    path = tmp_path / "s.toml"
    path.write_text(text)
    with pytest.raises(StudyError) as caught:
        Study.from_toml(path)
    for word in (str(path), *words):
        assert word in str(caught.value)


def test_unreadable_file(tmp_path):
    with pytest.raises(StudyError, match="cannot be read"):
        Study.from_toml(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"name = '\xe9'")
    with pytest.raises(StudyError, match="not valid TOML"):
        Study.from_toml(tmp_path / "latin.toml")


def test_errors_have_one_root():
    assert issubclass(StudyError, ExperimentError)
    assert issubclass(ExperimentError, IcbsError)


@pytest.mark.parametrize("key", ["instances", "solvers", "budgets", "seeds"])
def test_scalar_for_a_list(key):
    with pytest.raises(StudyError, match=f"{key} is 'greedy'"):
        study(**{key: "greedy"})


def test_cells_are_complete_and_seeded():
    plan = study(budgets=[0.1, 1.0], seeds=[3, 5, 8], seeds_by_size={64: 2, 4096: 1})
    cells = list(plan.cells(SIZES))
    assert len(cells) == 2 * 2 * (3 + 2 + 1)
    assert len({cell.key for cell in cells}) == len(cells)
    assert len({cell.seed for cell in cells}) == len(cells)
    assert all(0 <= cell.seed < 2**31 for cell in cells)
    assert {c.seed_index for c in cells if c.n == 4096} == {3}
    assert cells == list(plan.cells(dict(reversed(SIZES.items()))))


def test_order_is_interleaved_by_seed_and_follows_the_study_seed():
    plan = study(budgets=[0.1, 0.2, 0.5], seeds=[0, 1])
    cells = list(plan.cells(SIZES))
    assert [cell.seed_index for cell in cells] == [0] * 18 + [1] * 18
    assert len({cell.instance for cell in cells[:6]}) > 1
    other = list(study(budgets=[0.1, 0.2, 0.5], seeds=[0, 1], seed=1).cells(SIZES))
    assert [c.instance for c in other] != [c.instance for c in cells]
    assert not {c.seed for c in other} & {c.seed for c in cells}


def test_key_names_everything_that_matters():
    def keys(**changes):
        return {cell.key for cell in study(**changes).cells(SIZES)}

    base = keys()
    assert base == keys(name="another title")
    assert not base & keys(give_initial=True)
    assert not base & keys(budgets=[0.2])
    changed = keys(solvers=["greedy", SolverSpec("descent", options={"x": 1})])
    assert len(base & changed) == len(base) / 2


def test_keys_do_not_depend_on_the_process():
    code = (
        "from tests.experiments.test_study import SIZES, study;"
        "print(next(study().cells(SIZES)).key, next(study().cells(SIZES)).seed)"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True, text=True, check=True, env=os.environ | {"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    first = next(study().cells(SIZES))
    assert outputs == {f"{first.key} {first.seed}\n"}


def test_own_rule_of_a_solver():
    plan = study(solvers=["greedy", SolverSpec("random", seeds_by_size={0: 1})], seeds=[0, 1, 2])
    counts = Counter(cell.solver for cell in plan.cells(SIZES))
    assert counts == {0: 9, 1: 3}


def test_a_study_says_what_it_holds_in_a_line():
    plan = study(instances=[block(64), block(32)], budgets=[0.1, 1.0], seeds=[0, 1, 2])
    assert repr(plan) == (
        "Study('s': 2 instances or globs; solvers greedy, descent; 2 budgets, 3 seeds)"
    )


def test_limits_had_another_name():
    plan = study(budgets=[0.1, Budget(reads=3)])
    with pytest.warns(DeprecationWarning, match=r"^Study\.ladder is now limits$"):
        assert plan.ladder == plan.limits == (Budget(0.1), Budget(reads=3))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: BlockSource("m", sizes=[8, "16"]),
         "blocks.sizes is '16'; it should be a list of whole numbers"),
        (lambda: LoopSource(model="m", steps=True), "loop.steps is True; it should be a whole"),
        (lambda: PruningSource(model="m", densities=[float("nan")]),
         "pruning.densities is nan; it should be a list of numbers"),
        (lambda: PruningSource(model="m", densities=[0.5], methodes=["wanda"]),
         "pruning: unknown key 'methodes'; did you mean 'methods'?"),
        (lambda: BlockSource(sizes=[8]), "blocks.model is missing; add it"),
        (lambda: study(budgets=[10**400]), "budgets"),
        (lambda: study(budgets=[{"reads": 1.5}]), "budgets.reads is 1.5; it should be a whole"),
    ],
)  # fmt: skip
def test_sources_and_budgets_from_python_are_checked_as_those_of_files(make, said):
    with pytest.raises(StudyError, match=f"^{re.escape(said)}"):
        make()


def test_what_a_source_says_of_itself_does_not_change():
    """Stores hold this text: another one would be another source."""
    assert BlockSource("m", [8], density=1).identity == (
        '{"count": 16, "density": 1.0, "fisher": ["sequence", "position"], "layers": "*", '
        '"length": 128, "model": "m", "nested": false, "seed": 0, "sizes": [8], "within": null}'
    )
