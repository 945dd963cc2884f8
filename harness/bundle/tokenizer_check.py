"""The tokenizer inside a text GGUF against the checkpoint's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harness.bundle.checkpoint_files import read_json
from harness.bundle.finding import Finding
from harness.bundle.gguf_file import GgufFile
from harness.errors import BundleError
from harness.stage import Stage

if TYPE_CHECKING:
    from gguf import SpecialVocab

TOKENS: Final = "tokenizer.ggml.tokens"
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


def tokenizer_findings(text: GgufFile, checkpoint: Path) -> Iterator[Finding]:
    """Faults in tokens, their types, merges, special ids and what is put around a prompt.

    Raises BundleError where one of the checkpoint's tokenizer files is damaged.
    """
    tokenizer = read_json(checkpoint / "tokenizer.json")
    if tokenizer:
        yield from _tokens(text, tokenizer, read_json(checkpoint / "tokenizer_config.json"))
        yield from _splitting(text, tokenizer)
    special = _special(checkpoint)
    yield from _merges(text, special.merges)
    yield from _special_ids(text, special)
    yield from _put_around(text, special)


def _tokens(text: GgufFile, tokenizer: dict[str, Any], config: dict[str, Any]) -> Iterator[Finding]:
    found: list[str] = text.require(TOKENS)
    added = {entry["id"]: entry for entry in tokenizer.get("added_tokens", [])}
    vocabulary: dict[str, int] = (tokenizer.get("model") or {}).get("vocab") or {}
    wanted = {index: token for token, index in vocabulary.items()}
    named = config.get("added_tokens_decoder") or {}
    wanted |= {int(index): entry["content"] for index, entry in named.items()}
    wanted |= {index: entry["content"] for index, entry in added.items()}
    if vocabulary:
        wanted = {index: f"[PAD{index}]" for index in range(len(found))} | wanted
    wrong = [
        index for index, token in wanted.items() if index >= len(found) or found[index] != token
    ]
    if wrong:
        yield _other_token(
            found, wanted, min(wrong, key=lambda index: (index not in added, index)), len(wrong)
        )
        return  # types are told by the tokens' places
    yield from _types(text, wanted, added)


def _other_token(found: list[str], wanted: dict[int, str], index: int, count: int) -> Finding:
    token = wanted[index]
    more = "" if count == 1 else f"; {count} tokens differ"
    if token in found:
        said = f"token {token} has id {found.index(token)}, {index} in"
    else:
        there = repr(found[index]) if index < len(found) else "none"
        said = f"token {index} is {there}, {token!r} in"
    return Finding("token", token, "tokens", None, f"{said} the checkpoint's tokenizer{more}")


def _types(
    text: GgufFile, wanted: dict[int, str], added: dict[int, dict[str, Any]]
) -> Iterator[Finding]:
    found: list[int] | None = text.get(_TYPES)
    if found is None:
        return
    for index, token in sorted(wanted.items()):
        if index not in added:
            right = {_NORMAL, _UNUSED} if token.startswith("[PAD") else {_NORMAL}
        elif added[index].get("special"):
            right = {_CONTROL}
        else:
            right = {_CONTROL, _USER_DEFINED}
        if index < len(found) and found[index] not in right:
            kind = _TYPE_NAMES.get(found[index], str(found[index]))
            should = _TYPE_NAMES[min(right)]
            detail = f"token {token} is {kind}, {should} in the checkpoint's tokenizer"
            yield Finding("token", token, "tokens", None, detail)
            return


def _splitting(text: GgufFile, tokenizer: dict[str, Any]) -> Iterator[Finding]:
    """How text is cut before merging, where it is SmolLM's way."""
    parts = (tokenizer.get("pre_tokenizer") or {}).get("pretokenizers") or []
    if tuple(part.get("type") for part in parts) != _SMOLLM:
        return
    for key, wanted in (("tokenizer.ggml.model", "gpt2"), ("tokenizer.ggml.pre", "smollm")):
        found = text.get(key)
        if found != wanted:
            detail = f"{found or 'missing'}, {wanted} is the checkpoint's tokenizer"
            yield Finding("key", key, "tokens", None, detail)


def _merges(text: GgufFile, wanted: list[str]) -> Iterator[Finding]:
    found: list[str] = text.get(_MERGES) or []
    if found == wanted:
        return
    pairs = zip(found, wanted, strict=False)
    at = next(
        (at for at, (one, other) in enumerate(pairs) if one != other),
        min(len(found), len(wanted)),
    )
    here = repr(found[at]) if at < len(found) else "none"
    there = repr(wanted[at]) if at < len(wanted) else "none"
    changed = len(set(found) ^ set(wanted))
    what = (
        "in another order"
        if not changed and len(found) == len(wanted)
        else (f"{len(found)} of them, {len(wanted)} in the checkpoint's tokenizer")
    )
    detail = f"merges are others ({what}): number {at} is {here}, {there} there"
    yield Finding("token", _MERGES, "tokens", None, detail)


def _special_ids(text: GgufFile, special: SpecialVocab) -> Iterator[Finding]:
    tokens: list[str] = text.require(TOKENS)
    for kind, stage in _ENDS.items():
        key = f"tokenizer.ggml.{kind}_token_id"
        found, wanted = text.get(key), special.special_token_ids.get(kind)
        if found != wanted:
            detail = (
                f"{kind.upper()} is {_token(tokens, found)}, "
                f"{_token(tokens, wanted)} in the checkpoint's tokenizer"
            )
            yield Finding("key", key, stage, None, detail)


def _put_around(text: GgufFile, special: SpecialVocab) -> Iterator[Finding]:
    """Whether llama.cpp puts BOS before a prompt and EOS after it."""
    for kind in ("bos", "eos"):
        key = f"tokenizer.ggml.add_{kind}_token"
        wanted = special.add_special_token.get(kind, False)
        if kind == "bos" and len(text.require(TOKENS)) == _WITHOUT_BOS:
            wanted = False
        if bool(text.get(key)) != wanted:
            says = "is added to" if not wanted else "is left out of"
            detail = f"{kind.upper()} {says} the prompt, unlike in the checkpoint's tokenizer"
            yield Finding("key", key, "tokens", None, detail)


def _token(tokens: list[str], index: int | None) -> str:
    if index is None:
        return "not named"
    return f"{tokens[index]!r} ({index})" if index < len(tokens) else f"{index}, no token"


def _special(checkpoint: Path) -> SpecialVocab:
    """What llama.cpp's converter reads from the checkpoint's tokenizer files."""
    from gguf import SpecialVocab

    try:
        return SpecialVocab(checkpoint, load_merges=True)
    except (ValueError, AttributeError, TypeError) as error:
        raise BundleError(
            f"{checkpoint}: its tokenizer's files cannot be read: {error}; build the bundle again"
        ) from error
