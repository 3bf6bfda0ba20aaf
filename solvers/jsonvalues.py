"""JSON values that cannot be changed: what a problem's `meta` holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import numpy as np

from solvers.errors import ProblemError


def _refuse(self: object, *args: object, **keywords: object) -> NoReturn:
    raise TypeError(
        "meta is read-only: make a new problem with replace(problem, meta={**problem.meta, ...})"
    )


class FrozenDict(dict[str, Any]):
    """A dict without any way to change it; equal to a plain one, and JSON as it is."""

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return FrozenDict, (dict(self),)

    def __copy__(self) -> FrozenDict:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenDict:
        return self


class FrozenList(list[Any]):
    """A list without any way to change it; equal to a plain one, and JSON as it is."""

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = remove = _refuse
    reverse = sort = _refuse

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return FrozenList, (list(self),)

    def __copy__(self) -> FrozenList:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenList:
        return self


def frozen_json(name: str, value: Any) -> Any:
    """A copy of a JSON value that cannot be changed; numpy's scalars and arrays become JSON.

    Args:
        name: of the argument, for messages.
        value: dicts with text keys, lists, text, numbers, truth values, None; nested.

    Raises:
        ProblemError: anything else, named by the keys that lead to it.
    """
    if isinstance(value, FrozenDict | FrozenList):
        return value
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ProblemError(f"{name} has the key {key!r}, expected text: pass str(key)")
        return FrozenDict({key: frozen_json(f"{name}[{key!r}]", v) for key, v in value.items()})
    if isinstance(value, list | tuple):
        return FrozenList(frozen_json(f"{name}[{i}]", v) for i, v in enumerate(value))
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    shown = value if isinstance(value, float) else f"a {type(value).__name__}"
    raise ProblemError(
        f"{name} is {shown}, not a JSON value: pass text, a finite number, or a list or dict of "
        "them"
    )
