"""Where the wall time of one run went.

A solver reports the seconds of its own stages in ``info["timing"]`` (`solvers.base.TIMING_KEYS`);
the runner measures the whole call. Whatever the solver does not account for is spent between its
stages and after the last one, turning raw answers into a sample set, and is booked as *decode*.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

STAGES = (
    "build", "convert", "preprocess", "training", "queue", "execute", "decode", "repair", "score",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ledger:
    """Seconds by stage.

    Attributes:
        build: cutting the block out of the model, as its metadata records it; the same for every
            solver and not part of the solver's wall time.
        convert: structured problem -> what the solver reads (a BQM, a circuit, a file).
        preprocess: embedding, transpiling, presolve, choosing schedules.
        training: finding the angles of a circuit for this instance.
        queue: waiting for a shared device.
        execute: the search itself.
        decode: answers -> sample set, plus everything the solver left unaccounted.
        repair: making infeasible answers feasible.
        score: re-scoring by the runner; not part of the solver's wall time.
    """

    build: float = 0.0
    convert: float = 0.0
    preprocess: float = 0.0
    training: float = 0.0
    queue: float = 0.0
    execute: float = 0.0
    decode: float = 0.0
    repair: float = 0.0
    score: float = 0.0

    @property
    def solver_wall(self) -> float:
        """Seconds of the solver's call: every stage but build and score."""
        return math.fsum(self.as_dict().values()) - self.build - self.score

    def as_dict(self) -> dict[str, float]:
        """Stage -> seconds, in the order of `STAGES`."""
        return asdict(self)

    @classmethod
    def split(
        cls, wall: float, timing: Mapping[str, object], *, build: float = 0.0, score: float = 0.0
    ) -> Ledger:
        """Books a solver's wall time by the stages it reports.

        Args:
            wall: seconds of the call, by the runner's clock.
            timing: ``info["timing"]``; entries that are no finite seconds from 0 count as 0.
            build: see `Ledger`.
            score: see `Ledger`.

        Returns:
            A ledger whose `solver_wall` is `wall`. A solver that claims more than the wall (a
            device's own clock, or a lie) has its claims scaled down to it.
        """
        claimed = {
            stage: _seconds(timing.get(stage))
            for stage in ("convert", "preprocess", "training", "queue", "execute", "repair")
        }
        after = _seconds(timing.get("postprocess"))
        # In units of the largest, because absurd claims may add up to more than a float holds.
        unit = max(wall, after, *claimed.values()) or 1.0
        total = math.fsum(seconds / unit for seconds in (*claimed.values(), after))
        if total > wall / unit:
            factor = wall / total
            claimed = {stage: seconds / unit * factor for stage, seconds in claimed.items()}
        decode = max(0.0, wall - math.fsum(claimed.values()))
        return cls(build=build, score=score, decode=decode, **claimed)


def _seconds(value: object) -> float:
    if isinstance(value, int | float) and math.isfinite(value) and value >= 0:
        return float(value)
    return 0.0
