"""Calls, studies and crashes of the tests of paid tasks; a task for each circuit, unless said."""

from experiments import SolverSpec, Study, load_runs, run
from solvers import Budget, make
from solvers.arguments import seeded
from solvers.base import Request
from solvers.clock.deadline import NEVER
from tests.study_fixtures import block

QUICK = {"depth": 1, "angles": "ramp", "mixer": "ring"}


def solver(tmp_path, device="Garnet", name="qaoa-xy-braket", **options):
    given = {
        "max_cost": 100.0, "journal": str(tmp_path / "journal.sqlite"), "program_sets": False,
        **options,
    }  # fmt: skip
    return make(name, device=device, **given)


def study(tmp_path, seeds=1, device="Garnet", reads=100, **options):
    spec = SolverSpec(
        "qaoa-xy-braket",
        options={"device": device, "max_cost": 100.0, "program_sets": False,
                 "journal": str(tmp_path / "journal.sqlite"), **options},
        parameters=QUICK,
    )  # fmt: skip
    return Study("paid", [block(4)], [spec], [Budget(reads=reads)], seeds=range(seeds))


def rows(tmp_path, **options):
    """Runs (or resumes) the study and returns its rows."""
    run(study(tmp_path, **options), tmp_path / "s.sqlite", progress=False)
    return load_runs(tmp_path / "s.sqlite").to_dict("records")


def sample(sampler, seed=0, reads=100, n=4, problem=None, **parameters):
    return sampler.sample_problem(
        (problem or block(n)).blinded(),
        budget=Budget(reads=reads),
        seed=seed,
        **{**QUICK, **parameters},
    )


def submit(sampler, problem=None, reads=100, seed=0):
    """Sends a call's tasks without waiting, and raises what keeps it from them."""
    request = Request(Budget(reads=reads), seeded(seed), None, lambda state: None, NEVER)
    problem = (problem or block(4)).blinded()
    key = sampler._key(problem, request, QUICK)
    sampler._tasks.submit(sampler._order(key, problem, request, QUICK))


class Crash(BaseException):
    """Stands for the death of the process: nothing catches it."""


def crash(*arguments, **keywords):
    raise Crash
