"""Do the parts of a bundle belong together? llama.cpp says it, if at all, by a wrong answer.

Everything in a bundle's GGUFs that its checkpoint and its manifest do not explain is found once and
kept by content: a copy of the bundle, or a run after the build, does not look again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from devices.paths import cache_dir
from harness.atomic import write_text
from harness.bundle.checkpoint_files import CheckpointSettings, CheckpointTensors, read_settings
from harness.bundle.finding import Finding
from harness.bundle.gguf_file import GgufFile
from harness.bundle.key_check import mmproj_keys, stated_type, text_keys
from harness.bundle.manifest import (
    CHECKPOINT_FOLDER,
    Bundle,
    Weights,
    check_size,
    read_manifest,
    sha256_of,
)
from harness.bundle.structure import check_parts, mmproj_clashes, text_clashes
from harness.bundle.tensor_check import other_types, tensor_findings
from harness.bundle.tokenizer_check import tokenizer_findings
from harness.errors import BundleError
from harness.progress import Advance
from harness.records.inquiry import FileFault, Half, Owner
from harness.stage import Stage

_LOOK: Final = 4
"""Raised whenever something else is looked for: what an older driftloop found is then forgotten."""
_FAULTS: Final = TypeAdapter(tuple[FileFault, ...])
_AGAIN: Final = {
    "tensor": "made from another model, or damaged: build the bundle again",
    "key": "of another model, or edited: build the bundle again",
    "token": "a text model of another checkpoint: build the bundle again",
    "hash": "copy or build the bundle again",
}


class Misfit(BundleError):
    """Keys that do not fit the tensors beside them, so that nothing can be run.

    `faults`: the keys that the checkpoint contradicts, for whoever wants to judge all the same.
    """

    def __init__(self, message: str, faults: tuple[FileFault, ...]) -> None:
        self.faults = faults
        super().__init__(message)


@dataclass(frozen=True)
class _Pair:
    """Both GGUFs of one quant type, open."""

    bundle: Bundle
    quant: str
    text: GgufFile
    mmproj: GgufFile
    owner: Owner

    @classmethod
    def opened(cls, bundle: Bundle, quant: str, owner: Owner) -> _Pair:
        text, mmproj = bundle.text_model(quant), bundle.mmproj(quant)
        return cls(bundle, quant, GgufFile(text), GgufFile(mmproj), owner)

    @property
    def halves(self) -> tuple[tuple[Half, GgufFile], ...]:
        return ("text", self.text), ("mmproj", self.mmproj)

    def weights(self, half: Half) -> Weights:
        """What the manifest says of a half."""
        manifest = self.bundle.manifest
        return (manifest.text if half == "text" else manifest.mmproj)[self.quant]

    def stated_quant(self, half: Half) -> str:
        """The quant type of one file."""
        return self.weights(half).quant or self.quant

    def faults(self, half: Half, findings: Iterable[Finding]) -> Iterator[FileFault]:
        path = (self.text if half == "text" else self.mmproj).path
        for found in findings:
            yield FileFault(
                owner=self.owner,
                half=half,
                quant=self.quant,
                file=path.relative_to(self.bundle.path).as_posix(),
                kind=found.kind,
                name=found.name,
                stage=found.stage,
                layer=found.layer,
                detail=found.detail,
                remark=found.remark,
            )


def check(
    path: Path, quants: Iterable[str] | None = None, progress: Advance | None = None
) -> Bundle:
    """Verify a bundle; of the quant types only `quants` where given. Returns it loaded.

    Every GGUF is readable and of SmolVLM's architecture, text and mmproj and checkpoint belong
    together (sizes, keys, tokenizer, every row of every tensor within what its type can hold), and
    every file has the manifest's hash. Remarks (see `verify`) are let pass.

    Raises:
        BundleError: the first thing that is wrong; names the file and what to do.
        CheckpointError: the bundle's checkpoint cannot be read.
    """
    bundle = read_manifest(path)
    chosen = tuple(quants) if quants is not None else bundle.quants
    for fault in _found(bundle, chosen, progress):
        if not fault.remark:
            raise refusal(bundle, fault)
    check_reference(bundle)
    return bundle


def verify(
    bundle: Bundle, quants: Iterable[str], progress: Advance | None = None
) -> tuple[FileFault, ...]:
    """What is out of line in the files of those quant types; empty where nothing is.

    A fault that no answer can depend on says so: it is a `remark`. `progress` counts tensors.

    Raises:
        BundleError: something cannot be run, or the checkpoint beside the GGUFs has changed.
        CheckpointError: the bundle's checkpoint cannot be read.
    """
    check_reference(bundle)
    return _found(bundle, sorted(quants), progress)


def faults(
    bundle: Bundle,
    quants: Iterable[str],
    owner: Owner = "bundle",
    progress: Advance | None = None,
) -> tuple[FileFault, ...]:
    """All faults of those quant types' files, cheapest first; looked for anew.

    Raises:
        BundleError: something cannot be run: missing, truncated, unreadable, of another
            architecture, or (Misfit) of sizes that clash.
        CheckpointError: the checkpoint's weights cannot be read.
    """
    settings = read_settings(bundle.checkpoint)
    tensors = CheckpointTensors(bundle.checkpoint)
    pairs = [_Pair.opened(bundle, quant, owner) for quant in quants]
    for pair in pairs:
        check_parts(pair.text, pair.mmproj, tensors)
    described = {pair.quant: tuple(_described(pair, settings)) for pair in pairs}
    for pair in pairs:
        _refuse_clashes(pair, described[pair.quant])
    found = [fault for pair in pairs for fault in described[pair.quant]]
    count = _Count(sum(len(gguf.tensors) for pair in pairs for _, gguf in pair.halves), progress)
    for pair in pairs:
        own = list(described[pair.quant])
        for half, gguf in pair.halves:
            quant = pair.stated_quant(half)
            inside = tuple(pair.faults(half, tensor_findings(gguf, quant, tensors, count.advance)))
            own += inside
            found += inside
        for half, gguf in pair.halves:
            known = [fault for fault in own if fault.half == half]
            if all(fault.remark for fault in known):
                found += pair.faults(half, stated_type(gguf, pair.stated_quant(half)))
                found += pair.faults(half, _changed(pair, half, gguf, bool(known)))
    return tuple(found)


class _Count:
    """Tensors looked at, of all there are."""

    def __init__(self, total: int, progress: Advance | None) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def advance(self) -> None:
        self._done += 1
        if self._progress:
            self._progress(self._done, self._total)


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


def retyped(
    bundle: Bundle, wanted: Bundle, quants: Iterable[str], owner: Owner
) -> Iterator[FileFault]:
    """Files of `bundle` that store tensors in other types than `wanted` does, one fault a file.

    Raises BundleError where a file is no GGUF.
    """
    for quant in quants:
        pair, other = (_Pair.opened(one, quant, owner) for one in (bundle, wanted))
        for (half, gguf), (_, asked) in zip(pair.halves, other.halves, strict=True):
            yield from pair.faults(half, other_types(gguf, asked))


def _described(pair: _Pair, settings: CheckpointSettings) -> Iterator[FileFault]:
    """Faults in what the files say of themselves."""
    yield from pair.faults("text", text_keys(pair.text, settings))
    yield from pair.faults("mmproj", mmproj_keys(pair.mmproj, settings))
    yield from pair.faults("text", tokenizer_findings(pair.text, pair.bundle.checkpoint))


def _refuse_clashes(pair: _Pair, described: tuple[FileFault, ...]) -> None:
    for gguf, clashes in ((pair.text, text_clashes), (pair.mmproj, mmproj_clashes)):
        for clash in clashes(gguf):
            said = next((f.detail for f in described if _path(pair.bundle, f) == gguf.path), clash)
            raise Misfit(
                f"{gguf.path}: {said}; {clash}: llama.cpp cannot run it; build the bundle again",
                described,
            )


def _path(bundle: Bundle, fault: FileFault) -> Path:
    return bundle.path / fault.file


def _changed(pair: _Pair, half: Half, gguf: GgufFile, has_remarks: bool) -> Iterator[Finding]:
    """A file that is not the one the manifest knows, where nothing else says what changed."""
    weights = pair.weights(half)
    if sha256_of(gguf.path) == pair.bundle.manifest.files[weights.file].sha256:
        return
    alike = weights.inference_sha256 == gguf.inference_sha256()
    if has_remarks and (alike or weights.inference_sha256 is None):
        return  # the remarks say what changed
    detail = "changed since the bundle was made (its SHA-256 is not the manifest's)"
    if alike:
        detail += ", in nothing that inference reads"
    stage: Stage = "prefill" if half == "text" else "embed"
    yield Finding("hash", weights.file, stage, None, detail, remark=alike)


def _found(
    bundle: Bundle, quants: Iterable[str], progress: Advance | None
) -> tuple[FileFault, ...]:
    """As `faults`, from the cache where these very files were looked through before."""
    kept = {
        quant: cache_dir("verified") / f"{_fingerprint(bundle, quant)}.json" for quant in quants
    }
    missing = [quant for quant, path in kept.items() if not path.exists()]
    if missing:
        found = faults(bundle, missing, progress=progress)
        for quant in missing:
            own = tuple(fault for fault in found if fault.quant == quant)
            write_text(kept[quant], _FAULTS.dump_json(own).decode())
    return tuple(
        fault for path in kept.values() for fault in _FAULTS.validate_json(path.read_bytes())
    )


def _fingerprint(bundle: Bundle, quant: str) -> str:
    """Of all that `faults` depends on: contents, and what the manifest says of the two GGUFs."""
    manifest = bundle.manifest
    lines = [str(_LOOK), quant]
    for path in (bundle.text_model(quant), bundle.mmproj(quant)):
        name = path.relative_to(bundle.path).as_posix()
        lines += [name, manifest.files[name].sha256, _content(path)]
    lines += [half[quant].model_dump_json() for half in (manifest.text, manifest.mmproj)]
    for name in sorted(manifest.files):
        if name.startswith(f"{CHECKPOINT_FOLDER}/"):
            lines += [name, _content(bundle.path / name)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _content(path: Path) -> str:
    return sha256_of(path) if path.is_file() else "missing"
