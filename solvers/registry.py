"""Solver names, and how each becomes an object.

To add a solver: write one file and one line in `SOLVERS`. The class is imported only when the
solver is made, so an SDK costs nothing until it is used. A plain dimod sampler is put behind
`PenaltyComposite` by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import dimod

from solvers.base import CardinalitySampler, Lane
from solvers.errors import UnavailableError, UnknownSolverError


@dataclass(frozen=True)
class Entry:
    """One registered solver.

    Attributes:
        target: ``module:class``.
        lane: ``native`` or ``penalised``.
        summary: one line for people.
        needs: modules the solver imports beyond the package's own.
        extra: the optional dependency group that brings them; empty for base dependencies.
        paid: whether a call costs money; such a solver has the option ``rehearse``.
    """

    target: str
    lane: Lane
    summary: str
    needs: tuple[str, ...] = ()
    extra: str = ""
    paid: bool = False


SOLVERS: dict[str, Entry] = {
    "greedy": Entry(
        "solvers.descent:Greedy", "native", "adds the best variable k times; the control"
    ),
    "descent": Entry("solvers.descent:Descent", "native", "swap descent from random starts"),
    "annealing": Entry(
        "solvers.annealing:Annealing", "native", "swap simulated annealing on the factor"
    ),
    "tabu": Entry("solvers.tabu:Tabu", "native", "swap tabu search with aspiration and restarts"),
    "tempering": Entry("solvers.tempering:Tempering", "native", "population annealing over swaps"),
    "reference-sa": Entry(
        "solvers.reference:ReferenceSA",
        "native",
        "the published solver's swap annealing, O(n) a proposal; the baseline",
    ),
    "relaxation": Entry(
        "solvers.relaxation:Relaxation", "native", "certified bound, rounding, descent"
    ),
    "exact": Entry(
        "solvers.branch_and_bound:Exact",
        "native",
        "branch and bound on the relaxation; proves the optimum",
    ),
    "enumerate": Entry("solvers.exact:Enumerate", "native", "every k-subset; proves the optimum"),
    "neal": Entry(
        "solvers.ocean:Neal", "penalised", "D-Wave simulated annealing (dwave-neal)", ("neal",)
    ),
    "ocean-tabu": Entry(
        "solvers.ocean:OceanTabu", "penalised", "D-Wave multistart tabu search", ("dwave.samplers",)
    ),
    "steepest-descent": Entry(
        "solvers.ocean:SteepestDescent", "penalised", "D-Wave bit-flip descent", ("dwave.samplers",)
    ),
    "path-integral": Entry(
        "solvers.ocean:PathIntegral",
        "penalised",
        "D-Wave path-integral (simulated quantum) annealing",
        ("dwave.samplers",),
    ),
    "random": Entry(
        "solvers.ocean:Random", "penalised", "uniform bit strings; the floor", ("dwave.samplers",)
    ),
    "qaoa-aer": Entry(
        "solvers.qaoa.qiskit:AerQAOASampler",
        "penalised",
        "QAOA, X mixer, linear ramp, sampled on Qiskit Aer",
        ("qiskit", "qiskit_aer"),
    ),
    "qaoa-braket-local": Entry(
        "solvers.qaoa.braket:BraketLocalQAOASampler",
        "penalised",
        "QAOA, X mixer, linear ramp, sampled on the Braket local simulator",
        ("braket",),
    ),
    "qaoa-subspace": Entry(
        "solvers.qaoa.native:SubspaceQAOA",
        "native",
        "QAOA in the space of k ones, exact state vector, trained angles",
    ),
    "qaoa-xy-aer": Entry(
        "solvers.qaoa.qiskit:AerSubspaceQAOA",
        "native",
        "QAOA, Dicke state and XY mixer, sampled on Qiskit Aer",
        ("qiskit", "qiskit_aer"),
    ),
    "qaoa-xy-braket-local": Entry(
        "solvers.qaoa.braket:BraketLocalSubspaceQAOA",
        "native",
        "QAOA, Dicke state and XY mixer, on the Braket local simulator",
        ("braket",),
    ),
    "qaoa-braket": Entry(
        "solvers.qaoa.paid:BraketPenaltyQAOA",
        "penalised",
        "QAOA, X mixer, on Amazon Braket (costs money: max_cost)",
        ("braket",),
        paid=True,
    ),
    "qaoa-xy-braket": Entry(
        "solvers.qaoa.paid:BraketSubspaceQAOA",
        "native",
        "QAOA, Dicke state and XY mixer, on Amazon Braket (costs money: max_cost)",
        ("braket",),
        paid=True,
    ),
    "qaoa-qiskit-optimizer": Entry(
        "solvers.qaoa.optimizer:QiskitOptimizerQAOA",
        "penalised",
        "MinimumEigenOptimizer of qiskit-optimization with its QAOA",
        ("qiskit_aer", "qiskit_optimization"),
    ),
}


def entry(name: str) -> Entry:
    """The registered solver called `name`.

    Raises:
        UnknownSolverError: no such name; the message lists those there are.
    """
    if name not in SOLVERS:
        raise UnknownSolverError(
            f"solver {name!r} is not registered; choose from {', '.join(SOLVERS)}"
        )
    return SOLVERS[name]


def available() -> dict[str, str | None]:
    """For every registered solver None, or why it cannot be used here."""
    return {name: _missing(known) for name, known in SOLVERS.items()}


def _missing(known: Entry) -> str | None:
    for module in known.needs:
        if find_spec(module.partition(".")[0]) is None:
            remedy = f"pip install 'icbs-bench[{known.extra}]'" if known.extra else "reinstall"
            return f"needs the package {module!r} ({remedy})"
    return None


def make(name: str, **options: Any) -> CardinalitySampler:
    """The solver called `name`, ready to use.

    Args:
        name: a key of `SOLVERS`.
        **options: constructor options; for the penalised lane also those of `PenaltyComposite`.

    Raises:
        UnknownSolverError: no such name.
        UnavailableError: a package the solver needs is not installed.
    """
    known = entry(name)
    if reason := _missing(known):
        raise UnavailableError(f"solver {name!r} {reason}")
    module, _, attribute = known.target.partition(":")
    cls = getattr(import_module(module), attribute)
    if issubclass(cls, CardinalitySampler):
        return cls(**options)
    return _penalised(name, cls, options)


def _penalised(name: str, cls: type[dimod.Sampler], options: dict[str, Any]) -> CardinalitySampler:
    from solvers.penalty import PenaltyComposite

    own = {key: options.pop(key) for key in ("penalty", "repair") if key in options}
    return PenaltyComposite(cls(**options), name=name, **own)
