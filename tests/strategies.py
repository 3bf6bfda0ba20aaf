"""Hypothesis strategies shared by the tests."""

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from solvers import CardinalityProblem
from solvers.testing import example


@st.composite
def problems(draw, max_n=6, dense=None, proper=False):
    """Random problems of every family: low-rank and dense, ties, zero columns, any k.

    Proper ones have more than one feasible state: neither no ones nor all.
    """
    n = draw(st.integers(1 + proper, max_n))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    k = draw(st.integers(int(proper), n - proper))
    linear = rng.normal(size=n) * draw(st.sampled_from([0.0, 1e-6, 1.0, 1e3]))
    if draw(st.booleans()):
        linear = np.round(linear)
    initial = np.zeros(n, dtype=bool)
    initial[rng.permutation(n)[:k]] = True
    common = {
        "linear": linear,
        "cardinality": k,
        "offset": float(rng.normal()),
        "scale": float(rng.uniform(0.5, 2)),
        "initial": initial,
        "indices": rng.integers(0, 10**9, size=n),
        "meta": {"layer": "model.layers.0.mlp.up_proj"},
    }
    if dense if dense is not None else draw(st.booleans()):
        G = rng.normal(size=(n, n))
        return CardinalityProblem(quadratic=G + G.T, **common)
    factor = rng.normal(size=(draw(st.integers(0, 3)), n))
    factor[:, rng.random(n) < 0.2] = 0
    return CardinalityProblem(factor=factor, **common)


@st.composite
def grouped(draw, least=1):
    """A problem of up to 4 groups of `least` to `least` + 2 variables, in any order."""
    sizes = draw(st.lists(st.integers(least, least + 2), min_size=1, max_size=4))
    ones = [draw(st.integers(0, size)) for size in sizes]
    n = sum(sizes)
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    groups = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    bare = example(n, sum(ones), draw(st.integers(0, 99)), draw(st.integers(0, 9)))
    problem = replace(bare, initial=None, groups=groups, cardinalities=np.array(ones))
    return replace(problem, initial=problem.random_state(rng))
