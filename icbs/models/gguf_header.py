"""The header of a GGUF file, checked before the package gguf reads it.

GGUF 3, little endian: magic, version, number of tensors, number of entries; each entry a key, a
type and a value; each tensor a name, its dimensions, a type and an offset; then, aligned, the data
(https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). The package trusts every count, so that
a hundred bytes can keep it busy for ever.
"""

from __future__ import annotations

import math
import struct
from io import BytesIO
from pathlib import Path
from typing import IO

from icbs.errors import ModelError

_STRING, _ARRAY = 8, 9
# Bytes of a value by the number of its type.
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_DIMENSIONS = 4


def check_gguf(path: Path) -> None:
    """Walks the header and holds every count and size against the file.

    Raises:
        ModelError: it is damaged, not GGUF 2 or 3, or declares more than is there.
    """
    try:
        # A pipe would be waited for.
        size = path.stat().st_size if path.is_file() else 0
        with path.open("rb") if size else BytesIO() as file:
            _Header(file, size).check()
    except (OSError, ValueError, KeyError, struct.error) as error:
        raise ModelError(
            f"{path} cannot be read as GGUF ({error}): it is damaged, fetch it again"
        ) from error


class _Header:
    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._size = file, size

    def check(self) -> None:
        if self._file.read(4) != b"GGUF" or self._number(4) not in (2, 3):
            raise ValueError("it does not begin as one of version 2 or 3")
        tensors, entries = self._count(24), self._count(12)
        keys: dict[bytes, int | None] = {}
        for _ in range(entries):
            key = self._text()
            if key in keys:
                raise ValueError(f"key {key[:80]!r} stands twice")
            keys[key] = self._value(self._number(4))
        alignment = keys.get(b"general.alignment", 32)
        if not alignment or alignment & (alignment - 1) or alignment > self._size:
            raise ValueError(f"alignment {alignment}")
        ends = [self._tensor() for _ in range(tensors)]
        start = -(-self._file.tell() // alignment) * alignment
        if ends and start + max(ends) > self._size:
            raise ValueError("a tensor ends behind the file")

    def _number(self, size: int) -> int:
        data = self._file.read(size)
        if len(data) < size:
            raise ValueError("it ends within its header")
        return int.from_bytes(data, "little")

    def _count(self, least: int) -> int:
        """A number of things that take so many bytes each at least."""
        count = self._number(8)
        if count * least > self._size - self._file.tell():
            raise ValueError(f"{count} entries declared, which it has no room for")
        return count

    def _text(self) -> bytes:
        text = self._file.read(self._count(1))
        text.decode()
        return text

    def _value(self, kind: int) -> int | None:
        """Skips a value; returns it where it is a 32-bit number."""
        if kind == _STRING:
            self._text()
        elif kind == _ARRAY:
            inner = self._number(4)
            if inner == _ARRAY:
                raise ValueError("an array of arrays")
            for _ in range(self._count(8 if inner == _STRING else _SIZES[inner])):
                self._value(inner)
        else:
            value = self._number(_SIZES[kind])
            return value if kind == 4 else None
        return None

    def _tensor(self) -> int:
        """The end of one tensor's data, in bytes from where the data start."""
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        self._text()
        count = self._number(4)
        if count > _DIMENSIONS:
            raise ValueError(f"a tensor of {count} dimensions")
        values = math.prod(self._number(8) for _ in range(count))
        values_a_block, bytes_a_block = GGML_QUANT_SIZES[GGMLQuantizationType(self._number(4))]
        if values % values_a_block:
            raise ValueError(f"a tensor of {values} values in blocks of {values_a_block}")
        return self._number(8) + values // values_a_block * bytes_a_block
