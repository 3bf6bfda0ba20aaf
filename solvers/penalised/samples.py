"""What a sampler hands back: checked against its model, then made feasible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dimod
import numpy as np
from numpy.typing import NDArray

from solvers.clock.deadline import NEVER, Deadline
from solvers.errors import SampleError
from solvers.problem import Bools, CardinalityProblem, Floats
from solvers.search.repair import LocalSearch

Rows = NDArray[np.int8]
Counts = NDArray[np.int64]
# Different rows that are repaired at most: each costs some 20 microseconds and more.
MAX_REPAIRED = 10_000


def checked_rows(
    samples: Any, variables: Sequence[Any], name: str
) -> tuple[Rows, Counts, NDArray[np.intp]]:
    """The rows of a sample set, as zeros and ones in the order of the model's variables.

    Args:
        samples: what a sampler returned.
        variables: labels of the n variables it was given.
        name: of the sampler, for messages.

    Returns:
        Rows, shape (m, n); how many reads gave each, shape (m,); and which rows of the record they
        are, since those of no reads are left out, shape (m,).

    Raises:
        SampleError: no sample set, other variables, values that are not those of its vartype,
            counts that are no whole numbers from 0.
    """
    if not isinstance(samples, dimod.SampleSet):
        raise SampleError(f"{name} returned a {type(samples).__name__}, expected a dimod.SampleSet")
    samples.resolve()
    missing = [v for v in variables if v not in samples.variables]
    if missing or len(samples.variables) != len(variables):
        wanted = set(variables)
        strange = [v for v in samples.variables if v not in wanted]
        raise SampleError(
            f"{name} returned {len(samples.variables)} variables, its model has {len(variables)}"
            + (f"; {missing[0]!r} is missing" if missing else "")
            + (f"; {strange[0]!r} is not a variable of the model" if strange else "")
        )
    values = {dimod.SPIN: (-1, 1), dimod.BINARY: (0, 1)}.get(samples.vartype)
    if values is None:
        raise SampleError(f"{name} returned {samples.vartype} samples, expected BINARY or SPIN")
    found = samples.record.sample[:, [samples.variables.index(v) for v in variables]]
    rows = found == values[1]
    wrong = ~(rows | (found == values[0]))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise SampleError(
            f"{name} returned {found[row, column].item()!r} for variable {variables[column]!r} in "
            f"{samples.vartype.name} samples, expected {values[0]} or {values[1]}"
        )
    counts = np.asarray(samples.record.num_occurrences)
    if not np.array_equal(counts, counts.astype(np.int64)) or (counts < 0).any():
        raise SampleError(f"{name} returned num_occurrences that are not whole numbers from 0")
    kept = np.flatnonzero(counts)
    return rows[kept].astype(np.int8), counts[kept].astype(np.int64), kept


def repaired(
    problem: CardinalityProblem,
    rows: Rows,
    *,
    descend: bool = False,
    promise: Floats | None = None,
    deadline: Deadline = NEVER,
    late: Deadline = NEVER,
) -> tuple[Rows, Bools]:
    """Rows made feasible by the best single flips; equal ones once.

    The first row in order of promise is made feasible whatever the time. After the deadline a row
    gets all its missing flips at once. What is not reached before it is too `late`, or is beyond
    `MAX_REPAIRED` different rows, stays as it came.

    Args:
        problem: n variables.
        rows: zeros and ones, shape (m, n).
        descend: whether a descent over swaps follows.
        promise: the lower, the earlier a row has its turn, shape (m,); the rows' order when None.
        deadline: see above.
        late: see above; not before the deadline.

    Returns:
        The states, shape (m, n), and which of them are not feasible, shape (m,).
    """
    packed = np.packbits(rows, axis=1)
    keys = packed.view(np.dtype((np.void, packed.shape[1]))).ravel() if rows.size else np.zeros(0)
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    different = rows[first]
    infeasible = ~problem.is_feasible(different)
    waiting = np.flatnonzero(infeasible | descend)
    turn = np.zeros(len(waiting)) if promise is None else promise[first[waiting]]
    search = LocalSearch(problem) if len(waiting) else None
    for number, i in enumerate(waiting[np.lexsort((first[waiting], turn))]):
        if number >= MAX_REPAIRED or (number and late.over):
            break
        assert search is not None
        state = search.fill(different[i], deadline)
        different[i] = search.descend(state, deadline) if descend else state
        infeasible[i] = False
    return different[which], infeasible[which]
