"""Checkpoint -> GGUF + mmproj -> quantized, with llama.cpp's own converter and quantizer."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Final

from driftloop.devices import files
from driftloop.devices.hashing import file_sha256
from driftloop.devices.paths import cache_dir
from driftloop.devices.runner.llama_cpp import LLAMA_COMMIT, llama_cpp_source
from driftloop.harness import bundle as bundles
from driftloop.harness import checkpoint as checkpoints
from driftloop.harness.bundle.conversion_check import refuse_unfit
from driftloop.harness.bundle.gguf_file import GgufFile
from driftloop.harness.bundle.key_check import own_quant
from driftloop.harness.bundle.manifest import CHECKPOINT_FOLDER, MANIFEST_NAME
from driftloop.harness.checkpoint import Checkpoint
from driftloop.harness.contract import Contract
from driftloop.harness.errors import BundleError, CheckpointError
from driftloop.harness.quantize import quant_types
from driftloop.harness.records.inquiry import FileFault, Half

Progress = Callable[[str], None]
"""Called with one line before each step."""

_REFERENCE: Final = "f16"
"""Always built: the arm `desktop:f16` needs it."""
_CONVERTER_TYPES: Final[dict[Half, frozenset[str]]] = {
    "text": frozenset({"f32", "f16", "bf16"}),
    # What users ship as a q8_0 mmproj is the converter's own.
    "mmproj": frozenset({"f32", "f16", "bf16", "q8_0"}),
}
_CHECKPOINT_FILES: Final = ("*.json", "*.jinja", "*.txt", "*.model")
"""Beside the weights."""
_LOG: Final = "; log: "
"""A path of this machine follows, which no manifest may hold."""
_TOKENIZER_FILES: Final = ("tokenizer.json", "vocab.json", "merges.txt")
_PACKAGES: Final = ("driftloop", "llama-cpp-python", "torch", "transformers")


def build(
    checkpoint: str | Path,
    out: Path,
    quants: Sequence[str],
    contract: Contract,
    progress: Progress | None = None,
) -> bundles.Bundle:
    """Make a bundle at `out`, f16 in it whether named or not; one already there is replaced.

    `checkpoint`: a local folder or a published id. `quants`: types as llama.cpp names them in
    lower case, for example q8_0, q4_0, q4_k_m. Each type is checked before the bundle is put in
    its place; until then `out` stays as it was. A type that llama.cpp cannot make, or whose check
    finds a fault, is left out, and the manifest's `left_out` says why.

    Raises:
        CheckpointError: no such checkpoint, or none of SmolVLM's architecture.
        BundleError: `out` holds something else, an unknown type, f16 itself is at fault, or none
            of the types that were asked for is left.
        ArmUnavailable: a package is missing.
        ToolchainMissing: llama.cpp's source cannot be had.
    """
    wanted = _wanted(quants)
    with _making(checkpoint, out, contract, progress) as making:
        for quant in wanted:
            making.convert(quant)
        making.leave_out_faulty(wanted)
    return bundles.load(out)


def adopt(
    text: Path,
    mmproj: Path,
    checkpoint: str | Path,
    out: Path,
    contract: Contract,
    progress: Progress | None = None,
) -> bundles.Bundle:
    """Make a bundle at `out` of two GGUFs converted elsewhere; f16 is made beside them.

    Their quant type is the text model's own; where that is f16, no other f16 is made. Faults in
    them are no reason to refuse them as long as llama.cpp could run them: `verify` names them.

    Raises: as `build`; BundleError also where a file is no half of this checkpoint's SmolVLM.
    """
    quant, mmproj_quant = (own_quant(GgufFile(path)) for path in (text, mmproj))
    with _making(checkpoint, out, contract, progress) as making:
        if quant != _REFERENCE:
            making.convert(_REFERENCE)
        making.adopt(text, "text", quant, quant)
        making.adopt(mmproj, "mmproj", quant, mmproj_quant)
        for fault in making.faults():
            if fault.quant == _REFERENCE != quant:
                raise bundles.refusal(bundles.load(making.folder), fault)
    return bundles.load(out)


@dataclass
class _Making:
    """A bundle that is being made, in a folder of its own."""

    folder: Path
    source: Checkpoint
    contract: Contract
    log: Path
    say: Progress
    halves: dict[Half, dict[str, bundles.Weights]] = field(
        default_factory=lambda: {"text": {}, "mmproj": {}}
    )
    left_out: dict[str, str] = field(default_factory=dict)

    def convert(self, quant: str) -> None:
        """Both GGUFs of a type, or a word on why llama.cpp cannot make them."""
        try:
            for half, table in self.halves.items():
                self.say(f"{half}: {quant}")
                _make(half, quant, self.folder, self.source.name, self.log)
                table[quant] = bundles.Weights.of(self.folder, _file_name(half, quant), quant)
        except BundleError as error:
            if quant == _REFERENCE:
                raise
            self._leave_out(quant, str(error))

    def adopt(self, path: Path, half: Half, quant: str, own: str) -> None:
        """A GGUF as the half of the pair `quant`, itself of the type `own`."""
        name = _file_name(half, quant)
        self.say(f"{half}: copying {path}")
        _copy(path, self.folder / name)
        weights = bundles.Weights.of(self.folder, name, own)
        origin = {"quant": own if own != quant else None, "adopted_from": path.name}
        self.halves[half][quant] = weights.model_copy(update=origin)

    def faults(self) -> list[FileFault]:
        """What a check of the bundle as it is finds; remarks are left out."""
        self.write_manifest()
        self.say("check: every tensor against the checkpoint's")
        bundle = bundles.load(self.folder)
        return [fault for fault in bundles.verify(bundle, bundle.quants) if not fault.remark]

    def leave_out_faulty(self, wanted: Sequence[str]) -> None:
        """The manifest, without the types that are at fault."""
        for fault in self.faults():
            if fault.quant == _REFERENCE:
                raise bundles.refusal(bundles.load(self.folder), fault)
            if fault.quant not in self.left_out:
                self._leave_out(fault.quant, f"{fault.file}: {fault.name}: {fault.detail}")
        if self.left_out:
            if set(self.halves["text"]) == {_REFERENCE} != set(wanted):
                raise BundleError("; ".join(self.left_out.values()))
            self.write_manifest()

    def write_manifest(self) -> None:
        """Of the files as they are."""
        self.say("manifest: hashing")
        files = {
            path.relative_to(self.folder).as_posix(): bundles.FileRecord(
                sha256=file_sha256(path), size_bytes=path.stat().st_size
            )
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and path.name != MANIFEST_NAME
        }
        by_name = {name.removeprefix(f"{CHECKPOINT_FOLDER}/"): one for name, one in files.items()}
        tokenizer = [by_name[name].sha256 for name in _TOKENIZER_FILES if name in by_name]
        if len(tokenizer) > 1:
            tokenizer = [hashlib.sha256("".join(tokenizer).encode()).hexdigest()]
        installed = (name for name in _PACKAGES if any(metadata.Distribution.discover(name=name)))
        versions = {name: metadata.version(name) for name in installed}
        manifest = bundles.Manifest(
            files=files,
            text=self.halves["text"],
            mmproj=self.halves["mmproj"],
            left_out=self.left_out,
            tokenizer_sha256=tokenizer[0],
            source=bundles.Source(
                checkpoint=self.source.name,
                weights_sha256={
                    path.name: by_name[path.name].sha256 for path in self.source.weights
                },
            ),
            created=bundles.Created(llama_cpp_commit=LLAMA_COMMIT, versions=versions),
            contract=self.contract,
        )
        content = manifest.model_dump_json(indent=2) + "\n"
        (self.folder / MANIFEST_NAME).write_text(content, "utf-8")

    def _leave_out(self, quant: str, why: str) -> None:
        self.say(f"left out {quant}: {why}")
        self.left_out[quant] = why.partition(_LOG)[0]
        for half, table in self.halves.items():
            table.pop(quant, None)
            (self.folder / _file_name(half, quant)).unlink(missing_ok=True)


@contextmanager
def _making(
    checkpoint: str | Path, out: Path, contract: Contract, progress: Progress | None
) -> Iterator[_Making]:
    """A bundle to fill, its checkpoint copied; put in its place where nothing is raised."""
    say = progress or (lambda line: None)
    is_bundle = (out / MANIFEST_NAME).is_file()
    if out.exists() and not is_bundle and (not out.is_dir() or any(out.iterdir())):
        raise BundleError(f"{out}: exists and is no bundle; choose another --out or remove it")
    source = checkpoints.load(checkpoint)
    out = out.expanduser().resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
        folder = Path(scratch) / out.name
        say(f"checkpoint: copying {source.path}")
        # Copies, no links: training again into the same folder would change the bundle.
        (folder / CHECKPOINT_FOLDER).mkdir(parents=True)
        others = {path for pattern in _CHECKPOINT_FILES for path in source.path.glob(pattern)}
        for path in (*source.weights, *sorted(others)):
            _refuse_link_out(path, source.path)
            _copy(path, folder / CHECKPOINT_FOLDER / path.name)
        # Where llama.cpp's tools write to; kept where a step fails, for the error names it.
        log = cache_dir("logs") / f"convert-{out.name}-{os.getpid()}.log"
        log.write_bytes(b"")
        making = _Making(folder, source, contract, log, say)
        try:
            say("checkpoint: checking")
            refuse_unfit(folder / CHECKPOINT_FOLDER, contract)
            yield making
        except (BundleError, CheckpointError) as error:
            # The folder that it names is gone when it is read.
            said = str(error).replace(str(folder / CHECKPOINT_FOLDER), str(source.path))
            error.args = (said.replace(str(folder), str(out)),)
            raise
        if out.exists():
            out.rename(Path(scratch) / "old")
        folder.rename(out)
    if not making.left_out:  # a reason that was given may name the log
        log.unlink(missing_ok=True)


def _refuse_link_out(path: Path, folder: Path) -> None:
    """Raises CheckpointError where a file of the checkpoint is a link to a place outside it. The
    Hugging Face hub's cache links each file of a snapshot to its `blobs`."""
    target = Path(os.path.realpath(path))
    inside = (folder.resolve(), folder.resolve().parent.parent / "blobs")
    if not any(target.is_relative_to(one) for one in inside):
        raise CheckpointError(
            f"{path}: a link to {target}, outside the checkpoint; copy the file there or remove it"
        )


def _copy(source: Path, target: Path) -> None:
    try:
        files.copy(source, target)
    except OSError as error:
        raise BundleError(f"{source}: cannot be copied: {error.strerror}") from error


def _wanted(quants: Sequence[str]) -> tuple[str, ...]:
    wanted = tuple(dict.fromkeys((_REFERENCE, *(quant.lower() for quant in quants))))
    known = {"f32", *quant_types()}
    for quant in wanted:
        if quant not in known:
            raise BundleError(
                f"quant type {quant!r}: not one of llama.cpp's; it has {', '.join(sorted(known))}"
            )
    return wanted


def _file_name(half: Half, quant: str) -> str:
    return f"{half}-{quant}.gguf"


def _make(half: Half, quant: str, folder: Path, name: str, log: Path) -> None:
    target = folder / _file_name(half, quant)
    environment = dict(os.environ, HF_HUB_OFFLINE="1")
    if quant in _CONVERTER_TYPES[half]:
        llama_cpp = llama_cpp_source()
        environment["PYTHONPATH"] = str(llama_cpp / "gguf-py")
        command = [str(llama_cpp / "convert_hf_to_gguf.py"), str(folder / CHECKPOINT_FOLDER)]
        command += ["--outfile", str(target), "--outtype", quant, "--model-name", name]
        command += ["--mmproj"] if half == "mmproj" else []
    else:
        reference = folder / _file_name(half, _REFERENCE)
        command = ["-m", "driftloop.harness.quantize", str(reference), str(target), quant]
    with log.open("ab") as sink:
        begin = sink.tell()
        done = subprocess.run(
            [sys.executable, *command], stdout=sink, stderr=subprocess.STDOUT, env=environment,
            check=False,
        )  # fmt: skip
    if done.returncode != 0 or not target.is_file():
        raise BundleError(
            f"llama.cpp cannot make the {half} GGUF in {quant}: {_reason(log, begin)}{_LOG}{log}"
        )


def _reason(log: Path, begin: int) -> str:
    """The last line the tool printed that says something went wrong, else its last line."""
    printed = log.read_bytes()[begin:].decode(errors="replace").splitlines()
    lines = [line.strip() for line in printed if line.strip(" =")]
    words = ("error", "failed", "not supported", "requires", "assert")
    telling = [line for line in lines if any(word in line.lower() for word in words)]
    # Without the folders in which llama.cpp was built.
    return re.sub(r"/\S*/", "", (telling or lines or ["it printed nothing"])[-1])
