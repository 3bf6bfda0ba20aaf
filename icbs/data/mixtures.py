"""Several texts as one source, such as ``wikipedia:0.5,self:0.5``: their windows take turns."""

from __future__ import annotations

import re

from icbs.errors import DataError

_PART = re.compile(r"(.+):([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)")


def shares(source: str) -> dict[str, float] | None:
    """Shares by text; None for a single source.

    Raises:
        DataError: shares that do not add up to 1, a text named twice, a part without a share.
    """
    parts = [part.strip() for part in source.split(",")]
    found = [_PART.fullmatch(part) for part in parts]
    if not any(found):
        return None
    mixture: dict[str, float] = {}
    for part, match in zip(parts, found, strict=True):
        if match is None:
            raise DataError(f"source {part!r} of {source!r} has no share: write it as {part}:SHARE")
        if match[1] in mixture:
            raise DataError(f"source {match[1]!r} of {source!r} is named twice: add its shares up")
        mixture[match[1]] = float(match[2])
    total = sum(mixture.values())
    if abs(total - 1) > 1e-6:
        raise DataError(f"the shares of {source!r} add up to {total:g}: make them add up to 1")
    return mixture


def turns(mixture: dict[str, float], count: int) -> list[str]:
    """Whose turn each of the first windows is: any prefix has the shares, within one window."""
    taken = dict.fromkeys(mixture, 0)
    order = []
    for number in range(1, count + 1):
        name = max(mixture, key=lambda name: mixture[name] * number - taken[name])
        taken[name] += 1
        order.append(name)
    return order
