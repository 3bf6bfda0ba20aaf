"""What is fuzzed: a reader, samples that it can read, and how those are made hostile."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.fuzz.mutate import corrupted, linked, pick

# Which module knows which format; torch is imported only where it is needed.
MODULES = {
    "container": "problems",
    "bqm": "problems",
    "lp": "problems",
    "ubqp": "problems",
    "sparse": "problems",
    "qubo": "problems",
    "qplib": "problems",
    "study": "studies",
    "store": "studies",
    "checkpoint": "runs",
    "masks": "runs",
    "idx": "images",
    "parquet": "images",
    "model": "models",
    "gguf": "models",
}


@dataclass(frozen=True)
class Target:
    """A reader under test.

    Attributes:
        name: of the format.
        seeds: makes samples that load, as many as are useful, always the same.
        mutate: ``(rng, seeds) -> sample``, from the fields inside the format.
        load: ``(path, out)``: loads the file (or folder) and checks what came; may write into the
            folder `out`. Raises `AssertionError` where something wrong was loaded.
        errors: what it may raise instead, and nothing else.
        folder: whether the sample's folder is loaded instead of its first file.
        beside: endings of files that the reader keeps beside the one it reads.
    """

    name: str
    seeds: Callable[[], list[dict[str, Any]]]
    mutate: Callable[[Any, list[dict[str, Any]]], dict[str, Any]]
    load: Callable[[Path, Path], None]
    errors: tuple[type[Exception], ...]
    folder: bool = False
    beside: tuple[str, ...] = ()

    def sample(self, rng, seeds):
        """A hostile sample and how it came about."""
        kind = rng.random()
        if kind < 0.02:
            return linked(rng, pick(rng, seeds)), "link"
        if kind < 0.3:
            sample = dict(pick(rng, seeds))
            name = pick(rng, list(sample))
            others = [one[name] for one in seeds if name in one]
            sample[name] = corrupted(rng, sample[name], others)
            return sample, "bytes"
        return self.mutate(rng, seeds), "fields"


@cache
def target(name):
    """The target of that name.

    Raises:
        KeyError: no such format.
    """
    return import_module(f"tests.fuzz.{MODULES[name]}").TARGETS[name]


def written(name, write):
    """The bytes that `write` puts into a file of that name."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        write(path)
        return path.read_bytes()
