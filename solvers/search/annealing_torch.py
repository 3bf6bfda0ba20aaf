"""Swap annealing of thousands of reads at once, on any torch device.

The chain is that of `solvers.search.annealing`, windows included, with other random numbers. Reads
are the batch: a step proposes one swap in each, a handful of gathers over (reads, r) or, with dense
fields, (reads, n) arrays. A read whose window is smaller than another's waits for the end of the
sweep.
"""

from __future__ import annotations

import numpy as np
import torch

from solvers.clock.deadline import Deadline
from solvers.errors import ParameterError
from solvers.problem import Bools, CardinalityProblem, Floats

# Steps between two looks at the clock.
STEPS_PER_CHECK = 256


def checked_device(name: str) -> torch.device:
    """The device called `name`.

    Raises:
        ParameterError: torch does not know it, or it is not there.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ParameterError(
            f"device is {name!r}, which torch cannot use here ({reason}): choose cpu or cuda, or "
            "leave device out"
        ) from error
    return device


class Batch:
    """States of many reads with what a proposal needs.

    Float64 throughout: the chain must be that of the numba kernels, and ``s`` is updated millions
    of times.

    Args:
        problem: n variables, k ones; its factor is used, or its dense G.
        starts: feasible states, shape (m, n) of bool.
        device: where it lives.
        seed: of the device's generator.
    """

    def __init__(
        self, problem: CardinalityProblem, starts: Bools, device: torch.device, seed: int
    ) -> None:
        self.problem, self.device = problem, device
        self.generator = torch.Generator(device).manual_seed(seed)
        order = torch.from_numpy(np.argsort(~starts, axis=1, kind="stable")).to(device)
        k = problem.cardinality
        self.ones, self.zeros = order[:, :k].contiguous(), order[:, k:].contiguous()
        self.rows = torch.arange(len(starts), device=device)
        self.linear = self._tensor(problem.linear)
        self.diagonal = self._tensor(problem.diagonal)
        x = starts.astype(np.float64)
        self.factor = self.gram = None
        if problem.factor is not None:
            self.factor = self._tensor(problem.factor.T)
            self.moments = self._tensor(x @ problem.factor.T)
        else:
            self.gram = self._tensor(problem.gram())
            self.moments = self._tensor(problem.fields(x))

    def _tensor(self, values: Floats) -> torch.Tensor:
        return torch.tensor(values, device=self.device)

    def fields(self) -> torch.Tensor:
        """Gradient of E in every read, shape (m, n)."""
        if self.factor is None:
            return self.moments
        return torch.addmm(self.linear, self.moments, self.factor.T)

    def open_window(self, reach: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Puts the window's variables in front, see `solvers.search.annealing_kernels.window`.

        Returns:
            How many ones and how many zeros it has in each read; both 0 where it is empty.
        """
        f = self.fields()
        cost_out = (0.5 * self.diagonal - f).gather(1, self.ones)
        cost_in = (0.5 * self.diagonal + f).gather(1, self.zeros)
        inside_out = cost_out + cost_in.amin(1, keepdim=True) <= reach
        inside_in = cost_in + cost_out.amin(1, keepdim=True) <= reach
        self.ones = self.ones.gather(1, torch.argsort(~inside_out, dim=1, stable=True))
        self.zeros = self.zeros.gather(1, torch.argsort(~inside_in, dim=1, stable=True))
        m1, m0 = inside_out.sum(1), inside_in.sum(1)
        both = (m1 > 0) & (m0 > 0)
        return m1 * both, m0 * both

    def step(self, temperature: float, m1: torch.Tensor, m0: torch.Tensor, number: int) -> None:
        """Proposal `number` of a sweep in every read whose window has as many variables."""
        size = len(self.rows)
        draws = torch.rand(
            3, size, generator=self.generator, device=self.device, dtype=torch.float64
        )
        a, b = (draws[0] * m1).long(), (draws[1] * m0).long()
        i, j = self.ones[self.rows, a], self.zeros[self.rows, b]
        if self.factor is not None:
            change = self.factor[j] - self.factor[i]
            delta = (change * (self.moments + 0.5 * change)).sum(1)
            delta += self.linear[j] - self.linear[i]
        else:
            assert self.gram is not None
            f = self.moments
            delta = f[self.rows, j] - f[self.rows, i] - self.gram[i, j]
            delta += 0.5 * (self.diagonal[i] + self.diagonal[j])
            change = self.gram[j] - self.gram[i]
        taken = (draws[2] < torch.exp(-delta / temperature)) & (number < m1 + m0)
        self.moments.addcmul_(change, taken[:, None].to(change.dtype))
        self.ones[self.rows, a] = torch.where(taken, j, i)
        self.zeros[self.rows, b] = torch.where(taken, i, j)

    def states(self) -> Bools:
        """Shape (m, n) of bool."""
        x = torch.zeros(len(self.rows), self.problem.n, dtype=torch.bool, device=self.device)
        x.scatter_(1, self.ones, value=True)
        return np.asarray(x.cpu().numpy())


def anneal_batch(
    problem: CardinalityProblem,
    starts: Bools,
    temperatures: Floats,
    margin: float,
    device: torch.device,
    seed: int,
    deadline: Deadline,
) -> Bools:
    """One sweep at each temperature in all reads; stops when the time is over.

    Args:
        problem: 0 < k < n.
        starts: feasible states, shape (m, n).
        temperatures: > 0.
        margin: half-width of the window in temperatures.
        device: where to work.
        seed: whole number from 0.
        deadline: ends it.

    Returns:
        States, shape (m, n).
    """
    batch = Batch(problem, starts, device, seed)
    with torch.inference_mode():
        for temperature in temperatures.tolist():
            m1, m0 = batch.open_window(margin * temperature)
            for number in range(int((m1 + m0).max())):
                if number % STEPS_PER_CHECK == 0:
                    if device.type == "cuda":
                        # Kernels are queued far ahead of the clock otherwise.
                        torch.cuda.synchronize(device)
                    if deadline.over:
                        return batch.states()
                batch.step(temperature, m1, m0, number)
    return batch.states()
