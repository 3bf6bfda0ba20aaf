"""The first sentence of a page: where a solver matters, from the rows alone."""

import pandas as pd
import pytest

from experiments.metrics.verdict import rows, sentence, table


def runs(*cells):
    """Rows of kind, solver, instance, gap."""
    return pd.DataFrame(
        [
            {
                "fisher": kind, "solver": solver, "solver_name": solver, "instance": instance,
                "gap": gap, "time_limit": 0.1, "status": "done", "flat": False, "n": 8,
                "tag": "exact",
                "track": "penalised" if solver == "neal" else "native",
            }
            for kind, solver, instance, gap in cells
        ]
    )  # fmt: skip


def test_kinds_on_which_greedy_leaves_something():
    both = runs(
        ("reconstruction", "greedy", "a", 0.12), ("reconstruction", "greedy", "b", 0.2),
        ("reconstruction", "tabu", "a", 0.0), ("reconstruction", "tabu", "b", 0.0),
        ("reconstruction", "descent", "a", 0.4), ("reconstruction", "descent", "b", 0.2),
        ("reconstruction", "neal", "a", 9.0), ("reconstruction", "random", "a", 8.0),
        ("sequence", "greedy", "c", 0.0), ("sequence", "tabu", "c", 0.0),
        ("position", "greedy", "d", 0.001), ("position", "tabu", "d", 0.0),
    )  # fmt: skip
    found = table(both).set_index("kind")
    assert found.loc["reconstruction", "greedy"] == pytest.approx(0.16)
    assert found.loc["reconstruction", ["best", "worst"]].tolist() == ["tabu", "descent"]
    assert found.loc["reconstruction", "worst_gap"] == pytest.approx(0.3)
    text = sentence(both)
    assert text.startswith("A solver matters on row blocks, where taking the best weight at a time")
    assert "leaves 16 % of what can be gained, and searches leave 0 % (tabu) to 30 % (des" in text
    assert "It hardly matters on loss blocks (token Fisher, sequence Fisher), where" in text
    assert "leaves 0.1 % at most" in text
    loss, _, row = rows(both)
    assert loss == ["loss blocks (sequence Fisher)", "8", "1", "0 %", "0 % (tabu)", "–", "1 of 1"]
    assert row == [
        "row blocks", "8", "2", "16 %", "0 % (tabu)", "900 % (neal)", "2 of 2"
    ]  # fmt: skip


def test_many_that_tie_are_counted():
    names = ("descent", "tabu", "annealing", "tempering")
    frame = runs(*(("position", name, "a", 0.0) for name in ("greedy", *names)))
    assert rows(frame)[0][4] == "0 % (4 tie)"
    assert rows(frame[frame["solver"] != "tabu"])[0][4] == "0 % (annealing, descent, tempering)"
    assert rows(frame[frame["solver"] != "greedy"])[0][3] == "not run"
    assert rows(frame.assign(flat=True)) == []


def test_only_the_longest_limit_counts_and_a_flat_problem_not_at_all():
    frame = runs(("", "greedy", "a", 0.5), ("", "tabu", "a", 0.3), ("", "tabu", "a", 0.1))
    frame.loc[1, "time_limit"] = 0.01
    assert table(frame)["best_gap"].tolist() == [0.1]
    assert "A solver matters on these problems" in sentence(frame)
    frame["flat"] = True
    assert sentence(frame) == ""


def test_no_sentence_without_the_control_or_without_a_solver_beside_it():
    assert sentence(runs(("", "tabu", "a", 0.0))) == ""
    assert sentence(runs(("", "greedy", "a", 0.0), ("", "random", "a", 1.0))) == ""


def test_kinds_have_words_of_their_own():
    kinds = ("reconstruction, 2:4", "mix", "sequence", "other")
    cells = [(kind, solver, kind, 0.0) for kind in kinds for solver in ("greedy", "tabu")]
    text = sentence(runs(*cells))
    for words in ("row blocks (2:4)", "sequence Fisher)", "mixes of row and loss blocks", "other",
                  "leaves nothing"):  # fmt: skip
        assert words in text


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("token-weighted reconstruction", "row blocks (token-weighted), where"),
        ("token-weighted reconstruction, 2:4", "row blocks (token-weighted 2:4), where"),
        ("reconstruction, 4:8", "row blocks (4:8), where"),
    ],
)
def test_variants_of_row_blocks_are_named(kind, words):
    both = runs((kind, "greedy", "a", 0.1), (kind, "tabu", "a", 0.0))
    assert sentence(both).startswith(f"A solver matters on {words}")
