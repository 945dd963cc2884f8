"""From a request to a plan: everything that can be refused is refused before anything runs."""

from __future__ import annotations

import secrets
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from devices.phone import Phone
from harness import bundle as bundles
from harness import contract as contracts
from harness import gates_file, ladder, tokens
from harness.arms import app as app_lines
from harness.arms.app import AppAnswers
from harness.arms.base import Prepared, Side
from harness.bundle import Bundle
from harness.contract import Contract
from harness.errors import BadInput
from harness.gates_file import Gates
from harness.judgement.sampling import sampling_plan
from harness.ladder import ArmSpec, Role
from harness.progress import Progress
from harness.records.inquiry import AppRemarks
from harness.records.record import PhoneSide, RefusedRecord, RunRecord, Sampling
from harness.running import images, phones, result_cache, run_record
from harness.running.images import Sides, Under
from harness.running.request import RunRequest
from harness.running.soundness import Soundness, soundness
from harness.tokens import PromptSize
from harness.training import record as training_record

_ANSWERED_BY = {
    "torch": ("torch", "transformers"),
    "desktop": ("llama_cpp_python",),
    "phone": (),
    "app": (),
}
APP_FOLDER = "app"
"""Of a run, where what was pulled from an app lies."""
_RECORDED = (
    "driftloop",
    "torch",
    "transformers",
    "llama_cpp_python",
    "pillow",
    "numpy",
    "adbutils",
)


@dataclass(frozen=True)
class Plan:
    """A request whose every part has been read and found good."""

    bundle: Bundle
    specs: tuple[ArmSpec, ...]
    sides: Sides
    soundness: Soundness
    """Of the bundles' files."""
    phone_runner: Path | None
    drive: int
    """Cases of every hop along which the candidate is driven."""
    deep: bool
    prompt: PromptSize | None
    """Of the contract, around an image; None where nothing here counts its tokens."""
    app: AppAnswers | None
    """None where the arm `app` takes no part."""
    record: RunRecord = field(repr=False)

    @property
    def runnable(self) -> tuple[ArmSpec, ...]:
        """The arms whose files llama.cpp can run."""
        return tuple(spec for spec in self.specs if spec.name not in self.soundness.unfit)

    @property
    def app_remarks(self) -> AppRemarks | None:
        """What the app's lines show beside the answers."""
        quant = next((spec.quant for spec in reversed(self.specs) if spec.quant is not None), None)
        if self.app is None:
            return None
        models = () if quant is None else (self.bundle.text_model(quant), self.bundle.mmproj(quant))
        return self.app.remarks(
            self.sides.by_role["app"].images.values(), [*map(self.bundle.file_sha256, models)]
        )

    def side(self, spec: ArmSpec) -> Side:
        """What that arm runs under."""
        return self.sides.of(spec.role)

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
        contract = self.side(spec).contract
        return result_cache.arm_key(spec, contract, hashes, answered_by(spec.kind))

    def trajectory_key(self, spec: ArmSpec, phone: str | None) -> str:
        """Under which key this arm's trajectories are kept on this host: a phone's are kept for one
        run, as its runner and processor decide them too."""
        return self.arm_key(spec) if phone is None else f"{self.record.run_id}-{phone}"


def plan(request: RunRequest, attached: Sequence[Phone], progress: Progress) -> Plan:
    """Read and check every part of `request`; prepare the pixels every arm will get.

    Raises:
        BadInput: contracts, gates, bundle, arms or images are wrong; says which and why.
    """
    request = _with_pulled(request, attached)
    bundle = bundles.load(request.bundle)
    contract = _contract(request, bundle)
    training = _training(request, bundle)
    gates = gates_file.load(request.gates)
    specs = _specs(request, bundle, attached, contract, training)
    under = _under(request, specs, Under(contract, bundle), training)
    prompt = _prompt(under["app"], specs, progress)
    checking = progress.track("checking the bundle")
    checking(0, 1)
    sound = soundness(under, specs, checking) if request.check_files else Soundness()
    checking(1, 1)
    prepared = images.prepare(
        request.images,
        under,
        request.seed,
        _most_images(request, gates, contract),
        progress.track,
        skip_bad=request.skip_bad,
    )
    _refuse_too_few(request, prepared)
    if request.drive < 0:
        raise BadInput(f"--drive {request.drive}: name a number of cases, or 0 for none")
    answers = _app_answers(request, prepared, contract)
    record = RunRecord(
        run_id=f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(4)}",
        started_at=datetime.now(UTC),
        contract=contract,
        contract_sha256=contract.sha256,
        training=under["training"].contract if "training" in under else None,
        phone_side=_phone_side(request, under),
        app=None if answers is None else run_record.app_record(answers),
        bundle=run_record.bundle_record(bundle),
        arms=tuple(spec.name for spec in specs),
        phones=tuple(phones.describe(phone) for phone in attached),
        cases=run_record.case_records(prepared),
        canaries=run_record.canary_records(prepared),
        refused=tuple(
            RefusedRecord(path=bad.path, kind=bad.kind, detail=bad.detail)
            for bad in prepared.refused
        ),
        sampling=Sampling(fixed=request.fixed),
        packages={name: version(name) for name in _RECORDED if _installed(name)},
        git_commit=_git_commit(),
        seed=request.seed,
        gates=gates,
    )
    return Plan(
        bundle=bundle,
        specs=specs,
        sides=prepared,
        soundness=sound,
        phone_runner=request.phone_runner,
        drive=request.drive,
        deep=request.deep,
        prompt=prompt,
        app=answers,
        record=record,
    )


def announced(request: RunRequest) -> str:
    """In a line, how many images will decide, and how often that goes wrong.

    Raises:
        BadInput: gates, bundle or contract are wrong; says which and why.
    """
    gates = gates_file.load(request.gates)
    contract = _contract(request, bundles.load(request.bundle))
    look = contract.limits.images_per_session
    test = sampling_plan(gates, ("platform",), look, request.fixed)
    return f"agreement: {test.sentence}"


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


def _contract(request: RunRequest, bundle: Bundle) -> Contract:
    return contracts.load(request.contract) if request.contract else bundle.contract


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
        whole = ladder.default_ladder(
            request.quant,
            serials,
            training=asked or differs,
            app=request.app is not None,
        )
        names = [spec.name for spec in whole if spec.kind not in lacking]
        return ladder.parse_ladder(names, bundle.quants)
    specs = ladder.parse_ladder(request.arms, bundle.quants)
    named = any(spec.training for spec in specs)
    if named and training is None:
        raise BadInput(
            f"arm {ladder.TRAINING}: nothing tells how the checkpoint was trained; "
            "name the training side's contract with --training NAME|FILE"
        )
    if (request.app is not None) != any(spec.kind == "app" for spec in specs):
        raise BadInput(
            f"the arm {ladder.APP} and --app FILE belong together: name both, or neither"
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


def _under(
    request: RunRequest, specs: Sequence[ArmSpec], app: Under, training: Contract | None
) -> dict[Role, Under]:
    """Every role that an arm of the run has, with what it runs under."""
    roles = {spec.role for spec in specs}
    under: dict[Role, Under] = {"app": app}
    if training is not None and "training" in roles:
        under["training"] = Under(training, app.bundle)
    given = (request.phone_contract, request.phone_bundle, request.phone_runner)
    if any(given):
        if "phone" not in roles:
            raise BadInput("--phone-contract, --phone-bundle and --phone-runner are for phones")
        under["phone"] = Under(
            contracts.load(request.phone_contract) if request.phone_contract else app.contract,
            bundles.load(request.phone_bundle) if request.phone_bundle else app.bundle,
        )
    return under


def _prompt(app: Under, specs: Sequence[ArmSpec], progress: Progress) -> PromptSize | None:
    """How large it is, where the contract's context holds it and the longest answer.

    Not looked at where phones alone are given another contract: what comes of that is what the
    run is to show.

    Raises:
        BadInput: they do not fit; says both numbers.
    """
    runtime, contract = app.contract.runtime, app.contract
    contexts = [
        runtime.context if spec.app_runtime else runtime.reference().context
        for spec in specs
        if spec.kind != "torch"
    ]
    if not contexts:
        return None
    counting = progress.track("counting the prompt's tokens")
    counting(0, 1)
    prompt = tokens.prompt_size(app.bundle, contract)
    counting(1, 1)
    answer, context = contract.limits.max_tokens, min(contexts)
    if prompt is not None and prompt.tokens + answer > context:
        raise BadInput(
            f"{prompt.tokens} prompt tokens and {answer} for the answer do not fit a context of "
            f"{context}; say more in the contract's runtime.context, or make tiling, prompt or "
            "limits.max_tokens smaller"
        )
    return prompt


def _most_images(request: RunRequest, gates: Gates, contract: Contract) -> int:
    """How many cases a run can need."""
    if request.fixed is not None:
        if request.fixed < 1:
            raise BadInput(f"--fixed {request.fixed}: name a number of images of at least 1")
        return request.fixed
    return gates.most_images(contract.limits.images_per_session)


def _refuse_too_few(request: RunRequest, prepared: Sides) -> None:
    there = sum(len(session.cases) for session in prepared.sessions)
    if request.fixed is not None and there < request.fixed:
        raise BadInput(f"--fixed {request.fixed}: {request.images} holds only {there} images")


def _with_pulled(request: RunRequest, attached: Sequence[Phone]) -> RunRequest:
    """With the app's lines from its phone, which lie in the run's folder from then on."""
    if request.app_pull is None:
        return request
    if len(attached) != 1 or request.app is not None:
        raise BadInput(
            "--app-pull takes the lines of one phone: name it with --phone, and no --app"
        )
    folder = request.out / APP_FOLDER
    return replace(request, app=app_lines.pulled(attached[0], request.app_pull, folder))


def _app_answers(request: RunRequest, prepared: Sides, contract: Contract) -> AppAnswers | None:
    if request.app is None:
        return None
    cases = [slot.case for session in prepared.sessions for slot in session.slots]
    return app_lines.read(request.app, cases, contract)


def _phone_side(request: RunRequest, under: Mapping[Role, Under]) -> PhoneSide:
    return PhoneSide(
        contract=under["phone"].contract if request.phone_contract else None,
        bundle=run_record.bundle_record(under["phone"].bundle) if request.phone_bundle else None,
        runner_sha256=run_record.program_sha256(request.phone_runner)
        if request.phone_runner
        else None,
    )


def keep_pixels(images: Iterable[Prepared], folder: Path) -> None:
    """Copy what the models see into a run's `pixels` folder, named by content.

    The report shows it, long after the cache is gone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for image in images:
        kept = folder / f"{image.pixels_sha256}.png"
        if not kept.exists():
            part = kept.with_suffix(f".{secrets.token_hex(4)}.part")
            shutil.copyfile(image.pixels_path, part)
            part.replace(kept)


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
