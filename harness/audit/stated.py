"""Another contract as findings: what a training record or a bundle's manifest was made under."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from harness.audit.aspects import BY_KEY
from harness.audit.findings import Finding, Side
from harness.contract import Contract

TRAINING: Final = (
    "image_size",
    "padding",
    "max_tokens",
    "after_marker",
    "prompt_words",
    "context_block",
    "prompt_end",
    "resize",
    "size_arithmetic",
    "centring",
    "alpha",
    "colour_space",
    "exif",
    "channels",
    "tiling",
    "add_special",
    "parse_special",
    "labels",
)
"""What decides a training example."""

SHIPPED: Final = (
    *TRAINING,
    "answer_reading",
    "context",
    "batch",
    "cache_type_k",
    "cache_type_v",
    "flash_attention",
    "threads",
    "vision_threads",
    "backend",
    "session_images",
)
"""All that a contract says."""


def findings(
    other: Contract, aspects: tuple[str, ...], side: Side, where: str
) -> Iterator[Finding]:
    """What `other` says about `aspects`."""
    for key in aspects:
        yield Finding(key, side, BY_KEY[key].expected(other), where)
