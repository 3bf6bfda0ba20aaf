"""Solvers that harm the process they run in, and one that says when it runs."""

import ctypes
import os
import time
from typing import ClassVar

import numpy as np

from tests.study_fixtures import Drawn, First

LOG = "ICBS_TRIAL_LOG"


class Hanging(First):
    """Sleeps on; other threads may run."""

    name = "hanging"

    def _solve(self, problem, request):
        if problem.n > 8:
            time.sleep(3600)
        return super()._solve(problem, request)


class Gripping(First):
    """Sleeps in C and keeps the interpreter lock: no Python code of its process can stop it."""

    name = "gripping"

    def _solve(self, problem, request):
        if problem.n > 8:
            ctypes.PyDLL(None).sleep(3600)
        return super()._solve(problem, request)


class Leaking(First):
    """Takes memory until it gets no more; unused, as writing to it would be a matter of seconds."""

    name = "leaking"

    def _solve(self, problem, request):
        kept = []
        while problem.n > 8:
            kept.append(np.empty(2**21))
        return super()._solve(problem, request)


class Crashing(First):
    """Reads address 0."""

    name = "crashing"

    def _solve(self, problem, request):
        if problem.n > 8:
            ctypes.string_at(0)
        return super()._solve(problem, request)


class Exiting(First):
    name = "exiting"

    def _solve(self, problem, request):
        if problem.n > 8:
            os._exit(0)
        return super()._solve(problem, request)


class Warming(Exiting):
    """Needs more time to warm up than for an answer, which never comes."""

    name = "warming"

    def _solve(self, problem, request):
        if problem.n <= 8:
            time.sleep(1.3)
        return super()._solve(problem, request)


class Quitting(First):
    name = "quitting"

    def _solve(self, problem, request):
        if problem.n > 8:
            raise SystemExit(3)
        return super()._solve(problem, request)


class Telling(Drawn):
    """Notes in a file, one write each, that it starts (S) and ends (E): process, cell's seed."""

    name = "telling"
    seconds: ClassVar[float] = 0.02

    def sample_problem(self, problem, *, seed=None, **keywords):
        if problem.n <= 8:  # a warm-up
            return super().sample_problem(problem, seed=seed, **keywords)
        self._note("S", seed)
        time.sleep(self.seconds)
        samples = super().sample_problem(problem, seed=seed, **keywords)
        self._note("E", seed)
        return samples

    def _note(self, what, seed):
        file = os.open(os.environ[LOG], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, f"{what} {os.getpid()} {seed}\n".encode())
        os.close(file)


class Lasting(Telling):
    name = "lasting"
    seconds: ClassVar[float] = 60.0
