"""A trajectory: every output on one reference arm's way through one case, and where they are kept.

A safetensors file of little-endian float32 (devices/runner/protocol.py says why), read and written
with numpy alone. It is made once per case and arm and kept by content; a phone knows it by its
hash, so it is pushed once.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from driftloop.devices.paths import cache_dir
from driftloop.harness import atomic
from driftloop.harness.arms.base import StageFailed
from driftloop.harness.bundle.gguf_file import read_header

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from driftloop.harness.arms.base import Look, Tensor

_LENGTH_BYTES: Final = 8
_MOST_BYTES: Final = 4 * 2**30
"""Kept at most, of all arms; one trajectory of SmolVLM-256M with a single tile is 88 MB."""
_SUFFIX: Final = ".safetensors"
_OUTPUTS_A_LAYER: Final = 2
_ENDS: Final = 2
"""The input of a tower's first layer, and the output of its last norm."""
_VALUE_BYTES: Final = 4


@dataclass(frozen=True)
class Trajectory:
    """A trajectory's file, which never changes.

    Reading it raises StageFailed (`trajectory`) where it is missing or damaged.
    """

    path: Path
    sha256: str
    """Of the file."""

    @cached_property
    def prompt_ids(self) -> tuple[int, ...]:
        """As the reference evaluated them, each image token -1."""
        return tuple(json.loads(self._header[1]["__metadata__"]["prompt_ids"]))

    def tensors(self) -> dict[str, Tensor]:
        """By name, in the order of computation: read-only views, read from the file on use."""
        begin, header = self._header
        found: dict[str, Tensor] = {}
        try:
            for name, entry in header.items():
                if name == "__metadata__":
                    continue
                first, end = entry["data_offsets"]
                if entry["dtype"] != "F32" or not 0 <= first < end <= len(self._raw) - begin:
                    raise ValueError(f"{name} is {entry['dtype']}, or lacks some of its data")
                values = self._raw[begin + first : begin + end].view(np.dtype("<f4"))
                found[name] = values.reshape(entry["shape"])
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(error) from error
        return found

    @cached_property
    def _raw(self) -> NDArray[np.uint8]:
        return np.memmap(self.path, np.uint8, "r")

    @cached_property
    def _header(self) -> tuple[int, dict[str, Any]]:
        """Where the tensors begin, and their entries."""
        try:
            (length,) = struct.unpack("<Q", self._raw[:_LENGTH_BYTES].tobytes())
            header = json.loads(self._raw[_LENGTH_BYTES : _LENGTH_BYTES + length].tobytes())
            for key in ("prompt_ids", "grid"):
                json.loads(header["__metadata__"][key])
        except (OSError, struct.error, ValueError, KeyError, TypeError) as error:
            raise self._damaged(error) from error
        return _LENGTH_BYTES + length, dict(header)

    def _damaged(self, error: Exception) -> StageFailed:
        return StageFailed("trajectory", f"{self.path}: no trajectory: {error}; delete it")


def write(look: Look, path: Path) -> Trajectory:
    """Writes what `look` saw of an answered image as a trajectory at `path`, in one step. Raises
    OSError where the disk refuses it."""
    seen = look.observation
    tensors = {name: np.ascontiguousarray(one, "<f4") for name, one in look.tensors.items()}
    metadata = {"prompt_ids": json.dumps(seen.prompt_ids), "grid": json.dumps(seen.grid)}
    header: dict[str, object] = {"__metadata__": metadata}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": "F32", "shape": tensor.shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    # Spaces align the tensors that follow.
    text += b" " * (-len(text) % _LENGTH_BYTES)
    start = struct.pack("<Q", len(text)) + text
    digest = hashlib.sha256()
    with atomic.replacing(path) as file:
        for part in chain((start,), (one.tobytes() for one in tensors.values())):
            digest.update(part)
            file.write(part)
    return Trajectory(path, digest.hexdigest())


def expected_bytes(text: Path, mmproj: Path, prompt_tokens: int, image_tokens: int) -> int | None:
    """About how large a case's trajectory is under these GGUF files; None where a key is missing.

    `image_tokens`: of the `prompt_tokens`, those of the image. Raises OSError or ValueError where a
    file is missing or no GGUF.
    """
    keys = read_header(text).keys | read_header(mmproj).keys
    try:
        # A token of the image stands for a square of patches.
        patches = image_tokens * keys["clip.vision.projector.scale_factor"] ** 2
        pixels = patches * 3 * keys["clip.vision.patch_size"] ** 2
        layers = sum(
            rows
            * keys[f"{tower}.embedding_length"]
            * (_OUTPUTS_A_LAYER * keys[f"{tower}.block_count"] + _ENDS)
            for tower, rows in (("clip.vision", patches), ("llama", prompt_tokens))
        )
        return int(pixels + layers + len(keys["tokenizer.ggml.tokens"])) * _VALUE_BYTES
    except KeyError:
        return None


class Trajectories:
    """The trajectories of one arm under its `arm_key`, one per image.

    The least recently used make room for new ones, whatever arm they are of.
    """

    def __init__(self, key: str, root: Path | None = None, most_bytes: int = _MOST_BYTES) -> None:
        """`root`: where to keep them instead of driftloop's cache."""
        self._root = root or cache_dir("trajectories")
        self._folder = self._root / key
        self._most_bytes = most_bytes

    def get(self, pixels_sha256: str) -> Trajectory | None:
        """The one for these pixels; None where there is none."""
        for path in self._folder.glob(f"{pixels_sha256}-*{_SUFFIX}"):
            os.utime(path)
            return Trajectory(path, path.stem.partition("-")[2])
        return None

    def put(self, pixels_sha256: str, look: Look) -> Trajectory:
        """Keep what `look` saw of these pixels in an answer without an error. Raises OSError where
        the cache cannot be written."""
        self._folder.mkdir(parents=True, exist_ok=True)
        made = write(look, self._folder / f"{pixels_sha256}{_SUFFIX}.new")
        # With the hash in its name, no later reader has to hash the file.
        path = made.path.replace(self._folder / f"{pixels_sha256}-{made.sha256}{_SUFFIX}")
        kept = [(one.stat(), one) for one in self._root.glob(f"*/*{_SUFFIX}") if one != path]
        room = self._most_bytes - path.stat().st_size
        for status, one in sorted(kept, key=lambda pair: pair[0].st_mtime_ns, reverse=True):
            room -= status.st_size
            if room < 0:
                one.unlink(missing_ok=True)
        return Trajectory(path, made.sha256)
