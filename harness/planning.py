"""From a request to a plan: everything that can be refused is refused before anything runs."""

from __future__ import annotations

import secrets
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from devices.paths import cache_dir
from devices.phone import Phone
from harness import bundle as bundles
from harness import cases, gating, ladder, phones, result_cache
from harness import contract as contracts
from harness.arms.base import Prepared
from harness.bundle import Bundle
from harness.contract import Contract
from harness.errors import BadInput, CaseError
from harness.ladder import ArmSpec
from harness.prepared import Placed, PreparedSet, place, prepare_cases
from harness.record import BundleRecord, CaseRecord, RefusedRecord, RunRecord
from harness.training import record as training_record

_ANSWERED_BY = {"torch": ("torch", "transformers"), "desktop": ("llama_cpp_python",), "phone": ()}
_RECORDED = (
    "driftloop",
    "torch",
    "transformers",
    "llama_cpp_python",
    "pillow",
    "numpy",
    "adbutils",
)


class Progress(Protocol):
    """Where long work says how far it is."""

    def track(self, name: str) -> Callable[[int, int], None]:
        """A callback `(done, total)` for the piece of work called `name`."""


@dataclass(frozen=True)
class RunRequest:
    """What a user asks for. `phones`: serials, `all` or `virtual`; no `arms`: the whole ladder."""

    bundle: Path
    images: str
    out: Path
    phones: tuple[str, ...] = ()
    arms: tuple[str, ...] = ()
    contract: str | None = None
    """A contract's name or file; None is the one the bundle was made for."""
    training: str | None = None
    """The training side's contract, by name or file; None is the one recorded beside the bundle's
    checkpoint, where there is one."""
    quant: str = "q8_0"
    seed: int = 0
    skip_bad: bool = False
    gates: str | None = None
    """A gates file; None is the one that comes with driftloop."""


@dataclass(frozen=True)
class Side:
    """What an arm runs under: a contract, and the images with the pixels it makes."""

    contract: Contract
    images: dict[tuple[int, int], Prepared] = field(repr=False)
    """By (session, position)."""


@dataclass(frozen=True)
class Plan:
    """A request whose every part has been read and found good."""

    bundle: Bundle
    specs: tuple[ArmSpec, ...]
    sides: dict[bool, Side]
    """By `ArmSpec.training`: the run's own, and the training side's where its arm takes part."""
    record: RunRecord = field(repr=False)

    def arm_key(self, spec: ArmSpec) -> str:
        """Under which key this arm's answers are kept on this host."""
        if spec.quant is None:
            files = self.bundle.manifest.files
            hashes = [
                files[name].sha256 for name in sorted(files) if name.startswith("checkpoint/")
            ]
        else:
            models = (self.bundle.text_model(spec.quant), self.bundle.mmproj(spec.quant))
            hashes = [self.bundle.file_sha256(path) for path in models]
        contract = self.sides[spec.training].contract
        return result_cache.arm_key(spec, contract, hashes, answered_by(spec.kind))


def plan(request: RunRequest, attached: Sequence[Phone], progress: Progress) -> Plan:
    """Read and check every part of `request`; prepare the pixels every arm will get.

    Raises:
        BadInput: contracts, gates, bundle, arms or images are wrong; says which and why.
    """
    bundle = bundles.load(request.bundle)
    contract = contracts.load(request.contract) if request.contract else bundle.contract
    training = _training(request, bundle)
    gates = gating.load(request.gates)
    specs = _specs(request, bundle, attached, contract, training)
    bundles.verify(bundle, {spec.quant for spec in specs if spec.quant is not None})
    under = {False: contract}
    if training is not None and any(spec.training for spec in specs):
        under[True] = training
    placed, refused = _placed(request, under, progress)
    sides = {side: Side(under[side], _by_place(images)) for side, images in placed.items()}
    record = RunRecord(
        run_id=f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(4)}",
        started_at=datetime.now(UTC),
        contract=contract,
        contract_sha256=contract.sha256,
        training=under.get(True),
        bundle=_bundle_record(bundle),
        arms=tuple(spec.name for spec in specs),
        phones=tuple(phones.describe(phone) for phone in attached),
        cases=_case_records(placed[False], sides.get(True)),
        refused=tuple(
            RefusedRecord(path=bad.path, kind=bad.kind, detail=bad.detail) for bad in refused
        ),
        packages={name: version(name) for name in _RECORDED if _installed(name)},
        git_commit=_git_commit(),
        seed=request.seed,
        gates=gates,
    )
    return Plan(bundle, specs, sides, record)


def answered_by(kind: str) -> dict[str, str]:
    """Package -> version of what computes the answers of an arm of that kind."""
    return {name: version(name) for name in _ANSWERED_BY[kind] if _installed(name)}


def missing_packages() -> dict[str, str]:
    """Arms on this host that its packages do not allow: kind -> the extra that brings them."""
    return {
        kind: kind
        for kind, packages in _ANSWERED_BY.items()
        if not all(_installed(package) for package in packages)
    }


def _training(request: RunRequest, bundle: Bundle) -> Contract | None:
    """The training side's contract; None where nothing tells it."""
    if request.training is not None:
        return contracts.load(request.training)
    recorded = training_record.load(bundle.checkpoint)
    return None if recorded is None else recorded.contract


def _specs(
    request: RunRequest,
    bundle: Bundle,
    attached: Sequence[Phone],
    contract: Contract,
    training: Contract | None,
) -> tuple[ArmSpec, ...]:
    serials = [phone.serial for phone in attached]
    if not request.arms:
        lacking = missing_packages()
        asked = request.training is not None
        differs = training is not None and _asked(training) != _asked(contract)
        whole = ladder.default_ladder(request.quant, serials, training=asked or differs)
        names = [spec.name for spec in whole if spec.kind not in lacking]
        return ladder.parse_ladder(names, bundle.quants)
    specs = ladder.parse_ladder(request.arms, bundle.quants)
    named = any(spec.training for spec in specs)
    if named and training is None:
        raise BadInput(
            f"arm {ladder.TRAINING}: nothing tells how the checkpoint was trained; "
            "name the training side's contract with --training NAME|FILE"
        )
    if request.training is not None and not named:
        raise BadInput(f"--training is for the arm {ladder.TRAINING}: name it in --arms too")
    if not attached and any(not spec.on_host for spec in specs):
        raise BadInput(
            "--arms names a phone arm: say which phone with --phone SERIAL, all or virtual"
        )
    return specs


def _asked(contract: Contract) -> dict[str, Any]:
    """What a contract asks of a single answer of the checkpoint."""
    return contract.model_dump(
        exclude={"name": True, "runtime": True, "limits": {"images_per_session": True}}
    )


def _placed(
    request: RunRequest, under: dict[bool, Contract], progress: Progress
) -> tuple[dict[bool, list[Placed]], tuple[CaseError, ...]]:
    """Every case in its place with the pixels of each side; and what was refused by any."""
    contract = under[False]
    found = cases.load_cases(request.images, contract.answer.labels, skip_bad=request.skip_bad)
    taken, refused = found.cases, found.refused
    prepared: dict[bool, PreparedSet] = {}
    for side, one in under.items():
        prepared[side] = prepare_cases(
            taken,
            one.pixels,
            cache_dir("pixels"),
            progress.track(f"preparing {'training ' if side else ''}pixels"),
            skip_bad=request.skip_bad,
        )
        taken = tuple(ready.case for ready in prepared[side].cases)
        refused = (*refused, *prepared[side].refused)
    sessions = cases.sessions(taken, contract.limits.images_per_session, request.seed)
    return {side: place(sessions, ready) for side, ready in prepared.items()}, refused


def _by_place(placed: Sequence[Placed]) -> dict[tuple[int, int], Prepared]:
    return {(one.image.session, one.image.position): one.image for one in placed}


def keep_pixels(plan: Plan, folder: Path) -> None:
    """Copy what the models see into a run's `pixels` folder, named by content.

    The report shows it, long after the cache is gone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for image in (image for side in plan.sides.values() for image in side.images.values()):
        kept = folder / f"{image.pixels_sha256}.png"
        if not kept.exists():
            shutil.copyfile(image.pixels_path, kept)


def _bundle_record(bundle: Bundle) -> BundleRecord:
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
    )


def _case_records(placed: Sequence[Placed], training: Side | None) -> tuple[CaseRecord, ...]:
    seen = {} if training is None else training.images
    return tuple(
        CaseRecord(
            id=case.id,
            path=str(case.path),
            label=case.label,
            session=image.session,
            position=image.position,
            pixels_sha256=image.pixels_sha256,
            training_pixels_sha256=(
                seen[image.session, image.position].pixels_sha256 if seen else None
            ),
        )
        for case, image in ((one.case, one.image) for one in placed)
    )


def _installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _git_commit() -> str | None:
    """The commit of the working folder: a release's own repository, where there is one."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
