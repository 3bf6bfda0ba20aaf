"""Angles of a QAOA circuit, each with an honest label of where they come from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from solvers.errors import ParameterError

# (dg, db) by mixer, each within 3 % of the best mean ratio of a grid at p = 4 and p = 8 over random
# rank-4 problems of 4 to 12 variables. Beta is in units of `turn`.
RAMPS = {"x": (2.5, 0.75), "ring": (2.25, 0.6), "complete": (2.5, 0.9), "grover": (1.75, 2.2)}


@dataclass(frozen=True)
class Angles:
    """Angles of p layers.

    Attributes:
        gammas: cost angles in 1 / energy, p numbers.
        betas: mixer angles in radians, p numbers.
        label: ``untrained``, ``trained`` or ``transferred``, and how.
        training_seconds: wall time spent on finding them.
    """

    gammas: tuple[float, ...]
    betas: tuple[float, ...]
    label: str
    training_seconds: float = 0.0

    def __post_init__(self) -> None:
        if len(self.gammas) != len(self.betas):
            raise ParameterError(
                f"angles has {len(self.gammas)} gammas and {len(self.betas)} betas, "
                "expected one of each for every layer"
            )
        if not np.isfinite([*self.gammas, *self.betas]).all():
            raise ParameterError("angles has entries that are not finite: give numbers")

    @property
    def depth(self) -> int:
        """Number of layers p."""
        return len(self.gammas)

    @classmethod
    def given(cls, gammas: ArrayLike, betas: ArrayLike, label: str = "given") -> Angles:
        """Angles from any two sequences of numbers."""
        return cls(_floats(gammas), _floats(betas), label)


def _floats(values: ArrayLike) -> tuple[float, ...]:
    return tuple(np.asarray(values, np.float64).ravel().tolist())


def checked_depth(depth: object) -> int:
    """`depth` as an int.

    Raises:
        ParameterError: not a whole number from 1.
    """
    if isinstance(depth, bool) or not isinstance(depth, int | np.integer) or depth < 1:
        raise ParameterError(f"depth is {depth!r}, expected a whole number from 1")
    return int(depth)


def linear_ramp(depth: int, std: float, steps: tuple[float, float] = RAMPS["x"]) -> Angles:
    """``gamma_l = dg/std (l + 1/2)/p``, ``beta_l = db (1 - (l + 1/2)/p)``.

    A discretised annealing schedule (Sack and Serbyn, Quantum 5, 491, 2021), made independent of
    the energy's unit by its standard deviation.

    Args:
        depth: p >= 1.
        std: standard deviation of the energy over the states the circuit lives in; 0 (a constant
            energy) is taken as 1.
        steps: ``(dg, db)``; see `ramp_steps` for those of a mixer.
    """
    t = (np.arange(checked_depth(depth)) + 0.5) / depth
    dg, db = steps
    return Angles.given(dg / (std or 1.0) * t, db * (1 - t), "untrained: linear ramp")


def ramp_steps(mixer: str, n: int) -> tuple[float, float]:
    """``(dg, db)`` of the untrained ramp of a mixer on n qubits."""
    dg, db = RAMPS[mixer.removesuffix("-trotter")]
    return dg, db * turn(mixer, n)


def turn(mixer: str, n: int) -> float:
    """Unit of beta: the complete graph's mixer has a spectrum that is n/2 times as wide."""
    return 2 / n if mixer.startswith("complete") else 1.0
