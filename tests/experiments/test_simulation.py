"""The simulated cluster against cases worked out by hand, bounds, and conservation of cells."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.benchmarks.simulation import Costs, Simulation

SOME = Costs(submit=1e-3, record=2e-3, out=3e-3, back=4e-3, worker=5e-3, latency=6e-3)


def simulated(cells, workers, costs=SOME, **options):
    return Simulation(iter(cells), workers, costs, **options).run()


def test_one_cell_at_a_time_is_the_sum_of_its_parts():
    found = simulated([0.1, 0.2, 0.4], 1, ahead=1)
    assert found.makespan == pytest.approx(0.7 + 3 * (1 + 2 + 3 + 4 + 5 + 4 * 6) * 1e-3)
    assert found.driver == pytest.approx(3 * 3e-3)
    assert found.scheduler == pytest.approx(3 * 7e-3)
    assert (found.done, found.errors, found.most_out) == (3, 0, 1)


def test_the_second_cell_waits_at_the_worker():
    """Two ahead: only the first cell's way out and the last one's way back are seen."""
    found = simulated([1.0] * 5, 1, ahead=2)
    way_out, way_back = 1 + 6 + 3 + 6, 6 + 4 + 6 + 2
    assert found.makespan == pytest.approx(5 * 1.005 + (way_out + way_back) * 1e-3)


@pytest.mark.parametrize("workers", [1, 4])
def test_without_costs_the_makespan_is_ideal(workers):
    found = simulated([2.0] * 8, workers, Costs())
    assert found.makespan == 2.0 * 8 / workers
    assert found.utilisation == 1.0


def test_a_driver_that_is_too_slow_sets_the_pace():
    costs = Costs(submit=1e-3, record=3e-3)
    found = simulated([0.01] * 1000, 50, costs)
    assert found.makespan == pytest.approx(1000 * 4e-3, rel=0.01)
    assert found.driver == pytest.approx(found.makespan, rel=0.01)


def test_driver_and_scheduler_in_one_process_take_turns():
    apart = Costs(submit=1e-3, record=1e-3, out=1e-3, back=1e-3)
    together = Costs(submit=1e-3, record=1e-3, out=1e-3, back=1e-3, one_process=True)
    assert simulated([0.0] * 1000, 20, apart).makespan == pytest.approx(2.0, rel=0.02)
    assert simulated([0.0] * 1000, 20, together).makespan == pytest.approx(4.0, rel=0.02)


class Deaths:
    """Lifetimes in turn, then for ever."""

    def __init__(self, *seconds):
        self.seconds = list(seconds)

    def exponential(self, mean):
        return self.seconds.pop(0) if self.seconds else math.inf


def dying(cells, *deaths):
    costs = Costs(lost=1.0, replaced=2.0)
    study = Simulation(iter(cells), 1, costs, lifetime=1.0)
    study._rng = Deaths(*deaths)
    return study.run()


def test_a_lost_cell_is_run_again_once():
    """Dies at 4, known at 5, next worker at 6, done at 16."""
    found = dying([10.0], 4.0)
    assert (found.makespan, found.done, found.lost, found.errors) == (16.0, 1, 1, 0)


def test_a_cell_lost_twice_is_an_error():
    """The second worker dies at 6 + 3, known at 10."""
    found = dying([10.0], 4.0, 3.0)
    assert (found.makespan, found.done, found.lost, found.errors) == (10.0, 0, 1, 1)


def test_cells_that_waited_at_the_dead_worker_run_alone_one_by_one():
    """Both are known at 5; 6 to 16 and 16 to 26 alone, then the third."""
    found = dying([10.0, 10.0, 10.0], 4.0)
    assert (found.makespan, found.done, found.lost) == (36.0, 3, 2)


@settings(max_examples=60)
@given(
    cells=st.lists(st.floats(0, 5), min_size=1, max_size=60),
    workers=st.integers(1, 7),
    ahead=st.integers(1, 3),
    lifetime=st.none() | st.floats(1, 50),
    seed=st.integers(0, 99),
)
def test_every_cell_is_recorded_once(cells, workers, ahead, lifetime, seed):
    found = simulated(cells, workers, ahead=ahead, lifetime=lifetime, seed=seed)
    assert found.done + found.errors == len(cells)
    assert found.most_out <= ahead * workers
    least = max(max(cells), sum(cells) / workers) if not found.errors else 0.0
    assert found.makespan >= least
    assert 0 <= found.utilisation <= 1
    if lifetime is None:
        assert found.useful == pytest.approx(sum(cells))
