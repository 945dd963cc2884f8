"""Which tensor of the checkpoint a GGUF's tensor was made from, and in what order of rows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

_TEXT: Final = {
    "token_embd.weight": "model.text_model.embed_tokens.weight",
    "output_norm.weight": "model.text_model.norm.weight",
    "output.weight": "lm_head.weight",
}
_TEXT_LAYER: Final = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_VISION: Final = {
    "mm.model.fc.weight": "model.connector.modality_projection.proj.weight",
    "v.patch_embd.weight": "model.vision_model.embeddings.patch_embedding.weight",
    "v.patch_embd.bias": "model.vision_model.embeddings.patch_embedding.bias",
    "v.position_embd.weight": "model.vision_model.embeddings.position_embedding.weight",
    "v.post_ln.weight": "model.vision_model.post_layernorm.weight",
    "v.post_ln.bias": "model.vision_model.post_layernorm.bias",
}
_VISION_LAYER: Final = {
    "ln1": "layer_norm1",
    "ln2": "layer_norm2",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_out": "self_attn.out_proj",
    "ffn_up": "mlp.fc1",
    "ffn_down": "mlp.fc2",
}
_LAYER: Final = re.compile(r"(?P<vision>v\.)?blk\.(?P<index>\d+)\.(?P<part>\w+)\.(?P<kind>\w+)")
_FFN: Final = re.compile(r"v\.blk\.(?P<index>\d+)\.ffn_(?P<part>up|down)\.(?P<kind>weight|bias)")
_OTHER_PART: Final = {"up": "down", "down": "up"}
_TOP_LEVEL: Final = {source: tensor for tensor, source in (_TEXT | _VISION).items()}
_TEXT_PARTS: Final = {source: part for part, source in _TEXT_LAYER.items()}
_VISION_PARTS: Final = {source: part for part, source in _VISION_LAYER.items()}
_SOURCE: Final = re.compile(
    r"model\.(?P<tower>text_model|vision_model\.encoder)\.layers\.(?P<index>\d+)"
    r"\.(?P<part>[\w.]+)\.(?P<kind>\w+)"
)


def checkpoint_name(tensor: str) -> str | None:
    """The checkpoint's name of a GGUF tensor; None for one this architecture does not have."""
    if known := _TEXT.get(tensor) or _VISION.get(tensor):
        return known
    match = _LAYER.fullmatch(tensor)
    if match is None:
        return None
    parts = _VISION_LAYER if match["vision"] else _TEXT_LAYER
    if match["part"] not in parts:
        return None
    folder = "vision_model.encoder" if match["vision"] else "text_model"
    return f"model.{folder}.layers.{match['index']}.{parts[match['part']]}.{match['kind']}"


def gguf_name(source: str) -> str | None:
    """The GGUF's name of a checkpoint's tensor; None for one that has no place in a GGUF."""
    if source in _TOP_LEVEL:
        return _TOP_LEVEL[source]
    match = _SOURCE.fullmatch(source)
    if match is None:
        return None
    vision = match["tower"] == "vision_model.encoder"
    parts = _VISION_PARTS if vision else _TEXT_PARTS
    if match["part"] not in parts:
        return None
    prefix = "v." if vision else ""
    return f"{prefix}blk.{match['index']}.{parts[match['part']]}.{match['kind']}"


def turned_back(tensors: Mapping[str, tuple[int, ...]], width: object) -> dict[str, str]:
    """Name in the file -> name under which libmtmd uses it, of vision layers that it turns back.

    llama.cpp's first converters of mmproj files named ffn_up and ffn_down for each other. libmtmd
    exchanges them again where ffn_down takes as many values as the tower is wide (`is_ffn_swapped`
    in tools/mtmd/clip.cpp). `tensors`: shape by name, slowest dimension first.
    """
    exchanged = {}
    for name in tensors:
        match = _FFN.fullmatch(name)
        if match is None:
            continue
        up, down = (f"v.blk.{match['index']}.ffn_{part}.weight" for part in ("up", "down"))
        if up in tensors and down in tensors and tensors[down][-1] == width:
            part = _OTHER_PART[match["part"]]
            exchanged[name] = f"v.blk.{match['index']}.ffn_{part}.{match['kind']}"
    return exchanged


def is_vision(tensor: str) -> bool:
    """True for what belongs into the mmproj."""
    return tensor.startswith(("v.", "mm."))


def is_rotary(tensor: str) -> bool:
    """True for the text model's query and key weights, whose rows the converter reorders."""
    return re.fullmatch(r"blk\.\d+\.attn_[qk]\.weight", tensor) is not None


def rotary_rows(rows: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Query or key rows in llama.cpp's order.

    Source: `LlamaModel.permute` in llama.cpp's conversion/llama.py.
    """
    return rows.reshape(heads, 2, -1, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)
