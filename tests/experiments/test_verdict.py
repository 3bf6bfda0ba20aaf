"""The first sentence of a page: where a solver matters, from the rows alone."""

import pandas as pd
import pytest

from experiments.metrics.verdict import sentence, table


def runs(*cells):
    """Rows of kind, solver, instance, gap."""
    return pd.DataFrame(
        [
            {
                "fisher": kind, "solver": solver, "solver_name": solver, "instance": instance,
                "gap": gap, "time_limit": 0.1, "status": "done", "flat": False,
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
    assert text.startswith(
        "A solver matters on row blocks (what share of a layer's output is lost), where"
    )
    assert "leaves 16 % of what can be gained" in text
    assert "0 % (tabu) to 30 % (descent)" in text
    assert "It hardly matters on loss blocks (how much the model's loss changes; token" in text
    assert "Fisher, sequence Fisher), where" in text
    assert "leaves 0.1 % at most" in text


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
    for words in ("row blocks (what share of a layer's output is lost; 2:4)", "sequence Fisher)",
                  "mix of row and loss", "other", "leaves nothing"):  # fmt: skip
        assert words in text


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("token-weighted reconstruction", "is lost; token-weighted), where"),
        ("token-weighted reconstruction, 2:4", "is lost; token-weighted 2:4), where"),
        ("reconstruction, 4:8", "is lost; 4:8), where"),
    ],
)
def test_variants_of_row_blocks_are_named(kind, words):
    both = runs((kind, "greedy", "a", 0.1), (kind, "tabu", "a", 0.0))
    assert sentence(both).startswith("A solver matters on row blocks (what share of a layer's")
    assert words in sentence(both)
