"""Rows of stores without their clocks, and the data of small prunings."""

from experiments import load_runs
from experiments.pruning.running import Data
from experiments.record.ledger import STAGES
from tests.icbs_fixtures import tiny_samples

TIMINGS = ["wall", "cpu", "load", "started", "bound_seconds", "invocation", *STAGES]


def rows(path):
    frame = load_runs(path).drop(columns=TIMINGS)
    return frame.sort_values("key").reset_index(drop=True)


def same(left, right):
    assert left.to_csv() == right.to_csv()


OPTIONS = {"block_size": 40, "batch_size": 3, "damping": 1.0, "solver": "greedy", "progress": False}


def data():
    return Data(tiny_samples(), tiny_samples(4, seed=9), {"text": tiny_samples(4, seed=5)})
