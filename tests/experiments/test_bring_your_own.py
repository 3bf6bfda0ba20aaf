"""Solvers of other packages, sampler objects, and problems from anybody's files."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dwave.samplers import SimulatedAnnealingSampler
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments import SolverSpec, Study, load_runs, run
from experiments.errors import StudyError
from experiments.store.database import Store
from icbs.loop.pruner import Pruner
from solvers import available, export, load, make, registry
from solvers.errors import FormatError, ParameterError, UnavailableError
from solvers.testing import check
from tests.icbs_fixtures import tiny_loaded, tiny_samples
from tests.solvers.reference import every_state
from tests.study_fixtures import block

MODULE = '''
import dimod

class Constant(dimod.Sampler):
    """All zeros, or all -1, twice."""
    parameters, properties = {"num_reads": []}, {}
    def sample(self, bqm, num_reads=2):
        low = min(bqm.vartype.value)
        return dimod.SampleSet.from_samples_bqm([{v: low for v in bqm.variables}] * num_reads, bqm)

nothing = 3
'''


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package with four entry points, as pip would leave it."""
    site = tmp_path / "site"
    info = site / "their_package-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[icbs.solvers]\nconstant = their_module:Constant\nabsent = no_such_module:A\n"
        "number = their_module:nothing\ngreedy = their_module:Constant\n"
    )
    (site / "their_module.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(site))
    registry.registered.cache_clear()
    yield site
    registry.registered.cache_clear()
    sys.modules.pop("their_module", None)


def test_an_installed_package_adds_a_solver(installed, tmp_path):
    assert {"constant", "absent", "number"} <= set(available())
    check("constant")
    sampler = make("constant", penalty=0.5)
    assert (sampler.name, sampler.track, sampler.penalty) == ("constant", "penalised", 0.5)
    study = Study("s", [block(12)], ["constant", "greedy"], [0.05], seeds=[0])
    run(study, tmp_path / "s.sqlite", progress=False)
    frame = load_runs(tmp_path / "s.sqlite").set_index("solver")
    assert set(frame["status"]) == {"done"}
    assert frame.loc["constant", "reads"] == 2
    assert frame.loc["constant", "raw_feasible"] == 0
    assert frame.loc["constant", "feasible"] == 1


def test_a_package_cannot_replace_a_solver(installed):
    assert make("greedy").track == "native"


@pytest.mark.parametrize(("name", "words"), [("absent", "no_such_module"), ("number", "not a cla")])
def test_a_broken_package_is_named(installed, name, words):
    with pytest.raises(UnavailableError, match=words) as caught:
        make(name)
    assert "their-package" in str(caught.value)
    with pytest.raises(StudyError, match=words):
        run(Study("s", [block()], [name]), installed / "s.sqlite", progress=False)


def test_the_command_lists_them(installed):
    code = "from experiments.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(installed)!r}); {code}",
         "solvers", "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert '"constant"' in done.stdout
    assert "no_such_module" in done.stdout


def test_any_sampler_object_in_a_study(tmp_path):
    theirs = SimulatedAnnealingSampler()
    weak = SolverSpec("theirs", sampler=theirs, options={"penalty": 0.01}, label="weak")
    study = Study("s", [block(14)], [theirs, weak, make("descent")], [{"reads": 5}], seeds=[0])
    run(study, tmp_path / "s.sqlite", progress=False)
    frame = load_runs(tmp_path / "s.sqlite").set_index("solver")
    assert set(frame.index) == {"SimulatedAnnealingSampler", "weak", "descent"}
    assert frame.loc["weak", "track"] == "penalised"
    assert (frame["energy"] >= frame["reference"]).all()


def test_objects_that_are_no_samplers_or_take_no_options():
    with pytest.raises(ParameterError, match="dimod sampler"):
        make(3)
    with pytest.raises(ParameterError, match="'penalty'"):
        make(make("descent"), penalty=1.0)
    assert make(SimulatedAnnealingSampler()).track == "penalised"


def test_any_sampler_object_in_the_loop():
    pruner = Pruner(
        tiny_loaded(), tiny_samples(), solver=SimulatedAnnealingSampler(), block_size=8,
        density=0.5, batch_size=6, progress=False,
    )  # fmt: skip
    assert pruner.step().offered >= 0
    assert pruner.solver.name == "SimulatedAnnealingSampler"


def qplib(problem, constrained=True, sense="minimize"):
    """The problem as QPLIB text, written here from the format's description alone."""
    n, G = problem.n, problem.gram()
    sign = 1 if sense == "minimize" else -1
    pairs = [
        (i + 1, j + 1, sign * float(G[i, j])) for i in range(n) for j in range(i + 1) if G[i, j]
    ]
    lines = ["TEST # a name", "QBL" if constrained else "QBN", sense, f"{n} # variables"]
    lines += ["1 # constraints"] if constrained else []
    lines += [f"{len(pairs)}", *(f"{i} {j} {v!r}" for i, j, v in pairs)]
    default = sign * float(problem.linear[0]) if n else 0.0
    others = [(i + 1, sign * float(c)) for i, c in enumerate(problem.linear) if sign * c != default]
    lines += [repr(default), str(len(others)), *(f"{i} {v!r}" for i, v in others)]
    lines += [repr(sign * problem.offset)]
    if constrained:
        lines += [str(n), *(f"1 {i + 1} 1.0" for i in range(n)), "1e30"]
        lines += [f"{problem.cardinality}", "0", f"{problem.cardinality}", "0"]
    return "\n".join([*lines, "0 # start", "0", "0", "0"])


@settings(max_examples=30)
@given(
    st.integers(1, 6), st.integers(0, 99), st.booleans(), st.sampled_from(["minimize", "maximize"])
)
def test_qplib_keeps_every_energy(tmp_path_factory, n, seed, constrained, sense):
    problem = block(n, seed=seed, dense=True)
    path = tmp_path_factory.mktemp("q") / "a.qplib"
    path.write_text(qplib(problem, constrained, sense))
    back = load(path, cardinality=None if constrained else problem.cardinality)
    states = every_state(n)
    assert back.cardinality == problem.cardinality
    assert np.abs(back.energy(states) - problem.energy(states)).max() <= 1e-12 * (n + 1) ** 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("QBL", "QCL"), "type QCL"),
        (("1 3 1.0", "1 3 2.0"), "sum x = k"),
        (("1 3 1.0", "1 9 1.0"), "outside"),
        (("3\n0\n3\n0\n0 # start\n0\n0\n0", "3\n"), "ends early"),
    ],
)
def test_qplib_that_is_something_else(tmp_path, change, words):
    text = qplib(block(6, dense=True))
    assert change[0] in text
    (tmp_path / "a.qplib").write_text(text.replace(*change))
    with pytest.raises(FormatError, match=words):
        load(tmp_path / "a.qplib")


def test_bench_takes_every_format(tmp_path):
    problem = block(10, k=3, dense=True)
    for suffix in (".bqm", ".lp", ".ubqp", ".qubo"):
        export(problem, tmp_path / f"{suffix[1:]}{suffix}")
    (tmp_path / "q.qplib").write_text(qplib(problem, constrained=False))
    done = subprocess.run(
        [sys.executable, "-m", "icbs", "bench", "--instances",
         ",".join(f"{tmp_path}/*.{kind}" for kind in ("bqm", "lp", "ubqp", "qubo", "qplib")),
         "--cardinality", "3", "--solvers", "enumerate", "--seeds", "1",
         "--store", str(tmp_path / "s.sqlite")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert str(tmp_path / "s.sqlite") in done.stdout
    frame = load_runs(tmp_path / "s.sqlite")
    # The same problem five times; equal up to the last digit of a format may be one instance.
    assert 1 <= len(frame) <= 5
    assert (frame["k"] == 3).all() and (frame["tag"] == "exact").all()
    assert np.ptp(frame["energy"]) <= 1e-9


def test_a_store_keeps_the_names_of_its_instances(tmp_path):
    problem = replace(block(6, dense=True), labels=tuple("uvwxyz"))
    path = export(problem, tmp_path / "a.lp")
    run(Study("s", [path], ["greedy"]), tmp_path / "s.sqlite", progress=False)
    with Store(tmp_path / "s.sqlite") as store:
        (instance,) = load_runs(tmp_path / "s.sqlite")["instance"].unique()
        assert store.problem(instance).labels == problem.labels


def test_bench_says_that_a_cardinality_is_missing(tmp_path):
    export(block(10, dense=True), tmp_path / "a.bqm")
    with pytest.raises(StudyError, match="does not say how many variables are 1"):
        run(Study("s", [tmp_path / "a.bqm"], ["greedy"]), tmp_path / "s.sqlite", progress=False)


ONE_LINE = """
def pytest_configure(config=None):
    from solvers import registry

    registry.SOLVERS["first"] = registry.Entry("first_solver:First", "native", "takes the first k")
"""
FIRST_STUDY = """
import sys
from pathlib import Path

import one_line

one_line.pytest_configure()

from experiments import Study, load_runs, run
from experiments.figures import palette
from experiments.report.page import write
from solvers import available, make
from tests.study_fixtures import block

folder = Path(sys.argv[1])
assert available()["first"] is None
assert make("first").name == "first"
looks = list(palette.SOLVERS.values())
assert palette.style("first") in looks
assert len({look.colour for look in looks}) == len({look.marker for look in looks}) == len(looks)
run(Study("s", [block(12)], ["first", "greedy"], [0.05], seeds=[0]), folder / "s.sqlite")
assert set(load_runs(folder / "s.sqlite")["status"]) == {"done"}
print(write(folder / "s.sqlite", folder / "page"))
"""
# What this package asks of each of its solvers.
ASKED = (
    "solvers/test_contract.py::Test_first",
    "solvers/test_contract.py::test_registry_and_class_agree[first]",
    "experiments/test_plots.py::test_styles_differ_and_cover_the_registry",
    "experiments/test_plots.py::test_solvers_without_a_chosen_look_get_one_of_their_own",
    "cli/test_cli.py::test_lists",
)
FIRST_SOLVER = '''
import numpy as np

from solvers.base import CardinalitySampler, Solution

class First(CardinalitySampler):
    """The first k variables."""
    name = "first"
    def _solve(self, problem, request, **parameters):
        states = np.arange(problem.n)[None] < problem.cardinality
        request.report(states[0])
        return Solution(states)
'''


@pytest.mark.slow  # our registry's own tests, once more with the line
def test_a_solver_is_one_class_and_one_line(tmp_path):
    """Colour, marker, rows, place in a report and on lists come by themselves; so do its tests."""
    (tmp_path / "first_solver.py").write_text(FIRST_SOLVER)
    (tmp_path / "one_line.py").write_text(ONE_LINE)
    (tmp_path / "study.py").write_text(FIRST_STUDY)
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(tmp_path), str(root), os.environ.get("PYTHONPATH", "")])
    tests = [f"tests/{test}" for test in ASKED]
    for command in (
        [str(tmp_path / "study.py"), str(tmp_path)],
        ["-m", "pytest", "-n", "0", "-p", "no:cacheprovider", "-p", "one_line", *tests],
    ):
        ended = subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, check=False, cwd=root,
            env=os.environ | {"PYTHONPATH": path},
        )  # fmt: skip
        assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "first" in (tmp_path / "page" / "report.html").read_text("utf-8")
