"""A solver's answer as swaps of weights, to be applied in whole, in part, or undone."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from icbs.blocks.layers import PrunedLayer
from solvers.base import Budget, CardinalitySampler
from solvers.problem import CardinalityProblem


class Move:
    """The swaps that lead from the current mask of a block to a better one.

    Swaps are ordered by what the gradient at the current mask promises, so that a share of them is
    the better part. In a layer with an N:M pattern the two weights of a swap are of the same group,
    so that any share of a move keeps the pattern.

    Attributes:
        layer: where it applies.
        n: variables of the block.
        k: of them pruned.
    """

    def __init__(
        self, problem: CardinalityProblem, layer: PrunedLayer, state: NDArray[np.bool_]
    ) -> None:
        assert problem.initial is not None
        assert problem.indices is not None
        self.layer, self.n, self.k = layer, problem.n, problem.cardinality
        self._problem = problem
        fields = problem.fields(problem.initial)
        revived = np.flatnonzero(problem.initial & ~state)
        pruned = np.flatnonzero(~problem.initial & state)
        if layer.m is None:
            self._revived = revived[np.argsort(-fields[revived], kind="stable")]
            self._pruned = pruned[np.argsort(fields[pruned], kind="stable")]
        else:
            # One of each from a group, so in the order of their groups they are pairs.
            groups = problem.indices // layer.m
            revived = revived[np.argsort(groups[revived], kind="stable")]
            pruned = pruned[np.argsort(groups[pruned], kind="stable")]
            order = np.argsort(fields[pruned] - fields[revived], kind="stable")
            self._revived, self._pruned = revived[order], pruned[order]
        self._applied: tuple[torch.Tensor, torch.Tensor] | None = None

    def swaps(self, share: float) -> int:
        """Number of swaps in a share of the move."""
        return int(np.ceil(share * len(self._revived)))

    def predicted(self, share: float) -> float:
        """Predicted loss change of a share of the move, in nats per token."""
        m = self.swaps(share)
        state = self._problem.initial.copy()  # type: ignore[union-attr]
        state[self._revived[:m]] = False
        state[self._pruned[:m]] = True
        return float(self._problem.energy(state)) * self._problem.scale

    def apply(self, share: float) -> None:
        """Takes a share of the swaps."""
        m = self.swaps(share)
        positions = self._problem.indices
        assert positions is not None
        device = self.layer.dense.device
        revived = torch.from_numpy(positions[self._revived[:m]]).to(device)
        pruned = torch.from_numpy(positions[self._pruned[:m]]).to(device)
        self.layer.swap(revived, pruned)
        self._applied = (revived, pruned)

    def undo(self) -> None:
        """Takes the applied swaps back."""
        assert self._applied is not None
        revived, pruned = self._applied
        self.layer.swap(pruned, revived)
        self._applied = None

    def rows(self) -> NDArray[np.float64]:
        """Change of the factor's rows by the whole move, ``J delta``, shape (r,), loss units."""
        assert self._problem.factor is not None
        step = np.zeros(self._problem.n)
        step[self._revived], step[self._pruned] = 1, -1
        change: NDArray[np.float64] = self._problem.factor @ step * np.sqrt(self._problem.scale)
        return change

    def retire(self) -> None:
        """Counts the block's weights as tried and makes them tabu."""
        assert self._problem.indices is not None
        positions = torch.tensor(self._problem.indices, device=self.layer.dense.device)
        self.layer.touched[positions] = True
        self.layer.tabu.add(positions)


def keep_pattern(
    problem: CardinalityProblem, states: NDArray[np.bool_], m: int
) -> NDArray[np.bool_]:
    """The states with every pair put back of which only one weight changed sides.

    Args:
        problem: of a block that `icbs.blocks.selection.select_pairs` chose: two variables a group,
            one pruned and one kept.
        states: any, shape (s, n).
        m: weights in a group.
    """
    assert problem.initial is not None
    assert problem.indices is not None
    changed = states != problem.initial
    # The two variables of a group, side by side.
    pairs = np.argsort(problem.indices // m, kind="stable").reshape(-1, 2)
    both = changed[:, pairs].all(axis=2)
    kept = np.zeros_like(changed)
    kept[:, pairs[:, 0]] = kept[:, pairs[:, 1]] = both
    result: NDArray[np.bool_] = problem.initial ^ kept
    return result


def best_state(
    problem: CardinalityProblem,
    solver: CardinalitySampler,
    budget: Budget | None,
    seed: int,
    m: int | None = None,
) -> NDArray[np.bool_]:
    """Solves a block; the same wherever it runs.

    Every sample is scored anew; the current mask stands unless a feasible one is better.

    Args:
        problem: of the block.
        solver: any.
        budget: what it may spend.
        seed: of the solver.
        m: weights in a group of the layer's N:M pattern, to which samples are first brought back
            (see `keep_pattern`); None: no pattern.

    Returns:
        The best state, shape (n,).
    """
    initial = problem.initial if solver.takes_initial else None
    samples = solver.sample_problem(problem, budget=budget, seed=seed, initial=initial)
    # By variable, because a sampler may order its columns as it likes.
    order = np.argsort(np.asarray(samples.variables))
    states = np.asarray(samples.record.sample)[:, order].astype(np.bool_)
    if m is not None:
        states = keep_pattern(problem, states, m)
    states = states[problem.is_feasible(states)]
    best = problem.initial
    assert best is not None
    if len(states):
        energies = problem.energy(states)
        winner = int(np.argmin(energies))
        if energies[winner] < 0:
            best = states[winner]
    return best
