"""Files of images."""

import gzip
import struct
from io import BytesIO

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

from icbs.data.fashion_mnist import read_idx, read_parquet
from icbs.errors import IcbsError
from tests.fuzz.mutate import VALUES, corrupted, pick
from tests.fuzz.targets import Target, written

SIZES = (0, 1, 2, 255, 2**16, 2**20, 2**31 - 1, 2**31, 2**32 - 1)


def _idx(*shape):
    body = bytes(i % 251 for i in range(int(np.prod(shape))))
    return b"\0\0\x08" + bytes([len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + body


def _idx_files():
    data = _idx(3, 4, 5)
    return [{"a": data}, {"a.gz": gzip.compress(data, mtime=0)}, {"a": _idx(7)}]


def _mutated_idx(rng, seeds):
    """Sizes, type and rank changed, inside the archive where there is one."""
    ((name, data),) = pick(rng, seeds).items()
    packed = name.endswith(".gz")
    data = bytearray(gzip.decompress(data) if packed else data)
    match int(rng.integers(4)):
        case 0:
            data[int(rng.integers(4))] = int(rng.integers(256))
        case 1:
            data[4:4] = struct.pack(">I", int(pick(rng, SIZES)))
        case 2:  # a bomb
            data += bytes(int(pick(rng, [2**16, 2**24])))
        case _:
            at = 4 * int(rng.integers(1, 1 + data[3]))
            data[at : at + 4] = struct.pack(">I", int(pick(rng, SIZES)))
    data = bytes(data)
    return {name: gzip.compress(data, 1, mtime=0) if packed else data}


def _load_idx(path, out):
    values = read_idx(path)
    assert values.dtype == np.uint8 and values.size <= 2**25, "more than there was"


def _png(size=(28, 28), mode="L"):
    file = BytesIO()
    Image.new(mode, size, 7).save(file, "PNG")
    return file.getvalue()


def _table(images, labels, names=("image", "label")):
    def write(path):
        parquet.write_table(pa.table(dict(zip(names, (images, labels), strict=True))), path)

    return {"a.parquet": written("a.parquet", write)}


def _good():
    return [{"bytes": _png(), "path": f"{i}.png"} for i in range(3)], [0, 5, 9]


def _parquets():
    return [_table(*_good())]


def _hostile_png(rng):
    png = _png(pick(rng, [(28, 28), (1, 1), (28, 27), (300, 300)]), pick(rng, ["L", "P", "RGB"]))
    match int(rng.integers(4)):
        case 0:
            return corrupted(rng, png)
        case 1:  # declared sizes
            wide, high = (int(pick(rng, SIZES)) for _ in range(2))
            return png[:16] + struct.pack(">II", wide, high) + png[24:]
        case 2:
            file = BytesIO()
            kind = pick(rng, ["GIF", "BMP", "TIFF"])
            Image.new("L", (28, 28)).save(file, kind)
            return file.getvalue()
        case _:
            return png


def _parquet(rng, seeds):
    """Another picture, class, type or column."""
    images, labels = _good()
    at = int(rng.integers(3))
    names = ("image", "label")
    match int(rng.integers(6)):
        case 0 | 1 | 2:
            images[at]["bytes"] = _hostile_png(rng)
        case 3:
            images[at] = pick(rng, [None, {"bytes": None, "path": "/etc/passwd"}, {"path": "x"}])
        case 4:
            kinds = [int, float, str, type(None), bool]
            value = pick(rng, [v for v in VALUES if type(v) in kinds and v != 10**30])
            same = [value] * 3 if rng.integers(2) else [0, 1, None]
            labels = same if not isinstance(value, int) or abs(value) < 2**63 else [256, -1, 2**62]
        case _:
            names = pick(rng, [("image", "x"), ("x", "label"), ("label", "image")])
    try:
        return _table(images, labels, names)
    except (pa.ArrowException, OverflowError, TypeError):  # no parquet can hold it
        return _table(*_good())


def _load_parquet(path, out):
    images, labels = read_parquet(path)
    assert images.dtype == labels.dtype == np.uint8
    assert images.ndim == 3 and images.shape[1:] == (28, 28) and labels.shape == images.shape[:1]
    assert not len(labels) or labels.max() < 10, "a class that is none"


TARGETS = {
    "idx": Target("idx", _idx_files, _mutated_idx, _load_idx, (IcbsError,)),
    "parquet": Target("parquet", _parquets, _parquet, _load_parquet, (IcbsError,)),
}
