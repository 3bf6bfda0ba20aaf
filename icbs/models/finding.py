"""Where a model's files are: a registered name, a local folder, or the hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import hf_hub_download, snapshot_download

from icbs.errors import DownloadError, IcbsError, ModelError, memory_remedy
from icbs.models.modelfiles import check_config, check_folder
from icbs.models.registered import REGISTRY, fetched, local_folder, quiet_transformers

# What stands beside the weights of a model of the hub.
_OTHERS = ("*.json", "*.txt", "*.jinja", "*.model", "*.md", "LICENSE*", "NOTICE*")


def find_model(name: str) -> tuple[Path | str, str]:
    """Where a model's files are, a folder or a hub id, and what is to be noted about them.

    Raises:
        ModelError: no such model, or a folder that holds none.
        DownloadError: a registered model that has to be fetched, and the fetch fails.
    """
    if name in REGISTRY:
        entry = REGISTRY[name]
        return fetched(entry), entry.note
    folder = local_folder(name)
    if folder is None:
        return name, "hub"
    check_folder(folder, name)
    return folder, "local folder"


def hub_folder(name: str) -> Path:
    """The folder of the hub's cache; its name is the commit that the hub serves now."""
    with load_errors(name, name):
        config = Path(hf_hub_download(name, "config.json"))
        check_config(config, name)
        return config.parent


def fetch_others(name: str, commit: str) -> tuple[str, ...]:
    """Fetches image processor, templates and licence, which a saved model takes along."""
    try:
        with quiet_transformers():
            snapshot_download(name, revision=commit, allow_patterns=list(_OTHERS))
    # The hub's client raises many kinds; the model itself is here.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [repr(error)])[0]
        return (
            f"files beside the weights of {name!r} could not be fetched ({reason}), so that what "
            "is saved may lack some of them",
        )
    return ()


@contextmanager
def load_errors(source: Path | str, name: str) -> Iterator[None]:
    """One sentence for whatever transformers and the hub raise while they read a model.

    Raises:
        ModelError: it cannot be loaded.
        DownloadError: the hub cannot be reached.
        MemoryLimitError: it does not fit.
    """
    try:
        with memory_remedy(f"the model {name!r}", "choose a smaller model or load it in bfloat16"):
            yield
    except IcbsError:
        raise
    # transformers raises whatever its reading of a damaged configuration runs into.
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        if isinstance(source, str) and _is_offline(error):
            raise DownloadError(
                f"model {name!r} is not in the hub's cache and the hub cannot be reached "
                f"({reason}): check the network or give a local folder"
            ) from error
        raise ModelError(
            f"model {name!r} cannot be loaded ({reason}): it must be a language model or a "
            "classifier with config.json, safetensors weights and, for text, a tokenizer"
        ) from error


def _is_offline(error: BaseException | None) -> bool:
    words = ("couldn't connect", "offline", "connection", "resolve")
    while error is not None:
        if any(word in str(error).lower() for word in words):
            return True
        error = error.__cause__ or error.__context__
    return False
