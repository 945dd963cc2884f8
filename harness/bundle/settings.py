"""What the checkpoint's JSON files say of the model: the side that GGUF keys are held against."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from harness.errors import BundleError

_NEEDED: Final = ("max_image_size", "size", "image_mean", "image_std")
"""Of the image processor: without them nothing tells what an image becomes."""


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
