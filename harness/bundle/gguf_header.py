"""The header of a GGUF file: its keys and where its tensors lie.

Source: gguf.md in ggml's docs. gguf-py's reader makes several numpy views of every string of the
vocabulary, which takes seconds a file; here nothing but values is made.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

Value = Any
"""What a key may hold: a number, a bool, a string, or a list of them."""

_MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)
_ALIGNMENT_KEY: Final = "general.alignment"
_DEFAULT_ALIGNMENT: Final = 32
_SCALARS: Final = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?",
    10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
_STRING: Final = 8
_ARRAY: Final = 9


class NotGguf(ValueError):
    """The bytes are no whole GGUF header; says why."""


@dataclass(frozen=True)
class TensorInfo:
    shape: tuple[int, ...]
    """Slowest dimension first, as in PyTorch."""
    type_id: int
    """ggml's number for the type."""
    offset: int
    """Of its data, from the start of the file, in bytes."""

    @property
    def elements(self) -> int:
        """How many values it has."""
        return prod(self.shape)


@dataclass(frozen=True)
class GgufHeader:
    keys: dict[str, Any]
    tensors: dict[str, TensorInfo]


def read_header(path: Path) -> GgufHeader:
    """Keys and tensors of a GGUF file.

    Raises:
        NotGguf: it is no GGUF of a known version, or ends within its header.
        OSError: it cannot be opened.
    """
    if path.stat().st_size < len(_MAGIC):
        raise NotGguf("it is empty")
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return _Cursor(data).header()
        except (struct.error, UnicodeDecodeError, KeyError, OverflowError) as error:
            raise NotGguf("it ends within its header, or its header is damaged") from error


class _Cursor:
    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 0

    def header(self) -> GgufHeader:
        if self._bytes(4) != _MAGIC:
            raise NotGguf("it does not begin with GGUF")
        version = self._scalar("<I")
        if version not in _VERSIONS:
            raise NotGguf(f"GGUF version {version} is not known")
        tensor_count, key_count = self._scalar("<Q"), self._scalar("<Q")
        keys = {self._string(): self._value(self._scalar("<I")) for _ in range(key_count)}
        found = [self._tensor() for _ in range(tensor_count)]
        alignment = int(keys.get(_ALIGNMENT_KEY, _DEFAULT_ALIGNMENT))
        data_start = -(-self._at // alignment) * alignment
        tensors = {
            name: TensorInfo(shape, type_id, data_start + offset)
            for name, shape, type_id, offset in found
        }
        return GgufHeader(keys, tensors)

    def _tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._string()
        dimensions = [self._scalar("<Q") for _ in range(self._scalar("<I"))]
        return name, tuple(reversed(dimensions)), self._scalar("<I"), self._scalar("<Q")

    def _value(self, kind: int) -> Value:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._scalar(_SCALARS[kind])
        inner, count = self._scalar("<I"), self._scalar("<Q")
        if inner in _SCALARS:
            code = _SCALARS[inner][1]
            return list(
                struct.unpack(f"<{count}{code}", self._bytes(count * struct.calcsize(code)))
            )
        return [self._value(inner) for _ in range(count)]

    def _string(self) -> str:
        return self._bytes(self._scalar("<Q")).decode("utf-8")

    def _scalar(self, layout: str) -> Value:
        (value,) = struct.unpack(layout, self._bytes(struct.calcsize(layout)))
        return value

    def _bytes(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise struct.error("past the end of the file")
        taken = self._data[self._at : end]
        self._at = end
        return taken
