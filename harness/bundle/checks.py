"""Do the parts of a bundle belong together? llama.cpp says it, if at all, by a wrong answer."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from harness.bundle.faults import each_fault
from harness.bundle.file_hash import sha256_of
from harness.bundle.manifest import Bundle, check_size, read_manifest
from harness.errors import BundleError
from harness.records.inquiry import FileFault

_AGAIN: Final = {
    "tensor": "made from another model, or damaged: build the bundle again",
    "key": "of another model, or edited: build the bundle again",
    "token": "a text model of another checkpoint: build the bundle again",
    "hash": "copy or build the bundle again",
}


def check(path: Path, quants: Iterable[str] | None = None) -> Bundle:
    """Verify a bundle; of the quant types only `quants` where given. Returns it loaded.

    Every GGUF is readable and of SmolVLM's architecture, text and mmproj and checkpoint belong
    together (sizes, keys, tokenizer, every row of every tensor within what its type can hold), and
    every file has the manifest's hash.

    Raises:
        BundleError: the first thing that is wrong; names the file and what to do.
        CheckpointError: the bundle's checkpoint cannot be read.
    """
    bundle = read_manifest(path)
    chosen = tuple(quants) if quants is not None else bundle.quants
    for fault in each_fault(bundle, chosen):
        raise refusal(bundle, fault)
    check_reference(bundle)
    return bundle


def check_reference(bundle: Bundle) -> None:
    """Raises BundleError where a file beside the GGUFs, which all are held against, has changed."""
    for name, record in bundle.manifest.files.items():
        path = bundle.path / name
        if name in bundle.models:
            continue
        check_size(path, record)
        if sha256_of(path) != record.sha256:
            raise BundleError(
                f"{path}: changed since the bundle was made (its SHA-256 is not the manifest's); "
                "copy or build the bundle again"
            )


def refusal(bundle: Bundle, fault: FileFault) -> BundleError:
    """What is wrong, in which file, and what to do."""
    subject = f"{fault.name} is " if fault.kind == "tensor" else ""
    again = _AGAIN[fault.kind]
    return BundleError(f"{bundle.path / fault.file}: {subject}{fault.detail}; {again}")
