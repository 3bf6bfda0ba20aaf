"""Studies that were named; imports nothing that takes time."""

from __future__ import annotations

from pathlib import Path

from experiments.errors import StudyError

STUDIES = Path(__file__).parents[1] / "studies"
"""The studies of this package."""
LIBRARY = "library:"
"""What names of instances of the package begin with where a path might stand."""


def study_path(name: str | Path) -> Path:
    """A study file; a word that is no file may name one of this package's studies.

    Raises:
        StudyError: neither.
    """
    path, own = Path(name), STUDIES / f"{name}.toml"
    if path.exists() or (path.suffix == ".toml" and not own.exists()):
        return path
    if not own.exists():
        names = ", ".join(sorted(one.stem for one in STUDIES.glob("*.toml")))
        raise StudyError(f"study {str(name)!r} is no file and no study of this package: {names}")
    return own
