"""A bundle: the contract it was made for, and whether its parts are this checkpoint's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from driftloop.harness.audit.aspects import BY_KEY, stated
from driftloop.harness.audit.checkpoint import Tokens
from driftloop.harness.audit.findings import Finding
from driftloop.harness.bundle import Bundle, mmproj_against_checkpoint
from driftloop.harness.bundle.checkpoint_files import read_settings
from driftloop.harness.bundle.gguf_file import GgufFile
from driftloop.harness.bundle.key_check import mmproj_keys, tokenizer_findings
from driftloop.harness.contract import Contract

_SIDE: Final = "bundle"


def findings(bundle: Bundle, tokens: Tokens, contract: Contract) -> Iterator[Finding]:
    """What `bundle` says, compared with the checkpoint of `tokens`. Raises BundleError where a GGUF
    cannot be read, CheckpointError where the checkpoint's weights cannot."""
    manifest = str(bundle.path / "manifest.json")
    where = f"{manifest}: contract"
    yield from stated(bundle.contract, _SIDE, where)
    for aspect in ("marker", "sampling", "images_per_prompt", "output"):
        yield Finding(aspect, _SIDE, BY_KEY[aspect].always, where, "as every contract has it")
    quants = bundle.quants
    shipped = "q8_0" if "q8_0" in quants else quants[0]
    yield Finding("weights", _SIDE, shipped, manifest, f"it holds {', '.join(quants)}")
    mmproj, text = GgufFile(bundle.mmproj(shipped)), GgufFile(bundle.text_model(shipped))
    checkpoint = tokens.checkpoint.path
    value, note = "of this checkpoint", ""
    if others := mmproj_against_checkpoint(mmproj.path, checkpoint):
        named = ", ".join(tensor.name for tensor in others[:3])
        note = f"not from the vision tower of {tokens.checkpoint.source}: {named} first"
        value = f"{len(others)} tensors of another model"
    yield Finding("mmproj", _SIDE, value, str(mmproj.path), note)
    keys = mmproj_keys(mmproj, read_settings(checkpoint))
    faults = [one.detail for one in keys if one.name.endswith(("image_mean", "image_std"))]
    said = "; ".join(faults) or "the checkpoint's"
    yield Finding("normalisation", _SIDE, said, str(mmproj.path))
    of_text = {one.name: one.detail for one in tokenizer_findings(text, checkpoint)}
    added = of_text.pop("tokenizer.ggml.add_bos_token", None)
    said = "; ".join(of_text.values()) or "the checkpoint's"
    yield Finding("tokenizer", _SIDE, said, str(text.path))
    if added is not None:
        yield Finding("add_special", _SIDE, added, str(text.path))
    prompt = tokens.prompt(contract)
    room, limit = contract.runtime.context, contract.limits.max_tokens
    said = f"{len(prompt.ids)} prompt tokens ({prompt.image_tokens} of them the image's)"
    note = f"{said} and {limit} for the answer, in a context of {room}"
    fits = len(prompt.ids) + limit <= room
    yield Finding("prompt_fits", _SIDE, fits, str(bundle.path), note)
