"""What a plan writes into `run.json`."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from driftloop.devices.hashing import file_sha256
from driftloop.devices.phone import Phone
from driftloop.harness.arms.app import AppAnswers
from driftloop.harness.bundle import Bundle, Weights
from driftloop.harness.errors import BadInput
from driftloop.harness.gates_file import Gates
from driftloop.harness.ladder import ArmSpec
from driftloop.harness.records.record import (
    AppRecord,
    BundleRecord,
    CaseRecord,
    PhoneSide,
    RefusedRecord,
    RunRecord,
    Sampling,
)
from driftloop.harness.running import phones
from driftloop.harness.running.images import Sides
from driftloop.harness.running.request import RunRequest

_RECORDED: Final = (
    "driftloop",
    "torch",
    "transformers",
    "llama_cpp_python",
    "pillow",
    "numpy",
    "adbutils",
)


def of(
    request: RunRequest,
    bundle: Bundle,
    specs: Sequence[ArmSpec],
    attached: Sequence[Phone],
    sides: Sides,
    app: AppAnswers | None,
    gates: Gates,
) -> RunRecord:
    """The record of a run that begins now. Raises BadInput where `phone_runner` is unreadable."""
    contract = sides.by_role["app"].contract
    training = sides.by_role.get("training")
    records = list(_case_records(sides))
    return RunRecord(
        run_id=f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(4)}",
        started_at=datetime.now(UTC),
        contract=contract,
        contract_sha256=contract.sha256,
        training=None if training is None else training.contract,
        phone_side=_phone_side(request, sides),
        app=None if app is None else _app_record(app),
        bundle=_bundle_record(bundle),
        arms=tuple(spec.name for spec in specs),
        phones=tuple(phones.describe(phone) for phone in attached),
        cases=tuple(one for one in records if one.canary is None),
        canaries=tuple(one for one in records if one.canary is not None),
        refused=tuple(
            RefusedRecord(path=bad.path, kind=bad.kind, detail=bad.detail) for bad in sides.refused
        ),
        remarks=sides.remarks,
        sampling=Sampling(fixed=request.fixed),
        packages=installed_versions(_RECORDED),
        git_commit=_git_commit(),
        seed=request.seed,
        gates=gates,
    )


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Package -> version, of those that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _phone_side(request: RunRequest, sides: Sides) -> PhoneSide:
    runner, side = request.phone_runner, sides.of("phone")
    try:
        runner_sha256 = None if runner is None else file_sha256(runner)
    except OSError as error:
        raise BadInput(f"--phone-runner {runner}: {error.strerror}; build it first") from error
    return PhoneSide(
        contract=side.contract if request.phone_contract else None,
        bundle=_bundle_record(side.bundle) if request.phone_bundle else None,
        runner_sha256=runner_sha256,
    )


def _bundle_record(bundle: Bundle) -> BundleRecord:
    """Which bundle it is, and its hashes as the manifest states them."""
    manifest = bundle.manifest

    def hashes(weights: Mapping[str, Weights]) -> dict[str, str]:
        return {quant: manifest.files[one.file].sha256 for quant, one in weights.items()}

    return BundleRecord(
        path=str(bundle.path),
        sha256=bundle.sha256,
        summary={
            "checkpoint": manifest.source.checkpoint,
            "quants": list(bundle.quants),
            "llama_cpp_commit": manifest.created.llama_cpp_commit,
            "tokenizer_sha256": manifest.tokenizer_sha256,
        },
        text_sha256=hashes(manifest.text),
        mmproj_sha256=hashes(manifest.mmproj),
        fallbacks={
            quant: lines for quant in bundle.quants if (lines := bundle.fallback_lines(quant))
        },
    )


def _app_record(answers: AppAnswers) -> AppRecord:
    versions: dict[str, str] = {}
    for line in answers.lines.values():
        versions |= line.versions
    return AppRecord(path=str(answers.path), sha256=answers.sha256, versions=versions)


def _case_records(sides: Sides) -> Iterator[CaseRecord]:
    """Every case in its place, with the pixels of each side, and then the canaries."""
    cases = {
        (slot.session, slot.position): slot.case
        for session in sides.sessions
        for slot in session.slots
    }
    for place, image in sides.by_role["app"].images.items():
        case = cases.get(place)
        yield CaseRecord(
            id=image.case_id,
            path=str(case.path) if case else "",
            label=case.label if case else None,
            session=image.session,
            position=image.position,
            pixels_sha256=image.pixels_sha256,
            training_pixels_sha256=sides.pixels_sha256("training", *place) if case else None,
            phone_pixels_sha256=sides.pixels_sha256("phone", *place) if case else None,
            canary=image.canary,
        )


def _git_commit() -> str | None:
    """The commit of the working folder: a release's own repository, where there is one."""
    command = ["git", "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
