"""A solver of one's own: steepest descent over swaps, and what the contract asks of it.

    python examples/own_solver.py

It prints the best energy found, and the proven optimum.
"""

import numpy as np

from solvers import Budget, CardinalityProblem, CardinalitySampler, make
from solvers.base import ReadPool, Request, Solution


class SteepestSwap(CardinalitySampler):
    """From random starts, makes the best of all swaps until none lowers the energy."""

    name = "steepest-swap"
    honours = ("time_limit", "reads")

    def _solve(self, problem: CardinalityProblem, request: Request) -> Solution:
        G = problem.gram()
        found = ReadPool(problem, request)
        reads = request.budget.reads or 10
        while found.reads < reads and (found.reads == 0 or request.deadline.left > 0):
            x = np.zeros(problem.n, dtype=bool)
            x[request.rng.permutation(problem.n)[: problem.cardinality]] = True
            found.add(descended(x, G, problem.linear))
        return found.solution()


def descended(x: np.ndarray, G: np.ndarray, c: np.ndarray) -> np.ndarray:
    """The local optimum over swaps that a mask leads to."""
    while True:
        ones, zeros = np.flatnonzero(x), np.flatnonzero(~x)
        field = G @ x + c
        # Energy change of swapping a one, i (rows), with a zero, j (columns).
        change = (
            (field[zeros] + G[zeros, zeros] / 2)[None]
            - (field[ones] - G[ones, ones] / 2)[:, None]
            - G[np.ix_(ones, zeros)]
        )
        i, j = np.unravel_index(change.argmin(), change.shape)
        if change[i, j] > -1e-12:
            return x
        x[ones[i]], x[zeros[j]] = False, True


def main() -> None:
    """Solves a drawn problem, checks the answer, compares it with the proven optimum."""
    rng = np.random.default_rng(0)
    problem = CardinalityProblem(
        linear=rng.normal(size=20), factor=rng.normal(size=(6, 20)), cardinality=10
    )
    solver = SteepestSwap()
    samples = solver.sample_problem(problem, budget=Budget(reads=20), seed=1)
    again = solver.sample_problem(problem, budget=Budget(reads=20), seed=1)
    best = make("enumerate").sample_problem(problem).first.energy
    assert problem.is_feasible(samples.record.sample).all()
    assert np.allclose(problem.energy(samples.record.sample), samples.record.energy)
    assert (samples.record.sample == again.record.sample).all()
    assert samples.first.energy >= best - 1e-9
    print(f"{solver.name}: {samples.first.energy:.4f}, optimum: {best:.4f}")
    # Plain dimod models work as well.
    same = solver.sample(problem.to_bqm(), cardinality=problem.cardinality, num_reads=20, seed=1)
    assert np.isclose(same.first.energy, samples.first.energy)


if __name__ == "__main__":
    main()
