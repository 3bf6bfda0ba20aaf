"""What the QAOA solvers share: their parameters, and angles trained on the exact simulator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from solvers.base import Budget, CardinalitySampler, Request
from solvers.clock.deadline import NEVER, Deadline
from solvers.errors import ParameterError
from solvers.penalised.penalty import penalty_weight
from solvers.problem import CardinalityProblem
from solvers.qaoa.angles import Angles
from solvers.qaoa.simulator.subspace import Simulator, check_start
from solvers.qaoa.training import check_training, chosen_angles
from solvers.qaoa.warm import SOLVERS, WarmStart, check_warm_start, warm_started


@dataclass(frozen=True)
class Trained:
    """Angles and what they were found on.

    Attributes:
        mixer: as it was asked for.
        simulator: of the problem with that mixer.
        angles: the chosen ones.
        weight: P of ``P (sum x - k)^2`` for the X mixer; None for the others.
        warm: the classical answer that the start is biased by; None for a uniform one.
        warm_seconds: wall time of finding it.
    """

    mixer: str
    simulator: Simulator
    angles: Angles
    weight: float | None
    warm: WarmStart | None = None
    warm_seconds: float = 0.0

    @property
    def said(self) -> dict[str, Any]:
        """Mixer and, where there is one, warm start, for a sample set's ``info``."""
        info: dict[str, Any] = {"mixer": self.mixer}
        if self.warm is not None:
            info["warm_start"] = {
                "solver": self.warm.solver,
                "energy": self.warm.energy,
                "seconds": self.warm_seconds,
            }
        return info


class TrainedQAOA(CardinalitySampler):
    """QAOA with angles from the exact simulator.

    A time limit ends the training of angles; the last circuit and its shots come on top.

    Parameters of `sample_problem`:

    * ``depth``: layers, 4 by default;
    * ``mixer``: one of the class's, the first by default;
    * ``angles``: ``trained`` (scan, then L-BFGS; default), ``scan``, ``ramp``, ``transferred``
      (medians of other blocks) or explicit `Angles`;
    * ``alpha``: share of the best outcomes the training looks at (CVaR), 1 by default;
    * ``iterations``: L-BFGS steps, 100 by default;
    * ``warm_start``: ``descent``, ``greedy`` or ``relaxation``, whose answer the start is biased by
      (see `solvers.qaoa.warm`); for ring and complete mixers, None by default.

    ``info`` has the angles with their label, and with a warm start ``warm_start``: its solver,
    energy and seconds. Training is a stage of its own in ``timing``; the classical answer's time is
    part of it.
    """

    compiles = True
    takes_groups = True
    warm_up_size = (6, 3)
    warm_up_by_size = True
    honours: ClassVar[tuple[str, ...]] = ("reads", "time_limit")
    extra_parameters: tuple[str, ...] = (
        "depth", "mixer", "angles", "alpha", "iterations", "warm_start",
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
        if self.penalty is None:
            for name in SOLVERS:
                warm_started(tiny, name, 0, NEVER)

    def check_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Names and values of all of them."""
        super().check_parameters(parameters)
        mixer = self._known(parameters.get("mixer"))
        check_warm_start(parameters.get("warm_start"))
        if parameters.get("warm_start") is not None:
            check_start(self.mixers[mixer])
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
        warm_start: str | None = None,
        best: WarmStart | None = None,
    ) -> Trained:
        """Angles for a problem.

        Args:
            problem: n variables.
            request: its generator seeds the classical answer; its timing gets the stages.
            depth: and the other parameters of `sample_problem`.
            mixer: see there.
            angles: see there.
            alpha: see there.
            iterations: see there.
            warm_start: see there.
            best: a state that is known already, to start from instead.
        """
        mixer = self._known(mixer)
        check_warm_start(warm_start)
        warm, seconds = best, 0.0
        if warm_start is not None and best is None:
            check_start(self.mixers[mixer])
            before = request.timing["training"]
            with request.timing.stage("training"):
                seed = int(request.rng.integers(2**31))
                warm = warm_started(problem, warm_start, seed, request.deadline)
            seconds = request.timing["training"] - before
        with request.timing.stage("preprocess"):
            weight = None if self.penalty is None else penalty_weight(problem, self.penalty)
            simulator = Simulator(
                problem,
                self.mixers[mixer],
                penalty=weight,
                odds=None if warm is None else warm.odds,
                num_threads=self.num_threads,
            )
        with request.timing.stage("training"):
            chosen = chosen_angles(simulator, angles, depth, alpha, iterations, request.deadline)
        if warm is not None:
            chosen = warm.told(chosen)
        return Trained(mixer, simulator, chosen, weight, warm, seconds)
