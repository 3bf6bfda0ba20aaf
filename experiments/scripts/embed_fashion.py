"""Makes the part of Fashion-MNIST that comes with the package.

    python -m experiments.scripts.embed_fashion FOLDER

Each of the four IDX files of the full set in FOLDER is cut after its first images, 4,000 of the
training split and 2,000 of the test split. The order of the files is random, so the part is neither
chosen nor balanced (373 to 440 training and 188 to 219 test images a class), and whoever asks for
fewer images gets the very ones of the full set. Equal files give equal archives, byte for byte.
"""

from __future__ import annotations

import argparse
import struct
import zipfile
from pathlib import Path

import numpy as np

from icbs.data.fashion_mnist import ARCHIVE, STEM, Bytes, Split, fashion_mnist

COUNTS: dict[Split, int] = {"train": 4000, "test": 2000}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("folder", help="folder of the four IDX files")
    parser.add_argument("--out", type=Path, default=ARCHIVE)
    given = parser.parse_args()
    embed(given.folder, given.out)
    print(f"{given.out}: {given.out.stat().st_size:,} bytes")


def embed(folder: str | Path, out: Path) -> None:
    """Writes the archive.

    Args:
        folder: of the full set.
        out: the zip file; replaced.

    Raises:
        DataError: a file that is missing or not what it should be.
    """
    with zipfile.ZipFile(out, "w", zipfile.ZIP_LZMA) as archive:
        for split, count in COUNTS.items():
            images, labels = fashion_mnist(split, folder)
            for name, array in (("images-idx3", images), ("labels-idx1", labels)):
                # The member's date is fixed: that of the oldest a zip file can name.
                member = zipfile.ZipInfo(f"{STEM[split]}-{name}-ubyte")
                member.compress_type = zipfile.ZIP_LZMA
                archive.writestr(member, _idx(array[:count]))


def _idx(array: Bytes) -> bytes:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + np.ascontiguousarray(array).tobytes()


if __name__ == "__main__":
    main()
