"""What a GGUF tensor's name says: its source in the checkpoint, its row order, its layer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from driftloop.harness.stage import Stage

_TOP_LEVEL: Final = {
    "token_embd.weight": "model.text_model.embed_tokens.weight",
    "output_norm.weight": "model.text_model.norm.weight",
    "output.weight": "lm_head.weight",
    "mm.model.fc.weight": "model.connector.modality_projection.proj.weight",
    "v.patch_embd.weight": "model.vision_model.embeddings.patch_embedding.weight",
    "v.patch_embd.bias": "model.vision_model.embeddings.patch_embedding.bias",
    "v.position_embd.weight": "model.vision_model.embeddings.position_embedding.weight",
    "v.post_ln.weight": "model.vision_model.post_layernorm.weight",
    "v.post_ln.bias": "model.vision_model.post_layernorm.bias",
}
_ATTENTION: Final = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
}
_TEXT_LAYER: Final = _ATTENTION | {
    "attn_norm": "input_layernorm",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_VISION_LAYER: Final = _ATTENTION | {
    "attn_out": "self_attn.out_proj",
    "ln1": "layer_norm1",
    "ln2": "layer_norm2",
    "ffn_up": "mlp.fc1",
    "ffn_down": "mlp.fc2",
}
_TOWERS: Final = {
    "": ("text_model", _TEXT_LAYER),
    "v.": ("vision_model.encoder", _VISION_LAYER),
}
"""Prefix of a tower's blocks in a GGUF -> its place in the checkpoint and the names in a layer."""
_LAYER: Final = re.compile(r"(v\.|)blk\.(\d+)\.(\w+)\.(\w+)")
_FFN: Final = re.compile(r"v\.blk\.(?P<index>\d+)\.ffn_(?P<part>up|down)\.(?P<kind>weight|bias)")
_GROUPS: Final = (
    ("token_embd", "token_embd"),
    ("output_norm", "norms"),
    ("output", "output"),
    ("mm.", "projector"),
    ("v.patch_embd", "vision_patch_embd"),
    ("v.position_embd", "vision_position_embd"),
)
_PLACES: Final[dict[str, tuple[Stage, str]]] = {
    "v.patch_embd": ("embed", "vision patches"),
    "v.position_embd": ("embed", "vision patches"),
    "v.post_ln": ("embed", "vision norm"),
    "token_embd": ("prefill", "text embeddings"),
    "output_norm": ("prefill", "text norm"),
    "output": ("prefill", "text output"),
}
_PARTS: Final = {"attn": "attention", "ln1": "attention", "ffn": "ffn", "ln2": "ffn"}


def checkpoint_name(tensor: str) -> str | None:
    """The checkpoint's name of a GGUF tensor; None for one this architecture does not have."""
    if tensor in _TOP_LEVEL:
        return _TOP_LEVEL[tensor]
    if (match := _LAYER.fullmatch(tensor)) is None:
        return None
    prefix, index, part, kind = match.groups()
    tower, parts = _TOWERS[prefix]
    return f"model.{tower}.layers.{index}.{parts[part]}.{kind}" if part in parts else None


def gguf_name(source: str) -> str | None:
    """The GGUF's name of a checkpoint's tensor; None for one that has no place in a GGUF."""
    for tensor, known in _TOP_LEVEL.items():
        if source == known:
            return tensor
    for prefix, (tower, parts) in _TOWERS.items():
        match = re.fullmatch(rf"model\.{tower}\.layers\.(\d+)\.([\w.]+)\.(\w+)", source)
        for part, known in parts.items() if match else ():
            if match and match[2] == known:
                return f"{prefix}blk.{match[1]}.{part}.{match[3]}"
    return None


def swapped_ffn(tensors: Mapping[str, tuple[int, ...]], width: object) -> dict[str, str]:
    """Name in the file -> name under which libmtmd uses it, where ffn_up and ffn_down are swapped.

    llama.cpp's first converters of mmproj files named ffn_up and ffn_down for each other. libmtmd
    swaps them back where ffn_down takes as many values as the tower is wide (`is_ffn_swapped` in
    tools/mtmd/clip.cpp). `tensors`: shape by name, slowest dimension first.
    """
    swapped = {}
    for name in tensors:
        if match := _FFN.fullmatch(name):
            block, kind = f"v.blk.{match['index']}.ffn_", match["kind"]
            down = tensors.get(f"{block}down.weight")
            if f"{block}up.weight" in tensors and down is not None and down[-1] == width:
                swapped[name] = f"{block}{'down' if match['part'] == 'up' else 'up'}.{kind}"
    return swapped


def is_vision(tensor: str) -> bool:
    """Whether a tensor belongs in the mmproj."""
    return tensor.startswith(("v.", "mm."))


def is_rotary(tensor: str) -> bool:
    """Whether the converter reorders the rows: the text model's query and key weights."""
    return re.fullmatch(r"blk\.\d+\.attn_[qk]\.weight", tensor) is not None


def rotary_rows(rows: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Query or key rows in llama.cpp's order: `LlamaModel.permute` in its conversion/llama.py."""
    return rows.reshape(heads, 2, -1, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def group_of(tensor: str) -> str:
    """Which part of the model a tensor belongs to: what a quant type is chosen by."""
    for prefix, group in _GROUPS:
        if tensor.startswith(prefix):
            return group
    side = "vision_" if tensor.startswith("v.") else ""
    if tensor.endswith(".bias"):
        return f"{side}biases"
    if "norm" in tensor or ".ln" in tensor or "post_ln" in tensor:
        return f"{side}norms"
    if ".attn_" in tensor:
        return f"{side}attn"
    return f"{side}ffn" if ".ffn_" in tensor else f"{side}other"


def place_of(tensor: str) -> tuple[Stage, str | None]:
    """The first stage and the layer in which a tensor can be seen. Layers are named as in
    `harness.arms.layers`; `projector`, `text embeddings` and `text output` occur in files only. The
    layer is None for a tensor that has no place in SmolVLM."""
    if tensor.startswith("mm."):
        return "embed", "projector"
    if place := _PLACES.get(tensor.rsplit(".", 1)[0]):
        return place
    stage: Stage = "embed" if tensor.startswith("v.") else "prefill"
    match = re.match(r"(?:v\.)?blk\.(\d+)\.(ffn|attn|ln1|ln2)", tensor)
    tower = "vision" if stage == "embed" else "text"
    return stage, f"{tower} layer {match[1]} {_PARTS[match[2]]}" if match else None
