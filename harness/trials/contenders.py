"""From what a user names to two pieces of work a phone can run, or a refusal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

from devices.paths import cache_dir
from devices.phone import Phone
from devices.runner.work import Work, WorkImage
from harness import bundle as bundles
from harness import cases
from harness import contract as contracts
from harness.arms import deployment
from harness.arms.deployment import Payload
from harness.bundle import Bundle
from harness.contract import Contract
from harness.errors import BadInput
from harness.progress import Progress
from harness.running.images import PreparedCase, prepare_cases
from harness.trials.plan import Contender
from harness.trials.record import CONTENDERS, ContenderRecord


@dataclass(frozen=True)
class Entry:
    """What a user names for one side; None: what the bundle, or the build, brings."""

    bundle: Path
    contract: str | None = None
    runner: Path | None = None


@dataclass(frozen=True)
class Subject:
    """One side, ready to run: `work` but for its run id, and what the trial records of it."""

    work: Work
    record: ContenderRecord


def prepare(
    entries: dict[Contender, Entry],
    images: str,
    images_per_run: int,
    quant: str,
    seed: int,
    phone: Phone,
    progress: Progress,
) -> dict[Contender, Subject]:
    """Read and check every part of both sides; every run takes the same images in the same order.

    Raises:
        BadInput: a bundle, contract, runner or image is wrong, or the sides cannot be compared.
        DeviceError: no runner fits the phone, or none can be built.
    """
    loaded = {side: bundles.load(entry.bundle) for side, entry in entries.items()}
    fixed = {
        side: contracts.load(entry.contract) if entry.contract else loaded[side].contract
        for side, entry in entries.items()
    }
    _comparable(fixed)
    subjects: dict[Contender, Subject] = {}
    for side, entry in entries.items():
        bundles.verify(loaded[side], [quant])
        taken = _images(images, fixed[side], images_per_run, seed, progress)
        ready = deployment.payload(phone, loaded[side], quant, progress, runner=entry.runner)
        subjects[side] = _subject(entry, loaded[side], quant, fixed[side], ready, taken)
    return subjects


def _comparable(fixed: dict[Contender, Contract]) -> None:
    baseline, candidate = (fixed[side].runtime for side in CONTENDERS)
    for key in ("threads", "vision_threads", "backend"):
        told = [getattr(runtime, key) for runtime in (baseline, candidate)]
        if told[0] != told[1]:
            raise BadInput(
                f"the baseline's contract says runtime.{key} = {told[0]}, the candidate's "
                f"{told[1]}: times are comparable only where it is the same"
            )


def _images(
    spec: str, contract: Contract, count: int, seed: int, progress: Progress
) -> list[WorkImage]:
    """The first `count` of the seeded order; again from the start where there are fewer."""
    found = cases.load_cases(spec, contract.answer.labels).cases
    size = contract.limits.images_per_session
    order = [case for session in cases.sessions(found, size, seed) for case in session.cases]
    chosen = order[:count]
    advance = progress.track("preparing pixels")
    ready = prepare_cases(chosen, contract.pixels, cache_dir("pixels"), advance).cases
    return [_image(one, place, size) for place, one in enumerate(islice(cycle(ready), count))]


def _image(ready: PreparedCase, place: int, session_size: int) -> WorkImage:
    session, position = divmod(place, session_size)
    return WorkImage(ready.case.id, session, position, ready.pixels_path, ready.pixels_sha256)


def _subject(
    entry: Entry,
    bundle: Bundle,
    quant: str,
    contract: Contract,
    ready: Payload,
    images: Sequence[WorkImage],
) -> Subject:
    return Subject(
        Work(
            run_id="latency",
            runner=ready.runner.path,
            text_model=ready.text_model.path,
            text_model_sha256=ready.text_model.sha256,
            mmproj=ready.mmproj.path,
            mmproj_sha256=ready.mmproj.sha256,
            settings=deployment.settings(contract, contract.runtime),
            images=tuple(images),
            evidence=False,
        ),
        ContenderRecord(
            bundle=str(bundle.path),
            bundle_sha256=bundle.sha256,
            quant=quant,
            text_sha256=ready.text_model.sha256,
            mmproj_sha256=ready.mmproj.sha256,
            contract=contract,
            runner=None if entry.runner is None else str(entry.runner),
            runner_sha256=ready.runner.sha256,
            case_ids=tuple(image.case_id for image in images),
            pixels_sha256=tuple(image.pixels_sha256 for image in images),
        ),
    )
