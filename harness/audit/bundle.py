"""A bundle: the contract it was made for, and whether its parts are this checkpoint's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from harness.audit.aspects import BY_KEY, stated
from harness.audit.findings import Finding, Side
from harness.audit.tokens import Tokens
from harness.bundle import Bundle, mmproj_against_checkpoint
from harness.bundle.gguf_file import GgufFile
from harness.contract import Contract

_SIDE: Final = "bundle"
_SHIPPED: Final = "q8_0"
_NAMED: Final = 3
_PLACES: Final = 5


def findings(bundle: Bundle, tokens: Tokens, contract: Contract) -> Iterator[Finding]:
    """What `bundle` says, held against the checkpoint that `tokens` belongs to.

    Raises:
        BundleError: a GGUF cannot be read.
        CheckpointError: the checkpoint's weights cannot be read.
    """
    manifest = str(bundle.path / "manifest.json")
    where = f"{manifest}: contract"
    yield from stated(bundle.contract, _SIDE, where)
    for aspect in ("marker", "sampling", "images_per_prompt", "output"):
        yield Finding(aspect, _SIDE, BY_KEY[aspect].always, where, "as every contract has it")
    quants = bundle.quants
    shipped = _SHIPPED if _SHIPPED in quants else quants[0]
    yield Finding("weights", _SIDE, shipped, manifest, f"it holds {', '.join(quants)}")
    mmproj = GgufFile(bundle.mmproj(shipped))
    yield _vision(mmproj, tokens)
    yield _normalisation(mmproj, tokens)
    yield from _text(GgufFile(bundle.text_model(shipped)), tokens)
    fits = prompt_fits(tokens, contract, _SIDE, str(bundle.path))
    if mmproj.get("clip.vision.preproc_image_size") and contract.tiling == "single":
        split = tokens.prompt(contract.model_copy(update={"tiling": "split"}))
        note = (
            f"{fits.note}; an app that evaluates every chunk that libmtmd makes with this mmproj "
            f"has {len(split.ids)} prompt tokens, {split.image_tokens} of them the image's"
        )
        fits = replace(fits, note=note)
    yield fits


def prompt_fits(tokens: Tokens, contract: Contract, side: Side, where: str) -> Finding:
    """Do prompt and answer fit the context?"""
    prompt = tokens.prompt(contract)
    room, limit = contract.runtime.context, contract.limits.max_tokens
    note = (
        f"{len(prompt.ids)} prompt tokens ({prompt.image_tokens} of them the image's) and "
        f"{limit} for the answer, in a context of {room}"
    )
    return Finding("prompt_fits", side, len(prompt.ids) + limit <= room, where, note)


def _vision(mmproj: GgufFile, tokens: Tokens) -> Finding:
    others = mmproj_against_checkpoint(mmproj.path, tokens.checkpoint.path)
    if not others:
        return Finding("mmproj", _SIDE, "of this checkpoint", str(mmproj.path))
    named = ", ".join(tensor.name for tensor in others[:_NAMED])
    note = f"not from the vision tower of {tokens.checkpoint.source}: {named} first"
    value = f"{len(others)} tensors of another model"
    return Finding("mmproj", _SIDE, value, str(mmproj.path), note)


def _normalisation(mmproj: GgufFile, tokens: Tokens) -> Finding:
    differing = []
    for key in ("image_mean", "image_std"):
        found = _rounded(mmproj.get(f"clip.vision.{key}"))
        wanted = _rounded(tokens.settings.get(key))
        if found != wanted:
            differing.append(f"{key} {found}, the checkpoint's is {wanted}")
    value = "; ".join(differing) or "the checkpoint's"
    return Finding("normalisation", _SIDE, value, str(mmproj.path))


def _text(text: GgufFile, tokens: Tokens) -> Iterator[Finding]:
    vocabulary = text.get("tokenizer.ggml.tokens") or []
    own = tokens.tokenizer.get_vocab()
    where = str(text.path)
    moved = [token for index, token in enumerate(vocabulary) if own.get(token, index) != index]
    ends, wanted = text.get("tokenizer.ggml.eos_token_id"), tokens.tokenizer.eos_token_id
    value = "the checkpoint's" if ends == wanted else f"end token {ends}, not {wanted}"
    if moved:
        value = f"{len(moved)} tokens have other ids"
    yield Finding("tokenizer", _SIDE, value, where, f"{moved[0]!r} first" if moved else "")
    adds = bool(text.get("tokenizer.ggml.add_bos_token"))
    if adds != bool(getattr(tokens.tokenizer, "add_bos_token", False)):
        value = "no beginning token, which the checkpoint's tokenizer adds"
        if adds:
            value = "a beginning token, which the checkpoint's tokenizer does not add"
        yield Finding("add_special", _SIDE, value, f"{where}: tokenizer.ggml.add_bos_token")


def _rounded(values: object) -> list[float] | None:
    if not isinstance(values, list | tuple):
        return None
    return [round(float(value), _PLACES) for value in values]
