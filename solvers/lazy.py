"""Public names of a package that are loaded on first use.

torch and the SDKs take seconds to import; a package that only names what it offers does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def exports(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package.

    Args:
        package: its ``__name__``.
        homes: each public name, and ``module:attribute`` where it is defined.
    """

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, attribute = homes[name].split(":")
        return getattr(import_module(module), attribute)

    return load, lambda: sorted(homes)
