"""Former names work for one more release, with a warning that names the new one."""

import dimod
import numpy as np
import pytest

from solvers import CardinalityProblem, CardinalitySampler, make
from solvers.base import Solution
from solvers.registry import SOLVERS


@pytest.mark.parametrize("owner", [make("neal"), SOLVERS["neal"]])
def test_lane_is_the_former_name_of_track(owner):
    with pytest.warns(DeprecationWarning, match="lane is now track"):
        assert owner.lane == "penalised"
    assert owner.properties["lane"] == owner.properties["track"] == owner.track


def test_a_class_that_says_lane_is_understood():
    with pytest.warns(DeprecationWarning, match=r"^First\.lane is now track$"):

        class First(CardinalitySampler):
            name = "first"
            lane = "penalised"

            def _solve(self, problem, request, **parameters):
                states = np.arange(problem.n)[None] < problem.cardinality
                return Solution(states, {}, {"raw_sample": states.astype(np.int8)})

    assert First.track == First().track == "penalised"
    problem = CardinalityProblem(linear=[0.0, 1.0], cardinality=1, factor=[[1.0, 2.0]])
    info = First().sample_problem(problem).info
    assert info["track"] == info["lane"] == "penalised"


@pytest.mark.parametrize("cardinality", [1, None])
def test_a_start_that_was_received_has_its_former_name_too(cardinality):
    bqm = dimod.BinaryQuadraticModel({"a": 1.0, "b": -1.0}, {("a", "b"): 0.5}, "BINARY")
    for start in ({"a": 1, "b": 0}, None):
        info = make("descent").sample(bqm, cardinality=cardinality, initial_state=start).info
        assert info["received_start"] == info["received_incumbent"] == (start is not None)
