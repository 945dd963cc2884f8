"""The names of layer outputs, the same for every arm: what a broken layer is called.

    vision patches            patch embedding with positions, (patches, width)
    vision layer N attention  output of attention, its projection included, (patches, width)
    vision layer N ffn        output of the feed-forward part, (patches, width)
    vision norm               after the last layer, (patches, width)
    text embeddings           of the prompt's text tokens alone, (text tokens, width)
    text layer N attention    (prompt tokens, width); of the last layer, the last token alone
    text layer N ffn          as attention
    text norm                 (1, width), before the output matrix

The rows of several tiles are concatenated along the first axis. llama.cpp names the nodes of its
graphs by `cb(...)` in tools/mtmd/clip.cpp and src/models/llama.cpp; the runner has the same table.
"""

from __future__ import annotations

import re
from typing import Final

TEXT_EMBEDDINGS: Final = "text embeddings"

_VISION: Final = {"pos_embed": "vision patches", "norm_b": "vision norm"}
_TEXT: Final = {"embd": TEXT_EMBEDDINGS, "result_norm": "text norm"}
_PARTS: Final = {"attn_out": "attention", "ffn_out": "ffn"}
_NODE: Final = re.compile(r"(attn_out|ffn_out)-(\d+)")


def of_vision_node(node: str) -> str | None:
    """The layer that a node of the vision graph is the output of; None for any other node."""
    return _VISION.get(node) or _layer("vision", node)


def of_text_node(node: str) -> str | None:
    """The same for the text model's graph."""
    return _TEXT.get(node) or _layer("text", node)


def last_token_alone(layer: str, text_layers: int) -> bool:
    """Whether only the last token's row of this layer counts, in a model of `text_layers`."""
    return layer == "text norm" or layer.startswith(f"text layer {text_layers - 1} ")


def _layer(tower: str, node: str) -> str | None:
    match = _NODE.fullmatch(node)
    return match and f"{tower} layer {match[2]} {_PARTS[match[1]]}"
