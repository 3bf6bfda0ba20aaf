"""The words of pages and figures: one for each thing, and what each means.

Stores and CSV files keep their columns' names (``fisher``, ``tag``); what people read is
translated here.
"""

from __future__ import annotations

import html
import re
from typing import Any

import pandas as pd

_CURVATURES = {
    "sequence": "sequence Fisher", "position": "token Fisher", "exact": "Hessian",
    "reconstruction": "reconstruction", "mix": "mix of row and loss",
}  # fmt: skip
# Curvatures of loss blocks; part of the name of those of row blocks.
_LOSS, _ROW = ("sequence", "position", "exact"), "reconstruction"
_PLURALS = {"mix of row and loss": "mixes of row and loss blocks", "": "these problems"}
_TAGS = {"exact": "certified", "bounded": "bounded", "best-known": "best known"}
TRACKS = ("native", "penalised")
"""In the order in which pages list them."""

_TERMS = (
    ("problem (instance)", r"\b(instances?|problems?)\b", "choose exactly k of n variables."),
    ("block", r"\bblocks?\b",
     "a problem cut out of one layer of a model: n of its weights, k of which are to be pruned "
     "(set to zero)."),
    ("row block", r"\brow blocks?\b",
     "the weights of one output of a layer; its energy is the share of that output that is lost. "
     "2:4 means that two of every four weights in a row go."),
    ("loss block", r"\bloss blocks?\b",
     "weights of a layer; its energy is an estimate of how much the model's loss changes."),
    ("n", r"\bn\b", "how many variables a problem has; of a block, how many weights."),
    ("k", r"\bk\b", "how many of them are to be chosen."),
    ("energy", r"\benerg(y|ies)\b",
     "what a choice costs, by the problem's formula; lower is better. For a block it estimates how "
     "much the model loses."),
    ("current mask", r"\b[Cc]urrent masks?\b",
     "the weights that the model had set to zero when the problem was cut out."),
    ("best known", r"\bbest known\b", "the lowest energy that anybody has found for a problem."),
    ("gain", r"\bgains?\b(?!ed)",
     "by how much the best known is better than the current mask; all that there is to gain is "
     "100 %."),
    ("gap", r"\bgaps?\b",
     "how much of the gain an answer leaves. At 0 % it is as good as the best known; at 100 % it "
     "is no better than the current mask (where there is none: than the mean of all choices)."),
    ("certified", r"\bcertified\b", "the best known energy is proved to be the lowest there is."),
    ("bounded", r"\bbounded\b",
     "there is no such proof, but one that says how much lower an energy could be."),
    ("certified gap", r"\bcertified gap\b",
     "the gap measured from a proved bound: the true gap is at most this."),
    ("bound gap", r"\bbound gap\b",
     "how far the proved bound lies below the best known, as a share of the gain: 0 % is a proof "
     "that the best known is the best there is."),
    ("track", r"\btracks?\b", "native or penalised; the two are ranked apart."),
    ("native", r"\bnative\b", "of solvers: they only ever look at choices of exactly k."),
    ("penalised", r"\bpenalised\b",
     "of solvers: they may choose any number of variables, and the formula adds a penalty where "
     "that is not k. Wrong choices are repaired."),
    ("repair", r"\brepair(ed)?\b",
     "changing a choice of more or fewer variables into one of exactly k."),
    ("feasible", r"\b(in)?feasible\b", "having exactly k variables chosen."),
    ("greedy control", r"\bgreedy('s| control)\b",
     "takes the best variable k times and never searches: what a search has to beat."),
    ("curvature", r"\b(curvature|Fisher|Hessian)\b",
     "the part of the formula that couples variables, so that the cost of two is not the sum of "
     "both. Without it the best choice is found by sorting."),
    ("sequence Fisher", r"\bsequence Fisher\b",
     "curvature estimated from one gradient for each whole sample (in study files: \"sequence\"). "
     "A Fisher matrix (after R. A. Fisher) is the mean of products of gradients."),
    ("token Fisher", r"\btoken Fisher\b",
     "curvature estimated from one gradient for each position of a sample, such as a token of a "
     "text or a patch of an image (in study files: \"position\")."),
    ("Hessian", r"\bHessian\b", "the true second derivatives (in study files: \"exact\")."),
    ("reconstruction", r"\breconstruction\b",
     "curvature of a row block: how the inputs of the layer go together."),
    ("rank (of a solver)", r"(?<!matrix )(?<!effective )\b[Rr]anks?\b",
     "1 and the number of solvers of its track that are better beyond doubt; solvers that cannot "
     "be told apart share a rank."),
    ("matrix rank", r"\bmatrix rank\b",
     "of how many independent vectors the curvature is made; with few, variables are coupled in "
     "few ways."),
    ("effective rank", r"\beffective rank\b",
     "how many of these count: the exponential of the entropy of the curvature's spectrum."),
    ("group", r"\bgroups?\b", "the problems of one size n and one curvature."),
    ("budget", r"\bbudgets?\b", "the seconds, or the number of answers, a solver may use."),
    ("read", r"\breads?\b", "one answer of a solver; it may give several in a run."),
    ("seed", r"\bseeds?\b", "what a run's random numbers start from."),
    ("run", r"\bruns?\b", "one solver on one problem with one budget and one seed."),
    ("wall time", r"\bwall\b",
     "seconds on the clock from calling a solver to its answer, without the time that it takes to "
     "load and compile it before (warm-up)."),
    ("worker", r"\bworkers\b", "a process that solves; several solve at the same time."),
    ("TTS", r"\bTTS\b",
     "time to solution: the seconds after which a solver has found the best known with a "
     "probability of 99 %, if it is started again and again."),
    ("ERT", r"\bERT\b",
     "expected running time: the mean time until a gap is reached, unsuccessful runs included."),
    ("QAOA", r"\b(QAOA|qaoa)\b",
     "a quantum algorithm: a circuit that is run many times, each run of it a shot."),
    ("shot", r"\bshots?\b", "one run of a circuit, which gives one string of bits."),
    ("task", r"\btasks?\b",
     "one circuit sent to a device with a number of shots; the device charges for each."),
    ("mixer", r"\bmixer\b",
     "the part of a QAOA circuit that moves between choices; ring and XY mixers exchange two "
     "variables, so that exactly k stay chosen."),
    ("rehearsal", r"\b[Rr]ehears(al|ed)\b",
     "the same study with a simulator on this machine in place of the device that costs money."),
)  # fmt: skip


def curvature(fisher: Any) -> str:
    """What a block's curvature is called; empty for none."""
    if fisher is None or pd.isna(fisher) or not str(fisher):
        return ""
    return _CURVATURES.get(str(fisher), str(fisher))


def kinds(*curvatures: str) -> str:
    """What problems of these curvatures are called, for who never saw the project.

    Row blocks come with what they keep to, such as 2:4, loss blocks with their curvature.
    """
    named = []
    for before, row, after in (fisher.partition(_ROW) for fisher in curvatures):
        variant = f"{before}{after.removeprefix(', ')}".strip()
        if row:
            named.append(f"row blocks ({variant})" if variant else "row blocks")
    if loss := [curvature(fisher) for fisher in curvatures if fisher in _LOSS]:
        named.append(f"loss blocks ({', '.join(loss)})")
    others = [curvature(f) for f in curvatures if _ROW not in f and f not in _LOSS]
    return " and ".join([*named, *(_PLURALS.get(name, name) for name in others)])


def in_brackets(fisher: Any) -> str:
    """What a block's curvature is called, in brackets behind something else; empty for none."""
    name = curvature(fisher)
    return f" ({name})" if name else ""


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


def fishers(frame: pd.DataFrame) -> list[str]:
    """The curvatures in a frame, the known ones first and patterns behind; ``['']`` for none."""
    known = list(_CURVATURES)
    found = set(frame["fisher"].fillna("")) if "fisher" in frame else {""}

    def place(fisher: str) -> tuple[int, str]:
        plain = fisher.partition(",")[0]
        return known.index(plain) if plain in known else len(known), fisher

    return sorted(found, key=place) or [""]
