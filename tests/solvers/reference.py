"""What solvers are compared with: every state, energies term by term or in rational numbers."""

import itertools
from fractions import Fraction

import numpy as np


def every_state(n):
    return np.array(list(itertools.product([0, 1], repeat=n)), dtype=np.int8).reshape(2**n, n)


def magnitude(problem):
    """Size of the terms an energy is summed from: what relative precision refers to."""
    return (
        abs(problem.offset)
        + np.abs(problem.linear).sum()
        + 0.5 * np.abs(problem.gram()).sum()
        + 1e-300
    )


def feasible_states(problem):
    rows = []
    for chosen in itertools.combinations(range(problem.n), problem.cardinality):
        x = np.zeros(problem.n, dtype=bool)
        x[list(chosen)] = True
        rows.append(x)
    return np.array(rows)


def exact_energy(problem, x):
    """In rational numbers: no rounding at all."""
    chosen = np.flatnonzero(x)
    total = Fraction(problem.offset) + sum(Fraction(float(problem.linear[i])) for i in chosen)
    if problem.factor is not None:
        rows = (sum(Fraction(float(row[i])) for i in chosen) for row in problem.factor)
        return total + sum((v * v for v in rows), Fraction(0)) / 2
    G = problem.quadratic
    return total + sum(Fraction(float(G[i, j])) for i in chosen for j in chosen) / 2


def boltzmann(problem, temperature):
    """Feasible states and their probabilities."""
    states = feasible_states(problem)
    energies = problem.energy(states)
    weights = np.exp(-(energies - energies.min()) / temperature)
    return states, weights / weights.sum()


def frequencies(states, visited):
    keys = {tuple(x): row for row, x in enumerate(states.tolist())}
    counts = np.zeros(len(states))
    for x in np.asarray(visited).tolist():
        counts[keys[tuple(x)]] += 1
    return counts / counts.sum()
