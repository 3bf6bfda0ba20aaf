"""What models predict, and all that follows from it: one row of `TASKS` a task.

A row names functions as ``module:function``, so that this table costs nothing to import.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from icbs.data.samples import Samples


@dataclass(frozen=True, kw_only=True)
class Task:
    """A kind of prediction.

    Attributes:
        endings: how names of its architectures in config.json end.
        auto_class: class of transformers that loads it.
        sampler: ``module:function`` that makes samples; takes the loaded model, a source of data or
            None, and by name part, count, length and start (see `icbs.data.loading.load_samples`).
        amounts: ``module:function`` that takes a source and gives the usual numbers of calibration
            samples, of those held out and of those in a batch.
        choices: entry of the configuration that says among how many classes or tokens it chooses.
        tokenizer: the model comes with one.
        perplexity: the exponential of its loss is a perplexity.
        harness: lm-eval can measure it.
        data: what it is evaluated on where nothing is said; None is what `sampler` takes then.
        evaluation: samples that `icbs evaluate` takes of each; None all.
        test: those that a pruning is measured on.
        evaluation_batch: samples in one forward pass of an evaluation.
        settings: of `icbs.settings.Settings`, where the usual ones do not suit it.
    """

    endings: tuple[str, ...]
    auto_class: str
    sampler: str
    amounts: str = "icbs.data.loading:usual_amounts"
    choices: str = "num_labels"
    tokenizer: bool = True
    perplexity: bool = False
    harness: bool = False
    data: tuple[str | None, ...] = (None,)
    evaluation: int | None = None
    test: int | None = None
    evaluation_batch: int = 4
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def samples(self) -> Callable[..., Samples]:
        """The function that makes samples."""
        return resolve_name(self.sampler)

    def usual(self, source: str | None) -> tuple[int, int, int]:
        """Usual numbers of calibration samples, of those held out and of those in a batch."""
        return resolve_name(self.amounts)(source)


TASKS: dict[str, Task] = {
    "causal-lm": Task(
        endings=("ForCausalLM", "LMHeadModel"),
        auto_class="AutoModelForCausalLM",
        sampler="icbs.data.loading:next_token_samples",
        choices="vocab_size",
        perplexity=True,
        harness=True,
        data=("wikipedia", "pydoc"),
        evaluation=64,
        test=16,
    ),
    "masked-lm": Task(
        endings=("ForMaskedLM", "ForPreTraining"),
        auto_class="AutoModelForMaskedLM",
        sampler="icbs.data.loading:masked_token_samples",
        choices="vocab_size",
        perplexity=True,
        data=("wikipedia", "pydoc"),
        evaluation=64,
        test=16,
    ),
    "text-classification": Task(
        endings=("ForSequenceClassification",),
        auto_class="AutoModelForSequenceClassification",
        sampler="icbs.data.labelled:labelled_samples",
    ),
    "image-classification": Task(
        # DeiT's variant with a distillation head has a name of its own.
        endings=("ForImageClassification", "ForImageClassificationWithTeacher"),
        auto_class="AutoModelForImageClassification",
        sampler="icbs.data.loading:image_samples",
        amounts="icbs.data.loading:image_amounts",
        tokenizer=False,
        evaluation_batch=500,
        # One position an image: the two Fishers are one, and position is the one with a sketch.
        settings={"fisher": "position"},
    ),
}


def task_of(architecture: str) -> str | None:
    """The task whose architectures end like this one; None if there is no such."""
    return next((name for name, task in TASKS.items() if architecture.endswith(task.endings)), None)
