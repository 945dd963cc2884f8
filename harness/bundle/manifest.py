"""`manifest.json`: what a bundle holds, and the bundle as the arms use it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError

from driftloop.devices import files
from driftloop.devices.hashing import file_sha256
from driftloop.devices.paths import cache_dir
from driftloop.harness.atomic import write_text
from driftloop.harness.bundle.gguf_file import GgufFile
from driftloop.harness.bundle.quant_types import asked_for, block_values, type_bits
from driftloop.harness.bundle.tensor_names import group_of
from driftloop.harness.contract import Contract
from driftloop.harness.errors import BundleError
from driftloop.harness.jsonl import Record, first_problem, path_inside
from driftloop.harness.records.inquiry import Half

SCHEMA_VERSION: Final = 1
MANIFEST_NAME: Final = "manifest.json"
CHECKPOINT_FOLDER: Final = "checkpoint"
_MATRICES: Final = frozenset(
    ("token_embd", "output", "attn", "ffn", "projector", "vision_attn", "vision_ffn")
)
"""Groups that the quantizer quantizes; patch and position embeddings and norms it leaves alone."""


InsideBundle = Annotated[str, path_inside("the bundle")]


class Fallback(Record):
    """Matrices that are of another type than their file's quant type asks for."""

    meant: str
    """The ggml type that was asked for."""
    became: str
    width: int
    """Values in a row."""
    block: int
    """Values in a block of the type that was asked for; `width` is no multiple of it."""
    tensors: int


class EffectiveBits(Record):
    """What the weights of one GGUF take."""

    per_weight: float
    """Bits of all its tensors, their scales included, over the number of their values."""
    meant: float
    """The same had every matrix got the type that was asked for."""
    matrices: int
    """How many tensors the quant type was asked for."""
    fallbacks: tuple[Fallback, ...] = ()
    """The most frequent first."""


class FileRecord(Record):
    sha256: str
    size_bytes: int


class Weights(Record):
    """One GGUF. `tensor_types`: group -> ggml type -> number of tensors, as they are in it."""

    file: InsideBundle
    tensor_types: dict[str, dict[str, int]]
    quant: str | None = None
    """The file's own quant type where it is not its pair's, as in an adopted pair; else None."""
    bits: EffectiveBits | None = None
    """None in an older manifest."""
    inference_sha256: str | None = None
    """Over all that inference reads of the file (`GgufFile.inference_sha256`); as `bits`."""
    adopted_from: str | None = None
    """The name of the file that was adopted; None where the bundle's maker converted it."""

    @classmethod
    def of(cls, folder: Path, file: str, quant: str) -> Weights:
        """The record of `file` in a bundle's folder as it is now; BundleError if it is no GGUF."""
        gguf = GgufFile(folder / file)
        return cls(
            file=file,
            tensor_types=gguf.tensor_types(),
            bits=effective_bits(gguf, quant),
            inference_sha256=gguf.inference_sha256(),
        )


class Source(Record):
    """Where the checkpoint came from: a local folder's name or a published id, as it was given."""

    checkpoint: str
    weights_sha256: dict[str, str]
    """SHA-256 of each safetensors file at the source."""


class Created(Record):
    """With what the bundle was made: package -> version."""

    llama_cpp_commit: str
    versions: dict[str, str]


class Manifest(Record):
    schema_version: Literal[1] = SCHEMA_VERSION
    files: dict[InsideBundle, FileRecord]
    text: dict[str, Weights]
    """Quant type -> text GGUF."""
    mmproj: dict[str, Weights]
    """Quant type -> mmproj GGUF."""
    left_out: dict[str, str] = Field(default_factory=dict)
    """Quant type that was asked for and is not here -> why, in one line."""
    tokenizer_sha256: str
    source: Source
    created: Created
    contract: Contract

    @property
    def halves(self) -> dict[Half, dict[str, Weights]]:
        """Half -> quant type -> its GGUF."""
        return {"text": self.text, "mmproj": self.mmproj}


@dataclass(frozen=True)
class Bundle:
    """A bundle whose manifest has been read. Paths are absolute."""

    path: Path
    manifest: Manifest

    @property
    def contract(self) -> Contract:
        """The contract the bundle was made for."""
        return self.manifest.contract

    @property
    def checkpoint(self) -> Path:
        """The HF checkpoint's folder."""
        return self.path / CHECKPOINT_FOLDER

    @property
    def quants(self) -> tuple[str, ...]:
        """Quant types for which both GGUFs are here, in the order they were asked for."""
        return tuple(quant for quant in self.manifest.text if quant in self.manifest.mmproj)

    @property
    def sha256(self) -> str:
        """Over every file's name and hash, and the contract; not over where it was made. The GGUFs'
        hashes are those of the files as they are; of the others, the manifest's."""
        recorded = {name: record.sha256 for name, record in self.manifest.files.items()}
        content = {
            "files": recorded | {name: sha256_of(self.path / name) for name in self.models},
            "contract": self.contract.sha256,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def text_model(self, quant: str) -> Path:
        """The text GGUF of that type; BundleError where the bundle has none."""
        return self.model("text", quant)

    def mmproj(self, quant: str) -> Path:
        """The mmproj GGUF of that type; BundleError where the bundle has none."""
        return self.model("mmproj", quant)

    def model(self, half: Half, quant: str) -> Path:
        """One GGUF of that type; BundleError where the bundle has none."""
        if why := self.manifest.left_out.get(quant):
            raise BundleError(f"bundle {self.path}: {quant} was left out when it was built: {why}")
        if quant not in self.manifest.halves[half]:
            raise BundleError(
                f"bundle {self.path}: no {quant}, it holds {', '.join(self.quants)}; "
                f"build it again with --quant {quant}"
            )
        return self.path / self.manifest.halves[half][quant].file

    @property
    def models(self) -> tuple[str, ...]:
        """Every GGUF, relative to the bundle."""
        tables = self.manifest.halves.values()
        return tuple(dict.fromkeys(one.file for table in tables for one in table.values()))

    def fallback_lines(self, *quants: str) -> tuple[str, ...]:
        """One line for each GGUF that holds other types than its quant type asks for. Of those
        quant types; of all where none is named."""
        lines = (
            fallback_line(f"{half} {weights.quant or quant}", weights.bits)
            for quant in quants or self.quants
            for half, table in self.manifest.halves.items()
            if (weights := table[quant]).bits is not None
        )
        return tuple(line for line in lines if line is not None)

    def file_sha256(self, path: Path) -> str:
        """The hash of one of the bundle's files as it is now, not as the manifest has it."""
        return sha256_of(path)


def load(path: Path) -> Bundle:
    """A bundle by its manifest. Every file is there and whole; nothing is hashed (see `check`).

    A GGUF may differ from the manifest's as long as it is whole: `verify` finds out.

    Raises:
        BundleError: no folder or manifest, a manifest that cannot be read, a missing or truncated
            file, or one beside the GGUFs that is of another size; names the file.
    """
    bundle = read_manifest(path)
    for name, record in bundle.manifest.files.items():
        file = bundle.path / name
        if name in bundle.models and file.is_file() and file.stat().st_size != record.size_bytes:
            GgufFile(file)
        else:
            check_size(file, record)
    return bundle


def read_manifest(path: Path) -> Bundle:
    """The bundle as its manifest describes it; no other file is read. Raises as `load` does."""
    folder = path.expanduser().resolve()
    manifest_path = folder / MANIFEST_NAME
    if not folder.is_dir():
        raise BundleError(f"bundle {path}: no such folder; `driftloop bundle build` makes one")
    try:
        content = files.read(manifest_path)
        files.json_of(content)  # which refuses what pydantic lets pass: a key that stands twice
        manifest = Manifest.model_validate_json(content)
    except FileNotFoundError:
        raise BundleError(
            f"bundle {path}: it has no {MANIFEST_NAME}; `driftloop bundle build` makes a bundle"
        ) from None
    except OSError as error:
        raise BundleError(f"{manifest_path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise BundleError(
            f"{manifest_path}: {first_problem(error)}; build the bundle again"
        ) from error
    except ValueError as error:
        raise BundleError(f"{manifest_path}: {error}; copy or build the bundle again") from error
    return Bundle(folder, manifest)


def check_size(path: Path, record: FileRecord) -> None:
    """BundleError where a file is missing or has another size than its record."""
    if not path.is_file():
        raise BundleError(f"{path}: missing from the bundle; copy or build it again")
    size_bytes = path.stat().st_size
    if size_bytes != record.size_bytes:
        state = "truncated" if size_bytes < record.size_bytes else "changed"
        raise BundleError(
            f"{path}: {state}: {size_bytes} bytes, {record.size_bytes} in the manifest; "
            "copy or build the bundle again"
        )


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, from the cache where the very same file was hashed before. Raises OSError
    where it is missing or cannot be read."""
    status = path.stat()
    times = f"{status.st_mtime_ns} {status.st_ctime_ns}"
    # Changes whenever the file is written to, replaced or moved.
    mark = f"{path} {status.st_ino} {status.st_size} {times}"
    kept = cache_dir("hashes") / hashlib.sha256(mark.encode()).hexdigest()
    if kept.exists():
        return kept.read_text("ascii")
    found = file_sha256(path)
    write_text(kept, found)
    return found


def effective_bits(gguf: GgufFile, quant: str) -> EffectiveBits:
    """As the tensors of a file of that quant type are; an unknown type has no fallbacks."""
    bits = saved = 0.0
    values = matrices = 0
    fallen: Counter[tuple[str, str, int, int]] = Counter()
    for name in gguf.tensors:
        size, width = prod(gguf.shape(name)), gguf.shape(name)[-1]
        values += size
        bits += 8 * gguf.tensors[name].size_bytes
        is_weight = name.endswith(".weight") and len(gguf.shape(name)) > 1
        if not is_weight or group_of(name) not in _MATRICES:
            continue
        matrices += 1
        type_name = gguf.type_name(name)
        meant = asked_for(type_name, width, quant)
        if meant != type_name:
            fallen[meant, type_name, width, block_values(meant)] += 1
            saved += size * (type_bits(type_name) - type_bits(meant))
    return EffectiveBits(
        per_weight=round(bits / values, 3),
        meant=round((bits - saved) / values, 3),
        matrices=matrices,
        fallbacks=tuple(
            Fallback(meant=meant, became=became, width=width, block=block, tensors=count)
            for (meant, became, width, block), count in fallen.most_common()
        ),
    )


def fallback_line(what: str, bits: EffectiveBits) -> str | None:
    """One line on the fallbacks of a file, called `what`; None where there are none."""
    became: Counter[str] = Counter()
    for one in bits.fallbacks:
        became[one.became] += one.tensors
    if not became:
        return None
    (most, count), *others = became.most_common()
    first = f"{count} of {bits.matrices} matrices became {most}"
    words = _listed([first, *(f"{number} {name}" for name, number in others)])
    widths = _listed(sorted({one.width for one in bits.fallbacks}))
    blocks = _listed(sorted({one.block for one in bits.fallbacks}))
    return (
        f"{what}: {words}, as rows of {widths} are no multiple of {blocks}: "
        f"{bits.per_weight:.1f} bits a weight instead of {bits.meant:.1f}"
    )


def _listed(items: Sequence[object]) -> str:
    *first, last = map(str, items)
    return f"{', '.join(first)} and {last}" if first else last
