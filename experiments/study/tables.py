"""Tables of a study file as checked objects: what is wrong is said in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, dataclass_transform

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from experiments.errors import StudyError
from icbs.errors import nearest

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(Field,))
def table(key: str) -> Callable[[type[T]], type[T]]:
    """A decorator: a frozen dataclass whose values are checked, from a file as from Python.

    A field's ``title`` says what it should be.

    Args:
        key: of the study file, under which such a table stands; empty for the file itself.
    """

    def decorated(cls: type[T]) -> type[T]:
        checked: Any = dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid"))(cls)
        validate = checked.__init__

        @wraps(validate)
        def init(self: Any, *values: Any, **named: Any) -> None:
            try:
                validate(self, *values, **named)
            except ValidationError as refused:
                raise _error(checked, refused, key) from None
            except OverflowError:
                raise StudyError(f"{key or 'study'}: a number is beyond 1e308") from None

        checked.__init__ = init
        made: type[T] = checked
        return made

    return decorated


def inner(cls: type[Any]) -> BeforeValidator:
    """Makes a table inside another an object of its own, with sentences of its own."""
    return BeforeValidator(lambda value: cls(**value) if isinstance(value, dict) else value)


def _error(cls: Any, refused: ValidationError, key: str) -> StudyError:
    """The first thing that is wrong; an unknown key before one that is missing."""
    fields = cls.__pydantic_fields__
    errors = refused.errors(include_url=False)
    first = next((one for one in errors if one["loc"][0] not in fields), errors[0])
    if first["type"] == "value_error":
        own: StudyError = first["ctx"]["error"]
        return own
    name, value = str(first["loc"][0]), first["input"]
    place = f"{key}.{name}" if key else name
    if name not in fields:
        where = f"{key}: " if key else ""
        return StudyError(f"{where}unknown key {name!r}; {nearest(name, fields)}")
    if first["type"] == "missing":
        return StudyError(f"{place} is missing; add it")
    return StudyError(f"{place} is {value!r}; it should be {fields[name].title}")
