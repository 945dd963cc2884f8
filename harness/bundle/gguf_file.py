"""One GGUF file as the checks need it: keys, tensors, and rows of a tensor as float32."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from harness.bundle.gguf_header import Value, read_header
from harness.bundle.names import turned_back
from harness.bundle.rounding import read
from harness.errors import ArmUnavailable, BundleError

Chosen = slice | NDArray[np.intp]
"""Which entries of a tensor's slowest dimension."""
ALL: Final = slice(None)

_VISION_WIDTH: Final = "clip.vision.embedding_length"
_ARCHITECTURE: Final = "general.architecture"
DESCRIPTIONS: Final = ("general.", "quantize.", "split.")
"""Beginnings of keys that hold names, dates, licences, how a file was made."""
_UNREAD: Final = frozenset(("llama.context_length", "tokenizer.chat_template"))
_PIECE_VALUES: Final = 1 << 20
_GROUPS: Final = (
    ("token_embd", "token_embd"),
    ("output_norm", "norms"),
    ("output", "output"),
    ("mm.", "projector"),
    ("v.patch_embd", "vision_patch_embd"),
    ("v.position_embd", "vision_position_embd"),
)


class GgufFile:
    """An open GGUF; tensor data stay on disk until asked for, and llama.cpp's own code reads them.

    Tensors have the names under which libmtmd uses them: see `turned_back`.
    """

    def __init__(self, path: Path) -> None:
        """Raises BundleError where `path` is no GGUF, or its end is missing."""
        try:
            from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
        except ImportError as error:
            raise ArmUnavailable(
                f"reading {path.name} needs the package gguf: install driftloop[torch]"
            ) from error
        self.path = path
        try:
            header = read_header(path)
            size_bytes = path.stat().st_size
            shapes = {name: info.shape for name, info in header.tensors.items()}
            self.turned_back = turned_back(shapes, header.keys.get(_VISION_WIDTH))
            tensors = {
                self.turned_back.get(name, name): info for name, info in header.tensors.items()
            }
            self._types = {
                name: GGMLQuantizationType(info.type_id) for name, info in tensors.items()
            }
        except FileNotFoundError:
            raise BundleError(f"{path}: missing; copy or build the bundle again") from None
        except (OSError, ValueError) as error:
            raise BundleError(
                f"{path}: no GGUF file, or truncated: {error}; copy or build the bundle again"
            ) from error
        self._keys = header.keys
        self._infos = tensors
        self._row_bytes: dict[str, int] = {}
        for name, info in tensors.items():
            if not info.shape or not info.elements:
                raise BundleError(
                    f"{path}: the tensor {name} has no values; copy or build the bundle again"
                )
            block, block_bytes = GGML_QUANT_SIZES[self._types[name]]
            if info.shape[-1] % block:
                raise BundleError(
                    f"{path}: {name} is {self.type_name(name)}, and its rows of {info.shape[-1]} "
                    f"are no multiple of {block}; copy or build the bundle again"
                )
            self._row_bytes[name] = info.shape[-1] // block * block_bytes
            end = info.offset + info.elements // block * block_bytes
            if end > size_bytes:
                raise BundleError(
                    f"{path}: truncated: {size_bytes} bytes, the tensor {name} ends at {end}; "
                    "copy or build the bundle again"
                )

    @property
    def tensors(self) -> tuple[str, ...]:
        """The names of all tensors, in the file's order."""
        return tuple(self._infos)

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of all keys, in the file's order."""
        return tuple(self._keys)

    def get(self, key: str) -> Value:
        """The value of a key; None where the file does not have it."""
        return self._keys.get(key)

    def require(self, key: str) -> Value:
        """The value of a key; BundleError where the file does not have it."""
        if key not in self._keys:
            raise BundleError(
                f"{self.path}: the key {key} is missing: made by another converter? "
                "build the bundle again"
            )
        return self._keys[key]

    def type_name(self, tensor: str) -> str:
        """A tensor's ggml type in lower case, for example `q8_0`."""
        name: str = self._types[tensor].name
        return name.lower()

    def shape(self, tensor: str) -> tuple[int, ...]:
        """A tensor's shape, slowest dimension first, as in PyTorch."""
        return self._infos[tensor].shape

    def size_bytes(self, tensor: str) -> int:
        """Bytes that a tensor takes in the file."""
        return prod(self._infos[tensor].shape[:-1]) * self._row_bytes[tensor]

    def stored(self, tensor: str) -> NDArray[np.uint8]:
        """A tensor's bytes as they lie in the file: (entries, rows of an entry, bytes of a row).

        Entries are those of the slowest dimension; a tensor of one dimension is one entry.
        """
        info = self._infos[tensor]
        entries = info.shape[0] if len(info.shape) > 1 else 1
        shape = (entries, prod(info.shape[1:-1]), self._row_bytes[tensor])
        return np.memmap(self.path, np.uint8, mode="r", offset=info.offset, shape=shape)

    def slices(self, tensor: str) -> Iterator[slice]:
        """All entries in pieces that are light to hold as float32."""
        stored = self.stored(tensor)
        at_once = max(1, _PIECE_VALUES * len(stored) // self._infos[tensor].elements)
        for first in range(0, len(stored), at_once):
            yield slice(first, first + at_once)

    def rows(self, tensor: str, chosen: Chosen = ALL) -> NDArray[np.float32]:
        """The chosen entries of the slowest dimension, as float32 (entries, values per entry).

        Raises BundleError where llama.cpp cannot read the tensor's type.
        """
        raw = self.stored(tensor)[chosen]
        return read(raw.reshape(len(raw), -1), self.type_name(tensor))

    def inference_sha256(self) -> str:
        """Over every tensor and every key that inference reads.

        The same for files that differ in names, descriptions or the order of their tensors.
        """
        total = hashlib.sha256()
        for key in sorted(self._keys):
            if is_read(key):
                total.update(f"{key}={self._keys[key]!r}\n".encode())
        for name in sorted(self._infos):
            stored = self.stored(name)
            total.update(f"{name} {self.type_name(name)} {self.shape(name)}\n".encode())
            total.update(np.ascontiguousarray(stored).data)
        return total.hexdigest()

    def tensor_types(self) -> dict[str, dict[str, int]]:
        """Group -> ggml type -> number of tensors."""
        counts: dict[str, Counter[str]] = {}
        for name in self._infos:
            counts.setdefault(group_of(name), Counter())[self.type_name(name)] += 1
        return {group: dict(sorted(counts[group].items())) for group in sorted(counts)}


def is_read(key: str) -> bool:
    """Whether llama.cpp or libmtmd computes with a key, under a contract with a prompt of its own.

    Of the length that a model was trained for llama.cpp only warns.
    """
    return key not in _UNREAD and (key == _ARCHITECTURE or not key.startswith(DESCRIPTIONS))


def group_of(tensor: str) -> str:
    """Which part of the model a tensor belongs to: what a quant type is chosen by."""
    for prefix, group in _GROUPS:
        if tensor.startswith(prefix):
            return group
    side = "vision_" if tensor.startswith("v.") else ""
    if tensor.endswith(".bias"):
        return f"{side}biases"
    if "norm" in tensor or ".ln" in tensor or "post_ln" in tensor:
        return f"{side}norms"
    if ".attn_" in tensor:
        return f"{side}attn"
    return f"{side}ffn" if ".ffn_" in tensor else f"{side}other"
