"""What the QAOA solvers share: their parameters, and angles trained on the exact simulator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from solvers.base import Budget, CardinalitySampler, Request
from solvers.clock.deadline import Deadline
from solvers.errors import ParameterError
from solvers.penalised.penalty import penalty_weight
from solvers.problem import CardinalityProblem
from solvers.qaoa.angles import Angles
from solvers.qaoa.simulator.subspace import Simulator
from solvers.qaoa.training import check_training, chosen_angles


@dataclass(frozen=True)
class Trained:
    """Angles and what they were found on.

    Attributes:
        mixer: as it was asked for.
        simulator: of the problem with that mixer.
        angles: the chosen ones.
        weight: P of ``P (sum x - k)^2`` for the X mixer; None for the others.
    """

    mixer: str
    simulator: Simulator
    angles: Angles
    weight: float | None


class TrainedQAOA(CardinalitySampler):
    """QAOA with angles from the exact simulator.

    A time limit ends the training of angles; the last circuit and its shots come on top.

    Parameters of `sample_problem`:

    * ``depth``: layers, 4 by default;
    * ``mixer``: one of the class's, the first by default;
    * ``angles``: ``trained`` (scan, then L-BFGS; default), ``scan``, ``ramp``, ``transferred``
      (medians of other blocks) or explicit `Angles`;
    * ``alpha``: share of the best outcomes the training looks at (CVaR), 1 by default;
    * ``iterations``: L-BFGS steps, 100 by default.

    ``info`` has the angles with their label. Training is a stage of its own in ``timing``.
    """

    compiles = True
    takes_groups = True
    warm_up_size = (6, 3)
    warm_up_by_size = True
    honours: ClassVar[tuple[str, ...]] = ("reads", "time_limit")
    extra_parameters: tuple[str, ...] = (
        "depth", "mixer", "angles", "alpha", "iterations",
    )  # fmt: skip
    # Mixer -> what the simulator calls what this class does.
    mixers: ClassVar[Mapping[str, str]]
    penalty: float | None = None
    num_threads: int | None = None

    def _compile(self, tiny: CardinalityProblem) -> None:
        """The simulator and the training with every mixer, not the circuits of other programs."""
        for mixer in self.mixers:
            request = Request(
                Budget(), np.random.default_rng(0), None, lambda state: None, Deadline()
            )
            trained = self._trained(tiny, request, mixer=mixer, depth=2, iterations=2)
            trained.simulator.probabilities(trained.angles)

    def check_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Names and values of all of them."""
        super().check_parameters(parameters)
        self._known(parameters.get("mixer"))
        given = {"angles": "trained", "depth": None, "alpha": 1.0, "iterations": 100, **parameters}
        check_training(*(given[name] for name in ("angles", "depth", "alpha", "iterations")))

    def _known(self, mixer: str | None) -> str:
        mixer = mixer or next(iter(self.mixers))
        if mixer not in self.mixers:
            raise ParameterError(f"mixer is {mixer!r}, expected one of {', '.join(self.mixers)}")
        return mixer

    def _trained(
        self,
        problem: CardinalityProblem,
        request: Request,
        *,
        depth: int | None = None,
        mixer: str | None = None,
        angles: str | Angles = "trained",
        alpha: float = 1.0,
        iterations: int = 100,
    ) -> Trained:
        mixer = self._known(mixer)
        with request.timing.stage("preprocess"):
            weight = None if self.penalty is None else penalty_weight(problem, self.penalty)
            simulator = Simulator(
                problem, self.mixers[mixer], penalty=weight, num_threads=self.num_threads
            )
        with request.timing.stage("training"):
            chosen = chosen_angles(simulator, angles, depth, alpha, iterations, request.deadline)
        return Trained(mixer, simulator, chosen, weight)
