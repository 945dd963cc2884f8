"""Where in the way to an answer a tensor of a GGUF is used: what a fault in it is blamed on."""

from __future__ import annotations

import re
from typing import Final

from harness.comparison.stages import Stage

_TOP: Final[dict[str, tuple[Stage, str | None]]] = {
    "v.patch_embd": ("embed", "vision patches"),
    "v.position_embd": ("embed", "vision patches"),
    "v.post_ln": ("embed", "vision norm"),
    "token_embd": ("prefill", "text embeddings"),
    "output_norm": ("prefill", "text norm"),
    "output": ("prefill", "text output"),
}
_PARTS: Final = {"attn": "attention", "ln1": "attention", "ffn": "ffn", "ln2": "ffn"}
_LAYER: Final = re.compile(r"(?P<vision>v\.)?blk\.(?P<index>\d+)\.(?P<part>ffn|attn|ln1|ln2)")


def place_of(tensor: str) -> tuple[Stage, str | None]:
    """The first stage and the layer that a tensor can be seen in.

    Layers are named as in `harness.arms.layers`; three are of the files alone: `projector`,
    `text embeddings` and `text output`. None for a tensor that has no place in SmolVLM.
    """
    if tensor.startswith("mm."):
        return "embed", "projector"
    name = tensor.rsplit(".", 1)[0]
    if name in _TOP:
        return _TOP[name]
    match = _LAYER.match(tensor)
    if match is None:
        return ("embed", None) if tensor.startswith("v.") else ("prefill", None)
    tower, stage = ("vision", "embed") if match["vision"] else ("text", "prefill")
    layer = f"{tower} layer {match['index']} {_PARTS[match['part']]}"
    return ("embed", layer) if stage == "embed" else ("prefill", layer)
