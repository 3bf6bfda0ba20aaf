"""Texts with their classes, from a file of yours: on each line a class, a tab and a text.

A class is a name of the model's configuration (``label2id``) or its number. The last fifth of the
lines is held out for evaluation, less any text that also occurs before.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from icbs.data.loading import Part, checked_part, read_text
from icbs.data.samples import Samples
from icbs.errors import DataError

if TYPE_CHECKING:
    from icbs.models.loading import LoadedModel


def labelled_samples(
    loaded: LoadedModel,
    source: str | None,
    *,
    part: Part,
    count: int | None,
    length: int,
    start: int,
) -> Samples:
    """Samples for a model that classifies text; arguments and errors as of `load_samples`.

    Texts are tokenised with the special tokens, cut after `length` tokens and padded on the right.
    """
    if source is None:
        raise DataError(
            f"model {loaded.name!r} classifies text, for which no data comes with this package; "
            "give a UTF-8 file whose lines are a class, a tab and a text (--data FILE)"
        )
    rows = _rows(Path(source), part)
    end = len(rows) if count is None else start + count
    if not 0 <= start < end <= len(rows):
        raise DataError(
            f"{source!r} has {len(rows)} texts for {part}, and {count or 'all'} from number "
            f"{start} on are asked for; ask for fewer or give a longer file"
        )
    ids = [
        loaded.tokenizer(text, truncation=True, max_length=length, verbose=False)["input_ids"]
        for _, text in rows[start:end]
    ]
    inputs = torch.full((len(ids), max(map(len, ids))), loaded.tokenizer.pad_token_id or 0)
    mask = torch.zeros_like(inputs, dtype=torch.bool)
    for row, tokens in enumerate(ids):
        inputs[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = True
    classes = [_class(word, loaded.model.config, source) for word, _ in rows[start:end]]
    return Samples(inputs, torch.tensor(classes), None if mask.all() else mask, source)


def _rows(path: Path, part: Part) -> list[tuple[str, str]]:
    """Class and text of the lines of one part."""
    checked_part(part)
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        word, tab, text = line.partition("\t")
        if not line.strip():
            continue
        if not tab or not text.strip():
            raise DataError(
                f"{str(path)!r}, line {number}, is {line[:40]!r}; write a class, a tab and a text"
            )
        rows.append((word.strip(), text.strip()))
    cut = len(rows) - len(rows) // 5
    if part == "calibration":
        return rows[:cut]
    seen = {text for _, text in rows[:cut]}
    return [row for row in rows[cut:] if row[1] not in seen]


def _class(word: str, config: Any, source: str) -> int:
    known: dict[str, int] = getattr(config, "label2id", None) or {}
    if word in known:
        return int(known[word])
    if word.isdecimal() and int(word) < config.num_labels:
        return int(word)
    raise DataError(
        f"{source!r} has the class {word!r}; choose one of the model's {config.num_labels}: "
        f"{', '.join(sorted(known, key=known.__getitem__)[:10])}, or a number from 0"
    )
