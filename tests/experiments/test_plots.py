"""Figures: every solver looks the same everywhere, every figure states its conditions."""

import re
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from experiments import SolverSpec, Store, Study, run
from experiments.errors import ReportError
from experiments.figures import blocks as plots_blocks
from experiments.figures import palette, studies, targets
from experiments.figures import runs as plots
from experiments.metrics import glossary
from experiments.metrics.ranking import headline, rank_table, solver_order, whole_limit
from experiments.metrics.readable import duration, percent
from experiments.metrics.references import annotate
from experiments.report import tables
from solvers import Budget
from solvers.registry import SOLVERS
from tests.study_fixtures import Drawn, Raising, Slow, block, spec


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("plots") / "s.sqlite"
    blocks = [block(n, fisher=f, curvature=c) for n in (8, 30)
              for f, c in (("sequence", 0.1), ("position", 3.0))]  # fmt: skip
    solvers = ["greedy", "relaxation", "enumerate", "random", spec(Raising)]
    run(Study("s", blocks, solvers, [0.02, 0.04], seeds=[0, 1]), path, progress=False)
    with Store(path) as opened:
        yield opened


def text_of(figure):
    figure.draw_without_rendering()
    return " ".join(t.get_text() for t in figure.findobj(lambda a: hasattr(a, "get_text")))


def test_styles_differ_and_cover_the_registry():
    assert set(SOLVERS) <= set(palette.SOLVERS)
    known = list(palette.SOLVERS.values())
    assert len({style.colour for style in known}) == len(known)
    assert len({style.marker for style in known}) == len(known)
    assert palette.style("mine") == palette.style("mine")
    assert palette.ordered({"zz", "neal", "greedy", "aa"}) == ["greedy", "neal", "aa", "zz"]


def test_solvers_without_a_chosen_look_get_one_of_their_own():
    more = [*SOLVERS, *(f"new-{i}" for i in range(30))]
    looks = palette.looks(more)
    assert set(more) <= set(looks)
    assert len({look.colour for look in looks.values()}) == len(looks)
    assert len({look.marker for look in looks.values()}) == len(looks)
    # One more solver changes nobody else's, nor does a second call.
    assert palette.looks([*more, "another"]).items() >= looks.items()
    assert {name: looks[name] for name in SOLVERS} == {s: palette.SOLVERS[s] for s in SOLVERS}


@pytest.mark.parametrize("draw", [plots.gap_against_wall, plots.ranking, plots.time_spent])
def test_conditions_are_on_the_figure(store, draw):
    text = " ".join(text_of(draw(annotate(store.runs()))).split())
    for words in ("certified", "native", "penalised", "wall time", "warm-up outside",
                  "Current mask"):  # fmt: skip
        assert words in text, words
    assert "given to nobody" in text


def test_kinds_of_blocks_have_panels_of_their_own(store):
    runs, incumbents = annotate(store.runs()), store.incumbents()
    for text in (text_of(studies.anytime_curves(runs, incumbents)),
                 targets.in_the_end(runs, incumbents)):  # fmt: skip
        for words in ("sequence Fisher", "token Fisher"):
            assert words in text


def test_penalties_of_kinds_are_apart(tmp_path):
    kinds = ("sequence", "reconstruction, 2:4")
    blocks = [block(10, seed=i, fisher=kind) for i, kind in enumerate(kinds)]
    solvers = [SolverSpec("neal", {"penalty": p}, f"neal {p}") for p in (0.01, 1.0)]
    study = Study("s", blocks, ["greedy", *solvers], [Budget(reads=5, sweeps=5)], seeds=[0])
    run(study, tmp_path / "s.sqlite", progress=False)
    with Store(tmp_path / "s.sqlite") as opened:
        runs = annotate(opened.runs())
    for text in (text_of(studies.penalty_frontier(runs)), studies.penalty_words(runs)):
        for words in ("sequence Fisher", "reconstruction, 2:4", "n = 10"):
            assert words in text


def test_patterns_stand_behind_their_curvature():
    names = ["mix", "reconstruction, 4:8", "position", "reconstruction, 2:4", "reconstruction",
             "else"]  # fmt: skip
    assert glossary.fishers(pd.DataFrame({"fisher": names})) == [
        "position", "reconstruction", "reconstruction, 2:4", "reconstruction, 4:8", "mix", "else",
    ]  # fmt: skip


def test_each_kind_is_ranked_at_its_own_longest_limit(store):
    runs = annotate(store.runs())
    short = (runs["fisher"] == "position") & (runs["time_limit"] == 0.04)
    found = rank_table(runs[~short])
    assert set(found["fisher"]) == {"sequence", "position"}


def test_who_got_the_current_mask_is_named(tmp_path):
    study = Study("s", [block(10)], [spec(Drawn)], [0.1], seeds=[0], give_initial=True)
    run(study, tmp_path / "s.sqlite", progress=False)
    with Store(tmp_path / "s.sqlite") as opened:
        runs = annotate(opened.runs())
    assert "Current mask given to drawn" in plots.conditions(runs)


def test_hardness_and_loss(store):
    assert "effective rank" in text_of(plots_blocks.hardness(store.instances()))
    steps = pd.DataFrame(
        {"step": [0, 1], "fisher": ["sequence", "position"], "predicted": [-1e-3, -0.2],
         "measured": [2e-3, -0.1]}
    )  # fmt: skip
    steps["batch"] = ["calibration", "held-out"]
    text = text_of(plots_blocks.predicted_against_measured(steps))
    assert "Loss of whole steps: held-out." in " ".join(text.split())
    assert "whole steps, token Fisher" in text
    assert "nats per token" in text
    text_of(plots_blocks.predicted_against_measured(steps[["predicted", "measured"]]))
    text_of(plots_blocks.predicted_against_measured(steps.assign(predicted=0.0, measured=np.nan)))


def test_figures_without_fisher_or_layer(tmp_path):
    bare = replace(block(10), meta={}, initial=None)
    run(Study("s", [bare], ["greedy"], [0.1], seeds=[0]), tmp_path / "s.sqlite", progress=False)
    with Store(tmp_path / "s.sqlite") as opened:
        runs, instances = annotate(opened.runs()), opened.instances()
    for figure in (plots.gap_against_wall(runs), plots.ranking(runs), plots.time_spent(runs),
                   plots_blocks.hardness(instances)):  # fmt: skip
        text_of(figure)


def test_files(store, tmp_path):
    paths = palette.save(plots.ranking(annotate(store.runs())), tmp_path, "ranking")
    pdf, svg, png = (path.read_bytes() for path in paths)
    assert pdf.startswith(b"%PDF")
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    assert svg.startswith(b"<?xml")
    assert b"font-family" not in svg
    assert png.startswith(b"\x89PNG")
    again = palette.save(plots.ranking(annotate(store.runs())), tmp_path, "ranking")
    assert [path.read_bytes() for path in again] == [pdf, svg, png]
    with pytest.raises(ReportError, match="cannot be written"):
        palette.save(plots.ranking(annotate(store.runs())), tmp_path / "none", "ranking")


def test_look_leaves_matplotlib_alone():
    before = dict(mpl.rcParams)
    with palette.look():
        assert mpl.rcParams["font.size"] == 7
    assert dict(mpl.rcParams) == before


def test_ranks_are_within_a_track(store):
    table = rank_table(annotate(store.runs()))
    assert set(table["solver"]) == {"greedy", "relaxation", "enumerate", "random"}
    assert (table.loc[table["solver"] == "random", "rank"] == 1).all()
    best = table[table["solver"] == "enumerate"]
    assert (best["rank"] == 1).all()
    assert (best["gap"] == 0).all()


def test_late_solvers_do_not_rank(tmp_path):
    study = Study("s", [block(10)], [spec(Slow), "greedy"], [0.05], seeds=[0])
    run(study, tmp_path / "s.sqlite", progress=False)
    with Store(tmp_path / "s.sqlite") as opened:
        table = rank_table(annotate(opened.runs())).set_index("solver")
    assert table.loc["slow", "late"]
    assert np.isnan(table.loc["slow", "rank"])
    assert table.loc["greedy", "rank"] == 1


def test_what_the_control_misses_is_named(store):
    runs = annotate(store.runs())
    said = headline(runs[runs["fisher"] == "sequence"])
    assert "It reaches the best known on all of 2 problems." in said.sentences[0]
    beaten = runs.copy()
    one = beaten["instance"] == beaten["instance"].iloc[0]
    beaten.loc[one & (beaten["solver"] == "greedy"), ["hit", "gap"]] = [False, 0.032]
    name = beaten["instance_name"].iloc[0]
    assert (
        f"It misses the best known on 1 of 4 problems: {name}, by 3.2 %."
        in (headline(beaten).sentences[0])
    )
    beaten.loc[beaten["solver"] == "greedy", ["hit", "gap"]] = [False, 0.5]
    text = headline(beaten).sentences[0]
    assert "on 4 of 4 problems" in text
    assert text.endswith("; and 1 more.")
    without = headline(runs[runs["solver"] != "greedy"])
    assert "control" not in " ".join(without.sentences)


def gaps(track="native", **by_solver):
    """Runs of one group: a solver's gaps, seeds by problems."""
    rows = [
        {"solver": solver, "solver_name": solver, "track": track, "n": 8, "fisher": "sequence",
         "instance": f"i{place}", "instance_name": f"i{place}", "seed_index": seed, "gap": gap,
         "hit": gap == 0, "status": "done", "flat": False, "time_limit": 1.0, "wall": 0.5,
         "tag": "exact", "reference": 0.0, "slack": 0.0, "pending": 0, "info": None,
         "options": None, "budget": None, "reads": 1, "success": 0.0}
        for solver, table in by_solver.items() for place, values in enumerate(table)
        for seed, gap in enumerate(values)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_a_tie_is_the_same_in_sentences_and_tables():
    """Other medians, but intervals of ranks that overlap: in either track nobody wins."""
    up = [[0.01 * (seed + problem) for seed in range(2)] for problem in range(3)]
    down = [[0.03 - 0.01 * (seed + problem) for seed in range(2)] for problem in range(3)]
    far = [[0.9, 0.9]] * 3
    for track in ("native", "penalised"):
        said = headline(gaps(track, a=up, b=down, c=far))
        assert list(said.table["rank"]) == [1, 1, 3]
        assert "a and b rank first in the only group" in said.won[0]
        assert "tied: " in said.winners[0][track]
        assert "c" not in said.winners[0][track].split()
        clear = headline(gaps(track, a=[[0.0, 0.0]] * 3, c=far))
        assert "a ranks first in the only group" in clear.won[0]


def test_one_run_has_no_interval_and_only_equal_medians_tie():
    table = headline(gaps(a=[[0.0]], b=[[0.1]], c=[[0.0]])).table.set_index("solver")
    assert list(table["rank"]) == [1, 3, 1]
    assert table[["gap_low", "gap_high", "rank_low", "rank_high"]].isna().all(axis=None)


def test_only_problems_that_all_of_a_track_have_run_are_compared():
    """The gap of the first problem, which b has not run, must not count against a."""
    runs = gaps(a=[[0.9, 0.9], [0.0, 0.0]], b=[[0.5, 0.5], [0.1, 0.1]])
    runs = runs[(runs["solver"] == "a") | (runs["instance"] == "i1")]
    table = headline(runs).table.set_index("solver")
    assert list(table["instances"]) == [1, 1]
    assert list(table["gap"]) == [0.0, 0.1]
    # Who fails on a problem has been run on it, and takes it from nobody.
    failed = gaps(a=[[0.9, 0.9], [0.0, 0.0]], b=[[0.5, 0.5], [0.1, 0.1]])
    failed.loc[(failed["solver"] == "b") & (failed["instance"] == "i0"), "status"] = "error"
    assert headline(failed).table.set_index("solver").loc["a", "instances"] == 2


def test_who_is_alone_has_no_rank_and_one_run_no_interval():
    cells = {row[0]: (row[2], row[4], row[5]) for row in ranks(gaps(a=[[0.1, 0.1]]))}
    assert cells == {"a": ("alone", ("[10 %, 10 %]", 0.1), "–")}
    cells = {row[0]: (row[2], row[4], row[5]) for row in ranks(gaps(a=[[0.1]], b=[[0.0]]))}
    assert cells == {"a": ("2", "–", "–"), "b": ("1", "–", "–")}


def test_a_group_where_everybody_is_at_the_best_known_is_one_row():
    rows = ranks(gaps(a=[[0.0, 0.0], [0.0, 0.0]], b=[[0.0, 0.0], [0.0, 0.0]]))
    assert [row[0] for row in rows] == ["all 2"]
    assert rows[0][2:6] == ["1", ("0 %", 0.0), "–", "–"] and rows[0][-2:] == ["2", "4"]
    # One run above it, and everybody has a row again.
    rows = ranks(gaps(a=[[0.0, 0.0], [0.0, 0.0]], b=[[0.0, 0.0], [0.0, 0.3]]))
    assert sorted(row[0] for row in rows) == ["a", "b"]


def ranks(runs):
    table = rank_table(runs)
    return tables.ranking(table, tables.Order(table, runs))


def test_nobody_wins_an_unfinished_study(store):
    said = headline(annotate(store.runs()), complete=False)
    assert said.won == ["No winner is named, because the study is not complete."]


def test_quickest_is_by_time_to_the_best_known(store):
    """Never by wall time: some solvers use their whole limit by design."""
    runs, incumbents = annotate(store.runs()), store.incumbents()
    assert "soonest" not in " ".join(headline(runs).won)
    assert "reaches the best known soonest" in headline(runs, incumbents).won[0]
    slow = runs.assign(wall=np.where(runs["solver"] == "greedy", 0.039, runs["wall"]))
    assert whole_limit(slow[slow["time_limit"] == 0.04])[:1] == ["greedy"]


def test_nobody_wins_alone(store):
    """With one solver a track, nobody has the lowest gap and no control ties anybody."""
    runs = annotate(store.runs())
    alone = headline(runs[runs["solver_name"].isin(["greedy", "random"])])
    assert alone.won == [
        "greedy was alone among the solvers that always choose exactly k (native), so it is "
        "compared with nobody there.",
        "random was alone among the solvers that may choose more or fewer than k, at a penalty "
        "(penalised), so it is compared with nobody there.",
    ]
    only = headline(runs[runs["solver_name"] == "greedy"])
    for said in (alone, only):
        assert "lowest" not in " ".join([*said.won, *said.sentences])
        assert " best native solver" not in " ".join(said.sentences)
    assert "control" not in " ".join(only.sentences)
    two = headline(runs[runs["solver_name"].isin(["greedy", "enumerate"])])
    assert "enumerate" in two.won[0]
    assert re.search("ranks? first", two.won[0])


def test_nobody_wins_without_a_feasible_answer(store):
    runs = annotate(store.runs())
    runs.loc[runs["track"] == "native", ["energy", "gap"]] = np.nan
    said = headline(runs)
    assert said.won[0] == "None of the 3 native solvers found a feasible answer."


def test_tables_have_one_order_of_solvers(store):
    runs = annotate(store.runs())
    table = rank_table(runs)
    order = solver_order(table, runs["solver"])
    # Tracks apart; who only ever failed comes last.
    assert order[-2:] == ["random", "raising"]
    means = table.groupby("solver")["rank"].mean()
    assert list(means[order[:3]]) == sorted(means[order[:3]])


def test_quantum_is_compared_with_random_strings(store):
    runs = annotate(store.runs())
    qaoa = runs[(runs["solver"] == "random") & (runs["n"] == 8)].assign(
        solver="qaoa-aer", solver_name="qaoa-aer"
    )
    said = " ".join(headline(pd.concat([runs, qaoa], ignore_index=True)).sentences)
    assert "QAOA on simulators of this machine (n up to 8): " in said
    assert re.search(
        r"of uniformly random strings, repaired the same way, [\d.]+ %: no better than guessing\.",
        said,
    )
    # How many strings there is time for depends on the machine.
    few = runs.assign(success=runs["success"].where(runs["solver"] != "random", 0.1))
    better = qaoa.assign(success=1.0)
    said = " ".join(headline(pd.concat([few, better], ignore_index=True)).sentences)
    assert ": better than guessing." in said
    alone = pd.concat([runs[runs["solver"] != "random"], qaoa], ignore_index=True)
    assert "No run of random tells" in " ".join(headline(alone).sentences)


def test_people_can_read_numbers():
    assert [percent(x) for x in (0, 3e-9, 4.2e-4, 0.123, 1.5, float("inf"))] == [
        "0", "3e-07 %", "0.042 %", "12 %", "150 %", "none",
    ]  # fmt: skip
    assert [duration(x) for x in (2.5, 63, 0.0123, 8e-5, 0)] == [
        "2.5 s", "63 s", "12 ms", "80 µs", "0.0 µs",
    ]  # fmt: skip
