"""HiGHS by outer approximation, see `solvers.exact.mip`."""

from __future__ import annotations

from typing import Any

import highspy
import numpy as np

from solvers.base import Request
from solvers.clock.background import run_until
from solvers.clock.deadline import Deadline
from solvers.exact.mip import Form, MixedInteger
from solvers.penalised.penalty import MAX_SEED
from solvers.problem import Floats

FEASIBILITY = 1e-9


class MILP(MixedInteger):
    """Outer approximation with HiGHS; ``info["rounds"]`` is the number of programs solved."""

    name = "milp"
    seconds_per_entry = 2e-7

    def _optimised(self, form: Form, request: Request) -> tuple[dict[str, Any], bool]:
        program = _program(form, int(request.rng.integers(MAX_SEED)))
        program.cbMipImprovingSolution.subscribe(
            lambda event: form.offer(np.asarray(event.data_out.mip_solution))
        )
        _add_tangents(program, form, np.zeros(len(form.A)))
        assert form.root.dual is not None
        _add_tangents(program, form, form.root.dual / np.sqrt(form.unit))
        _add_tangents(program, form, form.A @ form.root.state)
        info = {"rounds": 0}
        ended = run_until(
            lambda: _rounds(program, form, request.deadline, info),
            request.deadline,
            program.cancelSolve,
        )
        return info, ended


def _rounds(program: Any, form: Form, deadline: Deadline, info: dict[str, Any]) -> None:
    """Solves one program after the other; `info` counts them."""
    seen = {form.root.state.tobytes()}
    while not form.closed and not deadline.over:
        if deadline.limited:
            program.setOptionValue("time_limit", program.getRunTime() + deadline.left)
        _start_from(program, form)
        program.solve()
        info["rounds"] += 1
        found = program.getInfo().mip_dual_bound
        if np.isfinite(found):
            form.lower = max(form.lower, float(found))
        values = np.asarray(program.getSolution().col_value)
        if len(values) != form.n + 2 * len(form.A):
            break
        form.offer(values)
        state = values[: form.n] > 0.5
        if state.tobytes() in seen:
            break  # its tangents are there: nothing is left but rounding
        seen.add(state.tobytes())
        _add_tangents(program, form, form.A @ state)


class _Quiet(highspy.Highs):
    """HiGHS without the banner that making it prints before any option can be set."""

    def enableCallbacks(self) -> None:  # noqa: N802, the library's name
        """The first thing that prints."""
        self.setOptionValue("output_flag", False)
        super().enableCallbacks()


def _program(form: Form, seed: int) -> Any:
    """Columns x, z, t; rows sum x = k, one a group, and z = A x."""
    program = _Quiet()
    # Lets `cancelSolve` reach a program that is being solved.
    program.HandleUserInterrupt = True
    settings = {
        "output_flag": False, "threads": 1, "random_seed": seed, "mip_rel_gap": 0.0,
        "mip_abs_gap": 0.2 * form.tolerance / form.unit, "mip_feasibility_tolerance": FEASIBILITY,
        "primal_feasibility_tolerance": FEASIBILITY, "dual_feasibility_tolerance": FEASIBILITY,
    }  # fmt: skip
    for key, value in settings.items():
        program.setOptionValue(key, value)
    n, r = form.n, len(form.A)
    nothing = (0, np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0))
    inf = np.full(r, highspy.kHighsInf)
    program.addCols(n, form.c, np.zeros(n), np.ones(n), *nothing)
    program.addCols(r, np.zeros(r), -inf, inf, *nothing)
    program.addCols(r, np.ones(r), np.zeros(r), inf, *nothing)
    integer = np.full(n, highspy.HighsVarType.kInteger)
    program.changeColsIntegrality(n, np.arange(n, dtype=np.int32), integer)
    for part, ones in zip(form.problem.members, form.problem.group_ones.tolist(), strict=True):
        columns = part.astype(np.int32)
        program.addRow(float(ones), float(ones), len(part), columns, np.ones(len(part)))
    for i, row in enumerate(form.A):
        places = np.flatnonzero(row).astype(np.int32)
        columns = np.append(places, np.int32(n + i))
        program.addRow(0.0, 0.0, len(columns), columns, np.append(row[places], -1.0))
    return program


def _add_tangents(program: Any, form: Form, point: Floats) -> None:
    """``t_i - a_i z_i >= -a_i^2 / 2`` for every row, a the point, shape (r,)."""
    n, r = form.n, len(point)
    for i, a in enumerate(point):
        columns = np.array([n + i, n + r + i], dtype=np.int32)
        values = np.array([-a, 1.0])
        program.addRow(-0.5 * float(a) ** 2, highspy.kHighsInf, 2, columns, values)


def _start_from(program: Any, form: Form) -> None:
    """Hands the best state to HiGHS, with z and t that belong to it."""
    z = form.A @ form.best
    solution = highspy.HighsSolution()
    solution.col_value = [*form.best.astype(float), *z, *(0.5 * z**2)]
    program.setSolution(solution)
