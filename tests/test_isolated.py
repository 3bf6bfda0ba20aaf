"""Solvers that hang, in processes of their own; and whose modules those processes import."""

import time

import numpy as np

from experiments import Study, load_runs, run, worker
from tests.study_fixtures import First, block, spec

HANG = 600.0


class Hanging(First):
    """Never answers, in the warm-up or later."""

    name = "hanging"

    def _solve(self, problem, request):
        time.sleep(HANG)


class HangingLater(First):
    """Answers the small problems of a warm-up only."""

    name = "hanging-later"

    def _solve(self, problem, request):
        if problem.n > 8:
            time.sleep(HANG)
        return super()._solve(problem, request)


def test_a_solver_that_hangs_costs_its_warm_up_once_and_then_its_limit(tmp_path):
    study = Study("s", [block()], [spec(Hanging), spec(First)], [0.5], seeds=range(3))
    start = time.monotonic()
    outcome = run(study, tmp_path / "s.sqlite", isolate=True, progress=False)
    seconds = time.monotonic() - start
    assert outcome.counts == {"timeout": 3, "done": 3}
    limit = worker.kill_limit(study.ladder[0])
    assert seconds < worker.WARM_UP_LIMIT + 3 * limit + 60
    late = load_runs(tmp_path / "s.sqlite").set_index("solver").loc["hanging"]
    assert late["wall"].between(limit, limit + 10).all()
    assert (late["lane"] == "native").all()
    for wall, reason in zip(late["wall"], late["reason"], strict=True):
        assert reason == (
            f"no answer after {wall:.3g} s, killed; the limit is 0.5 s; called without a "
            "warm-up, since that was killed as well"
        )


def test_a_solver_that_hangs_in_its_call_is_warmed_up_each_time(tmp_path):
    study = Study("s", [block()], [spec(HangingLater)], [0.1], seeds=range(2))
    run(study, tmp_path / "s.sqlite", isolate=True, progress=False)
    late = load_runs(tmp_path / "s.sqlite")
    assert (late["status"] == "timeout").all()
    assert not late["reason"].str.contains("warm-up").any()
    assert np.all(late["wall"] >= worker.kill_limit(study.ladder[0]))
