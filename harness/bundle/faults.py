"""Everything in a bundle's GGUFs that its checkpoint and its manifest do not explain."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.bundle.file_hash import sha256_of
from harness.bundle.finding import Finding
from harness.bundle.gguf_file import GgufFile
from harness.bundle.key_faults import mmproj_keys, text_keys
from harness.bundle.manifest import Bundle
from harness.bundle.safetensors_file import CheckpointTensors
from harness.bundle.settings import CheckpointSettings, read_settings
from harness.bundle.structure import check_parts, mmproj_clashes, text_clashes
from harness.bundle.tensor_faults import other_types, tensor_findings
from harness.bundle.tokenizer_faults import tokenizer_findings
from harness.errors import BundleError
from harness.records.inquiry import FileFault, Half, Owner


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
            )


def faults(bundle: Bundle, quants: Iterable[str], owner: Owner = "bundle") -> tuple[FileFault, ...]:
    """All faults of those quant types' files, cheapest first.

    Raises:
        BundleError: something cannot be run: missing, truncated, unreadable, of another
            architecture, or (Misfit) of sizes that clash.
        CheckpointError: the checkpoint's weights cannot be read.
    """
    return tuple(each_fault(bundle, quants, owner))


def each_fault(
    bundle: Bundle, quants: Iterable[str], owner: Owner = "bundle"
) -> Iterator[FileFault]:
    """As `faults`, one by one; raises before the first where something cannot be run."""
    settings = read_settings(bundle.checkpoint)
    tensors = CheckpointTensors(bundle.checkpoint)
    pairs = [_Pair.opened(bundle, quant, owner) for quant in quants]
    for pair in pairs:
        check_parts(pair.text, pair.mmproj, tensors)
    described = {pair.quant: tuple(_described(pair, settings)) for pair in pairs}
    for pair in pairs:
        _refuse_clashes(pair, described[pair.quant])
    for pair in pairs:
        yield from described[pair.quant]
    for pair in pairs:
        explained: set[Half] = {fault.half for fault in described[pair.quant]}
        for half, gguf in pair.halves:
            for fault in pair.faults(half, tensor_findings(gguf, pair.quant, tensors)):
                explained.add(half)
                yield fault
        yield from _changed(pair, explained)


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


def _changed(pair: _Pair, explained: set[Half]) -> Iterator[FileFault]:
    """Files that are not those the manifest knows, where nothing else says what changed."""
    for half, gguf in pair.halves:
        name = gguf.path.relative_to(pair.bundle.path).as_posix()
        if half in explained or sha256_of(gguf.path) == pair.bundle.manifest.files[name].sha256:
            continue
        finding = Finding(
            "hash",
            name,
            "prefill" if half == "text" else "embed",
            None,
            "changed since the bundle was made (its SHA-256 is not the manifest's)",
        )
        yield from pair.faults(half, [finding])
