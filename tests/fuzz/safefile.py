"""Safetensors files taken apart and put together again with what a hostile writer would put in."""

import json
import struct

from tests.fuzz.mutate import corrupted, edited, json_text, pick, places


def split(data):
    """Header and body of a file that is whole."""
    (size,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def joined(text, body):
    """A file whose declared header length is right."""
    raw = text.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(raw)) + raw + body


def rewritten(rng, data, change_inner):
    """The file with its header changed: tensors, shapes, and the JSON inside its metadata.

    Args:
        rng: random generator.
        data: a whole file.
        change_inner: of the metadata's mapping of texts; may keep hashes right.
    """
    header, body = split(data)
    kind = int(rng.integers(10))
    if kind < 6 and header.get("__metadata__"):
        header["__metadata__"] = change_inner(rng, dict(header["__metadata__"]))
        if rng.random() < 0.2:
            header = _reshaped(rng, header)
        return joined(json_text(rng, header), body)
    if kind < 8:
        return joined(json_text(rng, _reshaped(rng, header)), body)
    if kind < 9:
        return joined(json_text(rng, edited(rng, header)), body)
    # Right JSON around damaged values.
    return joined(json.dumps(header), corrupted(rng, body))


def inner_json(rng, metadata, keys):
    """The metadata with the JSON text under one of the keys changed."""
    key = pick(rng, [k for k in keys if k in metadata] or list(metadata))
    try:
        tree = json.loads(metadata[key])
    except ValueError:
        tree = metadata[key]
    for _ in range(int(rng.integers(1, 3))):
        tree = edited(rng, tree)
    metadata[key] = json_text(rng, tree)
    return metadata


def _reshaped(rng, header):
    """One tensor with another dtype, shape or place in the file; lengths often still agree."""
    names = [name for name in header if name != "__metadata__"]
    if not names:
        return header
    name = pick(rng, names)
    tensor = header[name]
    match int(rng.integers(7)):
        case 0:
            tensor["dtype"] = pick(
                rng,
                ["F16", "BF16", "F32", "F64", "I64", "I32", "U8", "BOOL", "F8_E4M3", "X", "U64"],
            )
        case 1:
            tensor["shape"] = tensor["shape"][::-1]
        case 2:  # same number of values in another shape
            size = 1
            for length in tensor["shape"]:
                size *= length
            tensor["shape"] = pick(rng, [[size], [1, size], [size, 1], [1, 1, size], [size, 1, 1]])
        case 3:  # nothing in the file, a lot declared
            start = tensor["data_offsets"][0]
            tensor["data_offsets"] = [start, start]
            tensor["shape"] = pick(rng, [[0], [2**40, 0], [0, 2**62], [0, 5]])
        case 4:
            tensor["shape"] = [int(pick(rng, [2**20, 2**33, 2**62, 10**10])) for _ in range(2)]
        case 5:  # two tensors over the same bytes, or one that is gone
            other = pick(rng, names)
            if rng.integers(2):
                tensor["data_offsets"] = header[other]["data_offsets"]
            else:
                del header[other]
        case _:
            way = pick(rng, list(places(tensor)))
            tensor[way[0]] = pick(rng, [None, [], [-1], "x", {}, 2**64, [2**70]])
    if rng.random() < 0.2:
        header[pick(rng, ["factor", "quadratic", "../x", "a/mean", "x", "initial"])] = tensor
    return header
