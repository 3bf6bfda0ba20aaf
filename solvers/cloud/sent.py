"""QAOA whose circuits are sent away: once each, found again by the same call, collected later."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from solvers.arguments import seeded
from solvers.base import Call, Request, Solution
from solvers.clock.deadline import Deadline
from solvers.problem import CardinalityProblem
from solvers.qaoa.gate_model import answer
from solvers.qaoa.solver import TrainedQAOA


@dataclass(frozen=True)
class Collected:
    """A finished call.

    Attributes:
        rows: shape (shots, n), column i is qubit i.
        note: what its sender wrote down: ``info`` for a sample set's, and the ``seconds`` that
            preparing it took, by stage.
        info: for a sample set's ``info``.
    """

    rows: NDArray[np.int8]
    note: dict[str, Any]
    info: dict[str, Any]


class SentQAOA(TrainedQAOA):
    """What solvers share that send circuits under a cap; see `solvers.cloud.journal`."""

    paid = True
    honours: ClassVar[tuple[str, ...]] = ("reads",)

    @property
    @abstractmethod
    def _sender(self) -> Any:
        """Knows calls by their key (``known``) and collects them (``collect``)."""

    @abstractmethod
    def _key(
        self, problem: CardinalityProblem, request: Request, parameters: Mapping[str, Any]
    ) -> str:
        """Identity of a call, 64 characters."""

    @abstractmethod
    def _order(
        self,
        key: str,
        problem: CardinalityProblem,
        request: Request,
        parameters: Mapping[str, Any],
    ) -> Any:
        """The circuit of a call that was not sent, its angles trained."""

    @abstractmethod
    def _send(self, order: Any) -> None:
        """Sends one order, without waiting for it."""

    @abstractmethod
    def _send_together(self, orders: list[Any]) -> None:
        """Sends many, without waiting; what cannot be sent is left out."""

    def _declined(self, key: str) -> None:
        """Raises what a call is told once before it is made anew."""

    def submit_problems(self, calls: Iterable[Call]) -> None:
        """Sends what later `sample_problem` calls with the same arguments collect.

        It does not wait. A call that cannot be sent is left out: it fails the same way when it is
        made.
        """
        orders = []
        for call in calls:
            if call.problem.only_state is not None:
                continue
            request = Request(
                call.budget, seeded(call.seed), None, lambda state: None,
                Deadline(call.budget.time_limit),
            )  # fmt: skip
            with suppress(Exception):
                self.check_size(call.problem.n)
                key = self._key(call.problem, request, call.parameters)
                if not self._sender.known(key):
                    orders.append(self._order(key, call.problem, request, call.parameters))
        self._send_together(orders)

    def _solve(self, problem: CardinalityProblem, request: Request, **parameters: Any) -> Solution:
        sender = self._sender
        key = self._key(problem, request, parameters)
        self._declined(key)
        known = sender.known(key)
        if not known:
            self._send(self._order(key, problem, request, parameters))
        collected = sender.collect(key, request.timing)
        info = collected.note["info"] | collected.info
        if not known:
            info["earlier_seconds"] = 0.0
        else:
            for stage, seconds in collected.note["seconds"].items():
                request.timing[stage] += seconds
                info["earlier_seconds"] += seconds
        return answer(problem, request, collected.rows, info)
