"""Fashion-MNIST: 70,000 grey 28 x 28 images of clothes in ten classes (Xiao et al. 2017, MIT).

The four original IDX files, plain or gzipped, are taken from the first of: a folder of the user's
(itself or torchvision's ``FashionMNIST/raw`` below it); the folder of the Debian package
``dataset-fashion-mnist``; the part that comes with this package, the first 4,000 training and the
first 2,000 test images in the order of the files (``embedded/``, made by the script
``experiments/scripts/embed_fashion.py``). Who asks for ``hub`` gets
``zalando-datasets/fashion_mnist``.

System data is looked for in ``/usr/share/datasets``, or in the folder that the environment variable
``ICBS_SYSTEM_DATA`` names; set to nothing, it is looked for nowhere.

IDX format: two zero bytes, a type byte (8: unsigned bytes), the number of dimensions, each
dimension as a big-endian 32-bit integer, then the values, last dimension fastest.
"""

from __future__ import annotations

import gzip
import lzma
import math
import os
import struct
import zipfile
import zlib
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from icbs.errors import DataError, DownloadError

# Mean and standard deviation of the training images' pixels, scaled to 0..1.
MEAN, DEVIATION = 0.2860, 0.3530
CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
SYSTEM_DATA = "/usr/share/datasets"
HUB = "hub"
HUB_DATASET = "zalando-datasets/fashion_mnist"
ARCHIVE = Path(__file__).parents[1] / "embedded" / "fashion-mnist.zip"
FULL, EMBEDDED = "Fashion-MNIST", "Fashion-MNIST (6,000 embedded images)"
REMEDY = (
    "run `apt-get install dataset-fashion-mnist`, or give the folder of its four IDX files with "
    "--data FOLDER"
)

Split = Literal["train", "test"]
Bytes = NDArray[np.uint8]
# A folder, or one inside a zip archive.
Place = Path | zipfile.Path

STEM = {"train": "train", "test": "t10k"}
# Beyond the training split: 60,000 rows, 31 MB.
_MOST_ROWS, _MOST_BYTES = 100_000, 1 << 27
_HUB_FILE = "fashion_mnist/{}-00000-of-00001.parquet"


def fashion_mnist(split: Split, data: Path | str | None = None) -> tuple[Bytes, Bytes]:
    """Images and classes of one split, in the order of the files.

    Args:
        split: ``train`` (60,000 images, 4,000 of them embedded) or ``test`` (10,000, 2,000).
        data: the folder of the IDX files, or ``hub``; None takes the system's or the embedded ones.

    Returns:
        ``(images, labels)``, shapes (count, 28, 28) and (count,).

    Raises:
        DataError: no such folder or split, or a file that is not what it should be.
        DownloadError: the hub cannot be reached.
    """
    if split not in STEM:
        raise DataError(f"split is {split!r}; choose 'train' or 'test'")
    if str(data) == HUB:
        images, labels = _from_hub(split)
    elif folder := _system_folder() if data is None else Path(data).expanduser():
        images, labels = _read(folder, split)
    else:
        with zipfile.ZipFile(ARCHIVE) as archive:
            images, labels = _read(zipfile.Path(archive), split)
    if images.ndim != 3 or labels.shape != images.shape[:1] or not len(labels):
        raise DataError(
            f"Fashion-MNIST's {split} images have shape {images.shape} and its labels "
            f"{labels.shape}, expected (count, 28, 28) and (count,): {REMEDY}"
        )
    if images.shape[1:] != (28, 28) or labels.max() >= len(CLASSES):
        raise DataError(
            f"Fashion-MNIST's {split} images are {images.shape[1]} x {images.shape[2]} with labels "
            f"up to {labels.max()}, expected 28 x 28 and 9: {REMEDY}"
        )
    return images, labels


def origin(data: Path | str | None = None) -> str:
    """What `fashion_mnist` takes its images from, as records, tables and figures name it."""
    if data is not None and str(data) != HUB:
        return str(data)
    return EMBEDDED if data is None and _system_folder() is None else FULL


def _system_folder() -> Path | None:
    """The system's folder, if both splits are there: the parts of two sets are never mixed."""
    found = os.environ.get("ICBS_SYSTEM_DATA", SYSTEM_DATA)
    folder = Path(found) / "fashion-mnist"
    return folder if found and all(_idx_files(folder, split) for split in STEM) else None


def _read(folder: Place, split: Split) -> tuple[Bytes, Bytes]:
    found = _idx_files(folder, split)
    if found is None:
        raise DataError(
            f"folder {str(folder)!r} has no {STEM[split]}-images-idx3-ubyte and "
            f"{STEM[split]}-labels-idx1-ubyte (plain or .gz): {REMEDY}"
        )
    return read_idx(found[0]), read_idx(found[1])


def _idx_files(folder: Place, split: str) -> tuple[Place, Place] | None:
    for place in (folder, folder / "FashionMNIST" / "raw"):
        paths: list[Place] = []
        for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"):
            either = [place / f"{STEM[split]}-{kind}{suffix}" for suffix in ("", ".gz")]
            paths += [path for path in either if path.is_file()][:1]
        if len(paths) == 2:
            return paths[0], paths[1]
    return None


def read_idx(path: Place) -> Bytes:
    """An array of unsigned bytes from an IDX file, plain or gzipped, or inside a zip archive.

    Raises:
        DataError: not IDX, another type than unsigned bytes, or another size than it declares.
    """
    if not path.is_file():
        raise DataError(f"{path} is no file: {REMEDY}")
    try:
        with path.open("rb") as raw, gzip.open(raw) if path.suffix == ".gz" else raw as file:
            header = file.read(4)
            if len(header) < 4 or header[:3] != b"\0\0\x08" or not 1 <= header[3] <= 4:
                raise DataError(
                    f"{path} is no IDX file of unsigned bytes (it starts with {header.hex()}): "
                    f"{REMEDY}"
                )
            sizes = file.read(4 * header[3])
            if len(sizes) < 4 * header[3]:
                raise DataError(f"{path} ends within its header: {REMEDY}")
            shape = struct.unpack(f">{header[3]}I", sizes)
            # A reader never takes more than one byte beyond what is declared, whatever the archive
            # unpacks to, and never allocates for a declared size that is not there.
            body = _at_most(file, math.prod(shape) + 1)
    except (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read ({error}): {REMEDY}") from error
    if len(body) != math.prod(shape):
        had = f"{len(body)}" if len(body) < math.prod(shape) else "more"
        raise DataError(
            f"{path} declares {' x '.join(map(str, shape))} bytes and has {had}: {REMEDY}"
        )
    return np.frombuffer(body, dtype=np.uint8).reshape(shape)


def _at_most(file: IO[bytes] | gzip.GzipFile, count: int) -> bytes:
    pieces = []
    while count > 0 and (piece := file.read(min(count, 1 << 20))):
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


def _from_hub(split: Split) -> tuple[Bytes, Bytes]:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        path = hf_hub_download(HUB_DATASET, _HUB_FILE.format(split), repo_type="dataset")
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise DownloadError(
            f"Fashion-MNIST cannot be had from the hub ({reason}): {REMEDY}"
        ) from error
    return read_parquet(Path(path))


def read_parquet(path: Path) -> tuple[Bytes, Bytes]:
    """Images and labels from the hub's file: PNG bytes in ``image.bytes``, classes in ``label``.

    Raises:
        DataError: damaged, other columns, images that are not 28 x 28 PNG, classes outside 0..9, or
            the packages pyarrow and pillow are missing.
    """
    try:
        import pyarrow
        from PIL import Image
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(
            f"the hub's Fashion-MNIST needs the packages pyarrow and pillow ({error.name} is "
            f"missing): `pip install pyarrow pillow`, or {REMEDY}"
        ) from error
    if not path.is_file():
        raise DataError(f"{path} is no file: {REMEDY}")
    try:
        with parquet.ParquetFile(path) as file:
            names, declared = file.schema_arrow.names, file.metadata.num_rows
            _check_table(names, declared, file.metadata, path)
            table = file.read(columns=["image", "label"], use_threads=False)
        images = [_pixels(entry["bytes"], Image) for entry in table["image"].to_pylist()]
        labels = [int(label) for label in table["label"].to_pylist()]
    except (
        pyarrow.ArrowException, OSError, TypeError, KeyError, ValueError, SyntaxError, OverflowError
    ) as error:  # fmt: skip
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise DataError(f"{path} cannot be read ({reason}): {REMEDY}") from error
    if not all(0 <= label < len(CLASSES) for label in labels):
        raise DataError(f"{path} has labels {min(labels)} to {max(labels)}, expected 0 to 9")
    return np.stack(images), np.array(labels, dtype=np.uint8)


def _check_table(names: list[str], rows: int, metadata: Any, path: Path) -> None:
    if not {"image", "label"} <= set(names):
        raise DataError(f"{path} has columns {names}, expected image and label")
    unpacked = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    if not 0 < rows <= _MOST_ROWS or unpacked > _MOST_BYTES:
        raise DataError(
            f"{path} declares {rows} rows of {unpacked} bytes, expected at most {_MOST_ROWS} of "
            f"{_MOST_BYTES}: {REMEDY}"
        )


def _pixels(png: bytes, pillow: Any) -> Bytes:
    with pillow.open(BytesIO(png), formats=["PNG"]) as image:
        if image.size != (28, 28):  # before anything is decoded
            raise ValueError(f"an image is {image.size[0]} x {image.size[1]}, expected 28 x 28")
        return np.asarray(image.convert("L"))
