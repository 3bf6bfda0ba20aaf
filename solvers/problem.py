"""The problem every solver takes: a low-rank quadratic over masks of fixed weight.

    E(x) = 1/2 ||A x||^2 + c.x + offset,   x in {0,1}^n,  sum(x) = k

``A`` (`factor`, r x n) is the block's Fisher factor scaled by its weights, ``c`` (`linear`) the
first-order part; see `icbs.blocks.build` for how both follow from a layer. A problem that has no
factor carries the symmetric matrix ``G`` (`quadratic`, n x n) instead, with ``1/2 x'Gx`` in place
of ``1/2 ||A x||^2``; ``G`` need not be positive semidefinite.

Variables may be in disjoint groups, each with its own number of ones: the rows of a layer, or the
groups of an N:M pattern. Without groups all variables are one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import dimod
import numpy as np
from numpy.typing import ArrayLike, NDArray

from solvers.arguments import finite, numbers, positive, whole
from solvers.arithmetic.rounding import penalised
from solvers.arrays import distinct_names, finite_numbers, frozen, whole_numbers
from solvers.errors import ProblemError
from solvers.groups import Integers, checked_groups, least_of_each
from solvers.jsonvalues import frozen_json
from solvers.memory import check_room

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
# What the content hash covers beside the numbers, where there is such an array.
_HASHED = ("factor", "quadratic", "linear", "initial", "indices", "groups", "cardinalities")
# Entries of states that are turned into float64 at a time.
_AT_ONCE = 2**24


@dataclass(frozen=True, eq=False, repr=False)
class CardinalityProblem:
    """A quadratic over binary vectors with exactly `cardinality` ones, in all or group by group.

    Nothing in it can be changed, also after a copy or a pickle. Arrays are copied, unless they are
    read-only down to the array that owns the numbers: see `solvers.arrays.frozen`.

    Attributes:
        linear: ``c``, shape (n,).
        cardinality: ``k``, the number of ones of a feasible x; 0 <= k <= n.
        factor: ``A``, shape (r, n); exactly one of `factor` and `quadratic` is given.
        quadratic: ``G``, shape (n, n), symmetric.
        offset: constant added to every energy.
        scale: positive; an energy times `scale` is in units of the model's loss.
        initial: the current mask of the model that the problem was cut from, shape (n,) of bool
            with k ones. Solvers never read it: they get a start only as an argument.
        indices: position of each variable in the flattened weight of its layer, shape (n,).
        meta: where the problem comes from; JSON values only, numpy's scalars and arrays become
            such.
        labels: what the variables are called, n different texts; None: by their places. They tell
            a reader which variable is which and are no part of the content hash.
        groups: label 0..m-1 of each variable's group, shape (n,); None where all variables are one
            group, also if labels were given that say so.
        cardinalities: ones of each group, shape (m,), adding up to `cardinality`; with `groups`
            only.

    Raises:
        ProblemError: arrays of the wrong shape or type, NaN or infinite, k outside 0..n, an initial
            state that is not feasible, a scale that is not positive, a `meta` that is no JSON,
            labels that repeat, groups that have gaps or cannot have so many ones.
    """

    linear: Floats
    cardinality: int
    factor: Floats | None = None
    quadratic: Floats | None = None
    offset: float = 0.0
    scale: float = 1.0
    initial: Bools | None = None
    indices: NDArray[np.int64] | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] | None = None
    groups: Integers | None = None
    cardinalities: Integers | None = None

    def __post_init__(self) -> None:
        linear = finite_numbers("linear", self.linear, ndim=1)
        n = len(linear)
        put = object.__setattr__
        put(self, "linear", linear)
        if (self.factor is None) == (self.quadratic is None):
            raise ProblemError("give exactly one of factor and quadratic")
        if self.factor is not None:
            factor = finite_numbers("factor", self.factor, ndim=2)
            if factor.shape[1] != n:
                raise ProblemError(
                    f"factor has {factor.shape[1]} columns and linear {n} entries: give one column "
                    "for every variable"
                )
            put(self, "factor", factor)
        if self.quadratic is not None:
            quadratic = finite_numbers("quadratic", self.quadratic, ndim=2)
            if quadratic.shape != (n, n):
                raise ProblemError(f"quadratic has shape {quadratic.shape}, expected ({n}, {n})")
            if not np.array_equal(quadratic, quadratic.T):
                raise ProblemError("quadratic is not symmetric; pass (Q + Q.T) / 2")
            put(self, "quadratic", quadratic)
        put(self, "cardinality", whole("cardinality", self.cardinality, 0, n, ProblemError))
        self._check_groups()
        put(self, "offset", finite("offset", self.offset, ProblemError))
        put(self, "scale", positive("scale", self.scale, ProblemError, "a positive number"))
        if self.initial is not None:
            put(self, "initial", frozen(self.checked_state(self.initial)))
        if self.indices is not None:
            indices = whole_numbers("indices", self.indices, np.int64)
            if indices.shape != (n,):
                raise ProblemError(f"indices has shape {indices.shape}, expected ({n},)")
            put(self, "indices", indices)
        if not isinstance(self.meta, Mapping):
            raise ProblemError(f"meta is a {type(self.meta).__name__}, expected a dict")
        put(self, "meta", frozen_json("meta", self.meta))
        if self.labels is not None:
            put(self, "labels", distinct_names(self.labels, n))

    def _check_groups(self) -> None:
        groups, ones = self.groups, self.cardinalities
        if (groups is None) != (ones is None):
            missing = "groups" if groups is None else "cardinalities"
            raise ProblemError(
                f"{missing} is None: give both groups and cardinalities, or neither of them"
            )
        if groups is not None and ones is not None:
            groups, ones = checked_groups(groups, ones, self.cardinality, self.n)
            if len(ones) <= 1:
                groups, ones = None, None
        object.__setattr__(self, "groups", groups)
        object.__setattr__(self, "cardinalities", ones)

    def __repr__(self) -> str:
        form = "dense" if self.factor is None else f"rank={self.rank}"
        groups = "" if self.groups is None else f", {self.num_groups} groups"
        return f"<CardinalityProblem n={self.n}, k={self.cardinality}, {form}{groups}>"

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Takes what a pickle or a copy holds; its arrays are as read-only as before."""
        for value in state.values():
            if isinstance(value, np.ndarray):
                frozen(value)
        self.__dict__.update(state)

    @property
    def n(self) -> int:
        """Number of variables."""
        return len(self.linear)

    @property
    def rank(self) -> int:
        """Rows of the factor; n for a dense problem."""
        return self.n if self.factor is None else len(self.factor)

    @property
    def num_groups(self) -> int:
        """How many groups there are: 1 without `groups`."""
        return 1 if self.cardinalities is None else len(self.cardinalities)

    @cached_property
    def group_labels(self) -> Integers:
        """`groups`, or zeros: label of each variable's group, shape (n,)."""
        return frozen(np.zeros(self.n, np.int64)) if self.groups is None else self.groups

    @cached_property
    def group_ones(self) -> Integers:
        """`cardinalities`, or the one cardinality: ones of each group, shape (num_groups,)."""
        if self.cardinalities is None:
            return frozen(np.array([self.cardinality], np.int64))
        return self.cardinalities

    @cached_property
    def members(self) -> tuple[NDArray[np.intp], ...]:
        """The variables of each group, ascending; `num_groups` arrays."""
        order = np.argsort(self.group_labels, kind="stable")
        sizes = np.bincount(self.group_labels, minlength=self.num_groups)
        return tuple(frozen(part) for part in np.split(order, np.cumsum(sizes)[:-1]))

    @property
    def only_state(self) -> Bools | None:
        """The feasible state if there is only one: every group has no ones or nothing else."""
        full = np.bincount(self.group_labels, minlength=self.num_groups) == self.group_ones
        if not (full | (self.group_ones == 0)).all():
            return None
        return np.asarray(full[self.group_labels])

    def ones_of(self, x: ArrayLike) -> NDArray[Any]:
        """Sum of x over each group: (num_groups,) for x of shape (n,), (m, num_groups) for (m, n).

        Args:
            x: zeros and ones, feasible or not.
        """
        x = np.asarray(x)
        wide = x.astype(np.int64, copy=False) if x.dtype.kind in "biu" else x
        if self.groups is None:
            return np.asarray(wide.sum(axis=-1))[..., None]
        return np.stack([wide[..., part].sum(axis=-1) for part in self.members], axis=-1)

    def random_state(self, rng: np.random.Generator) -> Bools:
        """A uniformly drawn feasible state, shape (n,)."""
        state = np.zeros(self.n, dtype=np.bool_)
        if self.groups is None:
            state[rng.permutation(self.n)[: self.cardinality]] = True
            return state
        state[least_of_each(rng.random(self.n), self.groups, self.group_ones)] = True
        return state

    @cached_property
    def diagonal(self) -> Floats:
        """Diagonal of ``G = A'A``, shape (n,)."""
        if self.quadratic is not None:
            return frozen(self.quadratic.diagonal().copy())
        assert self.factor is not None
        return frozen(np.einsum("ri,ri->i", self.factor, self.factor))

    def gram(self) -> Floats:
        """``G = A'A`` as a new dense matrix, shape (n, n).

        Raises:
            BinaryQuadraticModelSizeError: it does not fit into the memory that is available.
        """
        check_room(
            8 * self.n**2, f"the dense matrix of {self.n:,} variables", "take a smaller block"
        )
        if self.quadratic is not None:
            return self.quadratic.copy()
        assert self.factor is not None
        return self.factor.T @ self.factor

    def checked_state(self, x: ArrayLike) -> Bools:
        """``x`` as a bool array.

        Raises:
            ProblemError: not shape (n,), not 0/1, or not exactly k ones, group by group.
        """
        x = numbers("state", x, ndim=1)
        if x.shape != (self.n,):
            raise ProblemError(f"state has shape {x.shape}, expected ({self.n},)")
        state = x.astype(np.bool_)
        if not np.array_equal(state, x):
            raise ProblemError("state has entries other than 0 and 1")
        if state.sum() != self.cardinality:
            raise ProblemError(f"state has {state.sum()} ones, expected {self.cardinality}")
        found = self.ones_of(state)
        for g in np.flatnonzero(found != self.group_ones):
            raise ProblemError(
                f"state has {found[g]} ones in group {g}, expected {self.group_ones[g]}"
            )
        return state

    def is_feasible(self, x: ArrayLike) -> Bools:
        """Whether each state is binary with k ones, group by group.

        Args:
            x: shape (n,) or (m, n); the answer has shape () or (m,).
        """
        x = np.asarray(x)
        binary = np.all((x == 0) | (x == 1), axis=-1)
        return np.asarray(binary & (self.ones_of(x) == self.group_ones).all(axis=-1))

    def energy(self, x: ArrayLike) -> Floats:
        """E(x) in float64, feasible or not: () for x of shape (n,), (m,) for (m, n)."""
        x = np.asarray(x)
        if x.shape[-1:] != (self.n,) or x.ndim > 2:
            raise ProblemError(
                f"states have shape {x.shape}, expected ({self.n},) or (m, {self.n})"
            )
        if x.size > _AT_ONCE and x.ndim == 2:
            parts = np.array_split(x, -(-x.size // _AT_ONCE))
            return np.concatenate([self.energy(part) for part in parts])
        x = x.astype(np.float64, copy=False)
        return np.asarray(self._quadratic_part(x) + x @ self.linear + self.offset)

    def _quadratic_part(self, x: Floats) -> Floats:
        if self.factor is not None:
            s = x @ self.factor.T
            return 0.5 * np.einsum("...r,...r->...", s, s)
        assert self.quadratic is not None
        return 0.5 * np.einsum("...i,...i->...", x @ self.quadratic, x)

    def fields(self, x: ArrayLike) -> Floats:
        """Gradient of E, ``A'(Ax) + c``, shape of x."""
        x = np.asarray(x, dtype=np.float64)
        if self.factor is not None:
            return x @ self.factor.T @ self.factor + self.linear
        assert self.quadratic is not None
        return x @ self.quadratic + self.linear

    def swap_deltas(self, x: ArrayLike) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
        """Energy change of every swap; those between two groups, which are not feasible, are inf.

        Returns:
            ``(ones, zeros, deltas)``: ``deltas[a, b]`` is the change when ``ones[a]`` becomes 0 and
            ``zeros[b]`` becomes 1, shape (k, n - k).
        """
        state = self.checked_state(x)
        ones, zeros = np.flatnonzero(state), np.flatnonzero(~state)
        f, d = self.fields(state), self.diagonal
        if self.factor is not None:
            cross = self.factor[:, ones].T @ self.factor[:, zeros]
        else:
            assert self.quadratic is not None
            cross = self.quadratic[np.ix_(ones, zeros)]
        gain_in = f[zeros] + 0.5 * d[zeros]
        gain_out = -f[ones] + 0.5 * d[ones]
        deltas = gain_out[:, None] + gain_in[None, :] - cross
        if self.groups is not None:
            deltas[self.groups[ones][:, None] != self.groups[zeros]] = np.inf
        return ones, zeros, deltas

    def to_bqm(self, penalty: float | None = None) -> dimod.BinaryQuadraticModel:
        """The problem as a dense BINARY model over variables 0..n-1.

        Args:
            penalty: weight P of ``P (sum x - k)^2``, one such term a group; None leaves the
                constraint out.

        Returns:
            A float64 model whose energy is ``E(x) + P (sum x - k)^2`` for every x in {0,1}^n.

        Raises:
            ProblemError: a penalty that is not finite, or so large that the objective is lost in
                its rounding (see `solvers.arithmetic.rounding`).
        """
        return self._objective(dimod.BinaryQuadraticModel, 0.0 if penalty is None else penalty)

    def to_cqm(self) -> dimod.ConstrainedQuadraticModel:
        """The problem with ``sum x = k`` as a constraint labelled ``cardinality``.

        With groups there is one constraint a group, ``cardinality_0``, ``cardinality_1``, ...
        """
        cqm = dimod.ConstrainedQuadraticModel()
        cqm.set_objective(self._objective(dimod.BinaryQuadraticModel, 0.0))
        for g, (part, ones) in enumerate(zip(self.members, self.group_ones, strict=True)):
            if len(part):
                label = "cardinality" if self.groups is None else f"cardinality_{g}"
                cqm.add_constraint_from_iterable(
                    [(int(i), 1) for i in part], "==", int(ones), label=label
                )
        return cqm

    def _objective(self, model: type, penalty: float) -> dimod.BinaryQuadraticModel:
        penalty = finite("penalty", penalty, ProblemError)
        couplings, linear, offset = penalised(self, penalty)
        bqm = model("BINARY")
        bqm.add_linear_from_array(linear)
        # dimod adds both (i, j) and (j, i).
        couplings *= 0.5
        bqm.add_quadratic_from_dense(couplings)
        bqm.offset = offset
        return bqm

    def permuted(self, rng: np.random.Generator) -> CardinalityProblem:
        """The same problem with its variables in random order, so that order leaks nothing."""
        return self._take(rng.permutation(self.n))

    def _take(self, order: NDArray[np.intp], **changes: Any) -> CardinalityProblem:
        return replace(
            self,
            factor=_taken(self.factor, order, 1),
            quadratic=None
            if self.quadratic is None
            else frozen(self.quadratic[np.ix_(order, order)]),
            initial=_taken(self.initial, order, 0),
            indices=_taken(self.indices, order, 0),
            labels=None if self.labels is None else tuple(self.labels[i] for i in order),
            **{
                "linear": _taken(self.linear, order, 0),
                "groups": _taken(self.groups, order, 0),
                **changes,
            },
        )

    def restricted(self, indices: ArrayLike, at: ArrayLike | None = None) -> CardinalityProblem:
        """The sub-problem over some variables, the others fixed; energies stay the full ones.

        Groups keep the ones that the fixed variables leave them; those without a free variable go.

        Args:
            indices: variables that stay free, each once, in their new order.
            at: feasible state that fixes the others; `initial` when None.

        Raises:
            ProblemError: an index that repeats or is out of range; no state to fix the others at.
        """
        free = whole_numbers("indices", indices, np.intp)
        if len(np.unique(free)) != len(free):
            raise ProblemError(
                "indices is not a list of different variables: leave repeated ones out"
            )
        if len(free) and (free.min() < 0 or free.max() >= self.n):
            raise ProblemError(
                f"indices has entries in {free.min()}..{free.max()}, expected 0..{self.n - 1}"
            )
        others = self.initial if at is None else at
        if others is None:
            raise ProblemError(
                "at is None and the problem has no initial state: pass at, the values of the others"
            )
        state = self.checked_state(others)
        rest = state.copy()
        rest[free] = False
        fixed = self if at is None else replace(self, initial=state)
        groups, ones = None, None
        if self.groups is not None:
            groups = np.unique(self.groups[free], return_inverse=True)[1]
            ones = np.bincount(groups, weights=state[free])
        return fixed._take(
            free,
            linear=self.fields(rest)[free],
            offset=float(self.energy(rest)),
            cardinality=int(state[free].sum()),
            groups=groups,
            cardinalities=ones,
        )

    def with_cardinality(self, cardinality: int) -> CardinalityProblem:
        """The same energies with another number of ones, without `initial` and groups.

        Nothing is checked but the number.

        Raises:
            ProblemError: a cardinality outside 0..n.
        """
        other = copy(self)
        for name in ("content_hash", "group_labels", "group_ones", "members"):
            other.__dict__.pop(name, None)
        k = whole("cardinality", cardinality, 0, self.n, ProblemError)
        other.__dict__.update(cardinality=k, initial=None, groups=None, cardinalities=None)
        return other

    def blinded(self) -> CardinalityProblem:
        """What a solver may see: no current mask, layer positions, labels or provenance."""
        return replace(self, initial=None, indices=None, meta={}, labels=None)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 (hex) of every array and number; `meta` and `labels` do not count."""
        digest = hashlib.sha256()
        for name in _HASHED:
            array = getattr(self, name)
            if array is not None:
                digest.update(f"{name}{array.shape}{array.dtype.str}".encode())
                digest.update(np.ascontiguousarray(array).data)
        digest.update(f"{self.cardinality} {self.offset!r} {self.scale!r}".encode())
        return digest.hexdigest()


def _taken(array: NDArray[Any] | None, order: NDArray[np.intp], axis: int) -> Any:
    return None if array is None else frozen(np.take(array, order, axis))
