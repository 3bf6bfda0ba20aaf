"""How good a model is."""

from typing import TYPE_CHECKING

from solvers.lazy import exports

if TYPE_CHECKING:
    from icbs.evaluation.quality import Quality as Quality
    from icbs.evaluation.quality import evaluate as evaluate

__getattr__, __dir__ = exports(
    __name__,
    {
        "Quality": "icbs.evaluation.quality:Quality",
        "evaluate": "icbs.evaluation.quality:evaluate",
    },
)
