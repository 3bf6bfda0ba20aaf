"""What a mask is asked for, checked: its density, its groups, its N:M pattern, its layers."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from fnmatch import fnmatchcase
from typing import Literal

from icbs.errors import DensityError, LayerError

Group = Literal["layer", "output", "input"]


def checked_density(density: float) -> float:
    """The density, if it lies strictly between 0 and 1.

    Raises:
        DensityError: it does not.
    """
    if not 0 < density < 1:
        raise DensityError(
            f"density is {density}, the fraction of weights to keep; choose a value between 0 and 1"
        )
    return float(density)


def told(density: float) -> str:
    """A density as a person reads it, with the sparsity beside it."""
    return f"density {density:.4g} (sparsity {1 - density:.4g})"


def parse_pattern(pattern: str) -> tuple[int, int]:
    """N and M of a pattern such as ``2:4``.

    Raises:
        DensityError: anything else, or not 0 < n < m.
    """
    n, colon, m = pattern.partition(":")
    if not (colon and n.isdecimal() and m.isdecimal() and 0 < int(n) < int(m)):
        raise DensityError(f"pattern is {pattern!r}; choose N:M with 0 < N < M, such as 2:4")
    return int(n), int(m)


def matching(names: Collection[str], glob: str, what: str) -> list[str]:
    """The names that one of several shell patterns, separated by commas, matches.

    Args:
        names: of layers.
        glob: patterns such as ``*.mlp.*``.
        what: the names are, for the message.

    Raises:
        LayerError: there is none.
    """
    patterns = [pattern.strip() for pattern in glob.split(",")]
    chosen = [name for name in names if any(fnmatchcase(name, p) for p in patterns)]
    if not chosen:
        close = difflib.get_close_matches(glob, names, n=3, cutoff=0.3) or list(names)[:3]
        raise LayerError(
            f"layers {glob!r} match none of the {what}; close names: {', '.join(close)}. Patterns "
            "are shell globs such as '*.mlp.*'"
        )
    return chosen
