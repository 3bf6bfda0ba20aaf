"""Exact QAOA: state vectors, expectations and gradients, with the costs computed once.

The X mixer works on all 2^n states of the penalised problem. Ring XY, complete XY (exact, or pair
by pair as a circuit does it) and Grover conserve the weight and start from the Dicke state, so
they live in the C(n, k) feasible states. With groups the start is a product of Dicke states, one a
group, each mixer acts inside every group, and the dimension is the product of the C(m_g, k_g).

Memory, in complex vectors of the dimension: the state 1, the gradient's adjoint vector 1, the
costs 1/2, and 1/4 of masks (XY by pairs), up to 1/2 of scratch (complete XY) or 1 (groups).
"""

from __future__ import annotations

import os
from functools import cached_property
from math import comb

import dimod
import numpy as np
from numpy.typing import NDArray

from solvers.errors import ParameterError
from solvers.memory import check_room
from solvers.problem import CardinalityProblem, Floats
from solvers.qaoa.angles import Angles
from solvers.qaoa.circuit.mixers import complete_edges, ring_edges
from solvers.qaoa.simulator import basis, kernels
from solvers.qaoa.simulator.evolution import (
    CompleteMixer,
    ExchangeMixer,
    GroverMixer,
    Mixer,
    XMixer,
)
from solvers.qaoa.simulator.kernels import Complexes
from solvers.qaoa.simulator.product import ProductMixer
from solvers.qaoa.simulator.space import Space
from solvers.qaoa.simulator.threads import threads

MIXERS = ("x", "ring", "complete", "complete-trotter", "grover")
MAX_BYTES = 4 << 30
_BYTES_PER_AMPLITUDE = 3 * 16
_BYTES_WITH_GROUPS = 4 * 16


class Simulator:
    """QAOA with one mixer on one problem.

    Args:
        problem: n variables, k ones, in all or group by group.
        mixer: one of `MIXERS`.
        penalty: P of ``P (sum x - k)^2``, one such term a group, in the problem's energy unit; for
            the X mixer only.
        odds: of each variable, positive, shape (n,), for a start biased by them (see
            `solvers.qaoa.circuit.dicke`); for the XY mixers only.
        num_threads: threads of one evaluation; the machine's when None.
        max_bytes: refuse what needs more memory for a gradient.

    Attributes:
        dim: number of amplitudes.
        costs: energy of each state in order of rank (see `solvers.qaoa.simulator.space`), shape
            (dim,).
        width: variables that the mixer acts on at once: those of the largest group.

    Raises:
        ParameterError: an unknown mixer, a penalty or odds with a mixer that takes none.
        BinaryQuadraticModelSizeError: a state vector beyond `max_bytes`.
    """

    def __init__(
        self,
        problem: CardinalityProblem,
        mixer: str = "complete",
        *,
        penalty: float | None = None,
        odds: Floats | None = None,
        num_threads: int | None = None,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        if mixer not in MIXERS:
            raise ParameterError(f"mixer is {mixer!r}, expected one of {', '.join(MIXERS)}")
        if (penalty is not None) != (mixer == "x"):
            raise ParameterError(f"penalty is {penalty}: mixer 'x' needs one, the others take none")
        if odds is not None:
            check_start(mixer)
        self.n, self.mixer = problem.n, mixer
        self._space = Space(problem, free=mixer == "x")
        self.dim, self.width = self._space.dim, self._space.largest
        _check_size(self._space, max_bytes)
        self._threads = num_threads or os.cpu_count() or 1
        self.costs = self._space.energies(problem)
        if penalty is not None:
            states = np.arange(self.dim, dtype=np.uint32)
            for members, k in zip(problem.members, problem.group_ones.tolist(), strict=True):
                mask = np.uint32(sum(1 << int(i) for i in members))
                ones = np.bitwise_count(states & mask).astype(np.float64)
                self.costs += penalty * (ones - k) ** 2
        self._start = None if odds is None else self._space.amplitudes(odds)
        self._mixer = _mixer_of(mixer, self._space)

    @property
    def std(self) -> float:
        """Standard deviation of the energy over all `dim` states; one number in 1 / gamma."""
        return float(self.costs.std())

    def states(self, ranks: NDArray[np.int64]) -> NDArray[np.int8]:
        """The states of these ranks, shape (len(ranks), n)."""
        return self._space.states(ranks)

    def state(self, angles: Angles) -> Complexes:
        """Amplitudes of the final state, shape (dim,)."""
        if self._start is None:
            psi = np.full(self.dim, self.dim**-0.5, np.complex128)
        else:
            psi = self._start.astype(np.complex128)
        with threads(self._threads, self.dim) as pool:
            for gamma, beta in zip(angles.gammas, angles.betas, strict=True):
                pool.over(self.dim, kernels.phase, psi, self.costs, gamma)
                self._mixer.apply(psi, beta, pool)
        return psi

    def probabilities(self, angles: Angles) -> Floats:
        """Of measuring each state, shape (dim,)."""
        psi = self.state(angles)
        return psi.real**2 + psi.imag**2

    def expectation(self, angles: Angles) -> float:
        """Mean energy of the measured states."""
        return float(kernels.expectation(self.state(angles), self.costs, 0, self.dim))

    def objective(self, angles: Angles, alpha: float = 1.0) -> float:
        """What `gradient` differentiates: mean energy or, for alpha < 1, CVaR."""
        if checked_alpha(alpha) == 1:
            return self.expectation(angles)
        return self._tail(self.state(angles), alpha)[0]

    def gradient(self, angles: Angles, alpha: float = 1.0) -> tuple[float, Floats, Floats]:
        """Mean energy, or CVaR, and its derivatives, by one sweep back (adjoint method).

        Args:
            angles: p layers.
            alpha: share of the best outcomes that counts, 0 < alpha <= 1 (CVaR, Barkoutsos et
                al., Quantum 4, 256, 2020); 1 is the mean energy.

        Returns:
            The value, its derivatives by the gammas (p,) and by the betas (p,).

        Raises:
            ParameterError: alpha out of range.
        """
        checked_alpha(alpha)
        psi = self.state(angles)
        if alpha == 1:
            value = float(kernels.expectation(psi, self.costs, 0, self.dim))
            lam = self.costs * psi
        else:
            value, observable = self._tail(psi, alpha)
            lam = observable * psi
        slopes = np.zeros((2, angles.depth))
        with threads(self._threads, self.dim) as pool:
            for layer in reversed(range(angles.depth)):
                gamma, beta = angles.gammas[layer], angles.betas[layer]
                slopes[1, layer] = self._mixer.undo(psi, lam, beta, pool)
                slopes[0, layer] = 2 * pool.over(
                    self.dim, kernels.phase_back, psi, lam, self.costs, gamma
                )
        return value, slopes[0], slopes[1]

    @cached_property
    def _order(self) -> NDArray[np.intp]:
        return np.argsort(self.costs, kind="stable")

    def _tail(self, psi: Complexes, alpha: float) -> tuple[float, Floats]:
        """CVaR and the diagonal observable with its value and slope.

        ``CVaR = max_t t + <min(C - t, 0)> / alpha``, attained at the alpha quantile t (Rockafellar
        and Uryasev, J. Risk 2, 21, 2000); by the envelope theorem t may be held fixed.
        """
        weights = psi.real**2 + psi.imag**2
        order = self._order
        at = int(np.searchsorted(np.cumsum(weights[order]), alpha))
        t = self.costs[order[min(at, self.dim - 1)]]
        observable = np.minimum(self.costs - t, 0) / alpha
        return float(t + weights @ observable), observable


def check_start(mixer: str) -> None:
    """Refuses mixers that are about the uniform state and no other.

    Raises:
        ParameterError: X, or Grover.
    """
    if mixer in ("x", "grover"):
        raise ParameterError(
            f"mixer is {mixer!r}, which takes no biased start: choose ring or complete, or leave "
            "the warm start out"
        )


def checked_alpha(alpha: float) -> float:
    """`alpha`, if it is a share that outcomes can have.

    Raises:
        ParameterError: not above 0 and at most 1.
    """
    if isinstance(alpha, str | bool) or not 0 < alpha <= 1:
        raise ParameterError(f"alpha is {alpha!r}, expected a number above 0 and at most 1")
    return alpha


def _check_size(space: Space, max_bytes: int) -> None:
    parts = len(space.parts)
    needed = (_BYTES_PER_AMPLITUDE if parts == 1 else _BYTES_WITH_GROUPS) * space.dim
    if needed > max_bytes or space.largest > basis.MAX_BITS:
        inside = "" if parts == 1 else f" in {parts} groups"
        raise dimod.exceptions.BinaryQuadraticModelSizeError(
            f"{space.n} variables{inside} need a state vector of {space.dim} amplitudes and "
            f"{needed} bytes ({needed / 2**30:.1f} GiB) for a gradient, the limit is "
            f"{max_bytes / 2**30:.1f} GiB and {basis.MAX_BITS} variables a group; take a smaller "
            "block or, where there is memory, a larger max_bytes"
        )
    check_room(needed, f"a gradient of {space.dim} amplitudes", "take a smaller block")


def _mixer_of(mixer: str, space: Space) -> Mixer:
    if len(space.parts) > 1:
        return ProductMixer(mixer, space.parts, _evolution)
    return _evolution(mixer, space.parts[0].size, space.parts[0].k)


def _evolution(mixer: str, n: int, k: int) -> Mixer:
    match mixer:
        case "x":
            return XMixer(n)
        case "ring":
            return ExchangeMixer(n, k, ring_edges(n))
        case "complete":
            return CompleteMixer(n, k)
        case "complete-trotter":
            return ExchangeMixer(n, k, complete_edges(n))
        case _:
            return GroverMixer(comb(n, k))
