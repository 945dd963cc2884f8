"""A checkpoint's folder as the checks need it: its weights and its settings.

Weights are read in numpy alone, bfloat16 included, without loading the model. Settings are the
side that GGUF keys are held against.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from harness.errors import BundleError, CheckpointError

_DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}
_LENGTH_BYTES: Final = 8
_NEEDED: Final = ("max_image_size", "size", "image_mean", "image_std")
"""Of the image processor: without them nothing tells what an image becomes."""


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


@dataclass(frozen=True)
class CheckpointSettings:
    """A checkpoint's configuration. What it leaves to a default is not in it."""

    processor: dict[str, Any]
    """The image processor's settings, wherever this version of transformers kept them."""
    model: dict[str, Any]
    """`config.json`; empty where there is none."""

    @property
    def text(self) -> dict[str, Any]:
        """The text model's part."""
        part: dict[str, Any] = self.model.get("text_config") or {}
        return part

    @property
    def vision(self) -> dict[str, Any]:
        """The vision tower's part."""
        part: dict[str, Any] = self.model.get("vision_config") or {}
        return part


def read_settings(checkpoint: Path) -> CheckpointSettings:
    """Raises BundleError where a file cannot be read or the image processor's are incomplete."""
    processor: dict[str, Any] = {}
    for name in ("preprocessor_config.json", "processor_config.json"):
        content = read_json(checkpoint / name)
        processor |= content.pop("image_processor", None) or {}
        processor |= content
    for key in _NEEDED:
        if key not in processor:
            raise BundleError(
                f"{checkpoint}: its image processor's config says no {key}; "
                "save the processor beside the model and build the bundle again"
            )
    return CheckpointSettings(processor, read_json(checkpoint / "config.json"))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no such file. Raises BundleError if it is damaged."""
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: cannot be read: {error}; build the bundle again") from error
    return content
