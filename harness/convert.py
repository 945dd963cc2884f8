"""Checkpoint -> GGUF + mmproj -> quantized, with llama.cpp's own converter and quantizer."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Final

from devices.hashing import file_sha256
from devices.paths import cache_dir
from devices.runner.source import LLAMA_COMMIT, llama_cpp_source
from harness import bundle as bundles
from harness import checkpoint as checkpoints
from harness.bundle.gguf_file import GgufFile
from harness.bundle.manifest import CHECKPOINT_FOLDER, MANIFEST_NAME
from harness.checkpoint import Checkpoint
from harness.contract import Contract
from harness.errors import BundleError
from harness.quantize import quant_types

Progress = Callable[[str], None]
"""Called with one line before each step."""

REFERENCE_QUANT: Final = "f16"
"""Always built: the arm `desktop:f16` needs it."""

_CONVERTER_TYPES: Final = {
    "text": frozenset({"f32", "f16", "bf16"}),
    # What users ship as a q8_0 mmproj is the converter's own.
    "mmproj": frozenset({"f32", "f16", "bf16", "q8_0"}),
}
_CHECKPOINT_FILES: Final = ("*.json", "*.jinja", "*.txt", "*.model")
"""Beside the weights."""
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
    lower case, for example q8_0, q4_0, q4_k_m. The finished bundle is checked before it is put
    in its place; until then `out` stays as it was.

    Raises:
        CheckpointError: no such checkpoint, or none of SmolVLM's architecture.
        BundleError: `out` holds something else, an unknown type, or llama.cpp cannot make it.
        ArmUnavailable: a package is missing.
        ToolchainMissing: llama.cpp's source cannot be had.
    """
    say = progress or _silent
    wanted = _wanted(quants)
    _refuse_foreign(out)
    source = checkpoints.load(checkpoint)
    out = out.expanduser().resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
        folder = Path(scratch) / out.name
        copy = folder / CHECKPOINT_FOLDER
        say(f"checkpoint: copying {source.path}")
        _copy_checkpoint(source, copy)
        log = _log_file(out.name)
        for half in ("text", "mmproj"):
            for quant in wanted:
                say(f"{half}: {quant}")
                _make(half, quant, folder, _name(source), log)
        say("manifest: hashing")
        _write_manifest(folder, source, wanted, contract)
        say("check: do the parts belong together?")
        bundles.check(folder)
        _put_in_place(folder, out, Path(scratch) / "old")
    log.unlink(missing_ok=True)
    return bundles.load(out)


def _silent(_line: str) -> None:
    """Progress nobody asked for."""


def _name(source: Checkpoint) -> str:
    """The published id, or the folder's name: its parents only tell of somebody's disk."""
    return source.path.name if Path(source.source).expanduser().is_dir() else source.source


def _wanted(quants: Sequence[str]) -> tuple[str, ...]:
    wanted = tuple(dict.fromkeys((REFERENCE_QUANT, *(quant.lower() for quant in quants))))
    known = {"f32", *quant_types()}
    for quant in wanted:
        if quant not in known:
            raise BundleError(
                f"quant type {quant!r}: not one of llama.cpp's; it has {', '.join(sorted(known))}"
            )
    return wanted


def _refuse_foreign(out: Path) -> None:
    is_bundle = (out / MANIFEST_NAME).is_file()
    if out.exists() and not is_bundle and (not out.is_dir() or any(out.iterdir())):
        raise BundleError(f"{out}: exists and is no bundle; choose another --out or remove it")


def _copy_checkpoint(source: Checkpoint, target: Path) -> None:
    """Copies, no links: training again into the same folder would change the bundle."""
    target.mkdir(parents=True)
    others = [path for pattern in _CHECKPOINT_FILES for path in sorted(source.path.glob(pattern))]
    for path in (*source.weights, *others):
        shutil.copyfile(path, target / path.name)


def _log_file(name: str) -> Path:
    """Where llama.cpp's tools write to; kept where a step fails, for the error names it."""
    path = cache_dir("logs") / f"convert-{name}-{os.getpid()}.log"
    path.write_bytes(b"")
    return path


def _weights_name(half: str, quant: str) -> str:
    return f"{half}-{quant}.gguf"


def _make(half: str, quant: str, folder: Path, name: str, log: Path) -> None:
    target = folder / _weights_name(half, quant)
    environment = dict(os.environ, HF_HUB_OFFLINE="1")
    if quant in _CONVERTER_TYPES[half]:
        llama_cpp = llama_cpp_source()
        environment["PYTHONPATH"] = str(llama_cpp / "gguf-py")
        command = [str(llama_cpp / "convert_hf_to_gguf.py"), str(folder / CHECKPOINT_FOLDER)]
        command += ["--outfile", str(target), "--outtype", quant]
        command += ["--model-name", name]
        command += ["--mmproj"] if half == "mmproj" else []
    else:
        reference = folder / _weights_name(half, REFERENCE_QUANT)
        command = ["-m", "harness.quantize", str(reference), str(target), quant]
    with log.open("ab") as sink:
        begin = sink.tell()
        done = subprocess.run(
            [sys.executable, *command], stdout=sink, stderr=subprocess.STDOUT, env=environment,
            check=False,
        )  # fmt: skip
    if done.returncode != 0 or not target.is_file():
        raise BundleError(
            f"llama.cpp cannot make the {half} GGUF in {quant}: {_reason(log, begin)}; log: {log}"
        )


def _reason(log: Path, begin: int) -> str:
    """The last line the tool printed that says something went wrong, else its last line."""
    said = log.read_bytes()[begin:].decode(errors="replace").splitlines()
    lines = [line.strip() for line in said if line.strip(" =")]
    words = ("error", "failed", "not supported", "requires", "assert")
    telling = [line for line in lines if any(word in line.lower() for word in words)]
    return (telling or lines or ["it printed nothing"])[-1]


def _write_manifest(
    folder: Path, source: Checkpoint, quants: tuple[str, ...], contract: Contract
) -> None:
    files = {
        path.relative_to(folder).as_posix(): bundles.FileRecord(
            sha256=file_sha256(path), size_bytes=path.stat().st_size
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    manifest = bundles.Manifest(
        files=files,
        text={quant: _weights(folder, "text", quant) for quant in quants},
        mmproj={quant: _weights(folder, "mmproj", quant) for quant in quants},
        tokenizer_sha256=_tokenizer_sha256(files),
        source=bundles.Source(
            checkpoint=_name(source),
            weights_sha256={
                path.name: files[f"{CHECKPOINT_FOLDER}/{path.name}"].sha256
                for path in source.weights
            },
        ),
        created=bundles.Created(llama_cpp_commit=LLAMA_COMMIT, versions=_versions()),
        contract=contract,
    )
    (folder / MANIFEST_NAME).write_text(manifest.model_dump_json(indent=2) + "\n", "utf-8")


def _tokenizer_sha256(files: dict[str, bundles.FileRecord]) -> str:
    names = (f"{CHECKPOINT_FOLDER}/{name}" for name in _TOKENIZER_FILES)
    hashes = [files[name].sha256 for name in names if name in files]
    return hashlib.sha256("".join(hashes).encode()).hexdigest() if len(hashes) > 1 else hashes[0]


def _weights(folder: Path, half: str, quant: str) -> bundles.Weights:
    name = _weights_name(half, quant)
    return bundles.Weights(file=name, tensor_types=GgufFile(folder / name).tensor_types())


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _put_in_place(folder: Path, out: Path, aside: Path) -> None:
    if out.exists():
        out.rename(aside)
    folder.rename(out)
