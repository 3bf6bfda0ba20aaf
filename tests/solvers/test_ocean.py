"""Ocean's samplers: Ctrl-C, the time limit, and the same answers as without a thread."""

import os
import signal
import subprocess
import sys
import threading
import time
from itertools import product

import dimod
import numpy as np
import pytest
from dwave.samplers import RandomSampler

from solvers import Budget, CardinalityProblem, make
from solvers.clock import background
from solvers.clock.deadline import Deadline
from solvers.penalised.ocean import ReadClock, flip_spread

SCRIPT = """
import os, signal, sys, threading, time
import numpy as np
from solvers import Budget, CardinalityProblem, make

# What was started in the background of a shell without job control ignores Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
name, n, free = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "free"
rng = np.random.default_rng(0)
problem = CardinalityProblem(
    linear=rng.normal(size=n), cardinality=n // 2, factor=rng.normal(size=(n, n))
)
sampler, bqm = make(name), problem.to_bqm()
sampler.sample_problem(problem.restricted(range(8), at=np.arange(n) < n // 2))
sent = []

def press():
    time.sleep(1.5)
    sent.append(time.perf_counter())
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=press, daemon=True).start()
try:
    if free:
        sampler.sample(bqm, time_limit=60, num_reads=10**6)
    else:
        sampler.sample_problem(problem, budget=Budget(time_limit=60, reads=10**6))
except KeyboardInterrupt:
    print(time.perf_counter() - sent[0])
"""


# A process each: one annealer and one sampler of another kind, the others with the slow tests.
QUICK = {("neal", "with a cardinality"), ("ocean-tabu", "free")}
CALLS = list(
    product(("neal", "path-integral", "ocean-tabu", "random"), ("with a cardinality", "free"))
)


@pytest.mark.parametrize(
    ("name", "how"),
    [pytest.param(*one, marks=() if one in QUICK else pytest.mark.slow) for one in CALLS],
)
def test_ctrl_c_is_answered(name, how):
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, name, "200", how],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert "Exception ignored" not in ended.stderr
    assert float(ended.stdout) < 2


@pytest.fixture
def ctrl_c():
    """Ctrl-C is heard, also by tests that were started where it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupted_annealer_stops_with_its_read(ctrl_c):
    problem = CardinalityProblem(
        linear=np.arange(50.0), cardinality=20, factor=np.random.default_rng(0).normal(size=(4, 50))
    )
    sampler = make("neal")
    sampler.sample_problem(problem)
    background._IDLE.clear()
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        sampler.sample_problem(problem, budget=Budget(reads=10**6, sweeps=10))
    # Its thread is free again long before a million reads are made.
    given_up = time.perf_counter() + 20
    while len(background._IDLE) < 1 and time.perf_counter() < given_up:
        time.sleep(0.01)
    assert background._IDLE


def test_a_failure_in_the_thread_is_raised_here():
    problem = CardinalityProblem(linear=np.arange(4.0), cardinality=2, factor=np.ones((1, 4)))
    with pytest.raises(ValueError, match="Beta schedule type nonsense"):
        make("neal").sample_problem(problem, beta_schedule_type="nonsense")


def test_another_thread_gets_the_same_answer():
    problem = CardinalityProblem(linear=np.arange(9.0), cardinality=4, factor=np.eye(9))
    answers = []

    def call():
        answers.append(make("neal").sample_problem(problem, budget=Budget(reads=3), seed=1))

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    call()
    assert (answers[0].record.raw_sample == answers[1].record.raw_sample).all()


def test_no_read_starts_that_would_end_late():
    clock = ReadClock(Deadline(60))
    assert not clock()
    assert not clock()
    clock.deadline = Deadline(0)
    assert clock()
    clock = ReadClock(Deadline())
    assert not clock()
    clock.deadline.stop()
    assert clock()


def test_draws_in_slices_are_those_in_one(monkeypatch):
    monkeypatch.setattr("solvers.penalised.ocean.SLICE", 1e-6)
    bqm = CardinalityProblem(linear=np.arange(30.0), cardinality=4, factor=np.eye(30)).to_bqm()
    sampler = make("random")
    rows = sampler.sample(bqm, num_reads=50, seed=3).record.sample
    seed = int(np.random.default_rng(3).integers(2**31 - 1))
    assert (rows == RandomSampler().sample(bqm, num_reads=50, seed=seed).record.sample).all()
    assert len(sampler.sample(bqm, seed=3)) == 1
    monkeypatch.setattr("solvers.penalised.ocean.SLICE", 0.02)
    monkeypatch.setattr("solvers.penalised.ocean.MAX_DRAWS", 7)
    kept = sampler.sample(bqm, time_limit=0.2, seed=3)
    assert len(kept) == 7
    dimod.testing.assert_response_energies(kept, bqm)


def test_spread_of_flips_is_the_mean_of_their_energies():
    rng = np.random.default_rng(0)
    bqm = dimod.BinaryQuadraticModel(
        {i: rng.normal() for i in "abcd"}, {("a", "b"): 2.0, ("d", "b"): -3.0}, "BINARY"
    )
    found = flip_spread(bqm, np.random.default_rng(5))
    s = np.random.default_rng(5).choice((-1.0, 1.0), 4)
    state = {v: int(x > 0) for v, x in zip(bqm.variables, s, strict=True)}
    changes = [
        abs(bqm.energy({**state, v: 1 - state[v]}) - bqm.energy(state)) for v in bqm.variables
    ]
    assert found == pytest.approx(np.mean(changes))


def test_models_of_zeros_are_annealed():
    bqm = dimod.BinaryQuadraticModel({"a": 0.0, "b": 0.0}, {}, "SPIN")
    for name in ("neal", "path-integral"):
        assert make(name).sample(bqm, seed=1).first.energy == 0


@pytest.mark.parametrize("name", ["neal", "ocean-tabu", "random"])
def test_a_limit_on_a_bare_model_holds(name):
    rng = np.random.default_rng(0)
    bqm = dimod.BinaryQuadraticModel("SPIN")
    bqm.add_linear_from_array(rng.normal(size=600))
    bqm.add_quadratic_from_dense(np.triu(rng.normal(size=(600, 600)), 1))
    start = time.perf_counter()
    samples = make(name).sample(bqm, time_limit=0.2, seed=0)
    assert time.perf_counter() - start < 5  # generous: a busy machine; 1000 sweeps take longer
    np.testing.assert_allclose(samples.record.energy, bqm.energies(samples), atol=1e-5)


@pytest.mark.parametrize("name", ["neal", "ocean-tabu"])
def test_a_limit_that_reading_the_model_exceeds_is_refused(name):
    """At 4096 variables both were late by a factor of 20 at 0.2 s."""
    problem = CardinalityProblem(linear=np.ones(4096), cardinality=2048, factor=np.ones((1, 4096)))
    start = time.perf_counter()
    with pytest.raises(
        dimod.exceptions.BinaryQuadraticModelSizeError, match=r"time_limit is 0\.2, but .* to read"
    ):
        make(name).sample_problem(problem, budget=Budget(time_limit=0.2), seed=0)
    assert time.perf_counter() - start < 10
