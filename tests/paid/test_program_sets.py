"""Program sets: circuits of many calls in one task, with one fee, each paid for once."""

import json
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from experiments import Study, load_runs, run
from experiments.cli import app
from experiments.metrics import paidruns
from experiments.report import tables
from experiments.running.quoting import quote
from solvers import Budget, save
from solvers.base import Call
from solvers.cloud.devices import Limits
from solvers.cloud.journal import Journal
from solvers.cloud.service import AwsService
from solvers.cloud.waiting import Waiting
from solvers.errors import NotTakenError, TaskError
from tests.paid import calls
from tests.paid.calls import QUICK, Crash, crash, sample
from tests.study_fixtures import block

SEEDS, READS = 8, 100
FEE, PER_SHOT = 0.30, 0.002  # of the endpoint
PRICE = FEE + SEEDS * READS * PER_SHOT


def study(tmp_path, seeds=SEEDS, **options):
    return calls.study(tmp_path, **{"seeds": seeds, "program_sets": True, **options})


def rows(tmp_path, **options):
    run(study(tmp_path, **options), tmp_path / "s.sqlite", progress=False)
    return load_runs(tmp_path / "s.sqlite").to_dict("records")


def solver(tmp_path, **options):
    return calls.solver(tmp_path, **{"program_sets": True, **options})


def wanted(seeds=3, reads=READS, n=4):
    return [Call(block(n).blinded(), Budget(reads=reads), seed, QUICK) for seed in range(seeds)]


def spent(tmp_path):
    with Journal(tmp_path / "journal.sqlite") as journal:
        return journal.spent()


def statuses(frame):
    return [row["status"] for row in frame]


@given(
    st.integers(0, 300), st.integers(1, 500), st.integers(1, 100),
    st.one_of(st.none(), st.integers(1, 20_000)), st.integers(1, 300),
)  # fmt: skip
def test_sets_are_few_and_within_the_limits(count, shots, executables, most, least):
    limits = Limits(shots=(1, 400), executables=executables, set_shots=(least, most))
    sizes = limits.sets(count, shots)
    assert sum(sizes) == count
    together = [size for size in sizes if size > 1]
    assert all(size <= executables and size * shots >= least for size in together)
    assert most is None or all(size * shots <= most for size in together)
    if shots > 400 or count < 2:
        assert not together
    elif together:
        room = executables if most is None else min(executables, most // shots)
        assert len(together) == -(-count // room) or 1 in sizes
        assert max(together) - min(together) <= 1


def test_a_study_is_one_task_with_one_fee(braket, tmp_path):
    frame = rows(tmp_path)
    assert statuses(frame) == ["done"] * SEEDS
    assert braket.paid == len(braket.creates) == 1
    (arn,) = braket.tasks
    infos = [json.loads(row["info"]) for row in frame]
    assert {info["task"] for info in infos} == {arn}
    assert [info["program_set"] for info in infos] == [
        {"executables": SEEDS, "place": place} for place in range(SEEDS)
    ]
    for column in ("quote", "cost"):
        assert sum(row[column] for row in frame) == pytest.approx(PRICE)
    assert sum(info["charged"] for info in infos) == pytest.approx(PRICE)
    assert spent(tmp_path) == pytest.approx(PRICE)
    (said,) = quote(study(tmp_path), progress=False)
    assert (said.tasks, said.usd_at_most) == (1, pytest.approx(PRICE))
    rows(tmp_path)
    assert len(braket.creates) == 1


def test_the_page_adds_the_shares_of_a_task(braket, tmp_path):
    rows(tmp_path)
    runs = load_runs(tmp_path / "s.sqlite")
    (use,) = paidruns.uses(runs)
    assert (use.tasks, use.circuits, use.shots) == (1, SEEDS, (READS,))
    assert use.charged == pytest.approx(PRICE)
    assert use.sum == f"{SEEDS} circuits of {READS} shots in 1 task x {PRICE:.2f} USD"
    lines = tables.tasks(runs)
    assert len(lines) == SEEDS
    assert {line[-1] for line in lines} == set(braket.tasks)
    assert sum(float(line[1]) for line in lines) == pytest.approx(PRICE, abs=0.1)


def test_one_fee_a_circuit_without_program_sets(braket, tmp_path):
    frame = rows(tmp_path, program_sets=False)
    assert statuses(frame) == ["done"] * SEEDS
    assert braket.paid == SEEDS
    assert spent(tmp_path) == pytest.approx(PRICE + (SEEDS - 1) * FEE)
    (said,) = quote(study(tmp_path, program_sets=False), progress=False)
    assert (said.tasks, said.usd_at_most) == (SEEDS, pytest.approx(spent(tmp_path)))


def test_each_call_gets_the_shots_of_its_own_circuit(braket, tmp_path):
    sampler = solver(tmp_path)
    several = [*wanted(2), *wanted(2, n=6)]
    sampler.submit_problems(several)
    assert braket.paid == 1
    for place, call in enumerate(several):
        samples = sampler.sample_problem(
            call.problem, budget=call.budget, seed=call.seed, **call.parameters
        )
        name = f"programs/{place}/executables/0.json"
        (stored,) = [data for key, data in braket.objects.items() if key.endswith(name)]
        measured = np.array(json.loads(stored)["measurements"], int)
        np.testing.assert_array_equal(samples.record.raw_sample, measured)
        assert samples.info["program_set"] == {"executables": 4, "place": place}
        assert samples.info["quote"] == pytest.approx(FEE / 4 + READS * PER_SHOT)
    assert len(braket.creates) == 1


@pytest.mark.parametrize(
    ("executables", "most", "sizes"),
    [(3, 20_000, [3, 3, 2]), (100, 350, [3, 3, 2]), (2, 250, [2] * 4)],
)
def test_more_than_a_set_takes_is_several_sets(braket, tmp_path, executables, most, sizes):
    braket.executables, braket.shots["Garnet"] = executables, most
    assert statuses(rows(tmp_path)) == ["done"] * SEEDS
    assert [task["shots"] for task in braket.tasks.values()] == [READS * size for size in sizes]
    assert spent(tmp_path) == pytest.approx(PRICE + (len(sizes) - 1) * FEE)


def test_a_device_without_program_sets_gets_tasks(braket, tmp_path):
    braket.executables = 0
    assert statuses(rows(tmp_path, seeds=3)) == ["done"] * 3
    assert braket.paid == 3
    assert all("program_set" not in json.loads(row["info"]) for row in rows(tmp_path, seeds=3))


def test_simulators_get_tasks(braket, tmp_path):
    assert statuses(rows(tmp_path, seeds=2, device="SV1")) == ["done"] * 2
    assert braket.paid == 2


def test_calls_of_other_shots_and_parts_are_tasks_of_their_own(braket, tmp_path):
    braket.shots["Garnet"] = 250
    sampler = solver(tmp_path)
    sampler.submit_problems([*wanted(2), *wanted(1, reads=50), *wanted(1, reads=300)])
    assert [task["shots"] for task in braket.tasks.values()] == [200, 50, 150, 150]
    assert len(sample(sampler, reads=300)) == 300
    assert braket.paid == 4


def test_the_cap_holds_for_the_whole_set(braket, tmp_path):
    # A fee and four circuits; a fifth would be beyond it, and so would a task of its own.
    cap = FEE + 4 * READS * PER_SHOT + 0.1
    frame = rows(tmp_path, max_cost=cap)
    assert statuses(frame) == ["done"] * 4 + ["error"] * (SEEDS - 4)
    assert "would exceed max_cost" in frame[-1]["reason"]
    assert spent(tmp_path) == pytest.approx(cap - 0.1)
    assert braket.paid == 1
    # A higher cap pays for the rest only.
    frame = rows(tmp_path, max_cost=100)
    assert statuses(frame) == ["done"] * SEEDS
    assert [task["shots"] for task in braket.tasks.values()] == [400, 400]
    assert spent(tmp_path) == pytest.approx(PRICE + FEE)


def test_an_offline_device_gets_nothing(braket, tmp_path):
    braket.offline.add("Garnet")
    assert statuses(rows(tmp_path, seeds=3)) == ["error"] * 3
    assert not braket.creates
    braket.offline.clear()
    assert statuses(rows(tmp_path, seeds=3)) == ["done"] * 3
    assert (braket.paid, len(braket.creates)) == (1, 1)


@pytest.mark.parametrize(
    ("kind", "method", "died_at"),
    [
        (AwsService, "create", 1),
        (Journal, "created", 1),
        (Waiting, "until_ended", 1),
        (Journal, "completed", 2),
        (Journal, "ended", 1),
    ],
    ids=["before create", "create-journal", "journal-poll", "amid the parts", "after the parts"],
)
def test_a_crash_anywhere_pays_once(braket, tmp_path, monkeypatch, kind, method, died_at):
    with monkeypatch.context() as patch:
        whole, seen = getattr(kind, method), []

        def at(*arguments):
            seen.append(arguments)
            return crash() if len(seen) == died_at else whole(*arguments)

        patch.setattr(kind, method, at)
        with pytest.raises(Crash):
            rows(tmp_path, seeds=5)
    frame = rows(tmp_path, seeds=5)
    assert statuses(frame) == ["done"] * 5
    assert braket.paid == len(set(braket.creates)) == 1
    assert spent(tmp_path) == pytest.approx(FEE + 5 * READS * PER_SHOT)


def test_a_lost_answer_is_found_again_even_if_tokens_expire(braket, tmp_path):
    braket.fail("create", 500, "InternalServiceException", times=-1, after=True)
    sampler = solver(tmp_path)
    sampler.submit_problems(wanted())
    braket.faults.clear()
    braket.forget_tokens()
    before = len(braket.creates)
    for seed in range(3):
        assert len(sample(sampler, seed=seed)) == READS
    assert (braket.paid, len(braket.creates)) == (1, before)


def test_circuits_that_fail_are_rows_and_the_others_are_kept(braket, tmp_path):
    braket.broken = {1: "the laser is off", 3: "a qubit was lost"}
    frame = rows(tmp_path, seeds=5)
    assert statuses(frame) == ["done", "error", "done", "error", "done"]
    for place, words in braket.broken.items():
        assert f"FAILED: {words}" in frame[place]["reason"]
        info = json.loads(frame[place]["info"])
        assert (info["charged"], info["pending"]) == (None, False)
        assert info["program_set"]["place"] == place
    # What failed may be charged and is asked for no second time.
    assert spent(tmp_path) == pytest.approx(FEE + 5 * READS * PER_SHOT)
    rows(tmp_path, seeds=5)
    assert len(braket.creates) == 1


def test_a_set_that_failed_hands_out_what_it_measured(braket, tmp_path):
    braket.end = "FAILED"
    sampler = solver(tmp_path)
    sampler.submit_problems(wanted())
    (arn,) = braket.tasks
    braket.broken = {0: "no time was left"}
    braket.finish(arn)
    braket.tasks[arn] |= {"status": "FAILED", "failureReason": "some executables failed"}
    with pytest.raises(TaskError, match="FAILED: no time was left"):
        sample(sampler, seed=0)
    for seed in (1, 2):
        assert len(sample(sampler, seed=seed)) == READS
    assert len(braket.creates) == 1


def test_a_set_that_failed_as_a_whole(braket, tmp_path):
    braket.end = "FAILED"
    frame = rows(tmp_path, seeds=3)
    assert statuses(frame) == ["error"] * 3
    assert all("FAILED: the lasers are off" in row["reason"] for row in frame)
    rows(tmp_path, seeds=3)
    assert len(braket.creates) == 1


def test_a_set_that_is_refused_costs_nothing_and_is_tried_again(braket, tmp_path):
    braket.invalid = "qubit[6]"
    save(block(4), tmp_path / "a.block.safetensors")
    save(block(6), tmp_path / "b.block.safetensors")
    spec = study(tmp_path).specs[0]
    plan = Study("paid", [block(4), block(6)], [spec], [Budget(reads=READS)], seeds=range(2))

    def frame():
        run(plan, tmp_path / "s.sqlite", progress=False)
        return load_runs(tmp_path / "s.sqlite").to_dict("records")

    for _ in range(2):
        found = frame()
        assert statuses(found) == ["error"] * 4
        for row in found:
            assert "did not take the program set, nothing is charged" in row["reason"]
            assert row["reason"].count(": as the test wants it") == 2
            info = json.loads(row["info"])
            assert (info["charged"], info["reserved"], info["sent"]) == (0, 0, False)
        assert (braket.paid, spent(tmp_path)) == (0, 0)
    braket.invalid = ""
    assert statuses(frame()) == ["done"] * 4
    assert braket.paid == 1


def test_after_a_refusal_was_told_the_call_is_a_new_one(braket, tmp_path):
    braket.invalid = "qubit"
    sampler = solver(tmp_path)
    sampler.submit_problems(wanted(2))
    braket.invalid = ""
    for seed in range(2):
        with pytest.raises(NotTakenError, match="program_sets = false"):
            sample(sampler, seed=seed)
        assert len(sample(sampler, seed=seed)) == READS
    assert braket.paid == 2


def test_a_set_that_is_late_is_collected_by_a_resume(braket, tmp_path):
    braket.end = "QUEUED"
    frame = rows(tmp_path, seeds=3, poll_timeout=0.1)
    assert statuses(frame) == ["error"] * 3
    assert {row["pending"] for row in frame} == {1}
    assert all("still QUEUED" in row["reason"] for row in frame)
    braket.finish(next(iter(braket.tasks)))
    assert statuses(rows(tmp_path, seeds=3)) == ["done"] * 3
    assert len(braket.creates) == 1


@pytest.mark.parametrize(
    "damage",
    [lambda data: None, lambda data: data[:200], lambda data: data.replace(b"/0/", b"/9/")],
    ids=["missing", "truncated", "a part missing"],
)
def test_a_damaged_result_is_collected_by_a_resume(braket, tmp_path, damage):
    whole, braket.damage = braket.damage, damage
    frame = rows(tmp_path, seeds=2)
    assert statuses(frame) == ["error"] * 2
    assert {row["pending"] for row in frame} == {1}
    braket.damage = whole
    braket.finish(next(iter(braket.tasks)))
    assert statuses(rows(tmp_path, seeds=2)) == ["done"] * 2
    assert len(braket.creates) == 1


def test_a_rehearsal_has_the_same_sets(tmp_path):
    frame = rows(tmp_path, seeds=4, rehearse=True)
    assert statuses(frame) == ["done"] * 4
    infos = [json.loads(row["info"]) for row in frame]
    assert [info["program_set"]["place"] for info in infos] == [0, 1, 2, 3]
    assert sum(row["quote"] for row in frame) == pytest.approx(FEE + 4 * READS * 0.00145)
    states = [row["info"] for row in frame]
    assert len(set(states)) == 4


def test_the_quote_of_instances_prices_both_ways(tmp_path):
    path = save(block(4), tmp_path / "b.block.safetensors")
    arguments = ["quote", str(path), "--device", "Garnet", "--shots", "1000", "--offline"]
    told = CliRunner().invoke(app, [*arguments, "--tasks", "20"]).output
    assert "20 tasks of 1000 shots: $35.0000 at most" in told
    assert "As 1 program set: $29.3000 at most" in told
    answer = json.loads(CliRunner().invoke(app, [*arguments, "--tasks", "20", "--json"]).output)
    assert answer["program_sets"] == {"tasks": 1, "usd": pytest.approx(29.30)}
    alone = CliRunner().invoke(app, arguments).output
    assert "program set" not in alone


def test_a_journal_of_the_first_version_goes_on(braket, tmp_path):
    path = tmp_path / "journal.sqlite"
    sampler = calls.solver(tmp_path)
    calls.submit(sampler)
    sampler._tasks.journal.close()
    with sqlite3.connect(path) as old:
        old.execute("ALTER TABLE tasks DROP COLUMN task")
        old.execute("PRAGMA user_version = 1")
    assert len(sample(solver(tmp_path))) == READS
    assert len(braket.creates) == 1
    with sqlite3.connect(path) as now:
        assert now.execute("PRAGMA user_version").fetchone() == (2,)


@pytest.mark.slow
def test_kill_9_inside_a_set_of_twenty(braket, tmp_path):
    save(block(4), tmp_path / "b.block.safetensors")
    (tmp_path / "study.toml").write_text(
        'name = "paid"\ninstances = ["b.block.safetensors"]\nseeds = 20\n'
        "budgets = [{reads = 100}]\n[[solvers]]\n"
        'name = "qaoa-xy-braket"\nparameters = {depth = 1, angles = "ramp", mixer = "ring"}\n'
        f'options = {{device = "Garnet", max_cost = 10, journal = "{tmp_path}/j.sqlite"}}\n'
    )
    command = [sys.executable, "-m", "icbs", "bench", str(tmp_path / "study.toml"),
               "--store", str(tmp_path / "s.sqlite")]  # fmt: skip
    braket.end = "QUEUED"
    for attempt in range(2):
        process = subprocess.Popen(command + ["--resume"] * attempt, stderr=subprocess.DEVNULL)
        polls = braket.calls.count("get")
        while braket.calls.count("get") < polls + 3 and process.poll() is None:
            time.sleep(0.01)
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    braket.finish(next(iter(braket.tasks)))
    subprocess.run([*command, "--resume"], check=True, stderr=subprocess.DEVNULL)
    frame = load_runs(tmp_path / "s.sqlite")
    assert frame["status"].tolist() == ["done"] * 20
    assert braket.paid == len(set(braket.creates)) == 1
    assert frame["cost"].sum() == pytest.approx(FEE + 20 * READS * PER_SHOT)
