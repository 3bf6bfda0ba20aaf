"""A problem as a nonlinear model of dwave.optimization, feasible by construction.

    E(x) = offset + c.x + 1/2 ||A x||^2     or     offset + c.x + 1/2 x'Gx

Each group of variables is one binary symbol whose sum is fixed, in the order of the problem's
`members`; without groups that is one symbol of n variables. The service then only moves between
feasible states: there is neither a constraint to weigh nor a state to repair. With a factor the
model has ``A x``, r numbers, and never the n x n matrix.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from dwave.optimization import Model
from dwave.optimization.mathematical import concatenate, matmul
from numpy.typing import NDArray

from solvers.problem import CardinalityProblem

Rows = NDArray[np.int8]


def nonlinear_model(problem: CardinalityProblem) -> Model:
    """The model that is sent: locked, its objective E(x), without states.

    Args:
        problem: n variables, at least one.
    """
    model = Model()
    symbols = [
        model.binary(len(part), sum_subject_to=[("==", int(ones))])
        for part, ones in zip(problem.members, problem.group_ones, strict=True)
    ]
    order = np.concatenate(problem.members)
    x = symbols[0] if len(symbols) == 1 else concatenate(symbols)
    energy = model.constant(problem.offset)
    if problem.factor is None:
        assert problem.quadratic is not None
        G = problem.quadratic[np.ix_(order, order)]
        linear = problem.linear[order] + 0.5 * G.diagonal()
        upper = np.triu(G, 1)
        pairs = np.nonzero(upper)
        if len(pairs[0]):
            energy = energy + model.quadratic_model(x, (upper[pairs], np.stack(pairs)))
    else:
        linear = problem.linear[order]
        if problem.rank:
            projected = matmul(model.constant(problem.factor[:, order]), x)
            energy = energy + 0.5 * (projected * projected).sum()
    model.minimize(energy + (model.constant(linear) * x).sum())
    model.lock()
    return model


def put_states(model: Model, problem: CardinalityProblem, rows: NDArray[Any]) -> None:
    """Makes the rows the model's states.

    Args:
        model: of `nonlinear_model`, of the same problem.
        problem: n variables.
        rows: feasible, zeros and ones, shape (m, n).
    """
    model.states.resize(len(rows))
    for symbol, part in zip(model.iter_decisions(), problem.members, strict=True):
        for index, row in enumerate(rows):
            symbol.set_state(index, row[part])


def states_of(model: Model, problem: CardinalityProblem) -> Rows:
    """The model's states as zeros and ones, shape (m, n); waits where they are on their way.

    Args:
        model: of `nonlinear_model`, of the same problem.
        problem: n variables.
    """
    rows = np.zeros((model.states.size(), problem.n), np.int8)
    for symbol, part in zip(model.iter_decisions(), problem.members, strict=True):
        for index, row in enumerate(rows):
            row[part] = symbol.state(index)
    return rows
