"""What a plan writes into `run.json` of its bundles, phones' givens, cases and canaries."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from devices.hashing import file_sha256
from harness.arms.app import AppAnswers
from harness.bundle import Bundle, Weights
from harness.errors import BadInput
from harness.records.record import AppRecord, BundleRecord, CaseRecord
from harness.running.images import Sides


def program_sha256(program: Path) -> str:
    """Of a runner that a user names. Raises BadInput where it cannot be read."""
    try:
        return file_sha256(program)
    except OSError as error:
        raise BadInput(f"--phone-runner {program}: {error.strerror}; build it first") from error


def bundle_record(bundle: Bundle) -> BundleRecord:
    """Which bundle it is, and its hashes as the manifest says."""
    manifest = bundle.manifest
    return BundleRecord(
        path=str(bundle.path),
        sha256=bundle.sha256,
        summary={
            "checkpoint": manifest.source.checkpoint,
            "quants": list(bundle.quants),
            "llama_cpp_commit": manifest.created.llama_cpp_commit,
            "tokenizer_sha256": manifest.tokenizer_sha256,
        },
        text_sha256=_hashes(bundle, manifest.text),
        mmproj_sha256=_hashes(bundle, manifest.mmproj),
        fallbacks={
            quant: lines for quant in bundle.quants if (lines := bundle.fallback_lines(quant))
        },
    )


def _hashes(bundle: Bundle, weights: Mapping[str, Weights]) -> dict[str, str]:
    return {quant: bundle.manifest.files[one.file].sha256 for quant, one in weights.items()}


def app_record(answers: AppAnswers) -> AppRecord:
    """Whose lines they are."""
    versions = {
        name: version for line in answers.lines.values() for name, version in line.versions.items()
    }
    return AppRecord(path=str(answers.path), sha256=answers.sha256, versions=versions)


def case_records(prepared: Sides) -> tuple[CaseRecord, ...]:
    """Every case in its place, with the pixels of each side."""
    return tuple(
        CaseRecord(
            id=slot.case.id,
            path=str(slot.case.path),
            label=slot.case.label,
            session=slot.session,
            position=slot.position,
            pixels_sha256=prepared.pixels_sha256("app", slot.session, slot.position),
            training_pixels_sha256=prepared.pixels_sha256("training", slot.session, slot.position),
            phone_pixels_sha256=prepared.pixels_sha256("phone", slot.session, slot.position),
        )
        for session in prepared.sessions
        for slot in session.slots
    )


def canary_records(prepared: Sides) -> tuple[CaseRecord, ...]:
    """The images beside the cases, in theirs."""
    return tuple(
        CaseRecord(
            id=image.case_id,
            path="",
            label=None,
            session=image.session,
            position=image.position,
            pixels_sha256=image.pixels_sha256,
            canary=image.canary,
        )
        for image in prepared.by_role["app"].images.values()
        if image.canary is not None
    )
