"""One GGUF file as the checks need it: keys, tensors, and rows of a tensor as float32."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from harness.bundle.gguf_header import Value, read_header
from harness.errors import ArmUnavailable, BundleError

Chosen = slice | NDArray[np.intp]
"""Which entries of a tensor's slowest dimension."""
ALL: Final = slice(None)

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
    """An open GGUF; tensor data stay on disk until asked for, and gguf-py dequantizes them."""

    def __init__(self, path: Path) -> None:
        """Raises BundleError where `path` is no GGUF, or its end is missing."""
        try:
            from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
            from gguf.quants import dequantize
        except ImportError as error:
            raise ArmUnavailable(
                f"reading {path.name} needs the package gguf: install driftloop[torch]"
            ) from error
        self.path = path
        self._dequantize = dequantize
        try:
            header = read_header(path)
            size_bytes = path.stat().st_size
            self._types = {
                name: GGMLQuantizationType(info.type_id) for name, info in header.tensors.items()
            }
        except FileNotFoundError:
            raise BundleError(f"{path}: missing; copy or build the bundle again") from None
        except (OSError, ValueError) as error:
            raise BundleError(
                f"{path}: no GGUF file, or truncated: {error}; copy or build the bundle again"
            ) from error
        self._keys = header.keys
        self._infos = header.tensors
        self._row_bytes: dict[str, int] = {}
        for name, info in header.tensors.items():
            if not info.shape or not info.elements:
                raise BundleError(
                    f"{path}: the tensor {name} has no values; copy or build the bundle again"
                )
            block, block_bytes = GGML_QUANT_SIZES[self._types[name]]
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

        Raises BundleError where gguf-py cannot read the tensor's type.
        """
        raw = np.ascontiguousarray(self.stored(tensor)[chosen])
        try:
            with np.errstate(all="ignore"):  # damaged scales overflow; the values tell
                values = self._dequantize(raw, self._types[tensor])
        except NotImplementedError:
            raise BundleError(
                f"{self.path}: {tensor} is {self.type_name(tensor)}, which gguf-py cannot read; "
                "build the bundle again with another --quant"
            ) from None
        return np.asarray(values, dtype=np.float32).reshape(raw.shape[0], -1)

    def tensor_types(self) -> dict[str, dict[str, int]]:
        """Group -> ggml type -> number of tensors."""
        counts: dict[str, Counter[str]] = {}
        for name in self._infos:
            counts.setdefault(group_of(name), Counter())[self.type_name(name)] += 1
        return {group: dict(sorted(counts[group].items())) for group in sorted(counts)}


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
