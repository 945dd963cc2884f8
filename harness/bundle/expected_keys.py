"""What a checkpoint asks of the keys that llama.cpp and libmtmd read from its GGUFs.

Sources: conversion/smolvlm.py, conversion/llama.py and conversion/base.py in llama.cpp for what is
written; `load_hparams` in src/llama-model.cpp and tools/mtmd/clip.cpp for what is read, and for
what is taken where a key is missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from harness.bundle.gguf_header import Value
from harness.bundle.settings import CheckpointSettings
from harness.comparison.stages import Stage

_CONFIG: Final = "the checkpoint's config.json"
_PROCESSOR: Final = "the checkpoint's processor"
_CONVERTER: Final = "llama.cpp's converter"


@dataclass(frozen=True)
class ExpectedKey:
    """One key and the value it should have."""

    key: str
    what: str
    """In words."""
    value: Value
    source: str
    """Who says so."""
    stage: Stage
    missing: Value = None
    """What llama.cpp takes where the key is missing; None where it then refuses the file."""


def expected_mmproj(settings: CheckpointSettings) -> Iterator[ExpectedKey]:
    """Of the mmproj; keys the checkpoint says nothing of are left out."""
    processor, model, vision = settings.processor, settings.model, settings.vision
    told: tuple[tuple[str, str, Any, str, Stage, Value], ...] = (
        ("image_size", "tile size", _edge(processor, "max_image_size"), _PROCESSOR, "tile", None),
        ("preproc_image_size", "longest edge", _edge(processor, "size"), _PROCESSOR, "tile", 0),
        ("patch_size", "patch size", vision.get("patch_size"), _CONFIG, "tile", None),
        ("projector.scale_factor", "scale factor", model.get("scale_factor"), _CONFIG, "tile", 1),
        ("image_mean", "image mean", processor["image_mean"], _PROCESSOR, "pixels", None),
        ("image_std", "image std", processor["image_std"], _PROCESSOR, "pixels", None),
        ("embedding_length", "width", vision.get("hidden_size"), _CONFIG, "embed", None),
        (
            "feed_forward_length", "feed-forward length", vision.get("intermediate_size"),
            _CONFIG, "embed", None,
        ),
        (
            "block_count", "number of layers", vision.get("num_hidden_layers"),
            _CONFIG, "embed", None,
        ),
        (
            "attention.head_count", "number of heads", vision.get("num_attention_heads"),
            _CONFIG, "embed", None,
        ),
        (
            "attention.layer_norm_epsilon", "layer norm epsilon", vision.get("layer_norm_eps"),
            _CONFIG, "embed", None,
        ),
    )  # fmt: skip
    for key, what, value, source, stage, missing in told:
        if value is not None:
            yield ExpectedKey(f"clip.vision.{key}", what, value, source, stage, missing)
    if vision.get("hidden_act", "gelu_pytorch_tanh") == "gelu_pytorch_tanh" and vision:
        yield ExpectedKey("clip.use_gelu", "use of GELU", True, _CONFIG, "embed", False)
    yield ExpectedKey("clip.use_silu", "use of SiLU", False, _CONVERTER, "embed", False)
    if heads := vision.get("num_attention_heads"):
        yield ExpectedKey(
            "clip.vision.attention.head_count_kv", "number of key heads", heads, _CONFIG,
            "embed", heads,
        )  # fmt: skip


def expected_text(settings: CheckpointSettings) -> Iterator[ExpectedKey]:
    """Of the text model; keys the checkpoint says nothing of are left out."""
    text = settings.text
    heads = text.get("num_attention_heads")
    width = text.get("hidden_size")
    head_size = text.get("head_dim") or (width // heads if width and heads else None)
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    told: tuple[tuple[str, str, Any, Value], ...] = (
        ("embedding_length", "width", width, None),
        ("block_count", "number of layers", text.get("num_hidden_layers"), None),
        ("feed_forward_length", "feed-forward length", text.get("intermediate_size"), None),
        ("attention.head_count", "number of heads", heads, None),
        (
            "attention.head_count_kv", "number of key heads",
            text.get("num_key_value_heads") or heads, heads,
        ),
        ("attention.key_length", "key length", head_size, head_size),
        ("attention.value_length", "value length", head_size, head_size),
        ("attention.layer_norm_rms_epsilon", "RMS norm epsilon", text.get("rms_norm_eps"), None),
        ("rope.dimension_count", "rotated dimensions", head_size, head_size),
        ("rope.freq_base", "rope base", rope.get("rope_theta") or text.get("rope_theta"), 10000.0),
    )  # fmt: skip
    for key, what, value, missing in told:
        if value is not None:
            yield ExpectedKey(f"llama.{key}", what, value, _CONFIG, "prefill", missing)
    yield ExpectedKey(
        "llama.attention.causal", "causal attention", True, _CONVERTER, "prefill", True
    )
    yield from _rope_scaling(rope)


def _rope_scaling(rope: dict[str, Any]) -> Iterator[ExpectedKey]:
    """How positions are stretched; kinds that no SmolVLM has are not looked at."""
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind not in ("default", "linear"):
        return
    factor = rope.get("factor", 1.0) if kind == "linear" else 1.0
    for key in ("scaling.factor", "scale_linear"):
        if key == "scale_linear" and factor != 1.0:
            continue  # its old name, read only where the other is missing
        yield ExpectedKey(f"llama.rope.{key}", "rope scale", factor, _CONFIG, "prefill", 1.0)
    yield ExpectedKey(
        "llama.rope.scaling.attn_factor", "rope attention factor", 1.0, _CONVERTER, "prefill", 1.0
    )


def _edge(processor: dict[str, Any], key: str) -> int | None:
    edge: int | None = (processor[key] or {}).get("longest_edge")
    return edge
