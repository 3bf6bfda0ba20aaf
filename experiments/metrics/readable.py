"""Shares and seconds as people read them; imports nothing that takes time."""

from __future__ import annotations

import math

# Below this a share is nothing but round-off.
ROUND_OFF = 1e-12


def percent(gap: float) -> str:
    """A gap for people: ``0``, ``0.03 %``, ``3e-05 %``, ``none`` for no feasible answer."""
    if math.isnan(gap) or math.isinf(gap):
        return "none"
    if gap == 0:
        return "0"
    value = 100 * gap
    if value >= 10:
        return f"{value:.0f} %"
    return f"{value:.0e} %" if value < 0.001 else f"{value:.2g} %"


def share(gap: float) -> str:
    """A gap or a share in a table, always with its unit; what is round-off is 0 %."""
    return "0 %" if abs(gap) < ROUND_OFF else percent(gap)


def duration(seconds: float) -> str:
    """Seconds for people: ``3.1 s``, ``12 ms``, ``80 µs``."""
    units = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6))
    unit, size = next((u for u in units if seconds >= u[1]), units[-1])
    value = seconds / size
    return f"{value:.0f} {unit}" if value >= 9.95 else f"{value:.1f} {unit}"
