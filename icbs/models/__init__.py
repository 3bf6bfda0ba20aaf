"""Models: loading, what of them can be pruned, saving."""

from typing import TYPE_CHECKING

from solvers.lazy import exports

if TYPE_CHECKING:
    from icbs.models.loading import LoadedModel as LoadedModel
    from icbs.models.loading import load_model as load_model
    from icbs.models.mlp import MlpConfig as MlpConfig
    from icbs.models.mlp import MlpForImageClassification as MlpForImageClassification

__getattr__, __dir__ = exports(
    __name__,
    {
        "LoadedModel": "icbs.models.loading:LoadedModel",
        "MlpConfig": "icbs.models.mlp:MlpConfig",
        "MlpForImageClassification": "icbs.models.mlp:MlpForImageClassification",
        "load_model": "icbs.models.loading:load_model",
    },
)
