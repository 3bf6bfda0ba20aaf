"""LP files: what HiGHS, SCIP, docplex and Gurobi write means here what it means to them."""

import itertools

import highspy
import numpy as np
import pyscipopt
import pytest

from solvers import CardinalityProblem, export, load
from solvers.errors import FormatError
from tests.solvers.reference import every_state


def ours(path):
    """The file's own objective at its optimum, and the names of what is 1 there."""
    problem = load(path)
    states = every_state(problem.n)
    states = states[states.sum(axis=1) == problem.cardinality]
    energies = problem.energy(states)
    state = states[np.argmin(energies)]
    names = problem.labels or tuple(f"x{i}" for i in range(problem.n))
    ones = {name for name, value in zip(names, state, strict=True) if value}
    ones |= {name for name, value in problem.meta.get("fixed", {}).items() if value == 1}
    sign = -1 if problem.meta.get("sense") == "max" else 1
    return sign * energies.min(), ones


def highs(path):
    """The same from what HiGHS reads, by enumeration."""
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    assert solver.readModel(str(path)) == highspy.HighsStatus.kOk, path.read_text()
    model = solver.getModel()
    lp, n = model.lp_, model.lp_.num_col_
    A, Q = np.zeros((lp.num_row_, n)), np.zeros((n, n))
    for j in range(n):
        for t in range(lp.a_matrix_.start_[j], lp.a_matrix_.start_[j + 1]):
            A[lp.a_matrix_.index_[t], j] = lp.a_matrix_.value_[t]
    for j in range(model.hessian_.dim_):
        for t in range(model.hessian_.start_[j], model.hessian_.start_[j + 1]):
            i, value = model.hessian_.index_[t], model.hessian_.value_[t]
            Q[i, j] = Q[j, i] = value
    sides = zip(lp.col_lower_, lp.col_upper_, strict=True)
    values = [sorted({low, high} if high - low <= 1 else {0, 1}) for low, high in sides]
    states = np.array(list(itertools.product(*values)))
    rows = states @ A.T
    inside = (rows >= np.array(lp.row_lower_) - 1e-9) & (rows <= np.array(lp.row_upper_) + 1e-9)
    states = states[inside.all(axis=1)]
    value = states @ lp.col_cost_ + 0.5 * np.einsum("si,ij,sj->s", states, Q, states) + lp.offset_
    best = np.argmax(value) if lp.sense_ == highspy.ObjSense.kMaximize else np.argmin(value)
    return value[best], {lp.col_names_[j] for j in np.flatnonzero(states[best] == 1)}


def scip(path):
    """The same as SCIP solves it."""
    model = pyscipopt.Model()
    model.hideOutput()
    model.readProblem(str(path))
    variables = model.getVars()
    model.optimize()
    assert model.getStatus() == "optimal"
    ones = {v.name for v in variables if v.name != "quadobjvar" and model.getVal(v) > 0.5}
    return model.getObjVal(), ones


class Random:
    """A random problem with names, fixed variables, both senses and a constant."""

    def __init__(self, seed, *, linear=False):
        rng = np.random.default_rng(seed)
        self.n = n = int(rng.integers(2, 8))
        self.names = [f"{'yz_'[i % 3]}{rng.integers(10**6)}.{i}" for i in range(n)]
        self.Q = np.triu(np.round(rng.normal(size=(n, n)), 3), 1)
        if linear:
            self.Q[:] = 0
        self.c = np.round(rng.normal(size=n), 3)
        self.constant = float(np.round(rng.normal(), 3)) * int(rng.integers(2)) + 0.0
        self.maximise = bool(rng.integers(2))
        self.fixed = {int(i): int(rng.integers(2)) for i in rng.permutation(n)[: rng.integers(2)]}
        ones = sum(self.fixed.values())
        self.k = int(rng.integers(ones, n - len(self.fixed) + ones + 1))
        self.general = set(rng.permutation(n)[: rng.integers(0, 3)].tolist())
        self.order = rng.permutation(n).tolist()

    def terms(self, style="{value} {name}"):
        linear = [style.format(value=abs(self.c[i]), name=self.names[i]) for i in self.order]
        signs = ["-" if self.c[i] < 0 else "+" for i in self.order]
        return " ".join(f"{sign} {term}" for sign, term in zip(signs, linear, strict=True))

    def squares(self):
        found = [
            f"{'-' if self.Q[i, j] < 0 else '+'} {abs(2 * self.Q[i, j])} "
            f"{self.names[i]} * {self.names[j]}"
            for i, j in zip(*np.nonzero(self.Q), strict=True)
        ]
        return f" + [ {' '.join(found)} ] / 2" if found else ""

    def total(self):
        return " + ".join(self.names[i] for i in self.order)

    def simple(self):
        """A text that all programs read, with every fixed variable in the section Bounds."""
        heading = "Maximize" if self.maximise else "Minimize"
        bounds = "".join(f" {self.names[i]} = {value}\n" for i, value in self.fixed.items())
        bounds += "".join(
            f" {self.names[i]} <= 1\n" for i in sorted(self.general - self.fixed.keys())
        )
        binary = [self.names[i] for i in range(self.n) if i not in self.general]
        general = [self.names[i] for i in sorted(self.general)]
        return (
            f"{heading}\n obj: {self.terms()}{self.squares()} {self.constant:+}\nSubject To\n"
            f" card: {self.total()} = {self.k}\nBounds\n{bounds}"
            f"Binary\n {' '.join(binary)}\nGeneral\n {' '.join(general)}\nEnd\n"
        )


def written_by_docplex(case, path):
    model = pytest.importorskip("docplex.mp.model").Model("a model")
    x = [
        model.integer_var(0, 1, name) if i in case.general else model.binary_var(name)
        for i, name in enumerate(case.names)
    ]
    model.add_constraint(model.sum(x[i] for i in case.order) == case.k, "card")
    for i, value in case.fixed.items():
        if value:
            x[i].lb = 1
        else:
            model.add_constraint(x[i] <= 0)
    objective = case.constant + model.sum(case.c[i] * x[i] for i in case.order)
    objective += model.sum(
        case.Q[i, j] * x[i] * x[j] for i, j in zip(*np.nonzero(case.Q), strict=True)
    )
    (model.maximize if case.maximise else model.minimize)(objective)
    path.write_text(model.export_as_lp_string())


def written_by_highs(case, path):
    path.write_text(case.simple())
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    solver.readModel(str(path))
    solver.writeModel(str(path))


def written_by_scip(case, path):
    path.write_text(case.simple())
    model = pyscipopt.Model()
    model.hideOutput()
    model.readProblem(str(path))
    model.writeProblem(str(path), verbose=False)


def in_the_style_of_gurobi(case, path):
    """Its constant is a continuous variable that is fixed at 1."""
    heading = "Maximize" if case.maximise else "Minimize"
    bounds = "".join(f" {case.names[i]} = {value}\n" for i, value in case.fixed.items())
    path.write_text(
        f"\\ Model a model\n\\ LP format - for model browsing.\n{heading}\n"
        f"  {case.terms()} {case.constant:+} Constant{case.squares()}\n"
        f"Subject To\n R0: {case.total()} = {case.k}\n"
        f"Bounds\n{bounds} Constant = 1\nBinaries\n {' '.join(case.names)}\nEnd\n"
    )


def agree(path):
    """Ours, HiGHS and SCIP find the same optimum in a file."""
    value, names = ours(path)
    for other in (highs, scip):
        their, theirs = other(path)
        assert value == pytest.approx(their, abs=1e-6), (other.__name__, path.read_text())
        assert names == theirs, (other.__name__, path.read_text())


@pytest.mark.parametrize(
    "write", [written_by_docplex, written_by_highs, written_by_scip, in_the_style_of_gurobi]
)
def test_agrees_with_other_programs_on_what_they_write(write, tmp_path):
    path = tmp_path / "a.lp"
    for seed in range(12):
        # SCIP writes a quadratic objective as a constraint; see below.
        case = Random(seed, linear=write is written_by_scip)
        write(case, path)
        problem = load(path)
        assert {*problem.labels, *problem.meta.get("fixed", {})} - {"Constant"} == set(case.names)
        agree(path)


def test_ours_is_read_by_other_programs(tmp_path):
    for seed in range(12):
        case = Random(seed)
        names = [*case.names[:-1], "a name : 3 <= [x]"] if seed % 2 else case.names
        problem = CardinalityProblem(
            linear=case.c,
            quadratic=case.Q + case.Q.T,
            cardinality=case.k,
            offset=case.constant,
            labels=names,
        )
        path = export(problem, tmp_path / "a.lp")
        back = load(path)
        assert (back.content_hash, back.labels) == (problem.content_hash, problem.labels)
        value, _ = ours(path)
        assert value == pytest.approx(highs(path)[0], abs=1e-6)
        assert value == pytest.approx(scip(path)[0], abs=1e-6)


def test_variables_keep_their_names_and_stand_as_declared(tmp_path):
    path = tmp_path / "a.lp"
    path.write_text(
        "Minimize\n obj: - 3 x3 - 2 x2 - x1\nSubject To\n c: x1 + x2 + x3 = 1\n"
        "Binary\n x1 x2 x3\nEnd\n"
    )
    problem = load(path)
    assert problem.labels == ("x1", "x2", "x3")
    assert problem.linear.tolist() == [-1, -2, -3]
    path.write_text(path.read_text().replace("x3", "x0"))
    problem = load(path)
    assert problem.labels is None
    assert problem.linear.tolist() == [-3, -1, -2]


def text(objective="- 3 x3 - 2 x2 - x1", rows="c: x1 + x2 + x3 = 2", bounds="", kinds=None):
    kinds = "Binary\n x1 x2 x3" if kinds is None else kinds
    return f"Minimize\n obj: {objective}\nSubject To\n {rows}\nBounds\n {bounds}\n{kinds}\nEnd\n"


# value of the optimum, names of what is 1 there
READ = {
    "x1 = 1": (text(bounds="x1 = 1"), -4, {"x1", "x3"}),
    "x3 <= 0": (text(bounds="x3 <= 0"), -3, {"x1", "x2"}),
    "0 <= x3 <= 0": (text(bounds="0 <= x3 <= 0"), -3, {"x1", "x2"}),
    "1 <= x1": (text(bounds="1 <= x1"), -4, {"x1", "x3"}),
    "bounds that say nothing": (text(bounds="0 <= x1 <= 1\n x2 >= 0"), -5, {"x2", "x3"}),
    "bounds after the kinds": (text(kinds="Binary\n x1 x2 x3\nBounds\n x1 = 1"), -4, {"x1", "x3"}),
    "general, 0..1": (
        text(bounds="x1 <= 1\n x2 <= 1.7\n x3 <= 1", kinds="General\n x1 x2 x3"), -5, {"x2", "x3"},
    ),
    "general, fixed": (
        text(bounds="x1 <= 1\n x2 <= 1\n x3 <= 0", kinds="General\n x1 x2 x3"), -3, {"x1", "x2"},
    ),
    "a row fixes": (text(rows="c: x1 + x2 + x3 = 2\n d: 2 x1 >= 2"), -4, {"x1", "x3"}),
    "factor": (text(rows="c: 2 x1 + 2 x2 + 2 x3 = 4"), -5, {"x2", "x3"}),
    "negative factor": (text(rows="c: - x1 - x2 - x3 = -2"), -5, {"x2", "x3"}),
    "twice": (text(rows="c: x1 + x2 + x3 = 2\n d: x3 + x2 + x1 = 2"), -5, {"x2", "x3"}),
    "both ways": (text(rows="x1 + x2 + x3 <= 2.5\n x1 + x2 + x3 >= 2"), -5, {"x2", "x3"}),
    "strict": (text(rows="x1 + x2 + x3 < 2\n x1 + x2 + x3 >= 2"), -5, {"x2", "x3"}),
    "nothing": (text(rows="c: x1 + x2 + x3 = 2\n d: x1 + x2 >= -inf"), -5, {"x2", "x3"}),
    "constant": (text("- 3 x3 - 2 x2 - x1 + 2.5"), -2.5, {"x2", "x3"}),
    "same term twice": (text("- 3 x3 - 2 x2 - x1 - 2.5 x1"), -6.5, {"x1", "x3"}),
    "squares": (text("[ 4 x1 * x2 - 2 x1^2 + 6 x3^2 ] / 2 + x3"), 1, {"x1", "x2"}),
    "pair twice": (text("[ 2 x1 * x2 + 4 x2 * x1 + 2 x3 * x3 ]/2"), 1, None),
    "comments": (text("- 3 x3 \\ - 2 x2\n - x1"), -4, {"x1", "x3"}),
    "signs": (text("- + 3 x3 - - 2 x2 - 1e0 x1"), -4, {"x1", "x3"}),
    "no blanks": (text("-3x3-2x2-x1", rows="x1+x2+x3=2"), -5, {"x2", "x3"}),
    "e1": (text("- 3 e1 - 2e1 x2", rows="x1 + x2 + e1 = 2", kinds="Binary\n x1 x2 e1"), -23, None),
    "x-1": (text("- 3 x3-1"), -4, None),
    "Windows": (text().replace("\n", "\r\n"), -5, {"x2", "x3"}),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_reads_as_other_programs_do(name, tmp_path):
    path = tmp_path / "a.lp"
    written, value, names = READ[name]
    path.write_bytes(written.encode())
    found, ones = ours(path)
    assert found == pytest.approx(value, abs=1e-12)
    assert found == pytest.approx(highs(path)[0], abs=1e-6)
    assert found == pytest.approx(scip(path)[0], abs=1e-6)
    assert names is None or ones == names


HEADINGS = "{0}imize\n- 3 x3 - 2 x2 - x1\n{1}\nx1 + x2 + x3 = 2\n{2}\nx1 x2 x3\n{3}\n"


@pytest.mark.parametrize(
    ("headings", "value"),
    [
        (("min", "st", "bin", "end"), -5),
        (("Max", "SUBJECT TO", "BINARIES", "END"), -3),
        (("MIN", "s.t.", "Binary", "End"), -5),
        (("max", "such that", "Binaries", "End"), -3),
    ],
)
def test_headings_and_senses(headings, value, tmp_path):
    path = tmp_path / "a.lp"
    path.write_text(HEADINGS.format(*headings))
    assert ours(path)[0] == value


# What several programs read as several problems, or not at all.
REFUSED = {
    "x3 free": (text(bounds="x3 free"), "declares 'x3' binary and bounds it by -inf..inf"),
    "-inf <= x3": (text(bounds="-inf <= x3 <= 1"), "declares 'x3' binary"),
    "x3 <= 5": (text(bounds="x3 <= 5"), "declares 'x3' binary"),
    "0.3 <= x3 <= 0.7": (text(bounds="0.3 <= x3 <= 0.7"), "variable 'x3' has no value in"),
    "x3 <= -1": (text(bounds="x3 <= -1"), "declares 'x3' binary"),
    "bounded twice": (text(bounds="x3 >= 1\n x3 >= 0"), "by 1 and by 0"),
    "general without end": (text(kinds="General\n x1\nBinary\n x2 x3"), "'x1' is whole in 0..inf"),
    "continuous": (text(bounds="x3 <= 1", kinds="Binary\n x1 x2"), "'x3' is continuous in 0..1"),
    "= 1.5": (text(rows="c: x1 + x2 + x3 = 1.5"), r"sum x = 1.5 has no solution"),
    "<= 2": (text(rows="c: x1 + x2 + x3 <= 2"), "allows several numbers of ones"),
    "weights": (text(rows="c: x1 + 2 x2 + x3 = 2"), "'c' is not of the form sum x = k"),
    "two rows": (
        text(rows="c: x1 + x2 + x3 = 2\n d: x1 + x2 = 1"), "'d' is not of the form sum x = k",
    ),
    "contradiction": (text(rows="x1 + x2 + x3 = 2\n x1 + x2 + x3 = 1"), "has no solution"),
    "fixed wrong": (text(rows="x1 + x2 = 1", bounds="x1 = 1\n x2 = 1"), "does not hold for"),
    "0 x3 >= 1": (text(rows="c: x1 + x2 + x3 = 2\n d: 0 x3 >= 1"), "does not hold for"),
    "quadratic row": (text(rows="c: x1 + x2 + x3 = 2\n d: [ x1 * x2 ] / 2 <= 1"), "is quadratic"),
    "lhs constant": (text(rows="c: x1 + x2 + x3 - 2 = 0"), "a constant beside variables"),
    "x on the right": (text(rows="c: x1 + x2 = 2 - x3"), "goes on after its right side"),
    "no half": (text("[ x1 * x2 ]"), "without '/ 2'"),
    "cube": (text("[ x1 ^ 3 ] / 2"), "line 2"),
    "two numbers": (text("- 3 2 x3"), "line 2, '2 x3'"),
    "division": (text("- 3 x3 / 2"), "line 2, '/ 2'"),
    "indicator": (text(rows="c: x1 + x2 + x3 = 2\n i: x1 = 1 -> x2 = 0"), "line 5"),
    "SOS": (text(kinds="Binary\n x1 x2 x3\nSOS\n s: S1:: x1:1 x2:2"), "section 'SOS'"),
    "semi": (text(kinds="Binary\n x1 x2\nSemi-continuous\n x3"), "section 'Semi-continuous'"),
    "lazy": (text(rows="c: x1 + x2 + x3 = 2\nLazy Constraints\n l: x3 = 0"), "section 'Lazy"),
    "cut off": (text()[:-4], "no 'End'"),
    "more after End": (text() + "Binary\n x4\n", "follows 'End'"),
    "two objectives": ("Minimize\n x1\n" + text(), "2 objectives"),
    "no objective": ("Binary\n x1\nEnd\n", "0 objectives"),
    "1e999": (text("- 1e999 x1"), "1e999 is beyond double precision"),
    "1,5": (text("- 1,5 x1"), "line 2"),
    "1d5": (text("- 1d5 x1"), "line 2, 'x1'"),
    "half a label": (text() + '\\ label x1 "a"\n', "labels for 1 of 3"),
    "unused": (text(kinds="Binary\n x1 x2 x3 y"), "form sum x = k with variable 'y'"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_unclear_is_refused(name, tmp_path):
    path = tmp_path / "a.lp"
    written, words = REFUSED[name]
    path.write_text(written)
    with pytest.raises(FormatError, match=words):
        load(path)


def test_quadratic_objectives_of_scip_are_refused(tmp_path):
    written_by_scip(Random(1), tmp_path / "a.lp")
    with pytest.raises(FormatError, match="constraint 'quadobj' is quadratic"):
        load(tmp_path / "a.lp")


def test_cardinality_of_a_file_with_fixed_variables(tmp_path):
    path = tmp_path / "a.lp"
    path.write_text(text(bounds="x1 = 1"))
    problem = load(path, cardinality=2)
    assert (problem.n, problem.cardinality, problem.meta["fixed"]) == (2, 1, {"x1": 1})
    assert problem.energy([0, 1]) == -4
    path.write_text(text(rows="d: x1 >= 1"))
    assert load(path, cardinality=2).cardinality == 1
    with pytest.raises(FormatError, match=r"cardinality is 0, expected a whole number in 1..3"):
        load(path, cardinality=0)


@pytest.mark.parametrize("blank", [" ", "\t", "\n", "- ", "[", "(", "x "])
def test_long_runs_do_not_take_for_ever(blank, tmp_path):
    path = tmp_path / "a.lp"
    path.write_text(f"Minimize\n obj: {blank * 200_000}]\nEnd\n")
    with pytest.raises(FormatError):
        load(path)
