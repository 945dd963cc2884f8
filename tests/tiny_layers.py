"""What the tiny model, of 2 + 2 layers, puts out, in the order of computation."""

from __future__ import annotations

VISION = [
    "vision patches",
    "vision layer 0 attention",
    "vision layer 0 ffn",
    "vision layer 1 attention",
    "vision layer 1 ffn",
    "vision norm",
]
TEXT = [
    "text embeddings",
    "text layer 0 attention",
    "text layer 0 ffn",
    "text layer 1 attention",
    "text layer 1 ffn",
    "text norm",
]
OUTPUTS = ["pixels", *VISION, "embed", *TEXT, "prefill"]
