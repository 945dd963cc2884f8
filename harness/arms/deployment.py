"""Program and models onto a phone: what the phone arm does first, and `driftloop deploy` alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from devices import deploy
from devices.deploy import LocalBlob
from devices.errors import BadRequest
from devices.hashing import file_sha256
from devices.phone import Phone
from devices.runner import build, variants
from devices.runner.protocol import RuntimeSettings
from devices.runner.work import Settings
from harness.arms.base import Prepared
from harness.bundle import Bundle
from harness.contract import Contract, Runtime

if TYPE_CHECKING:
    from harness.progress import Advance, Progress


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
    """What came of one deploy to one phone."""

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
    """What the runner is told of a contract; `runtime` is the arm's."""
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
    text_model, mmproj = bundle.text_model(quant), bundle.mmproj(quant)
    variant, program = ("given", _own(runner)) if runner else _built(phone, progress)
    return Payload(
        variant,
        LocalBlob(program, file_sha256(program), executable=True),
        LocalBlob(text_model, bundle.file_sha256(text_model)),
        LocalBlob(mmproj, bundle.file_sha256(mmproj)),
    )


def blobs(bundle: Bundle, quant: str, images: Iterable[Prepared]) -> list[LocalBlob]:
    """Models and pictures, all that a phone needs but the program.

    Raises:
        BundleError: the bundle has no such quant type.
    """
    models = (bundle.text_model(quant), bundle.mmproj(quant))
    pictures = {image.pixels_path for image in images}
    return [
        *(LocalBlob(path, bundle.file_sha256(path)) for path in models),
        *(LocalBlob(path, file_sha256(path)) for path in sorted(pictures)),
    ]


def _own(runner: Path) -> Path:
    if not runner.is_file():
        raise BadRequest(f"no runner at {runner}: `python -m devices.runner.build` builds one")
    return runner


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
    """Bring a verified bundle to a phone; a second time nothing is sent.

    The caller holds the phone's lease. `prune` first removes every other blob from the phone,
    pixels and models of earlier runs among them.

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
            blob.path.name,
            blob.path.stat().st_size,
            blob.sha256,
            remote[blob.sha256],
            blob.sha256 in missing,
        )
        for blob in ready.blobs
    )
    return Deployment(phone.serial, ready.variant, files, freed)
