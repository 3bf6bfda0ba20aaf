"""Search on the factor: kernels against brute force, chains against their distribution."""

import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.record.host import usable_cpus
from experiments.running.pool import WorkerPool
from solvers import Budget, CardinalityProblem, make
from solvers.base import ReadPool, Request
from solvers.clock.deadline import NEVER, Deadline
from solvers.errors import ParameterError
from solvers.search.annealing_kernels import window
from solvers.search.kernels import (
    dense_pays,
    greedy_fill,
    greedy_fill_dense,
    swap_descent,
)
from solvers.search.population import resampled
from solvers.search.published import inverse_temperatures, published_sweep
from solvers.search.randomness import next_random, random_pair, random_unit
from solvers.search.reads import checked_threads, make_reads
from solvers.search.repair import LocalSearch
from solvers.search.schedule import DEFAULT_SWEEPS, FIRST_SWEEPS, Pace, hottest
from solvers.search.starts import kicked
from solvers.search.tabu import core_of
from solvers.search.tabu_kernels import iterated_tabu_search, tabu_search
from solvers.search.walks import Walk
from tests.solvers.factories import drawn, random_source
from tests.solvers.reference import boltzmann, feasible_states, frequencies, magnitude
from tests.strategies import problems

families = problems(max_n=9)
proper_families = problems(max_n=9, proper=True)
SEARCHES = ("descent", "annealing", "tabu", "tempering")


def request(budget=None, deadline=None, report=lambda state: None):
    return Request(
        budget or Budget(), np.random.default_rng(0), None, report, deadline or Deadline()
    )


@pytest.mark.parametrize("couplings", ["factor", "cached", "dense"])
def test_annealing_visits_states_by_their_boltzmann_weight(couplings):
    problem = drawn(6, 2, 2, seed=4, dense=couplings == "dense")
    states, expected = boltzmann(problem, 1.3)
    walk = Walk(LocalSearch(problem, couplings == "cached"), states[0], random_source())
    visited, once = [], np.array([1.3])
    for _ in range(40_000):
        walk.anneal(once, np.inf)
        visited.append(walk.x.copy())
    assert np.abs(frequencies(states, visited) - expected).max() < 0.012
    # What is kept up to date still equals what it stands for.
    if couplings == "factor":
        assert np.allclose(walk.s, problem.factor @ walk.x, atol=1e-9)
    else:
        assert np.allclose(
            walk.f, problem.fields(walk.x), atol=1e-3 if couplings == "cached" else 1e-9
        )


@pytest.mark.parametrize("couplings", ["factor", "cached", "dense"])
def test_walks_know_their_energy_and_twins_go_their_own_way(couplings):
    problem = drawn(20, 8, 4, seed=2, dense=couplings == "dense")
    walk = Walk(LocalSearch(problem, couplings == "cached"), np.arange(20) < 8, random_source(1))
    for _ in range(30):
        walk.anneal(np.array([2.0]))
        expected = problem.energy(walk.x) - problem.offset
        assert walk.energy == pytest.approx(expected, abs=1e-4 if couplings == "cached" else 1e-9)
    twin, before = walk.twin(random_source(2)), walk.x.copy()
    same = walk.twin(walk.random.copy())
    twin.anneal(np.full(5, 50.0))
    assert (walk.x == before).all()
    walk.anneal(np.full(5, 50.0))
    same.anneal(np.full(5, 50.0))
    assert (walk.x == same.x).all()
    assert (walk.x != twin.x).any()
    assert np.allclose(
        twin.f if twin.search.dense else twin.search.F @ twin.s + problem.linear,
        problem.fields(twin.x),
        atol=1e-3,
    )


def test_reference_visits_states_by_their_boltzmann_weight():
    problem = drawn(6, 2, 2, seed=4)
    states, expected = boltzmann(problem, 1.3)
    x, G, state, visited = states[0].astype(float), problem.gram(), random_source(), []
    for _ in range(40_000):
        published_sweep(G, problem.linear, x, 1 / 1.3, state)
        visited.append(x > 0.5)
    assert np.abs(frequencies(states, visited) - expected).max() < 0.012


def test_reference_schedule_and_start():
    betas = inverse_temperatures()
    assert betas[0] == 0.001
    assert np.allclose(betas[1:] / betas[:-1], 1.1)
    assert betas[-1] <= 100 < betas[-1] * 1.1
    # All swaps cost more than any temperature allows: the start, the first k, is what comes back.
    frozen = CardinalityProblem(
        linear=np.repeat([0.0, 1e9], [3, 5]), cardinality=3, factor=np.zeros((1, 8))
    )
    samples = make("reference-sa").sample_problem(frozen, seed=0)
    assert samples.record.sample.tolist() == [[1, 1, 1, 0, 0, 0, 0, 0]]


@settings(max_examples=100)
@given(proper_families, st.floats(0, 4))
def test_window_holds_the_swaps_within_reach(problem, reach):
    x, d, f = problem.initial, problem.diagonal, problem.fields(problem.initial)
    ones, zeros = np.empty(problem.n, np.int64), np.empty(problem.n, np.int64)
    m1, m0 = window(d, f, x, reach, ones, zeros)
    out, into = -f + 0.5 * d, f + 0.5 * d
    pairs = out[x][:, None] + into[~x][None, :]
    assert ones[:m1].tolist() == np.flatnonzero(x)[pairs.min(axis=1) <= reach].tolist()
    assert zeros[:m0].tolist() == np.flatnonzero(~x)[pairs.min(axis=0) <= reach].tolist()


@settings(max_examples=60)
@given(
    st.integers(2, 300),
    st.integers(1, 6),
    st.floats(-2, 2),
    st.floats(0, 1),
    st.integers(0, 2**32),
    st.sampled_from([0.0, 1e3, 1e5, np.inf]),
)
def test_windowed_greedy_makes_the_flips_of_the_plain_one(n, rank, power, share, seed, max_work):
    """Both directions, with curvature that makes the windows overflow; cut anywhere."""
    problem = drawn(n, int(share * n), rank, seed, curvature=10**power)
    x = np.random.default_rng(seed).random(n) < 0.5
    quick, plain = x.copy(), x.copy()
    search, k = LocalSearch(problem), problem.cardinality
    f = problem.fields(x)
    while quick.sum() != k:
        greedy_fill(search.F, search.diagonal, search.bounds, f, quick, k, max_work)
    greedy_fill_dense(problem.gram(), problem.fields(x), plain, k, np.inf)
    assert plain.sum() == k
    assert problem.energy(quick) == pytest.approx(
        problem.energy(plain), abs=1e-9 * magnitude(problem)
    )
    assert np.allclose(f, problem.fields(quick), atol=1e-9 * magnitude(problem))


def test_greedy_gives_up_in_time():
    """What the deadline leaves undone is filled by the costs at that moment."""
    problem = drawn(200, 80, 4, seed=1)
    state = LocalSearch(problem).fill(np.zeros(200, dtype=bool), deadline=Deadline(-1))
    costs = problem.linear + 0.5 * problem.diagonal
    assert set(np.flatnonzero(state)) == set(np.argsort(costs)[:80])


@settings(max_examples=100)
@given(proper_families)
def test_descent_with_cached_fields_ends_at_a_true_local_optimum(problem):
    search = LocalSearch(problem, dense=True)
    state = search.descend(problem.initial)
    _, _, deltas = problem.swap_deltas(state)
    assert deltas.min() >= -search.tolerance - 1e-12 * magnitude(problem)


@settings(max_examples=100)
@given(proper_families, st.booleans(), st.floats(0, 1e4))
def test_a_descent_cut_into_pieces_makes_the_same_swaps(problem, dense, max_work):
    search = LocalSearch(problem, dense)

    def descended(work):
        x, f, checked = problem.initial.copy(), problem.fields(problem.initial), np.zeros(1, int)
        arguments = (search.F, search.G, search.diagonal, search.bounds, f, x, search.tolerance)
        pieces = 1
        while not swap_descent(*arguments, work, checked):
            pieces += 1
        return x, f, pieces

    whole, cut = descended(np.inf), descended(max_work)
    assert whole[2] == 1
    assert (whole[0] == cut[0]).all()
    assert (whole[1] == cut[1]).all()


def test_a_descent_is_cut_even_where_it_only_checks():
    """At a local optimum of strong curvature all that is left is to look at every pair."""
    problem = drawn(2000, 1000, 200, seed=3, curvature=1e4)
    search = LocalSearch(problem)
    x = search.descend(np.arange(2000) < 1000)
    f, checked, pieces = problem.fields(x), np.zeros(1, int), 1
    while not swap_descent(
        search.F, search.G, search.diagonal, search.bounds, f, x, search.tolerance, 1e6, checked
    ):
        pieces += 1
    assert pieces > 10


@pytest.mark.parametrize("name", ["annealing", "tabu", "tempering"])
@pytest.mark.parametrize("dense", [False, True])
def test_searches_reach_the_optimum_of_small_problems(name, dense):
    solver, reads = make(name), 2 if name == "tempering" else 10
    for seed in range(20):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(2, 13))
        problem = drawn(n, int(rng.integers(1, n)), int(rng.integers(1, 8)), seed, 3.0, dense)
        best = problem.energy(feasible_states(problem)).min()
        found = solver.sample_problem(problem, budget=Budget(reads=reads), seed=seed).first.energy
        assert found == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("name", SEARCHES)
def test_samples_do_not_depend_on_the_number_of_threads(name):
    problem = drawn(60, 25, 5, seed=3)
    one, three = (
        make(name, num_threads=threads).sample_problem(problem, budget=Budget(reads=7), seed=11)
        for threads in (1, 3)
    )
    assert (one.record.sample == three.record.sample).all()
    assert len(one.record.sample) == 7


@pytest.mark.parametrize("name", SEARCHES)
def test_incumbent_is_the_start_of_the_first_read_only_if_given(name):
    """From the optimum nothing better can be found: it must come back."""
    problem = drawn(40, 20, 30, seed=8, curvature=10.0)
    best = make("tabu").sample_problem(problem, budget=Budget(reads=8), seed=0).first
    start = np.array([best.sample[i] for i in range(40)], dtype=bool)
    budget = Budget(reads=1) if name in ("descent", "tabu") else Budget(reads=1, sweeps=1)
    led = make(name).sample_problem(problem, budget=budget, seed=5, initial=start)
    assert led.first.energy == pytest.approx(best.energy, abs=1e-9)


@pytest.mark.parametrize("name", SEARCHES)
def test_time_limits_hold_where_one_sweep_is_short(name):
    problem = drawn(80, 30, 8, seed=1, curvature=3.0)
    solver = make(name, num_threads=1)
    solver.sample_problem(problem, budget=Budget(time_limit=0.05), seed=0)
    begun = time.perf_counter()
    samples = solver.sample_problem(problem, budget=Budget(time_limit=0.3), seed=0)
    # Far above what it takes on an idle machine, far below what an unheeded limit would cost.
    assert time.perf_counter() - begun < 1.5
    assert samples.info["reads"] > 1


def test_the_number_of_threads_is_checked():
    assert checked_threads(3) == 3
    assert checked_threads(None) >= 1
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(ParameterError, match="num_threads"):
            checked_threads(wrong)


def test_threads_by_default_follow_numbas_setting(monkeypatch):
    monkeypatch.setenv("NUMBA_NUM_THREADS", "5")
    assert checked_threads(None) == 5
    monkeypatch.setenv("NUMBA_NUM_THREADS", "0")
    assert checked_threads(None) == usable_cpus()
    monkeypatch.delenv("NUMBA_NUM_THREADS")
    assert checked_threads(None) == usable_cpus()


@pytest.mark.parametrize("threads", [1, 4])
def test_reads_stop_at_the_deadline_after_at_least_one(threads):
    problem = drawn(6, 3, 2, seed=0)
    given_request = request(deadline=Deadline(-1))
    pool = ReadPool(problem, given_request)
    made = []

    def read(number, rng):
        made.append(number)
        return feasible_states(problem)[number]

    make_reads(read, pool, given_request, 1000, threads)
    assert 1 <= pool.reads <= 2 * threads
    assert len(made) == pool.reads


def test_a_failing_read_is_the_callers_error():
    given_request = request()
    problem = drawn(6, 3, 2, seed=0)

    def read(number, rng):
        if number == 5:
            raise ZeroDivisionError
        return feasible_states(problem)[0]

    with pytest.raises(ZeroDivisionError):
        make_reads(read, ReadPool(problem, given_request), given_request, 20, 3)


def test_pool_keeps_rows_in_order_and_the_best_one(monkeypatch):
    monkeypatch.setattr(ReadPool, "MAX_ROWS", 3)
    problem = CardinalityProblem(linear=-np.arange(8.0), cardinality=1, factor=np.zeros((1, 8)))
    seen = []
    pool = ReadPool(
        problem, request(report=lambda state: seen.append(int(np.flatnonzero(state)[0])))
    )
    for number, one in [(2, 1), (0, 0), (5, 7), (1, 2), (4, 7), (3, 3)]:
        pool.add(np.arange(8) == one, number)
    rows = pool.solution().states.argmax(axis=1).tolist()
    # Read 4 is as good as read 5 and comes before it.
    assert rows == [0, 2, 1, 7]
    assert pool.reads == 6
    assert seen == [1, 7]


def test_incumbents_are_reported_one_at_a_time():
    problem = drawn(30, 15, 3, seed=0)
    busy, clashes = threading.Lock(), []

    def report(state):
        if not busy.acquire(blocking=False):
            clashes.append(1)
            return
        time.sleep(0.001)
        busy.release()

    pool = ReadPool(problem, request(report=report))
    rows = feasible_states(drawn(10, 5, 3, seed=0))
    states = np.hstack([rows, ~rows, rows])[:60]
    threads = [
        threading.Thread(target=lambda s=part: [pool.improve(x) for x in s])
        for part in np.array_split(states, 4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not clashes


def test_pace_doubles_and_fits_the_last_read_into_the_time_left():
    assert Pace(Budget(sweeps=7, time_limit=1), Deadline(1), 2).sweeps(50) == 7
    assert Pace(Budget(reads=3, time_limit=1), Deadline(1), 2).sweeps(0) == DEFAULT_SWEEPS
    assert Pace(Budget(), NEVER, 2).sweeps(0) == DEFAULT_SWEEPS
    pace = Pace(Budget(time_limit=100), Deadline(100), 2)
    assert pace.sweeps(0) == FIRST_SWEEPS
    pace.seconds_per_sweep = 1e-6
    assert [pace.sweeps(number) for number in (0, 1, 2, 3, 4)] == [
        FIRST_SWEEPS * share for share in (1, 1, 2, 2, 4)
    ]
    pace.seconds_per_sweep = 1.0
    assert 80 <= pace.sweeps(0) <= 90


def test_temperatures_scale_with_the_energies():
    problem = drawn(30, 12, 4, seed=0)
    x = np.arange(30) < 12
    hot = hottest(LocalSearch(problem), x, np.random.default_rng(1))
    thousand = CardinalityProblem(
        linear=1000 * problem.linear, cardinality=12, factor=np.sqrt(1000) * problem.factor
    )
    assert hottest(LocalSearch(thousand), x, np.random.default_rng(1)) == pytest.approx(1000 * hot)
    flat = CardinalityProblem(linear=np.zeros(30), cardinality=12, factor=np.zeros((1, 30)))
    assert hottest(LocalSearch(flat), x, np.random.default_rng(1)) > 0


def allowed_swaps(G, f, x, free, aspired):
    """Swaps a tabu iteration may take, with their energy changes."""
    cost = np.where(x, -f, f) + 0.5 * G.diagonal()
    swaps = {}
    for value, sign in ((True, 1), (False, 0)):
        candidates = np.flatnonzero((x == value) & free)
        if not len(candidates):
            continue
        first = candidates[np.argmin(cost[candidates])]
        for p in np.flatnonzero(x != value):
            change = cost[first] + cost[p] - G[first, p]
            if free[p] or change < aspired:
                swaps[(first, p) if sign else (p, first)] = change
    return swaps


@pytest.mark.parametrize("seed", range(6))
def test_every_tabu_iteration_takes_the_best_swap_allowed(seed):
    problem = drawn(14, 6, 5, seed, curvature=2.0)
    G, tolerance = problem.gram(), 1e-12
    x = np.arange(14) < 6
    f, best = problem.fields(x), x.copy()
    energies = np.full(2, problem.energy(x))
    free_at, tenures, state = np.zeros(14, np.int64), np.array([2, 3]), random_source(seed)
    aspirations = 0
    for now in range(300):
        free = free_at <= now
        aspired = energies[1] - energies[0] - tolerance
        swaps = allowed_swaps(G, f, x, free, aspired)
        before, best_before = x.copy(), energies[1]
        tabu_search(G, f, x, free_at, now, 1, tenures, energies, tolerance, best, state)
        moved = np.flatnonzero(x != before)
        if not swaps:
            assert len(moved) == 0
            continue
        out, into = moved[before[moved]][0], moved[~before[moved]][0]
        assert swaps[out, into] == pytest.approx(min(swaps.values()), abs=1e-9)
        aspirations += not free[[out, into]].all()
        assert now + 1 + 2 <= free_at[into] <= now + 1 + 4
        assert now + 1 + 3 <= free_at[out] <= now + 1 + 6
        assert energies[0] == pytest.approx(problem.energy(x), abs=1e-9)
        assert energies[1] == pytest.approx(min(best_before, energies[0]), abs=1e-9)
        assert problem.energy(best) == pytest.approx(energies[1], abs=1e-9)
    assert np.allclose(f, problem.fields(x), atol=1e-9)
    assert len(set(free_at)) > 2


@settings(max_examples=60)
@given(st.integers(2, 60), st.data())
def test_core_holds_the_cheapest_of_both_values(n, data):
    k, size = data.draw(st.integers(1, n - 1)), data.draw(st.integers(2, 70))
    problem = drawn(n, k, 3, seed=n)
    x = np.random.default_rng(k).permutation(n) < k
    core = core_of(problem, x, size)
    assert len(set(core.tolist())) == len(core) == min(n, size)
    if n <= size:
        return
    cost = np.where(x, -1, 1) * problem.fields(x) + 0.5 * problem.diagonal
    for value in (True, False):
        inside = core[x[core] == value]
        assert len(inside) >= min(size // 2, (x == value).sum())
        outside = np.setdiff1d(np.flatnonzero(x == value), inside)
        if len(outside) and len(inside):
            assert cost[inside].max() <= cost[outside].min()
    shaken = kicked(x, core, 3, np.random.default_rng(0))
    assert shaken.sum() == k
    assert set(np.flatnonzero(shaken != x)) <= set(core.tolist())
    assert (shaken != x).any()


@settings(max_examples=100)
@given(st.lists(st.floats(-50, 50), min_size=1, max_size=12), st.floats(0, 5), st.integers(0, 99))
def test_resampling_takes_each_state_by_its_weight(energies, beta_step, seed):
    energies = np.array(energies)
    chosen = resampled(energies, beta_step, np.random.default_rng(seed))
    weights = np.exp(-beta_step * (energies - energies.min()))
    expected = len(energies) * weights / weights.sum()
    counts = np.bincount(chosen, minlength=len(energies))
    assert counts.sum() == len(energies)
    assert (np.abs(counts - expected) < 1 + 1e-6).all()
    assert (np.diff(chosen) >= 0).all()


def test_random_numbers_are_uniform():
    state = random_source(1)
    draws = np.array([random_pair(state, 7, 3) for _ in range(70_000)])
    table = np.zeros((7, 3))
    np.add.at(table, (draws[:, 0], draws[:, 1]), 1)
    # Each cell expects 3333 with a deviation of 57.
    assert np.abs(table - 70_000 / 21).max() < 5 * 57
    units = np.array([random_unit(state) for _ in range(20_000)])
    assert 0 <= units.min() < units.max() < 1
    assert abs(units.mean() - 0.5) < 0.01
    # First output of SplitMix64 for seed 0, from its authors' reference.
    assert int(next_random(np.zeros(1, np.uint64))) == 0xE220A8397B1DCDAF


def test_worker_processes_share_the_cpus(monkeypatch):
    """Each gets its part, also where the driver was told to use fewer than there are."""
    monkeypatch.setenv("NUMBA_NUM_THREADS", "7")
    with WorkerPool(3) as pool:
        assert pool.submit(checked_threads, None).result() == 2
    with WorkerPool(9) as pool:
        assert pool.submit(checked_threads, None).result() == 1


def test_dense_fields_where_they_pay():
    assert dense_pays(drawn(100, 50, 9, seed=0), 9, NEVER)
    assert not dense_pays(drawn(100, 50, 9, seed=0), 9.1, NEVER)
    assert dense_pays(drawn(100, 50, 9, seed=0), 9, Deadline(10))
    # 2000^2 * 60 multiplications take about 12 ms, more than a fifth of 30.
    assert not dense_pays(drawn(2000, 50, 60, seed=0), 9, Deadline(0.03))
    assert not dense_pays(drawn(8193, 50, 9, seed=0), 9, NEVER)


@pytest.mark.parametrize("groups", [1, 3])
def test_iterated_tabu_search_keeps_count_of_its_energies_and_groups(groups):
    problem, m = drawn(24, 12, 10, seed=2, curvature=2.0), 24
    members = np.argsort(np.arange(m) % groups, kind="stable")
    start = np.linspace(0, m, groups + 1).astype(np.int64)
    G, x = problem.gram(), np.zeros(m, bool)
    x[np.concatenate([part[: len(part) // 2] for part in np.split(members, start[1:-1])])] = True
    ones = [int(x[part].sum()) for part in np.split(members, start[1:-1])]
    first = float(problem.energy(x))
    f, best, energies = problem.fields(x), x.copy(), np.full(2, first)
    made = iterated_tabu_search(
        G, f, x, start, members, 50, 10**6, False, 3, 40, 0.5, np.array([2, 2]), energies, 1e-12,
        best, random_source(),
    )  # fmt: skip
    assert made == 50
    assert energies == pytest.approx(problem.energy(np.array([x, best])))
    assert np.allclose(f, problem.fields(x))
    assert energies[1] < first
    for state in (x, best):
        assert [int(state[part].sum()) for part in np.split(members, start[1:-1])] == ones
