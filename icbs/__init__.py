"""The iCBS pruning loop: from the layers of a real model to block problems and back."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from icbs.shadows import check_packages

if TYPE_CHECKING:
    from icbs.export import export_blocks as export_blocks
    from icbs.loop import Pruner as Pruner
    from icbs.models import load_model as load_model

    __version__: str

__all__ = ["Pruner", "__version__", "export_blocks", "load_model"]

_HOME = {"Pruner": "icbs.loop", "export_blocks": "icbs.export", "load_model": "icbs.models"}

check_packages()


def __getattr__(name: str) -> Any:
    # torch takes seconds to import; `import icbs` and the quick commands do without it.
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("icbs-bench")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
