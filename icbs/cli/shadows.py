"""Somebody's files that Python takes for our packages."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("solvers", "experiments")


def check_packages() -> None:
    """Ends the program, with a sentence, where Python finds another module of a package's name.

    With ``python -m`` the working directory comes first on Python's path, and a ``solvers.py``
    there hides the package that is installed.
    """
    for name in PACKAGES:
        if found := hidden_by(name, Path(__file__).parents[2]):
            sys.exit(
                f"icbs: {found} hides the package {name!r} that icbs-bench needs: rename it, or "
                "work in another folder"
            )


def hidden_by(name: str, ours: Path) -> Path | None:
    """What Python imports under a name, if that is not the package in the folder `ours`."""
    spec = find_spec(name)
    if spec is None:
        return None
    places = [*(spec.submodule_search_locations or []), *([spec.origin] if spec.origin else [])]
    found = Path(places[0]).resolve() if places else None
    return None if found is None or found == (ours / name).resolve() else found
