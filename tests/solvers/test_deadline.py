"""Deadlines, calls in the background, and what compiles before the clock starts."""

import os
import re
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from solvers import Budget, CardinalityProblem, make
from solvers.arithmetic import convex
from solvers.base import Request
from solvers.clock.background import computed, run_until
from solvers.clock.deadline import NEVER, Deadline
from solvers.clock.warmup import HIGH_RANK
from solvers.registry import SOLVERS, entry
from solvers.search.descent import Greedy
from solvers.search.kernels import DESCENT_RANK
from solvers.search.reads import make_reads


def test_a_share_ends_with_the_whole():
    whole = Deadline(100)
    half = whole.share(0.5)
    assert 49 < half.left <= 50
    assert not half.over
    whole.stop()
    assert half.over
    assert half.left == -np.inf
    assert not NEVER.share(0.5).limited


def test_the_shared_deadline_cannot_be_stopped():
    with pytest.raises(RuntimeError, match="shared by all calls"):
        NEVER.stop()


def test_what_is_late_is_left_behind_and_told_to_stop():
    told, ended = threading.Event(), threading.Event()

    def work():
        told.wait()
        time.sleep(1)
        ended.set()

    start = time.perf_counter()
    assert not run_until(work, Deadline(0.1), told.set)
    assert time.perf_counter() - start < 0.9
    assert told.is_set()
    assert ended.wait(20)


def test_what_ends_in_time_gives_its_value_or_its_failure():
    assert run_until(lambda: None, Deadline(60))
    with pytest.raises(ZeroDivisionError):
        run_until(lambda: 1 / 0, Deadline(60))
    assert computed(lambda: 7, 0.01, Deadline(-1)) == 7
    assert computed(lambda: 7, 10.0, Deadline(60)) == 7
    assert computed(lambda: 7, 10.0, Deadline(19)) is None
    assert computed(lambda: 7, 1e9, NEVER) == 7


def test_many_jobs_share_a_thread():
    threads = set()
    for _ in range(50):
        assert run_until(lambda: threads.add(threading.get_ident()), Deadline(60))
    assert len(threads) == 1


def test_an_interrupt_of_a_compiled_call_is_an_interrupt():
    def work():
        try:
            raise KeyboardInterrupt  # noqa: TRY301
        except KeyboardInterrupt as interrupt:
            raise SystemError("returned a result with an exception set") from interrupt

    with pytest.raises(KeyboardInterrupt):
        computed(work, 0.0, NEVER)


def test_reads_end_when_one_fails():
    """The others look at the deadline, which the failure stops."""
    request = Request(Budget(), np.random.default_rng(0), None, lambda state: None, Deadline())
    looked = threading.Event()

    def read(number, rng):
        if number == 0:
            looked.wait(30)
            raise ValueError("no")
        looked.set()
        while not request.deadline.over:
            time.sleep(0.01)
        return np.zeros(4, dtype=bool)

    start = time.perf_counter()
    with pytest.raises(ValueError, match="no"):
        make_reads(read, None, request, 10, 2)
    assert time.perf_counter() - start < 20


def has_loops(name):
    """Whether a solver's module has, or searches with, the compiled loops of this package."""
    source = Path(find_spec(entry(name).target.partition(":")[0]).origin).read_text()
    return re.search(r"\b(njit|LocalSearch|Walk|MixedInteger)\b", source)


COMPILED = [name for name in SOLVERS if has_loops(name)]


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_solvers_say_so(name):
    assert make(name).compiles


FIRST = """
import sys
import numpy as np
from solvers import Budget, CardinalityProblem, make
rng = np.random.default_rng(0)
A, c = rng.standard_normal((60, 20)), rng.standard_normal(20)
G = (A.T @ A + (A.T @ A).T) / 2
problem = CardinalityProblem(linear=c, cardinality=10, **(
    {"quadratic": G} if sys.argv[2] == "dense" else {"factor": A}
))
samples = make(sys.argv[1]).sample_problem(problem, budget=Budget(time_limit=0.2), seed=0)
timing = samples.info["timing"]
print(samples.info["warm_up"], sum(timing.values()))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dense", "factor"])
@pytest.mark.parametrize("name", COMPILED)
def test_a_first_call_with_an_empty_cache_is_on_time(name, kind, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FIRST, name, kind],
        env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    warm_up, clock = map(float, done.stdout.split())
    assert warm_up > 0
    # What compiles takes seconds.
    assert clock < 1.5


@pytest.mark.parametrize("name", ["relaxation", "exact", "milp", "miqp"])
def test_heavy_columns_and_no_time_leave_greedy_and_descent(name, monkeypatch):
    """The bound of a dense problem cannot be had in the time: the answer is no worse for it."""
    # A machine on which a factorisation would take a year, however busy this one is.
    monkeypatch.setattr(convex, "CHOLESKY_RATE", 1.0)
    rng = np.random.default_rng(0)
    A = rng.standard_normal((420, 400))
    A[:, :4] *= 1e3
    G = A.T @ A / 400
    problem = CardinalityProblem(linear=np.zeros(400), cardinality=200, quadratic=(G + G.T) / 2)
    samples = make(name).sample_problem(problem, budget=Budget(time_limit=2), seed=0)
    greedy = make("greedy").sample_problem(problem).first.energy
    assert samples.first.energy <= greedy * (1 + 1e-12)
    assert samples.info["lower_bound"] <= samples.first.energy
    assert samples.info["proved_optimal"] is False


def test_an_interrupted_warm_up_is_made_again():
    class Interrupted(Greedy):
        calls = 0

        def _compile(self, tiny):
            type(self).calls += 1
            if self.calls == 1:
                raise KeyboardInterrupt

    solver = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        solver.warm_up(dense=True)
    assert solver.warm_up(dense=True) > 0
    assert solver.warm_up(dense=True) == 0


def test_warm_up_reaches_the_loops_of_high_rank():
    assert HIGH_RANK >= DESCENT_RANK
