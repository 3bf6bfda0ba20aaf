"""What models are fed: text, images, samples."""

from typing import TYPE_CHECKING

from solvers.lazy import exports

if TYPE_CHECKING:
    from icbs.data.loading import load_samples as load_samples
    from icbs.data.samples import Samples as Samples

__getattr__, __dir__ = exports(
    __name__,
    {"Samples": "icbs.data.samples:Samples", "load_samples": "icbs.data.loading:load_samples"},
)
