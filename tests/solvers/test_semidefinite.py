"""The semidefinite bound: certificates against brute force, edited ones, and the clock."""

import itertools
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from solvers import Budget, CardinalityProblem, make
from solvers.clock.deadline import Deadline
from solvers.exact.certificate import Certificate, Stage, form, matrix, row_bound, verify
from solvers.exact.doubly_nonnegative import AlternatingDirections
from solvers.exact.semidefinite import bound
from tests.solvers.factories import SCALES_APART, correlated, of_kind


def optimum(problem):
    """The least energy, and what float64 may have done to it."""
    n, k = problem.n, problem.cardinality
    states = np.zeros((0, n), dtype=bool)
    states = np.array([np.isin(np.arange(n), s) for s in itertools.combinations(range(n), k)])
    y = np.column_stack([np.ones(len(states)), states]).astype(np.longdouble)
    own = form(problem)
    C = own.C.astype(np.longdouble)
    energies = np.einsum("si,ij,sj->s", y, C, y) + np.longdouble(problem.offset)
    best = int(np.argmin(energies))
    size = float(y[best] @ np.abs(C) @ y[best]) + abs(problem.offset)
    return energies[best], 1e-15 * size, states[best]


def check(problem, steps):
    """The certificate of any iteration is at most the optimum; returns it and the optimum."""
    least, rounding, state = optimum(problem)
    directions = AlternatingDirections(form(problem))
    for _ in range(steps):
        directions.step()
    proved = verify(problem, Certificate((directions.stage(),), state))
    assert proved <= least + rounding
    return proved, float(least)


@pytest.mark.parametrize("kind", SCALES_APART)
def test_certificates_hold(kind):
    for seed, n in itertools.product(range(4), range(2, 9)):
        check(of_kind(kind, seed, n), seed * 10)


@pytest.mark.slow
def test_certificates_of_ten_thousand_problems_hold():
    for seed, n, kind in itertools.product(range(160), range(2, 9), SCALES_APART):
        check(of_kind(kind, 1000 + seed, n), seed % 40)


@pytest.mark.parametrize("kind", SCALES_APART)
def test_interval_holds_the_optimum(kind):
    """Settled variables, restarts and roundings included; the certificate proves what is said."""
    for seed, n in itertools.product(range(2), (3, 6, 9)):
        problem = of_kind(kind, seed, n)
        least, rounding, _ = optimum(problem)
        found = bound(problem, Deadline(0.15))
        lower = found.lower + problem.offset
        assert lower <= least + rounding + 1e-15 * abs(float(least))
        assert problem.energy(found.state) >= least - rounding
        if found.certificate is not None:
            proved = verify(problem, found.certificate)
            assert proved <= least + rounding
            assert proved >= lower - 1e-9 * found.best.terms - 1e-15 * abs(lower)
        if found.proved:
            assert found.best.energy + problem.offset <= least + 2 * found.best.tolerance + rounding


def test_any_certificate_is_valid():
    """Random matrices in the place of good ones."""
    rng = np.random.default_rng(0)
    for seed, n in itertools.product(range(10), range(2, 8)):
        problem = of_kind("indefinite", seed, n)
        least, rounding, state = optimum(problem)
        stage = Stage(
            rng.normal(size=(3, n + 1)), rng.normal(size=(1, n + 1)),
            rng.uniform(size=(n, n)), rng.uniform(size=(n, n)),
        )  # fmt: skip
        assert verify(problem, Certificate((stage,), state)) <= least + rounding


def test_matrix_of_a_stage_is_what_the_module_says():
    rng = np.random.default_rng(0)
    problem = of_kind("linear", 0, 7)
    stage = Stage(
        rng.normal(size=(3, 8)), rng.normal(size=(1, 8)), rng.uniform(size=(7, 7)),
        rng.uniform(size=(7, 7)),
    )  # fmt: skip
    P, W = stage.mixed, (stage.neither + stage.neither.T) / 2
    P, W = P - np.diag(P.diagonal()), W - np.diag(W.diagonal())
    M = matrix(form(problem), stage)
    for places in itertools.combinations(range(7), problem.cardinality):
        x = np.isin(np.arange(7), places).astype(float)
        y = np.concatenate([[1.0], x])
        rest = ((stage.squares @ y) ** 2).sum() + x @ P @ (1 - x) + (1 - x) @ W @ (1 - x)
        assert y @ M @ y + rest == pytest.approx(problem.energy(x) - problem.offset, rel=1e-12)


def test_edited_certificates_are_refused():
    problem = of_kind("dense", 1, 12)
    found = bound(problem, Deadline(0.3))
    certificate = found.certificate
    smaller = of_kind("dense", 1, 11)
    with pytest.raises(ValueError, match="shape"):
        verify(smaller, replace(certificate, state=np.arange(11) < smaller.cardinality))
    with pytest.raises(ValueError, match="no feasible state"):
        verify(problem, replace(certificate, state=np.zeros(12, dtype=bool)))
    equal = of_kind("all equal", 1, 12)
    guess = Stage(np.zeros((1, 13)), settles=np.ones(12, dtype=bool))
    with pytest.raises(ValueError, match="leaves open"):
        verify(equal, Certificate((guess,), np.arange(12) < equal.cardinality))
    with pytest.raises(ValueError, match="finite"):
        verify(problem, Certificate((Stage(np.full((1, 13), np.nan)),), found.state))


def test_verification_needs_numpy_alone():
    code = (
        "import sys, importlib.util as u;"
        f"s = u.spec_from_file_location('certificate', {form.__code__.co_filename!r});"
        "m = u.module_from_spec(s); sys.modules['certificate'] = m; s.loader.exec_module(m);"
        "assert not {'scipy', 'numba', 'dimod', 'torch', 'solvers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_closes_most_of_what_the_plain_relaxation_leaves():
    problem = correlated(48, 0)
    plain = make("relaxation").sample_problem(problem).info["lower_bound"]
    found = bound(problem, Deadline(3))
    best = found.best.energy
    assert best - found.lower < 0.05 * (best - plain)


def test_time_limit_holds():
    solver = make("semidefinite")
    solver.warm_up(dense=True)
    for n, limit in ((24, 0.2), (300, 0.5), (700, 1.0)):
        problem = correlated(n, 1)
        start = time.perf_counter()
        samples = solver.sample_problem(problem, budget=Budget(time_limit=limit), seed=0)
        assert time.perf_counter() - start < 1.1 * limit + 1.0
        assert samples.info["lower_bound"] <= samples.first.energy


def test_row_bound_chooses_by_group_counts():
    """Two groups with their own counts: the least over all states with those counts."""
    rng = np.random.default_rng(3)
    for _ in range(50):
        n = 6
        Q = rng.normal(size=(n, n))
        own = form(CardinalityProblem(linear=rng.normal(size=n), cardinality=3, quadratic=Q + Q.T))
        own = replace(own, groups=np.array([0, 1, 0, 1, 1, 0]), counts=np.array([1, 2]))
        directions = AlternatingDirections(own)
        for _ in range(30):
            directions.step()
        lower = row_bound(own, directions.stage()).lower
        energies = []
        for bits in itertools.product((0, 1), repeat=n):
            x = np.array(bits)
            if x[own.groups == 0].sum() == 1 and x[own.groups == 1].sum() == 2:
                y = np.concatenate([[1.0], x])
                energies.append(float(y @ own.C @ y))
        assert lower <= min(energies) + 1e-12
        assert lower >= min(energies) - 1.0 * np.ptp(energies)
