"""The words of pages and figures: one for each thing, and what each means.

Stores and CSV files keep their columns' names (``lane``, ``fisher``, ``tag``); what people read is
translated here.
"""

from __future__ import annotations

import html
import re
from typing import Any

import pandas as pd

_CURVATURES = {"sequence": "sequence Fisher", "position": "token Fisher", "exact": "Hessian"}
_TAGS = {"exact": "certified", "bounded": "bounded", "best-known": "best known"}
TRACKS = ("native", "penalised")
"""In the order in which pages list them."""

_TERMS = (
    ("instance", r"\binstances?\b", "one problem: choose exactly k of its n variables."),
    ("block", r"\bblocks?\b",
     "the problem cut out of one layer of a model: n of its weights, k of which are to be pruned "
     "(set to zero)."),
    ("n", r"\bn\b", "how many variables a problem has; of a block, how many weights."),
    ("k", r"\bk\b", "how many of them are to be chosen."),
    ("energy", r"\benerg(y|ies)\b", "what a choice costs, by the problem's formula; lower is "
     "better."),
    ("current mask", r"\bcurrent masks?\b",
     "the choice of pruned weights that the model had when the problem was cut out."),
    ("best known", r"\bbest known\b", "the lowest energy that anybody has found for a problem."),
    ("certified", r"\bcertified\b", "the best known energy is proved to be the lowest there is."),
    ("bounded", r"\bbounded\b",
     "the best known energy is not proved to be the lowest, but a proof says how much lower one "
     "could be."),
    ("gap", r"\bgaps?\b",
     "how far an answer is from the best known: 0 is there, 100 % is no better than the current "
     "mask (for problems without one: than the mean of all choices)."),
    ("certified gap", r"\bcertified gap\b",
     "the same, measured from a proved bound: the true gap is at most this."),
    ("track", r"\btracks?\b",
     "native or penalised; the two are ranked apart."),
    ("native", r"\bnative\b", "solvers that only ever look at choices of exactly k."),
    ("penalised", r"\bpenalised\b",
     "solvers that take any string of bits; a penalty in the formula asks for k ones."),
    ("repair", r"\brepair(ed)?\b",
     "turning a string of bits with another number of ones into a choice of k."),
    ("feasible", r"\b(in)?feasible\b", "having exactly k ones."),
    ("greedy control", r"\bgreedy control\b",
     "takes the best variable k times and never searches: what a search has to beat."),
    ("curvature", r"\b(curvature|Fisher|Hessian)\b",
     "the part of the formula that couples variables; without it the answer is a sort."),
    ("sequence Fisher", r"\bsequence Fisher\b",
     "curvature from one gradient a sample (fisher = \"sequence\")."),
    ("token Fisher", r"\btoken Fisher\b",
     "curvature from one gradient a position, such as a token (fisher = \"position\")."),
    ("Hessian", r"\bHessian\b", "the true second derivatives (fisher = \"exact\")."),
    ("budget", r"\bbudgets?\b", "the seconds, or the number of answers, a solver may use."),
    ("read", r"\breads?\b", "one answer of a solver; it may give several in a run."),
    ("seed", r"\bseeds?\b", "what a run's random numbers start from."),
    ("run", r"\bruns?\b", "one solver on one problem with one budget and one seed."),
    ("cell", r"\bcells?\b", "a run that a study plans."),
    ("wall", r"\bwall\b", "seconds from calling a solver to its answer."),
    ("TTS", r"\bTTS\b", "time to solution: seconds until the best known is found with 99 %."),
    ("ERT", r"\bERT\b", "expected running time: mean seconds until a target is reached."),
    ("QAOA", r"\bQAOA\b", "a quantum algorithm whose circuit is run many times, each a shot."),
    ("rehearsal", r"\brehears(al|ed)\b",
     "the same study with a simulator on this machine in place of the device that costs money."),
)  # fmt: skip


def curvature(fisher: Any) -> str:
    """What a block's curvature is called; empty for none."""
    if fisher is None or pd.isna(fisher) or not str(fisher):
        return ""
    return _CURVATURES.get(str(fisher), str(fisher))


def tag(name: Any) -> str:
    """What is known of a problem's best known energy: certified, bounded or best known."""
    return _TAGS.get(str(name), str(name))


def shown(page: str) -> str:
    """What a page of HTML shows, and what it says of its figures."""
    bare = re.sub(r"(?s)<(script|style)\b.*?</\1>", " ", page)
    alts = re.findall(r'alt="([^"]*)"', bare)
    return html.unescape(" ".join([re.sub(r"<[^>]*>", " ", bare), *alts]))


def used(text: str) -> list[tuple[str, str]]:
    """The terms that a text uses, with their meanings."""
    return [(term, meaning) for term, pattern, meaning in _TERMS if re.search(pattern, text)]
