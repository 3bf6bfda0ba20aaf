"""Solver names, and how each becomes an object.

To add a solver: write one file and one line in `SOLVERS`. The class is imported only when the
solver is made, so an SDK costs nothing until it is used. A plain dimod sampler is put behind
`PenaltyComposite` by itself.

Another package adds solvers without touching this one, by entry points::

    [project.entry-points."icbs.solvers"]
    my-solver = "my_package.module:MySampler"

And any dimod sampler object may stand where a solver's name may: `make` takes both.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from solvers.entry import Entry
from solvers.errors import ParameterError, UnavailableError, UnknownSolverError

if TYPE_CHECKING:
    import dimod

    from solvers.base import CardinalitySampler

__all__ = ["GROUP", "SOLVERS", "Entry", "available", "entry", "make", "registered"]

SOLVERS: dict[str, Entry] = {
    "greedy": Entry(
        "solvers.search.descent:Greedy",
        "native",
        "adds the best variable k times; the control",
        honours=("time_limit",),
        takes_groups=True,
    ),
    "descent": Entry(
        "solvers.search.descent:Descent",
        "native",
        "swap descent from built states",
        honours=("time_limit", "reads"),
        takes_initial=True,
        takes_groups=True,
    ),
    "annealing": Entry(
        "solvers.search.annealing:Annealing",
        "native",
        "swap simulated annealing on the factor",
        honours=("time_limit", "reads", "sweeps"),
        takes_initial=True,
        takes_groups=True,
    ),
    "tabu": Entry(
        "solvers.search.tabu:Tabu",
        "native",
        "swap tabu search with aspiration and restarts",
        honours=("time_limit", "reads"),
        takes_initial=True,
        takes_groups=True,
    ),
    "tempering": Entry(
        "solvers.search.population:PopulationAnnealing",
        "native",
        "population annealing over swaps",
        honours=("time_limit", "reads", "sweeps"),
        takes_initial=True,
        takes_groups=True,
    ),
    "portfolio": Entry(
        "solvers.search.portfolio:Portfolio",
        "native",
        "picks a search by what the problem is like: memetic tabu search, or annealing",
        honours=("time_limit", "reads"),
        takes_initial=True,
        takes_groups=True,
    ),
    "reference-sa": Entry(
        "solvers.search.published:PublishedAnnealing",
        "native",
        "the published solver's swap annealing, O(n) a proposal; the baseline",
        honours=("time_limit", "reads", "sweeps"),
        max_variables=8192,
    ),
    "relaxation": Entry(
        "solvers.exact.relaxation:Relaxation",
        "native",
        "certified bound, rounding, descent",
        honours=("time_limit",),
        takes_groups=True,
    ),
    "semidefinite": Entry(
        "solvers.exact.semidefinite:Semidefinite",
        "native",
        "certified bound by a doubly non-negative relaxation, rounding, descent",
        honours=("time_limit",),
        max_variables=4096,
        takes_groups=True,
    ),
    "exact": Entry(
        "solvers.exact.branch_and_bound:BranchAndBound",
        "native",
        "branch and bound on two relaxations; proves the optimum",
        honours=("time_limit",),
        exact=True,
        takes_groups=True,
    ),
    "enumerate": Entry(
        "solvers.exact.enumeration:Enumeration",
        "native",
        "every k-subset; proves the optimum",
        exact=True,
        max_variables=24,
        takes_groups=True,
    ),
    "milp": Entry(
        "solvers.exact.highs:MILP",
        "native",
        "HiGHS, outer approximation of the factored form; for comparison",
        ("highspy",),
        extra="mip",
        honours=("time_limit",),
        exact=True,
        max_variables=4096,
        takes_initial=True,
        takes_groups=True,
    ),
    "miqp": Entry(
        "solvers.exact.scip:MIQP",
        "native",
        "SCIP on the factored form; for comparison",
        ("pyscipopt",),
        extra="mip",
        honours=("time_limit",),
        exact=True,
        max_variables=4096,
        takes_initial=True,
        takes_groups=True,
    ),
    "neal": Entry(
        "solvers.penalised.ocean:Neal",
        "penalised",
        "D-Wave simulated annealing (dwave-neal)",
        ("neal",),
        honours=("time_limit", "reads", "sweeps"),
        takes_groups=True,
    ),
    "ocean-tabu": Entry(
        "solvers.penalised.ocean:OceanTabu",
        "penalised",
        "D-Wave multistart tabu search",
        ("dwave.samplers",),
        honours=("time_limit", "reads"),
        takes_groups=True,
    ),
    "steepest-descent": Entry(
        "solvers.penalised.ocean:SteepestDescent",
        "penalised",
        "D-Wave bit-flip descent",
        ("dwave.samplers",),
        honours=("reads",),
        takes_groups=True,
    ),
    "path-integral": Entry(
        "solvers.penalised.ocean:PathIntegral",
        "penalised",
        "D-Wave path-integral (simulated quantum) annealing",
        ("dwave.samplers",),
        honours=("time_limit", "reads", "sweeps"),
        max_variables=1024,
        takes_groups=True,
    ),
    "random": Entry(
        "solvers.penalised.ocean:Random",
        "penalised",
        "uniform bit strings; the floor",
        ("dwave.samplers",),
        honours=("reads",),
        takes_groups=True,
    ),
    "qpu": Entry(
        "solvers.cloud.dwave:QPU",
        "penalised",
        "D-Wave quantum annealer, clique embedding (uses quota: max_service_time)",
        ("dwave.system",),
        extra="dwave",
        paid=True,
        honours=("reads",),
        max_variables=180,
        takes_groups=True,
    ),
    "leap-hybrid-cqm": Entry(
        "solvers.cloud.leap:LeapHybridCQM",
        "native",
        "D-Wave Leap's hybrid solver for constrained models (uses quota: max_service_time)",
        ("dwave.system",),
        extra="dwave",
        paid=True,
        honours=("time_limit",),
        max_variables=8192,
    ),
    "leap-hybrid-nl": Entry(
        "solvers.cloud.leap:LeapHybridNL",
        "native",
        "D-Wave Leap's hybrid solver, k ones by construction (uses quota: max_service_time)",
        ("dwave.system", "dwave.optimization"),
        extra="dwave",
        paid=True,
        honours=("time_limit",),
        max_variables=8192,
        takes_groups=True,
    ),
    "qaoa-aer": Entry(
        "solvers.qaoa.qiskit:AerQAOASampler",
        "penalised",
        "QAOA, X mixer, linear ramp, sampled on Qiskit Aer",
        ("qiskit", "qiskit_aer"),
        honours=("reads",),
        max_variables=12,
        takes_groups=True,
    ),
    "qaoa-braket-local": Entry(
        "solvers.qaoa.braket:BraketLocalQAOASampler",
        "penalised",
        "QAOA, X mixer, linear ramp, sampled on the Braket local simulator",
        ("braket",),
        honours=("reads",),
        max_variables=12,
        takes_groups=True,
    ),
    "qaoa-subspace": Entry(
        "solvers.qaoa.subspace:SubspaceQAOA",
        "native",
        "QAOA in the space of k ones, exact state vector, trained angles",
        honours=("reads", "time_limit"),
        max_variables=20,
        takes_groups=True,
    ),
    "qaoa-xy-aer": Entry(
        "solvers.qaoa.qiskit:AerSubspaceQAOA",
        "native",
        "QAOA, Dicke state and XY mixer, sampled on Qiskit Aer",
        ("qiskit", "qiskit_aer"),
        honours=("reads", "time_limit"),
        max_variables=12,
        takes_groups=True,
    ),
    "qaoa-xy-braket-local": Entry(
        "solvers.qaoa.braket:BraketLocalSubspaceQAOA",
        "native",
        "QAOA, Dicke state and XY mixer, on the Braket local simulator",
        ("braket",),
        honours=("reads", "time_limit"),
        max_variables=12,
        takes_groups=True,
    ),
    "qaoa-braket": Entry(
        "solvers.cloud.paid:BraketPenaltyQAOA",
        "penalised",
        "QAOA, X mixer, on Amazon Braket (costs money: max_cost)",
        ("braket",),
        paid=True,
        resource="braket",
        honours=("reads",),
        max_variables=24,
        takes_groups=True,
    ),
    "qaoa-xy-braket": Entry(
        "solvers.cloud.paid:BraketSubspaceQAOA",
        "native",
        "QAOA, Dicke state and XY mixer, on Amazon Braket (costs money: max_cost)",
        ("braket",),
        paid=True,
        resource="braket",
        honours=("reads",),
        max_variables=24,
        takes_groups=True,
    ),
    "qaoa-xy-ibm": Entry(
        "solvers.cloud.ibm:IBMSubspaceQAOA",
        "native",
        "QAOA, Dicke state and XY mixer, on IBM (uses quantum time: max_quantum_time)",
        ("qiskit_ibm_runtime",),
        extra="ibm",
        paid=True,
        resource="ibm",
        honours=("reads",),
        max_variables=24,
        takes_groups=True,
    ),
    "qaoa-qiskit-optimizer": Entry(
        "solvers.qaoa.optimizer:QiskitOptimizerQAOA",
        "penalised",
        "MinimumEigenOptimizer of qiskit-optimization with its QAOA",
        ("qiskit_aer", "qiskit_optimization"),
        honours=("reads",),
        max_variables=12,
        takes_groups=True,
    ),
}


GROUP = "icbs.solvers"
"""Entry points of this group are solvers."""


@cache
def registered() -> dict[str, Entry]:
    """Every solver by name: this package's, then those of installed packages, by entry points.

    A package cannot replace one of this package's solvers. Nothing is imported.
    """
    found = dict(SOLVERS)
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        origin = point.dist.name if point.dist else "another package"
        if point.name not in found:
            found[point.name] = Entry(point.value, None, f"from {origin}")
    return found


def entry(name: str) -> Entry:
    """The registered solver called `name`.

    Raises:
        UnknownSolverError: no such name; the message lists those there are.
    """
    known = registered()
    if name not in known:
        raise UnknownSolverError(
            f"solver {name!r} is not registered; choose from {', '.join(known)}"
        )
    return known[name]


def available() -> dict[str, str | None]:
    """For every registered solver None, or why it cannot be used here."""
    return {name: _missing(known) for name, known in registered().items()}


def _missing(known: Entry) -> str | None:
    for module in known.needs:
        if not _found(module):
            remedy = f"pip install 'icbs-bench[{known.extra}]'" if known.extra else "reinstall"
            return f"needs the package {module!r} ({remedy})"
    return None


def _found(module: str) -> bool:
    """Whether a module can be imported; of its packages only namespaces are, to look inside."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def make(solver: str | dimod.Sampler, **options: Any) -> CardinalitySampler:
    """The solver called `solver`, ready to use; or a sampler object, ready as it is.

    Args:
        solver: a registered name, or any dimod sampler: a `CardinalitySampler` is handed back,
            any other put behind `PenaltyComposite`.
        **options: constructor options; for the penalised track also those of `PenaltyComposite`.
            With a sampler object only the latter.

    Raises:
        UnknownSolverError: no such name.
        UnavailableError: a package the solver needs is not installed, or a solver of another
            package cannot be imported or is no sampler.
        ParameterError: options for an object that is ready, or something that is no sampler.
    """
    if not isinstance(solver, str):
        return _object(solver, options)
    known = entry(solver)
    # Not before a wrong name is told: dimod and scipy take most of a second.
    from solvers.base import CardinalitySampler

    if reason := _missing(known):
        raise UnavailableError(f"solver {solver!r} {reason}")
    cls = _class(solver, known)
    if issubclass(cls, CardinalitySampler):
        return cls(**options)
    own = {key: options.pop(key) for key in ("penalty", "repair") if key in options}
    return _penalised(cls(**options), own | {"name": solver})


def _class(name: str, known: Entry) -> type[dimod.Sampler]:
    import dimod

    module, _, attribute = known.target.partition(":")
    if name in SOLVERS:
        return getattr(import_module(module), attribute)
    try:
        cls = getattr(import_module(module), attribute)
    except Exception as error:  # whatever a foreign module does when imported
        raise UnavailableError(
            f"solver {name!r} ({known.summary}) cannot be loaded from {known.target}: {error}"
        ) from error
    if not (isinstance(cls, type) and issubclass(cls, dimod.Sampler)):
        raise UnavailableError(
            f"solver {name!r} ({known.summary}): {known.target} is not a class of dimod samplers"
        )
    return cls


def _object(sampler: Any, options: dict[str, Any]) -> CardinalitySampler:
    import dimod

    from solvers.base import CardinalitySampler

    if not isinstance(sampler, dimod.Sampler):
        raise ParameterError(
            f"solver is {type(sampler).__name__}, expected a registered name or a dimod sampler"
        )
    if not isinstance(sampler, CardinalitySampler):
        return _penalised(sampler, options)
    if options:
        raise ParameterError(
            f"solver {sampler.name} is a ready object and takes no options: leave "
            f"{next(iter(options))!r} out"
        )
    return sampler


def _penalised(sampler: dimod.Sampler, options: dict[str, Any]) -> CardinalitySampler:
    from solvers.penalised.penalty import PenaltyComposite

    return PenaltyComposite(sampler, **options)
