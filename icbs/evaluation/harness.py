"""Tasks of EleutherAI's lm-evaluation-harness on a model in memory; needs the extra ``lm-eval``.

A task is a YAML file of yours in the harness's own format. Its data may be local files
(``dataset_path: json`` with ``data_files``), so that nothing is fetched. Such a file may name
functions in Python files beside it, which the harness runs: give it only files you trust.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from icbs.errors import DataError, SettingError
from icbs.models.loading import LoadedModel
from icbs.models.tasks import TASKS


def evaluate_tasks(
    loaded: LoadedModel, tasks: Sequence[Path], *, batch_size: int = 4
) -> dict[str, dict[str, float]]:
    """Every number that the harness computes, by task and metric.

    Args:
        loaded: a causal language model.
        tasks: YAML files.
        batch_size: requests at a time.

    Raises:
        SettingError: the extra is not installed, or the model is no causal language model or has
            no token that a text begins with.
        DataError: a file that is no task.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise SettingError("--tasks needs lm-eval: pip install 'icbs-bench[lm-eval]'")
    if not TASKS[loaded.task].harness:
        raise SettingError(
            f"--tasks needs a causal language model, {loaded.name!r} is for {loaded.task}: leave "
            "--tasks out"
        )
    if loaded.tokenizer.bos_token_id is None and loaded.tokenizer.eos_token_id is None:
        # The harness puts one of them before every text.
        raise SettingError(
            f"--tasks needs a tokenizer with a bos or eos token, that of {loaded.name!r} has "
            "neither: name one in its tokenizer_config.json"
        )
    for path in tasks:
        if not path.is_file():
            raise DataError(f"task {str(path)!r} is no file: give a YAML file of lm-eval's format")
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from yaml import YAMLError

    lm = HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=batch_size)
    try:
        found: Any = lm_eval.simple_evaluate(
            lm, tasks=[str(path) for path in tasks], log_samples=False
        )
    except (KeyError, TypeError, ValueError, AttributeError, OSError, YAMLError) as error:
        raise DataError(
            f"tasks {', '.join(map(str, tasks))} cannot be run by lm-eval ({error}): see its guide "
            "to new tasks"
        ) from error
    return {
        name: {key: float(value) for key, value in numbers.items() if isinstance(value, float)}
        for name, numbers in found["results"].items()
    }
