"""One GGUF file: its header, and rows of a tensor as float32.

Source of the format: gguf.md in ggml's docs. gguf-py's reader makes several numpy views of every
string of the vocabulary, which takes seconds a file; here only values are made.
"""

from __future__ import annotations

import hashlib
import mmap
import re
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from driftloop.devices import files
from driftloop.harness.bundle.quant_types import layout, read
from driftloop.harness.bundle.tensor_names import group_of, swapped_ffn
from driftloop.harness.errors import BundleError

_Held = TypeVar("_Held")
Value = Any
"""What a key may hold: a number, a bool, a string, or a list of them."""
Chosen = slice | NDArray[np.intp]
"""Which entries of a tensor's slowest dimension."""
ALL: Final = slice(None)
_UNREAD: Final = frozenset(("llama.context_length", "tokenizer.chat_template"))
"""Of the context length llama.cpp only warns; every contract has a prompt of its own."""
_PIECE_VALUES: Final = 1 << 20
"""4 MiB as float32: light to hold, and long enough for numpy to be fast."""
_SCALARS: Final = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?",
    10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_ALIGNMENT: Final = "general.alignment"
_SIZE: Final = re.compile(
    r"(llama|clip\.vision)\.(embedding_length|feed_forward_length|image_size|patch_size|"
    r"projection_dim|projector\.scale_factor|attention\.(head_count|head_count_kv|key_length))"
)
_COUNT: Final = re.compile(
    r"\w+(\.vision)?\.(block_count|context_length)|general\.file_type|tokenizer\.ggml\.\w+_token_id"
)
_LISTS: Final[dict[str, type]] = {
    "tokenizer.ggml.tokens": str,
    "tokenizer.ggml.merges": str,
    "tokenizer.ggml.token_type": int,
}
"""Keys that are reckoned with: whole numbers from 1, from 0, and lists."""
_AGAIN: Final = "copy or build the bundle again"


@dataclass(frozen=True)
class TensorInfo:
    shape: tuple[int, ...]
    """Slowest dimension first, as in PyTorch."""
    type_name: str
    """Its ggml type in lower case, for example `q8_0`."""
    offset: int
    """Of its data, from the start of the file, in bytes."""

    @property
    def row_bytes(self) -> int:
        """Bytes of the values along the fastest dimension."""
        _, block, block_bytes = layout(self.type_name)
        return self.shape[-1] // block * block_bytes

    @property
    def size_bytes(self) -> int:
        """Bytes of all values."""
        return prod(self.shape[:-1]) * self.row_bytes


@dataclass(frozen=True)
class GgufHeader:
    keys: dict[str, Value]
    tensors: dict[str, TensorInfo]


def read_header(path: Path) -> GgufHeader:
    """Keys and tensors of a GGUF file. Raises ValueError: it is no GGUF of a known version, or ends
    within its header; OSError: it cannot be opened."""
    with files.opened(path) as stream:
        files.refuse_lfs_pointer(stream.peek(64))
        if not stream.peek(1):
            raise ValueError("it is empty")
        try:
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Cursor(data).header()
        except (struct.error, UnicodeDecodeError, KeyError, OverflowError) as error:
            raise ValueError("it ends within its header, or its header is damaged") from error


class _Cursor:
    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._at = data, 0

    def header(self) -> GgufHeader:
        if self._bytes(4) != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        if (version := self._scalar("<I")) not in (2, 3):
            raise ValueError(f"GGUF version {version} is not known")
        tensor_count, key_count = self._scalar("<Q"), self._scalar("<Q")
        keys = _once((self._string(), self._value(self._scalar("<I"))) for _ in range(key_count))
        tensors = [self._tensor() for _ in range(tensor_count)]
        alignment = keys.get(_ALIGNMENT, 32)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise ValueError(f"{_ALIGNMENT} is {alignment!r}, no power of two")
        start = -(-self._at // alignment) * alignment
        placed = ((name, TensorInfo(*kind, start + offset)) for name, kind, offset in tensors)
        return GgufHeader(keys, _once(placed))

    def _tensor(self) -> tuple[str, tuple[tuple[int, ...], str], int]:
        from gguf import GGMLQuantizationType

        name = self._string()
        dimensions = [self._scalar("<Q") for _ in range(self._scalar("<I"))]
        type_name = GGMLQuantizationType(self._scalar("<I")).name.lower()
        return name, (tuple(reversed(dimensions)), type_name), self._scalar("<Q")

    def _value(self, kind: int) -> Value:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._scalar(_SCALARS[kind])
        inner, count = self._scalar("<I"), self._scalar("<Q")
        if inner == _ARRAY:
            raise ValueError("it holds a list of lists, which no GGUF may")
        if inner in _SCALARS:
            code = f"<{count}{_SCALARS[inner][1]}"
            return list(struct.unpack(code, self._bytes(struct.calcsize(code))))
        return [self._value(inner) for _ in range(count)]

    def _string(self) -> str:
        return self._bytes(self._scalar("<Q")).decode("utf-8")

    def _scalar(self, layout: str) -> Value:
        return struct.unpack(layout, self._bytes(struct.calcsize(layout)))[0]

    def _bytes(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise struct.error("past the end of the file")
        taken = self._data[self._at : end]
        self._at = end
        return taken


def _once(pairs: Iterable[tuple[str, _Held]]) -> dict[str, _Held]:
    found: dict[str, _Held] = {}
    for name, held in pairs:
        if name in found:
            raise ValueError(f"{name!r} stands in it twice")
        found[name] = held
    return found


def _fits(key: str, value: Value) -> bool:
    """Whether a key that is reckoned with holds what it has to."""
    if _SIZE.fullmatch(key) or _COUNT.fullmatch(key):
        return type(value) is int and value >= (_SIZE.fullmatch(key) is not None)
    kind = _LISTS.get(key)
    return kind is None or (isinstance(value, list) and all(type(one) is kind for one in value))


class GgufFile:
    """An open GGUF. Tensor data stay on disk until asked for; llama.cpp's own code decodes them.
    Tensors have the names under which libmtmd uses them: see `swapped_ffn`."""

    def __init__(self, path: Path) -> None:
        """Raises BundleError where `path` is no GGUF, or its end is missing."""
        self.path = path
        try:
            header = read_header(path)
            size_bytes = path.stat().st_size
        except FileNotFoundError:
            raise BundleError(f"{path}: missing; {_AGAIN}") from None
        except (OSError, ValueError) as error:
            raise BundleError(f"{path}: no GGUF file, or truncated: {error}; {_AGAIN}") from error
        self.keys = header.keys
        for key, value in self.keys.items():
            if not _fits(key, value):
                said = repr(value)[:40]
                raise BundleError(f"{path}: the key {key} cannot be {said}; {_AGAIN}")
        shapes = {name: info.shape for name, info in header.tensors.items()}
        self.swapped_ffn = swapped_ffn(shapes, self.keys.get("clip.vision.embedding_length"))
        self.tensors = {
            self.swapped_ffn.get(name, name): info for name, info in header.tensors.items()
        }
        for name, info in self.tensors.items():
            self._check(name, info, size_bytes)

    def _check(self, name: str, info: TensorInfo, file_bytes: int) -> None:
        if not info.shape or not prod(info.shape):
            raise BundleError(f"{self.path}: the tensor {name} has no values; {_AGAIN}")
        _, block, _ = layout(info.type_name)
        if info.shape[-1] % block:
            raise BundleError(
                f"{self.path}: {name} is {info.type_name}, and its rows of {info.shape[-1]} are no "
                f"multiple of {block}; {_AGAIN}"
            )
        end = info.offset + info.size_bytes
        if end > file_bytes:
            raise BundleError(
                f"{self.path}: truncated: {file_bytes} bytes, the tensor {name} ends at {end}; "
                f"{_AGAIN}"
            )

    def require(self, key: str) -> Value:
        """The value of a key; BundleError where the file does not have it."""
        if key not in self.keys:
            raise BundleError(
                f"{self.path}: the key {key} is missing: made by another converter? "
                "build the bundle again"
            )
        return self.keys[key]

    def type_name(self, tensor: str) -> str:
        """A tensor's ggml type in lower case, for example `q8_0`."""
        return self.tensors[tensor].type_name

    def shape(self, tensor: str) -> tuple[int, ...]:
        """A tensor's shape, slowest dimension first, as in PyTorch."""
        return self.tensors[tensor].shape

    def stored(self, tensor: str) -> NDArray[np.uint8]:
        """A tensor's bytes as they lie in the file: (entries, rows of an entry, bytes of a row).
        Entries are those of the slowest dimension; a tensor of one dimension is one entry."""
        info = self.tensors[tensor]
        entries = info.shape[0] if len(info.shape) > 1 else 1
        shape = (entries, prod(info.shape[1:-1]), info.row_bytes)
        return np.memmap(self.path, np.uint8, mode="r", offset=info.offset, shape=shape)

    def slices(self, tensor: str) -> Iterator[slice]:
        """All entries in pieces that are light to hold as float32."""
        entries = len(self.stored(tensor))
        at_once = max(1, _PIECE_VALUES * entries // prod(self.shape(tensor)))
        return (slice(first, first + at_once) for first in range(0, entries, at_once))

    def rows(self, tensor: str, chosen: Chosen = ALL) -> NDArray[np.float32]:
        """The chosen entries of the slowest dimension, as float32 (entries, values per entry).
        Raises BundleError where llama.cpp cannot read the tensor's type."""
        raw = self.stored(tensor)[chosen]
        return read(raw.reshape(len(raw), -1), self.type_name(tensor))

    def inference_sha256(self) -> str:
        """Over every tensor and every key that inference reads. Files that differ in names,
        descriptions or the order of their tensors have the same hash."""
        total = hashlib.sha256()
        for key in sorted(self.keys):
            if key not in _UNREAD and not is_description(key):
                total.update(f"{key}={self.keys[key]!r}\n".encode())
        for name in sorted(self.tensors):
            total.update(f"{name} {self.type_name(name)} {self.shape(name)}\n".encode())
            total.update(np.ascontiguousarray(self.stored(name)).data)
        return total.hexdigest()

    def tensor_types(self) -> dict[str, dict[str, int]]:
        """Group -> ggml type -> number of tensors."""
        counts: dict[str, Counter[str]] = {}
        for name, info in self.tensors.items():
            counts.setdefault(group_of(name), Counter())[info.type_name] += 1
        return {group: dict(sorted(counts[group].items())) for group in sorted(counts)}


def is_description(key: str) -> bool:
    """Whether a key holds a name, a date, a licence, or how a file was made."""
    return key != "general.architecture" and key.startswith(("general.", "quantize.", "split."))
