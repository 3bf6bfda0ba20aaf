"""Values checked by pydantic, complaints in our own words: name, value, what to choose instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar, get_args

from pydantic import ValidationError

from icbs.errors import IcbsError, SettingError, nearest

T = TypeVar("T")


def plain_errors(
    errors: Mapping[str, type[IcbsError]] | None = None,
) -> Callable[[type[T]], type[T]]:
    """A decorator for a pydantic dataclass: what it refuses is said in one sentence.

    A field's ``title`` says what may be chosen. NumPy's numbers count as Python's.

    Args:
        errors: class of the error by field; `SettingError` for all others.
    """

    def decorated(cls: type[T]) -> type[T]:
        validate = cls.__init__

        @wraps(validate)
        def init(self: Any, **values: Any) -> None:
            plain = {n: v.item() if hasattr(v, "item") else v for n, v in values.items()}
            try:
                validate(self, **plain)
            except ValidationError as refused:
                raise _in_words(cls, refused, errors or {}) from None

        cls.__init__ = init  # type: ignore[method-assign]
        return cls

    return decorated


def one_line(refused: ValidationError) -> str:
    """The first thing that is wrong: where, what it should be, and what it is."""
    first = refused.errors()[0]
    place = ".".join(map(str, first["loc"])) or "record"
    return f"{place}: {first['msg']} (it is {str(first['input'])[:80]!r})"


def _in_words(
    cls: Any, refused: ValidationError, errors: Mapping[str, type[IcbsError]]
) -> Exception:
    first = refused.errors()[0]
    if first["type"] == "value_error":
        own: Exception = first["ctx"]["error"]
        return own
    name, value = str(first["loc"][0]), first["input"]
    fields = cls.__pydantic_fields__
    if name not in fields:
        return SettingError(f"there is no setting {name!r}; {nearest(name, fields)}")
    field = fields[name]
    if first["type"] == "literal_error":
        remedy = nearest(str(value), get_args(field.annotation))
    else:
        remedy = f"choose {field.title or field.annotation}"
    return errors.get(name, SettingError)(f"{name} is {value!r}; {remedy}")
