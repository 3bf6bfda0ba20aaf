"""dimod's models as problems, and what dimod's composites may not do to a cardinality."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dimod
import numpy as np

from solvers.arguments import whole
from solvers.arithmetic.convex import LONG_UNIT, UNIT
from solvers.arrays import frozen
from solvers.errors import ParameterError, ProblemError
from solvers.memory import check_room
from solvers.problem import Bools, CardinalityProblem

if TYPE_CHECKING:
    from types import FrameType

# Composites of dimod's family that hand on the variables as they are, with their meaning.
_HARMLESS = {
    "ClipComposite", "ScaleComposite", "StructureComposite", "TrackingComposite",
    "TruncateComposite",
}  # fmt: skip
_REMEDIES = {
    dimod.ConstrainedQuadraticModel: "pass its objective as a model, and cardinality",
    CardinalityProblem: "call sample_problem",
    dict: "call sample_qubo or sample_ising",
}
# Bytes of a dense problem's coupling: the float64 that it holds and a float32 for the kernels.
_COUPLING = 12
# Couplings a second of a model that becomes a dense problem and is laid out for the kernels. Below
# so many seconds a time limit that is too short is overrun, from there on refused.
_RATE, _OVERRUN = 1e8, 2.0


def check_model(bqm: Any) -> None:
    """Refuses anything but a binary quadratic model whose biases are finite.

    Raises:
        ParameterError: another kind of object.
        ProblemError: NaN or infinity among the biases.
    """
    if not isinstance(bqm, dimod.BinaryQuadraticModel):
        remedy = next(
            (text for kind, text in _REMEDIES.items() if isinstance(bqm, kind)),
            "make it one, such as dimod.BinaryQuadraticModel(Q, 'BINARY') of a square array",
        )
        raise ParameterError(
            f"bqm is a {type(bqm).__name__}, expected a dimod.BinaryQuadraticModel: {remedy}"
        )
    # With every variable at 1 the energy is the sum of all biases.
    total = bqm.energies((np.ones((1, bqm.num_variables), np.int8), bqm.variables))[0]
    if not np.isfinite(total):
        raise ProblemError(f"bqm has {_culprit(bqm)}, expected finite numbers")


def _culprit(bqm: dimod.BinaryQuadraticModel) -> str:
    for v, bias in bqm.linear.items():
        if not np.isfinite(bias):
            return f"the bias {bias} on variable {v!r}"
    for (u, v), bias in bqm.quadratic.items():
        if not np.isfinite(bias):
            return f"the bias {bias} between {u!r} and {v!r}"
    return f"the offset {bqm.offset}, or biases too large to add up"


def check_composites(sampler: dimod.Sampler) -> None:
    """Refuses a cardinality that a composite of dimod's passes on to `sampler` for another model.

    A composite hands its child another model and every keyword as it is: with variables flipped,
    fixed, added or solved in parts, k ones of the child's variables are not k ones of the caller's,
    and the child cannot see that from its model. The composites on the way are found on the call
    stack. Composites of other packages are their authors' to get right.

    Raises:
        ParameterError: one that may change what is counted.
    """
    inner: Any = sampler
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        method = code.co_name.startswith("sample") and code.co_argcount > 0
        caller = frame.f_locals.get(code.co_varnames[0]) if method else None
        if (
            isinstance(caller, dimod.Composite)
            and caller is not inner
            and any(child is inner for child in caller.children)
        ):
            inner, kind = caller, type(caller)
            family = kind.__module__.partition(".")[0] in ("dimod", "dwave")
            if family and kind.__name__ not in _HARMLESS:
                raise ParameterError(
                    f"cardinality is passed on by {kind.__name__}, which may flip, fix, add or "
                    "split the variables it counts: call the solver without that composite; to fix "
                    "variables, use CardinalityProblem.restricted and sample_problem"
                )
        frame = frame.f_back


def problem_from_bqm(
    bqm: dimod.BinaryQuadraticModel, cardinality: int | None = None
) -> CardinalityProblem:
    """A dimod model as a dense problem.

    Args:
        bqm: n variables of any vartype and label.
        cardinality: number of ones; None adds n free variables at the end and sets k = n, which
            makes every x in {0,1}^n feasible.

    Returns:
        A problem of n (or 2n) variables with the same energies.

    Raises:
        BinaryQuadraticModelSizeError: its n^2 (or 4n^2) couplings do not fit into the memory that
            is available.
    """
    n = bqm.num_variables
    size, k = 2 * n, n
    if cardinality is not None:
        size, k = n, whole("cardinality", cardinality, 0, n, ProblemError)
    remedy = "use fewer variables, or" if size == n else "pass cardinality, or"
    remedy += " leave it out and use a penalised solver (neal), which takes the model as it is"
    check_room(
        _COUPLING * size**2, f"a model of {n:,} variables as a dense problem of {size:,}", remedy
    )
    linear, (rows, columns, values), offset = bqm.to_numpy_vectors(
        variable_order=list(bqm.variables)
    )
    c = np.zeros(size)
    G = np.zeros((size, size))
    if bqm.vartype is dimod.SPIN:
        # With s = 2x - 1. Sums that cancel are taken in extended precision.
        values = 4.0 * values
        offset = np.longdouble(offset) - linear.sum(dtype=np.longdouble)
        offset += 0.25 * values.sum(dtype=np.longdouble)
    # A model has a pair of variables once.
    G[rows, columns] = values
    G[columns, rows] = values
    if bqm.vartype is dimod.SPIN:
        linear = 2 * linear.astype(np.longdouble) - 0.5 * G[:n].sum(axis=1, dtype=np.longdouble)
    c[:n] = linear
    return CardinalityProblem(
        linear=frozen(c), cardinality=k, quadratic=frozen(G), offset=float(offset)
    )


def conversion_error(bqm: dimod.BinaryQuadraticModel, problem: CardinalityProblem) -> float:
    """How far energies of `problem_from_bqm` may be from those of the model; 0 of a binary one.

    Args:
        bqm: the model.
        problem: made of it.
    """
    if bqm.vartype is not dimod.SPIN:
        return 0.0
    assert problem.quadratic is not None
    sizes = float(np.abs(problem.quadratic).sum() + np.abs(problem.linear).sum())
    own = float(np.abs(problem.linear).sum()) + abs(problem.offset)
    return UNIT * own + 4 * LONG_UNIT * (problem.n + 4) * (sizes + abs(problem.offset))


def withhold(info: dict[str, Any], error: float) -> None:
    """Takes off a bound, and of a proof that it would undo, what a conversion may have added.

    Args:
        info: of a sample set.
        error: see `conversion_error`.
    """
    if not error or "lower_bound" not in info:
        return
    info["lower_bound"] = float(np.nextafter(info["lower_bound"] - error, -np.inf))
    if 2 * error > info.get("tolerance", 0.0):
        info["proved_optimal"] = False


def check_time(n: int, time_limit: float | None) -> None:
    """Refuses a time limit that would be over before a solver of dense problems could start.

    Args:
        n: variables of the dense problem.
        time_limit: seconds; None is never refused.

    Raises:
        BinaryQuadraticModelSizeError: too many couplings for the time.
    """
    seconds = n**2 / _RATE
    if time_limit is not None and seconds > max(time_limit, _OVERRUN):
        raise dimod.exceptions.BinaryQuadraticModelSizeError(
            f"time_limit is {time_limit:g}, but a dense problem of {n:,} variables takes about "
            f"{seconds:.2g} s to build: allow more, or leave cardinality out and use a penalised "
            "solver (neal), which takes the model as it is"
        )


def start_from(bqm: dimod.BinaryQuadraticModel, initial_state: Mapping[Any, int]) -> Bools:
    """A state of the model's variables as ones and zeros, in their order, shape (n,).

    Raises:
        ParameterError: a variable is missing or has another value than its vartype's two.
    """
    low = -1 if bqm.vartype is dimod.SPIN else 0
    for v in bqm.variables:
        if v not in initial_state or initial_state[v] not in (low, 1):
            found = initial_state.get(v, "missing")
            raise ParameterError(
                f"initial_state of variable {v!r} is {found}, expected {low} or 1 "
                f"({bqm.vartype.name})"
            )
    return np.array([initial_state[v] == 1 for v in bqm.variables], dtype=np.bool_)
