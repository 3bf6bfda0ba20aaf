"""Somebody's files that Python takes for our packages."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from icbs.errors import IcbsError

PACKAGES = ("solvers", "experiments")


class HiddenPackageError(IcbsError, ImportError):
    """Another module has the name of a package that `icbs` needs, and Python finds it first."""


def check_packages() -> None:
    """Refuses to go on where Python finds another module of a package's name.

    In a script, a notebook and with ``python -m`` the folder at work comes first on Python's path,
    and a ``solvers.py`` there hides the package that is installed.

    Raises:
        HiddenPackageError: which module hides which package, and what to do. The command ends with
            that sentence instead, and 2.
    """
    for name in PACKAGES:
        if found := hidden_by(name, Path(__file__).parents[1]):
            sentence = (
                f"{found} hides the package {name!r} that icbs-bench needs: rename it, or work in "
                "another folder"
            )
            if _is_command():
                print(f"icbs: {sentence}", file=sys.stderr)
                sys.exit(2)
            raise HiddenPackageError(sentence)


def hidden_by(name: str, ours: Path) -> Path | None:
    """What Python imports under a name, if that is not the package in the folder `ours`."""
    try:
        spec = find_spec(name)
    except ValueError:  # a module that somebody made by hand
        return None
    if spec is None:
        return None
    places = [*(spec.submodule_search_locations or []), *([spec.origin] if spec.origin else [])]
    found = Path(places[0]).resolve() if places else None
    return None if found is None or found == (ours / name).resolve() else found


def _is_command() -> bool:
    """Whether this process is the command `icbs`, not a program that imports the package."""
    if sys.argv[:1] == ["-m"]:  # until the package is imported
        return sys.orig_argv[sys.orig_argv.index("-m") + 1] in ("icbs",)
    return bool(sys.argv) and Path(sys.argv[0]).stem == "icbs"
