"""Scores a sample set: the solver never grades itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import dimod
import numpy as np
from numpy.typing import NDArray

from experiments.record.hardness import magnitude
from solvers.problem import CardinalityProblem, Floats

# Reported and re-scored energies may differ by this share of the terms they are sums of.
TOLERANCE = 1e-8


class ScoringError(Exception):
    """A sample set that cannot be believed; the message becomes the row's reason."""


@dataclass(frozen=True)
class Score:
    """What the samples of one run are worth.

    Attributes:
        energy: best feasible sample, None if none is feasible.
        raw_energy: the same before repair.
        reads: rows of the sample set, each as often as it occurred.
        best_reads: those whose energy is `energy`, up to round-off.
        feasible: share of the reads that are feasible.
        raw_feasible: the same before repair.
        state: the best feasible row, packed to bits.
        complaint: why the run is no good, empty otherwise.
    """

    reads: int
    feasible: float
    raw_feasible: float
    energy: float | None = None
    raw_energy: float | None = None
    best_reads: int = 0
    state: bytes | None = None
    complaint: str = ""


@dataclass
class Incumbents:
    """States as a solver finds them; scored only after the clock has stopped."""

    seconds: list[float] = field(default_factory=list)
    states: list[bytes] = field(default_factory=list)
    wrong: str = ""

    def add(self, seconds: float, state: Any) -> None:
        """Keeps a packed copy: the solver may go on to overwrite its array."""
        self.seconds.append(seconds)
        self.states.append(np.packbits(np.asarray(state, dtype=np.bool_)).tobytes())

    def scored(self, problem: CardinalityProblem) -> list[tuple[float, float]]:
        """``(seconds, energy)`` of every strict improvement among the feasible states."""
        wanted = -(-problem.n // 8)
        kept = [i for i, state in enumerate(self.states) if len(state) == wanted]
        curve: list[tuple[float, float]] = []
        for first in range(0, len(kept), 256):
            batch = kept[first : first + 256]
            rows = np.array([unpacked(self.states[i], problem.n) for i in batch])
            ok, energies = problem.is_feasible(rows), problem.energy(rows)
            for i, feasible, energy in zip(batch, ok, energies, strict=True):
                if feasible and (not curve or energy < curve[-1][1]):
                    if curve and self.seconds[i] <= curve[-1][0]:
                        curve.pop()
                    curve.append((self.seconds[i], float(energy)))
        return curve


def unpacked(state: bytes, n: int) -> NDArray[np.bool_]:
    """A state of n variables back from its bits."""
    return np.unpackbits(np.frombuffer(state, np.uint8), count=n).astype(np.bool_)


def score(problem: CardinalityProblem, samples: Any, track: str) -> Score:
    """Re-scores every sample in float64 and re-checks feasibility.

    Args:
        problem: what was to be solved.
        samples: what the solver returned.
        track: ``native`` solvers may not return infeasible samples.

    Returns:
        The score. A `complaint` means that the samples were readable and still no good: energies
        that were not what the solver said, infeasible samples of a native solver.

    Raises:
        ScoringError: no sample set over this problem's variables.
    """
    rows, reported, counts = _rows(problem, samples)
    energies = problem.energy(rows)
    feasible = problem.is_feasible(rows)
    raw, raw_ok = _raw(problem, samples, rows, feasible)
    tolerance = TOLERANCE * (magnitude(problem) + float(np.abs(energies).max()))
    best = int(np.argmin(np.where(feasible, energies, np.inf))) if feasible.any() else None
    raw_energies = energies if raw is rows else problem.energy(raw)
    return Score(
        reads=int(counts.sum()),
        feasible=int(counts[feasible].sum()) / int(counts.sum()),
        raw_feasible=int(counts[raw_ok].sum()) / int(counts.sum()),
        energy=None if best is None else float(energies[best]),
        raw_energy=float(raw_energies[raw_ok].min()) if raw_ok.any() else None,
        best_reads=0
        if best is None
        else int(counts[feasible & (energies <= energies[best] + 0.1 * tolerance)].sum()),
        state=None if best is None else np.packbits(rows[best].astype(np.bool_)).tobytes(),
        complaint=_complaint(reported, energies, feasible, track, tolerance),
    )


def _complaint(
    reported: Floats, energies: Floats, feasible: NDArray[np.bool_], track: str, tolerance: float
) -> str:
    if not np.isfinite(reported).all():
        return f"reported an energy of {reported[~np.isfinite(reported)][0]}"
    worst = int(np.argmax(np.abs(reported - energies)))
    if abs(reported[worst] - energies[worst]) > tolerance:
        return f"reported energy {reported[worst]:.10g}, re-scored {energies[worst]:.10g}"
    if track == "native" and not feasible.all():
        return f"{(~feasible).sum()} of {len(feasible)} samples of a native solver are infeasible"
    return ""


def _rows(
    problem: CardinalityProblem, samples: Any
) -> tuple[NDArray[Any], Floats, NDArray[np.int64]]:
    """Rows in the problem's order, their reported energies, and how often each occurred."""
    if not isinstance(samples, dimod.SampleSet):
        raise ScoringError(f"returned {type(samples).__name__}, expected a dimod.SampleSet")
    samples.resolve()
    if samples.vartype is not dimod.BINARY:
        raise ScoringError(f"returned {samples.vartype.name} samples, expected BINARY")
    if set(samples.variables) != set(range(problem.n)):
        raise ScoringError(
            f"returned {len(samples.variables)} variables, expected 0..{problem.n - 1}"
        )
    record = samples.record
    counts = np.asarray(record.num_occurrences)
    if counts.dtype.kind not in "iu" or (counts < 0).any():
        raise ScoringError("returned num_occurrences that are no whole numbers from 0")
    if not counts.any():
        raise ScoringError("returned no sample")
    order = [samples.variables.index(i) for i in range(problem.n)]
    # Rows of no reads count for nothing; the others are kept once, however often they occurred.
    kept = counts > 0
    rows = record.sample[:, order][kept]
    return rows, np.asarray(record.energy, dtype=np.float64)[kept], counts[kept].astype(np.int64)


def _raw(
    problem: CardinalityProblem, samples: Any, rows: NDArray[Any], feasible: NDArray[np.bool_]
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    if "raw_sample" not in (samples.record.dtype.names or ()):
        return rows, feasible
    raw = samples.record["raw_sample"][np.asarray(samples.record.num_occurrences) > 0]
    if raw.shape != rows.shape:
        raise ScoringError(f"raw samples have shape {raw.shape}, expected {rows.shape}")
    return raw, problem.is_feasible(raw)
