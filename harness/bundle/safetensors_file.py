"""A checkpoint's safetensors read in numpy alone, bfloat16 included, without loading the model."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from harness.errors import CheckpointError

_DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}
_LENGTH_BYTES: Final = 8


@dataclass(frozen=True)
class _Stored:
    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int


class CheckpointTensors:
    """All tensors of a checkpoint folder, whatever number of shards they lie in."""

    def __init__(self, folder: Path) -> None:
        """Raises CheckpointError where there are no safetensors or one cannot be read."""
        self._tensors: dict[str, _Stored] = {}
        shards = sorted(folder.glob("*.safetensors"))
        if not shards:
            raise CheckpointError(f"checkpoint {folder}: no *.safetensors; save the model as such")
        for shard in shards:
            self._tensors.update(_index(shard))

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape as PyTorch has it."""
        return self._tensors[name].shape

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all tensors."""
        return tuple(self._tensors)

    def stored(self, name: str) -> NDArray[Any]:
        """A tensor as it lies in its file; bfloat16 as its 16 bits. One dimension is one row."""
        stored = self._tensors[name]
        shape = stored.shape if len(stored.shape) > 1 else (1, *stored.shape)
        return np.memmap(
            stored.path, _DTYPES[stored.dtype], mode="r", offset=stored.offset, shape=shape
        )

    def rows(
        self, name: str, chosen: slice | NDArray[np.intp] = slice(None)
    ) -> NDArray[np.float32]:
        """The chosen entries of the first dimension, as float32 (rows, values per row)."""
        rows = np.ascontiguousarray(self.stored(name)[chosen])
        if self._tensors[name].dtype == "BF16":  # the upper half of a float32
            rows = (rows.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return rows.astype(np.float32).reshape(rows.shape[0], -1)


def _index(path: Path) -> dict[str, _Stored]:
    try:
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(_LENGTH_BYTES))
            header = json.loads(stream.read(length))
        size_bytes = path.stat().st_size
        found: dict[str, _Stored] = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            begin, end = entry["data_offsets"]
            start = _LENGTH_BYTES + length
            if entry["dtype"] not in _DTYPES or start + end > size_bytes:
                raise ValueError(f"{name} is {entry['dtype']}, or its data are cut off")
            found[name] = _Stored(path, entry["dtype"], tuple(entry["shape"]), start + begin)
    except (OSError, struct.error, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}; fetch or save it again") from error
    return found
