"""Random numbers inside compiled loops, from a state that each loop keeps for itself."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

RandomState = NDArray[np.uint64]
"""What `next_random` moves on, shape (1,)."""


def random_state_from(rng: np.random.Generator) -> RandomState:
    """A state of its own for a loop, drawn from the caller's generator."""
    return rng.integers(2**64, size=1, dtype=np.uint64)


@njit(cache=True, nogil=True)
def next_random(state: RandomState) -> np.uint64:
    """SplitMix64 (Steele, Lea and Flood, 2014): 64 random bits; moves `state` on."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(cache=True, nogil=True)
def random_pair(state: RandomState, m: int, n: int) -> tuple[int, int]:
    """Uniform whole numbers in 0..m-1 and 0..n-1, both < 2^32 (multiply-shift; bias < 2^-32 m)."""
    z = next_random(state)
    high, low = z >> np.uint64(32), z & np.uint64(0xFFFFFFFF)
    return int((high * np.uint64(m)) >> np.uint64(32)), int((low * np.uint64(n)) >> np.uint64(32))


@njit(cache=True, nogil=True)
def random_unit(state: RandomState) -> float:
    """Uniform in [0, 1) with 53 bits."""
    return float(next_random(state) >> np.uint64(11)) * (1.0 / 9007199254740992.0)
