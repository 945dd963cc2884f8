"""GGUF keys: what a checkpoint asks of those that inference reads, and how two files' differ.

Sources: conversion/smolvlm.py, conversion/llama.py and conversion/base.py in llama.cpp for what is
written; `load_hparams` in src/llama-model.cpp and tools/mtmd/clip.cpp for what is read, and for
what is taken where a key is missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import isclose
from typing import Any, Final

from harness.bundle.checkpoint_files import CheckpointSettings
from harness.bundle.finding import Finding
from harness.bundle.gguf_file import DESCRIPTIONS, GgufFile
from harness.bundle.gguf_header import Value
from harness.bundle.names import is_vision
from harness.bundle.quant_mix import coarsest, is_coarser, is_its_own
from harness.stage import Stage

_CONTEXT: Final = "llama.context_length"
_FILE_TYPE: Final = "general.file_type"
_YARN: Final = ("yarn", "longrope")
_SINGLE: Final = 1e-5
"""Keys are float32; the checkpoint's JSON has more digits."""
_CONFIG: Final = "the checkpoint's config.json"
_PROCESSOR: Final = "the checkpoint's processor"
_CONVERTER: Final = "llama.cpp's converter"
_MATTERS: Final = "general.architecture"
_SHOWN: Final = 8
"""Lists up to this length, and strings up to ten times it, are told whole."""


def mmproj_keys(mmproj: GgufFile, settings: CheckpointSettings) -> Iterator[Finding]:
    """Faults in the keys of an mmproj."""
    tiling_is_right = True
    for expected in expected_mmproj(settings):
        if finding := _difference(mmproj, expected):
            tiling_is_right &= expected.stage != "tile"
            yield finding
    side = mmproj.require("clip.vision.image_size") // mmproj.require("clip.vision.patch_size")
    scale = mmproj.require("clip.vision.projector.scale_factor")
    tokens, wanted = (side // scale) ** 2, settings.processor.get("image_seq_len")
    if tiling_is_right and wanted not in (None, tokens):
        yield Finding(
            "key",
            "clip.vision.projector.scale_factor",
            "tile",
            None,
            f"tokens per tile {tokens}, {wanted} in the checkpoint's processor",
        )


def text_keys(text: GgufFile, settings: CheckpointSettings) -> Iterator[Finding]:
    """Faults in the keys of a text model; those of its tokenizer are apart."""
    for expected in expected_text(settings):
        if finding := _difference(text, expected):
            yield finding
    kind = text.get("llama.rope.scaling.type")
    longest, found = settings.text.get("max_position_embeddings"), text.get(_CONTEXT)
    if longest is not None and found is not None and found < longest:
        yield Finding(
            "key",
            _CONTEXT,
            "prefill",
            None,
            f"context length {found}, {longest} in the checkpoint's config.json",
            remark=kind not in _YARN,  # otherwise llama.cpp warns, and computes with it nowhere
        )
    rope = settings.text.get("rope_parameters") or settings.text.get("rope_scaling") or {}
    if kind in _YARN and (rope.get("rope_type") or rope.get("type")) not in _YARN:
        yield Finding(
            "key",
            "llama.rope.scaling.type",
            "prefill",
            None,
            f"rope scaling {kind}, none in the checkpoint's config.json",
        )


def stated_type(gguf: GgufFile, quant: str) -> Iterator[Finding]:
    """A file whose tensors are in order and that names another quant type as its own."""
    found = _stated(gguf)
    if found not in (None, quant):
        stage: Stage = "embed" if any(map(is_vision, gguf.tensors)) else "prefill"
        detail = f"the file says that it is {found}; its tensors are those of a {quant} file"
        yield Finding("key", _FILE_TYPE, stage, None, detail, remark=True)


def own_quant(gguf: GgufFile) -> str:
    """The quant type that a file says it is, or where its tensors deny that, their most common."""
    matrices = [
        (gguf.type_name(name), gguf.shape(name)[-1])
        for name in gguf.tensors
        if len(gguf.shape(name)) > 1
    ]
    stated = _stated(gguf)
    if (
        stated is not None
        and any(is_its_own(*matrix, stated) for matrix in matrices)
        and not any(is_coarser(type_name, stated) for type_name, _ in matrices)
    ):
        return stated
    return Counter(type_name for type_name, _ in matrices).most_common(1)[0][0]


def _stated(gguf: GgufFile) -> str | None:
    from gguf import LlamaFileType

    names = {int(one): one.name.lower().split("_", 1)[-1] for one in LlamaFileType}
    stated = names.get(gguf.get(_FILE_TYPE))
    return stated if stated is not None and coarsest(stated) is not None else None


def _difference(gguf: GgufFile, expected: ExpectedKey) -> Finding | None:
    found = gguf.get(expected.key)
    taken = expected.missing if found is None else found
    if taken is None or _same(taken, expected.value):
        return None
    shown = f"missing, which means {taken}" if found is None else str(_short(taken))
    return Finding(
        "key",
        expected.key,
        expected.stage,
        None,
        f"{expected.what} {shown}, {_short(expected.value)} in {expected.source}",
    )


def _same(found: Value, wanted: Value) -> bool:
    if isinstance(wanted, list):
        return (
            isinstance(found, list)
            and len(found) >= len(wanted)
            and all(_same(*pair) for pair in zip(found, wanted, strict=False))
        )
    if isinstance(found, int | float) and isinstance(wanted, int | float):
        return isclose(found, wanted, rel_tol=_SINGLE)
    return bool(found == wanted)


def _short(value: Value) -> Value:
    if isinstance(value, list):
        return [_short(one) for one in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


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


@dataclass(frozen=True)
class KeyDifference:
    """A key that differs. A long list or string is told from where it first differs."""

    key: str
    a: Any
    b: Any
    """None where the file has no such key."""


def differing_keys(a: GgufFile, b: GgufFile) -> list[KeyDifference]:
    """Ordered as `a` has them, then those that only `b` has."""
    names = [name for name in dict.fromkeys((*a.keys, *b.keys)) if _matters(name)]
    return [
        KeyDifference(name, *_told(a.get(name), b.get(name)))
        for name in names
        if a.get(name) != b.get(name)
    ]


def _matters(name: str) -> bool:
    return name == _MATTERS or not name.startswith(DESCRIPTIONS)


def _told(a: Value, b: Value) -> tuple[Value, Value]:
    if isinstance(a, list) and isinstance(b, list) and max(len(a), len(b)) > _SHOWN:
        at = _first_difference(a, b)
        return _entry(a, at), _entry(b, at)
    if isinstance(a, str) and isinstance(b, str) and max(len(a), len(b)) > 10 * _SHOWN:
        at = _first_difference(a, b)
        return _excerpt(a, at), _excerpt(b, at)
    return _alone(a), _alone(b)


def _first_difference(a: list[Value] | str, b: list[Value] | str) -> int:
    pairs = zip(a, b, strict=False)
    return next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(a), len(b)))


def _entry(values: list[Value], at: int) -> str:
    found = repr(values[at]) if at < len(values) else "none"
    return f"{len(values)} entries, number {at}: {found}"


def _excerpt(text: str, at: int) -> str:
    return f"{len(text)} characters, from {at}: {text[at : at + 4 * _SHOWN]!r}"


def _alone(value: Value) -> Value:
    """One side where the other has nothing of the kind."""
    if isinstance(value, list) and len(value) > _SHOWN:
        return f"{len(value)} entries"
    if isinstance(value, str) and len(value) > 10 * _SHOWN:
        return f"{len(value)} characters"
    return value
