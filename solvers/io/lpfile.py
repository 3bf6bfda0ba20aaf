r"""LP files: a quadratic objective over binary variables, and the one constraint sum x = k.

What HiGHS, SCIP, CPLEX (docplex) and Gurobi write is read as they read it; where two of them read
a file differently it is refused. A variable that the section ``Bounds``, or a constraint of it
alone, fixes is put in: the problem is over the free ones, its energies are those of the whole.
Variables stand in the order in which they are declared, except ``x0, x1, ...``, which stand by
number and need no names.

Names that the format does not allow stand in comments, ``\ label x0 "a name"``.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from solvers.arithmetic.rounding import penalised
from solvers.errors import FormatError
from solvers.io.lpscan import Scanner, Sum, reserved
from solvers.io.textfile import Objective, check_size, count_between, read_text
from solvers.problem import CardinalityProblem, Floats

_COMMENT = re.compile(r'\\[ \t]*+label[ \t]++(\S++)[ \t]++(".*")[ \t]*$', re.MULTILINE)
# What all readers take for a name, CPLEX's rule against e1 (as in 3e1) included.
_PLAIN = re.compile(r"(?![eE][0-9])[A-Za-z_][A-Za-z0-9_.#$(){}@~]{0,200}")
_TERMS_A_LINE = 6


@dataclass
class _Model:
    """What the sections say; variables by number, in order of appearance."""

    name: str
    numbers: dict[str, int]
    maximised: bool = False
    objective: Sum = field(default_factory=Sum)
    constraints: list[Sum] = field(default_factory=list)
    bounds: list[Sum] = field(default_factory=list)
    kinds: dict[int, str] = field(default_factory=dict)

    def is_bound(self, constraint: Sum) -> bool:
        """Whether a constraint is of one variable out of several."""
        if len(self.numbers) == 1 or len(constraint.linear) != 1:
            return False
        return 0 not in constraint.linear.values()


def read_lp(path: Path) -> Objective:
    """The objective of an LP file, and k if it has the constraint sum x = k, or one a group.

    Raises:
        FormatError: damaged or cut off, variables that are not binary, another constraint, another
            section, bounds that programs read differently.
    """
    text = read_text(path)
    if "\0" in text:
        raise FormatError(f"{path.name} is not an LP file: character {text.index(chr(0))} is NUL")
    model = _model(path.name, text)
    if not model.numbers:
        raise FormatError(f"{path.name} is not an LP file: it has no variables")
    names = list(model.numbers)
    fixed = _fixed(model, names)
    free = [v for v in model.kinds if v not in fixed]
    check_size(path.name, len(free))
    labels = _labels(path.name, text, [names[v] for v in free])
    if labels is None:
        if sorted(names[v] for v in free) == sorted(f"x{i}" for i in range(len(names))):
            free.sort(key=lambda v: int(names[v][1:]))
        else:
            labels = tuple(names[v] for v in free)
    Q, offset = _matrix(model.objective, free, fixed)
    groups = _counts(model, free, fixed)
    forced = sum(value == 1 for v, value in fixed.items() if v in model.kinds)
    sign = -1.0 if model.maximised else 1.0
    return Objective(
        Q=sign * Q + 0.0,
        offset=sign * offset + 0.0,
        ones=sum(count for _, count in groups) + forced if groups else None,
        groups=groups if len(groups) > 1 else (),
        labels=labels,
        maximised=model.maximised,
        fixed={names[v]: value for v, value in fixed.items()},
        forced=forced,
    )


def _model(name: str, text: str) -> _Model:
    scan = Scanner(name, text)
    model = _Model(name, scan.numbers)
    objectives = 0
    for section in scan.sections():
        if section in ("minimize", "maximize"):
            objectives += 1
            model.maximised = section == "maximize"
            scan.label()
            model.objective = scan.sum()
        elif section in ("binary", "general"):
            while not scan.done:
                v = scan.name()
                model.kinds[v] = "binary" if "binary" in (section, model.kinds.get(v)) else section
        elif section == "other":
            if not scan.done:
                raise FormatError(
                    f"{name} has a section {scan.section!r}, which is not supported: remove it"
                )
        else:
            into = model.bounds if section == "bounds" else model.constraints
            while not scan.done:
                into.append(scan.relation(free=section == "bounds"))
                if into[-1].values:
                    raise FormatError(
                        f"{name}: constraint {into[-1].label!r} is quadratic, expected sum x = k"
                    )
    if objectives != 1:
        raise FormatError(f"{name} is not an LP file: it has {objectives} objectives, expected one")
    return model


def _fixed(model: _Model, names: list[str]) -> dict[int, float]:
    """Variables that have one value only.

    Raises:
        FormatError: one that has neither one value nor the values 0 and 1.
    """
    bounds = _bounds(model, names)
    for constraint in filter(model.is_bound, model.constraints):
        ((v, weight),) = constraint.linear.items()
        low, high = sorted((constraint.low / weight, constraint.high / weight))
        bounds[v] = max(bounds[v][0], low), min(bounds[v][1], high)
    fixed = {}
    for v, (low, high) in enumerate(bounds):
        whole = v in model.kinds
        least = math.ceil(low) if whole and math.isfinite(low) else low
        most = math.floor(high) if whole and math.isfinite(high) else high
        if least > most:
            raise FormatError(
                f"{model.name}: variable {names[v]!r} has no value in {low:g}..{high:g}"
            )
        if least == most and math.isfinite(least):
            fixed[v] = float(least)
        elif not whole or (least, most) != (0, 1):
            kind = "whole" if whole else "continuous"
            raise FormatError(
                f"{model.name} has variables that are not binary: {names[v]!r} is {kind} in "
                f"{low:g}..{high:g}"
            )
    return fixed


def _bounds(model: _Model, names: list[str]) -> list[tuple[float, float]]:
    """``(low, high)`` of every variable, by its kind and the section of bounds."""
    given: dict[tuple[int, str], float] = {}
    for bound in model.bounds:
        if list(bound.linear.values()) != [1.0]:
            raise FormatError(f"{model.name}: a bound has another form than 'low <= x <= high'")
        (v,) = bound.linear
        for side in bound.given:
            value = bound.low if side == "low" else bound.high
            if given.setdefault((v, side), value) != value:
                raise FormatError(
                    f"{model.name} bounds {names[v]!r} by {given[v, side]:g} and by {value:g}: "
                    "programs disagree on which of them counts, keep one"
                )
    found = []
    for v, name in enumerate(names):
        binary = model.kinds.get(v) == "binary"
        low, high = given.get((v, "low"), 0.0), given.get((v, "high"), 1.0 if binary else math.inf)
        if binary and not 0 <= low <= high <= 1:
            raise FormatError(
                f"{model.name} declares {name!r} binary and bounds it by {low:g}..{high:g}: "
                "programs disagree on what that means, bound it by 0 and 1"
            )
        found.append((low, high))
    return found


def _labels(file: str, text: str, names: list[str]) -> tuple[str, ...] | None:
    """What comments call the variables, if they do."""
    labels = {name: json.loads(label) for name, label in _COMMENT.findall(text)}
    if not labels:
        return None
    if set(labels) != set(names):
        raise FormatError(
            f"{file} has labels for {len(labels)} of {len(names)} variables: label all or none"
        )
    return tuple(labels[name] for name in names)


def _matrix(objective: Sum, free: list[int], fixed: dict[int, float]) -> tuple[Floats, float]:
    """Upper triangle over the free variables and the constant, with the fixed ones put in."""
    n, total = len(free), len(free) + len(fixed)
    # Place of a variable, or n for a fixed one, and its value; a free one has the value 1.
    place, value = np.full(total, n), np.ones(total)
    place[free] = np.arange(n)
    value[list(fixed)] = list(fixed.values())
    Q = np.zeros((n + 1, n + 1))
    rows, columns = np.array(objective.rows, dtype=np.intp), np.array(objective.columns, np.intp)
    weights = np.array(objective.values) * value[rows] * value[columns]
    i, j = place[rows], place[columns]
    np.add.at(Q, (np.minimum(i, j), np.maximum(i, j)), weights)
    # A product with a fixed variable is linear, or constant.
    Q[np.arange(n), np.arange(n)] += Q[:n, n]
    constant = objective.constant + Q[n, n]
    for v, coefficient in objective.linear.items():
        if v in fixed:
            constant += coefficient * fixed[v]
        else:
            Q[place[v], place[v]] += coefficient
    return Q[:n, :n], float(constant)


def _counts(model: _Model, free: list[int], fixed: dict[int, float]) -> list[tuple[list[int], int]]:
    """Groups of the free variables, by place, and how many of each are 1; none without constraint.

    Raises:
        FormatError: a constraint that is not a count, groups that overlap or leave a variable out.
    """
    found: dict[tuple[int, ...], tuple[float, float]] = {}
    for number, constraint in enumerate(model.constraints, 1):
        label = constraint.label or f"number {number}"
        if model.is_bound(constraint) or (constraint.low, constraint.high) == (-math.inf, math.inf):
            continue
        rest = sum(weight * fixed[v] for v, weight in constraint.linear.items() if v in fixed)
        weights = {v: w for v in free if (w := constraint.linear.get(v, 0.0))}
        if not weights:
            if not constraint.low <= rest <= constraint.high:
                raise FormatError(
                    f"{model.name}: constraint {label!r} does not hold for the fixed variables"
                )
            continue
        weight = next(iter(weights.values()))
        if any(w != weight for w in weights.values()):
            raise FormatError(f"{model.name}: constraint {label!r} is not of the form sum x = k")
        ends = sorted(((constraint.low - rest) / weight, (constraint.high - rest) / weight))
        group = tuple(v for v in free if v in weights)
        low, high = found.get(group, (-math.inf, math.inf))
        found[group] = max(low, ends[0]), min(high, ends[1])
        _check_group(model.name, label, group, found)
    counted = {v for group in found for v in group}
    if found and len(counted) < len(free):
        missing = next(name for name, v in model.numbers.items() if v in set(free) - counted)
        raise FormatError(
            f"{model.name}: no constraint is of the form sum x = k with variable {missing!r} in "
            "it; count all variables at once, or each in one of several groups"
        )
    place = {v: i for i, v in enumerate(free)}
    return [
        ([place[v] for v in group], count_between(model.name, *ends))
        for group, ends in found.items()
    ]


def _check_group(
    name: str,
    label: str,
    group: tuple[int, ...],
    known: dict[tuple[int, ...], tuple[float, float]],
) -> None:
    for other in known:
        if other != group and set(other) & set(group):
            raise FormatError(
                f"{name}: constraint {label!r} is not of the form sum x = k: it counts some of the "
                "variables that another one counts; groups must be disjoint"
            )


def lp_text(problem: CardinalityProblem) -> str:
    """The problem as an LP file, all 17 digits.

    Raises:
        ProblemError: coefficients that overflow.
    """
    Q, linear, offset = penalised(problem, 0.0)
    names, lines = _names(problem)
    terms = [
        f"{value!r} {name}" for name, value in zip(names, linear.tolist(), strict=True) if value
    ]
    lines += ["Minimize", " obj:", *_wrapped(terms or [f"0 {name}" for name in names[:1]])]
    squares = []
    for i, row in enumerate(np.triu(Q, 1)):
        # Twice, since the bracket is halved.
        others = np.flatnonzero(row)
        pairs = zip(others.tolist(), (2 * row[others]).tolist(), strict=True)
        squares += [f"{value!r} {names[i]} * {names[j]}" for j, value in pairs]
    if squares:
        lines += [" + [", *_wrapped(squares), " ] / 2"]
    if offset:
        lines.append(f" {offset:+.17g}")
    if problem.n:
        lines.append("Subject To")
        for g, ones in enumerate(problem.group_ones.tolist()):
            label = "cardinality" if problem.groups is None else f"cardinality_{g}"
            counted = _wrapped([f"1 {names[i]}" for i in problem.members[g]])
            lines += [f" {label}:", *counted, f" = {ones}"]
    return "\n".join([*lines, "Binary", *(f" {name}" for name in names), "End", ""])


def _names(problem: CardinalityProblem) -> tuple[list[str], list[str]]:
    """Names that LP files allow, and comments with those that they do not."""
    places = [f"x{i}" for i in range(problem.n)]
    labels = problem.labels
    if labels is None:
        return places, []
    plain = all(_PLAIN.fullmatch(label) and not reserved(label) for label in labels)
    if plain and set(labels) != set(places):
        return list(labels), []
    return places, [
        f"\\ label {name} {json.dumps(label)}" for name, label in zip(places, labels, strict=True)
    ]


def _wrapped(terms: list[str]) -> list[str]:
    """Terms with signs, a few a line, since some readers stop at long lines."""
    signed = [term if term.startswith("-") else f"+ {term}" for term in terms]
    return [
        f" {' '.join(signed[at : at + _TERMS_A_LINE])}"
        for at in range(0, len(signed), _TERMS_A_LINE)
    ]
