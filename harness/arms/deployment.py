"""Program and models onto a phone: what the phone arm does first, and `driftloop deploy` alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from driftloop.devices import deploy
from driftloop.devices.deploy import LocalBlob
from driftloop.devices.errors import BadRequest
from driftloop.devices.hashing import file_sha256
from driftloop.devices.phone import Phone
from driftloop.devices.runner import build, variants
from driftloop.devices.runner.protocol import RuntimeSettings, Settings
from driftloop.devices.runner.work import Work, WorkImage
from driftloop.harness.arms.base import Prepared
from driftloop.harness.bundle import Bundle
from driftloop.harness.contract import Contract, Runtime

if TYPE_CHECKING:
    from driftloop.harness.progress import Advance, Progress


@dataclass(frozen=True)
class Payload:
    """What a phone needs before its first image."""

    variant: str
    """Of the runner: the best that this phone's CPU can run, or `given` for the user's own."""
    runner: LocalBlob
    text_model: LocalBlob
    mmproj: LocalBlob

    @property
    def blobs(self) -> tuple[LocalBlob, LocalBlob, LocalBlob]:
        """The program first."""
        return self.runner, self.text_model, self.mmproj

    def work(
        self,
        run_id: str,
        contract: Contract,
        runtime: Runtime,
        images: Iterable[WorkImage],
        *,
        evidence: bool = True,
    ) -> Work:
        """A run of `images` with these files under `contract`, with the arm's `runtime`."""
        return Work(
            run_id=run_id,
            runner=self.runner.path,
            text_model=self.text_model.path,
            text_model_sha256=self.text_model.sha256,
            mmproj=self.mmproj.path,
            mmproj_sha256=self.mmproj.sha256,
            settings=settings(contract, runtime),
            images=tuple(images),
            evidence=evidence,
        )


@dataclass(frozen=True)
class DeployedFile:
    """One file, and where the phone has it."""

    name: str
    size_bytes: int
    sha256: str
    remote: str
    sent: bool
    """False where it was there already."""


@dataclass(frozen=True)
class Deployment:
    """The outcome of one deploy to one phone."""

    serial: str
    variant: str
    files: tuple[DeployedFile, ...]
    freed_bytes: int
    """By pruning what other deploys had left."""

    @property
    def sent_bytes(self) -> int:
        """0 where everything was there."""
        return sum(file.size_bytes for file in self.files if file.sent)


def settings(contract: Contract, runtime: Runtime) -> Settings:
    """The part of a contract that the runner needs; `runtime` is the arm's."""
    return Settings(
        prompt=contract.prompt.text,
        marker=contract.prompt.marker,
        add_special=contract.prompt.add_special,
        parse_special=contract.prompt.parse_special,
        max_tokens=contract.limits.max_tokens,
        labels=contract.answer.labels,
        runtime=RuntimeSettings(**runtime.model_dump(), tiling=contract.tiling),
        decoding=contract.decoding,
    )


def payload(
    phone: Phone, bundle: Bundle, quant: str, progress: Progress, *, runner: Path | None = None
) -> Payload:
    """The runner for `phone`, built if it is not in the cache, and the models of that type.

    `runner`: a program of the user's own in place of the built one.

    Raises:
        BundleError: the bundle has no such quant type.
        BadRequest: `runner` is no file.
        DeviceError: the phone cannot be asked, no runner fits it, or none can be built.
    """
    text_model, mmproj = _models(bundle, quant)
    variant, program = ("given", runner) if runner else _built(phone, progress)
    if not program.is_file():
        raise BadRequest(
            f"no runner at {program}: `python -m driftloop.devices.runner.build` builds one"
        )
    return Payload(
        variant, LocalBlob(program, file_sha256(program), executable=True), text_model, mmproj
    )


def blobs(bundle: Bundle, quant: str, images: Iterable[Prepared]) -> list[LocalBlob]:
    """Models and pictures: all that a phone needs but the program. Raises BundleError where the
    bundle has no such quant type."""
    pictures = sorted({image.pixels_path for image in images})
    return [*_models(bundle, quant), *(LocalBlob(path, file_sha256(path)) for path in pictures)]


def _models(bundle: Bundle, quant: str) -> tuple[LocalBlob, LocalBlob]:
    text_model, mmproj = (
        LocalBlob(path, bundle.file_sha256(path))
        for path in (bundle.text_model(quant), bundle.mmproj(quant))
    )
    return text_model, mmproj


def _built(phone: Phone, progress: Progress) -> tuple[str, Path]:
    """(variant's name, program)."""
    variant = variants.choose(phone.patiently(phone.identity))
    advance = progress.track(f"building runner {variant.name}")
    program = build.runner_binary(variant, progress=lambda done, total, _: advance(done, total))
    return variant.name, program


def pushing(phone: Phone, progress: Progress) -> Advance:
    """The bar that shows how far a push to `phone` is, in bytes."""
    return progress.track(f"pushing to {phone.serial}")


def deploy_bundle(
    phone: Phone, bundle: Bundle, quant: str, progress: Progress, *, prune: bool = False
) -> Deployment:
    """Push a verified bundle to a phone; nothing is sent twice. The caller holds its lease.

    `prune` first removes every other blob from the phone, pixels and models of earlier runs among
    them.

    Raises:
        BundleError, DeviceError: as `payload` does.
        StorageFull: not enough space; nothing was sent.
    """
    ready = payload(phone, bundle, quant, progress)
    keep = {blob.sha256 for blob in ready.blobs}
    freed = phone.patiently(lambda: deploy.prune(phone, keep)) if prune else 0
    missing = phone.patiently(lambda: deploy.missing(phone, ready.blobs))
    advance = pushing(phone, progress)
    remote = phone.patiently(lambda: deploy.deploy(phone, ready.blobs, progress=advance))
    files = tuple(
        DeployedFile(
            name=blob.path.name,
            size_bytes=blob.path.stat().st_size,
            sha256=blob.sha256,
            remote=remote[blob.sha256],
            sent=blob.sha256 in missing,
        )
        for blob in ready.blobs
    )
    return Deployment(phone.serial, ready.variant, files, freed)
