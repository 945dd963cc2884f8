"""From a request to a plan: everything that can be refused is refused before anything runs."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from driftloop.devices.phone import Phone
from driftloop.harness import bundle as bundles
from driftloop.harness import contract as contracts
from driftloop.harness import gates_file, ladder, tokens
from driftloop.harness.arms import app as app_lines
from driftloop.harness.arms.app import AppAnswers
from driftloop.harness.arms.base import Prepared, Side
from driftloop.harness.bundle import Bundle
from driftloop.harness.contract import Contract
from driftloop.harness.errors import BadInput
from driftloop.harness.judgement.sampling import sampling_plan
from driftloop.harness.ladder import ArmSpec, Role
from driftloop.harness.progress import Progress
from driftloop.harness.records.inquiry import AppRemarks
from driftloop.harness.records.record import RunRecord
from driftloop.harness.running import images, result_cache, run_record
from driftloop.harness.running.images import Sides
from driftloop.harness.running.request import RunRequest
from driftloop.harness.running.run_record import installed_versions
from driftloop.harness.running.soundness import Soundness, soundness
from driftloop.harness.tokens import PromptSize
from driftloop.harness.training import record as training_record

_ANSWERED_BY = {
    "torch": ("torch", "transformers"),
    "desktop": ("llama_cpp_python",),
    "phone": (),
    "app": (),
}
APP_FOLDER = "app"
"""In a run folder: what was pulled from an app."""


@dataclass(frozen=True)
class Plan:
    """A request whose every part has been read and found good."""

    request: RunRequest
    bundle: Bundle
    specs: tuple[ArmSpec, ...]
    sides: Sides
    soundness: Soundness
    """Of the bundles' files."""
    prompt: PromptSize | None
    """Of the contract, around an image; None where no package here counts its tokens."""
    app: AppAnswers | None
    """None without the arm `app`."""
    record: RunRecord = field(repr=False)

    @property
    def runnable(self) -> tuple[ArmSpec, ...]:
        """The arms whose files llama.cpp can run."""
        return tuple(spec for spec in self.specs if spec.name not in self.soundness.unfit)

    @property
    def app_remarks(self) -> AppRemarks | None:
        """What the app's lines show beside the answers."""
        if self.app is None:
            return None
        quant = next((spec.quant for spec in reversed(self.specs) if spec.quant is not None), None)
        models = [] if quant is None else self._model_hashes(quant)
        return self.app.remarks(self.sides.by_role["app"].images.values(), models)

    def side(self, spec: ArmSpec) -> Side:
        """What that arm runs under."""
        return self.sides.of(spec.role)

    def arm_key(self, spec: ArmSpec) -> str:
        """Under which key this arm's answers are kept on this host."""
        if spec.quant is None:
            hashes = list(tokens.checkpoint_hashes(self.bundle).values())
        else:
            hashes = self._model_hashes(spec.quant)
        contract = self.side(spec).contract
        return result_cache.arm_key(spec, contract, hashes, answered_by(spec.kind))

    def trajectory_key(self, spec: ArmSpec, phone: str | None) -> str:
        """Under which key this arm's trajectories are kept on this host: a phone's for one run,
        since they also depend on its runner and processor."""
        return self.arm_key(spec) if phone is None else f"{self.record.run_id}-{phone}"

    def _model_hashes(self, quant: str) -> list[str]:
        models = (self.bundle.text_model(quant), self.bundle.mmproj(quant))
        return [self.bundle.file_sha256(path) for path in models]


def plan(request: RunRequest, attached: Sequence[Phone], progress: Progress) -> Plan:
    """Read and check every part of `request`; prepare the pixels every arm will get. Raises
    BadInput, saying which part is wrong and why."""
    request = _with_pulled(request, attached)
    bundle = bundles.load(request.bundle)
    contract = contracts.load(request.contract) if request.contract else bundle.contract
    training = _training(request, bundle)
    gates = gates_file.load(request.gates)
    if request.drive < 0:
        raise BadInput(f"--drive {request.drive}: name a number of cases, or 0 for none")
    if request.fixed is not None and request.fixed < 1:
        raise BadInput(f"--fixed {request.fixed}: name a number of images of at least 1")
    session_images = contract.limits.images_per_session
    test = sampling_plan(gates, ("platform",), session_images, request.fixed)
    progress.say(f"agreement: {test.sentence}")
    specs = _specs(request, bundle, attached, contract, training)
    under = _under(request, specs, Side(contract, bundle), training)
    prompt = _prompt(under["app"], specs, progress)
    checking = progress.track("checking the bundle")
    checking(0, 1)
    sound = soundness(under, specs, checking) if request.check_files else Soundness()
    checking(1, 1)
    prepared = images.prepare(
        request.images,
        under,
        request.seed,
        request.fixed or gates.most_images(session_images),
        progress.track,
        skip_bad=request.skip_bad,
    )
    for remark in prepared.remarks:
        progress.say(remark)
    cases = [slot.case for session in prepared.sessions for slot in session.slots]
    if request.fixed is not None and len(cases) < request.fixed:
        raise BadInput(
            f"--fixed {request.fixed}: {request.images} holds only {len(cases)} images that differ"
        )
    answers = None if request.app is None else app_lines.read(request.app, cases, contract)
    return Plan(
        request=request,
        bundle=bundle,
        specs=specs,
        sides=prepared,
        soundness=sound,
        prompt=prompt,
        app=answers,
        record=run_record.of(request, bundle, specs, attached, prepared, answers, gates),
    )


def answered_by(kind: str) -> dict[str, str]:
    """Package -> version of what computes the answers of an arm of that kind."""
    return installed_versions(_ANSWERED_BY[kind])


def missing_packages() -> list[str]:
    """Kinds of arms whose packages are not installed; the extra that brings them has their name."""
    return [kind for kind, names in _ANSWERED_BY.items() if len(answered_by(kind)) < len(names)]


def _training(request: RunRequest, bundle: Bundle) -> Contract | None:
    """The training side's contract; None where it is not known."""
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
    if not request.arms:
        missing = missing_packages()
        differs = training is not None and _asked(training) != _asked(contract)
        whole = ladder.default_ladder(
            request.quant,
            [phone.serial for phone in attached],
            training=differs or request.training is not None,
            app=request.app is not None,
        )
        names = [spec.name for spec in whole if spec.kind not in missing]
        return ladder.parse_ladder(names, bundle.quants)
    specs = ladder.parse_ladder(request.arms, bundle.quants)
    named = any(spec.training for spec in specs)
    if named and training is None:
        raise BadInput(
            f"arm {ladder.TRAINING}: it is not known how the checkpoint was trained; "
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
            "--arms names a phone arm: choose phones with --phone SERIAL, all or virtual"
        )
    return specs


def _asked(contract: Contract) -> dict[str, Any]:
    """The part of a contract that a single answer of the checkpoint depends on."""
    return contract.model_dump(
        exclude={"name": True, "runtime": True, "limits": {"images_per_session": True}}
    )


def _under(
    request: RunRequest, specs: Sequence[ArmSpec], app: Side, training: Contract | None
) -> dict[Role, Side]:
    """The side of every role that an arm of the run has, without images."""
    roles = {spec.role for spec in specs}
    under: dict[Role, Side] = {"app": app}
    if training is not None and "training" in roles:
        under["training"] = Side(training, app.bundle)
    given = (request.phone_contract, request.phone_bundle, request.phone_runner)
    if any(given):
        if "phone" not in roles:
            raise BadInput("--phone-contract, --phone-bundle and --phone-runner are for phones")
        under["phone"] = Side(
            contracts.load(request.phone_contract) if request.phone_contract else app.contract,
            bundles.load(request.phone_bundle) if request.phone_bundle else app.bundle,
        )
    return under


def _prompt(app: Side, specs: Sequence[ArmSpec], progress: Progress) -> PromptSize | None:
    """How large it is, if the contract's context holds it and the longest answer.

    A contract for phones alone is not checked: its effect is what the run is to show. Raises
    BadInput with both numbers where they do not fit.
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
            f"{context}; raise the contract's runtime.context, or reduce tiling, prompt or "
            "limits.max_tokens"
        )
    return prompt


def _with_pulled(request: RunRequest, attached: Sequence[Phone]) -> RunRequest:
    """With the app's lines copied from its phone into the run's folder."""
    if request.app_pull is None:
        return request
    if len(attached) != 1 or request.app is not None:
        raise BadInput(
            "--app-pull reads the lines of one phone: name it with --phone, and drop --app"
        )
    folder = request.out / APP_FOLDER
    return replace(request, app=app_lines.pulled(attached[0], request.app_pull, folder))


def keep_pixels(images: Iterable[Prepared], folder: Path) -> None:
    """Copy what the models see into a run's `pixels` folder, named by content, for the report:
    the cache may be gone by then."""
    folder.mkdir(parents=True, exist_ok=True)
    for image in images:
        kept = folder / f"{image.pixels_sha256}.png"
        if not kept.exists():
            part = kept.with_suffix(f".{secrets.token_hex(4)}.part")
            shutil.copyfile(image.pixels_path, part)
            part.replace(kept)
