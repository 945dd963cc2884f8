"""GGUF keys that say something else than the checkpoint does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import isclose
from typing import Final

from harness.bundle.expected_keys import ExpectedKey, expected_mmproj, expected_text
from harness.bundle.finding import Finding
from harness.bundle.gguf_file import GgufFile
from harness.bundle.gguf_header import Value
from harness.bundle.names import is_vision
from harness.bundle.quant_mix import is_coarser, is_its_own
from harness.bundle.settings import CheckpointSettings
from harness.comparison.stages import Stage

_CONTEXT: Final = "llama.context_length"
_FILE_TYPE: Final = "general.file_type"
_YARN: Final = ("yarn", "longrope")
_SINGLE: Final = 1e-5
"""Keys are float32; the checkpoint's JSON has more digits."""


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
    return names.get(gguf.get(_FILE_TYPE))


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
