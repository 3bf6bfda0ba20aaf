"""Modules that had other names in 0.1: importing one works for one more release, with a warning.

Only modules that the documentation of 0.1 named are here.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "experiments.plots": "experiments.figures.runs",
    "experiments.ranking": "experiments.metrics.ranking",
    "icbs.cli": "experiments.cli",
    "icbs.evaluate": "icbs.evaluation.quality",
    "icbs.mlp": "icbs.models.mlp",
    "icbs.samples": "icbs.data.samples",
    "solvers.formats": "solvers.io.formats",
}


class Forwarder(MetaPathFinder, Loader):
    """Finds a moved module where it is now."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A spec for the names of `MOVED`, None for all others."""
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module under its new name.

        Warns:
            DeprecationWarning: names the new one.
        """
        new = MOVED[spec.name]
        warnings.warn(f"{spec.name} is now {new}", DeprecationWarning, stacklevel=2)
        module = import_module(new)
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Runs nothing, the module ran under its new name; gives it its own spec back."""
        if module.__spec__ is not None:
            module.__spec__ = module.__spec__.loader_state


def install() -> None:
    """Adds the finder, once a process."""
    if not any(isinstance(finder, Forwarder) for finder in sys.meta_path):
        sys.meta_path.append(Forwarder())
