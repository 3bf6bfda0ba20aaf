"""The iCBS pruning loop: from the layers of a real model to block problems and back."""

from typing import TYPE_CHECKING, Any

from icbs.shadows import check_packages

# Before anything of `solvers` is imported: it may be hidden by another module of that name.
check_packages()

from solvers import moved  # noqa: E402
from solvers.lazy import exports  # noqa: E402

if TYPE_CHECKING:
    from icbs.blocks.export import export_blocks
    from icbs.loop.pruner import Pruner
    from icbs.models.loading import load_model

    __version__: str

__all__ = ["Pruner", "__version__", "export_blocks", "load_model"]

moved.install()

_load, __dir__ = exports(
    __name__,
    {
        "Pruner": "icbs.loop.pruner:Pruner",
        "export_blocks": "icbs.blocks.export:export_blocks",
        "load_model": "icbs.models.loading:load_model",
    },
)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("icbs-bench")
    return _load(name)
