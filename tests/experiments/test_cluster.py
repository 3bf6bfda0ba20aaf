"""Cells on a Dask cluster: the same rows, workers that die, resources."""

import os
import signal
import threading
import time

import pytest

from experiments import SolverSpec, Store, Study, load_runs, run
from experiments.errors import StoreError, StudyError
from icbs import Pruner
from icbs.errors import SettingError
from tests.faults.kills import rows
from tests.faults.solvers import Exiting, Gripping, Warming
from tests.icbs_fixtures import tiny_loaded, tiny_samples
from tests.study_fixtures import FAULTS, Drawn, block, spec

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", resources={"licence": 1}
    ) as made:
        yield made


def plan(**changes):
    given = {
        "name": "s", "instances": [block(n, seed=s) for n in (9, 12) for s in (0, 1)],
        "solvers": ["greedy", spec(Drawn)], "budgets": [10.0], "seeds": [0, 1, 2],
    }  # fmt: skip
    return Study(**(given | changes))


def test_same_rows_as_in_process(cluster, tmp_path):
    address = cluster.scheduler_address
    outcome = run(plan(), tmp_path / "a.sqlite", scheduler=address, progress=False)
    assert outcome.counts == {"done": 24}
    run(plan(), tmp_path / "b.sqlite", progress=False)
    assert rows(tmp_path / "a.sqlite").to_csv() == rows(tmp_path / "b.sqlite").to_csv()
    resumed = run(plan(), tmp_path / "a.sqlite", scheduler=address, progress=False)
    assert resumed.counts == {}
    assert resumed.resumed == 24
    # The cluster is left as it was found.
    with distributed.Client(address, set_as_default=False) as client:
        assert client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.allowed_failures) > 0


def test_misbehaving_solvers(cluster, tmp_path):
    bad = [spec(cls) for cls in (Exiting, Warming, Gripping, *FAULTS)]
    study = plan(solvers=["greedy", *bad], instances=[block(10)], budgets=[0.01], seeds=[0])
    run(study, tmp_path / "a.sqlite", scheduler=cluster.scheduler_address, progress=False)
    frame = load_runs(tmp_path / "a.sqlite").set_index("solver")
    assert len(frame) == 4 + len(FAULTS)
    assert frame.loc["greedy", "status"] == "done"
    for name in ("exiting", "warming"):
        assert frame.loc[name, "status"] == "error"
        assert frame.loc[name, "reason"] == "the worker process died, twice"
    assert frame.loc["gripping", "status"] == "timeout"
    for cls, words in FAULTS.items():
        assert words.split()[0] in frame.loc[cls.name, "reason"]


@pytest.mark.slow
def test_resources(cluster, tmp_path):
    address = cluster.scheduler_address
    licensed = [SolverSpec("greedy", resource="licence")]
    outcome = run(plan(solvers=licensed), tmp_path / "a.sqlite", scheduler=address, progress=False)
    assert outcome.counts == {"done": 12}
    with pytest.raises(StudyError, match="no worker has the resource 'GPU'"):
        run(plan(solvers=[SolverSpec("greedy", resource="GPU")]), tmp_path / "b.sqlite",
            scheduler=address, progress=False)  # fmt: skip


def test_nobody_there(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.running.cluster._PATIENCE", 1)
    with pytest.raises(StudyError, match="cannot be reached"):
        run(plan(), tmp_path / "a.sqlite", scheduler="tcp://127.0.0.1:9", progress=False)


def test_workers_with_threads_are_refused(tmp_path):
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0"
        ) as shared,
        pytest.raises(StudyError, match="2 threads"),
    ):
        run(plan(), tmp_path / "a.sqlite", scheduler=shared.scheduler_address, progress=False)


class Pausing(Drawn):
    name = "pausing"

    def _solve(self, problem, request):
        time.sleep(0.05)
        return super()._solve(problem, request)


@pytest.mark.slow
def test_a_worker_is_lost_on_the_way(cluster, tmp_path):
    study = plan(solvers=[spec(Pausing)], seeds=range(10))
    with distributed.Client(cluster, set_as_default=False) as client:
        victim = next(iter(client.run(os.getpid).values()))
        killer = threading.Timer(1.0, os.kill, (victim, signal.SIGKILL))
        killer.start()
        address = cluster.scheduler_address
        outcome = run(study, tmp_path / "a.sqlite", scheduler=address, progress=False)
        killer.join()
        client.wait_for_workers(2)
    assert outcome.counts == {"done": 40}
    run(study, tmp_path / "b.sqlite", progress=False)
    assert rows(tmp_path / "a.sqlite").to_csv() == rows(tmp_path / "b.sqlite").to_csv()


def written(path):
    try:
        with Store(path) as store:
            return len(store.runs())
    except StoreError:  # the driver is just making it
        return 0


@pytest.mark.slow
def test_the_scheduler_goes_away(tmp_path):
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0"
    ) as short:
        study = plan(solvers=[spec(Pausing)], seeds=range(200))
        path = tmp_path / "a.sqlite"

        def close_when_it_runs():
            while not written(path):
                time.sleep(0.1)
            short.close()

        killer = threading.Thread(target=close_when_it_runs, daemon=True)
        killer.start()
        with pytest.raises(StudyError, match="scheduler is gone"):
            run(study, path, scheduler=short.scheduler_address, progress=False)
        killer.join()
    assert 0 < written(path) < 800


SMALL = {"block_size": 40, "damping": 1.0, "batch_size": 3, "progress": False, "carry": False}


def masks(executor):
    pruner = Pruner(tiny_loaded(), tiny_samples(), solver="annealing", executor=executor, **SMALL)
    pruner.run(2)
    return pruner.masks, [step.predicted for step in pruner.steps]


@pytest.mark.slow
def test_blocks_of_the_loop_on_the_cluster(cluster):
    here, predicted = masks(None)
    with distributed.Client(cluster, set_as_default=False) as client:
        for workers in (None, list(client.scheduler_info()["workers"])[:1]):
            with client.get_executor(pure=False, workers=workers) as executor:
                there, also = masks(executor)
            assert also == predicted
            assert all(bool((here[name] == there[name]).all()) for name in here)


def test_carry_needs_one_block_after_the_other():
    with pytest.raises(SettingError, match="carry=False"):
        Pruner(tiny_loaded(), tiny_samples(), executor=object(), **{**SMALL, "carry": True})
