"""Do the parts of a bundle belong together? llama.cpp shows it, if at all, by a wrong answer.

Everything in a bundle's GGUFs that its checkpoint and its manifest do not explain is found once and
cached by content: neither a copy of the bundle nor a later run is searched again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from driftloop.devices.paths import cache_dir
from driftloop.harness.atomic import write_text
from driftloop.harness.bundle import key_check, manifest
from driftloop.harness.bundle.checkpoint_files import CheckpointTensors, read_settings
from driftloop.harness.bundle.gguf_file import GgufFile
from driftloop.harness.bundle.key_check import Finding
from driftloop.harness.bundle.manifest import (
    CHECKPOINT_FOLDER,
    Bundle,
    Weights,
    read_manifest,
    sha256_of,
)
from driftloop.harness.bundle.tensor_check import other_types, tensor_findings
from driftloop.harness.bundle.tensor_names import checkpoint_name, gguf_name, is_vision
from driftloop.harness.errors import BundleError
from driftloop.harness.progress import Advance
from driftloop.harness.records.inquiry import FileFault, Half, Owner
from driftloop.harness.stage import Stage

_REVISION: Final = 4
"""Raise it whenever the checks change: the results of older ones are then not reused."""
_FAULTS: Final = TypeAdapter(tuple[FileFault, ...])
_AGAIN: Final = {
    "tensor": "made from another model, or damaged: build the bundle again",
    "key": "of another model, or edited: build the bundle again",
    "token": "a text model of another checkpoint: build the bundle again",
    "hash": "copy or build the bundle again",
}
_REBUILD: Final = "build the bundle again from its checkpoint"
_IMAGE_TOKENS: Final = ("<fake_token_around_image>", "<global-img>", "<image>")
_UNASKED: Final = re.compile(r"output\.weight|rope_freqs\.weight|blk\.\d+\.(attn|ffn)_\w+\.bias")
"""Tensors of a text model that llama.cpp takes though SmolVLM has none."""
_SPARED: Final = re.compile(r".*\.bias|v\.(blk\.\d+\.ln[12]|position_embd|post_ln)\.weight")
"""Tensors of an mmproj that libmtmd can run without."""


class Misfit(BundleError):
    """Keys that do not fit the tensors beside them, so that nothing can be run. `faults`: the keys
    that the checkpoint contradicts, for callers that judge all the same."""

    def __init__(self, message: str, faults: tuple[FileFault, ...]) -> None:
        self.faults = faults
        super().__init__(message)


@dataclass(frozen=True)
class _Model:
    """One GGUF of a bundle, open, and its entry in the manifest."""

    gguf: GgufFile
    weights: Weights
    half: Half
    pair_quant: str

    @property
    def quant(self) -> str:
        return self.weights.quant or self.pair_quant

    def faults(self, findings: Iterable[Finding]) -> tuple[FileFault, ...]:
        file = {"half": self.half, "quant": self.pair_quant, "file": self.weights.file}
        return tuple(FileFault.model_validate(file | asdict(found)) for found in findings)


def _opened(bundle: Bundle, quant: str) -> tuple[_Model, ...]:
    """Text model and mmproj of one quant type."""
    return tuple(
        _Model(GgufFile(bundle.model(half, quant)), table[quant], half, quant)
        for half, table in bundle.manifest.halves.items()
    )


def check(path: Path, progress: Advance | None = None) -> Bundle:
    """Verify a bundle, and return it loaded.

    Every GGUF is readable and of SmolVLM's architecture, text and mmproj and checkpoint belong
    together (sizes, keys, tokenizer, every row of every tensor within what its type can hold), and
    every file has the manifest's hash. Remarks (see `verify`) are let pass.

    Raises:
        BundleError: the first thing that is wrong; names the file and what to do.
        CheckpointError: the bundle's checkpoint cannot be read.
    """
    bundle = read_manifest(path)
    for fault in _found(bundle, bundle.quants, progress):
        if not fault.remark:
            raise refusal(bundle, fault)
    _check_reference(bundle)
    return bundle


def verify(
    bundle: Bundle, quants: Iterable[str], progress: Advance | None = None
) -> tuple[FileFault, ...]:
    """What is out of line in the files of those quant types; empty where nothing is.

    A fault that no answer can depend on is marked as a `remark`. `progress` counts tensors.

    Raises:
        BundleError: something cannot be run, or the checkpoint beside the GGUFs has changed.
        CheckpointError: the bundle's checkpoint cannot be read.
    """
    _check_reference(bundle)
    return _found(bundle, sorted(quants), progress)


def faults(
    bundle: Bundle, quants: Iterable[str], progress: Advance | None = None
) -> tuple[FileFault, ...]:
    """All faults of those quant types' files, cheapest first; nothing is taken from the cache.

    Raises:
        BundleError: something cannot be run: missing, truncated, unreadable, of another
            architecture, or (Misfit) of sizes that clash.
        CheckpointError: the checkpoint's weights cannot be read.
    """
    settings = read_settings(bundle.checkpoint)
    tensors = CheckpointTensors(bundle.checkpoint)
    pairs = [_opened(bundle, quant) for quant in quants]
    for text, mmproj in pairs:
        _check_parts(text.gguf, mmproj.gguf, tensors)
    described = [
        text.faults(key_check.text_keys(text.gguf, settings))
        + mmproj.faults(key_check.mmproj_keys(mmproj.gguf, settings))
        + text.faults(key_check.tokenizer_findings(text.gguf, bundle.checkpoint))
        for text, mmproj in pairs
    ]
    for pair, keys in zip(pairs, described, strict=True):
        for model in pair:
            _refuse_clashes(model, keys)
    total, done = sum(len(model.gguf.tensors) for pair in pairs for model in pair), count(1)

    def advance() -> None:
        if progress:
            progress(next(done), total)

    found = [fault for keys in described for fault in keys]
    for pair, keys in zip(pairs, described, strict=True):
        own = keys
        for model in pair:
            own += model.faults(tensor_findings(model.gguf, model.quant, tensors, advance))
        for model in pair:
            known = [fault for fault in own if fault.half == model.half]
            if all(fault.remark for fault in known):
                own += model.faults(key_check.stated_type(model.gguf, model.quant))
                own += model.faults(_changed(bundle, model, bool(known)))
        found += own[len(keys) :]
    return tuple(found)


def _check_parts(text: GgufFile, mmproj: GgufFile, tensors: CheckpointTensors) -> None:
    """Raises BundleError where the files are not the halves of this checkpoint's SmolVLM."""
    for gguf, key, wanted in (
        (text, "general.architecture", "llama"),
        (mmproj, "general.architecture", "clip"),
        (mmproj, "clip.projector_type", "idefics3"),
    ):
        if (found := gguf.require(key)) != wanted:
            what = "architecture" if key.endswith("architecture") else "projector"
            raise BundleError(
                f"{gguf.path}: {what} {found!r}, wanted {wanted!r} (SmolVLM); {_REBUILD}"
            )
    width = text.require("llama.embedding_length")
    projected = mmproj.require("clip.vision.projection_dim")
    if projected != width:
        raise BundleError(
            f"{mmproj.path}: it projects to {projected} values, {text.path.name} takes {width}: "
            f"an mmproj of another model; {_REBUILD}"
        )
    for token in _IMAGE_TOKENS:
        if token not in text.require(key_check.TOKENS):
            raise BundleError(
                f"{text.path}: its tokenizer has no {token}: not a SmolVLM text model; {_REBUILD}"
            )
    for gguf, layers in ((text, "llama.block_count"), (mmproj, "clip.vision.block_count")):
        _check_tensors(gguf, gguf.keys.get(layers), tensors)


def _check_tensors(gguf: GgufFile, layers: int | None, tensors: CheckpointTensors) -> None:
    """Raises BundleError where tensors are not SmolVLM's, of other shapes, or missing."""
    for name in gguf.tensors:
        source = checkpoint_name(name)
        if source is None and not is_vision(name) and not _UNASKED.fullmatch(name):
            raise BundleError(f"{gguf.path}: tensor {name} belongs to no SmolVLM; {_REBUILD}")
        if source is not None and source in tensors and tensors.shape(source) != gguf.shape(name):
            raise BundleError(
                f"{gguf.path}: {name} does not fit the checkpoint's {source}: "
                "made from another model; build the bundle again"
            )
    vision = gguf.require("general.architecture") == "clip"
    for name in filter(None, map(gguf_name, tensors)):
        if name in gguf.tensors or is_vision(name) != vision:
            continue
        block = re.match(r"(?:v\.)?blk\.(\d+)\.", name)
        unused = block is not None and layers is not None and int(block[1]) >= layers
        spared = _SPARED.fullmatch(name) if vision else name == "output.weight"
        if not unused and not spared:
            raise BundleError(f"{gguf.path}: the tensor {name} is missing; {_REBUILD}")


def _check_reference(bundle: Bundle) -> None:
    """Raises BundleError where a file that the GGUFs are compared with has changed."""
    for name, record in bundle.manifest.files.items():
        path = bundle.path / name
        if name in bundle.models:
            continue
        manifest.check_size(path, record)
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
    Raises BundleError where a file is no GGUF."""
    for quant in quants:
        for model, other in zip(_opened(bundle, quant), _opened(wanted, quant), strict=True):
            for fault in model.faults(other_types(model.gguf, other.gguf)):
                yield fault.model_copy(update={"owner": owner})


def _refuse_clashes(model: _Model, keys: tuple[FileFault, ...]) -> None:
    clashes = _text_clashes if model.half == "text" else _mmproj_clashes
    for clash in clashes(model.gguf):
        own = (fault.detail for fault in keys if fault.half == model.half)
        raise Misfit(
            f"{model.gguf.path}: {next(own, clash)}; {clash}: llama.cpp cannot run it; "
            "build the bundle again",
            keys,
        )


def _text_clashes(text: GgufFile) -> Iterator[str]:
    """Sizes in the keys that the tensors do not have, one line each; llama.cpp refuses them."""
    width, heads = (
        text.require("llama.embedding_length"),
        text.require("llama.attention.head_count"),
    )
    head_size = text.keys.get("llama.attention.key_length") or width // heads
    key_rows = (text.keys.get("llama.attention.head_count_kv") or heads) * head_size
    for name, size, what in (
        ("token_embd.weight", len(text.require(key_check.TOKENS)), "tokens"),
        ("blk.0.attn_q.weight", heads * head_size, f"values of {heads} heads"),
        ("blk.0.attn_k.weight", key_rows, "values of its key heads"),
        ("blk.0.ffn_up.weight", text.keys.get("llama.feed_forward_length"), "feed-forward values"),
    ):
        if name in text.tensors and size is not None and text.shape(name)[0] != size:
            yield f"{size} {what}, {name} has {text.shape(name)[0]} rows"
    layers = text.keys.get("llama.block_count")
    held = max((int(name.split(".")[1]) for name in text.tensors if name[:4] == "blk."), default=-1)
    if layers is not None and held >= layers:
        yield f"{layers} layers, the file holds tensors of {held + 1}"
    for key in ("rope.dimension_count", "attention.value_length"):
        size = text.keys.get(f"llama.{key}")
        if size is not None and size != head_size:
            yield f"llama.{key} is {size}, a head has {head_size} values"


def _mmproj_clashes(mmproj: GgufFile) -> Iterator[str]:
    """Sizes in the keys that the tensors do not have, one line each. libmtmd does not look: one of
    ggml's assertions ends the process."""
    tile, patch, scale = (
        mmproj.require(f"clip.vision.{key}")
        for key in ("image_size", "patch_size", "projector.scale_factor")
    )
    if min(tile, patch, scale) < 1:
        yield f"tile {tile}, patch {patch}, scale factor {scale}"
        return
    side = tile // patch
    kernel = mmproj.shape("v.patch_embd.weight")[-1]
    if (tile - kernel) // patch + 1 != side:
        yield f"patch size {patch}, v.patch_embd.weight takes patches of {kernel}"
    places, width = mmproj.shape("v.position_embd.weight")
    if side * side % places:
        yield (
            f"a tile of {tile} in patches of {patch} has {side * side} patches, "
            f"v.position_embd.weight has {places} rows"
        )
    joined, taken = width * scale**2, mmproj.shape("mm.model.fc.weight")[1]
    if joined != taken:
        yield f"scale factor {scale} joins {joined} values, mm.model.fc.weight takes {taken}"
    heads = mmproj.keys.get("clip.vision.attention.head_count")
    if heads and width % heads:
        yield f"{heads} vision heads do not divide {width} values"


def _changed(bundle: Bundle, model: _Model, has_remarks: bool) -> Iterator[Finding]:
    """A file whose hash is not the manifest's, where no other finding explains it."""
    weights = model.weights
    if sha256_of(model.gguf.path) == bundle.manifest.files[weights.file].sha256:
        return
    alike = weights.inference_sha256 == model.gguf.inference_sha256()
    if has_remarks and (alike or weights.inference_sha256 is None):
        return  # the remarks explain it
    detail = "changed since the bundle was made (its SHA-256 is not the manifest's)"
    if alike:
        detail += ", in nothing that inference reads"
    stage: Stage = "prefill" if model.half == "text" else "embed"
    yield Finding("hash", weights.file, stage, detail, remark=alike)


def _found(
    bundle: Bundle, quants: Iterable[str], progress: Advance | None
) -> tuple[FileFault, ...]:
    """As `faults`, from the cache where these very files were checked before."""
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
    """Of all that `faults` depends on: contents, and the manifest's entries of the two GGUFs."""
    halves, files = bundle.manifest.halves, bundle.manifest.files

    def content(path: Path) -> str:
        return sha256_of(path) if path.is_file() else "missing"

    lines = [str(_REVISION), quant]
    for half, table in halves.items():
        path, name = bundle.model(half, quant), table[quant].file
        lines += [name, files[name].sha256, content(path)]
    lines += [table[quant].model_dump_json() for table in halves.values()]
    for name in sorted(files):
        if name.startswith(f"{CHECKPOINT_FOLDER}/"):
            lines += [name, content(bundle.path / name)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
