"""SCIP on the convex constraints, see `solvers.exact.mip`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyscipopt
from pyscipopt import quicksum

from solvers.base import Request
from solvers.clock.background import run_until
from solvers.exact.mip import Form, MixedInteger
from solvers.penalised.penalty import MAX_SEED

# What SCIP calls no limit, and infinity.
MAX_SECONDS = 1e20
INFINITY = 1e20
# The least that its rounding allows without rational arithmetic.
FEASIBILITY = 1e-7


class MIQP(MixedInteger):
    """Branch and cut; ``info["nodes"]`` is the size of its tree.

    Where SCIP gave up, ``info["failure"]`` says why.
    """

    name = "miqp"
    seconds_per_entry = 1.5e-6

    def _optimised(self, form: Form, request: Request) -> tuple[dict[str, Any], bool]:
        largest = max(np.abs(form.A).max(initial=0.0), np.abs(form.c).max(initial=0.0))
        if largest >= INFINITY:
            return {"failure": f"coefficients of {largest:.3g} are infinite to SCIP"}, False
        model = pyscipopt.Model()
        model.hideOutput()
        settings = {
            "misc/catchctrlc": False,
            "limits/gap": 0.0,
            "limits/absgap": 0.2 * form.tolerance / form.unit,
            "numerics/feastol": FEASIBILITY,
            "randomization/randomseedshift": int(request.rng.integers(MAX_SEED)),
        }
        for key, setting in settings.items():
            model.setParam(key, setting)
        x = [model.addVar(vtype="B") for _ in range(form.n)]
        z = [model.addVar(lb=None) for _ in form.A]
        t = [model.addVar() for _ in form.A]
        linear = quicksum(cost * v for cost, v in zip(form.c.tolist(), x, strict=True))
        model.setObjective(linear + quicksum(t))
        for part, ones in zip(form.problem.members, form.problem.group_ones.tolist(), strict=True):
            model.addCons(quicksum(x[i] for i in part) == ones)
        for row, value, half in zip(form.A.tolist(), z, t, strict=True):
            model.addCons(quicksum(a * v for a, v in zip(row, x, strict=True)) == value)
            model.addCons(value * value <= 2 * half)
        if request.initial is not None:
            _start_from(model, form, x, z, t)
        model.includeEventhdlr(_Listener(form, x), "incumbents", "tells of better states")
        model.setParam("limits/time", min(max(request.deadline.left, 0.0), MAX_SECONDS))
        info: dict[str, Any] = {}

        def optimise() -> None:
            try:
                model.optimizeNogil()
            except Exception as failure:  # PySCIPOpt raises no other kind
                info["failure"] = str(failure)

        if not run_until(optimise, request.deadline, model.interruptSolve):
            return info, False
        if "failure" in info:
            return info, True
        if model.getNSols():
            form.offer(_state(model, model.getBestSol(), x))
        found = float(model.getDualbound())
        if abs(found) < MAX_SECONDS:
            form.lower = found
        return {"nodes": int(model.getNTotalNodes())}, True


class _Listener(pyscipopt.Eventhdlr):
    """Offers each new best solution to the form."""

    def __init__(self, form: Form, x: list[Any]) -> None:
        self._form, self._x = form, x

    def eventinit(self) -> None:
        """Subscribes."""
        self.model.catchEvent(pyscipopt.SCIP_EVENTTYPE.BESTSOLFOUND, self)

    def eventexit(self) -> None:
        """Leaves."""
        self.model.dropEvent(pyscipopt.SCIP_EVENTTYPE.BESTSOLFOUND, self)

    def eventexec(self, event: Any) -> None:
        """Takes the solution."""
        self._form.offer(_state(self.model, self.model.getBestSol(), self._x))


def _state(model: Any, solution: Any, x: list[Any]) -> Any:
    return np.array([model.getSolVal(solution, v) for v in x])


def _start_from(model: Any, form: Form, x: list[Any], z: list[Any], t: list[Any]) -> None:
    """Hands the best state to SCIP, with z and t that belong to it."""
    solution = model.createSol()
    products = form.A @ form.best
    columns = (*zip(x, form.best, strict=True), *zip(z, products, strict=True),
               *zip(t, 0.5 * products**2, strict=True))  # fmt: skip
    for variable, number in columns:
        model.setSolVal(solution, variable, float(number))
    model.addSol(solution)
