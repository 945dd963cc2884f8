"""GGUF keys that inference reads, the tokenizer's among them, against the checkpoint.

Sources: conversion/smolvlm.py, conversion/llama.py and conversion/base.py in llama.cpp for what is
written; `load_hparams` in src/llama-model.cpp and tools/mtmd/clip.cpp for what is read, and for
what is taken where a key is missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isclose
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from driftloop.harness.bundle.checkpoint_files import CheckpointSettings, read_json
from driftloop.harness.bundle.gguf_file import GgufFile, Value
from driftloop.harness.bundle.quant_types import coarsest, is_coarser, is_its_own
from driftloop.harness.bundle.tensor_names import is_vision
from driftloop.harness.errors import BundleError
from driftloop.harness.stage import Stage

if TYPE_CHECKING:
    from gguf import SpecialVocab

TOKENS: Final = "tokenizer.ggml.tokens"
_CONTEXT: Final = "llama.context_length"
_FILE_TYPE: Final = "general.file_type"
_SCALING: Final = "llama.rope.scaling.type"
_YARN: Final = ("yarn", "longrope")
_SINGLE: Final = 1e-5
"""Keys are float32; the checkpoint's JSON has more digits."""
_CONFIG: Final = "the checkpoint's config.json"
_PROCESSOR: Final = "the checkpoint's processor"
_CONVERTER: Final = "llama.cpp's converter"
_TYPES: Final = "tokenizer.ggml.token_type"
_MERGES: Final = "tokenizer.ggml.merges"
_ENDS: Final[dict[str, Stage]] = {
    "bos": "tokens", "eos": "decode", "eot": "decode", "eom": "decode",
}  # fmt: skip
"""Special tokens that inference reads, and where a wrong one shows first."""
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5
_TYPE_NAMES: Final = {_NORMAL: "normal", _CONTROL: "control", _USER_DEFINED: "user-defined"}
_SMOLLM: Final = ("Digits", "ByteLevel")
"""How a tokenizer splits text that llama.cpp knows as `smollm`."""
_WITHOUT_BOS: Final = 49152
"""For a vocabulary of this size the converter turns BOS off (conversion/llama.py)."""


@dataclass(frozen=True)
class Finding:
    """Something out of line in one GGUF: a `FileFault` (harness.records.inquiry) without a file."""

    kind: Literal["tensor", "key", "token", "hash"]
    name: str
    stage: Stage
    detail: str
    layer: str | None = None
    remark: bool = False


@dataclass(frozen=True)
class _Expected:
    """One key and the value it should have."""

    key: str
    what: str
    """In words."""
    value: Value
    """None where the checkpoint does not give it; nothing is expected then."""
    stage: Stage = "prefill"
    missing: Value = None
    """What llama.cpp takes where the key is missing; None where it then refuses the file."""
    source: str = _CONFIG
    """Where the value comes from."""

    def compared(self, gguf: GgufFile) -> Iterator[Finding]:
        found = gguf.keys.get(self.key)
        taken = self.missing if found is None else found
        if self.value is None or taken is None or _same(taken, self.value):
            return
        shown = f"missing, which means {taken}" if found is None else str(_short(taken))
        detail = f"{self.what} {shown}, {_short(self.value)} in {self.source}"
        yield Finding("key", self.key, self.stage, detail)


def mmproj_keys(mmproj: GgufFile, settings: CheckpointSettings) -> Iterator[Finding]:
    """Faults in the keys of an mmproj."""
    found = [one for key in _expected_mmproj(settings) for one in key.compared(mmproj)]
    yield from found
    side = mmproj.require("clip.vision.image_size") // mmproj.require("clip.vision.patch_size")
    scale = mmproj.require("clip.vision.projector.scale_factor")
    tokens, wanted = (side // scale) ** 2, settings.processor.get("image_seq_len")
    if wanted not in (None, tokens) and not any(one.stage == "tile" for one in found):
        detail = f"tokens per tile {tokens}, {wanted} in the checkpoint's processor"
        yield Finding("key", "clip.vision.projector.scale_factor", "tile", detail)


def text_keys(text: GgufFile, settings: CheckpointSettings) -> Iterator[Finding]:
    """Faults in the keys of a text model; those of its tokenizer are apart."""
    for expected in _expected_text(settings.text):
        yield from expected.compared(text)
    kind = text.keys.get(_SCALING)
    longest, found = settings.text.get("max_position_embeddings"), text.keys.get(_CONTEXT)
    if longest is not None and found is not None and found < longest:
        detail = f"context length {found}, {longest} in the checkpoint's config.json"
        # Unless positions are stretched by it, llama.cpp only warns.
        yield Finding("key", _CONTEXT, "prefill", detail, remark=kind not in _YARN)
    if kind in _YARN and _rope(settings.text)[0] not in _YARN:
        detail = f"rope scaling {kind}, none in the checkpoint's config.json"
        yield Finding("key", _SCALING, "prefill", detail)


def stated_type(gguf: GgufFile, quant: str) -> Iterator[Finding]:
    """A file whose tensors are in order and that names another quant type as its own."""
    found = _stated(gguf)
    if found not in (None, quant):
        stage: Stage = "embed" if any(map(is_vision, gguf.tensors)) else "prefill"
        detail = f"the file says that it is {found}; its tensors are those of a {quant} file"
        yield Finding("key", _FILE_TYPE, stage, detail, remark=True)


def own_quant(gguf: GgufFile) -> str:
    """The quant type that a file states; where its tensors contradict it, their commonest type."""
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
    stated = names.get(gguf.keys.get(_FILE_TYPE, -1))
    return stated if stated is not None and coarsest(stated) is not None else None


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


def _expected_mmproj(settings: CheckpointSettings) -> Iterator[_Expected]:
    processor, vision = settings.processor, settings.vision
    rows: tuple[tuple[str, str, Value, Stage, Value, str], ...] = (
        ("image_size", "tile size", _edge(processor, "max_image_size"), "tile", None, _PROCESSOR),
        ("preproc_image_size", "longest edge", _edge(processor, "size"), "tile", 0, _PROCESSOR),
        ("patch_size", "patch size", vision.get("patch_size"), "tile", None, _CONFIG),
        ("projector.scale_factor", "scale factor", settings.model.get("scale_factor"), "tile", 1,
         _CONFIG),
        ("image_mean", "image mean", processor["image_mean"], "pixels", None, _PROCESSOR),
        ("image_std", "image std", processor["image_std"], "pixels", None, _PROCESSOR),
    )  # fmt: skip
    for key, what, value, stage, missing, source in rows:
        yield _Expected(f"clip.vision.{key}", what, value, stage, missing, source)
    for key, what, name in (
        ("embedding_length", "width", "hidden_size"),
        ("feed_forward_length", "feed-forward length", "intermediate_size"),
        ("block_count", "number of layers", "num_hidden_layers"),
        ("attention.head_count", "number of heads", "num_attention_heads"),
        ("attention.layer_norm_epsilon", "layer norm epsilon", "layer_norm_eps"),
    ):
        yield _Expected(f"clip.vision.{key}", what, vision.get(name), "embed")
    gelu = vision and vision.get("hidden_act", "gelu_pytorch_tanh") == "gelu_pytorch_tanh"
    yield _Expected("clip.use_gelu", "use of GELU", True if gelu else None, "embed", False)
    yield _Expected("clip.use_silu", "use of SiLU", False, "embed", False, _CONVERTER)
    heads = vision.get("num_attention_heads") or None
    key = "clip.vision.attention.head_count_kv"
    yield _Expected(key, "number of key heads", heads, "embed", heads)


def _expected_text(text: dict[str, Any]) -> Iterator[_Expected]:
    heads, width = text.get("num_attention_heads"), text.get("hidden_size")
    head_size = text.get("head_dim") or (width // heads if width and heads else None)
    kind, rope = _rope(text)
    theta = rope.get("rope_theta") or text.get("rope_theta")
    for key, what, value, missing in (
        ("embedding_length", "width", width, None),
        ("block_count", "number of layers", text.get("num_hidden_layers"), None),
        ("feed_forward_length", "feed-forward length", text.get("intermediate_size"), None),
        ("attention.head_count", "number of heads", heads, None),
        ("attention.head_count_kv", "number of key heads",
         text.get("num_key_value_heads") or heads, heads),
        ("attention.key_length", "key length", head_size, head_size),
        ("attention.value_length", "value length", head_size, head_size),
        ("attention.layer_norm_rms_epsilon", "RMS norm epsilon", text.get("rms_norm_eps"), None),
        ("rope.dimension_count", "rotated dimensions", head_size, head_size),
        ("rope.freq_base", "rope base", theta, 10000.0),
    ):  # fmt: skip
        yield _Expected(f"llama.{key}", what, value, missing=missing)
    causal = "llama.attention.causal", "causal attention", True
    yield _Expected(*causal, missing=True, source=_CONVERTER)
    if kind not in ("default", "linear"):
        return  # kinds that no SmolVLM has
    factor = rope.get("factor", 1.0) if kind == "linear" else 1.0
    yield _Expected("llama.rope.scaling.factor", "rope scale", factor, missing=1.0)
    if factor == 1.0:  # its old name, read only where the other is missing
        yield _Expected("llama.rope.scale_linear", "rope scale", factor, missing=1.0)
    attention = "llama.rope.scaling.attn_factor", "rope attention factor", 1.0
    yield _Expected(*attention, missing=1.0, source=_CONVERTER)


def _rope(text: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """How positions are stretched: the kind, and its parameters."""
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    return rope.get("rope_type") or rope.get("type") or "default", rope


def _edge(processor: dict[str, Any], key: str) -> int | None:
    edge: int | None = (processor[key] or {}).get("longest_edge")
    return edge


def tokenizer_findings(text: GgufFile, checkpoint: Path) -> Iterator[Finding]:
    """Faults in tokens, their types, merges, special ids and what is put around a prompt. Raises
    BundleError where one of the checkpoint's tokenizer files is damaged."""
    tokenizer = read_json(checkpoint / "tokenizer.json")
    if tokenizer:
        yield from _tokens(text, tokenizer, read_json(checkpoint / "tokenizer_config.json"))
        yield from _splitting(text, tokenizer)
    from gguf import SpecialVocab

    try:  # what llama.cpp's converter reads
        special = SpecialVocab(checkpoint, load_merges=True)
    except (ValueError, AttributeError, TypeError) as error:
        raise BundleError(
            f"{checkpoint}: its tokenizer's files cannot be read: {error}; build the bundle again"
        ) from error
    yield from _merges(text, special.merges)
    yield from _special_ids(text, special)
    yield from _put_around(text, special)


def _tokens(text: GgufFile, tokenizer: dict[str, Any], config: dict[str, Any]) -> Iterator[Finding]:
    found: list[str] = text.require(TOKENS)
    added = {entry["id"]: entry for entry in tokenizer.get("added_tokens", [])}
    vocabulary: dict[str, int] = (tokenizer.get("model") or {}).get("vocab") or {}
    wanted = {index: f"[PAD{index}]" for index in range(len(found))} if vocabulary else {}
    wanted |= {index: token for token, index in vocabulary.items()}
    named = config.get("added_tokens_decoder") or {}
    wanted |= {int(index): entry["content"] for index, entry in named.items()}
    wanted |= {index: entry["content"] for index, entry in added.items()}
    wrong = [
        index for index, token in wanted.items() if index >= len(found) or found[index] != token
    ]
    if not wrong:
        yield from _types(text, wanted, added)
        return  # with other tokens, a position does not determine a type
    index = min(wrong, key=lambda index: (index not in added, index))
    token = wanted[index]
    if token in found:
        detail = f"token {token} has id {found.index(token)}, {index} in"
    else:
        there = repr(found[index]) if index < len(found) else "none"
        detail = f"token {index} is {there}, {token!r} in"
    more = "" if len(wrong) == 1 else f"; {len(wrong)} tokens differ"
    yield Finding("token", token, "tokens", f"{detail} the checkpoint's tokenizer{more}")


def _types(
    text: GgufFile, wanted: dict[int, str], added: dict[int, dict[str, Any]]
) -> Iterator[Finding]:
    found: list[int] = text.keys.get(_TYPES) or []
    for index, token in sorted(wanted.items()):
        if index not in added:
            right = {_NORMAL, _UNUSED} if token.startswith("[PAD") else {_NORMAL}
        else:
            right = {_CONTROL} if added[index].get("special") else {_CONTROL, _USER_DEFINED}
        if index < len(found) and found[index] not in right:
            kind = _TYPE_NAMES.get(found[index], str(found[index]))
            should = _TYPE_NAMES[min(right)]
            detail = f"token {token} is {kind}, {should} in the checkpoint's tokenizer"
            yield Finding("token", token, "tokens", detail)
            return


def _splitting(text: GgufFile, tokenizer: dict[str, Any]) -> Iterator[Finding]:
    """How text is cut before merging, where it is SmolLM's way."""
    parts = (tokenizer.get("pre_tokenizer") or {}).get("pretokenizers") or []
    if tuple(part.get("type") for part in parts) != _SMOLLM:
        return
    for key, wanted in (("tokenizer.ggml.model", "gpt2"), ("tokenizer.ggml.pre", "smollm")):
        found = text.keys.get(key)
        if found != wanted:
            detail = f"{found or 'missing'}, {wanted} is the checkpoint's tokenizer"
            yield Finding("key", key, "tokens", detail)


def _merges(text: GgufFile, wanted: list[str]) -> Iterator[Finding]:
    found: list[str] = text.keys.get(_MERGES) or []
    if found == wanted:
        return
    at = first_difference(found, wanted)
    here, there = (repr(merges[at]) if at < len(merges) else "none" for merges in (found, wanted))
    what = f"{len(found)} of them, {len(wanted)} in the checkpoint's tokenizer"
    if len(found) == len(wanted) and set(found) == set(wanted):
        what = "in another order"
    detail = f"merges are others ({what}): number {at} is {here}, {there} there"
    yield Finding("token", _MERGES, "tokens", detail)


def first_difference(a: Sequence[object], b: Sequence[object]) -> int:
    """The first index at which two lists or strings differ, or the length of the shorter."""
    pairs = zip(a, b, strict=False)
    return next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(a), len(b)))


def _special_ids(text: GgufFile, special: SpecialVocab) -> Iterator[Finding]:
    tokens: list[str] = text.require(TOKENS)
    for kind, stage in _ENDS.items():
        key = f"tokenizer.ggml.{kind}_token_id"
        found, wanted = text.keys.get(key), special.special_token_ids.get(kind)
        if found != wanted:
            here, there = _token(tokens, found), _token(tokens, wanted)
            detail = f"{kind.upper()} is {here}, {there} in the checkpoint's tokenizer"
            yield Finding("key", key, stage, detail)


def _put_around(text: GgufFile, special: SpecialVocab) -> Iterator[Finding]:
    """Whether llama.cpp puts BOS before a prompt and EOS after it."""
    for kind in ("bos", "eos"):
        key = f"tokenizer.ggml.add_{kind}_token"
        wanted = special.add_special_token.get(kind, False)
        if kind == "bos" and len(text.require(TOKENS)) == _WITHOUT_BOS:
            wanted = False
        if bool(text.keys.get(key)) != wanted:
            does = "is left out of" if wanted else "is added to"
            detail = f"{kind.upper()} {does} the prompt, unlike in the checkpoint's tokenizer"
            yield Finding("key", key, "tokens", detail)


def _token(tokens: list[str], index: int | None) -> str:
    if index is None:
        return "not named"
    return f"{tokens[index]!r} ({index})" if index < len(tokens) else f"{index}, no token"
