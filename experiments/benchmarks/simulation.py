"""A discrete-event simulation of a study on a cluster: driver, scheduler, workers, deaths.

It follows `experiments.running.runner` and `experiments.running.cluster`. The driver is one server:
it submits cells while fewer than ``ahead`` a worker are out, and writes the records that came back
one after the other. The scheduler is one server: every cell passes through it on its way out and on
its way back, and goes to the worker with the fewest cells. A worker runs its cells one at a time.
If it dies, its cells come back as lost after a while and it is replaced; the driver waits until
nothing is out, then runs each lost cell alone. Lost again, the cell is an error.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np


@dataclass(frozen=True)
class Costs:
    """Seconds of everything that is not a solver's call.

    Attributes:
        submit: of the driver, to hand a cell out.
        record: of the driver, to take a record in and write it to the store.
        out: of the scheduler, for a cell on its way out.
        back: of the scheduler, for a record on its way back.
        worker: of a worker beside the call, each cell.
        latency: of each of the four messages of a cell.
        one_process: driver and scheduler share a process, so that only one works at a time.
        lost: from a worker's death until the driver knows.
        replaced: from a worker's death until another is in its place.
    """

    submit: float = 0.0
    record: float = 0.0
    out: float = 0.0
    back: float = 0.0
    worker: float = 0.0
    latency: float = 0.0
    one_process: bool = False
    lost: float = 0.5
    replaced: float = 5.0


@dataclass
class Outcome:
    """What a simulated study came to.

    Attributes:
        makespan: seconds until the last record is written.
        done: cells that were answered.
        errors: cells that were lost twice.
        lost: times that a cell came back as lost.
        most_out: most cells that were out at a time.
        useful: seconds of answered calls.
        driver: seconds that the driver worked.
        scheduler: seconds that the scheduler worked.
        deaths: of workers.
        workers: as many as the study had.
    """

    workers: int
    makespan: float = 0.0
    done: int = 0
    errors: int = 0
    lost: int = 0
    most_out: int = 0
    useful: float = 0.0
    driver: float = 0.0
    scheduler: float = 0.0
    deaths: int = 0

    @property
    def utilisation(self) -> float:
        """Share of the workers' time that went into answered calls."""
        return self.useful / (self.workers * self.makespan)


@dataclass
class _Cell:
    seconds: float
    again: bool = False


@dataclass
class _Worker:
    queue: deque[_Cell] = field(default_factory=deque)
    coming: int = 0
    life: int = 0
    up: bool = True

    @property
    def load(self) -> int:
        return len(self.queue) + self.coming


class _Server:
    """Works on one thing at a time, in the order it came."""

    def __init__(self) -> None:
        self.free = 0.0

    def take(self, now: float, seconds: float) -> float:
        self.free = max(self.free, now) + seconds
        return self.free


class Simulation:
    """One study.

    Args:
        cells: seconds of each cell's call, in the order they are handed out.
        workers: as many as run side by side.
        costs: see there.
        ahead: cells that may be out, by worker.
        lifetime: mean seconds until a worker dies, exponential; None: never.
        seed: of the deaths.
    """

    def __init__(
        self,
        cells: Iterator[float],
        workers: int,
        costs: Costs,
        *,
        ahead: int = 2,
        lifetime: float | None = None,
        seed: int = 0,
    ) -> None:
        self._cells, self._costs, self._room = cells, costs, ahead * workers
        self._lifetime, self._rng = lifetime, np.random.default_rng(seed)
        self._workers = [_Worker() for _ in range(workers)]
        self._driver = _Server()
        self._scheduler = self._driver if costs.one_process else _Server()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count, self._now = 0, 0.0
        self._inbox: deque[tuple[_Cell, bool]] = deque()
        self._suspects: deque[_Cell] = deque()
        self._waiting: deque[_Cell] = deque()
        self._out, self._alone, self._busy, self._ended = 0, False, False, False
        self.outcome = Outcome(workers)

    def run(self) -> Outcome:
        """Until every record is written."""
        for worker in self._workers:
            self._doom(worker)
        self._drive()
        while self._events and not self._ended:
            self._now, _, action = heapq.heappop(self._events)
            action()
        return self.outcome

    def _at(self, when: float, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, action))

    def _work(self, seconds: float) -> float:
        self.outcome.driver += seconds
        return self._driver.take(self._now, seconds)

    def _drive(self) -> None:
        """The driver's loop, from one wait to the next."""
        self._busy = True
        while self._inbox:
            cell, answered = self._inbox.popleft()
            self._out -= 1
            self._alone = False
            self._work(self._costs.record)
            if answered:
                self.outcome.done += 1
                self.outcome.useful += cell.seconds
            elif cell.again:
                self.outcome.errors += 1
            else:
                self.outcome.lost += 1
                self._suspects.append(cell)
        while not self._alone and self._out < self._room:
            if self._suspects:
                if not self._out:
                    self._alone = True
                    self._submit(_Cell(self._suspects.popleft().seconds, again=True))
                break
            seconds = next(self._cells, None)
            if seconds is None:
                break
            self._submit(_Cell(seconds))
        if not self._out:
            self.outcome.makespan = self._driver.free
            self._ended = True
        self._at(max(self._now, self._driver.free), self._rest)

    def _rest(self) -> None:
        self._busy = False
        if self._inbox:
            self._drive()

    def _submit(self, cell: _Cell) -> None:
        self._out += 1
        self.outcome.most_out = max(self.outcome.most_out, self._out)
        sent = self._work(self._costs.submit)
        self._at(sent + self._costs.latency, lambda: self._send(cell))

    def _send(self, cell: _Cell) -> None:
        self.outcome.scheduler += self._costs.out
        ready = self._scheduler.take(self._now, self._costs.out)
        self._at(ready, lambda: self._place(cell))

    def _place(self, cell: _Cell) -> None:
        alive = [worker for worker in self._workers if worker.up]
        if not alive:
            self._waiting.append(cell)
            return
        worker = min(alive, key=lambda one: one.load)
        worker.coming += 1
        life = worker.life
        self._at(self._now + self._costs.latency, lambda: self._arrive(worker, life, cell))

    def _arrive(self, worker: _Worker, life: int, cell: _Cell) -> None:
        if worker.life != life:  # it died with the cell on its way
            self._report(cell, answered=False)
            return
        worker.coming -= 1
        worker.queue.append(cell)
        if len(worker.queue) == 1:
            self._start(worker)

    def _start(self, worker: _Worker) -> None:
        cell, life = worker.queue[0], worker.life
        spent = self._costs.worker + cell.seconds
        self._at(self._now + spent, lambda: self._finish(worker, life, cell))

    def _finish(self, worker: _Worker, life: int, cell: _Cell) -> None:
        if worker.life != life:
            return
        worker.queue.popleft()
        self._at(self._now + self._costs.latency, lambda: self._report(cell, answered=True))
        if worker.queue:
            self._start(worker)

    def _report(self, cell: _Cell, *, answered: bool) -> None:
        self.outcome.scheduler += self._costs.back
        ready = self._scheduler.take(self._now, self._costs.back)
        self._at(ready + self._costs.latency, lambda: self._hear(cell, answered))

    def _hear(self, cell: _Cell, answered: bool) -> None:
        self._inbox.append((cell, answered))
        if not self._busy:
            self._drive()

    def _doom(self, worker: _Worker) -> None:
        if self._lifetime is not None:
            when = self._now + float(self._rng.exponential(self._lifetime))
            self._at(when, lambda: self._die(worker))

    def _die(self, worker: _Worker) -> None:
        self.outcome.deaths += 1
        worker.life += 1
        worker.up, worker.coming = False, 0
        for cell in worker.queue:
            known = self._now + self._costs.lost
            self._at(known, partial(self._report, cell, answered=False))
        worker.queue.clear()
        self._at(self._now + self._costs.replaced, lambda: self._replace(worker))

    def _replace(self, worker: _Worker) -> None:
        worker.up = True
        self._doom(worker)
        while self._waiting:
            self._place(self._waiting.popleft())
