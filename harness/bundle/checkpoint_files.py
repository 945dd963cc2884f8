"""A checkpoint's weights and settings, which GGUF tensors and keys are compared with.

Weights are read with numpy alone, bfloat16 included, without loading the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from driftloop.devices import files
from driftloop.harness.checkpoint import StoredTensor, stored_tensors
from driftloop.harness.errors import BundleError, CheckpointError

_DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}
_EDGES: Final = ("max_image_size", "size")
_NEEDED: Final = (*_EDGES, "image_mean", "image_std")
"""Of the image processor: without them it is unknown what an image becomes."""


class CheckpointTensors:
    """All tensors of a checkpoint folder, however many shards they lie in."""

    def __init__(self, folder: Path) -> None:
        """Raises CheckpointError where there are no safetensors or one cannot be read."""
        self._tensors: dict[str, StoredTensor] = {}
        shards = sorted(folder.glob("*.safetensors"))
        if not shards:
            raise CheckpointError(f"checkpoint {folder}: no *.safetensors; save the model as such")
        for shard in shards:
            try:
                tensors = stored_tensors(shard)
                for name, tensor in tensors.items():
                    if tensor.dtype not in _DTYPES:
                        raise ValueError(f"{name} is {tensor.dtype}")
            except (OSError, ValueError) as error:
                raise CheckpointError(
                    f"{shard}: cannot be read: {error}; fetch or save it again"
                ) from error
            self._tensors |= tensors

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape as PyTorch has it."""
        return self._tensors[name].shape

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def stored(self, name: str) -> NDArray[Any]:
        """A tensor as it lies in its file; bfloat16 as its 16 bits. One dimension is one row."""
        stored = self._tensors[name]
        shape = stored.shape if len(stored.shape) > 1 else (1, *stored.shape)
        return np.memmap(
            stored.path, _DTYPES[stored.dtype], mode="r", offset=stored.begin, shape=shape
        )

    def alike(self, one: str, other: str) -> bool:
        """Whether two tensors hold the same values."""
        same = self.shape(one) == self.shape(other)
        return same and bool(np.array_equal(self.stored(one), self.stored(other)))

    def rows(
        self, name: str, chosen: slice | NDArray[np.intp] = slice(None)
    ) -> NDArray[np.float32]:
        """The chosen entries of the first dimension, as float32 (rows, values per row)."""
        rows = np.ascontiguousarray(self.stored(name)[chosen])
        if self._tensors[name].dtype == "BF16":  # the upper half of a float32
            rows = (rows.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return rows.astype(np.float32).reshape(rows.shape[0], -1)


@dataclass(frozen=True)
class CheckpointSettings:
    """A checkpoint's configuration. What it leaves to a default is not in it."""

    processor: dict[str, Any]
    """The image processor's settings, wherever this version of transformers kept them."""
    model: dict[str, Any]
    """`config.json`; empty where there is none."""
    text: dict[str, Any]
    """The text model's part of it."""
    vision: dict[str, Any]
    """The vision tower's."""


def read_settings(checkpoint: Path) -> CheckpointSettings:
    """Raises BundleError where a file cannot be read or the image processor's are incomplete."""
    processor: dict[str, Any] = {}
    for name in ("preprocessor_config.json", "processor_config.json"):
        content = read_json(checkpoint / name)
        inside = content.pop("image_processor", None)
        processor |= (inside if isinstance(inside, dict) else {}) | content
    for key in _NEEDED:
        if processor.get(key) is None:
            raise BundleError(
                f"{checkpoint}: its image processor's config has no {key}; "
                "save the processor beside the model and build the bundle again"
            )
        if key in _EDGES and not isinstance(processor[key], dict):
            raise BundleError(
                f"{checkpoint}: its image processor's {key} is {processor[key]!r}; "
                'write {"longest_edge": N} and build the bundle again'
            )
    model = read_json(checkpoint / "config.json")
    text, vision = (model.get(f"{tower}_config") or {} for tower in ("text", "vision"))
    if not isinstance(text, dict) or not isinstance(vision, dict):
        raise BundleError(
            f"{checkpoint / 'config.json'}: text_config or vision_config is no object; "
            "save the model and build the bundle again"
        )
    return CheckpointSettings(processor, model, text, vision)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no such file. Raises BundleError if it is damaged."""
    try:
        content: dict[str, Any] = files.json_of(files.read(path))
        if not isinstance(content, dict):
            raise ValueError("not a JSON object")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: cannot be read: {error}; build the bundle again") from error
    return content
