"""What a new reader meets first: is the study complete, was money spent, what do the words mean."""

import html
import json
import os
import re
import signal
import sqlite3

import pandas as pd
import pytest

from experiments import SolverSpec, Store, Study, load_runs, run
from experiments.metrics import glossary, paidruns
from experiments.report import opening
from experiments.report.completeness import plans
from experiments.report.page import write
from experiments.store.merge import merge
from solvers import Budget
from tests.paid.calls import rows, study
from tests.study_fixtures import Drawn, Raising, block, spec

BLOCKS = [block(8), block(12)]


class Interrupting(Drawn):
    """Presses Ctrl-C in one of its calls, once."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def _solve(self, problem, request):
        self.calls += 1
        if self.calls == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return super()._solve(problem, request)


def quiet(plan, path, **options):
    return run(plan, path, progress=False, **options)


def plan(solver=Drawn, seeds=range(3), **options):
    return Study("s", BLOCKS, ["greedy", spec(solver)], [0.05], seeds=seeds, **options)


@pytest.fixture
def drawn():
    """For tests that look at figures; most of a page's time goes into them."""


@pytest.fixture(autouse=True)
def _undrawn(request, monkeypatch):
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr("experiments.report.page._figures", lambda *_: [])


def page(path, folder):
    text = re.sub('<span class="date">(.*?)</span>', r"\1", write(path, folder).read_text("utf-8"))
    return html.unescape(text)


def found(path):
    with Store(path) as store:
        return plans(store.runs(), store.invocations())


@pytest.fixture
def interrupted(tmp_path):
    assert quiet(plan(Interrupting), tmp_path / "s.sqlite").interrupted
    return tmp_path / "s.sqlite"


def test_an_interrupted_study_says_so_and_how_to_go_on(interrupted, tmp_path):
    here = len(load_runs(interrupted))
    text = page(interrupted, tmp_path / "page")
    top = text.partition('<div class="opening">')[0]
    assert f"This study is not complete: {here} of the 12 runs of study s are in this store" in top
    assert f"it was interrupted, and {12 - here} are left to do" in top
    assert f'<pre tabindex="0"><code>icbs bench STUDY --store {interrupted} --resume</code>' in top
    assert "on 2 of its 2 problems" in top or "on 1 of its 2 problems" in top
    left = [int(count) for count in re.findall(r": (\d+) of 6 runs are missing", top)]
    assert sum(left) == 12 - here
    assert "No winner is named, because the study is not complete." in text
    assert "Who is best" not in text
    assert f"All {here} runs that are here succeeded; the study is not complete." in text
    assert f"{here} of 12 planned: {here} done" in text
    problems = load_runs(interrupted)["instance"].nunique()
    assert f"<dd>{problems} of 2 planned, n = " in text
    assert f"The study sets 2 solvers to {problems} of 2 planned problems" in text
    assert f"proves the best answer of {problems} of {problems} problems" in text or (
        f" of {problems} problems; on the others" in text
    )
    assert "every planned run was done" not in text
    listed = text.partition('id="studies"')[2].partition("</table>")[0]
    assert re.findall(r'class="num">(\d+)</td>', listed) == ["12", str(here), str(here), "1"]


def test_a_resumed_study_is_complete(interrupted, tmp_path):
    before = len(load_runs(interrupted))
    quiet(plan(), interrupted)
    text = page(interrupted, tmp_path / "page")
    assert "not complete" not in text
    assert "every planned run was done" in text
    (one,) = found(interrupted)
    assert (one.cells, one.found, one.missing) == (12, 12, 0)
    assert list(one.made.values()) == [before, 12 - before]


def test_a_study_at_work_is_not_called_interrupted(interrupted, tmp_path):
    with Store(interrupted, create=True):
        text = page(interrupted, tmp_path / "page")
    assert "This study is running" in text
    assert "it was interrupted" not in text


def test_a_killed_driver_leaves_its_lock_and_is_not_at_work(interrupted, tmp_path):
    interrupted.with_name("s.sqlite.lock").touch()
    assert "it was interrupted" in page(interrupted, tmp_path / "page")


def test_a_plan_that_grew_counts_the_cells_of_the_smaller_one(tmp_path):
    quiet(plan(seeds=range(2)), tmp_path / "s.sqlite")
    quiet(plan(seeds=range(3)), tmp_path / "s.sqlite")
    small, large = found(tmp_path / "s.sqlite")
    assert (small.cells, small.found) == (8, 8)
    assert (large.cells, large.found, list(large.made.values())) == (12, 12, [4])


def test_plans_in_one_store_do_not_lend_each_other_cells(tmp_path):
    """Same labels, budgets and seeds, but other instances, options or study seeds."""
    path = tmp_path / "s.sqlite"
    quiet(plan(Interrupting), path)
    here = len(load_runs(path))
    quiet(plan(seed=1), path)
    weak = Study("s", BLOCKS, ["greedy", spec(Drawn, options={"a": 1})], [0.05], seeds=range(3))
    with Store(path) as store:
        counts = [one.found for one in plans(store.runs(), store.invocations())]
        settings = store.invocations()[0]
    assert counts == [here, 12]
    assert settings["instances"] == sorted(one.content_hash for one in BLOCKS)
    assert weak.specs[1].options == {"a": 1}
    quiet(Study("s", [block(20)], ["greedy", spec(Drawn)], [0.05], seeds=range(3)), path)
    assert [one.found for one in found(path)] == [here, 12, 6]


def test_merged_stores_of_one_plan_are_one_plan(interrupted, tmp_path):
    quiet(plan(seeds=range(1)), tmp_path / "b.sqlite")
    merge([interrupted, tmp_path / "b.sqlite"], tmp_path / "m.sqlite")
    first, second = found(tmp_path / "m.sqlite")
    assert (second.cells, second.missing) == (4, 0)
    assert first.cells == 12
    assert first.found == len(load_runs(tmp_path / "m.sqlite"))


def test_a_store_that_does_not_name_its_instances(interrupted, tmp_path):
    """As older versions wrote it: everything else still has to be the plan's."""
    with sqlite3.connect(interrupted) as db:
        ((text,),) = db.execute("SELECT settings FROM invocations")
        kept = {k: v for k, v in json.loads(text).items() if k not in ("instances", "options")}
        db.execute("UPDATE invocations SET settings = ?", (json.dumps(kept),))
    (one,) = found(interrupted)
    assert one.missing == 12 - len(load_runs(interrupted))
    with sqlite3.connect(interrupted) as db:
        db.execute("UPDATE invocations SET settings = ?", (json.dumps({"cells": "many"}),))
    (one,) = found(interrupted)
    assert (one.cells, one.missing) == (None, 0)
    assert "every planned run" not in page(interrupted, tmp_path / "page")


def test_a_page_begins_with_what_was_solved_what_0_means_and_who_won(tmp_path):
    quiet(plan(), tmp_path / "s.sqlite")
    text = page(tmp_path / "s.sqlite", tmp_path / "page")
    opening = text.partition('<div class="opening">')[2].partition("</div>")[0]
    where, solved, gap = re.findall("<p>(.*?)</p>", opening)
    assert re.match("A solver (hardly )?matters on ", where)
    assert solved.startswith("Each problem is a piece of a layer of the model toy: choose k of its")
    assert solved.endswith(
        "Here n is 8 or 12. The study sets 2 solvers to 2 problems (1 of each size and curvature, "
        "3 seeds)."
    )
    assert "A gap of 0 means that nobody knows a better answer." in gap
    assert "the energy, says how much that is: of a loss block an estimate of how much" in solved
    kinds = text.partition('<table id="kinds"')[2].partition("</table>")[0]
    assert "loss blocks (sequence Fisher)</td>" in kinds
    findings = text.partition('id="findings"')[2].partition("</ul>")[0]
    won = re.findall("<li>(.*?)</li>", findings)[0]
    assert won.startswith("Of the 2 solvers that always choose exactly k (native), ")
    assert re.search("ranks? first", won)
    assert "<li>greedy (control: no search): adds the best variable k times" in text
    assert "No quantum solver ran." in text


def test_skipped_problems_were_not_solved(tmp_path):
    weak = spec(Drawn, max_variables=8)
    quiet(Study("s", BLOCKS, ["greedy", weak], [0.05], seeds=[0]), tmp_path / "s.sqlite")
    text = page(tmp_path / "s.sqlite", tmp_path / "page")
    assert "; 1 of 4 runs were skipped." in text


def test_the_command_that_goes_on_is_whole_where_the_store_knows_it(tmp_path):
    entry = {"id": 1, "study": "s", "seed": 0, "seeds": [0, 1], "cells": 8, "give_initial": True,
             "budgets": ['{"time_limit": 0.02}', '{"time_limit": 1.0}'],
             "solvers": ["greedy", "neal"], "instances": ["a"],
             "options": ['{"options": {}, "parameters": {}}'] * 2}  # fmt: skip
    runs = pd.DataFrame(columns=["invocation", "instance", "solver", "budget", "seed_index",
                                 "options", "pending", "give_initial"])  # fmt: skip
    (one,) = plans(runs, [entry])
    assert one.repeat == "--solvers greedy,neal --time-limits 0.02,1 --seeds 2 --give-initial"
    assert one.left == {"greedy": (4, 4), "neal": (4, 4)}
    (note,) = opening.incomplete([one], tmp_path / "s.sqlite", False, runs)
    assert note.command == (
        f"icbs bench --instances FILES {one.repeat} --store {tmp_path / 's.sqlite'} --resume"
    )
    special = entry | {"options": ['{"parameters": {"a": 1}}'] * 2}
    assert [plan.repeat for plan in plans(runs, [special, entry | {"seed": 1}])] == ["", ""]


BANNED = (r"\blanes?\b", r"\bincumbents?\b", r"(?<!-)\breferences?\b(?!-)", r"\bposition Fisher\b",
          r"\bbest-known\b", r"\bexact on\b")  # fmt: skip


def test_one_word_for_each_thing_and_a_meaning_for_each_word(drawn, tmp_path):
    solvers = ["greedy", "relaxation", "random", spec(Raising)]
    blocks = [block(8), block(30, fisher="position", curvature=3.0)]
    names = ("anytime", "ecdf", "ladder")
    quiet(Study("s", blocks, solvers, [0.02], seeds=[0, 1], figures=names), tmp_path / "s.sqlite")
    text = write(tmp_path / "s.sqlite", tmp_path / "page", style="paper").read_text("utf-8")
    shown = glossary.shown(text)
    for words in BANNED:
        assert not re.search(words, shown, re.IGNORECASE), words
    data = json.loads(re.search(r'id="run-data">(.*?)</script>', text)[1])
    assert {"track", "curvature"} < set(data["columns"])
    assert not {"lane", "Fisher", "reference"} & set(data["columns"])
    assert {row[6] for row in data["rows"]} == {"sequence Fisher", "token Fisher"}
    listed = re.findall(r"<dt>(.*?):</dt>", text)
    for term in ("gap", "track", "native", "penalised", "n", "current mask", "token Fisher",
                 "greedy control", "best known", "certified"):  # fmt: skip
        assert term in listed, term
    assert "QAOA" not in listed
    assert "rehearsal" not in listed


def test_hardware_that_was_paid_for_is_named(braket, tmp_path):
    rows(tmp_path, seeds=2)
    text = page(tmp_path / "s.sqlite", tmp_path / "page")
    words = (
        "qaoa-xy-braket ran on the quantum processor Garnet, real hardware, 2 tasks: 2 of 2 "
        "runs gave an answer. Cost: 1.00 USD = 2 tasks of 100 shots x 0.50 USD; estimated from the "
        "AWS price list of 2026-11-01, not read from a bill. At most 1.00 USD were expected."
    )
    assert words in text
    assert "QAOA on simulators" not in text
    assert "ehears" not in text
    assert 'id="device-table"' in text
    # The finding comes first.
    lead = text.partition('class="warning lead"')[2].partition("</div>")[0]
    assert re.search(r"<p>qaoa-xy-braket on Garnet \(n up to 4\): [\d.]+ % of the shots", lead)
    listed = text.partition('id="task-table"')[2].partition("</table>")[0]
    assert listed.count("arn:aws:braket:eu-north-1:") == 2
    assert listed.count('class="num">0.50<') + listed.count(">0.50<") >= 2
    # Of a task, nobody says how long it executed.
    stages = text.partition('id="ledger-table"')[2].partition("</table>")[0]
    assert ">–<" in stages


def test_a_rehearsal_names_itself_its_device_and_its_stand_in(tmp_path):
    quiet(study(tmp_path).rehearsed(), tmp_path / "r.sqlite")
    text = page(tmp_path / "r.sqlite", tmp_path / "page")
    words = (
        "Rehearsal: qaoa-xy-braket ran on Braket's local simulator on this machine, a rehearsal "
        "for the quantum processor Garnet. No device was used and nothing was paid; 1 of 1 runs "
        "gave an answer."
    )
    assert words in text
    assert "This helps to decide one thing: whether to run it on Garnet for at most " in text
    assert re.search(r"USD \((from|the) .* of \d{4}-\d\d-\d\d: 1 task of 100 shots x ", text)
    assert "No winner is named, because a rehearsal does not show what the device answers." in text
    assert 'id="task-table"' not in text
    assert "QAOA on simulators" not in text
    (use,) = paidruns.uses(load_runs(tmp_path / "r.sqlite"))
    assert (use.rehearsal, use.cost, use.charged) == (True, "nothing", 0.0)


def test_what_only_the_bill_tells_is_said(braket, tmp_path):
    braket.end = "FAILED"
    rows(tmp_path)
    runs = load_runs(tmp_path / "s.sqlite")
    (use,) = paidruns.uses(runs)
    assert (use.runs, use.done, use.tasks, use.unknown) == (1, 0, 1, 1)
    assert "only the bill tells" in use.sentence
    text = page(tmp_path / "s.sqlite", tmp_path / "page")
    assert "No run succeeded" in text
    assert "Garnet, real hardware" in text


def test_what_waits_for_a_device_is_missing(braket, tmp_path):
    braket.end = "QUEUED"
    rows(tmp_path, poll_timeout=0.2)
    text = page(tmp_path / "s.sqlite", tmp_path / "page")
    assert "0 of the 1 runs of study paid are in this store" in text
    assert "1 wait for a device" in text


@pytest.mark.parametrize("info", ["", "[]", "{", '{"device": 3, "child": [], "charged": "x"}'])
def test_damaged_records_of_devices(info, tmp_path):
    quiet(study(tmp_path).rehearsed(), tmp_path / "r.sqlite")
    runs = load_runs(tmp_path / "r.sqlite").assign(info=info)
    assert len(paidruns.uses(runs)) == 1


@pytest.mark.parametrize("rehearsal", [False, True])
def test_ibm_counts_seconds(tmp_path, rehearsal):
    quiet(Study("s", [block(8)], ["greedy"], [Budget(reads=5)], seeds=[0]), tmp_path / "s.sqlite")
    name = "fake_torino" if rehearsal else "ibm_torino"
    info = {
        "device": name, "task": "job0", "service_seconds": 0.0 if rehearsal else 3.0,
        "rehearsal": rehearsal,
    }  # fmt: skip
    runs = load_runs(tmp_path / "s.sqlite").assign(
        solver="ibm", solver_name="qaoa-xy-ibm", info=json.dumps(info)
    )
    (use,) = paidruns.uses(pd.concat([runs, runs], ignore_index=True))
    if rehearsal:
        assert use.place == (
            "a local backend of qiskit-ibm-runtime on this machine, a rehearsal for the quantum "
            "processor IBM's fake_torino"
        )
        assert use.cost == "nothing"
    else:
        assert use.place == "the quantum processor IBM's ibm_torino, real hardware"
        assert use.cost == "6 s of quota"


def test_dwave_counts_seconds(tmp_path):
    quiet(Study("s", [block(8)], ["greedy"], [Budget(reads=5)], seeds=[0]), tmp_path / "s.sqlite")
    child = {"chip": "Advantage2", "service_seconds": 0.25, "rehearsal": False}
    runs = load_runs(tmp_path / "s.sqlite").assign(
        solver="qpu", solver_name="qpu", info=json.dumps({"child": child})
    )
    (use,) = paidruns.uses(pd.concat([runs, runs], ignore_index=True))
    assert use.place == "the quantum processor D-Wave's annealer Advantage2, real hardware"
    assert use.cost == "0.5 s of quota"


def test_a_rehearsal_for_leap_says_what_stood_in(tmp_path):
    options = {"max_service_time": 5.0, "rehearse": True}
    solver = SolverSpec("leap-hybrid-nl", options=options)
    plan = Study("s", [block(8)], [solver], [Budget(time_limit=0.2)], seeds=[0])
    quiet(plan, tmp_path / "s.sqlite")
    (use,) = paidruns.uses(load_runs(tmp_path / "s.sqlite"))
    assert use.place == (
        "swap descent on this machine, a rehearsal for the hybrid cloud service D-Wave's Leap"
    )
    assert use.cost == "nothing"
    assert use.seconds == pytest.approx(0.2)
