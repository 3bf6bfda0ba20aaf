"""The ledger accounts for every second of a call, whatever the solver claims."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from experiments.record.ledger import STAGES, Ledger
from solvers.base import TIMING_KEYS

claims = st.dictionaries(
    st.sampled_from([*TIMING_KEYS, "something"]),
    st.one_of(st.floats(), st.none(), st.just("soon"), st.booleans()),
)


# The largest float, twice: their sum is none.
HUGE = {"convert": 1.7976931348623157e308, "preprocess": 1.7976931348623157e308}


@given(st.floats(0, 1e5), claims)
@example(0.0, HUGE)
@example(1.0, HUGE)
def test_sums_to_the_wall(wall, timing):
    ledger = Ledger.split(wall, timing, build=1.0, score=2.0)
    assert math.isclose(ledger.solver_wall, wall, rel_tol=1e-9, abs_tol=1e-9)
    assert math.isclose(math.fsum(ledger.as_dict().values()), wall + 3, rel_tol=1e-9)
    assert all(seconds >= 0 for seconds in ledger.as_dict().values())
    assert tuple(ledger.as_dict()) == STAGES


def test_remainder_and_postprocess_are_decode():
    ledger = Ledger.split(10, {"convert": 1, "execute": 4, "postprocess": 2, "repair": 0.5})
    assert ledger == Ledger(convert=1, execute=4, decode=4.5, repair=0.5)


def test_claims_beyond_the_wall_are_scaled():
    ledger = Ledger.split(1, {"execute": 30, "queue": 10})
    assert ledger.execute == pytest.approx(0.75)
    assert ledger.queue == pytest.approx(0.25)
    assert ledger.decode == pytest.approx(0)
